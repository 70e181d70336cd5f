/** The words of a definition that have a colour: shared by the cells and the catalog's cards. */

const KEYWORDS =
  'select|from|where|group|by|having|order|limit|as|on|join|left|inner|outer|cross|using|and|or|not|' +
  'in|is|null|like|between|case|when|then|else|end|distinct|filter|over|partition|rows|range|' +
  'preceding|following|current|row|interval|union|all|with|cast|asc|desc|true|false|for|system_time|of';

/** `magic`, `option`, `comment`, `string`, `keyword` and `call` are its groups. */
export const PATTERN = new RegExp(
  `(?<magic>^\\s*%%(?:feature|view)(?=\\s|$))|` +
    `(?<option>(?<=^\\s*%%(?:feature|view)\\s.*)--[\\w-]+)|(?<comment>--.*$)|` +
    `(?<string>'[^']*')|\\b(?<keyword>${KEYWORDS})\\b|\\b(?<call>\\w+)(?=\\()`,
  'gim'
);

export type TokenKind = 'magic' | 'option' | 'comment' | 'string' | 'keyword' | 'call';

/** The kind of a match of `PATTERN`. */
export function kindOf(groups: Readonly<Record<string, string | undefined>>): TokenKind | null {
  const found = Object.entries(groups).find(([, text]) => text !== undefined);
  return (found?.[0] as TokenKind | undefined) ?? null;
}

/** A text in pieces, each with its kind; pieces without one have no colour. */
export function tokensOf(text: string): { text: string; kind: TokenKind | null }[] {
  const pieces: { text: string; kind: TokenKind | null }[] = [];
  let at = 0;
  for (const match of text.matchAll(PATTERN)) {
    if (match.index > at) {
      pieces.push({ text: text.slice(at, match.index), kind: null });
    }
    pieces.push({ text: match[0], kind: kindOf(match.groups ?? {}) });
    at = match.index + match[0].length;
  }
  if (at < text.length) {
    pieces.push({ text: text.slice(at), kind: null });
  }
  return pieces;
}
