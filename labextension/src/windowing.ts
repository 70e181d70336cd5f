/** Which part of a long list is in view: the arithmetic, apart from any page. */

/** Where each item begins, and at last where the list ends. */
export function offsetsOf(heights: readonly number[]): Float64Array {
  const offsets = new Float64Array(heights.length + 1);
  heights.forEach((height, index) => {
    offsets[index + 1] = offsets[index] + height;
  });
  return offsets;
}

/** The index of the item at a height; the first or the last one beyond the ends. */
export function itemAt(offsets: Float64Array, y: number): number {
  let low = 0;
  let high = Math.max(offsets.length - 2, 0);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle] <= y) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/** The items in view, and as much again on either side, as a half-open range. */
export function inView(
  offsets: Float64Array,
  top: number,
  height: number,
  margin: number
): [number, number] {
  const count = offsets.length - 1;
  if (count <= 0) {
    return [0, 0];
  }
  return [itemAt(offsets, top - margin), itemAt(offsets, top + height + margin) + 1];
}

/** Where to scroll so that what lies from `begin` to `end` is in view; where it is, nothing moves. */
export function scrolledTo(begin: number, end: number, top: number, height: number): number {
  if (begin < top) {
    return begin;
  }
  // Of what is taller than the view the beginning shows.
  return end > top + height ? Math.min(begin, end - height) : top;
}
