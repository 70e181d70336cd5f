/** What a promotion would do, in words: for the question before it. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { INode, IOutlook, IUse } from './api';
import type { CellState } from './states';

/** When to ask before a promotion. */
export type Asking = 'always' | 'when it matters' | 'never';

const LONG_S = 10;
const NAMES_MAX = 8;

/** Whether a promotion takes long, or changes what somebody else reads. */
export function matters(outlook: IOutlook, cell: CellState): boolean {
  const quick = outlook.work !== 'fold' || (outlook.seconds !== null && outlook.seconds <= LONG_S);
  const replaces = outlook.serving !== null && outlook.work !== 'serves';
  const others = outlook.used_by.length > 0 || outlook.readers.length > 0;
  return !quick || (replaces && others) || outlook.notes.length > 0 || cell === 'edited';
}

/** A length of time as somebody would say it, who does not know better. */
export function aboutWords(trans: TranslationBundle, seconds: number): string {
  if (seconds < 8) {
    return trans.__('a few seconds');
  }
  if (seconds < 90) {
    return trans.__('about %1 s', Math.ceil(seconds));
  }
  if (seconds < 90 * 60) {
    return trans.__('about %1 min', Math.ceil(seconds / 60));
  }
  return trans.__('about %1 h', Math.ceil(seconds / 3600));
}

function versionWords(trans: TranslationBundle, outlook: IOutlook): string {
  const { version, serving, work } = outlook;
  if (work === 'serves') {
    return trans.__('v%1, which serves already: nothing changes', version);
  }
  return serving === null
    ? trans.__('v%1', version)
    : trans.__('v%1; v%2 serves until it is live, and can be returned to', version, serving);
}

function historyWords(trans: TranslationBundle, outlook: IOutlook): string {
  const streams = outlook.streams.join(', ');
  switch (outlook.work) {
    case 'warm':
      return trans.__('none: its state was kept up to date');
    case 'derived':
      return trans.__('none: it is computed from %1', outlook.depends_on.join(', '));
    case 'serves':
      return '';
    default:
      return outlook.events === null
        ? trans.__('all of %1', streams)
        : trans._n(
            '%2 event of %3',
            '%2 events of %3',
            outlook.events,
            outlook.events.toLocaleString(),
            streams
          );
  }
}

function timeWords(trans: TranslationBundle, outlook: IOutlook): string {
  if (outlook.work === 'serves') {
    return '';
  }
  if (outlook.work === 'fold' && outlook.seconds === null) {
    return trans.__('not known beforehand');
  }
  return outlook.work === 'fold' ? aboutWords(trans, outlook.seconds ?? 0) : trans.__('at once');
}

/** Names as one text; of many the first few. */
export function listed(trans: TranslationBundle, names: readonly string[]): string {
  const shown = names.slice(0, NAMES_MAX).join(', ');
  const more = names.length - NAMES_MAX;
  return more > 0 ? trans.__('%1 and %2 more', shown, more) : shown;
}

export function nodeWords(trans: TranslationBundle, nodes: readonly INode[]): string {
  return listed(
    trans,
    nodes.map(({ kind, name }) => (kind === 'group' ? name : `${name} (${kind})`))
  );
}

export function readerWords(trans: TranslationBundle, readers: readonly IUse[]): string {
  return listed(
    trans,
    readers.map(({ kind, who, host, reads }) =>
      trans.__('%1 on %2 (%3, %4×)', who, host, kind, reads.toLocaleString())
    )
  );
}

/** Label and text of each line of the question; lines without a text are left out. */
export function outlookLines(
  trans: TranslationBundle,
  outlook: IOutlook,
  cell: CellState
): [string, string][] {
  const users = [nodeWords(trans, outlook.used_by), readerWords(trans, outlook.readers)];
  const lines: [string, string][] = [
    [trans.__('Version'), versionWords(trans, outlook)],
    [trans.__('Changes'), outlook.changes.join('; ')],
    [trans.__('History to fold'), historyWords(trans, outlook)],
    [trans.__('Time'), timeWords(trans, outlook)],
    [trans.__('Used by'), users.filter(Boolean).join('; ') || trans.__('nobody so far')],
    [
      trans.__('Cell'),
      cell === 'edited'
        ? trans.__('edited and not run since: its text as it stands now is promoted')
        : ''
    ],
    [trans.__('Mind'), outlook.notes.join('; ')]
  ];
  return lines.filter(([, text]) => text);
}
