/** One group in full: definition, health, versions, lineage, readers, words, and what can be done. */

import * as React from 'react';

import type { IAbout } from './api';
import { whenWords } from './context';
import type { IGroupProps } from './context';
import { Lineage } from './lineage';
import { liftLines } from './portrait';
import { definitionCell } from './snippets';
import { Sql } from './sql';
import { percent } from './states';
import { Values } from './values';
import { Versions } from './versions';

type Props = IGroupProps & { id: string; show: (name: string) => void };

/** All that the catalog knows of a group, read again when the group changed; an error as a text. */
function useAbout({ group, model }: Props): IAbout | string | null {
  const [about, setAbout] = React.useState<IAbout | string | null>(null);
  const { name, updated_at, version, latest, status } = group;
  React.useEffect(() => {
    let current = true;
    model.api
      .about(name)
      .then(found => current && setAbout(found))
      .catch(error => current && setAbout(String(error.message ?? error)));
    return () => {
      current = false;
    };
  }, [name, updated_at, version, latest, status, model.writable]);
  return about;
}

function Fact(props: { label: string; children: React.ReactNode }): JSX.Element | null {
  return !props.children ? null : (
    <>
      <dt>{props.label}</dt>
      <dd>{props.children}</dd>
    </>
  );
}

function Part(props: { title: string; open?: boolean; children: React.ReactNode }): JSX.Element {
  return (
    <details className="fs-Part" open={props.open}>
      <summary>{props.title}</summary>
      {props.children}
    </details>
  );
}

function Notices({ group, trans, show }: Props): JSX.Element {
  const { deprecated, error } = group;
  return (
    <>
      {error && (
        <p className="fs-Card-error" role="alert">
          {error}
        </p>
      )}
      {deprecated && (
        <p className="fs-Card-deprecated" role="note">
          <strong>{trans.__('Deprecated')}</strong>{' '}
          {trans.__('by %1, %2', deprecated.actor, whenWords(deprecated.at))}
          {deprecated.reason && `: ${deprecated.reason}`}
          {deprecated.instead && (
            <>
              {' '}
              <button
                type="button"
                className="fs-Link"
                onClick={() => show(deprecated.instead ?? '')}
              >
                {trans.__('Use %1 instead', deprecated.instead)}
              </button>
            </>
          )}
        </p>
      )}
    </>
  );
}

/** The facts that change from second to second, and what it brings a model. */
function Health({ about, group, trans }: Props & { about: IAbout | null }): JSX.Element {
  const lifts = about ? liftLines(trans, about) : [];
  const rate = group.events_per_second;
  const by = (at: string, who: string | null): string =>
    at && who ? trans.__('%1 by %2', whenWords(at), who) : whenWords(at);
  return (
    <dl>
      <Fact label={trans.__('Serving')}>
        {group.version === null ? '' : trans.__('v%1 of %2', group.version, group.latest)}
      </Fact>
      <Fact label={trans.__('Bootstrap')}>
        {group.state === 'bootstrapping' && group.progress !== null ? percent(group.progress) : ''}
      </Fact>
      <Fact label={trans.__('Lag')}>
        {group.lag === null
          ? ''
          : trans._n('%2 event', '%2 events', group.lag, group.lag.toLocaleString())}
      </Fact>
      <Fact label={trans.__('Events/s')}>
        {rate === null ? '' : rate.toLocaleString(undefined, { maximumFractionDigits: 1 })}
      </Fact>
      <Fact label={trans.__('Position')}>{group.position ?? ''}</Fact>
      <Fact label={trans.__('Lift')}>
        {lifts.length > 0 && lifts.map(line => <div key={line}>{line}</div>)}
      </Fact>
      <Fact label={trans.__('Owner')}>{group.owner ?? ''}</Fact>
      <Fact label={trans.__('Tags')}>{group.tags.join(', ')}</Fact>
      <Fact label={trans.__('Created')}>{by(group.created_at, group.created_by)}</Fact>
      <Fact label={trans.__('Changed')}>{by(group.updated_at, group.actor)}</Fact>
    </dl>
  );
}

function Button(props: {
  label: string;
  name?: string;
  accept?: boolean;
  disabled?: boolean;
  title?: string;
  act: () => unknown;
}): JSX.Element {
  return (
    <button
      type="button"
      className={props.accept ? 'fs-Button fs-mod-accept' : 'fs-Button'}
      disabled={props.disabled}
      title={props.title}
      aria-label={props.name}
      onClick={() => void props.act()}
    >
      {props.label}
    </button>
  );
}

