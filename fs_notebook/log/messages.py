"""From a broker's messages to batches: positions, times, rows. Pure; it talks to nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log import beside, frames
from fs_notebook.log.decode import ARROW_MAGIC, decode_arrow
from fs_notebook.log.payloads import PayloadReader
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

Place = tuple[int, int, int]
"""Ledger, entry, index: where a message lies in its partition."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Places = tuple[Ints, Ints, Ints]
"""Ledgers, entries and indices of several messages."""


class MessageId(Protocol):
    def ledger_id(self) -> int: ...
    def entry_id(self) -> int: ...
    def batch_index(self) -> int: ...


class Message(Protocol):
    """What is used of the client's messages."""

    def data(self) -> bytes: ...
    def message_id(self) -> MessageId: ...
    def publish_timestamp(self) -> int: ...
    def event_timestamp(self) -> int: ...
    def properties(self) -> dict[str, str]: ...
    def partition_key(self) -> str: ...
    def int_schema_version(self) -> int: ...
    def encryption_context(self) -> Any: ...


NOTED_BYTES = 2**16
BATCH_BYTES = 32 * 2**20
"""About how large a batch may be in memory, whatever the number of its rows."""


class Noted:
    """What is asked of a large message later, without the client's own copy of its payload."""

    def __init__(self, message: Message, payload: bytes) -> None:
        at = message.message_id()
        self._place = (at.ledger_id(), at.entry_id(), at.batch_index())
        self._payload = payload
        self._published, self._event = message.publish_timestamp(), message.event_timestamp()
        self._properties, self._key = message.properties(), message.partition_key()
        self._version = message.int_schema_version()
        self._encryption = message.encryption_context()

    def data(self) -> bytes:
        return self._payload

    def message_id(self) -> MessageId:
        return self

    def ledger_id(self) -> int:
        return self._place[0]

    def entry_id(self) -> int:
        return self._place[1]

    def batch_index(self) -> int:
        return self._place[2]

    def publish_timestamp(self) -> int:
        return self._published

    def event_timestamp(self) -> int:
        return self._event

    def properties(self) -> dict[str, str]:
        return self._properties

    def partition_key(self) -> str:
        return self._key

    def int_schema_version(self) -> int:
        return self._version

    def encryption_context(self) -> Any:
        return self._encryption


def place(message: Message) -> Place:
    """Return (ledger, entry, batch index); a message that was sent alone has index 0."""
    at = message.message_id()
    return at.ledger_id(), at.entry_id(), max(at.batch_index(), 0)


def is_arrow(message: Message, payload: bytes) -> bool:
    """Tell whether a message is an Arrow batch, whose rows are events of their own.

    Only one that was sent alone can be: inside a batch its rows would have no positions.
    """
    return payload[:4] == ARROW_MAGIC and message.message_id().batch_index() < 0


def places(messages: Sequence[Message]) -> Places:
    """Return the ledgers, entries and batch indices of `messages`.

    Asking a message for its place costs as much as receiving it, so that most are inferred: inside
    an entry indices grow one by one, hence two messages of one entry whose indices differ by as
    much as their ranks have every index between them. Entries are found by galloping. A message
    that comes a second time shifts all that follow, which ends the run there.
    """
    count = len(messages)
    ledger, entry, batch = (np.empty(count, np.int64) for _ in range(3))
    start, guess = 0, 1
    while start < count:
        first = place(messages[start])
        run = _run(messages, start, first, guess)
        ledger[start : start + run] = first[0]
        entry[start : start + run] = first[1]
        batch[start : start + run] = np.arange(first[2], first[2] + run)
        start, guess = start + run, run
    return ledger, entry, batch


