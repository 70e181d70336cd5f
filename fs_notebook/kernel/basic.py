"""Counts, sums, extremes: the aggregates whose state is a handful of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from fs_notebook.kernel.algebra import Exprs, Field, Fieldwise, Parameter, Row, one, present
from fs_notebook.kernel.totals import lifted_total, mean, total, total_fields, total_type
from fs_notebook.types import Type, list_of


class Count(Fieldwise):
    """COUNT(*) counts rows, COUNT(a) those where a is not null. Empty: 0."""

    name = "count"
    usage = "COUNT(*) or COUNT(a)"
    invertible = True
    shown = "n"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.BIGINT if len(types) < 2 else None

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("n", pl.Int64(), "sum"),)

    def lift(self, row: Row) -> Exprs:
        # A literal has one row in a group's context, whatever the group's length.
        return (present(row.args[0]) if row.args else row.time.is_not_null().cast(pl.Int64),)

    def fold(self, row: Row) -> Exprs:
        # The same as merging what is lifted, without making a number of every row.
        count = row.args[0].count() if row.args else pl.len()
        return (count.cast(pl.Int64),)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0].fill_null(0)


class _Summing(Fieldwise):
    @property
    def fields(self) -> tuple[Field, ...]:
        return (*total_fields(self.types[0]), Field("n", pl.Int64(), "sum"))

    def lift(self, row: Row) -> Exprs:
        arg = row.args[0]
        return (*lifted_total(self.types[0], arg), present(arg))

    def fold(self, row: Row) -> Exprs:
        *parts, _ = self.lift(row)
        return (*(p.sum() for p in parts), row.args[0].count().cast(pl.Int64))


class Sum(_Summing):
    """SUM(a): exact for integers and decimals; empty: null."""

    name = "sum"
    usage = "SUM(number)"
    shown = "s"
    # A float that was added cannot be taken away without a trace; integers can.
    invertible = False

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types, number=True)
        return None if kind is None else total_type(kind)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        *parts, count = state
        return pl.when(count > 0).then(total(self.types[0], tuple(parts)))


class Avg(_Summing):
    """AVG(a): the sum divided by the count; empty: null."""

    name = "avg"
    usage = "AVG(number)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        *parts, count = state
        return pl.when(count > 0).then(mean(self.types[0], tuple(parts), count))


class _Extreme(Fieldwise):
    shown = "v"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return one(types)

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("v", self.types[0].polars, self.name),)

    def lift(self, row: Row) -> Exprs:
        return (row.args[0],)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0]


class Min(_Extreme):
    """MIN(a): NaN only if there is nothing else; empty: null."""

    name = "min"
    usage = "MIN(a)"


class Max(_Extreme):
    """MAX(a): NaN if there is one; empty: null."""

    name = "max"
    usage = "MAX(a)"


class _Logical(Fieldwise):
    monoid: ClassVar[str]
    shown = "v"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.BOOLEAN if tuple(types) == (Type.BOOLEAN,) else None

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("v", pl.Boolean(), self.monoid),)

    def lift(self, row: Row) -> Exprs:
        return (row.args[0],)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0]


class BoolOr(_Logical):
    """BOOL_OR(a): whether any is true; empty: null."""

    name = "bool_or"
    usage = "BOOL_OR(condition)"
    monoid = "max"


class BoolAnd(_Logical):
    """BOOL_AND(a): whether all are true; empty: null."""

    name = "bool_and"
    usage = "BOOL_AND(condition)"
    monoid = "min"


class HistogramBins(Fieldwise):
    """HISTOGRAM_BINS(a, low, high, bins): counts in bins of one width over [low, high].

    The last bin holds `high` itself; what lies outside, and NaN, is not counted. Empty: zeros.
    """

    name = "histogram_bins"
    usage = "HISTOGRAM_BINS(number, low, high, bins)"
    invertible = True
    parameters = (
        Parameter("low", Type.DOUBLE, -1e300, 1e300, example=0.0),
        Parameter("high", Type.DOUBLE, -1e300, 1e300, example=8.0),
        Parameter("bins", Type.BIGINT, 1, 100, example=4),
    )

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return list_of(Type.BIGINT) if one(types, number=True) else None

    @property
    def _edges(self) -> tuple[float, float, int]:
        low, high, bins = self.params
        return float(low or 0), float(high or 0), int(bins or 1)

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(f"b{i}", pl.Int64(), "sum") for i in range(self._edges[2]))

    def lift(self, row: Row) -> Exprs:
        low, high, bins = self._edges
        arg = row.args[0].cast(pl.Float64)
        place = ((arg - low) * (bins / (high - low) if high > low else 0.0)).floor()
        place = pl.when(arg == high).then(bins - 1).otherwise(place.clip(0, bins - 1))
        inside = (arg >= low) & (arg <= high)
        return tuple((inside & (place == i)).fill_null(False).cast(pl.Int64) for i in range(bins))

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.concat_list([c.fill_null(0) for c in state])


class TimeSinceLast(Fieldwise):
    """TIME_SINCE_LAST(): seconds from the newest event to t; with an argument, from the newest
    one where that is not null. Empty: null."""

    name = "time_since_last"
    usage = "TIME_SINCE_LAST() or TIME_SINCE_LAST(a)"
    timed = True

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if len(types) < 2 else None

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("t", pl.Int64(), "max"),)

    def lift(self, row: Row) -> Exprs:
        if not row.args:
            return (row.time,)
        return (pl.when(row.args[0].is_not_null()).then(row.time),)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return (t - state[0]) / 1e6


class Rate(Fieldwise):
    """RATE(): events a second, over the window; over a lifetime, since the first event.

    RATE(a) counts those where a is not null. Empty: 0 over a window, null over a lifetime.
    """

    name = "rate"
    usage = "RATE() or RATE(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if len(types) < 2 else None

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("n", pl.Int64(), "sum"), Field("first", pl.Int64(), "min"))

    @property
    def timed(self) -> bool:  # type: ignore[override]
        return self.length_us is None

    def lift(self, row: Row) -> Exprs:
        if not row.args:
            return (row.time.is_not_null().cast(pl.Int64), row.time)
        arg = row.args[0]
        return (present(arg), pl.when(arg.is_not_null()).then(row.time))

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        count, first = state
        if self.length_us is not None:
            return count.fill_null(0) / (self.length_us / 1e6)
        # Closed on the right, t may be the very time of the only event.
        return pl.when(first < t).then(count / ((t - first) / 1e6))
