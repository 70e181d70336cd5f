"""From a broker's messages to batches: positions, times, rows. Pure; it talks to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log import beside, frames
from fs_notebook.log.decode import decode_arrow
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.places import Ints, Message, Place, Places, place, places, spot
from fs_notebook.log.protocol import (
    BATCH,
    ENTRY,
    LEDGER,
    PARTITION,
    PUBLISHED,
    Batch,
    DeadLetter,
    Stream,
)
from fs_notebook.position import Position
from fs_notebook.types import TIME

BATCH_BYTES = 32 * 2**20
"""About how large a batch may be in memory, whatever the number of its rows."""


@dataclass
class Chunk:
    """Messages of one partition in order, all of one kind.

    `after` and `until` are places inside Arrow messages where reading starts (exclusive) and
    stops (inclusive); messages of JSON are cut before they come here, with their `places`.

    `messages` has one for each payload. Holding as many costs a fifth of the time of a replay:
    plain messages may have come without, with one for each entry in `heads` and with `again`,
    which gets the event timestamps of those at some places in ms, should they be asked for.
    """

    partition: int
    arrow: bool
    messages: list[Message] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    after: Place | None = None
    until: Place | None = None
    places: Places | None = None
    heads: dict[tuple[int, int], Message] = field(default_factory=dict)
    again: Callable[[Places], Ints] | None = None

    def head(self, index: int) -> Message:
        """Return a message of the entry in which a plain message lies."""
        if self.messages:
            return self.messages[index]
        assert self.places is not None
        return self.heads[spot(self.places, index)[:2]]


def asks_each(stream: Stream) -> bool:
    """Tell whether decoding needs every message, not just the payloads and one an entry."""
    return bool(stream.meta) or stream.time is None


@dataclass
class Decoded:
    """A chunk's good events: the stream's columns, and what is known about each row."""

    partition: int
    rows: pl.DataFrame
    end: Position
    dead: tuple[DeadLetter, ...]
    locate: Callable[[], Places]
    published_us: Callable[[], Ints]
    event_us: Callable[[], Ints | None]


def decode(chunk: Chunk, reader: PayloadReader) -> Iterator[Decoded]:
    """Yield what the chunk holds: one frame of plain events, or one for each Arrow message."""
    if not chunk.payloads:
        return
    if not chunk.arrow or not reader.takes_arrow:
        yield _decode_plain(chunk, reader)
        return
    for message, payload in zip(chunk.messages, chunk.payloads, strict=True):
        decoded = _decode_arrow(chunk, message, payload, reader.stream)
        if decoded is not None:
            yield decoded


def _check_readable(message: Message, stream: Stream) -> None:
    """Refuse a message that is still encrypted: a batch of them is one, and no event.

    Raises
    ------
    UsageError
        If there is no key for it, or another one.
    """
    context = message.encryption_context()
    if context is not None and context.is_decryption_failed():
        raise UsageError(
            f"Events of stream {stream.name!r} are encrypted, and could not be decrypted.",
            found=f"at {':'.join(map(str, place(message)))}",
            remedy="name the private key's file with FS_NOTEBOOK_PULSAR_PRIVATE_KEY",
        )


def _decode_plain(chunk: Chunk, reader: PayloadReader) -> Decoded:
    if chunk.places is None:
        chunk.places = places(chunk.messages)
    spots, count = chunk.places, len(chunk.payloads)
    begins = _starts(spots)
    sizes = np.diff([*begins, count])
    for begin in begins:
        _check_readable(chunk.head(begin), reader.stream)

    def versions() -> list[tuple[int, int | None]]:
        told = [_version(chunk.head(begin)) for begin in begins]
        return list(zip(sizes.tolist(), told, strict=True))

    rows, bad = reader.rows(chunk.payloads, versions)
    dead = tuple(
        DeadLetter(Position(chunk.partition, *spot(spots, i)), reason, chunk.payloads[i])
        for i, reason in sorted(bad.items())
    )
    end = Position(chunk.partition, *spot(spots, -1))
    left = np.delete(np.arange(count), list(bad)) if bad else slice(None)
    held = (spots[0][left], spots[1][left], spots[2][left])
    good = [m for i, m in enumerate(chunk.messages) if i not in bad] if bad else chunk.messages

    def published_us() -> Ints:
        told = [chunk.head(begin).publish_timestamp() for begin in begins]
        published: Ints = np.repeat(np.array(told, np.int64), sizes)[left] * 1000
        return published

    def event_us() -> Ints:
        if not chunk.messages and chunk.again is not None:
            return chunk.again(held) * 1000
        return np.fromiter((m.event_timestamp() for m in good), np.int64, len(good)) * 1000

    rows = _with_beside(rows, reader.stream, good, published_us, event_us)
    return Decoded(chunk.partition, rows, end, dead, lambda: held, published_us, event_us)


def _starts(spots: Places) -> list[int]:
    """Return where entries begin: all messages of one were published at once, by one producer."""
    if not len(spots[0]):
        return []
    changes = (np.diff(spots[0]) != 0) | (np.diff(spots[1]) != 0)
    return np.flatnonzero(np.concatenate(([True], changes))).tolist()


def _version(message: Message) -> int | None:
    """Return the version of the schema that a message was written with, if it names one."""
    version = message.int_schema_version()
    return None if version < 0 else version


def _with_beside(
    rows: pl.DataFrame,
    stream: Stream,
    messages: Sequence[Message],
    published_us: Callable[[], Ints],
    event_us: Callable[[], Ints],
) -> pl.DataFrame:
    """Return rows with what lies beside their messages' payloads."""
    if not stream.meta:
        return rows
    columns = beside.filled(
        stream,
        keys=lambda: [m.partition_key() for m in messages],
        properties=lambda: [m.properties() for m in messages],
        event_us=lambda: pl.Series(event_us()),
        published_us=lambda: pl.Series(published_us()),
    )
    return rows.with_columns(columns).select(stream.names)


