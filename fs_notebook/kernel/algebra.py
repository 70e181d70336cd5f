"""What an aggregate is: fold rows into a state, merge states, finish a state at a time t.

An aggregate of the language is one small class, and an instance of it is that aggregate bound to
the types of its arguments and to its parameters. Its state is a few named columns, one row an
entity. Three kinds differ in how rows become a state and how states merge:

`Fieldwise`
    Each column is a monoid of its own (``sum``, ``min`` or ``max``): a row is lifted to a state,
    and folding and merging are derived.
`Grouped`
    Fold and merge are expressions in a group's context, for columns that only merge together.
`Framewise`
    Fold and merge are steps over whole frames, for states that are lists.

Null is the empty fold in every column: an entity whose rows gave nothing has nulls there. The
rule for NaN and infinity, in every path: they are numbers. Sums follow IEEE 754; NaN equals
itself and is greater than every other number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from fs_notebook.types import Type

Scalar = int | float | str | bool | None
Exprs = tuple[pl.Expr, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One column of an aggregate's state.

    Attributes
    ----------
    name
        Unique within the aggregate.
    dtype
        The Polars type that carries it. Integer sums have 128 bits, so no order of additions
        can overflow before the finished value is checked.
    monoid
        How two of them merge: ``"sum"``, ``"min"`` or ``"max"``; None where the column merges
        only together with its neighbours.
    """

    name: str
    dtype: pl.DataType
    monoid: str | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant that follows an aggregate's arguments.

    Attributes
    ----------
    name
        What errors call it.
    type
        The literal's type. A BIGINT will do for a DOUBLE.
    low, high
        The least and the greatest value that it may have.
    default
        Its value where the call leaves it out; None makes it required.
    example
        A value for texts and tests.
    """

    name: str
    type: Type
    low: float
    high: float
    default: Scalar = None
    example: Scalar = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a fold may look at, as expressions over the rows: arguments and event time."""

    args: Exprs
    time: pl.Expr


@dataclass(frozen=True)
class Aggregate:
    """An aggregate, bound to its arguments' types and its parameters.

    Parameters
    ----------
    types
        The arguments' types; none for ``COUNT(*)``.
    params
        The values of `parameters`.
    length_us
        The length of the window it stands over, in microseconds; None for a lifetime.
    """

    types: tuple[Type, ...] = ()
    params: tuple[Scalar, ...] = ()
    length_us: int | None = None

    name: ClassVar[str]
    usage: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    mergeable: ClassVar[bool] = True
    """Whether states of parts merge into the state of the whole. All must, so far."""
    invertible: ClassVar[bool] = False
    """Whether a part can be taken out of a state again, without loss."""
    bounded: ClassVar[bool] = True
    """Whether the state's size has a bound whatever the number of events."""
    error: ClassVar[str | None] = None
    """How far the value may be from the exact one; None where it is exact."""
    shown: ClassVar[str | None] = None
    """The column of the state that is the finished value itself wherever that is not null."""
    ordered: ClassVar[bool] = False
    """Whether it asks for `types.ORDER`, to decide between events of one time."""
    timed: ClassVar[bool] = False
    """Whether the value changes as t goes on, although no event comes or leaves."""

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        """Return the value's type, or None where the arguments' types do not fit."""
        raise NotImplementedError

    @property
    def fields(self) -> tuple[Field, ...]:
        """The state's columns."""
        raise NotImplementedError

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        """Return the value of a state at time `t`, integer microseconds."""
        raise NotImplementedError


class Grouped(Aggregate):
    """An aggregate whose fold and merge are expressions in a group's context."""

    def fold(self, row: Row) -> Exprs:
        """Return the state's columns, folded from a group's rows."""
        raise NotImplementedError

    def merge(self, state: Exprs) -> Exprs:
        """Return the state's columns, merged from a group's states."""
        raise NotImplementedError


class Fieldwise(Grouped):
    """An aggregate whose state's columns are monoids of their own."""

    def lift(self, row: Row) -> Exprs:
        """Return each column's value for a single row: the fold of one event."""
        raise NotImplementedError

    def fold(self, row: Row) -> Exprs:
        return self.merge(self.lift(row))

    def merge(self, state: Exprs) -> Exprs:
        return tuple(merge_expr(f, c) for f, c in zip(self.fields, state, strict=True))


class Framewise(Aggregate):
    """An aggregate whose fold and merge are steps over frames."""

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        """Return `by` and the state's columns (by their own names), one row a group.

        `frame` has columns `by`, `args`, `types.TIME` (integer microseconds) and, if asked for,
        `types.ORDER`. Groups that would have an empty state may be left out.
        """
        raise NotImplementedError

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        """Return the same, merged from a frame of `by` and many states' columns."""
        raise NotImplementedError


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


def present(arg: pl.Expr) -> pl.Expr:
    """Return 1 where `arg` has a value and 0 where it is null."""
    return arg.is_not_null().cast(pl.Int64)


def one(types: Sequence[Type], *, number: bool = False) -> Type | None:
    """Return the type of a single scalar argument, or None if that is not what there is."""
    fits = len(types) == 1 and types[0].is_scalar and (types[0].is_number or not number)
    return types[0] if fits else None
