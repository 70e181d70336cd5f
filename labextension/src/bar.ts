/** The bar under every `%%feature` cell: what the feature is doing, Promote, and Roll back. */

import type { ICodeCellModel } from '@jupyterlab/cells';
import type { IEditorExtensionFactory } from '@jupyterlab/codemirror';
import { EditorExtensionRegistry } from '@jupyterlab/codemirror';
import type { TranslationBundle } from '@jupyterlab/translation';
import { StateField } from '@codemirror/state';
import type { EditorState, Extension } from '@codemirror/state';
import { showPanel } from '@codemirror/view';
import type { EditorView, Panel } from '@codemirror/view';

import type { Actions } from './actions';
import { featureName } from './cell';
import { highlighting } from './highlight';
import type { CatalogModel } from './model';
import { cellState } from './notebooks';
import { barWords } from './states';

function nameOf(state: EditorState): string | null {
  // The magic stands on the cell's first line that is not blank; a cell of another kind is told from
  // its first line alone, at every keystroke.
  for (let n = 1; n <= state.doc.lines; n++) {
    const line = state.doc.line(n).text;
    if (line.trim()) {
      return featureName(line);
    }
  }
  return null;
}

function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  parent: HTMLElement
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.className = className;
  parent.appendChild(node);
  return node;
}

function setText(node: HTMLElement, text: string): void {
  // A live region that is written again with the same words would be read aloud again.
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

class FeatureBar implements Panel {
  constructor(
    private readonly _view: EditorView,
    private readonly _cell: ICodeCellModel,
    private readonly _catalog: CatalogModel,
    private readonly _actions: Actions,
    private readonly _trans: TranslationBundle
  ) {
    this.dom = document.createElement('div');
    this.dom.className = 'fs-Bar';
    this.dom.setAttribute('role', 'group');
    // Enter on a button must press it, not put the notebook into edit mode.
    this.dom.dataset.lmSuppressShortcuts = 'true';
    this.dom.addEventListener('focusin', event => event.stopPropagation());
    this._dot = element('span', 'fs-Dot', this.dom);
    this._dot.setAttribute('aria-hidden', 'true');
    this._name = element('span', 'fs-Bar-name', this.dom);
    this._words = element('span', 'fs-Bar-state', this.dom);
    this._words.setAttribute('role', 'status');
    this._progress = element('progress', 'fs-Bar-progress', this.dom);
    this._progress.max = 1;
    this._rollback = this._button(this._trans.__('Roll back'), () => {
      void this._actions.rollback(this._featureName);
    });
    this._promote = this._button(this._trans.__('Promote'), () => {
      const source = this._view.state.doc.toString();
      void this._actions.promoteSource(this._featureName, source, cellState(this._cell));
    });
    this._promote.classList.add('fs-mod-accept');
    this._catalog.stateChanged.connect(this._draw, this);
    this._cell.stateChanged.connect(this._draw, this);
    this._draw();
  }

  readonly dom: HTMLElement;
  readonly top = false;

  update(update: { docChanged: boolean }): void {
    if (update.docChanged) {
      this._draw();
    }
  }

  destroy(): void {
    this._catalog.stateChanged.disconnect(this._draw, this);
    this._cell.stateChanged.disconnect(this._draw, this);
  }

  private _button(label: string, action: () => void): HTMLButtonElement {
    const button = element('button', 'fs-Button', this.dom);
    button.type = 'button';
    button.textContent = label;
    button.addEventListener('click', action);
    return button;
  }

  private _draw(): void {
    const trans = this._trans;
    const name = nameOf(this._view.state) ?? '';
    const group = this._catalog.group(name);
    const doing = this._catalog.busy(name);
    const busy = doing !== null;
    const notice = this._catalog.notice;
    const source = group?.source;
    const matches = !source || source.trim() === this._view.state.doc.toString().trim();
    this._featureName = name;
    this.dom.setAttribute('aria-label', trans.__('Feature %1', name));
    setText(this._name, name || trans.__('a feature without a name'));
    this._name.title = name;
    let words = barWords(trans, group, cellState(this._cell), matches);
    if (busy) {
      words = doing === 'asking' ? trans.__('looking at what it will do…') : trans.__('sending…');
    } else if (notice?.kind === 'gone') {
      words = trans.__('%1 · the server does not answer', words);
    }
    setText(this._words, words);
    this._words.title = words;
    this._dot.dataset.state = group?.state ?? 'draft';
    const bootstrapping = group?.state === 'bootstrapping' && group.progress !== null;
    this._progress.hidden = !bootstrapping;
    if (bootstrapping) {
      this._progress.value = group.progress ?? 0;
      this._progress.setAttribute('aria-label', trans.__('Bootstrap of %1', name));
    }
    // Without the extension on the server, the magic still promotes; a button that cannot would lie.
    this._promote.hidden = notice?.kind === 'absent';
    this._promote.disabled = !name || busy || notice?.kind === 'gone';
    this._promote.setAttribute('aria-label', trans.__('Promote %1', name));
    const former = group?.previous ?? null;
    this._rollback.hidden = former === null || notice?.kind === 'absent';
    this._rollback.disabled = busy || notice?.kind === 'gone';
    this._rollback.setAttribute('aria-label', trans.__('Roll back %1 to v%2', name, former ?? 0));
    this._rollback.title = trans.__('Serve v%1 again', former ?? 0);
  }

  private readonly _dot: HTMLElement;
  private readonly _name: HTMLElement;
  private readonly _words: HTMLElement;
  private readonly _progress: HTMLProgressElement;
  private readonly _rollback: HTMLButtonElement;
  private readonly _promote: HTMLButtonElement;
  private _featureName = '';
}

function panelExtension(
  cell: ICodeCellModel,
  catalog: CatalogModel,
  actions: Actions,
  trans: TranslationBundle
): Extension {
  // One function for the life of the editor: a new one would rebuild the panel at every keystroke.
  const open = (view: EditorView): Panel => new FeatureBar(view, cell, catalog, actions, trans);
  const isFeature = StateField.define<boolean>({
    create: state => nameOf(state) !== null,
    update: (value, transaction) =>
      transaction.docChanged ? nameOf(transaction.state) !== null : value,
    provide: field => showPanel.from(field, value => (value ? open : null))
  });
  return [isFeature, highlighting()];
}

/** The factory that Lab calls for every editor; only code cells get the bar. */
export function barFactory(
  catalog: CatalogModel,
  actions: Actions,
  trans: TranslationBundle
): IEditorExtensionFactory<undefined> {
  return {
    name: 'fs-notebook:bar',
    factory: options => {
      const model = options.model as Partial<ICodeCellModel>;
      if (model.type !== 'code' || !('executionCount' in model)) {
        return null;
      }
      return EditorExtensionRegistry.createImmutableExtension(
        panelExtension(model as ICodeCellModel, catalog, actions, trans)
      );
    }
  };
}
