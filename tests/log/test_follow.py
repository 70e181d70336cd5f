"""Following a stream whose events come faster than they are taken, without a broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fs_notebook.clock import SYSTEM, Clock, SystemClock
from fs_notebook.errors import HistoryLost
from fs_notebook.log.cursors import Cursor, Part
from fs_notebook.log.follow import CHUNKS_MAX, follow
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.places import place
from fs_notebook.log.protocol import Batch
from fs_notebook.log.reader import LOOK_AGAIN
from fs_notebook.position import START, Position
from tests.log.test_reader import STREAM, FakeMessage, log_of

ROWS_MAX = 100


@dataclass
class SingleCursor(Cursor):
    """Hands over one message a chunk, and tells how many it has handed over."""

    messages: list[FakeMessage]
    error: Exception | None = None
    handed: int = 0
    pause: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def next(self, timeout_ms: int) -> FakeMessage | None:
        self.pause = not self.pause
        if not self.pause:
            return None
        with self.changed:
            self.changed.notify_all()
            if self.handed < len(self.messages):
                self.handed += 1
                return self.messages[self.handed - 1]
        if self.error is not None:
            raise self.error
        return None

    def wait_until_handed(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.handed >= count, timeout=30)

    def close(self) -> None:
        pass


@dataclass
class SingleCursors:
    cursors: list[Any]
    url: str = "fake"

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Any:
        return self.cursors[int(topic)]

    def last(self, topic: str) -> FakeMessage | None:
        raise NotImplementedError

    def is_lost(self, cursor: Any) -> bool:
        return False


def followed(
    cursors: list[Any], *, rows_max: int = ROWS_MAX, clock: Clock = SYSTEM
) -> Iterator[Batch | None]:
    parts = [Part("x", str(n), n) for n in range(len(cursors))]
    return follow(
        PayloadReader(STREAM), START, ("n",), cursors=SingleCursors(cursors), parts=lambda: parts,
        ahead=lambda part, start: 10, rows_max=rows_max, idle_seconds=0.2, clock=clock,
    )  # fmt: skip


class Ticking(SystemClock):
    """A clock that moves when it is told to."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class SteadyCursor(Cursor):
    """Hands over a message each millisecond, without a pause to the last."""

    messages: list[FakeMessage]
    clock: Ticking
    handed: int = 0

    def next(self, timeout_ms: int) -> FakeMessage | None:
        self.clock.now_s += 0.001
        if self.handed == len(self.messages):
            return None
        self.handed += 1
        return self.messages[self.handed - 1]

    def close(self) -> None:
        pass


def numbers(batch: Any) -> list[int]:
    assert isinstance(batch, Batch)
    return batch.rows["n"].to_list()


def test_all_that_waits_comes_at_once() -> None:
    messages = log_of([1] * 30)
    cursor = SingleCursor(messages)
    tail = followed([cursor])
    seen = numbers(next(tail))
    before = len(seen)
    # The thread holds one more than the queue does.
    cursor.wait_until_handed(before + CHUNKS_MAX + 1)
    batch = next(tail)
    assert len(numbers(batch)) >= CHUNKS_MAX
    while batch is not None:
        seen += numbers(batch)
        assert batch.end == Position(0, *place(messages[len(seen) - 1]))
        positions = batch.positions()
        assert positions.height == batch.rows.height
        batch = next(tail)
    tail.close()  # type: ignore[attr-defined]
    assert seen == list(range(30))


def test_events_that_come_without_a_pause_are_not_held_until_there_is_one() -> None:
    clock = Ticking()
    tail = followed([SteadyCursor(log_of([0] * 5_000), clock)], rows_max=10_000, clock=clock)
    seen = numbers(next(tail))
    assert len(seen) <= (CHUNKS_MAX + 1) * 3 * LOOK_AGAIN
    while len(seen) < 5_000:
        seen += numbers(next(tail))
    tail.close()  # type: ignore[attr-defined]
    assert seen == list(range(5_000))


def test_partitions_stay_apart_and_in_order() -> None:
    cursors = [SingleCursor(log_of([1] * n)) for n in (7, 12)]
    tail = followed(cursors)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for batch in tail:
        if batch is None:
            break
        seen[batch.partition] += numbers(batch)
    tail.close()  # type: ignore[attr-defined]
    assert seen == {0: list(range(7)), 1: list(range(12))}


def test_what_came_before_an_error_is_handed_over_first() -> None:
    cursor = SingleCursor(log_of([1] * 3), error=HistoryLost("gone"))
    tail = followed([cursor])
    seen: list[int] = []
    while len(seen) < 3:
        seen += numbers(next(tail))
    assert seen == [0, 1, 2]
    with pytest.raises(HistoryLost):
        next(tail)
