"""Lists and structs on their way through JSON: what they hold, one leaf at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import polars as pl

from fs_notebook.types import Type

Leaf = Callable[[pl.Expr, Type], pl.Expr]


def mapped(value: pl.Expr, kind: Type, leaf: Leaf) -> pl.Expr:
    """Return `value`, of type `kind`, with each scalar in it replaced by its `leaf`."""
    if kind.element is not None:
        return value.list.eval(mapped(pl.element(), kind.element, leaf))
    if kind.fields:
        parts = [mapped(value.struct.field(n), t, leaf).alias(n) for n, t in kind.fields]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    return leaf(value, kind)


def leaves(value: pl.Expr, kind: Type, count: Leaf) -> pl.Expr:
    """Return the sum of `count` over the scalars in `value`; 0 for nulls and empty lists."""
    if kind.element is not None:
        inner = value.list.eval(leaves(pl.element(), kind.element, count))
        return inner.list.sum().fill_null(0)
    if kind.fields:
        parts = [leaves(value.struct.field(n), t, count) for n, t in kind.fields]
        return reduce(lambda a, b: a + b, parts)
    return count(value, kind).cast(pl.Int64).fill_null(0)


def wire_type(kind: Type, scalars: dict[Type, pl.DataType]) -> pl.DataType:
    """Return the Polars type that carries `kind` in JSON, where `scalars` have their own.

    Decimals are read as text, from which no digit is lost.
    """
    if kind.element is not None:
        return pl.List(wire_type(kind.element, scalars))
    if kind.fields:
        return pl.Struct([pl.Field(n, wire_type(t, scalars)) for n, t in kind.fields])
    return pl.String() if kind.is_decimal else scalars.get(kind, kind.polars)


def holds(kind: Type, *scalars: Type) -> bool:
    """Tell whether `kind` is one of `scalars`, or has one anywhere inside."""
    inner = [kind.element] if kind.element is not None else [t for _, t in kind.fields]
    return kind in scalars or any(holds(t, *scalars) for t in inner)


def json_map(value: pl.Expr, shown: Callable[[pl.Expr], pl.Expr] | None) -> pl.Expr:
    """Return the JSON text of a map that was read as a list of its entries, ``key`` and ``value``.

    `shown` gives what becomes of a value; None makes all of them null.
    """
    entry = pl.element()
    inner = pl.lit(None, dtype=pl.String) if shown is None else shown(entry.struct.field("value"))
    # An object of one field has its value's JSON text inside: {"k":"…"}. Keys are text here.
    key = pl.struct(entry.struct.field("key").cast(pl.String).alias("k")).struct.json_encode()
    held = pl.struct(inner.alias("v")).struct.json_encode()
    text = pl.concat_str(key.str.slice(5).str.head(-1), pl.lit(":"), held.str.slice(5).str.head(-1))
    joined = value.list.eval(text).list.join(",")
    return pl.when(value.is_not_null()).then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))
