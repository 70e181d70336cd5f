/** The catalog in the left sidebar: searched, filtered, grouped by entity, one card at a time. */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { IStateDB } from '@jupyterlab/statedb';
import { VDomRenderer } from '@jupyterlab/ui-components';
import * as React from 'react';

import type { IGroup } from './api';
import type { IContext } from './context';
import { Filters } from './filters';
import { catalogIcon } from './icon';
import { List } from './list';
import type { CatalogModel, Notice } from './model';
import { byEntity, FILTERS, matching, parseQuery } from './query';
import type { IQuery } from './query';

const STATE_KEY = 'fs-notebook:sidebar';
const PAUSE_MS = 200;

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

/** From the search field the arrow leads to the first row; the list does the rest. */
function onArrow(event: React.KeyboardEvent<HTMLElement>): void {
  const from = event.target as HTMLElement;
  if (event.key === 'ArrowDown' && from.matches('.fs-Search')) {
    event.currentTarget.querySelector<HTMLElement>('.fs-Row-button')?.focus();
    event.preventDefault();
  }
}

/** What the server found for a query that has no match as it stands: it forgives typos. */
interface IForgiven {
  readonly search: string;
  readonly names: readonly string[];
  readonly notes: readonly string[];
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

  dispose(): void {
    window.clearTimeout(this._pause);
    super.dispose();
  }

  protected onActivateRequest(): void {
    this.node.querySelector<HTMLInputElement>('.fs-Search')?.focus();
  }

  protected render(): JSX.Element {
    const { trans, model } = this._context;
    const { sections, count, notes } = this._found();
    const connection = Object.entries(model.connection).filter(([, value]) => value);
    return (
      <div className="fs-Sidebar-inner" onKeyDown={onArrow}>
        <Filters
          trans={trans}
          groups={model.groups}
          search={this._search}
          change={search => this._set({ search })}
        />
        {model.notice && (
          <p className="fs-Notice" data-kind={model.notice.kind} role="alert">
            {noticeText(trans, model.notice)}
          </p>
        )}
        {notes.map(note => (
          <p key={note} className="fs-Note">
            {note}
          </p>
        ))}
        <List
          {...this._context}
          sections={sections}
          open={this._open}
          toggle={name => this._toggle(name)}
          show={name => this._show(name)}
        />
        <p className="fs-Count" role="status">
          {this._count(count)}
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

  /** What the search finds; kept until the catalog or the search is another. */
  private _found(): { sections: [string, IGroup[]][]; count: number; notes: string[] } {
    const { model, trans } = this._context;
    const forgiven = this._forgiven?.search === this._search ? this._forgiven : null;
    const key = [model.groups, this._search, forgiven];
    if (this._kept && key.every((part, index) => part === this._kept?.key[index])) {
      return this._kept.found;
    }
    const query = parseQuery(this._search);
    const notes: string[] = [];
    let groups = matching(model.groups, query);
    if (query.unknown !== null) {
      const known = FILTERS.map(filter => `${filter}:`).join(' ');
      notes.push(trans.__('There is no filter %1:. There are %2', query.unknown, known));
    }
    if (groups.length === 0 && forgiven) {
      groups = forgiven.names.flatMap(name => model.group(name) ?? []);
      notes.push(...forgiven.notes);
    } else if (groups.length === 0) {
      this._ask(query);
    }
    const found = { sections: byEntity(groups), count: groups.length, notes };
    this._kept = { key, found };
    return found;
  }

  /** Ask the server for what may have been meant, once nothing is typed for a moment. */
  private _ask(query: IQuery): void {
    const { model } = this._context;
    window.clearTimeout(this._pause);
    if (!query.terms.length || query.unknown !== null || !model.writable || !model.groups.length) {
      return;
    }
    const search = this._search;
    this._pause = window.setTimeout(() => {
      model.api
        .search(search)
        .then(({ entries, notes }) => {
          const names = entries.filter(({ kind }) => kind === 'group').map(({ name }) => name);
          this._forgiven = { search, names, notes };
          this.update();
        })
        .catch(reason => console.warn('fs-notebook: the server did not search', reason));
    }, PAUSE_MS);
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
    const all = total.toLocaleString();
    return shown < total
      ? trans.__('%1 of %2 features', shown.toLocaleString(), all)
      : trans._n('%2 feature', '%2 features', total, all);
  }

  private _toggle(name: string): void {
    const open = this._open === name ? null : name;
    this._set({ open });
    if (open) {
      this._context.navigator.reveal(open, false);
    }
  }

  /** Open another group's card, whatever is searched for now. */
  private _show(name: string): void {
    const hidden = !this._found().sections.some(([, groups]) => groups.some(g => g.name === name));
    this._set({ open: name, ...(hidden ? { search: '' } : {}) });
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
  private _forgiven: IForgiven | null = null;
  private _kept: { key: unknown[]; found: ReturnType<CatalogSidebar['_found']> } | null = null;
  private _pause = 0;
}
