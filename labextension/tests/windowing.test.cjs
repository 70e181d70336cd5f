'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { tested } = require('./support.cjs');

const { inView, itemAt, offsetsOf, scrolledTo } = tested('windowing');

test('items in view are those that overlap it, at any place', () => {
  const heights = Array.from({ length: 500 }, (_, n) => (n % 7 ? 40 : 25 + n));
  const offsets = offsetsOf(heights);
  const all = offsets[500];
  for (let top = 0; top <= all - 300; top += 37) {
    const [first, last] = inView(offsets, top, 300, 0);
    const seen = heights.flatMap((height, n) =>
      offsets[n] <= top + 300 && offsets[n] + height > top ? [n] : []
    );
    assert.deepEqual([first, last - 1], [seen[0], seen[seen.length - 1]]);
  }
});

test('beyond the ends there is the first and the last item', () => {
  const offsets = offsetsOf([10, 10, 10]);
  assert.equal(itemAt(offsets, -5), 0);
  assert.equal(itemAt(offsets, 500), 2);
  assert.deepEqual(inView(offsets, -100, 1000, 50), [0, 3]);
  assert.deepEqual(inView(offsetsOf([]), 0, 100, 50), [0, 0]);
});

test('of ten thousand rows few are in view', () => {
  const offsets = offsetsOf(new Array(10_000).fill(42));
  const [first, last] = inView(offsets, 200_000, 800, 300);
  assert.ok(last - first <= 36);
});

test('scrolling moves as little as is needed', () => {
  assert.equal(scrolledTo(100, 140, 50, 200), 50);
  assert.equal(scrolledTo(100, 140, 120, 200), 100);
  assert.equal(scrolledTo(300, 340, 50, 200), 140);
  assert.equal(scrolledTo(300, 900, 50, 200), 300);
});
