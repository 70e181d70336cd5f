/**
 * The search grammar of the catalog, as the server and the notebook have it: words, and filters such
 * as `tag:reading entity:user type:double -status:retired`. Typos are for the server to forgive.
 */

import type { IGroup } from './api';

export const FILTERS = [
  'tag',
  'entity',
  'owner',
  'source',
  'type',
  'status',
  'kind',
  'feature',
  'name',
  'by'
] as const;

export type Filter = (typeof FILTERS)[number];

const ALIASES: Readonly<Record<string, Filter>> = {
  stream: 'source',
  topic: 'source',
  state: 'status',
  actor: 'by'
};

const TYPES: Readonly<Record<string, string>> = {
  float: 'double',
  int: 'bigint',
  integer: 'bigint',
  text: 'varchar',
  string: 'varchar',
  bool: 'boolean'
};

/** One part of a query, and where it stands in the text. A filter may have several values. */
export interface ITerm {
  readonly filter: Filter | null;
  readonly values: readonly string[];
  readonly negative: boolean;
  readonly start: number;
  readonly end: number;
}

export interface IQuery {
  readonly terms: readonly ITerm[];
  /** The first filter that there is none of: `colour` of `colour:red`. */
  readonly unknown: string | null;
}

interface IWord {
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

/** Words as a shell reads them; an open quote, as there is while somebody types, is a character. */
function wordsOf(text: string): IWord[] {
  const words: IWord[] = [];
  const pattern = /(?:"[^"]*"|'[^']*'|[^\s])+/g;
  for (const match of text.matchAll(pattern)) {
    const said = match[0].replace(/"([^"]*)"|'([^']*)'/g, (_, a, b) => a ?? b);
    words.push({ text: said, start: match.index, end: match.index + match[0].length });
  }
  return words;
}

export function parseQuery(text: string): IQuery {
  const terms: ITerm[] = [];
  let unknown: string | null = null;
  for (const { text: word, start, end } of wordsOf(text)) {
    const negative = word.length > 1 && word.startsWith('-');
    const said = negative ? word.slice(1) : word;
    const colon = said.indexOf(':');
    const head = said.slice(0, Math.max(colon, 0)).toLowerCase();
    const filter = ALIASES[head] ?? FILTERS.find(known => known === head) ?? null;
    if (colon > 0 && filter) {
      const values = said
        .slice(colon + 1)
        .toLowerCase()
        .split(',')
        .filter(Boolean);
      terms.push({ filter, values, negative, start, end });
    } else if (colon > 0 && /^[a-z_]\w*$/.test(head) && colon < said.length - 1) {
      unknown = unknown ?? head;
    } else {
      terms.push({ filter: null, values: [said.toLowerCase()], negative, start, end });
    }
  }
  return { terms, unknown };
}

const haystacks = new WeakMap<IGroup, string>();

/** All that words are looked for in; kept, for a search runs at every keystroke. */
function haystack(group: IGroup): string {
  let text = haystacks.get(group);
  if (text === undefined) {
    const features = group.features.map(feature => feature.name);
    const { name, tags, entity, streams, owner, description } = group;
    const parts = [name, ...features, ...tags, ...entity, ...streams, owner, description];
    text = parts.join('\n').toLowerCase();
    haystacks.set(group, text);
  }
  return text;
}

/** What a group can be found by, of one filter. */
export function valuesOf(group: IGroup, filter: Filter): readonly string[] {
  switch (filter) {
    case 'tag':
      return group.tags;
    case 'entity':
      return group.entity;
    case 'owner':
      return [group.owner ?? ''];
    case 'source':
      return group.streams;
    case 'type':
      return group.features.map(feature => feature.type);
    case 'status':
      return [group.status];
    case 'kind':
      return ['group'];
    case 'feature':
      return group.features.map(feature => feature.name);
    case 'name':
      return [group.name];
    case 'by':
      return [group.actor ?? ''];
  }
}

function hasValue(group: IGroup, filter: Filter, value: string): boolean {
  const values = valuesOf(group, filter).map(one => one.toLowerCase());
  if (filter === 'type') {
    const meant = TYPES[value] ?? value;
    return values.some(one => one === meant || one.startsWith(`${meant}(`));
  }
  if (filter === 'name' || filter === 'feature') {
    return values.some(one => one.includes(value));
  }
  return values.includes(value);
}

function hasTerm(group: IGroup, { filter, values, negative }: ITerm): boolean {
  // Several values of one filter are so many terms: all of them, or with a minus none.
  const hits = values.map(value =>
    filter ? hasValue(group, filter, value) : haystack(group).includes(value)
  );
  return negative ? !hits.includes(true) : !hits.includes(false);
}

/** The groups that have all terms of a query, in the order in which they came. */
export function matching(groups: readonly IGroup[], query: IQuery): IGroup[] {
  return groups.filter(group => query.terms.every(term => hasTerm(group, term)));
}

/** Entities in alphabetical order, each with its groups by name. */
export function byEntity(groups: readonly IGroup[]): [string, IGroup[]][] {
  const sections = new Map<string, IGroup[]>();
  // Names are ASCII: comparing them by a locale would take most of the time of ten thousand.
  for (const group of [...groups].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const entity = group.entity.join(', ');
    const section = sections.get(entity);
    if (section) {
      section.push(group);
    } else {
      sections.set(entity, [group]);
    }
  }
  return [...sections].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** The values of one filter that there are, with how many groups have each; the most common first. */
export function facetOf(groups: readonly IGroup[], filter: Filter, most = 100): [string, number][] {
  const counts = new Map<string, number>();
  for (const group of groups) {
    for (const value of new Set(valuesOf(group, filter))) {
      if (value) {
        counts.set(value, (counts.get(value) ?? 0) + 1);
      }
    }
  }
  const found = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return found.slice(0, most);
}

/** A query that asks for one more value of a filter. */
export function withFilter(text: string, filter: Filter, value: string): string {
  const quote = value.includes('"') ? "'" : '"';
  const said = /[\s"']/.test(value) ? `${filter}:${quote}${value}${quote}` : `${filter}:${value}`;
  const known = parseQuery(text).terms.some(
    term => !term.negative && term.filter === filter && term.values.includes(value.toLowerCase())
  );
  return known ? text : [text.trim(), said].filter(Boolean).join(' ');
}

/** A query without one of its terms. */
export function withoutTerm(text: string, term: ITerm): string {
  return `${text.slice(0, term.start).trimEnd()} ${text.slice(term.end).trimStart()}`.trim();
}
