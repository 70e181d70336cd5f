"""Reading a partition from a client that repeats itself, without a broker."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.clock import SYSTEM, SystemClock
from fs_notebook.errors import HistoryLost, UnknownPosition, UnreachableError
from fs_notebook.log.cursors import Cursor, Part
from fs_notebook.log.messages import decode, dress
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.places import place, places
from fs_notebook.log.protocol import Stream
from fs_notebook.log.reader import QUEUE_MESSAGES, SILENT_S, PartReader, chunks_until
from fs_notebook.position import Position
from fs_notebook.types import Type

STREAM = Stream("x", (("n", Type.BIGINT),))
TIMED = Stream("x", (("n", Type.BIGINT), ("ts", Type.TIMESTAMP)), time="ts")
PART = Part("x", "persistent://public/default/x", 0)


@dataclass(frozen=True)
class FakeId:
    at: tuple[int, int, int]

    def ledger_id(self) -> int:
        return self.at[0]

    def entry_id(self) -> int:
        return self.at[1]

    def batch_index(self) -> int:
        return self.at[2]


@dataclass(frozen=True)
class FakeMessage:
    at: tuple[int, int, int]
    number: int
    ts: int | None = None
    event_ms: int = 0

    def data(self) -> bytes:
        return json.dumps(
            {"n": self.number} | ({} if self.ts is None else {"ts": self.ts})
        ).encode()

    def message_id(self) -> FakeId:
        return FakeId(self.at)

    def publish_timestamp(self) -> int:
        return 1

    def event_timestamp(self) -> int:
        return self.event_ms

    def properties(self) -> dict[str, str]:
        return {}

    def encryption_context(self) -> None:
        return None


def log_of(sizes: list[int]) -> list[FakeMessage]:
    """Return messages in entries of these sizes, 0 for one that was sent alone; 3 to a ledger."""
    made: list[FakeMessage] = []
    for i, size in enumerate(sizes):
        for index in range(size) if size else (-1,):
            made.append(FakeMessage((10 + i // 3, i % 3, index), len(made)))
    return made


@dataclass
class FakeCursor(Cursor):
    messages: list[FakeMessage]

    def next(self, timeout_ms: int) -> FakeMessage | None:
        return self.messages.pop(0) if self.messages else None

    def close(self) -> None:
        self.messages.clear()


@dataclass
class FakeClient:
    """Hands over the log; at each of `cuts` it goes back by some messages first."""

    log: list[FakeMessage]
    cuts: list[tuple[int, int]] = field(default_factory=list)
    url: str = "fake"
    queues: list[int] = field(default_factory=list)

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> FakeCursor:
        self.queues.append(queue)
        first = 0
        if start is not None:
            later = (i for i, m in enumerate(self.log) if place(m)[:2] >= start[1:3])
            first = next(later, len(self.log))
        handed: list[FakeMessage] = []
        at = first
        for where, back in sorted(self.cuts):
            if where >= at:
                handed += self.log[at:where]
                at = max(where - back, first)
        return FakeCursor(handed + self.log[at:])

    def last(self, topic: str) -> FakeMessage | None:
        return self.log[-1] if self.log else None

    def is_lost(self, cursor: Any) -> bool:
        return False


SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(SIZES)
def test_inferred_places_are_the_places(sizes: list[int]) -> None:
    messages = log_of(sizes)
    ledger, entry, batch = places(messages)
    assert list(zip(ledger, entry, batch, strict=True)) == [place(m) for m in messages]


@given(
    SIZES,
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15)), max_size=4),
    st.sampled_from([2**25, 100, 20]),
    st.data(),
)
def test_fault_19_what_is_handed_over_twice_counts_once(
    sizes: list[int], cuts: list[tuple[int, int]], queue_bytes: int, data: st.DataObject
) -> None:
    """Faults 13, 14 and 19: after a reconnection the client repeats messages.

    Where `queue_bytes` are few, the reader opens cursors anew, each with a smaller queue.
    """
    messages = log_of(sizes)
    count = len(messages)
    cuts = [(where % (count + 1), back) for where, back in cuts]
    first = data.draw(st.integers(-1, count - 1))
    last = data.draw(st.integers(max(first, 0), count - 1))
    start = None if first < 0 else Position(0, *place(messages[first]))
    end = Position(0, *place(messages[last]))
    if start == end:
        return
    client = FakeClient(messages, cuts)
    reader = PartReader(client, PART, start, queue=QUEUE_MESSAGES)
    rows_max = data.draw(st.integers(1, 20))
    got: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fs_notebook.log.reader.QUEUE_BYTES", queue_bytes)
        for chunk in chunks_until(reader, end, rows_max=rows_max, clock=SYSTEM):
            for one in decode(chunk, PayloadReader(STREAM)):
                got += one.rows.get_column("n").to_list()
                ledger, entry, batch = one.locate()
                assert len(ledger) == len(entry) == len(batch) == one.rows.height
    assert client.queues == sorted(client.queues, reverse=True)
    assert got == list(range(first + 1, last + 1))


TIMES = st.tuples(st.none() | st.integers(1, 9), st.integers(0, 9))


@given(
    SIZES,
    st.data(),
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15))),
)
def test_times_are_the_same_whether_each_message_is_kept_or_none(
    sizes: list[int], data: st.DataObject, rows_max: int, cuts: list[tuple[int, int]]
) -> None:
    """An event without a time of its own has its message's, which is then read again."""
    messages = [
        replace(m, ts=ts, event_ms=ms)
        for m in log_of(sizes)
        for ts, ms in [data.draw(TIMES, label=f"{m.at}")]
    ]
    end = Position(0, *place(messages[-1]))
    found = []
    for each in (True, False):
        client = FakeClient(messages, [(where % (len(messages) + 1), back) for where, back in cuts])
        reader = PartReader(client, PART, None, queue=QUEUE_MESSAGES, each=each)
        frames = [
            dress(one, TIMED, TIMED.names, positions=True)
            for chunk in chunks_until(reader, end, rows_max=rows_max, clock=SYSTEM)
            for one in decode(chunk, PayloadReader(TIMED))
        ]
        found.append(pl.concat(frames))
        # Of those that are not kept, none is read again for nothing.
        missing = any(m.ts is None for m in messages)
        assert len(client.queues) == 1 or (missing and not each)
    assert found[0].equals(found[1])
    assert found[0].height == len(messages)


