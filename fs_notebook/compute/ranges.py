"""Merging ranges of ordered events into states, for aggregates that are no plain monoids.

A short range is folded event by event. A long one is tiled: its ends are folded event by event,
and what lies between from states of whole blocks, which are folded once and merged pairwise
upwards. Blocks and events of one range go through the aggregate's own merge, so there is no
second meaning. Work grows with events + ranges, not with their product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.kernel import Aggregate, Framewise, Grouped, Row
from fs_notebook.types import ORDER, TIME

Ints = npt.NDArray[np.int64]

BLOCK = 64
"""Events in a block of the lowest level."""

ROWS_MAX = 2_000_000
"""Rows that are held side by side; more ranges go through in turns."""

_RANGE = "__range"


def merged_ranges(
    bound: Aggregate, events: pl.DataFrame, args: Sequence[str], low: Ints, high: Ints
) -> pl.DataFrame:
    """Return the aggregate's state over each range [low, high) of events.

    Parameters
    ----------
    bound
        The aggregate.
    events
        Ordered events: `args`, `types.TIME` and, if the aggregate asks for them, `types.ORDER`.
    low, high
        The ranges, as indices into `events`.

    Returns
    -------
    DataFrame
        The state's columns by their own names, one row a range; nulls where nothing was folded.
    """
    columns = [TIME, *dict.fromkeys(args), *(ORDER if bound.ordered else [])]
    work = _Work(bound, events.select(columns), list(args))
    # Many labels ask for the same range: each is merged once.
    pairs, place = np.unique(np.stack([low, np.maximum(low, high)]), axis=1, return_inverse=True)
    states = list(work.states(pairs[0], pairs[1]))
    whole = pl.concat(states) if states else work.nothing
    wanted = pl.DataFrame({_RANGE: place.reshape(-1).astype(np.int64)})
    return wanted.join(whole, on=_RANGE, how="left", maintain_order="left").drop(_RANGE)


class _Work:
    """One aggregate over one order of events."""

    def __init__(self, bound: Aggregate, events: pl.DataFrame, args: list[str]) -> None:
        self.bound = bound
        self.events = events
        self.args = args
        self.schema = {f.name: f.dtype for f in bound.fields}
        numbered: dict[str, pl.DataType] = {_RANGE: pl.Int64()}
        self.nothing = pl.DataFrame(schema=numbered | self.schema)

    def fold(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Fold rows that carry the number of their range."""
        if isinstance(self.bound, Framewise):
            return self._typed(self.bound.fold(rows, [_RANGE], self.args))
        assert isinstance(self.bound, Grouped)
        row = Row(tuple(pl.col(a) for a in self.args), pl.col(TIME))
        named = zip(self.bound.fold(row), self.schema, strict=True)
        return self._typed(rows.group_by(_RANGE).agg(e.alias(n) for e, n in named))

    def merge(self, states: pl.DataFrame) -> pl.DataFrame:
        """Merge states that carry the number of their range."""
        if isinstance(self.bound, Framewise):
            return self._typed(self.bound.merge(states, [_RANGE]))
        assert isinstance(self.bound, Grouped)
        merged = self.bound.merge(tuple(pl.col(n) for n in self.schema))
        named = zip(merged, self.schema, strict=True)
        return self._typed(states.group_by(_RANGE).agg(e.alias(n) for e, n in named))

    def _typed(self, states: pl.DataFrame) -> pl.DataFrame:
        return states.select(
            pl.col(_RANGE).cast(pl.Int64), *(pl.col(n).cast(t) for n, t in self.schema.items())
        )

    def states(self, low: Ints, high: Ints) -> Iterator[pl.DataFrame]:
        """Yield the states of ranges, in parts."""
        first, last = -(-low // BLOCK), high // BLOCK
        long = last - first > 2
        yield from self._short(np.flatnonzero(~long & (low < high)), low, high)
        chosen = np.flatnonzero(long)
        if not chosen.size:
            return
        ends = [
            *self._short(chosen, low, first * BLOCK),
            *self._short(chosen, last * BLOCK, high),
        ]
        parts = [*ends, *self._tiles(chosen, first[chosen], last[chosen])]
        yield self.merge(pl.concat(parts))

    def _short(self, chosen: Ints, low: Ints, high: Ints) -> Iterator[pl.DataFrame]:
        """Yield the folds of chosen ranges, event by event."""
        sizes = (high - low)[chosen]
        upto = np.cumsum(sizes)
        done = 0
        while done < chosen.size:
            base = upto[done - 1] if done else 0
            stop = max(int(np.searchsorted(upto, base + ROWS_MAX, side="right")), done + 1)
            part, count = chosen[done:stop], sizes[done:stop]
            index = spread(low[part], count)
            if index.size:
                rows = self.events[index].with_columns(pl.Series(_RANGE, np.repeat(part, count)))
                yield self.fold(rows)
            done = stop

    def _tiles(self, chosen: Ints, first: Ints, last: Ints) -> Iterator[pl.DataFrame]:
        """Yield the states of the blocks that tile [first, last), numbered by their ranges."""
        number = pl.int_range(self.events.height, dtype=pl.Int64, eager=True) // BLOCK
        level = self.fold(self.events.with_columns(number.alias(_RANGE)))
        first, last = first.copy(), last.copy()
        while chosen.size:
            odd, even = (first & 1) == 1, (last & 1) == 1
            block = np.concatenate([first[odd], last[even] - 1])
            owner = np.concatenate([chosen[odd], chosen[even]])
            if block.size:
                asked = pl.DataFrame({"__block": block, "__owner": owner})
                found = asked.join(level, left_on="__block", right_on=_RANGE, how="inner")
                yield found.select(pl.col("__owner").alias(_RANGE), *self.schema)
            first, last = (first + 1) >> 1, last >> 1
            more = first < last
            chosen, first, last = chosen[more], first[more], last[more]
            if chosen.size:
                level = self.merge(level.with_columns(pl.col(_RANGE) // 2))


def spread(low: Ints, count: Ints) -> Ints:
    """Return low[0], low[0] + 1, … count[0] times, then the same of the next one."""
    total = int(count.sum())
    starts = np.cumsum(count) - count
    found: Ints = np.arange(total, dtype=np.int64) + np.repeat(low - starts, count)
    return found
