"""A ledger in memory that is laid out, routed and read as the one on Pulsar is.

Events go through the very code that writes and reads Pulsar's messages (`log.framing`,
`log.reader`, `log.messages`); only the broker and its client are simulated.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from fs_notebook.clock import Clock
from fs_notebook.errors import (
    ConflictError,
    UnknownPosition,
    UsageError,
    unknown_name,
)
from fs_notebook.log import frames
from fs_notebook.log.cursors import Part, end_of
from fs_notebook.log.framing import is_json, messages, route
from fs_notebook.log.messages import Decoded, asks_each, decode, regrouped
from fs_notebook.log.names import check_stream_name
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.places import place
from fs_notebook.log.protocol import Batch, Shares, Stream
from fs_notebook.log.reader import PartReader, chunks_until
from fs_notebook.log.seeking import begin_at, nothing
from fs_notebook.position import Cut, Position
from fs_notebook.testing.broker import Broker, Sending, silent
from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.testing.faults import Fault, Faults

CHUNK_MESSAGES = 50_000
PARTS_EVERY_S = 5.0
POLL_S = 0.01
ENTRIES_MAX = 8
BATCH_MESSAGES_MAX = 8


@dataclass
class _Known:
    """A stream that is there."""

    identity: str
    declaration: Stream
    topics: list[str]


class SimulatedLog:
    """`EventLog` in this process's memory, deterministic from its seed; thread-safe.

    Parameters
    ----------
    seed
        Draws how many entries a ledger takes, how many messages an entry, and which partition
        is looked at first.
    clock
        Gives publish times and takes what is waited; by default a `SimulatedClock`.
    faults
        What goes wrong; by default nothing does.
    entries_max
        The most entries of a ledger.
    batch_max
        The most messages of an entry.

    Examples
    --------
    >>> log = SimulatedLog(seed=7)
    >>> log.create(stream)                                     # doctest: +SKIP
    >>> log.append(stream, rows)                               # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        faults: Faults | None = None,
        entries_max: int = ENTRIES_MAX,
        batch_max: int = BATCH_MESSAGES_MAX,
    ) -> None:
        if batch_max < 1:
            raise UsageError(f"An entry cannot hold {batch_max} messages.", remedy="1 or more")
        self.url = "simulated:"
        self.clock = clock if clock is not None else SimulatedClock()
        self.faults = faults if faults is not None else Faults(seed)
        self._chance = random.Random(f"log {seed}")
        self._broker = Broker(
            self._chance, clock=self.clock, faults=self.faults, entries_max=entries_max
        )
        self._batch_max = batch_max
        self._streams: dict[str, _Known] = {}
        self._made = 0
        self._turn = 0
        self._closed = False

    def create(self, stream: Stream) -> None:
        """Make the stream; nothing happens where it is there already."""
        check_stream_name(stream.name)
        frames.check_stream(stream)
        with self._asked("make a stream in"):
            if stream.name in self._streams:
                return
            self._made += 1
            known = _Known(f"stream {self._made}", stream, [])
            self._streams[stream.name] = known
            self._grow(stream.name, known, stream.partitions)

    def delete(self, name: str) -> None:
        """Remove the stream and all its events, for good."""
        with self._asked("delete a stream in"):
            for topic in self._known(name).topics:
                self._broker.delete(topic)
            del self._streams[name]

    def exists(self, name: str) -> bool:
        """Tell whether there is a stream of this name."""
        check_stream_name(name)
        with self._asked("look up a stream in"):
            return name in self._streams

    def names(self) -> list[str]:
        """Return the names of the streams that are there, sorted."""
        with self._asked("list the streams in"):
            return sorted(self._streams)

    def identity(self, name: str) -> str:
        """Return the identifier that the stream got when it was made."""
        with self._asked("look up a stream in"):
            return self._known(name).identity

    def infer_stream(self, name: str, *, sample: int = 200) -> Stream:
        """Return the declaration that the stream was made with (`sample` is not needed here)."""
        with self._asked("look up a stream in"):
            return self._known(name).declaration

    def append(self, stream: Stream, rows: pl.DataFrame, *, expected: Cut | None = None) -> Cut:
        """Append events; return the cut just after them.

        Raises
        ------
        ConflictError
            If `expected` is given and the stream's end is another cut.
        UsageError
            If `rows` are not the stream's columns.
        UnreachableError
            If `Fault.APPEND_UNKNOWN` strikes: how many rows were stored is not known.
        """
        frame = frames.outgoing(stream, rows)
        with self._asked("append to"):
            parts = self._parts(stream.name)
            end = self._end(parts)
            if expected is not None and expected != end:
                raise ConflictError(
                    f"Stream {stream.name!r} has moved on since it was read.",
                    found=f"its end is {end}, expected was {expected}",
                    remedy="read what was added, then decide again",
                )
            self._turn += 1
            routed = route(stream, frame, len(parts), self._turn).items()
            entries = [
                (parts[index].topic, entry)
                for index, part_rows in routed
                for entry in self._entries(stream, part_rows, batching=expected is None)
            ]
            unknown = self.faults.strikes(Fault.APPEND_UNKNOWN)
            if unknown:
                entries = entries[: self.faults.draw(Fault.APPEND_UNKNOWN, len(entries) + 1)]
            for topic, (batch, alone, _) in entries:
                self._broker.store(topic, batch, alone=alone)
            if unknown:
                told = self.faults.draw(Fault.APPEND_UNKNOWN, sum(e[2] for _, e in entries) + 1)
                raise silent(
                    f"say that it stored more than {told} of {frame.height} rows", self.faults
                )
            return self._end(parts)

    def send(
        self,
        name: str,
        payloads: Iterable[bytes],
        *,
        partition: int = 0,
        event_ms: int | None = None,
        batch: int = 0,
    ) -> Cut:
        """Store payloads as they are, as a program of somebody else's does.

        Parameters
        ----------
        name
            The stream.
        payloads
            One a message; what is malformed becomes a dead letter when it is read.
        partition
            Where they go.
        event_ms
            The message's own event time, in milliseconds since the epoch.
        batch
            How many messages go into an entry; 0 sends each alone.
        """
        with self._asked("append to"):
            parts = self._parts(name)
            topic = self._part(parts, name, partition).topic
            given = [Sending(payload, event_ms) for payload in payloads]
            for start in range(0, len(given), batch or 1):
                self._broker.store(topic, given[start : start + (batch or 1)], alone=not batch)
            return self._end(parts)

    def unload(self, name: str) -> None:
        """Let the stream go on in new ledgers, as when its topics move to another broker."""
        with self._broker.locked():
            for topic in self._known(name).topics:
                self._broker.close_ledger(topic)

    def trim(self, name: str, before: Position) -> None:
        """Remove the entries before that of a position: what limited retention does."""
        with self._broker.locked():
            part = self._part(self._parts(name), name, before.partition)
            self._broker.trim(part.topic, before)

    def add_partitions(self, name: str, total: int) -> None:
        """Let the stream have `total` partitions, more than it has now."""
        with self._broker.locked():
            known = self._known(name)
            if total <= len(known.topics):
                raise UsageError(
                    f"Stream {name!r} can only get more partitions.",
                    found=f"{total}, and it has {len(known.topics)}",
                )
            self._grow(name, known, total)

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event of each partition, frozen now."""
        with self._asked("ask the end of"):
            return self._end(self._parts(name))

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first events that are left lie."""
        with self._asked("ask the beginning of"):
            parts = [p for p in self._parts(name) if only in (None, p.partition)]
            firsts = ((p.partition, self._broker.first(p.topic)) for p in parts)
            return Cut(tuple(Position(n, *place(m)) for n, m in firsts if m is not None))

    def partitions(self, name: str) -> int:
        """Return how many partitions the stream has now."""
        with self._asked("look up a stream in"):
            return len(self._known(name).topics)

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        rows_max: int = 200_000,
    ) -> Iterator[Batch]:
        """Yield the events in (start, end]; see `EventLog.read`."""
        if rows_max < 1:
            raise UsageError(f"A batch cannot hold {rows_max} rows.", remedy="use 1 or more")
        asked = frames.asked_columns(stream, columns)
        parts = self._checked(stream.name, start, end)
        times = (time_from_us, time_to_us)
        return self._read(stream, parts, start, end, asked, times, rows_max)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        rows_max: int = 10_000,
        idle_seconds: float = 0.2,
        only: int | None = None,
    ) -> Iterator[Batch | None]:
        """Yield the events after `start` for ever; see `EventLog.tail`.

        Partitions that are added later are taken up from their first event, within 5 s of the
        clock.
        """
        asked = frames.asked_columns(stream, columns)
        self._checked(stream.name, start, start)
        return self._tail(stream, start, asked, rows_max, idle_seconds, only)

    def share(self, name: str, among: str, member: str) -> Shares:
        """Refuse: here partitions change hands by `Simulation.run(shared=True)`."""
        raise UsageError(
            f"Partitions of {name!r} cannot be shared among workers.",
            found="a simulated ledger",
            remedy="Simulation.run(definition, shared=True)",
        )

    def unshare(self, name: str, among: str) -> None:
        """Do nothing: nothing is shared here."""

    def close(self) -> None:
        """Forget nothing, but refuse every further call."""
        self._closed = True

    @contextmanager
    def _asked(self, doing: str) -> Iterator[None]:
        """Keep everybody else out, if the ledger answers."""
        if self._closed:
            raise UsageError("The simulated ledger was closed.", remedy="open it again")
        self.faults.step(f"{doing} the ledger")
        if self.faults.strikes(Fault.LEDGER_SILENT):
            raise silent(f"{doing} the ledger", self.faults)
        with self._broker.locked():
            yield

    def _known(self, name: str) -> _Known:
        known = self._streams.get(check_stream_name(name))
        if known is None:
            raise unknown_name(
                "stream", name, self._streams, remedy="upload events to make a stream"
            )
        return known

    def _grow(self, name: str, known: _Known, total: int) -> None:
        for index in range(len(known.topics), total):
            topic = f"{name}-partition-{index}"
            self._broker.make(topic)
            known.topics.append(topic)

    def _parts(self, name: str) -> list[Part]:
        return [Part(name, topic, i) for i, topic in enumerate(self._known(name).topics)]

    def _part(self, parts: list[Part], name: str, partition: int) -> Part:
        if not 0 <= partition < len(parts):
            raise UsageError(
                f"Stream {name!r} has no partition {partition}.", found=f"it has {len(parts)}"
            )
        return parts[partition]

    def _end(self, parts: Sequence[Part]) -> Cut:
        ends = (end_of(self._broker, part) for part in parts)
        return Cut(tuple(end for end in ends if end is not None))

    def _entries(
        self, stream: Stream, rows: pl.DataFrame, *, batching: bool
    ) -> Iterator[tuple[list[Sending], bool, int]]:
        """Yield what to store as entries: messages, whether sent alone, and how many events."""
        batch: list[Sending] = []
        size = 0
        batching = batching and is_json(stream, rows)
        for message in messages(stream, rows):
            one = Sending(message.payload, message.event_ms, message.properties, message.key)
            if not batching:
                yield [one], True, message.rows
                continue
            size = size or self._chance.randint(1, self._batch_max)
            batch.append(one)
            if len(batch) == size:
                yield batch, False, size
                batch, size = [], 0
        if batch:
            yield batch, False, len(batch)

    def _checked(self, name: str, start: Cut, end: Cut) -> list[Part]:
        """Return the stream's partitions, once both cuts are known to lie before its end."""
        with self._asked("read from"):
            parts = self._parts(name)
            there = self._end(parts)
        for position in (*start, *end):
            last = there.get(position.partition)
            if last is None or position > last or min(position) < 0:
                raise UnknownPosition(
                    f"Stream {name!r} has no position {position}.",
                    found=f"its end is {there}",
                    remedy="positions of one stream mean nothing on another, or on another ledger",
                )
        return parts

    def _read(
        self,
        stream: Stream,
        parts: list[Part],
        start: Cut,
        end: Cut,
        asked: tuple[str, ...],
        times: tuple[int | None, int | None],
        rows_max: int,
    ) -> Iterator[Batch]:
        for until in end:
            after = start.get(until.partition)
            if after is not None and after >= until:
                continue
            part, time_us = parts[until.partition], times[0]
            begin = after
            if time_us is not None and stream.ahead_us is not None:
                begin = begin_at(self._broker, part, after, until, time_us - stream.ahead_us)
            if begin == until:
                yield nothing(stream, asked, until)
                continue
            found = self._decoded(stream, part, begin, until, rows_max)
            yield from regrouped(found, stream, asked, times, rows_max)

    def _decoded(
        self, stream: Stream, part: Part, start: Position | None, end: Position, rows_max: int
    ) -> Iterator[Decoded]:
        reader = PartReader(self._broker, part, start, each=asks_each(stream))
        payloads = PayloadReader(stream)
        rows_max = min(rows_max, CHUNK_MESSAGES)
        for chunk in chunks_until(reader, end, rows_max=rows_max, clock=self.clock):
            yield from decode(chunk, payloads)

    def _tail(
        self,
        stream: Stream,
        start: Cut,
        asked: tuple[str, ...],
        rows_max: int,
        idle_seconds: float,
        only: int | None,
    ) -> Iterator[Batch | None]:
        readers: list[PartReader] = []
        payloads = PayloadReader(stream)
        looked_at = quiet_since = self.clock.monotonic_s()
        while True:
            if not readers or self.clock.monotonic_s() - looked_at >= PARTS_EVERY_S:
                parts = self._parts_now(stream.name)
                mine = parts if only is None else parts[only : only + 1]
                for part in mine[len(readers) :]:
                    readers.append(PartReader(self._broker, part, start.get(part.partition)))
                looked_at = self.clock.monotonic_s()
            found = False
            for reader in self._chance.sample(readers, len(readers)):
                chunk = reader.collect(rows_max, end=None, wait_ms=0, linger_ms=0)
                if chunk is not None and chunk.payloads:
                    found = True
                    decoded = decode(chunk, payloads)
                    yield from regrouped(decoded, stream, asked, (None, None), rows_max)
            now_s = self.clock.monotonic_s()
            if found:
                quiet_since = now_s
            elif now_s - quiet_since >= idle_seconds:
                yield None
                quiet_since = self.clock.monotonic_s()
            else:
                self.clock.sleep_s(min(POLL_S, idle_seconds))

    def _parts_now(self, name: str) -> list[Part]:
        with self._asked("look up a stream in"):
            return self._parts(name)