def test_a_message_that_is_gone_before_its_time_is_asked_for_is_told() -> None:
    messages = log_of([3, 2])
    client = FakeClient(messages)
    reader = PartReader(client, PART, None, queue=QUEUE_MESSAGES, each=False)
    [chunk] = chunks_until(reader, Position(0, *place(messages[-1])), rows_max=99, clock=SYSTEM)
    [decoded] = decode(chunk, PayloadReader(TIMED))
    client.log = messages[3:]
    with pytest.raises(HistoryLost, match="are gone while"):
        dress(decoded, TIMED, TIMED.names)


@pytest.mark.parametrize(("entries", "size", "opened"), [(200, 100, 2), (200, 3, 1), (90, 100, 1)])
def test_many_small_messages_in_each_entry_are_fetched_with_more_ahead(
    entries: int, size: int, opened: int
) -> None:
    """What was known before is the size of entries: 100 messages in each are 100 times smaller."""
    log = [
        FakeMessage((1, entry, index), entry * size + index)
        for entry in range(entries)
        for index in range(size)
    ]
    client = FakeClient(log)
    reader = PartReader(client, PART, None, queue=20, each=False)
    chunks = list(chunks_until(reader, Position(0, *place(log[-1])), rows_max=1_000, clock=SYSTEM))
    got = [json.loads(p)["n"] for chunk in chunks for p in chunk.payloads]
    assert got == list(range(len(log)))
    assert client.queues == [20, QUEUE_MESSAGES][:opened]


