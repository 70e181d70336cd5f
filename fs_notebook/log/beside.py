"""What lies beside a message's payload: its key, its properties, its two times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

KEY, EVENT_TIME, PUBLISH_TIME, PROPERTY = "key", "event time", "publish time", "property "
_TIMESTAMP = pl.Datetime("us", "UTC")


def check(stream: Stream) -> None:
    """Check which columns a declaration takes from beside the payload.

    Raises
    ------
    UsageError
        If a column or a source is unknown, is named twice, or the types do not fit.
    """
    taken = [source for _, source in stream.meta]
    named = [column for column, _ in stream.meta]
    for column, source in stream.meta:
        kind = stream.type_of(column)
        timed = source in (EVENT_TIME, PUBLISH_TIME)
        if not timed and source != KEY and not (source.startswith(PROPERTY) and source[9:]):
            raise UsageError(
                f"Stream {stream.name!r} takes {column!r} from an unknown place.",
                found=source,
                remedy='"key", "property NAME", "event time" or "publish time"',
            )
        want = Type.TIMESTAMP if timed else Type.VARCHAR
        if kind is not want:
            raise UsageError(
                f"The column {column!r} of stream {stream.name!r} is the message's {source}.",
                found=f"declared as {kind}",
                remedy=f"declare it as {want}",
            )
        if named.count(column) > 1 or taken.count(source) > 1:
            raise UsageError(
                f"Stream {stream.name!r} names {column!r} or the message's {source} twice.",
                remedy="one column for each",
            )


def payload_of(stream: Stream) -> Stream:
    """Return the declaration of what is in the payload itself."""
    if not stream.meta:
        return stream
    beside = {column for column, _ in stream.meta}
    columns = tuple((n, t) for n, t in stream.columns if n not in beside)
    time = None if stream.time in beside else stream.time
    return Stream(stream.name, columns, time, format=stream.format, schema=stream.schema)


def column_of(stream: Stream, source: str) -> str | None:
    """Return the column that a place beside the payload fills, if any."""
    return next((c for c, s in stream.meta if s == source), None)


def filled(
    stream: Stream,
    *,
    keys: Callable[[], Sequence[str | None]],
    properties: Callable[[], Sequence[dict[str, str]]],
    event_us: Callable[[], pl.Series],
    published_us: Callable[[], pl.Series],
) -> list[pl.Series]:
    """Return the columns that lie beside the payload; only what is declared is asked for.

    Times are in microseconds since the epoch; 0 stands for no event time.
    """
    made: list[pl.Series] = []
    told: Sequence[dict[str, str]] | None = None
    for column, source in stream.meta:
        if source == KEY:
            values = pl.Series(column, [k or None for k in keys()], dtype=pl.String)
        elif source == EVENT_TIME:
            us = event_us()
            values = us.set(us == 0, None).cast(_TIMESTAMP)
        elif source == PUBLISH_TIME:
            values = published_us().cast(_TIMESTAMP)
        else:
            told = properties() if told is None else told
            name = source.removeprefix(PROPERTY)
            values = pl.Series(column, [p.get(name) for p in told], dtype=pl.String)
        made.append(values.alias(column))
    return made
