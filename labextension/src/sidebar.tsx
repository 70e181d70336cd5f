/** The catalog in the left sidebar: searched, grouped by entity, one card at a time. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { IStateDB } from '@jupyterlab/statedb';
import { VDomRenderer } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IGroup } from './api';
import type { IActions } from './bar';
import { catalogIcon } from './icon';
import type { CatalogModel, Notice } from './model';
import { lagWords, percent, stateWords } from './states';

const STATE_KEY = 'fs-notebook:sidebar';

/** What the sidebar asks of the notebooks. */
export interface INavigator {
  /** Scroll to the cell that defines this group; false where no open notebook has one. */
  reveal(name: string, focus: boolean): boolean;
  /** Whether some open notebook has a cell that defines this group. */
  owns(name: string): boolean;
}

interface IContext {
  readonly model: CatalogModel;
  readonly actions: IActions;
  readonly navigator: INavigator;
  readonly trans: TranslationBundle;
}

/** The words that a search looks through. */
function haystack(group: IGroup): string {
  const words = [group.name, ...group.entity, ...group.tags, group.owner, group.description];
  return [...words, ...group.features.map(feature => feature.name)].join(' ').toLocaleLowerCase();
}

export function matching(groups: readonly IGroup[], search: string): IGroup[] {
  const terms = search.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  return groups.filter(group => {
    const text = haystack(group);
    return terms.every(term => text.includes(term));
  });
}

/** Entities in alphabetical order, each with its groups by name. */
export function byEntity(groups: readonly IGroup[]): [string, IGroup[]][] {
  const sections = new Map<string, IGroup[]>();
  for (const group of [...groups].sort((a, b) => a.name.localeCompare(b.name))) {
    const entity = group.entity.join(', ');
    sections.set(entity, [...(sections.get(entity) ?? []), group]);
  }
  return [...sections].sort(([a], [b]) => a.localeCompare(b));
}

function noticeText(trans: TranslationBundle, notice: Notice): string {
  switch (notice.kind) {
    case 'gone':
      return trans.__('The Jupyter server does not answer. What is shown is what was last known.');
    case 'absent':
      return trans.__(
        'This Jupyter server runs without the fs_notebook extension. In the notebook, %1 and %2 do the same.',
        '%%feature',
        '%feature promote'
      );
    default:
      return notice.text;
  }
}

/** A ledger's or a store's address, short where it is a file or a socket of this machine. */
function placeWords(trans: TranslationBundle, place: unknown): string {
  const text = String(place);
  return /^(embedded|unix)\b/.test(text) ? trans.__('embedded') : text;
}

/** When and by whom a group was changed last; empty where nobody promoted it yet. */
function changedWords(trans: TranslationBundle, group: IGroup): string {
  const at = new Date(group.updated_at);
  if (Number.isNaN(at.valueOf())) {
    return '';
  }
  const when = at.toLocaleString();
  return group.actor ? trans.__('%1 by %2', when, group.actor) : when;
}

function Fact(props: { label: string; children: React.ReactNode }): JSX.Element | null {
  return props.children === null || props.children === '' ? null : (
    <>
      <dt>{props.label}</dt>
      <dd>{props.children}</dd>
    </>
  );
}

function Card(props: IContext & { group: IGroup; id: string }): JSX.Element {
  const { group, trans, actions, model, navigator } = props;
  const busy = model.busy(group.name) || !model.writable;
  const former = group.previous;
  const rate = group.events_per_second;
  return (
    <div className="fs-Card" id={props.id} role="region" aria-label={group.name}>
      {group.error && (
        <p className="fs-Card-error" role="alert">
          {group.error}
        </p>
      )}
      {group.description && <p>{group.description}</p>}
      {group.state === 'bootstrapping' && group.progress !== null && (
        <progress
          max={1}
          value={group.progress}
          aria-label={trans.__('Bootstrap of %1', group.name)}
        />
      )}
      <pre tabIndex={0} role="group" aria-label={trans.__('Definition')}>
        {group.definition}
      </pre>
      <dl>
        <Fact label={trans.__('Features')}>
          {group.features.map(feature => (
            <span key={feature.name} className="fs-Card-feature">
              {feature.name} <span className="fs-Dim">{feature.type}</span>
            </span>
          ))}
        </Fact>
        <Fact label={trans.__('Serving')}>
          {group.version === null ? '' : trans.__('v%1 of %2', group.version, group.latest)}
        </Fact>
        <Fact label={trans.__('Bootstrap')}>
          {group.state === 'bootstrapping' && group.progress !== null
            ? percent(group.progress)
            : ''}
        </Fact>
        <Fact label={trans.__('Owner')}>{group.owner ?? ''}</Fact>
        <Fact label={trans.__('Tags')}>{group.tags.join(', ')}</Fact>
        <Fact label={trans.__('Position')}>{group.position ?? ''}</Fact>
        <Fact label={trans.__('Lag')}>
          {group.lag === null
            ? ''
            : trans._n('%2 event', '%2 events', group.lag, group.lag.toLocaleString())}
        </Fact>
        <Fact label={trans.__('Events/s')}>
          {rate === null ? '' : rate.toLocaleString(undefined, { maximumFractionDigits: 1 })}
        </Fact>
        <Fact label={trans.__('Changed')}>{changedWords(trans, group)}</Fact>
      </dl>
      <div className="fs-Card-buttons">
        <button
          type="button"
          className="fs-Button fs-mod-accept"
          disabled={busy}
          aria-label={trans.__('Promote %1', group.name)}
          onClick={() => void actions.promote(group.name)}
        >
          {trans.__('Promote')}
        </button>
        {former !== null && (
          <button
            type="button"
            className="fs-Button"
            disabled={busy}
            aria-label={trans.__('Roll back %1 to v%2', group.name, former)}
            onClick={() => void actions.rollback(group.name)}
          >
            {trans.__('Roll back to v%1', former)}
          </button>
        )}
        {navigator.owns(group.name) && (
          <button
            type="button"
            className="fs-Button"
            aria-label={trans.__('Go to the cell of %1', group.name)}
            onClick={() => navigator.reveal(group.name, true)}
          >
            {trans.__('Go to cell')}
          </button>
        )}
      </div>
    </div>
  );
}

