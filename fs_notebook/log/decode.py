"""Payloads to frames, in bulk; what is malformed is set aside, one event at a time.

All declared columns are decoded whatever a read asks for, so that an event is malformed in every
reading or in none.

What counts as malformed in JSON: what is no JSON object; a value of another type than declared
(``1.5`` or ``"1"`` in a BIGINT; text takes any value, as its JSON text); an integer beyond 64
bits, ``NaN`` or ``Infinity``; bytes that are not UTF-8; a time that is neither ISO 8601 text
(without a zone: UTC) nor integer microseconds since the epoch. A missing field is null, and a
field that is not declared is ignored. A decimal is text (``"12.30"``) or a number, exactly: of a
number with a fraction at most 15 digits are believed, since that is what a double keeps on its
way; more digits than the type has are malformed, never rounded. The same holds inside lists and
structs: one such value in them makes the event malformed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal

import polars as pl

from fs_notebook.decimals import exact, exact_texts, read, text_of, widens
from fs_notebook.log.nested import leaves, mapped, wire_type
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

ARROW_MAGIC = b"\xff\xff\xff\xff"
"""How an Arrow IPC stream starts, and how no JSON text can."""

Malformed = dict[int, str]
"""The index of each malformed payload, and why it is."""

_WIRE: dict[Type, pl.DataType] = {
    # Polars parses times as text many times faster than inside its JSON reader, and has no
    # JSON reader for durations.
    Type.TIMESTAMP: pl.String(),
    Type.DATE: pl.String(),
    Type.INTERVAL: pl.Int64(),
}
_LONG_NUMBER = re.compile(rb"[0-9.]{16}")
"""What may be a number of more digits than a double keeps."""

_DIGITS_MAX = 15
_TIME_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
)


def decode_json(payloads: Sequence[bytes], stream: Stream) -> tuple[pl.DataFrame, Malformed]:
    """Return the events of `payloads`, one JSON object each.

    Returns
    -------
    (pl.DataFrame, Malformed)
        The stream's columns in canonical types, a row for each good payload in order; and the
        malformed payloads.
    """
    schema = {name: wire_type(kind, _WIRE) for name, kind in stream.columns}
    if not schema:
        schema = {"__none": pl.String()}
    exactly = any(kind.holds_decimal for _, kind in stream.columns)
    # Polars reads numbers as doubles: a long one in a decimal has to be looked at.
    looked_at = exactly and any(map(_LONG_NUMBER.search, payloads))
    frame = None if looked_at else _bulk(payloads, schema)
    bad: Malformed = {}
    kept: Sequence[int] | None = None
    if frame is None:
        frame, kept, bad = _careful(payloads, schema, stream)
    frame, failed = _read_texts(frame, stream)
    if failed:
        rows = kept if kept is not None else range(len(payloads))
        for row, column in failed.items():
            kind = stream.type_of(column)
            what = f"what is no {kind}" if kind.holds_decimal else "no time"
            bad[rows[row]] = f"column {column!r} holds {what}"
        keep = pl.Series([row not in failed for row in range(frame.height)], dtype=pl.Boolean)
        frame = frame.filter(keep)
    return frame.select(stream.names), bad


def decode_arrow(payload: bytes, stream: Stream) -> tuple[pl.DataFrame | None, str]:
    """Return the events of one Arrow IPC stream, or None and why it cannot be read.

    A column that it was written without is null; one of another type is cast where every value
    fits, and otherwise the whole message is malformed.
    """
    try:
        raw = pl.read_ipc_stream(payload)
        columns = [_arrow_column(raw, name, kind) for name, kind in stream.columns]
        # Selecting nothing but literals would give one row, whatever the message holds.
        frame = raw.with_columns(columns).select(stream.names)
        for name, kind in stream.columns:
            have = raw.schema.get(name)
            if not kind.holds_decimal or have is None or have == kind.polars:
                continue
            lost = frame.get_column(name).null_count() > raw.get_column(name).null_count()
            if lost or not (kind.is_scalar or widens(have, kind)):
                return None, f"column {name!r} is {have}, not exactly {kind}"
        return frame, ""
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        return None, f"no readable Arrow batch: {str(error).splitlines()[0]}"
    except pl.exceptions.PanicException:
        return None, "no readable Arrow batch"


def _arrow_column(raw: pl.DataFrame, name: str, kind: Type) -> pl.Expr:
    if name not in raw.columns:
        return pl.lit(None, dtype=kind.polars).alias(name)
    have = raw.schema[name]
    if kind.is_decimal and have != kind.polars:
        return exact(pl.col(name), have, kind).alias(name)
    return pl.col(name).cast(kind.polars)


def arrow_rows(payload: bytes) -> int:
    """Return how many positions an Arrow message takes: its rows, or one if it is malformed."""
    try:
        return max(pl.read_ipc_stream(payload).height, 1)
    except (pl.exceptions.PolarsError, OSError, ValueError, pl.exceptions.PanicException):
        return 1


def _bulk(payloads: Sequence[bytes], schema: dict[str, pl.DataType]) -> pl.DataFrame | None:
    """Return a row a payload, or None where they are not all one good line each."""
    if not payloads:
        return pl.DataFrame(schema=schema)
    text = b"\n".join(payloads)
    # The reader skips empty lines and takes a line for an event: both must be ruled out.
    if text.count(b"\n") != len(payloads) - 1:
        return None
    try:
        frame = pl.read_ndjson(text, schema=schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return frame if frame.height == len(payloads) else None


def _careful(
    payloads: Sequence[bytes], schema: dict[str, pl.DataType], stream: Stream
) -> tuple[pl.DataFrame, list[int], Malformed]:
    """Return the good payloads' rows, their indices, and the malformed ones."""
    bad: Malformed = {}
    lines: list[tuple[int, bytes]] = []
    for index, payload in enumerate(payloads):
        reason = _reason(payload, stream)
        if reason is not None:
            bad[index] = reason
        else:
            # Line breaks inside a JSON text can only be space between its tokens.
            lines.append((index, payload.replace(b"\n", b" ")))
    parts: list[pl.DataFrame] = []
    kept: list[int] = []
    stack = [lines]
    while stack:
        some = stack.pop()
        part = _bulk([line for _, line in some], schema)
        if part is not None:
            parts.append(part)
            kept.extend(index for index, _ in some)
        elif len(some) == 1:
            bad[some[0][0]] = "no JSON object of the declared columns"
        else:
            middle = len(some) // 2
            stack += [some[middle:], some[:middle]]
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=schema)
    return frame, kept, bad


