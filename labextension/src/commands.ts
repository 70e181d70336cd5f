/** The actions behind every button, and the commands that give them a palette entry and a key. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import { ServerConnection } from '@jupyterlab/services';
import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import type { TranslationBundle } from '@jupyterlab/translation';

import { Refusal } from './api';
import type { IActions } from './bar';
import type { CatalogModel } from './model';
import { cellFeature } from './notebooks';

export namespace CommandIDs {
  export const promote = 'fs-notebook:promote';
  export const rollback = 'fs-notebook:rollback';
  export const open = 'fs-notebook:open';
}

export class Actions implements IActions {
  constructor(
    private readonly _model: CatalogModel,
    private readonly _trans: TranslationBundle
  ) {}

  /** The user's settings, once they are read. */
  settings: ISettingRegistry.ISettings | null = null;

  promoteSource(name: string, source: string): Promise<void> {
    return this._promote(name, () => this._model.promoteSource(name, source));
  }

  promote(name: string): Promise<void> {
    return this._promote(name, () => this._model.promote(name));
  }

  async rollback(name: string): Promise<void> {
    await this._try(() => this._model.rollback(name));
  }

  private async _promote(name: string, action: () => Promise<unknown>): Promise<void> {
    if (this.settings?.composite.confirmPromote === true) {
      const answer = await showDialog({
        title: this._trans.__('Promote %1?', name),
        body: this._trans.__('A background worker folds its history, then serves it.'),
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: this._trans.__('Promote') })]
      });
      if (!answer.button.accept) {
        return;
      }
    }
    await this._try(action);
  }

  private async _try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      Notification.error(this._words(error), { autoClose: 8000 });
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

export interface ICommandContext {
  readonly app: JupyterFrontEnd;
  readonly model: CatalogModel;
  readonly actions: IActions;
  readonly tracker: INotebookTracker;
  readonly trans: TranslationBundle;
  readonly palette: ICommandPalette | null;
  readonly sidebarId: string;
}

export function addCommands(context: ICommandContext): void {
  const { app, model, actions, tracker, trans, palette, sidebarId } = context;
  const { commands } = app;
  const active = (): string | null => cellFeature(tracker.activeCell);
  commands.addCommand(CommandIDs.promote, {
    label: trans.__('Promote Feature'),
    caption: trans.__('Promote the feature that the active cell defines'),
    describedBy: { args: { type: 'object', properties: {} } },
    isVisible: () => active() !== null,
    isEnabled: () => !!active() && model.writable && !model.busy(active() ?? ''),
    execute: async () => {
      const name = active();
      const source = tracker.activeCell?.model.sharedModel.getSource();
      if (name && source) {
        await actions.promoteSource(name, source);
      }
    }
  });
  commands.addCommand(CommandIDs.rollback, {
    label: trans.__('Roll Back Feature'),
    caption: trans.__('Serve the former version of the feature that the active cell defines'),
    describedBy: { args: { type: 'object', properties: {} } },
    isVisible: () => active() !== null,
    isEnabled: () => model.writable && (model.group(active() ?? '')?.previous ?? null) !== null,
    execute: async () => {
      const name = active();
      if (name) {
        await actions.rollback(name);
      }
    }
  });
  commands.addCommand(CommandIDs.open, {
    label: trans.__('Show Feature Catalog'),
    describedBy: { args: { type: 'object', properties: {} } },
    execute: () => app.shell.activateById(sidebarId)
  });
  for (const command of Object.values(CommandIDs)) {
    palette?.addItem({ command, category: trans.__('Feature Store') });
  }
  const changed = (): void => {
    commands.notifyCommandChanged(CommandIDs.promote);
    commands.notifyCommandChanged(CommandIDs.rollback);
  };
  model.stateChanged.connect(changed);
  tracker.activeCellChanged.connect(changed);
}
