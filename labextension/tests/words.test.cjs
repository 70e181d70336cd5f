'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { group, tested, trans } = require('./support.cjs');

const { featureName, isSql } = tested('cell');
const { matters, outlookLines } = tested('outlook');
const { definitionCell, servingSnippet } = tested('snippets');
const { barWords, lagWords, stateWords } = tested('states');
const { tokensOf } = tested('tokens');

test('a cell tells its name, or that it has none, or that it is another cell', () => {
  assert.equal(featureName('%%feature reading_time --entity user\nSELECT 1'), 'reading_time');
  assert.equal(featureName('%%feature --entity user -l=polars name'), 'name');
  assert.equal(featureName('%%feature'), '');
  assert.equal(featureName('%%features x'), null);
  assert.equal(featureName('%%view long_reads'), null);
});

test('features and views in SQL have its colours, and nothing that is Python', () => {
  const sql = [
    '%%feature polars',
    '\n %%feature x --entity user\nSELECT 1 -- -l polars',
    '%%view x',
    '%%view x -d "long" -l sql\nSELECT 1'
  ];
  const others = [
    '%%feature x --language polars\npl.len()',
    '%%view x -l polars\nfs.stream("reads")',
    '%%view x -l=polars',
    '%%views x\nSELECT 1',
    '%view x',
    'x = 1\n%%view x\nSELECT 1',
    'SELECT = 1'
  ];
  assert.deepEqual(
    sql.filter(text => !isSql(text)),
    []
  );
  assert.deepEqual(others.filter(isSql), []);
});

test('a magic and its options have a colour in feature and view cells', () => {
  for (const magic of ['%%feature', '%%view']) {
    const pieces = tokensOf(`${magic} x --description "y"\nSELECT a -- why\nFROM s`);
    const told = pieces.filter(({ kind }) => kind).map(({ text, kind }) => `${kind} ${text}`);
    assert.deepEqual(told, [
      `magic ${magic}`,
      'option --description',
      'keyword SELECT',
      'comment -- why',
      'keyword FROM'
    ]);
  }
  assert.notEqual(tokensOf('%%views x')[0].kind, 'magic');
});

test('states in words', () => {
  const state = given => stateWords(trans, group('x', given));
  assert.equal(state({ version: 3 }), 'live v3');
  assert.equal(state({ state: 'bootstrapping', progress: 0.999 }), 'bootstrapping 99 %');
  assert.equal(state({ state: 'bootstrapping', progress: null }), 'bootstrapping');
  assert.equal(state({ state: 'anything else' }), 'draft');
  assert.equal(lagWords(trans, group('x', { lag: null })), '');
  assert.equal(lagWords(trans, group('x', { lag: 5, state: 'bootstrapping' })), '');
});

test('a bar says that its cell was edited and not run, or is not what was promoted', () => {
  const words = (cell, matches, given) => barWords(trans, group('x', given), cell, matches);
  assert.equal(words('previewed', true), 'live v1');
  assert.equal(words('edited', false), 'live v1 · edited since last run');
  assert.equal(words('previewed', false), 'live v1 · previewed, not promoted');
  assert.equal(words('fresh', false), 'live v1 · not the promoted text');
  assert.equal(words('previewed', true, { state: 'draft' }), 'previewed');
  assert.equal(barWords(trans, undefined, 'previewed', true), 'draft');
  assert.equal(
    words('previewed', true, { state: 'bootstrapping', progress: 0.5, version: 2 }),
    'bootstrapping 50 % · v2 serves meanwhile'
  );
});

const OUTLOOK = {
  name: 'x',
  version: 2,
  serving: 1,
  work: 'fold',
  streams: ['reads'],
  depends_on: [],
  events: 5000,
  seconds: 130,
  changes: ['x is computed otherwise'],
  used_by: [{ kind: 'training set', name: 'train' }],
  readers: [{ kind: 'http', who: 'eve', host: 'h', reads: 7, last_at: '' }],
  notes: []
};

test('a question says version, history, time and who is touched', () => {
  const lines = Object.fromEntries(outlookLines(trans, OUTLOOK, 'edited'));
  assert.match(lines.Version, /^v2; v1 serves until/);
  assert.equal(lines['History to fold'], `${(5000).toLocaleString()} events of reads`);
  assert.equal(lines.Time, 'about 3 min');
  assert.equal(lines['Used by'], 'train (training set); eve on h (http, 7×)');
  assert.match(lines.Cell, /^edited and not run/);
  const quiet = {
    ...OUTLOOK,
    serving: null,
    used_by: [],
    readers: [],
    events: null,
    seconds: null
  };
  const few = Object.fromEntries(outlookLines(trans, quiet, 'previewed'));
  assert.deepEqual(
    [few.Version, few['History to fold'], few.Time, few['Used by'], few.Cell],
    ['v2', 'all of reads', 'not known beforehand', 'nobody so far', undefined]
  );
});

test('it matters when it is long, replaces what others use, or was not run as it is', () => {
  const alone = { ...OUTLOOK, seconds: 2, used_by: [], readers: [] };
  assert.equal(matters(alone, 'previewed'), false);
  assert.equal(matters(alone, 'edited'), true);
  assert.equal(matters({ ...alone, seconds: 60 }, 'previewed'), true);
  assert.equal(matters({ ...alone, seconds: null }, 'previewed'), true);
  assert.equal(matters({ ...OUTLOOK, work: 'warm' }, 'previewed'), true);
  assert.equal(matters({ ...OUTLOOK, work: 'serves' }, 'previewed'), false);
  assert.equal(matters({ ...alone, notes: ['deprecated'] }, 'previewed'), true);
});

test('a serving call names features, keys and what the request gives', () => {
  const one = group('x', {
    entity: ['user', 'odd key'],
    requests: [{ name: 'amount', type: 'DOUBLE' }]
  });
  assert.equal(
    servingSnippet(one),
    'fs.serve(["total_x"], user=["…"], amount=["…"], **{"odd key": ["…"]})'
  );
});

test('a cell that defines is its own text, or a header that is read as one', () => {
  assert.equal(
    definitionCell(group('x', { source: '%%feature x\nSELECT 1' })),
    '%%feature x\nSELECT 1'
  );
  const made = definitionCell(
    group('x', { description: 'Says "so"\nand more', tags: ['a', 'b c'] })
  );
  const [header, ...rest] = made.split('\n');
  assert.equal(
    header,
    '%%feature x --entity user --tags "a,b c" --description "Says \\"so\\" and more"'
  );
  assert.match(rest.join('\n'), /^SELECT/);
  assert.match(definitionCell(group('x', { definition: 'pl.col("a").sum()' })), /-l polars\npl/);
});

test('coloured pieces are the whole text, whatever is in it', () => {
  const text = "SELECT user, SUM(t) AS s -- <b>all</b>\nFROM reads WHERE x = 'from'";
  const pieces = tokensOf(text);
  assert.equal(pieces.map(piece => piece.text).join(''), text);
  const kinds = Object.fromEntries(pieces.map(({ text: said, kind }) => [said, kind]));
  assert.equal(kinds.SUM, 'call');
  assert.equal(kinds['-- <b>all</b>'], 'comment');
  assert.equal(kinds["'from'"], 'string');
  assert.equal(kinds.FROM, 'keyword');
});
