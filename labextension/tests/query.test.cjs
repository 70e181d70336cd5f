'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { group, tested } = require('./support.cjs');

const { byEntity, facetOf, matching, parseQuery, withFilter, withoutTerm } = tested('query');

const GROUPS = [
  group('reading_time'),
  group('clicks', { tags: ['ads', 'two words'], owner: 'Bob', status: 'draft' }),
  group('article_ctr', {
    entity: ['article'],
    features: [{ name: 'ctr', type: 'DECIMAL(12,2)' }],
    tags: [],
    owner: null,
    streams: ['clicks_stream'],
    description: 'How often it is Clicked'
  })
];

const found = query => matching(GROUPS, parseQuery(query)).map(one => one.name);

// Each of these means the same in `fs.search`; tests/ui compares the two on the same catalog.
const CASES = [
  ['', ['reading_time', 'clicks', 'article_ctr']],
  ['click', ['clicks', 'article_ctr']],
  ['CLICKED', ['article_ctr']],
  ['-click', ['reading_time']],
  ['tag:reading', ['reading_time']],
  ['tag:read', []],
  ['tag:"two words"', ['clicks']],
  ['tag:ads,reading', []],
  ['-tag:reading', ['clicks', 'article_ctr']],
  ['owner:bob', ['clicks']],
  ['Entity:article', ['article_ctr']],
  ['type:decimal', ['article_ctr']],
  ['type:int', ['reading_time', 'clicks']],
  ['stream:clicks_stream', ['article_ctr']],
  ['state:draft', ['clicks']],
  ['feature:ct', ['article_ctr']],
  ['name:ct', ['article_ctr']],
  ['by:ann kind:group total', ['reading_time', 'clicks']],
  ['owner:', ['reading_time', 'clicks', 'article_ctr']],
  ['"', []]
];

for (const [query, names] of CASES) {
  test(`what ${JSON.stringify(query)} finds`, () => assert.deepEqual(found(query), names));
}

test('a filter that there is none of is told, and restricts nothing', () => {
  assert.equal(parseQuery('colour:red click').unknown, 'colour');
  assert.deepEqual(found('colour:red click'), ['clicks', 'article_ctr']);
  assert.equal(parseQuery('12:30 a:').unknown, null);
});

test('a filter is put into the query once, and taken out of it', () => {
  let query = withFilter('click', 'tag', 'two words');
  assert.equal(query, 'click tag:"two words"');
  assert.equal(withFilter(query, 'tag', 'Two Words'), query);
  query = withFilter(query, 'owner', 'bob');
  const [, tag] = parseQuery(query).terms;
  assert.equal(withoutTerm(query, tag), 'click owner:bob');
  assert.deepEqual(found(withFilter('', 'owner', 'Bob')), ['clicks']);
});

test('entities and names are in order', () => {
  const sections = byEntity(GROUPS).map(([entity, groups]) => [entity, groups.map(g => g.name)]);
  assert.deepEqual(sections, [
    ['article', ['article_ctr']],
    ['user', ['clicks', 'reading_time']]
  ]);
});

test('the most common value is offered first, an empty one never', () => {
  assert.deepEqual(facetOf(GROUPS, 'entity'), [
    ['user', 2],
    ['article', 1]
  ]);
  assert.deepEqual(facetOf(GROUPS, 'owner'), [
    ['Bob', 1],
    ['ann', 1]
  ]);
  assert.equal(facetOf(GROUPS, 'tag', 2).length, 2);
});