def _decode_arrow(chunk: Chunk, message: Message, payload: bytes, stream: Stream) -> Decoded | None:
    _check_readable(message, stream)
    ledger, entry, _ = place(message)
    frame, reason = decode_arrow(payload, stream)
    height = 1 if frame is None else max(frame.height, 1)
    first, stop = 0, height
    if chunk.after is not None and chunk.after[:2] == (ledger, entry):
        first = chunk.after[2] + 1
    if chunk.until is not None and chunk.until[:2] == (ledger, entry):
        stop = min(stop, chunk.until[2] + 1)
    if first >= stop:
        return None
    dead: tuple[DeadLetter, ...] = ()
    if frame is None:
        dead = (DeadLetter(Position(chunk.partition, ledger, entry, 0), reason, payload),)
        frame = pl.DataFrame(schema={n: t.polars for n, t in stream.columns})
    rows = frame.slice(first, stop - first)
    count = rows.height

    def locate() -> Places:
        full = (np.full(count, ledger, np.int64), np.full(count, entry, np.int64))
        return *full, np.arange(first, first + count, dtype=np.int64)

    # Batches may be held for long: they are to hold these, not the message with its payload.
    published, event = message.publish_timestamp() * 1000, message.event_timestamp() * 1000

    def published_us() -> Ints:
        return np.full(count, published, np.int64)

    def event_us() -> Ints:
        return np.full(count, event, np.int64)

    if stream.meta:
        # Each row may have its own, written in the batch; else the message's is that of all.
        own = rows.select(c for c, _ in stream.meta)
        rows = _with_beside(rows, stream, [message] * count, published_us, event_us)
        rows = rows.with_columns(
            pl.coalesce(pl.lit(own.get_column(c)), pl.col(c)).alias(c) for c in own.columns
        )
    end = Position(chunk.partition, ledger, entry, stop - 1)
    return Decoded(chunk.partition, rows, end, dead, locate, published_us, event_us)


