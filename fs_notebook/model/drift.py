"""How far a column's values moved in time: PSI, Kolmogorov-Smirnov and Jensen-Shannon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.clock import from_us
from fs_notebook.model.scores import Floats

Ints = npt.NDArray[np.int64]

BINS = 10
CATEGORIES = 15
SLICES = 12
_SLICE_ROWS = 50
_SHARE_MIN = 1e-4
PSI_LARGE = 0.25
"""From here on a distribution is said to have shifted (Siddiqi 2006)."""


@dataclass(frozen=True)
class Slice:
    """A column in a stretch of time: its quartiles (None of texts), its nulls, and its PSI."""

    at: datetime
    rows: int
    low: float | None
    median: float | None
    high: float | None
    nulls: float
    psi: float


@dataclass(frozen=True)
class Drift:
    """A column's values in the labels that were learnt from, and in the newest ones.

    Attributes
    ----------
    psi
        Population stability index, in nats: the sum over bins of (q - p) ln(q / p), from 0 on;
        above 0.25 a distribution is said to have shifted (Siddiqi 2006). Bins are the tenths of
        the earlier values, or the most frequent texts; nulls are a bin of their own.
    ks
        Kolmogorov-Smirnov statistic: the largest distance of the two distribution functions,
        from 0 to 1 (Smirnov 1939); of texts, half the sum of the distances of their shares.
    js
        Jensen-Shannon divergence over the same bins, in bits, from 0 to 1 (Lin 1991).
    rows_then, rows_now
        How many values each side has.
    slices
        The column over time, each slice with its PSI against what was learnt from.
    """

    column: str
    psi: float
    ks: float
    js: float
    rows_then: int
    rows_now: int
    slices: tuple[Slice, ...] = ()

    @property
    def is_large(self) -> bool:
        """Tell whether the shift is large, and more than so few rows bring by chance.

        By chance the PSI is about (bins - 1) (1 / n + 1 / m) (Yurdakul 2018).
        """
        chance = BINS * (1 / max(self.rows_then, 1) + 1 / max(self.rows_now, 1))
        return self.psi > max(PSI_LARGE, 3 * chance)


def psi(then: Floats, now: Floats, rows: tuple[int, int] = (0, 0)) -> float:
    """Return the population stability index of two lists of shares, of the same bins.

    An empty bin counts as half a row of so many, 0.0001 at least: the index stays finite.
    """
    p, q = (
        np.maximum(s, max(_SHARE_MIN, 0.5 / n if n else 0.0))
        for s, n in zip((then, now), rows, strict=True)
    )
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(then: Floats, now: Floats) -> float:
    """Return the Jensen-Shannon divergence of two lists of shares, in bits."""
    middle = (then + now) / 2

    def toward(p: Floats) -> float:
        some = p > 0
        return float(np.sum(p[some] * np.log2(p[some] / middle[some])))

    return max((toward(then) + toward(now)) / 2, 0.0)


def kolmogorov_smirnov(then: Floats, now: Floats) -> float:
    """Return the largest distance of the distribution functions of two samples."""
    if not then.size or not now.size:
        return 0.0 if then.size == now.size else 1.0
    then, now = np.sort(then), np.sort(now)
    every = np.concatenate([then, now])
    below_then = np.searchsorted(then, every, side="right") / then.size
    below_now = np.searchsorted(now, every, side="right") / now.size
    return float(np.abs(below_then - below_now).max())


class Binned:
    """A column in bins that some of its rows decide: tenths of numbers, frequent texts, nulls."""

    def __init__(self, column: pl.Series, learnt_from: Ints) -> None:
        self.is_number = column.dtype.is_numeric() or column.dtype.is_temporal()
        self.numbers: Any = None
        if column.dtype == pl.Boolean or not self.is_number:
            text = column.cast(pl.String)
            known = text.gather(learnt_from).drop_nulls().value_counts(sort=True, name="n")
            names = known.get_column(column.name).head(CATEGORIES).to_list()
            self.names = [*names, "other", "null"]
            ranks = {n: i for i, n in enumerate(names)}
            codes = text.replace_strict(
                ranks, default=len(names), return_dtype=pl.Int64
            ).set(text.is_null(), len(names) + 1)  # fmt: skip
            self.codes: Ints = codes.to_numpy().astype(np.int64)
        else:
            values = column.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()
            self.numbers = np.asarray(values, dtype=np.float64)
            known_values = self.numbers[learnt_from]
            known_values = known_values[np.isfinite(known_values)]
            tenths = np.arange(1, BINS) / BINS
            edges = np.unique(np.quantile(known_values, tenths)) if known_values.size else tenths
            codes_ = np.searchsorted(edges, self.numbers, side="left")
            self.codes = np.where(np.isnan(self.numbers), edges.size + 1, codes_)
            self.names = [*(str(i) for i in range(edges.size + 1)), "null"]
        self.bins = len(self.names)

    def shares(self, rows: Ints) -> Floats:
        """Return each bin's share of these rows."""
        found = np.bincount(self.codes[rows], minlength=self.bins).astype(np.float64)
        return found / max(rows.size, 1)


def drift_of(column: pl.Series, times: Ints, then: Ints, now: Ints) -> Drift:
    """Return how far `column` moved from the rows `then` to the rows `now`, and how over time."""
    binned = Binned(column, then)
    p, q = binned.shares(then), binned.shares(now)
    if binned.numbers is None:
        ks = float(np.abs(p - q).sum() / 2)
    else:
        parts = [binned.numbers[rows] for rows in (then, now)]
        ks = kolmogorov_smirnov(*(part[np.isfinite(part)] for part in parts))
    return Drift(
        column.name, psi(p, q, (then.size, now.size)), ks, jensen_shannon(p, q),
        then.size, now.size, tuple(_slices(binned, times, then, np.union1d(then, now))),
    )  # fmt: skip


def _slices(binned: Binned, times: Ints, then: Ints, rows: Ints) -> Sequence[Slice]:
    ordered = rows[np.argsort(times[rows], kind="stable")]
    shares_then = binned.shares(then)
    found = []
    for part in np.array_split(ordered, min(SLICES, max(ordered.size // _SLICE_ROWS, 1))):
        low = median = high = None
        if binned.numbers is not None:
            values = binned.numbers[part]
            values = values[np.isfinite(values)]
            if values.size:
                low, median, high = (float(v) for v in np.quantile(values, [0.25, 0.5, 0.75]))
        shares = binned.shares(part)
        found.append(Slice(
            from_us(int(times[part[0]])), part.size, low, median, high, float(shares[-1]),
            psi(shares_then, shares, (then.size, part.size)),
        ))  # fmt: skip
    return found
