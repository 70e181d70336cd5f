"""How a column's values were spread, in a few numbers that can be kept and compared later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

BINS = 24
DRAWN_MAX = 40
NAMES_MAX = 12
OTHERS = "others"
COLUMNS_MAX = 200
"""Of so many columns of a training set the catalog keeps the spread."""


@dataclass(frozen=True)
class Spread:
    """A column's values in bins.

    Attributes
    ----------
    edges
        The bins' edges, one more than bins; of times and lengths of time in microseconds. What
        lies beyond is in the outermost bins. Of texts and booleans there are `names` instead: the
        most frequent ones, then ``"others"``.
    counts
        How many values each bin has.
    nulls
        How many are null, NaN or infinite.
    """

    edges: tuple[float, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]
    nulls: int

    @property
    def rows(self) -> int:
        """How many values there were."""
        return sum(self.counts) + self.nulls

    @property
    def shares(self) -> tuple[float, ...]:
        """Each bin's share of all rows, nulls last; they add up to 1."""
        return tuple(n / max(self.rows, 1) for n in (*self.counts, self.nulls))

    def again(self, column: pl.Series) -> Spread:
        """Return the spread of other values over the same bins."""
        if self.names:
            return _of_names(column, self.names)
        return _of_edges(_numbers(column), np.asarray(self.edges))

    def wider(self, column: pl.Series) -> Spread:
        """Return the same values over bins that hold most of others too, for a drawing of both.

        There are `DRAWN_MAX` bins at most: where others lie far away, several become one.
        """
        numbers = np.empty(0) if self.names else _numbers(column)
        finite = numbers[np.isfinite(numbers)]
        if not finite.size:
            return self
        first, last = self.edges[0], self.edges[-1]
        bins, width = len(self.counts), (last - first) / len(self.counts)
        low, high = (float(v) for v in np.quantile(finite, [0.005, 0.995]))
        before = math.ceil(max((first - low) / width, 0.0))
        behind = math.ceil(max((high - last) / width, 0.0))
        if not before + behind < 10**6:
            return self
        size = max(math.ceil((before + bins + behind) / DRAWN_MAX), 1)
        # Whole bins are put together: what lay in one stays in one.
        before += -(before + bins + behind) % size
        counts = [0] * before + list(self.counts) + [0] * behind
        merged = [sum(counts[n : n + size]) for n in range(0, len(counts), size)]
        edges = [first + (n * size - before) * width for n in range(len(merged) + 1)]
        return Spread(tuple(edges), (), tuple(merged), self.nulls)

    def beyond(self, column: pl.Series) -> float:
        """Return which share of other values, if numbers, lies outside of these bins."""
        if self.names:
            return 0.0
        numbers = _numbers(column)
        finite = numbers[np.isfinite(numbers)]
        outside = (finite < self.edges[0]) | (finite > self.edges[-1])
        return float(outside.mean()) if finite.size else 0.0

    def psi(self, now: Spread) -> float:
        """Return the population stability index of newer values over the same bins, in nats."""
        from fs_notebook.model.drift import psi

        then, newer = np.asarray(self.shares), np.asarray(now.shares)
        return psi(then, newer, (self.rows, now.rows))

    def ks(self, now: Spread) -> float:
        """Return the Kolmogorov-Smirnov statistic of newer values over the same bins, from 0 to 1.

        Of numbers the largest distance of the two distribution functions at the bins' edges: that
        of the values themselves is larger by a bin's share at most. Of texts, half the sum of the
        distances of their shares, as `model.drift.Drift` has it.
        """
        if self.names:
            return float(np.abs(np.subtract(self.shares, now.shares)).sum() / 2)
        then, newer = (np.cumsum(one.counts) for one in (self, now))
        if not then[-1] or not newer[-1]:
            return 0.0 if then[-1] == newer[-1] else 1.0
        return float(np.abs(then / then[-1] - newer / newer[-1]).max())

    def js(self, now: Spread) -> float:
        """Return the Jensen-Shannon divergence of newer values over the same bins, in bits."""
        from fs_notebook.model.drift import jensen_shannon

        return jensen_shannon(np.asarray(self.shares), np.asarray(now.shares))

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        kept: dict[str, Any] = {"counts": list(self.counts), "nulls": self.nulls}
        return kept | ({"names": list(self.names)} if self.names else {"edges": list(self.edges)})

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Spread:
        """Return what `to_dict` wrote."""
        return cls(
            tuple(kept.get("edges", ())), tuple(kept.get("names", ())), tuple(kept["counts"]),
            kept["nulls"],
        )  # fmt: skip


def spread_of(column: pl.Series) -> Spread | None:
    """Return how a column is spread; None of what has no bins: lists, structs, nothing known."""
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Null):
        return None
    if _is_text(column):
        known = column.cast(pl.String).drop_nulls().value_counts(sort=True, name="n")
        names = [n for n in known.get_column(column.name).to_list() if n != OTHERS]
        # What was never seen then needs a bin that is there from the beginning.
        return _of_names(column, (*names[:NAMES_MAX], OTHERS)) if names else None
    numbers = _numbers(column)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return None
    low, high = (float(v) for v in np.quantile(finite, [0.005, 0.995]))
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    if not np.isfinite(high - low):
        return None
    if low == high:
        low, high = low - 0.5, high + 0.5
    whole = column.dtype.is_integer() and high - low < BINS
    # Rice's rule: few values in many bins are mostly gaps.
    bins = min(max(math.ceil(2 * math.cbrt(finite.size)), 8), BINS)
    edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high, bins + 1)
    return _of_edges(numbers, edges)


def spreads_of(frame: pl.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """Return column → its spread as a dict, of those that have one."""
    found = {c: spread_of(frame[c]) for c in columns[:COLUMNS_MAX]}
    return {c: one.to_dict() for c, one in found.items() if one is not None}


def _is_text(column: pl.Series) -> bool:
    return column.dtype == pl.Boolean or isinstance(
        column.dtype, (pl.String, pl.Categorical, pl.Enum)
    )


def _numbers(column: pl.Series) -> Any:
    kind = column.dtype
    if not (kind.is_numeric() or kind.is_temporal()):
        # The type changed since: none of the values lies in a bin.
        return np.full(column.len(), np.nan)
    values = column.to_physical() if kind.is_temporal() else column
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _of_edges(numbers: Any, edges: Any) -> Spread:
    finite = numbers[np.isfinite(numbers)]
    bins = len(edges) - 1
    codes = np.clip(np.searchsorted(edges, finite, side="right") - 1, 0, bins - 1)
    counts = np.bincount(codes, minlength=bins)
    return Spread(
        tuple(float(e) for e in edges), (), tuple(int(n) for n in counts),
        int(numbers.size - finite.size),
    )  # fmt: skip


def _of_names(column: pl.Series, names: Sequence[str]) -> Spread:
    places = {name: n for n, name in enumerate(names)}
    known = [] if column.dtype.is_nested() else column.cast(pl.String).drop_nulls().to_list()
    codes = [places.get(v, places[OTHERS]) for v in known]
    counts = np.bincount(np.asarray(codes, dtype=np.int64), minlength=len(names))
    return Spread((), tuple(names), tuple(int(n) for n in counts), column.len() - len(known))