def dress(
    decoded: Decoded, stream: Stream, asked: Sequence[str], *, positions: bool = False
) -> pl.DataFrame:
    """Return `asked`, `TIME` and, if wanted, the position columns of decoded events.

    Publish and event timestamps cost a call for each message, so that they are asked for only
    where the declared column does not give the time.
    """
    rows = decoded.rows
    timed = stream.time is not None and not rows.get_column(stream.time).null_count()
    if timed and PUBLISHED not in asked:
        frame = rows.select(*(c for c in asked), pl.col(stream.time or "").alias(TIME))
    else:
        published = _instants(decoded.published_us())
        fallback = published
        if not timed:
            given = decoded.event_us()
            if given is not None and given.any():
                event = _instants(given)
                fallback = pl.select(
                    pl.when(pl.lit(given != 0)).then(pl.lit(event)).otherwise(pl.lit(published))
                ).to_series()
        frame = frames.incoming(
            stream, rows, asked, fallback=pl.lit(fallback), published=pl.lit(published)
        )
    if not positions:
        return frame
    ledger, entry, batch = decoded.locate()
    return frame.with_columns(
        pl.lit(decoded.partition, dtype=pl.Int64).alias(PARTITION),
        pl.Series(LEDGER, ledger),
        pl.Series(ENTRY, entry),
        pl.Series(BATCH, batch),
    )


def _instants(us: Ints) -> pl.Series:
    return pl.Series(us).cast(frames.TIMESTAMP)


class _Dressed(NamedTuple):
    """What a batch needs of decoded events: no more, lest it hold their messages."""

    rows: pl.DataFrame
    end: Position
    dead: tuple[DeadLetter, ...]
    locate: Callable[[], Places]


def regrouped(
    decoded: Iterable[Decoded],
    stream: Stream,
    asked: Sequence[str],
    times: tuple[int | None, int | None],
    rows_max: int,
) -> Iterator[Batch]:
    """Yield decoded events of one partition as batches of at most `rows_max` rows.

    They are smaller where rows are large: about `BATCH_BYTES`.
    """
    group: list[_Dressed] = []
    held = size = 0
    for one in decoded:
        frame = dress(one, stream, asked)
        if group and (held + frame.height > rows_max or size >= BATCH_BYTES):
            yield from _grouped(group, times, rows_max)
            group, held, size = [], 0, 0
        group.append(_Dressed(frame, one.end, one.dead, one.locate))
        held += frame.height
        size += int(frame.estimated_size())
    if group:
        yield from _grouped(group, times, rows_max)


def _grouped(
    group: list[_Dressed], times: tuple[int | None, int | None], rows_max: int
) -> list[Batch]:
    end = group[-1].end
    rows = group[0].rows if len(group) == 1 else pl.concat([one.rows for one in group])
    dead = tuple(letter for one in group for letter in one.dead)
    located = [one.locate for one in group]
    memo: list[pl.DataFrame] = []

    def all_positions() -> pl.DataFrame:
        if not memo:
            parts = [locate() for locate in located]
            columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
            ledger, entry, batch = (pl.Series(c) for c in columns)
            memo.append(
                frames.position_frame(
                    partition=end.partition, ledger=ledger, entry=entry, batch=batch
                )
            )
        return memo[0]

    return cut_batches(end.partition, rows, all_positions, end, dead, times, rows_max)


def cut_batches(
    partition: int,
    rows: pl.DataFrame,
    positions: Callable[[], pl.DataFrame],
    end: Position,
    dead: Sequence[DeadLetter],
    times: tuple[int | None, int | None],
    rows_max: int,
) -> list[Batch]:
    """Return `rows`, those outside `times` left out, as batches of at most `rows_max` rows.

    The last one ends at `end`; an earlier one at its last row, and dead letters go with the
    first batch that reaches past them.
    """
    keep = frames.time_mask(rows, *times)
    kept = rows if keep is None else rows.filter(keep)

    def chosen(start: int, count: int) -> Callable[[], pl.DataFrame]:
        def take() -> pl.DataFrame:
            frame = positions() if keep is None else positions().filter(keep)
            return frame.slice(start, count)

        return take

    made: list[Batch] = []
    left = list(dead)
    for start in range(0, max(kept.height, 1), rows_max):
        part = kept.slice(start, rows_max)
        take = chosen(start, part.height)
        stop = end
        if start + rows_max < kept.height:
            stop = Position(*take().row(-1))
        passed = [letter for letter in left if letter.position <= stop]
        left = left[len(passed) :]
        made.append(Batch(partition, part, stop, tuple(passed), take))
    return made
