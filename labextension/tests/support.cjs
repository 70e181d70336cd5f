/** What the tests share: groups, and a translator that leaves the words as they are. */

'use strict';

const path = require('node:path');

/** A compiled module of the sources. */
exports.tested = name => require(path.join(__dirname, '..', 'lib', 'tested', `${name}.js`));

const fill = (text, args) => args.reduce((said, arg, n) => said.replaceAll(`%${n + 1}`, arg), text);

exports.trans = {
  __: (text, ...args) => fill(text, args),
  _n: (one, many, count, ...args) => fill(count === 1 ? one : many, [count, ...args])
};

exports.group = (name, given = {}) => ({
  name,
  entity: ['user'],
  features: [{ name: `total_${name}`, type: 'BIGINT' }],
  state: 'live',
  version: 1,
  latest: 1,
  previous: null,
  progress: null,
  lag: 0,
  owner: 'ann',
  tags: ['reading'],
  description: null,
  definition: 'SELECT user, SUM(t) AS s FROM reads GROUP BY user',
  source: null,
  actor: 'ann',
  status: 'live',
  streams: ['reads'],
  ...given
});
