"""Sums in which an event's weight halves with each half-life that passes.

An event at time s has the weight 2^-((t - s) / half-life) at time t. A state holds the weighted
sum at the time of its own newest event.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fs_notebook.kernel.algebra import Exprs, Field, Grouped, Parameter, Row, one
from fs_notebook.types import Type

_HALF = Parameter("half_life", Type.INTERVAL, 1, 2**62, example=3_000_000)


class _Decayed(Grouped):
    parameters = (_HALF,)

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("t", pl.Int64()), Field("s", pl.Float64()), Field("w", pl.Float64()))

    def _weight(self, age: pl.Expr) -> pl.Expr:
        return pl.lit(2.0).pow(age.cast(pl.Float64) * (-1.0 / float(self.params[0] or 1)))

    def fold(self, row: Row) -> Exprs:
        value = (
            row.args[0].cast(pl.Float64) if row.args else row.time.is_not_null().cast(pl.Float64)
        )
        time = pl.when(value.is_not_null()).then(row.time)
        return self.merge((time, value, value.is_not_null().cast(pl.Float64)))

    def merge(self, state: Exprs) -> Exprs:
        time, total, weight = state
        newest = time.max()
        factor = self._weight(newest - time)
        return (newest, (total * factor).sum(), (weight * factor).sum())


class DecayedSum(_Decayed):
    """DECAYED_SUM(a, half_life): the sum of a, each weighted by its age at t; empty: null."""

    name = "decayed_sum"
    usage = "DECAYED_SUM(number, INTERVAL '7' DAY)"
    timed = True

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[1] * self._weight(t - state[0])


class DecayedCount(_Decayed):
    """DECAYED_COUNT(half_life): the sum of the events' weights at t; empty: 0.

    DECAYED_COUNT(a, half_life) takes those where a is not null.
    """

    name = "decayed_count"
    usage = "DECAYED_COUNT(INTERVAL '7' DAY) or DECAYED_COUNT(a, INTERVAL '7' DAY)"
    timed = True

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if len(types) < 2 else None

    def fold(self, row: Row) -> Exprs:
        if not row.args:
            return super().fold(row)
        present = pl.when(row.args[0].is_not_null()).then(1.0)
        return super().fold(Row((present,), row.time))

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return (state[2] * self._weight(t - state[0])).fill_null(0.0)


class DecayedAvg(_Decayed):
    """DECAYED_AVG(a, half_life): the mean of a, weighted by age; empty: null."""

    name = "decayed_avg"
    usage = "DECAYED_AVG(number, INTERVAL '7' DAY)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[2] > 0).then(state[1] / state[2])
