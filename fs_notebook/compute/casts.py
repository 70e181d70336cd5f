"""Constants and casts between types, as every row function needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from fs_notebook.language.expr import Call
from fs_notebook.types import Type

Build = Callable[[Sequence[pl.Expr], Call], pl.Expr]
"""Makes the Polars expression of a call, of those of its arguments."""


def literal(value: object, kind: Type) -> pl.Expr:
    if kind in (Type.TIMESTAMP, Type.DATE, Type.INTERVAL) and value is not None:
        storage = pl.Int32() if kind is Type.DATE else pl.Int64()
        return pl.lit(value, dtype=storage).cast(kind.polars)
    return pl.lit(value, dtype=kind.polars)


def cast(value: pl.Expr, source: Type, target: Type) -> pl.Expr:
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


def widened(args: Sequence[pl.Expr], call: Call, target: Type | None = None) -> list[pl.Expr]:
    """Bring arguments to one type, as the type rules promised."""
    kinds = [a.type for a in call.args]
    wanted = target or (
        Type.DOUBLE if Type.DOUBLE in kinds else Type.TIMESTAMP if Type.TIMESTAMP in kinds else None
    )
    if wanted is None:
        return list(args)
    return [
        a if k in (wanted, Type.INTERVAL) else cast(a, k, wanted)
        for a, k in zip(args, kinds, strict=True)
    ]
