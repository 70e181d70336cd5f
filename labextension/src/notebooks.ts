/** Finding feature cells in the open notebooks. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Cell } from '@jupyterlab/cells';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { featureName } from './cell';
import type { INavigator } from './sidebar';

/** The name that a cell defines; null for a cell of another kind. */
export function cellFeature(cell: Cell | null | undefined): string | null {
  return cell?.model.type === 'code' ? featureName(cell.model.sharedModel.getSource()) : null;
}

export class NotebookNavigator implements INavigator {
  constructor(
    private readonly _shell: JupyterFrontEnd.IShell,
    private readonly _tracker: INotebookTracker
  ) {}

  owns(name: string): boolean {
    return this._find(name) !== null;
  }

  reveal(name: string, focus: boolean): boolean {
    const found = this._find(name);
    if (!found) {
      return false;
    }
    const { panel, index } = found;
    const keep = document.activeElement as HTMLElement | null;
    if (focus || !panel.isVisible) {
      this._shell.activateById(panel.id);
    }
    const notebook = panel.content;
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    void notebook.scrollToCell(notebook.widgets[index], 'center').then(() => {
      // A look at the cell leaves a person who walks the list by keyboard where she is.
      if (!focus) {
        keep?.focus();
      }
    });
    return true;
  }

  /** The owning cell, in the current notebook before any other. */
  private _find(name: string): { panel: NotebookPanel; index: number } | null {
    const panels: NotebookPanel[] = [];
    this._tracker.forEach(panel => panels.push(panel));
    const current = this._tracker.currentWidget;
    panels.sort((a, b) => Number(b === current) - Number(a === current));
    for (const panel of panels) {
      const index = panel.content.widgets.findIndex(cell => cellFeature(cell) === name);
      if (index >= 0) {
        return { panel, index };
      }
    }
    return null;
  }
}
