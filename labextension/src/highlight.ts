/**
 * Colours for the SQL in a `%%feature` or `%%view` cell. Lab colours a cell in its kernel's language; marks on top
 * are cheaper than a change of language at every keystroke, and leave completion alone.
 */

import type { Extension } from '@codemirror/state';
import { Decoration, EditorView, MatchDecorator, ViewPlugin } from '@codemirror/view';
import type { DecorationSet, ViewUpdate } from '@codemirror/view';

import { isSql } from './cell';
import { kindOf, PATTERN } from './tokens';
import type { TokenKind } from './tokens';

const HEADER_MAX = 2000;

const keyword = Decoration.mark({ class: 'fs-cm-keyword' });
const call = Decoration.mark({ class: 'fs-cm-call' });
const comment = Decoration.mark({ class: 'fs-cm-comment' });
const magic = Decoration.mark({ class: 'fs-cm-magic' });
const option = Decoration.mark({ class: 'fs-cm-option' });

const decorations: Readonly<Partial<Record<TokenKind, Decoration>>> = {
  magic,
  option,
  comment,
  keyword,
  call
};

/** Colour the editor's text while it is a cell in SQL of ours. */
export function highlighting(): Extension {
  const decorator = new MatchDecorator({
    regexp: PATTERN,
    decorate: (add, from, to, match) => {
      const kind = kindOf(match.groups ?? {});
      const found = kind ? decorations[kind] : undefined;
      if (found) {
        add(from, to, found);
      }
    }
  });
  return ViewPlugin.fromClass(
    class {
      constructor(view: EditorView) {
        this.decorations = this._all(view);
      }

      update(update: ViewUpdate): void {
        if (update.docChanged || update.viewportChanged) {
          // A change of the first line can make or unmake the whole cell, so it is read again.
          this.decorations = this._all(update.view);
        }
      }

      decorations: DecorationSet;

      private _all(view: EditorView): DecorationSet {
        return isSql(view.state.doc.sliceString(0, HEADER_MAX))
          ? decorator.createDeco(view)
          : Decoration.none;
      }
    },
    { decorations: plugin => plugin.decorations }
  );
}
