/** Finding feature cells in the open notebooks, and putting cells into them. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Cell, ICellModel, ICodeCellModel } from '@jupyterlab/cells';
import { PathExt } from '@jupyterlab/coreutils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { featureName } from './cell';
import type { CellState } from './states';

/** The name that a cell defines; null for a cell of another kind. */
export function cellFeature(cell: Cell | null | undefined): string | null {
  return cell?.model.type === 'code' ? featureName(cell.model.sharedModel.getSource()) : null;
}

/** What the person has done with a cell since it was run last. */
export function cellState(model: ICellModel): CellState {
  const { isDirty, executionCount } = model as ICodeCellModel;
  return isDirty ? 'edited' : executionCount === null ? 'fresh' : 'previewed';
}

export class NotebookNavigator {
  constructor(
    private readonly _app: JupyterFrontEnd,
    private readonly _tracker: INotebookTracker
  ) {}

  /** Put a code cell under the active one; false where no notebook is open. */
  insert(source: string): boolean {
    const panel = this._tracker.currentWidget;
    const cells = panel?.content.model?.sharedModel;
    if (!panel || !cells) {
      return false;
    }
    const notebook = panel.content;
    const index = notebook.activeCellIndex + 1;
    cells.insertCell(index, { cell_type: 'code', source });
    this._app.shell.activateById(panel.id);
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    void notebook.scrollToCell(notebook.widgets[index]);
    return true;
  }

  /** Open the notebook at a path, and show the cell that defines a group. */
  async open(path: string, name: string): Promise<void> {
    const panel: NotebookPanel | undefined = await this._app.commands.execute('docmanager:open', {
      path: PathExt.removeSlash(path)
    });
    await panel?.context.ready;
    this.reveal(name, true);
  }

  /** Whether some open notebook has a cell that defines this group. */
  owns(name: string): boolean {
    return this._find(name) !== null;
  }

  /** Scroll to the cell that defines this group; false where no open notebook has one. */
  reveal(name: string, focus: boolean): boolean {
    const found = this._find(name);
    if (!found) {
      return false;
    }
    const { panel, index } = found;
    const keep = document.activeElement as HTMLElement | null;
    if (focus || !panel.isVisible) {
      this._app.shell.activateById(panel.id);
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
