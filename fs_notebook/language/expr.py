"""Typed, immutable expressions over one row, or over finished aggregates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fs_notebook.types import Type

Scalar = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the source."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. Timestamps and intervals are microseconds, dates are days since the epoch."""

    value: Scalar
    type: Type


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `fs_notebook.language.functions`, applied."""

    function: str
    args: tuple[Expr, ...]
    type: Type


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The finished value of a plan's aggregation number `index`."""

    index: int
    type: Type


Expr = Column | Literal | Call | Aggregated


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield `expr` and everything inside it."""
    yield expr
    if isinstance(expr, Call):
        for arg in expr.args:
            yield from walk(arg)


def columns_of(expr: Expr) -> set[str]:
    """Return the names of the columns that `expr` reads."""
    return {e.name for e in walk(expr) if isinstance(e, Column)}


def only_where(condition: Expr, args: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Make the first argument null where the condition does not hold: aggregates pass it over."""
    value: Expr = args[0] if args else Literal(1, Type.BIGINT)
    null = Literal(None, value.type)
    return (Call("case", (condition, value, null), value.type), *args[1:])


def substitute(expr: Expr, columns: Mapping[str, Expr]) -> Expr:
    """Return `expr` with the named columns replaced by what stands for them."""
    match expr:
        case Column(name, _):
            return columns.get(name, expr)
        case Call(function, args, kind):
            return Call(function, tuple(substitute(a, columns) for a in args), kind)
        case _:
            return expr


def conjunction(left: Expr | None, right: Expr | None) -> Expr | None:
    """Return what holds where both conditions hold; None stands for one that always does."""
    if left is None or right is None:
        return left if right is None else right
    return Call("and", (left, right), Type.BOOLEAN)


def conjuncts(expr: Expr) -> list[Expr]:
    """Return the conditions that hold together where `expr` holds."""
    if isinstance(expr, Call) and expr.function == "and":
        return [part for a in expr.args for part in conjuncts(a)]
    return [expr]


def to_json(expr: Expr) -> list[Any]:
    """Return the canonical tree, fit for `json.dumps`."""
    match expr:
        case Column(name, kind):
            return ["column", name, kind.value]
        case Literal(value, kind):
            shown = repr(value) if isinstance(value, float) else value
            return ["literal", shown, kind.value]
        case Call(function, args, kind):
            return ["call", function, [to_json(a) for a in args], kind.value]
        case Aggregated(index, kind):
            return ["aggregated", index, kind.value]


def from_json(data: list[Any]) -> Expr:
    """Return the expression that `to_json` wrote."""
    kind = Type(data[-1])
    match data[0]:
        case "column":
            return Column(data[1], kind)
        case "literal":
            value = data[1]
            is_float = kind is Type.DOUBLE and value is not None
            return Literal(float(value) if is_float else value, kind)
        case "call":
            return Call(data[1], tuple(from_json(a) for a in data[2]), kind)
        case "aggregated":
            return Aggregated(int(data[1]), kind)
    raise ValueError(f"not an expression: {data[0]!r}")
