/** The one place that puts the state of a group into words, for the bar and the sidebar alike. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IGroup, IVersion } from './api';

/** What the person has done with the cell since the definition was last seen elsewhere. */
export type CellState = 'fresh' | 'previewed' | 'edited';

export function percent(progress: number): string {
  return `${Math.floor(Math.min(Math.max(progress, 0), 1) * 100)} %`;
}

/** The state of a group in a few words: `live v2`, `bootstrapping 40 %`. */
export function stateWords(trans: TranslationBundle, group: IGroup): string {
  switch (group.state) {
    case 'live':
      return trans.__('live v%1', group.version ?? group.latest);
    case 'bootstrapping':
      return group.progress === null
        ? trans.__('bootstrapping')
        : trans.__('bootstrapping %1', percent(group.progress));
    case 'failing':
      return trans.__('failing');
    case 'stopped':
      return trans.__('stopped');
    default:
      return trans.__('draft');
  }
}

/** The line a bar shows: the catalog's state, then what the cell adds to it. */
export function barWords(
  trans: TranslationBundle,
  group: IGroup | undefined,
  cell: CellState,
  matches: boolean
): string {
  const parts: string[] = [];
  if (group && group.state !== 'draft') {
    parts.push(stateWords(trans, group));
    if (group.state === 'bootstrapping' && group.version !== null) {
      parts.push(trans.__('v%1 serves meanwhile', group.version));
    }
    if (group.state === 'failing' && group.error) {
      parts[0] = trans.__('failing: %1', group.error);
    }
    if (cell === 'edited') {
      parts.push(trans.__('edited since last run'));
    } else if (!matches) {
      parts.push(
        cell === 'previewed'
          ? trans.__('previewed, not promoted')
          : trans.__('not the promoted text')
      );
    }
    return parts.join(' · ');
  }
  if (cell === 'edited') {
    return trans.__('edited since last run');
  }
  // A cell that ran and failed left nothing in the catalog: it was not previewed.
  return group && cell === 'previewed' ? trans.__('previewed') : trans.__('draft');
}

/** What becomes of a version just now. */
export function versionWords(trans: TranslationBundle, version: IVersion): string {
  switch (version.state) {
    case 'serves':
      return trans.__('serves');
    case 'wanted':
      return trans.__('is being built');
    case 'kept':
      return trans.__('kept to go back to');
    case 'retired':
      return trans.__('retired');
    default:
      return trans.__('draft');
  }
}

/** How far a group is behind, in a few characters; while it bootstraps, the progress says that. */
export function lagWords(trans: TranslationBundle, group: IGroup): string {
  return group.lag === null || group.state === 'bootstrapping'
    ? ''
    : trans.__('lag %1', group.lag.toLocaleString(undefined, { notation: 'compact' }));
}
