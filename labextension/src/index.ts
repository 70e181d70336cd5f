/** The JupyterLab plugin: it wires the catalog to the sidebar, the bars and the commands. */

import { ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Actions } from './actions';
import { barFactory } from './bar';
import { addCommands } from './commands';
import { CatalogModel } from './model';
import { NotebookNavigator } from './notebooks';
import { CatalogSidebar } from './sidebar';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'fs-notebook:plugin',
  description: 'Feature catalog sidebar, and a bar with Promote under every feature cell.',
  autoStart: true,
  requires: [INotebookTracker, IEditorExtensionRegistry],
  optional: [ITranslator, ISettingRegistry, ICommandPalette, ILayoutRestorer, IStateDB],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    editors: IEditorExtensionRegistry,
    translator: ITranslator | null,
    registry: ISettingRegistry | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    state: IStateDB | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('fs_notebook');
    const model = new CatalogModel(app.serviceManager);
    const actions = new Actions(model, trans);
    const navigator = new NotebookNavigator(app, tracker);
    const sidebar = new CatalogSidebar({ model, actions, navigator, trans }, state);
    app.shell.add(sidebar, 'left', { rank: 550, type: 'Feature Store' });
    restorer?.add(sidebar, sidebar.id);
    editors.addExtension(barFactory(model, actions, trans));
    addCommands({ app, model, actions, tracker, trans, palette, sidebarId: sidebar.id });
    void registry
      ?.load(plugin.id)
      .then(settings => {
        actions.settings = settings;
      })
      .catch(reason => console.warn('fs-notebook: settings could not be read', reason));
  }
};

export default plugin;
