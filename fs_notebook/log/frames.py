"""What reading and writing frames of events have in common on every ledger."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.log import beside
from fs_notebook.log.protocol import POSITION_COLUMNS, PUBLISHED, Stream
from fs_notebook.types import TIME, Type, conform

TIMESTAMP = pl.Datetime("us", "UTC")


def asked_columns(stream: Stream, columns: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns that a read yields before `TIME`; unknown ones are an error."""
    if columns is None:
        return stream.names
    asked = tuple(dict.fromkeys(c for c in columns if c != TIME))
    for name in asked:
        if name != PUBLISHED:
            stream.type_of(name)
    return asked


def needed_columns(stream: Stream, asked: Sequence[str]) -> list[str]:
    """Return the payload columns to fetch for `asked`: them, and the one that holds the time."""
    needed = [c for c in asked if c != PUBLISHED]
    if stream.time is not None and stream.time not in needed:
        needed.append(stream.time)
    return needed


def check_stream(stream: Stream) -> None:
    """Check a declaration where it enters: names are unique and the time column is a time."""
    names = stream.names
    if len(set(names)) != len(names):
        raise UsageError(
            f"Stream {stream.name!r} declares a column twice.",
            found=", ".join(sorted({n for n in names if names.count(n) > 1})),
        )
    reserved = [n for n in names if n in (TIME, PUBLISHED, *POSITION_COLUMNS)]
    if reserved:
        raise UsageError(
            f"Stream {stream.name!r} declares a column whose name is taken.",
            found=", ".join(reserved),
            remedy="rename it; names that the ledger itself gives start with two underscores",
        )
    if stream.time is not None and stream.type_of(stream.time) is not Type.TIMESTAMP:
        raise UsageError(
            f"The time column {stream.time!r} of stream {stream.name!r} is not a time.",
            found=str(stream.type_of(stream.time)),
            remedy="declare it as TIMESTAMP, or declare no time column",
        )
    for column in stream.key:
        if not stream.type_of(column).is_scalar:
            raise UsageError(
                f"The key {column!r} of stream {stream.name!r} is no single value.",
                found=str(stream.type_of(column)),
                remedy="a column of its own for what routes an event",
            )
    beside.check(stream)
    if stream.id is not None:
        kind = stream.type_of(stream.id)
        if not kind.is_scalar or kind is Type.DOUBLE:
            raise UsageError(
                f"The column {stream.id!r} of stream {stream.name!r} cannot be an event's id.",
                found=str(kind),
                remedy="text or a whole number",
            )
    if not 1 <= stream.partitions <= 4096:
        raise UsageError(
            f"Stream {stream.name!r} cannot have {stream.partitions} partitions.",
            remedy="use 1 to 4096",
        )


def outgoing(stream: Stream, rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` as they are stored: the stream's columns, in order, canonical types.

    Raises
    ------
    UsageError
        If a column is missing, is not declared, or does not fit its declared type.
    """
    check_stream(stream)
    if stream.format != "json":
        raise UsageError(
            f"Stream {stream.name!r} is written in {stream.format.capitalize()}, by others.",
            remedy="publish to the topic with their own producer; here it is read",
        )
    stamped = beside.column_of(stream, beside.PUBLISH_TIME)
    if stamped is not None:
        # Whatever is given, the ledger says when it was published.
        rows = rows.with_columns(pl.lit(None, dtype=TIMESTAMP).alias(stamped))
    missing = [n for n in stream.names if n not in rows.columns]
    extra = [n for n in rows.columns if n not in stream.names]
    if missing or extra:
        told = [f"missing: {', '.join(missing)}"] if missing else []
        told += [f"not declared: {', '.join(extra)}"] if extra else []
        raise UsageError(
            f"The rows are not those of stream {stream.name!r}.",
            found="; ".join(told),
            remedy=f"its columns are {', '.join(stream.names)}",
        )
    frame = conform(rows.select(stream.names))
    return _cast(stream, frame, "append to")


def incoming(
    stream: Stream,
    frame: pl.DataFrame,
    asked: Sequence[str],
    *,
    fallback: pl.Expr,
    published: pl.Expr,
) -> pl.DataFrame:
    """Return fetched columns as a read yields them: `asked`, then `TIME`.

    Columns that the events were written without are null (the schema has grown since).
    `fallback` is the time of an event that has none in its own columns, and `published` its
    publish time; both are expressions over `frame` in `TIMESTAMP`.
    """
    missing = [c for c in needed_columns(stream, asked) if c not in frame.columns]
    if missing:
        frame = frame.with_columns(
            pl.lit(None, dtype=stream.type_of(c).polars).alias(c) for c in missing
        )
    frame = _cast(stream, frame, "read from")
    time = fallback if stream.time is None else pl.coalesce(pl.col(stream.time), fallback)
    outputs = [published.alias(PUBLISHED) if c == PUBLISHED else pl.col(c) for c in asked]
    return frame.select(*outputs, time.alias(TIME))


def _cast(stream: Stream, frame: pl.DataFrame, doing: str) -> pl.DataFrame:
    casts = []
    for name, kind in stream.columns:
        if name in frame.columns and frame.schema[name] != kind.polars:
            casts.append(pl.col(name).cast(kind.polars))
    if not casts:
        return frame
    try:
        return frame.with_columns(casts)
    except pl.exceptions.PolarsError as error:
        text = str(error).splitlines()[0]
        message = f"A column of the rows to {doing} stream {stream.name!r} has another type."
        if doing == "append to":
            raise UsageError(message, found=text, remedy="cast it first") from None
        raise DefinitionError(
            message, found=text, remedy="declare the stream with the type it was written with"
        ) from None


def position_frame(
    *, partition: int, ledger: pl.Series, entry: pl.Series, batch: pl.Series
) -> pl.DataFrame:
    """Return a frame of `POSITION_COLUMNS` from its parts, all Int64."""
    n = len(entry)
    return pl.DataFrame(
        [
            pl.repeat(partition, n, dtype=pl.Int64, eager=True).alias(POSITION_COLUMNS[0]),
            ledger.cast(pl.Int64).alias(POSITION_COLUMNS[1]),
            entry.cast(pl.Int64).alias(POSITION_COLUMNS[2]),
            batch.cast(pl.Int64).alias(POSITION_COLUMNS[3]),
        ]
    )


def no_positions() -> pl.DataFrame:
    """Return the positions of no rows."""
    return pl.DataFrame(schema=dict.fromkeys(POSITION_COLUMNS, pl.Int64()))


def no_rows(stream: Stream, asked: Sequence[str]) -> pl.DataFrame:
    """Return a batch's rows when there are none, with the right columns and types."""
    schema = {c: TIMESTAMP if c == PUBLISHED else stream.type_of(c).polars for c in asked}
    return pl.DataFrame(schema=schema | {TIME: TIMESTAMP})


def time_mask(
    rows: pl.DataFrame, time_from_us: int | None, time_to_us: int | None
) -> pl.Series | None:
    """Return which rows have their time in [from, to), or None where all have."""
    if (time_from_us is None and time_to_us is None) or not rows.height:
        return None
    times = rows.get_column(TIME).to_physical()
    keep: pl.Series | None = None
    if time_from_us is not None:
        keep = times >= time_from_us
    if time_to_us is not None:
        before = times < time_to_us
        keep = before if keep is None else keep & before
    assert keep is not None
    return None if keep.all() else keep
