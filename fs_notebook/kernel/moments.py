"""Variance and its kin: central moments that merge without cancellation.

A state holds the count, the mean and sums of powers of the distance from that mean; many states
merge at once by the same formulas (Chan, Golub and LeVeque 1979; Pébay 2008). A value's error is
within 1e-9 of the mean square of the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from fs_notebook.kernel.algebra import Exprs, Field, Grouped, Row, one
from fs_notebook.types import Type


def _common_mean(count: pl.Expr, mean: pl.Expr) -> pl.Expr:
    """Return, in a group's context, the mean of states' means; null where all are empty."""
    total = count.sum()
    middle = (mean * count).sum() / total
    # Equal means leave no trace of rounding.
    alike = mean.min() == mean.max()
    return pl.when(total > 0).then(pl.when(alike).then(mean.max()).otherwise(middle))


class _Moments(Grouped):
    order: ClassVar[int] = 2
    error = "1e-9 of the arguments' mean square, for rounding"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    @property
    def fields(self) -> tuple[Field, ...]:
        powers = [Field(f"m{k}", pl.Float64()) for k in range(2, self.order + 1)]
        return (Field("n", pl.Int64()), Field("mean", pl.Float64()), *powers)

    def fold(self, row: Row) -> Exprs:
        arg = row.args[0].cast(pl.Float64)
        away = arg - arg.mean()
        powers = [away.pow(k).sum() for k in range(2, self.order + 1)]
        return (arg.count().cast(pl.Int64), arg.mean(), *powers)

    def merge(self, state: Exprs) -> Exprs:
        count, mean, *powers = state
        total = count.sum()
        middle = _common_mean(count, mean)
        away = mean - middle
        m2 = powers[0]
        merged = [(m2 + count * away**2).sum()]
        if self.order >= 3:
            m3 = powers[1]
            merged.append((m3 + 3 * away * m2 + count * away**3).sum())
        if self.order >= 4:
            m4 = powers[2]
            merged.append((m4 + 4 * away * m3 + 6 * away**2 * m2 + count * away**4).sum())
        return (total, middle, *merged)


class VarPop(_Moments):
    """VAR_POP(a): the population variance; empty: null."""

    name = "var_pop"
    usage = "VAR_POP(number)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[0] > 0).then(state[2] / state[0])


class VarSamp(_Moments):
    """VARIANCE(a), VAR_SAMP(a): the sample variance; null below two values."""

    name = "var_samp"
    usage = "VARIANCE(number)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[0] > 1).then(state[2] / (state[0] - 1))


class StddevPop(VarPop):
    """STDDEV_POP(a): the population standard deviation; empty: null."""

    name = "stddev_pop"
    usage = "STDDEV_POP(number)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return super().finalise(state, t).sqrt()


class StddevSamp(VarSamp):
    """STDDEV(a), STDDEV_SAMP(a): the sample standard deviation; null below two values."""

    name = "stddev_samp"
    usage = "STDDEV(number)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return super().finalise(state, t).sqrt()


class Skewness(_Moments):
    """SKEWNESS(a): the sample skewness, adjusted (G1); null below three values or without spread.

    Source: Joanes and Gill (1998).
    """

    name = "skewness"
    usage = "SKEWNESS(number)"
    order = 3
    error = "1e-9 of the arguments' spread relative to their size, for rounding"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        n, m2, m3 = state[0].cast(pl.Float64), state[2], state[3]
        plain = n.sqrt() * m3 / m2.pow(1.5)
        return pl.when((n > 2) & (m2 > 0)).then(plain * (n * (n - 1)).sqrt() / (n - 2))


class Kurtosis(_Moments):
    """KURTOSIS(a): the sample excess kurtosis, adjusted (G2); null below four values or without
    spread.

    Source: Joanes and Gill (1998).
    """

    name = "kurtosis"
    usage = "KURTOSIS(number)"
    order = 4
    error = Skewness.error

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        n, m2, m4 = state[0].cast(pl.Float64), state[2], state[4]
        plain = n * m4 / (m2 * m2) - 3
        adjusted = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * plain + 6)
        return pl.when((n > 3) & (m2 > 0)).then(adjusted)


class _CoMoments(Grouped):
    """Pairs where both are not null."""

    error = _Moments.error

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if len(types) == 2 and all(t.is_number for t in types) else None

    @property
    def fields(self) -> tuple[Field, ...]:
        names = ("mean_x", "mean_y", "xx", "yy", "xy")
        return (Field("n", pl.Int64()), *(Field(n, pl.Float64()) for n in names))

    def fold(self, row: Row) -> Exprs:
        both = row.args[0].is_not_null() & row.args[1].is_not_null()
        # Masked rather than filtered, so that the two stay side by side.
        x, y = (pl.when(both).then(a.cast(pl.Float64)) for a in row.args)
        dx, dy = x - x.mean(), y - y.mean()
        count = both.cast(pl.Int64).sum()
        return (count, x.mean(), y.mean(), (dx * dx).sum(), (dy * dy).sum(), (dx * dy).sum())

    def merge(self, state: Exprs) -> Exprs:
        count, mean_x, mean_y, xx, yy, xy = state
        total = count.sum()
        middles = [_common_mean(count, mean) for mean in (mean_x, mean_y)]
        dx, dy = mean_x - middles[0], mean_y - middles[1]
        merged = [(xx + count * dx * dx).sum(), (yy + count * dy * dy).sum()]
        return (total, *middles, *merged, (xy + count * dx * dy).sum())


class CovarPop(_CoMoments):
    """COVAR_POP(y, x): the population covariance; empty: null."""

    name = "covar_pop"
    usage = "COVAR_POP(y, x)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[0] > 0).then(state[5] / state[0])


class CovarSamp(_CoMoments):
    """COVAR_SAMP(y, x): the sample covariance; null below two pairs."""

    name = "covar_samp"
    usage = "COVAR_SAMP(y, x)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[0] > 1).then(state[5] / (state[0] - 1))


class Corr(_CoMoments):
    """CORR(y, x): Pearson's correlation; null where one of them has no spread."""

    name = "corr"
    usage = "CORR(y, x)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        _, _, _, xx, yy, xy = state
        return pl.when((xx > 0) & (yy > 0)).then((xy / (xx.sqrt() * yy.sqrt())).clip(-1.0, 1.0))
