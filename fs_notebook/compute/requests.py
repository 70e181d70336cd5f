"""Values that the request itself brings: columns of labels offline, arguments online."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from fs_notebook.decimals import exact, read, text_of
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.types import Type

_WHOLE_MAX = 2**53
_EXPECTED: Mapping[Type, tuple[type | tuple[type, ...], str]] = {
    Type.VARCHAR: (str, "str(…)"),
    Type.BOOLEAN: (bool, "bool(…)"),
    Type.BIGINT: (int, "int(…)"),
    Type.DOUBLE: ((int, float), "float(…)"),
    Type.TIMESTAMP: (datetime, "datetime(…, tzinfo=UTC)"),
    Type.DATE: (date, "date(…)"),
    Type.INTERVAL: (timedelta, "timedelta(…)"),
}


def request_value(value: Any, kind: Type, name: str) -> Any:
    """Return a value in the type of request value `name`; whole numbers widen to DOUBLE.

    Raises
    ------
    UsageError
        If it is of another type.
    """
    if value is None:
        return None
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if kind.is_decimal:
        return _decimal(value, kind, name)
    expected, remedy = _EXPECTED[kind]
    fits = isinstance(value, expected)
    if kind.is_number:
        fits = fits and not isinstance(value, bool)
    if kind is Type.DATE:
        fits = fits and not isinstance(value, datetime)
    if kind is Type.BIGINT and fits and not -(2**63) <= value < 2**63:
        fits, remedy = False, "a whole number of 64 bits"
    if not fits:
        raise UsageError(
            f"The request value {name!r} is a {kind}.",
            found=f"{value!r}, a {type(value).__name__}",
            remedy=f"convert it with {remedy}",
        )
    return float(value) if kind is Type.DOUBLE else value


def _decimal(value: Any, kind: Type, name: str) -> Decimal:
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = Decimal(value) if whole or isinstance(value, Decimal) else None
    text = None if number is None else text_of(number, kind)
    if text is None:
        raise UsageError(
            f"The request value {name!r} is a {kind}.",
            found=f"{value!r}, a {type(value).__name__}",
            remedy="convert it with Decimal('…'), of no more digits than that",
        )
    return Decimal(text)


def request_column(column: pl.Series, kind: Type, name: str) -> pl.Series:
    """Return a column of the labels in the type of request value `name`.

    Integers that pandas turned into floats, for a null among them, are integers again.

    Raises
    ------
    UsageError
        If the column, or one of its values, is of another type.
    """
    dtype = column.dtype
    if dtype == pl.Null:
        return column.cast(kind.polars)
    if kind.is_decimal:
        found = column.to_frame("v").select(exact(pl.col("v"), dtype, kind)).to_series()
        if found.null_count() > column.null_count():
            raise UsageError(
                f"The labels' column {column.name!r} cannot be the request value {name!r}.",
                found=f"{dtype}, where {kind} is needed, exactly",
                remedy=f"cast {column.name!r} to {kind} in the labels first",
            )
        return found.alias(column.name)
    if dtype.is_float() and kind is Type.BIGINT:
        known = column.fill_nan(None)
        if not ((known != known.floor()) | (known.abs() >= _WHOLE_MAX)).any():
            return known.cast(pl.Int64)
    fits = {
        Type.BIGINT: dtype.is_integer(),
        Type.DOUBLE: dtype.is_numeric(),
        Type.VARCHAR: isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)),
        Type.BOOLEAN: dtype == pl.Boolean,
        Type.TIMESTAMP: isinstance(dtype, pl.Datetime),
        Type.DATE: dtype == pl.Date,
        Type.INTERVAL: isinstance(dtype, pl.Duration),
    }[kind]
    if not fits:
        raise UsageError(
            f"The labels' column {column.name!r} cannot be the request value {name!r}.",
            found=f"{dtype}, where {kind} is needed",
            remedy=f"cast {column.name!r} to {kind} in the labels first",
        )
    if isinstance(dtype, pl.Datetime):
        zoned = (
            column.dt.replace_time_zone("UTC")
            if dtype.time_zone is None
            else column.dt.convert_time_zone("UTC")
        )
        return zoned.dt.cast_time_unit("us")
    try:
        return column.cast(kind.polars)
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            f"A value of {column.name!r} does not fit {kind}.", found=str(error).splitlines()[0]
        ) from None


def parse_request(text: str, kind: Type, name: str) -> Any:
    """Return the value that `text`, as it stands in an option, means in type `kind`."""
    try:
        if kind.is_decimal and (number := read(text)) is not None:
            return request_value(number, kind, name)
        match kind:
            case Type.BIGINT:
                return request_value(int(text), kind, name)
            case Type.DOUBLE:
                return float(text)
            case Type.BOOLEAN:
                return {"true": True, "false": False}[text.lower()]
            case Type.TIMESTAMP:
                return datetime.fromisoformat(text)
            case Type.DATE:
                return date.fromisoformat(text)
        if kind.is_decimal:
            raise ValueError(text)
        return text
    except (ValueError, KeyError):
        example = "12.50" if kind.is_decimal else _EXAMPLES[kind]
        raise UsageError(
            f"--with {name} is a {kind}.", found=repr(text), remedy=f"{name}={example}"
        ) from None


_EXAMPLES: Mapping[Type, str] = {
    Type.BIGINT: "12", Type.DOUBLE: "12.5", Type.BOOLEAN: "true",
    Type.TIMESTAMP: "2013-01-31T12:00", Type.DATE: "2013-01-31",
}  # fmt: skip


def chosen_values(requests: Sequence[tuple[str, Type]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each request value, None where `given` has none; texts are parsed.

    Raises
    ------
    UsageError, UnknownName
        If a value is of another type, or no request value is called so.
    """
    kinds = dict(requests)
    check_known(given, kinds)
    values = dict.fromkeys(kinds)
    for name, value in given.items():
        kind = kinds[name]
        parse = isinstance(value, str) and kind is not Type.VARCHAR
        values[name] = (parse_request if parse else request_value)(value, kind, name)
    return values


def check_known(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise if a given request value is none that is read."""
    known = list(known)
    for name in given:
        if name not in known:
            raise unknown_name(
                "request value of these features", name, known, remedy="leave it out"
            )


def some_value(kind: Type, number: int) -> Any:
    """Return some value of `kind`, another one for another `number`: for checks."""
    if kind.is_decimal:
        return Decimal((number * 7 - 3) % 10**kind.precision).scaleb(-kind.scale)
    match kind:
        case Type.BIGINT:
            return number * 7 - 3
        case Type.DOUBLE:
            return math.ldexp(number * 2 + 1, -1)
        case Type.BOOLEAN:
            return number % 2 == 0
        case Type.VARCHAR:
            return f"v{number % 5}"
        case Type.TIMESTAMP:
            return datetime.fromisoformat("2024-01-01T00:00:00+00:00") + timedelta(hours=number)
    return date(2024, 1, 1) + timedelta(days=number)
