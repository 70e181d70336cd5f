/** The commands that give the actions a palette entry, a key, and a button on the cell. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { Cell } from '@jupyterlab/cells';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { Actions } from './actions';
import { catalogIcon } from './icon';
import type { CatalogModel } from './model';
import { cellFeature, cellState } from './notebooks';

export namespace CommandIDs {
  export const promote = 'fs-notebook:promote';
  export const rollback = 'fs-notebook:rollback';
  export const open = 'fs-notebook:open';
}

export interface ICommandContext {
  readonly app: JupyterFrontEnd;
  readonly model: CatalogModel;
  readonly actions: Actions;
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
    icon: catalogIcon,
    caption: trans.__('Promote the feature that the active cell defines'),
    describedBy: { args: { type: 'object', properties: {} } },
    isVisible: () => active() !== null,
    isEnabled: () => !!active() && model.writable && !model.busy(active() ?? ''),
    execute: async () => {
      const name = active();
      const cell = tracker.activeCell;
      if (name && cell) {
        await actions.promoteSource(
          name,
          cell.model.sharedModel.getSource(),
          cellState(cell.model)
        );
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
  let watched: Cell | null = null;
  const changed = (): void => {
    commands.notifyCommandChanged(CommandIDs.promote);
    commands.notifyCommandChanged(CommandIDs.rollback);
  };
  model.stateChanged.connect(changed);
  tracker.activeCellChanged.connect((_, cell) => {
    // A cell becomes a feature cell, or another one's, while it is written.
    watched?.model?.contentChanged.disconnect(changed);
    watched = cell;
    watched?.model.contentChanged.connect(changed);
    changed();
  });
}
