/** What all parts of the sidebar are given. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Actions } from './actions';
import type { IGroup } from './api';
import type { CatalogModel } from './model';
import type { NotebookNavigator } from './notebooks';

export interface IContext {
  readonly model: CatalogModel;
  readonly actions: Actions;
  readonly navigator: NotebookNavigator;
  readonly trans: TranslationBundle;
}

/** A part of the sidebar that shows one group. */
export interface IGroupProps extends IContext {
  readonly group: IGroup;
}

const FORM: Intl.DateTimeFormatOptions = { dateStyle: 'medium', timeStyle: 'short' };

/** A moment of the server in the reader's own time and language; empty where there is none. */
export function whenWords(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.valueOf()) ? '' : at.toLocaleString(undefined, FORM);
}
