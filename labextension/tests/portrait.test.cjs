'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { tested, trans } = require('./support.cjs');

const portrait = tested('portrait');

const LIKENESS = {
  feature: 'total',
  type: 'BIGINT',
  values: 20,
  nulls: 0,
  median: 1234.5,
  now: null,
  then: null,
  psi: 0.04,
  training: 'spring',
  beyond: 0
};

test('how far values moved is a figure and what it means', () => {
  const told = psi => portrait.psiWords(trans, { ...LIKENESS, psi });
  assert.equal(told(0.04), 'PSI 0.040: as in training (spring)');
  assert.equal(told(0.1), 'PSI 0.100: moved a little since training (spring)');
  assert.equal(told(0.25), 'PSI 0.250: moved a little since training (spring)');
  assert.equal(told(1.5), 'PSI 1.500: shifted since training (spring)');
  assert.equal(told(null), 'not compared with spring');
  assert.equal(
    portrait.psiWords(trans, { ...LIKENESS, psi: null, training: null }),
    'in no training set'
  );
});

test('facts are those that there are', () => {
  assert.equal(portrait.likenessWords(trans, LIKENESS), '20 values · median 1,230');
  const odd = { ...LIKENESS, values: 300, nulls: 1, median: null, beyond: 0.5 };
  assert.equal(
    portrait.likenessWords(trans, odd),
    '300 values · <1 % null · 50 % beyond what training saw'
  );
  assert.equal(portrait.edgeWords('TIMESTAMP', 1704067200e6), '2024-01-01');
  assert.equal(portrait.edgeWords('INTERVAL', 90e6), '90 s');
  assert.equal(portrait.edgeWords('DOUBLE', -0.1234), '-0.123');
});

test('bars and their outline are as high as the shares', () => {
  assert.deepEqual(portrait.sharesOf({ counts: [1, 2], nulls: 1 }), [0.25, 0.5]);
  assert.deepEqual(portrait.sharesOf({ counts: [], nulls: 0 }), []);
  assert.equal(portrait.barsPath([0.25, 0.5], 0.5, 20, 10, false), 'M0 10V5H10V10V0H20V10V10');
  assert.equal(portrait.barsPath([0.25, 0.5], 0.5, 20, 10, true), 'M0 10V5H10V0H20V10');
  // Nothing to be seen is no drawing that fails.
  assert.equal(portrait.barsPath([0], 0, 20, 10, true), 'M0 10V10H20V10');
});

test('a line over time passes over moments without numbers', () => {
  const past = {
    feature: 'total',
    at: ['2024-01-01T00:00:00+00:00', '2024-01-02T00:00:00+00:00', '2024-01-03T00:00:00+00:00'],
    low: [0, null, 2],
    median: [1, null, 3],
    high: [2, null, 4],
    entities: 7
  };
  assert.deepEqual(portrait.pastPaths(past, 100, 8), {
    line: 'M0.0 6.0L100.0 2.0',
    band: 'M0.0 8.0L100.0 4.0L100.0 0.0L0.0 4.0Z',
    least: 0,
    most: 4
  });
  assert.equal(portrait.pastWords(trans, past), 'median 1 on 2024-01-01, 3 on 2024-01-03');
  const none = { ...past, low: past.low.map(() => null), median: past.at.map(() => null) };
  assert.equal(portrait.pastPaths(none, 100, 8), null);
  assert.equal(portrait.pastWords(trans, none), '');
  const flat = { ...past, low: [5, 5, 5], median: [5, 5, 5], high: [5, 5, 5] };
  assert.equal(portrait.pastPaths(flat, 100, 8).line, 'M0.0 4.0L50.0 4.0L100.0 4.0');
});

test('a lift is a verdict, a difference and its interval, the newest of each target', () => {
  const lift = {
    target: 'bought',
    metric: 'ROC AUC',
    verdict: 'helps',
    difference: 0.0512,
    low: -0.002,
    high: 0.08,
    fingerprint: 'f2'
  };
  const versions = [{ label: 'v2', fingerprint: 'f2' }];
  const older = { ...lift, verdict: 'hurts' };
  const other = { ...lift, target: 'returned', fingerprint: 'gone' };
  assert.deepEqual(portrait.liftLines(trans, { lifts: [lift, older, other], versions }), [
    'helps for bought: ROC AUC +0.0512, 95% interval −0.002 to +0.08 (v2)',
    'helps for returned: ROC AUC +0.0512, 95% interval −0.002 to +0.08 (another definition)'
  ]);
  assert.deepEqual(portrait.liftLines(trans, { lifts: [], versions }), []);
});