def _reason(payload: bytes, stream: Stream) -> str | None:
    """Return why a payload is malformed, or None if it looks good."""
    try:
        exactly = any(kind.holds_decimal for _, kind in stream.columns)
        event = json.loads(
            payload.decode("utf-8"),
            parse_constant=_refused,
            parse_float=Decimal if exactly else None,
        )
    except UnicodeDecodeError:
        return "its bytes are not UTF-8"
    except RecursionError:
        return "no JSON: nested too deeply"
    except ValueError as error:
        return f"no JSON: {error}" if payload.strip() else "an empty payload"
    if not isinstance(event, dict):
        return f"no JSON object but {type(event).__name__}"
    for name, kind in stream.columns:
        value = event.get(name)
        if value is not None and not _fits(value, kind):
            return f"column {name!r} holds {str(value)[:60]!r}, declared {kind}"
    return None


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _fits(value: object, kind: Type) -> bool:
    if kind.element is not None:
        element = kind.element
        return isinstance(value, list) and all(v is None or _fits(v, element) for v in value)
    if kind.fields:
        if not isinstance(value, dict):
            return False
        inside = [(value.get(n), t) for n, t in kind.fields]
        return all(v is None or _fits(v, t) for v, t in inside)
    if kind in (Type.BIGINT, Type.INTERVAL):
        return type(value) is int and -(2**63) <= value < 2**63
    if kind.is_decimal:
        return _fits_decimal(value, kind)
    if kind is Type.DOUBLE:
        number = float(value) if isinstance(value, Decimal) else value
        return type(number) is int or (type(number) is float and math.isfinite(number))
    if kind is Type.BOOLEAN:
        return isinstance(value, bool)
    if kind is Type.TIMESTAMP:
        return isinstance(value, str) or type(value) is int
    if kind is Type.DATE:
        return isinstance(value, str)
    return True