def _run(messages: Sequence[Message], start: int, first: Place, guess: int) -> int:
    """Return how many messages from `start` on lie in its entry at successive indices."""

    def inside(length: int) -> bool:
        last = place(messages[start + length - 1])
        return last == (first[0], first[1], first[2] + length - 1)

    most = len(messages) - start
    known, beyond = 1, most + 1
    step = min(max(guess, 2), most)
    while known < step < beyond:
        if inside(step):
            known, step = step, min(step * 2 if step > guess else step + 1, most)
        else:
            beyond = step
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if inside(middle):
            known = middle
        else:
            beyond = middle
    return known


def spot(places_: Places, index: int) -> Place:
    """Return one of several places."""
    return int(places_[0][index]), int(places_[1][index]), int(places_[2][index])


def above_each(places_: Places, bound: Place) -> Bools:
    """Return which places lie beyond `bound`."""
    ledger, entry, batch = places_
    same = ledger == bound[0]
    beyond: Bools = (ledger > bound[0]) | (
        same & ((entry > bound[1]) | ((entry == bound[1]) & (batch > bound[2])))
    )
    return beyond


def above(places_: Places, bound: Place | None) -> Bools:
    """Return which places lie beyond `bound` and beyond all places before them."""
    ledger, entry, batch = places_
    step_l, step_e, step_b = np.diff(ledger), np.diff(entry), np.diff(batch)
    grows = (step_l > 0) | ((step_l == 0) & ((step_e > 0) | ((step_e == 0) & (step_b > 0))))
    if grows.all():
        return np.ones(len(ledger), np.bool_) if bound is None else above_each(places_, bound)
    keep = np.zeros(len(ledger), np.bool_)
    for index in range(len(ledger)):
        at = spot(places_, index)
        if bound is None or at > bound:
            keep[index] = True
            bound = at
    return keep


@dataclass
class Chunk:
    """Messages of one partition in order, all of one kind.

    `after` and `until` are places inside Arrow messages where reading starts (exclusive) and
    stops (inclusive); messages of JSON are cut before they come here, with their `places`.
    """

    partition: int
    arrow: bool
    messages: list[Message] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    after: Place | None = None
    until: Place | None = None
    places: Places | None = None


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
    if not chunk.messages:
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
    messages: Sequence[Message] = chunk.messages
    spots = places(messages) if chunk.places is None else chunk.places

    def starts(ledgers: Ints, entries: Ints) -> list[int]:
        """Where entries begin: all messages of one were published at once, by one producer."""
        changes = (np.diff(ledgers) != 0) | (np.diff(entries) != 0)
        return np.flatnonzero(np.concatenate(([True], changes))).tolist() if len(ledgers) else []

    def versions() -> list[tuple[int, int | None]]:
        begins = starts(spots[0], spots[1])
        counts = np.diff([*begins, len(messages)]).tolist()
        return [(n, _version(messages[i])) for n, i in zip(counts, begins, strict=True)]

    for begin in starts(spots[0], spots[1]):
        _check_readable(messages[begin], reader.stream)
    rows, bad = reader.rows(chunk.payloads, versions)
    dead = tuple(
        DeadLetter(Position(chunk.partition, *spot(spots, i)), reason, chunk.payloads[i])
        for i, reason in sorted(bad.items())
    )
    end = Position(chunk.partition, *spot(spots, -1))
    good, held = messages, spots
    if bad:
        good = [m for i, m in enumerate(messages) if i not in bad]
        left = np.delete(np.arange(len(messages)), list(bad))
        held = (spots[0][left], spots[1][left], spots[2][left])

    def published_us() -> Ints:
        begins = starts(held[0], held[1])
        told = np.array([good[i].publish_timestamp() for i in begins], np.int64)
        return np.repeat(told, np.diff([*begins, len(good)])) * 1000

    def event_us() -> Ints:
        return np.fromiter((m.event_timestamp() for m in good), np.int64, len(good)) * 1000

    rows = _with_beside(rows, reader.stream, good, published_us, event_us)
    return Decoded(chunk.partition, rows, end, dead, lambda: held, published_us, event_us)


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
