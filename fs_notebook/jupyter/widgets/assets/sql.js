// A definition in colours; its pieces are texts.

const WORDS = new RegExp(
  "(?<comment>--.*$)|(?<string>'[^']*')|\\b(?<keyword>select|from|where|group|by|having|order|limit|as|on|" +
    'join|left|inner|outer|cross|using|and|or|not|in|is|null|like|between|case|when|then|else|end|distinct|' +
    'filter|over|window|partition|rows|range|preceding|following|current|row|interval|union|all|with|cast|asc|' +
    'desc|true|false|for|system_time|of)\\b|\\b(?<call>\\w+)(?=\\()',
  'gim'
);

function sql(text, label) {
  const pieces = [];
  let at = 0;
  for (const found of text.matchAll(WORDS)) {
    const kind = Object.entries(found.groups).find(([, word]) => word !== undefined)[0];
    pieces.push(text.slice(at, found.index), h('span', { class: `fsw-sql-${kind}` }, found[0]));
    at = found.index + found[0].length;
  }
  pieces.push(text.slice(at));
  return h(
    'pre',
    { class: 'fsw-code', tabindex: 0, role: 'group', 'aria-label': label, 'data-key': label },
    pieces
  );
}

/** What changed between two definitions: in words, and line by line. */
function drawDiff(panel, place, diff) {
  panel.parts.draw(
    place,
    diff,
    () =>
      diff && [
        h(
          'p',
          { role: 'status' },
          h('strong', {}, `${diff.before} → ${diff.after}: `),
          diff.same ? 'the same meaning' : diff.words.join('; ')
        ),
        diff.lines.length > 0 && diffLines(diff.lines)
      ]
  );
}