def _fits_decimal(value: object, kind: Type) -> bool:
    number = read(value) if isinstance(value, str) else None
    if type(value) is int:
        number = Decimal(value)
    if isinstance(value, Decimal):
        digits = "".join(map(str, value.as_tuple().digits)).strip("0")
        number = value if len(digits) <= _DIGITS_MAX else None
    return number is not None and text_of(number, kind) is not None


def _read_texts(frame: pl.DataFrame, stream: Stream) -> tuple[pl.DataFrame, dict[int, str]]:
    """Return the frame with times and decimals parsed, and each row whose text is none.

    Beside such a row stands its column.
    """
    failed: dict[int, str] = {}
    parsed: list[pl.Series] = []
    for name, kind in stream.columns:
        if not kind.is_scalar and (kind.holds_temporal or kind.holds_decimal):
            parsed.append(_nested_parsed(frame, name, kind, failed))
        if kind is Type.INTERVAL:
            parsed.append(frame.get_column(name).cast(kind.polars))
        if kind not in (Type.TIMESTAMP, Type.DATE) and not kind.is_decimal:
            continue
        text = frame.get_column(name)
        if kind.is_decimal:
            values = exact_texts(text, kind)
        else:
            values = times_of(text) if kind is Type.TIMESTAMP else dates_of(text)
        parsed.append(values.alias(name))
        if values.null_count() > text.null_count():
            rows = (values.is_null() & text.is_not_null()).arg_true()
            failed |= dict.fromkeys(rows.to_list(), name)
    return (frame.with_columns(parsed) if parsed else frame), failed


def _nested_parsed(frame: pl.DataFrame, name: str, kind: Type, failed: dict[int, str]) -> pl.Series:
    """Return a column of lists or structs with the times and decimals in it parsed."""
    column = pl.col(name)
    before = leaves(column, kind, lambda v, k: v.is_not_null())
    parsed = mapped(column, kind, _parsed_leaf).alias(name)
    values = frame.with_columns(parsed, before.alias("__before"))
    after = leaves(column, kind, lambda v, k: v.is_not_null())
    lost = values.select(after.alias("__after") < pl.col("__before")).to_series()
    failed |= dict.fromkeys(lost.arg_true().to_list(), name)
    return values.get_column(name).cast(kind.polars)


def _parsed_leaf(value: pl.Expr, kind: Type) -> pl.Expr:
    if kind.is_decimal:
        return exact(value, pl.String(), kind)
    if kind is Type.INTERVAL:
        return value.cast(kind.polars)
    if kind is Type.DATE:
        return value.str.to_date("%Y-%m-%d", strict=False)
    if kind is not Type.TIMESTAMP:
        return value
    number = value.cast(pl.Int64, strict=False).cast(kind.polars)
    days = value.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    texts = [
        value.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        for form in ("%+", *_TIME_FORMATS)
    ]
    return pl.coalesce(texts[0], number, *texts[1:], days.dt.replace_time_zone("UTC"))


def times_of(text: pl.Series) -> pl.Series:
    """Return the times that texts say, by the rules of JSON; null where one says none."""
    values = _parsed(text, "%+")
    if values.null_count() == text.null_count():
        return values
    # Whole numbers are tried first: every other form has a '-' or ':' inside.
    number = pl.col("text").cast(pl.Int64, strict=False).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"text": text, "value": values}).with_columns(
        pl.coalesce("value", number).alias("value")
    )
    for form in _TIME_FORMATS:
        left = frame.get_column("value").is_null() & frame.get_column("text").is_not_null()
        if not left.any():
            break
        tried = _parsed(frame.get_column("text"), form)
        frame = frame.with_columns(pl.coalesce(pl.col("value"), tried).alias("value"))
    left = frame.get_column("value").is_null() & frame.get_column("text").is_not_null()
    if left.any():
        days = (
            dates_of(frame.get_column("text")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        )
        frame = frame.with_columns(pl.coalesce(pl.col("value"), days).alias("value"))
    return frame.get_column("value")


def _parsed(text: pl.Series, form: str) -> pl.Series:
    return text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)


def dates_of(text: pl.Series) -> pl.Series:
    """Return the dates that texts say, as ``2013-01-31``; null where one says none."""
    return text.str.to_date("%Y-%m-%d", strict=False)
