"""How events are written as messages: routed to partitions, as JSON or as Arrow batches."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log import beside
from fs_notebook.log.nested import holds, leaves, mapped
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type, type_of

JSON_ROWS_MAX = 1_000
ARROW_ROWS_MAX = 50_000
MESSAGE_BYTES_MAX = 4 * 2**20


class Outgoing(NamedTuple):
    """One message to send, and how many events it holds."""

    payload: bytes
    rows: int
    arrow: bool
    key: str | None = None
    event_ms: int | None = None
    properties: Mapping[str, str] = MappingProxyType({})


class Lot(NamedTuple):
    """Messages of one kind, to be sent one after the other: a list for what each of them has.

    Of a hundred thousand messages an object each costs as much as encoding them.
    """

    payloads: list[bytes]
    rows: int = 1
    """How many events each message holds."""
    arrow: bool = False
    keys: list[str | None] | None = None
    event_ms: list[int | None] | None = None
    properties: list[dict[str, str]] | None = None

    def part(self, first: int, stop: int) -> Lot:
        """Return the messages of [first, stop)."""
        return self._replace(
            payloads=self.payloads[first:stop],
            keys=self.keys and self.keys[first:stop],
            event_ms=self.event_ms and self.event_ms[first:stop],
            properties=self.properties and self.properties[first:stop],
        )


def route(
    stream: Stream, rows: pl.DataFrame, partitions: int, first: int
) -> dict[int, pl.DataFrame]:
    """Return the rows of each partition, in the order given.

    An entity stays in one partition: that of the CRC-32 of its key's text, modulo their number.
    Without a key, stretches of rows go around the partitions, from `first` on.
    """
    if partitions == 1:
        return {0: rows} if rows.height else {}
    if not stream.key:
        size = max(JSON_ROWS_MAX, -(-rows.height // partitions))
        return {
            (first + i) % partitions: rows.slice(start, size)
            for i, start in enumerate(range(0, rows.height, size))
        }
    keys = key_texts(stream, rows)
    distinct = keys.unique()
    homes = [zlib.crc32(k.encode()) % partitions for k in distinct]
    home = keys.replace_strict(distinct, homes, return_dtype=pl.Int64)
    return {p: part for p in range(partitions) if (part := rows.filter(home == p)).height}


def key_texts(stream: Stream, rows: pl.DataFrame) -> pl.Series:
    """Return the text of each row's key: its columns' texts, set apart by a unit separator."""
    texts = [pl.col(c).cast(pl.String).fill_null("\x00") for c in stream.key]
    return rows.select(pl.concat_str(texts, separator="\x1f").alias("key")).to_series()


def is_json(stream: Stream, rows: pl.DataFrame) -> bool:
    """Tell whether `messages` makes JSON of these rows.

    Raises
    ------
    UsageError
        If the stream takes nothing but JSON, and a value has no JSON.
    """
    special = _has_special_floats(rows)
    if stream.json_only and special:
        raise UsageError(
            f"Stream {stream.name!r} takes JSON only, which has no NaN and no infinity.",
            remedy="fill them or make them null first",
        )
    return stream.json_only or (rows.height <= JSON_ROWS_MAX and not special)


def messages(stream: Stream, rows: pl.DataFrame) -> Iterator[Outgoing]:
    """Yield the messages that carry `rows`, in order: those of `lots` one by one."""
    for lot in lots(stream, rows):
        nothing = [None] * len(lot.payloads)
        columns = zip(
            lot.payloads, lot.keys or nothing, lot.event_ms or nothing,
            lot.properties or nothing, strict=True,
        )  # fmt: skip
        for payload, key, ms, told in columns:
            yield Outgoing(payload, lot.rows, lot.arrow, key, ms, told or {})


def lots(stream: Stream, rows: pl.DataFrame) -> Iterator[Lot]:
    """Yield the messages that carry `rows`, in order.

    Small frames become JSON, a message an event, for everybody to read; large ones Arrow, since
    that is read twenty times faster, unless the stream is declared to be JSON only. JSON has no
    NaN and no infinity: rows with one go as Arrow.

    Raises
    ------
    UsageError
        If an event is too large for a message; of JSON before any message is yielded.
    """
    if is_json(stream, rows):
        yield _json(stream, rows)
    else:
        for start in range(0, rows.height, ARROW_ROWS_MAX):
            yield from _arrow(stream, rows.slice(start, ARROW_ROWS_MAX))


def _has_special_floats(rows: pl.DataFrame) -> bool:
    kinds = {c: type_of(t, column=c) for c, t in rows.schema.items() if t.is_nested()}
    checks = [
        (leaves(pl.col(c), kind, _special) > 0).any().alias(c)
        for c, kind in kinds.items()
        if holds(kind, Type.DOUBLE)
    ]
    floats = [c for c, t in rows.schema.items() if t == pl.Float64]
    checks += [(~pl.col(c).is_finite()).any().alias(c) for c in floats]
    return bool(checks) and any(rows.select(checks).row(0))


def _special(value: pl.Expr, kind: Type) -> pl.Expr:
    return ~value.is_finite() if kind is Type.DOUBLE else pl.lit(False)


def _json(stream: Stream, rows: pl.DataFrame) -> Lot:
    inside = beside.payload_of(stream)
    wire = rows.select(inside.names).with_columns(
        mapped(pl.col(name), kind, _wire).alias(name)
        for name, kind in inside.columns
        if holds(kind, Type.TIMESTAMP, Type.INTERVAL)
    )
    lines = [b"{}"] * rows.height
    if wire.width:
        written = io.BytesIO()
        wire.write_ndjson(written)
        lines = written.getvalue().split(b"\n")[: rows.height]
    largest = max(map(len, lines), default=0)
    if largest > MESSAGE_BYTES_MAX:
        raise _too_large(stream, largest)
    keys = times = None
    keyed = beside.column_of(stream, beside.KEY)
    if keyed is not None:
        keys = rows.get_column(keyed).to_list()
    elif stream.key:
        keys = key_texts(stream, rows).to_list()
    timed = beside.column_of(stream, beside.EVENT_TIME) or stream.time
    if timed is not None:
        ms = rows.get_column(timed).dt.epoch("ms")
        # The broker knows no event time before 1970 and takes 0 for none.
        times = ms.set(ms <= 0, None).to_list()
    return Lot(lines, keys=keys, event_ms=times, properties=_properties(stream, rows))


def _properties(stream: Stream, rows: pl.DataFrame) -> list[dict[str, str]] | None:
    """Return each event's properties, if there are any; a null is one that is not there."""
    named = {
        s.removeprefix(beside.PROPERTY): c for c, s in stream.meta if s.startswith(beside.PROPERTY)
    }
    if not named:
        return None
    columns = [rows.get_column(c).to_list() for c in named.values()]
    return [
        {name: value for name, value in zip(named, row, strict=True) if value is not None}
        for row in zip(*columns, strict=True)
    ]


def _wire(value: pl.Expr, kind: Type) -> pl.Expr:
    if kind is Type.TIMESTAMP:
        return value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return value.to_physical() if kind is Type.INTERVAL else value


def _arrow(stream: Stream, rows: pl.DataFrame) -> Iterator[Lot]:
    buffer = io.BytesIO()
    rows.rechunk().write_ipc_stream(buffer, compression="lz4", compat_level=pl.CompatLevel.oldest())
    payload = buffer.getvalue()
    if len(payload) <= MESSAGE_BYTES_MAX:
        properties = {"fs-format": "arrow", "fs-rows": str(rows.height)}
        yield Lot([payload], rows.height, True, properties=[properties])
    elif rows.height == 1:
        raise _too_large(stream, len(payload))
    else:
        middle = rows.height // 2
        yield from _arrow(stream, rows.slice(0, middle))
        yield from _arrow(stream, rows.slice(middle))


def _too_large(stream: Stream, size: int) -> UsageError:
    return UsageError(
        f"An event for stream {stream.name!r} is too large for a message.",
        found=f"{size} bytes",
        remedy=f"keep events below {MESSAGE_BYTES_MAX} bytes; store large things elsewhere",
    )