function Row(
  props: IContext & { group: IGroup; open: boolean; toggle: (name: string) => void }
): JSX.Element {
  const { group, open, trans } = props;
  const id = `fs-card-${group.name}`;
  return (
    <li className="fs-Row">
      <button
        type="button"
        className="fs-Row-button"
        aria-expanded={open}
        aria-controls={open ? id : undefined}
        onClick={() => props.toggle(group.name)}
      >
        <span className="fs-Dot" data-state={group.state} aria-hidden="true" />
        <span className="fs-Row-name" title={group.name}>
          {group.name}
        </span>
        <span className="fs-Row-state">{stateWords(trans, group)}</span>
        <span className="fs-Row-lag fs-Dim">{lagWords(trans, group)}</span>
      </button>
      {open && <Card {...props} id={id} />}
    </li>
  );
}

/** Move the focus between the search field and the rows, as in any list. */
function onArrow(event: React.KeyboardEvent<HTMLElement>): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const from = event.target as HTMLElement;
  if (!step || !from.matches('.fs-Row-button, .fs-Search')) {
    return;
  }
  const stops = [
    ...event.currentTarget.querySelectorAll<HTMLElement>('.fs-Search, .fs-Row-button')
  ];
  stops[stops.indexOf(from) + step]?.focus();
  event.preventDefault();
}

export class CatalogSidebar extends VDomRenderer<CatalogModel> {
  constructor(
    private readonly _context: IContext,
    private readonly _state: IStateDB | null
  ) {
    super(_context.model);
    const { trans } = _context;
    this.id = 'fs-notebook-catalog';
    this.title.icon = catalogIcon;
    this.title.caption = trans.__('Feature catalog');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Feature catalog'));
    this.addClass('fs-Sidebar');
    void this._restore();
  }

  protected onActivateRequest(): void {
    this.node.querySelector<HTMLInputElement>('.fs-Search')?.focus();
  }

  protected render(): JSX.Element {
    const { trans, model } = this._context;
    const shown = matching(model.groups, this._search);
    const connection = Object.entries(model.connection).filter(([, value]) => value);
    return (
      <div className="fs-Sidebar-inner" onKeyDown={onArrow}>
        <input
          type="search"
          className="fs-Search"
          aria-label={trans.__('Search features')}
          placeholder={trans.__('Search features')}
          value={this._search}
          onChange={event => this._set({ search: event.target.value })}
          onKeyDown={event => event.key === 'Escape' && this._set({ search: '' })}
        />
        {model.notice && (
          <p className="fs-Notice" data-kind={model.notice.kind} role="alert">
            {noticeText(trans, model.notice)}
          </p>
        )}
        <div className="fs-List">
          {byEntity(shown).map(([entity, groups]) => (
            <section key={entity} aria-label={trans.__('Entity %1', entity)}>
              <h3 className="fs-Entity">{entity}</h3>
              <ul className="fs-Rows" role="list">
                {groups.map(group => (
                  <Row
                    key={group.name}
                    {...this._context}
                    group={group}
                    open={group.name === this._open}
                    toggle={name => this._toggle(name)}
                  />
                ))}
              </ul>
            </section>
          ))}
        </div>
        <p className="fs-Count" role="status">
          {this._count(shown.length)}
        </p>
        {connection.length > 0 && (
          <p
            className="fs-Connection fs-Dim"
            title={connection.map(([, value]) => String(value)).join('\n')}
          >
            {connection.map(([key, value]) => `${key}: ${placeWords(trans, value)}`).join(' · ')}
          </p>
        )}
      </div>
    );
  }

  private _count(shown: number): string {
    const { trans, model } = this._context;
    const total = model.groups.length;
    if (!model.ready) {
      return trans.__('Loading…');
    }
    if (total === 0) {
      return model.notice
        ? ''
        : trans.__('No features yet: write a %1 cell and promote it.', '%%feature');
    }
    if (shown < total) {
      return trans.__('%1 of %2 features', shown, total);
    }
    return trans._n('%1 feature', '%1 features', total);
  }

  private _toggle(name: string): void {
    const open = this._open === name ? null : name;
    this._set({ open });
    if (open) {
      this._context.navigator.reveal(open, false);
    }
  }

  private _set(change: { search?: string; open?: string | null }): void {
    this._search = change.search ?? this._search;
    this._open = change.open === undefined ? this._open : change.open;
    this.update();
    void this._state?.save(STATE_KEY, { search: this._search, open: this._open });
  }

  private async _restore(): Promise<void> {
    const saved = (await this._state?.fetch(STATE_KEY)) as
      { search?: unknown; open?: unknown } | undefined;
    if (typeof saved?.search === 'string') {
      this._search = saved.search;
    }
    if (typeof saved?.open === 'string') {
      this._open = saved.open;
    }
    this.update();
  }

  private _search = '';
  private _open: string | null = null;
}