def test_larger_messages_than_expected_are_fetched_with_fewer_ahead() -> None:
    log = log_of([0] * 60)
    client = FakeClient(log)
    reader = PartReader(client, PART, None, queue=QUEUE_MESSAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fs_notebook.log.reader.QUEUE_BYTES", 90)
        chunks = list(chunks_until(reader, Position(0, 29, 2, 0), rows_max=5, clock=SYSTEM))
    assert sum(len(c.messages) for c in chunks) == 60
    # {"n": 10} has 9 bytes; there are some of 8 before them.
    assert client.queues == [QUEUE_MESSAGES, 90 // 8]


@dataclass
class Waiting(SystemClock):
    """A clock that a cursor's waiting moves on, and how the broker answers meanwhile."""

    now_s: float = 0.0
    down_from_s: float = 1e9
    asked_s: list[float] = field(default_factory=list)

    def monotonic_s(self) -> float:
        return self.now_s

    def ask(self) -> None:
        self.asked_s.append(self.now_s)
        if self.now_s >= self.down_from_s:
            raise UnreachableError("The broker is down.")


@dataclass
class LateClient(FakeClient):
    """Hands over its messages after so many seconds of nothing."""

    clock: Waiting = field(default_factory=Waiting)
    silent_s: float = 0.0

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Any:
        ready = super().cursor(topic, start, queue=queue)
        clock, silent_s = self.clock, self.silent_s

        class Late(Cursor):
            def next(self, timeout_ms: int) -> FakeMessage | None:
                if clock.now_s < silent_s:
                    clock.now_s += timeout_ms / 1000
                    return None
                return ready.next(timeout_ms)

            def close(self) -> None:
                ready.close()

        return Late()


@pytest.mark.parametrize(
    ("silent_s", "down_from_s", "says"),
    [(20, 0, None), (110, 1e9, None), (200, 1e9, "stopped sending"), (110, 61, "is down")],
)
def test_fault_13_a_silent_broker_is_waited_for_while_it_answers(
    silent_s: float, down_from_s: float, says: str | None
) -> None:
    """One whose storage fails it waits longer than one that is down is waited for."""
    log = log_of([3, 0, 4])
    clock = Waiting(down_from_s=down_from_s)
    reader = PartReader(LateClient(log, clock=clock, silent_s=silent_s), PART, None)
    asked = chunks_until(
        reader, Position(0, *place(log[-1])), rows_max=99, clock=clock, ask=clock.ask
    )
    if says is None:
        assert sum(len(chunk.messages) for chunk in asked) == len(log)
        assert len(clock.asked_s) == int(silent_s // SILENT_S)
    else:
        with pytest.raises(UnreachableError, match=says):
            list(asked)
        assert clock.now_s < 155 if down_from_s == 1e9 else clock.now_s < 61 + SILENT_S + 1


@dataclass
class LosingClient(FakeClient):
    """Its cursors hand over so many messages each, and are lost then; some cannot be opened."""

    each: tuple[int, ...] = ()
    refused: set[int] = field(default_factory=set)
    opened: int = 0
    closed: int = 0

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Any:
        number = self.opened
        self.opened += 1
        if number in self.refused:
            raise UnreachableError("The broker is not ready.")
        cursor: Any = super().cursor(topic, start, queue=queue)
        if number < len(self.each):
            cursor.messages = cursor.messages[: self.each[number]]
            cursor.is_lost = True
        client, close = self, cursor.close

        def closed() -> None:
            client.closed += 1
            close()

        cursor.close = closed
        return cursor

    def is_lost(self, cursor: Any) -> bool:
        return getattr(cursor, "is_lost", False) and not cursor.messages


@settings(max_examples=60)
@given(SIZES, st.lists(st.integers(0, 9), max_size=4), st.sets(st.integers(1, 4), max_size=2))
def test_fault_13_a_cursor_whose_connection_is_lost_is_opened_anew_where_it_was(
    sizes: list[int], each: list[int], refused: set[int]
) -> None:
    """Not the client decides how long after an outage events are late."""
    log = log_of(sizes)
    clock = Waiting()
    client = LosingClient(log, each=tuple(each), refused=refused)
    reader = PartReader(client, PART, None)
    got: list[int] = []
    for chunk in chunks_until(reader, Position(0, *place(log[-1])), rows_max=5, clock=clock):
        for one in decode(chunk, PayloadReader(STREAM)):
            got += one.rows.get_column("n").to_list()
    reader.close()
    assert got == list(range(len(log)))
    assert client.closed == client.opened - len(refused & set(range(client.opened)))


def collect(log: list[FakeMessage], start: Position, end: Position) -> None:
    reader = PartReader(FakeClient(log), PART, start)
    for _ in chunks_until(reader, end, rows_max=4, clock=SYSTEM):
        pass


def test_positions_that_are_not_there_are_told() -> None:
    log = log_of([3, 0, 4, 2])
    end = Position(0, *place(log[-1]))
    with pytest.raises(HistoryLost, match="are gone"):
        collect(log, Position(0, 9, 7, 0), end)
    with pytest.raises(UnknownPosition, match="has no position"):
        collect(log, Position(0, 10, 0, 5), end)
    with pytest.raises(UnknownPosition, match="has no position"):
        collect(log, Position(0, 10, 9, 0), end)
    with pytest.raises(UnknownPosition, match="go on past it"):
        collect(log, Position(0, 10, 0, 0), Position(0, 10, 2, 7))
