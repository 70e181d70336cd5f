"""Constants and casts between types, as every row function needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

import polars as pl

from fs_notebook import decimals
from fs_notebook.language.expr import Call
from fs_notebook.types import Type

Build = Callable[[Sequence[pl.Expr], Call], pl.Expr]
"""Makes the Polars expression of a call, of those of its arguments."""


def literal(value: object, kind: Type) -> pl.Expr:
    if kind in (Type.TIMESTAMP, Type.DATE, Type.INTERVAL) and value is not None:
        storage = pl.Int32() if kind is Type.DATE else pl.Int64()
        return pl.lit(value, dtype=storage).cast(kind.polars)
    if kind.is_decimal and value is not None:
        return pl.lit(Decimal(str(value)), dtype=kind.polars)
    return pl.lit(value, dtype=kind.polars)


def cast(value: pl.Expr, source: Type, target: Type) -> pl.Expr:
    if target.is_decimal:
        return _to_decimal(value, source, target)
    if source.is_decimal and target is Type.BIGINT:
        return decimals.to_integer(value, source)
    if source is Type.VARCHAR and target is Type.TIMESTAMP:
        return value.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if source is Type.VARCHAR and target is Type.DATE:
        return value.str.to_date(strict=False)
    if source is Type.VARCHAR and target is Type.BOOLEAN:
        lower = value.str.to_lowercase()
        return pl.when(lower == "true").then(True).when(lower == "false").then(False)
    if source is Type.DATE and target is Type.TIMESTAMP:
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if source is Type.DOUBLE and target is Type.BIGINT:
        return value.round(0, mode="half_away_from_zero").cast(pl.Int64, strict=False)
    return value.cast(target.polars, strict=False)


def _to_decimal(value: pl.Expr, source: Type, target: Type) -> pl.Expr:
    if source.is_decimal:
        return decimals.rescaled(value, source, target)
    if source is Type.DOUBLE:
        return decimals.from_double(value, target)
    if source is Type.VARCHAR:
        return decimals.from_text(value, target)
    return value.cast(target.polars)


def widened(args: Sequence[pl.Expr], call: Call, target: Type | None = None) -> list[pl.Expr]:
    """Bring arguments to one type, as the type rules promised.

    Decimals and integers that are compared stay as they are: Polars compares them exactly.
    """
    kinds = [a.type for a in call.args]
    if call.type.is_decimal:
        wanted: Type | None = target or call.type
    else:
        wanted = target or (
            Type.DOUBLE
            if Type.DOUBLE in kinds
            else Type.TIMESTAMP
            if Type.TIMESTAMP in kinds
            else None
        )
    if wanted is None:
        return list(args)
    return [
        a if k in (wanted, Type.INTERVAL) else cast(a, k, wanted)
        for a, k in zip(args, kinds, strict=True)
    ]
