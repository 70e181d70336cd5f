/** The versions of a group: who made each, what it changed, and the end of those that are not needed. */

import * as React from 'react';

import type { IAbout, IDiff, IVersion } from './api';
import { whenWords } from './context';
import type { IGroupProps } from './context';
import { versionWords } from './states';

/** A diff's lines with their signs, which say what the colours say. */
export function Diff(props: Pick<IGroupProps, 'trans'> & { diff: IDiff }): JSX.Element {
  const { diff, trans } = props;
  // The header names what the button named; the places of lines in so short a text tell nobody much.
  const lines = diff.lines.slice(2).filter(line => !line.startsWith('@@'));
  return (
    <div className="fs-Diff">
      <ul>
        {(diff.words.length ? diff.words : [trans.__('nothing changed')]).map((word, index) => (
          <li key={index}>{word}</li>
        ))}
      </ul>
      {lines.length > 0 && (
        <pre
          tabIndex={0}
          role="group"
          aria-label={trans.__('From %1 to %2', diff.before, diff.after)}
        >
          {lines.map((line, index) => (
            <span key={index} className="fs-Diff-line" data-sign={line.slice(0, 1)}>
              {line}
            </span>
          ))}
        </pre>
      )}
    </div>
  );
}

function numberOf(version: IVersion): number | null {
  return version.label === 'draft' ? null : Number(version.label.slice(1));
}

function Version(
  props: IGroupProps & { version: IVersion; before: IVersion | undefined }
): JSX.Element {
  const { actions, before, group, model, trans, version } = props;
  const [diff, setDiff] = React.useState<IDiff | string | null>(null);
  const number = numberOf(version);
  const [name, label] = [group.name, version.label];
  const stamp = `${before?.fingerprint}:${version.fingerprint}`;
  React.useEffect(() => setDiff(null), [stamp]);
  const compare = async (): Promise<void> => {
    if (diff !== null || !before) {
      setDiff(null);
      return;
    }
    try {
      setDiff(await model.api.diff(name, before.label, label));
    } catch (error) {
      setDiff(String(error));
    }
  };
  const retirable = version.state === 'kept' || version.state === 'draft';
  return (
    <li>
      <div className="fs-Version">
        <span className="fs-Version-label">{label}</span>
        {version.state !== 'draft' && <span>{versionWords(trans, version)}</span>}
        <span className="fs-Dim">
          {version.at ? trans.__('%1 by %2', whenWords(version.at), version.actor) : version.actor}
        </span>
      </div>
      <div className="fs-Version-buttons">
        {before && (
          <button
            type="button"
            className="fs-Link"
            aria-expanded={diff !== null}
            aria-label={trans.__('What %1 changed since %2', label, before.label)}
            onClick={() => void compare()}
          >
            {trans.__('Changes since %1', before.label)}
          </button>
        )}
        {retirable && (
          <button
            type="button"
            className="fs-Link"
            disabled={!model.writable || model.busy(name) !== null}
            aria-label={
              number === null
                ? trans.__('Discard the draft of %1', name)
                : trans.__('Retire %1 of %2', label, name)
            }
            onClick={() => void actions.retire(name, number)}
          >
            {number === null ? trans.__('Discard…') : trans.__('Retire…')}
          </button>
        )}
      </div>
      {typeof diff === 'string' && <p role="alert">{diff}</p>}
      {diff !== null && typeof diff !== 'string' && <Diff trans={trans} diff={diff} />}
    </li>
  );
}

export function Versions(props: IGroupProps & { about: IAbout }): JSX.Element {
  const { versions } = props.about;
  // A draft is compared with what serves, or else with the newest version.
  const serving = versions.find(version => version.state === 'serves');
  return (
    <ul className="fs-Versions" role="list">
      {versions.map((version, index) => (
        <Version
          key={version.label}
          {...props}
          version={version}
          before={
            version.label === 'draft' ? (serving ?? versions[index + 1]) : versions[index + 1]
          }
        />
      ))}
    </ul>
  );
}
