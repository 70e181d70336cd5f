/** The questions before a change. All texts are set as text: names and words are other people's. */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import type { IAbout, IGroup, IOutlook, IWords } from './api';
import { nodeWords, outlookLines, readerWords } from './outlook';
import type { CellState } from './states';

function add<K extends keyof HTMLElementTagNameMap>(
  parent: HTMLElement,
  tag: K,
  text = ''
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

/** A body of a dialog: a sentence, lines with labels, and fields to fill in. */
class Body extends Widget {
  constructor(sentence: string, lines: readonly (readonly [string, string])[] = []) {
    super();
    this.addClass('fs-Dialog');
    if (sentence) {
      add(this.node, 'p', sentence);
    }
    const list = lines.length ? add(this.node, 'dl') : null;
    for (const [label, text] of list ? lines : []) {
      add(list!, 'dt', label);
      add(list!, 'dd', text);
    }
  }

  field(name: string, label: string, value: string, long = false): this {
    const line = add(this.node, 'label', label);
    const input = add(line, long ? 'textarea' : 'input');
    input.className = 'jp-mod-styled';
    input.value = value;
    input.name = name;
    // Enter ends the dialog, where it does not begin a line.
    this._fields.set(name, input);
    return this;
  }

  getValue(): Record<string, string> {
    return Object.fromEntries([...this._fields].map(([name, input]) => [name, input.value.trim()]));
  }

  private readonly _fields = new Map<string, HTMLInputElement | HTMLTextAreaElement>();
}

/** What was answered to the question before a promotion. */
export interface IAnswer {
  readonly accepted: boolean;
  /** Whether to ask only where it matters from now on. */
  readonly askLess: boolean;
}

export async function askPromote(
  trans: TranslationBundle,
  outlook: IOutlook,
  cell: CellState,
  offerLess: boolean
): Promise<IAnswer> {
  const answer = await showDialog({
    title: trans.__('Promote %1?', outlook.name),
    body: new Body('', outlookLines(trans, outlook, cell)),
    checkbox: offerLess
      ? { label: trans.__('Ask only when it takes long or others use it') }
      : null,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Promote') })
    ]
  });
  return { accepted: answer.button.accept, askLess: answer.isChecked === true };
}

/** Whoever would miss a group: what is made of it, and who reads it. */
function dependentLines(trans: TranslationBundle, about: IAbout): [string, string][] {
  const { node, edges } = about.lineage;
  const key = ({ kind, name }: { kind: string; name: string }): string => `${kind}\n${name}`;
  const reached = new Map([[key(node), node]]);
  for (const [, here] of reached) {
    for (const [from, to] of edges) {
      if (key(from) === key(here) && !reached.has(key(to))) {
        reached.set(key(to), to);
      }
    }
  }
  const dependents = [...reached.values()].slice(1);
  return [
    [trans.__('Depends on %1', about.name), nodeWords(trans, dependents) || trans.__('nothing')],
    [trans.__('Reads %1', about.name), readerWords(trans, about.uses) || trans.__('nobody so far')]
  ];
}

/** `version` is null for the draft. */
export async function askRetire(
  trans: TranslationBundle,
  about: IAbout,
  version: number | null
): Promise<boolean> {
  const answer = await showDialog({
    title:
      version === null
        ? trans.__('Discard the draft of %1?', about.name)
        : trans.__('Retire v%1 of %2?', version, about.name),
    body: new Body(
      version === null
        ? trans.__('Its text goes; what was promoted before stays as it is.')
        : trans.__('Its worker stops and its state is freed: going back to it folds history anew.'),
      dependentLines(trans, about)
    ),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: version === null ? trans.__('Discard') : trans.__('Retire') })
    ],
    // What cannot be taken back is not for a stray Enter.
    defaultButton: 0
  });
  return answer.button.accept;
}

export async function askDeprecate(
  trans: TranslationBundle,
  about: IAbout
): Promise<{ reason: string; instead?: string } | null> {
  const body = new Body(
    trans.__('It goes on working; a notice stands wherever it is used.'),
    dependentLines(trans, about)
  );
  const answer = await showDialog({
    title: trans.__('Deprecate %1?', about.name),
    body: body
      .field('reason', trans.__('Why'), '')
      .field('instead', trans.__('What to use instead (a name in the catalog)'), ''),
    focusNodeSelector: 'input[name="reason"]',
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Deprecate') })
    ]
  });
  const value = answer.value;
  return !answer.button.accept || !value
    ? null
    : { reason: value.reason, ...(value.instead ? { instead: value.instead } : {}) };
}

export async function askWords(trans: TranslationBundle, group: IGroup): Promise<IWords | null> {
  const body = new Body(trans.__('This makes no new version.'))
    .field('description', trans.__('Description'), group.description ?? '', true)
    .field('owner', trans.__('Owner'), group.owner ?? '')
    .field('tags', trans.__('Tags, with commas between them'), group.tags.join(', '));
  const answer = await showDialog({
    title: trans.__('Describe %1', group.name),
    body,
    focusNodeSelector: 'textarea',
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.okButton({ label: trans.__('Save') })
    ]
  });
  const value = answer.value;
  if (!answer.button.accept || !value) {
    return null;
  }
  const tags = value.tags.split(',').map(tag => tag.trim());
  return {
    owner: value.owner,
    description: value.description.replace(/\s+/g, ' '),
    tags: tags.filter(Boolean)
  };
}
