"""Whether datums are what their schema says, for many at once.

A decoder that strings datums together must know that each ends where the next begins, and Polars'
own is noisy about bytes that it does not expect. So all are walked through first, a place of the
schema at a time: an array has how far each datum was read, and what does not fit is marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fs_notebook.log.avro_schema import Node

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LONG_BYTES_MAX = 10
_PAD = 16
_DECIMAL_BYTES_MAX = 16
_SIZES = {"boolean": 1, "float": 4, "double": 8}


def misread(node: Node, payloads: Sequence[bytes]) -> Bools:
    """Return which payloads are no whole datum of `node`: too short, too long, or out of range.

    Text is not looked at: whether it is UTF-8 is told by whoever reads it.
    """
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    ends = np.cumsum(lengths)
    body = np.frombuffer(b"".join([*payloads, bytes(_PAD)]), np.uint8)
    walk = _Walk(body, ends)
    at = ends - lengths
    walk.read(node, at, np.arange(len(payloads)))
    wrong: Bools = walk.bad | (at != ends)
    return wrong


class _Walk:
    """`at` is where each datum is to be read next; only the rows `which` are touched."""

    def __init__(self, body: npt.NDArray[np.uint8], ends: Ints) -> None:
        self._body = body
        self._ends = ends
        self.bad: Bools = np.zeros(len(ends), np.bool_)

    def read(self, node: Node, at: Ints, which: Ints) -> None:
        if not len(which):
            return
        match node.form:
            case "null":
                return
            case "int" | "long":
                value = self._long(at, which)
                if node.form == "int":
                    self._refuse(which, (value < -(2**31)) | (value >= 2**31))
            case "boolean":
                self._refuse(which, self._body[self._inside(at, which)] > 1)
                at[which] += 1
            case "float" | "double":
                at[which] += _SIZES[node.form]
            case "fixed":
                at[which] += node.size
            case "string" | "bytes":
                length = self._long(at, which)
                if node.logical == "decimal":
                    self._refuse(which, (length == 0) | (length > _DECIMAL_BYTES_MAX))
                self._skip(at, which, length)
            case "enum":
                value = self._long(at, which)
                self._refuse(which, (value < 0) | (value >= len(node.names)))
            case "record":
                for inner in node.inner:
                    self.read(inner, at, which)
            case "union":
                branch = self._long(at, which)
                self._refuse(which, (branch < 0) | (branch >= len(node.inner)))
                for number, inner in enumerate(node.inner):
                    self.read(inner, at, which[branch == number])
            case "array" | "map":
                self._blocks(node, at, which)

    def _inside(self, at: Ints, which: Ints) -> Ints:
        """Return places to look at; of a datum that has ended, its end, and it is marked."""
        here = at[which]
        out = here >= self._ends[which]
        if out.any():
            self.bad[which[out]] = True
            here = np.minimum(here, len(self._body) - _PAD)
        return here

    def _refuse(self, which: Ints, wrong: Bools) -> None:
        if wrong.any():
            self.bad[which[wrong]] = True

    def _skip(self, at: Ints, which: Ints, length: Ints) -> None:
        """Go on by `length` bytes, not further than to the datum's end."""
        left = self._ends[which] - at[which]
        self._refuse(which, (length < 0) | (length > left))
        at[which] += np.clip(length, 0, np.maximum(left, 0))

    def _long(self, at: Ints, which: Ints) -> Ints:
        """Read a number of each; those that go on after ten bytes are marked."""
        here = self._inside(at, which)
        byte = self._body[here]
        raw = (byte & 0x7F).astype(np.uint64)
        taken = np.ones(len(which), np.int64)
        more = np.flatnonzero(byte & 0x80)
        for step in range(1, _LONG_BYTES_MAX):
            if not len(more):
                break
            byte = self._body[np.minimum(here[more] + step, len(self._body) - 1)]
            raw[more] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * step)
            taken[more] += 1
            more = more[(byte & 0x80) != 0]
        self.bad[which[more]] = True
        at[which] = here + taken
        halves = (raw >> np.uint64(1)).astype(np.int64)
        value: Ints = halves ^ -(raw & np.uint64(1)).astype(np.int64)
        return value

    def _blocks(self, node: Node, at: Ints, which: Ints) -> None:
        """Read blocks of items until the empty one that ends them."""
        while len(which):
            count = self._long(at, which)
            sized = count < 0
            if sized.any():
                self._long(at, which[sized])
                count = np.abs(count)
            self._refuse(which, count > self._ends[which] - at[which])
            going = (count > 0) & ~self.bad[which] & (at[which] < self._ends[which])
            which, count = which[going], count[going]
            self._items(node, at, which, count)

    def _items(self, node: Node, at: Ints, which: Ints, count: Ints) -> None:
        item = node.inner[0]
        fixed = _SIZES.get(item.form, item.size if item.form == "fixed" else 0)
        if node.form == "array" and fixed and item.form != "boolean":
            self._skip(at, which, count * fixed)
            return
        done = 0
        while len(which):
            if node.form == "map":
                self._skip(at, which, self._long(at, which))
            self.read(item, at, which)
            done += 1
            going = (count > done) & ~self.bad[which]
            which, count = which[going], count[going]
