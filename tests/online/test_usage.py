"""Who reads what: noted beside the reads, bounded, and never in their way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fs_notebook.clock import Clock
from fs_notebook.errors import UnreachableError
from fs_notebook.online.async_store import reads_of
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.serve import AsyncFeatureReader, FeatureReader
from fs_notebook.online.usage import FLUSH_US, READERS_MAX, SERVING, UseNotes, uses_of
from tests.support.served import commit, event, plan_of, publish


class Hand(Clock):
    """A clock that stands until it is moved."""

    us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6

    def sleep_s(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


def test_reads_are_counted_by_who_and_flushed_now_and_then() -> None:
    clock = Hand()
    store = MemoryStore(clock=clock)
    notes = UseNotes(store, kind=SERVING, actor="ann", clock=clock)
    assert notes.note(["reading_time", "reading_time@2"], clock.us)
    notes.flush()
    assert not notes.note(["reading_time"], clock.us + 1)
    assert [u.reads for u in uses_of(store, "reading_time")] == [2]
    clock.us += FLUSH_US
    assert notes.note(["reading_time"], clock.us)
    notes.flush()
    UseNotes(store, kind=SERVING, actor="bob", clock=clock)
    (use,) = uses_of(store, "reading_time")
    assert (use.who, use.kind, use.reads) == ("ann", SERVING, 4)
    assert uses_of(store, "spending") == []


def test_the_readers_that_are_kept_are_bounded_and_the_newest() -> None:
    clock = Hand()
    store = MemoryStore(clock=clock)
    for n in range(READERS_MAX + 10):
        clock.us += 1
        notes = UseNotes(store, kind=SERVING, actor=f"user|{n}", clock=clock)
        notes.note(["g"], clock.us)
        notes.flush()
    found = uses_of(store, "g")
    assert len(found) == READERS_MAX
    assert found[0].who == f"user|{READERS_MAX + 9}"


def test_a_store_that_cannot_be_written_to_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand()
    store = MemoryStore(clock=clock)

    def down(*args: Any, **options: Any) -> None:
        raise UnreachableError("It does not answer.")

    monkeypatch.setattr(store, "heartbeat", down)
    notes = UseNotes(store, kind=SERVING, actor="ann", clock=clock)
    assert notes.note(["g"], clock.us)
    notes.flush()
    assert not notes.note(["g"], clock.us), "and not tried again at the next read"


def test_both_readers_note_what_they_read() -> None:
    store = MemoryStore()
    sql = "SELECT user, COUNT(*) AS n FROM read_events GROUP BY user"
    publish(store, commit(store, "reads", plan_of(sql, "reads"), [event("a", 1, 30, 1)]))
    FeatureReader(store, uses=UseNotes(store, kind=SERVING, actor="sync")).read("n", user=["a"])

    async def read() -> None:
        notes = UseNotes(store, kind=SERVING, actor="async")
        async with AsyncFeatureReader(reads_of(store), uses=notes) as reader:
            await reader.read("n", user=["a"])
            await reader.read("n", user=["a"])

    asyncio.run(read())
    assert {use.who for use in uses_of(store, "reads")} == {"sync", "async"}
    assert FeatureReader(store).read("n", user=["a"])["n"] == [1], "without notes as ever"
