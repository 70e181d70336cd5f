"""The types that columns, expressions and features have, by their SQL names."""

from __future__ import annotations

from enum import Enum

import polars as pl

from fs_notebook.errors import UsageError


class Type(Enum):
    """A column's type. The value is its SQL name."""

    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    VARCHAR = "VARCHAR"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"
    DATE = "DATE"
    INTERVAL = "INTERVAL"

    @property
    def is_number(self) -> bool:
        return self in (Type.BIGINT, Type.DOUBLE)

    @property
    def polars(self) -> pl.DataType:
        """The Polars type that carries it: timestamps are microseconds, UTC."""
        return _POLARS[self]

    def __str__(self) -> str:
        return self.value


_POLARS: dict[Type, pl.DataType] = {
    Type.BIGINT: pl.Int64(),
    Type.DOUBLE: pl.Float64(),
    Type.VARCHAR: pl.String(),
    Type.BOOLEAN: pl.Boolean(),
    Type.TIMESTAMP: pl.Datetime("us", "UTC"),
    Type.DATE: pl.Date(),
    Type.INTERVAL: pl.Duration("us"),
}


def type_of(dtype: pl.DataType, *, column: str = "") -> Type:
    """Return the type that carries a Polars dtype.

    Raises
    ------
    UsageError
        If no type does; the message names the column.
    """
    if dtype.is_integer():
        return Type.BIGINT
    if dtype.is_float() or dtype.is_decimal():
        return Type.DOUBLE
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return Type.VARCHAR
    if dtype == pl.Boolean:
        return Type.BOOLEAN
    if dtype == pl.Datetime:
        return Type.TIMESTAMP
    if dtype == pl.Date:
        return Type.DATE
    if dtype == pl.Duration:
        return Type.INTERVAL
    raise UsageError(
        f"Column {column!r} has a type that streams do not carry.",
        found=str(dtype),
        remedy="cast it to a number, text, boolean or time, or leave the column out",
    )


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with each column in its canonical Polars type.

    Integers become 64 bits, floats double, times UTC microseconds (naive ones are taken as
    UTC), categories text; a column of nothing but nulls becomes text.

    Raises
    ------
    UsageError
        If a column has no type, or a value does not fit its canonical one.
    """
    casts: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        target = pl.String() if dtype == pl.Null else type_of(dtype, column=name).polars
        if dtype == target:
            continue
        column = pl.col(name)
        if isinstance(dtype, pl.Datetime):
            zoned = (
                column.dt.replace_time_zone("UTC")
                if dtype.time_zone is None
                else column.dt.convert_time_zone("UTC")
            )
            casts.append(zoned.dt.cast_time_unit("us"))
        else:
            casts.append(column.cast(target))
    try:
        return frame.with_columns(casts) if casts else frame
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            "A value does not fit the type that streams carry.",
            found=str(error).splitlines()[0],
            remedy="integers have 64 bits, signed; cast larger ones to DOUBLE or text first",
        ) from None
