/**
 * Colours for the SQL in a `%%feature` cell. Lab colours a cell in its kernel's language; marks on top
 * are cheaper than a change of language at every keystroke, and leave completion alone.
 */

import type { Extension, StateField } from '@codemirror/state';
import { Decoration, EditorView, MatchDecorator, ViewPlugin } from '@codemirror/view';
import type { DecorationSet, ViewUpdate } from '@codemirror/view';

import { isPolars } from './cell';

const HEADER_MAX = 2000;

const KEYWORDS =
  'select|from|where|group|by|having|order|limit|as|on|join|left|inner|outer|cross|using|and|or|not|' +
  'in|is|null|like|between|case|when|then|else|end|distinct|filter|over|partition|rows|range|' +
  'preceding|following|current|row|interval|union|all|with|cast|asc|desc|true|false|for|system_time|of';

const keyword = Decoration.mark({ class: 'fs-cm-keyword' });
const call = Decoration.mark({ class: 'fs-cm-call' });
const comment = Decoration.mark({ class: 'fs-cm-comment' });
const magic = Decoration.mark({ class: 'fs-cm-magic' });
const option = Decoration.mark({ class: 'fs-cm-option' });

const PATTERN = new RegExp(
  `(?<magic>^\\s*%%feature(?=\\s|$))|(?<option>(?<=^\\s*%%feature\\s.*)--[\\w-]+)|(?<comment>--.*$)|` +
    `(?<string>'[^']*')|\\b(?<keyword>${KEYWORDS})\\b|\\b(?<call>\\w+)(?=\\()`,
  'gim'
);

function decorationOf(match: RegExpExecArray): Decoration | null {
  const groups = match.groups ?? {};
  if (groups.magic) {
    return magic;
  }
  if (groups.option) {
    return option;
  }
  if (groups.comment) {
    return comment;
  }
  if (groups.keyword) {
    return keyword;
  }
  return groups.call ? call : null;
}

/** Colour the editor's text while `active` says that it is a feature cell. */
export function highlighting(active: StateField<boolean>): Extension {
  const decorator = new MatchDecorator({
    regexp: PATTERN,
    decorate: (add, from, to, match) => {
      const found = decorationOf(match);
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
        const sql =
          view.state.field(active) && !isPolars(view.state.doc.sliceString(0, HEADER_MAX));
        return sql ? decorator.createDeco(view) : Decoration.none;
      }
    },
    { decorations: plugin => plugin.decorations }
  );
}