function Buttons(props: Props & { about: IAbout | null }): JSX.Element {
  const { about, actions, group, model, navigator, trans } = props;
  const { name, previous } = group;
  const locked = model.busy(name) !== null || !model.writable;
  const notebook = about?.notebook;
  return (
    <div className="fs-Card-buttons">
      <Button
        accept
        label={trans.__('Promote')}
        name={trans.__('Promote %1', name)}
        disabled={locked}
        act={() => actions.promote(name)}
      />
      {previous !== null && (
        <Button
          label={trans.__('Roll back to v%1', previous)}
          name={trans.__('Roll back %1 to v%2', name, previous)}
          disabled={locked}
          act={() => actions.rollback(name)}
        />
      )}
      {navigator.owns(name) ? (
        <Button
          label={trans.__('Go to cell')}
          name={trans.__('Go to the cell of %1', name)}
          act={() => navigator.reveal(name, true)}
        />
      ) : (
        notebook && (
          <Button
            label={trans.__('Open notebook')}
            name={trans.__('Open the notebook of %1', name)}
            title={about?.origin ?? notebook}
            act={() => navigator.open(notebook, name)}
          />
        )
      )}
      <Button
        label={trans.__('Insert cell')}
        name={trans.__('Insert a cell with the definition of %1', name)}
        act={() =>
          navigator.insert(definitionCell(group)) ||
          actions.say(trans.__('Open a notebook first: the cell goes under its active one.'))
        }
      />
      <Button
        label={trans.__('Copy serving call')}
        name={trans.__('Copy the call that serves %1', name)}
        act={() => actions.copyServing(group)}
      />
      <Button
        label={trans.__('Describe…')}
        name={trans.__('Describe %1', name)}
        disabled={locked}
        act={() => actions.describe(group)}
      />
      {group.deprecated ? (
        <Button
          label={trans.__('Take deprecation back')}
          name={trans.__('Take the deprecation of %1 back', name)}
          disabled={locked}
          act={() => actions.undeprecate(name)}
        />
      ) : (
        <Button
          label={trans.__('Deprecate…')}
          name={trans.__('Deprecate %1', name)}
          disabled={locked}
          act={() => actions.deprecate(name)}
        />
      )}
    </div>
  );
}

function Readers({ about, trans }: Props & { about: IAbout }): JSX.Element {
  return (
    <ul className="fs-Lines" role="list">
      {about.uses.length === 0 && <li className="fs-Dim">{trans.__('Nobody so far.')}</li>}
      {about.uses.map(use => (
        <li key={`${use.kind} ${use.who} ${use.host}`}>
          {trans.__('%1 by %2 on %3', use.kind, use.who, use.host)}{' '}
          <span className="fs-Dim">
            {trans._n('%2 read', '%2 reads', use.reads, use.reads.toLocaleString())}
            {', '}
            {trans.__('last %1', whenWords(use.last_at))}
          </span>
        </li>
      ))}
    </ul>
  );
}

function History({ about, trans }: Props & { about: IAbout }): JSX.Element {
  return (
    <ul className="fs-Lines" role="list">
      {about.history.map((change, index) => (
        <li key={index}>
          {change.text}{' '}
          <span className="fs-Dim">{trans.__('%1 by %2', whenWords(change.at), change.actor)}</span>
        </li>
      ))}
    </ul>
  );
}

export function Card(props: Props): JSX.Element {
  const { group, trans } = props;
  const about = useAbout(props);
  const known = about === null || typeof about === 'string' ? null : about;
  return (
    <div className="fs-Card" id={props.id} role="region" aria-label={group.name}>
      <Notices {...props} />
      {group.description && <p>{group.description}</p>}
      {group.state === 'bootstrapping' && group.progress !== null && (
        <progress
          max={1}
          value={group.progress}
          aria-label={trans.__('Bootstrap of %1', group.name)}
        />
      )}
      <Buttons {...props} about={known} />
      <pre tabIndex={0} role="group" aria-label={trans.__('Definition')}>
        <Sql text={group.definition} />
      </pre>
      <ul className="fs-Lines" role="list" aria-label={trans.__('Features')}>
        {group.features.map(feature => (
          <li key={feature.name}>
            {feature.name} <span className="fs-Dim">{feature.type}</span>
          </li>
        ))}
      </ul>
      <Health {...props} about={known} />
      <Values {...props} />
      {typeof about === 'string' && <p className="fs-Dim">{about}</p>}
      {known && (
        <>
          <Part title={trans.__('Versions')} open>
            <Versions {...props} about={known} />
          </Part>
          <Part title={trans.__('Lineage')} open>
            <Lineage trans={trans} lineage={known.lineage} open={props.show} />
          </Part>
          <Part title={trans.__('Read by')} open>
            <Readers {...props} about={known} />
          </Part>
          <Part title={trans.__('History')}>
            <History {...props} about={known} />
          </Part>
        </>
      )}
    </div>
  );
}
