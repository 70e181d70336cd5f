"""Aggregates as monoids: fold rows into fields, merge fields, finalise fields into a value.

Each aggregate is one small class. Its state is a few named fields, and each field is a monoid of
its own (``sum``, ``min`` or ``max``), so that folding a batch, merging partial states and
answering a range of events are derived, not written again, for every aggregate.

The rule for NaN and infinity, in every path: they are numbers. SUM and AVG follow IEEE 754;
NaN is greater than every other number, so MAX gives NaN if there is one and MIN only if there
is nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from fs_notebook.language.types import Type


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an aggregate's state.

    Attributes
    ----------
    name
        Unique within the aggregate.
    dtype
        The Polars type that carries it. Integer sums have 128 bits, so no order of additions
        can overflow before the finished value is checked.
    monoid
        How two of them merge: ``"sum"``, ``"min"`` or ``"max"``. Nulls are the identity.
    """

    name: str
    dtype: pl.DataType
    monoid: str


class Aggregate(Protocol):
    """One aggregate of the language."""

    name: str

    def fields(self, arg: Type | None) -> tuple[Field, ...]:
        """Return the state's fields for an argument of this type (None for COUNT(*))."""
        ...

    def lift(self, arg: pl.Expr | None, kind: Type | None) -> tuple[pl.Expr, ...]:
        """Return each field's value for a single row: the fold of one event."""
        ...

    def finalise(self, fields: Sequence[pl.Expr], kind: Type | None) -> pl.Expr:
        """Return the value of a state; a null field is the empty fold's."""
        ...


def merge_expr(field: Field, column: pl.Expr) -> pl.Expr:
    """Return, in a group's context, the merge of many states' `column`."""
    match field.monoid:
        case "sum":
            return column.sum()
        case "min":
            return column.min()
        case "max":
            return column.nan_max() if field.dtype == pl.Float64 else column.max()
    raise AssertionError(field.monoid)


def _present(arg: pl.Expr) -> pl.Expr:
    return arg.is_not_null().cast(pl.Int64)


class Count:
    """COUNT(*) counts rows, COUNT(a) those where a is not null. Empty: 0."""

    name = "count"

    def fields(self, arg: Type | None) -> tuple[Field, ...]:
        return (Field("n", pl.Int64(), "sum"),)

    def lift(self, arg: pl.Expr | None, kind: Type | None) -> tuple[pl.Expr, ...]:
        return (pl.lit(1, dtype=pl.Int64) if arg is None else _present(arg),)

    def finalise(self, fields: Sequence[pl.Expr], kind: Type | None) -> pl.Expr:
        return fields[0].fill_null(0)


class _Summing:
    def fields(self, arg: Type | None) -> tuple[Field, ...]:
        total = pl.Int128() if arg is Type.BIGINT else pl.Float64()
        return (Field("s", total, "sum"), Field("n", pl.Int64(), "sum"))

    def lift(self, arg: pl.Expr | None, kind: Type | None) -> tuple[pl.Expr, ...]:
        assert arg is not None
        total = arg.cast(pl.Int128) if kind is Type.BIGINT else arg
        return (total, _present(arg))


class Sum(_Summing):
    """SUM(a): exact for integers; empty: null."""

    name = "sum"

    def finalise(self, fields: Sequence[pl.Expr], kind: Type | None) -> pl.Expr:
        total, count = fields
        value = total.cast(pl.Int64) if kind is Type.BIGINT else total
        return pl.when(count > 0).then(value)


class Avg(_Summing):
    """AVG(a): the sum divided by the count; empty: null."""

    name = "avg"

    def finalise(self, fields: Sequence[pl.Expr], kind: Type | None) -> pl.Expr:
        total, count = fields
        return pl.when(count > 0).then(total.cast(pl.Float64) / count)


class Extreme:
    """MIN(a) and MAX(a); empty: null."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fields(self, arg: Type | None) -> tuple[Field, ...]:
        assert arg is not None
        return (Field("v", arg.polars, self.name),)

    def lift(self, arg: pl.Expr | None, kind: Type | None) -> tuple[pl.Expr, ...]:
        assert arg is not None
        return (arg,)

    def finalise(self, fields: Sequence[pl.Expr], kind: Type | None) -> pl.Expr:
        return fields[0]


_ALL: tuple[Aggregate, ...] = (Count(), Sum(), Avg(), Extreme("min"), Extreme("max"))

AGGREGATES: dict[str, Aggregate] = {a.name: a for a in _ALL}
