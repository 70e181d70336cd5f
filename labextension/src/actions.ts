/** What the buttons do: the same functions behind the bars, the sidebar and the commands. */

import { Clipboard, Notification } from '@jupyterlab/apputils';
import { ServerConnection } from '@jupyterlab/services';
import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import type { TranslationBundle } from '@jupyterlab/translation';

import { Refusal } from './api';
import type { IGroup } from './api';
import { askDeprecate, askPromote, askRetire, askWords } from './dialogs';
import type { CatalogModel } from './model';
import { matters } from './outlook';
import type { Asking } from './outlook';
import { servingSnippet } from './snippets';
import type { CellState } from './states';

const SAID_MS = 3000;
const EXPLAINED_MS = 8000;

export class Actions {
  constructor(
    private readonly _model: CatalogModel,
    private readonly _trans: TranslationBundle
  ) {}

  /** The user's settings, once they are read. */
  settings: ISettingRegistry.ISettings | null = null;

  /** Promote the definition in this cell's text. */
  promoteSource(name: string, source: string, cell: CellState): Promise<void> {
    return this._promote(name, source, cell);
  }

  /** Promote the latest version that the catalog has. */
  promote(name: string): Promise<void> {
    return this._promote(name, null, 'previewed');
  }

  rollback(name: string): Promise<void> {
    return this._try(() => this._model.rollback(name));
  }

  retire(name: string, version: number | null): Promise<void> {
    return this._try(async () => {
      const about = await this._model.api.about(name);
      if (await askRetire(this._trans, about, version)) {
        await this._model.change(name, api => api.retire(name, version));
      }
    });
  }

  deprecate(name: string): Promise<void> {
    return this._try(async () => {
      const given = await askDeprecate(this._trans, await this._model.api.about(name));
      if (given) {
        await this._model.change(name, api => api.deprecate(name, given));
      }
    });
  }

  undeprecate(name: string): Promise<void> {
    return this._try(() => this._model.change(name, api => api.deprecate(name, { undo: true })));
  }

  describe(group: IGroup): Promise<void> {
    return this._try(async () => {
      const words = await askWords(this._trans, group);
      if (words) {
        await this._model.change(group.name, api => api.edit(group.name, words, group.updated_at));
      }
    });
  }

  copyServing(group: IGroup): void {
    Clipboard.copyToSystem(servingSnippet(group));
    Notification.success(this._trans.__('Copied: %1', servingSnippet(group)), {
      autoClose: SAID_MS
    });
  }

  /** Whether a feature that is dragged into a notebook becomes the cell that defines it. */
  get dragsDefinition(): boolean {
    return this.settings?.composite.dragged === 'definition';
  }

  say(text: string): void {
    Notification.warning(text, { autoClose: EXPLAINED_MS });
  }

  private get _asking(): Asking {
    return (this.settings?.composite.confirmPromote as Asking | undefined) ?? 'always';
  }

  private _promote(name: string, source: string | null, cell: CellState): Promise<void> {
    return this._try(async () => {
      if (this._asking === 'never' || (await this._confirmed(name, source, cell))) {
        await (source === null
          ? this._model.promote(name)
          : this._model.promoteSource(name, source));
      }
    });
  }

  private async _confirmed(name: string, source: string | null, cell: CellState): Promise<boolean> {
    const asking = this._asking;
    const outlook = await this._model.outlook(name, source);
    if (asking === 'when it matters' && !matters(outlook, cell)) {
      return true;
    }
    const answer = await askPromote(this._trans, outlook, cell, asking === 'always');
    if (answer.accepted && answer.askLess) {
      await this.settings?.set('confirmPromote', 'when it matters');
    }
    return answer.accepted;
  }

  private async _try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      Notification.error(this._words(error), { autoClose: EXPLAINED_MS });
    }
  }

  private _words(error: unknown): string {
    if (error instanceof Refusal) {
      return error.explanation;
    }
    if (error instanceof ServerConnection.NetworkError) {
      return this._trans.__('The Jupyter server does not answer; nothing was sent.');
    }
    return String(error);
  }
}
