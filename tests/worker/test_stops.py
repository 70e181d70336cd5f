"""Workers that are told to end: what they took is committed, and what is stored can be verified."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Batch
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import part_shard
from fs_notebook.position import START, Position
from fs_notebook.testing import SimulatedLog
from fs_notebook.worker import loop
from fs_notebook.worker.crew import Crew
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import verify
from tests.support.sessions import read_events
from tests.worker import test_shared
from tests.worker.test_handover import STREAM, append, definition, run_until_caught_up


class Took:
    """What workers have taken of their logs, and when to tell them to stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stop_after: int) -> None:
        self.events: Counter[str] = Counter()
        self.batches = 0
        self._stop_after = stop_after
        self._lock = threading.Lock()
        monkeypatch.setattr(loop, "BOOTSTRAP_ROWS_MAX", 10)
        monkeypatch.setattr(loop, "gathered", lambda batches, **options: batches)
        # No commit is due in all of this test's time, but for the one at the end.
        monkeypatch.setitem(Worker.__init__.__kwdefaults__, "commit_every_s", 1e6)
        take, took = Worker._take, self

        def noted(worker: Worker, lease: Any, held: Any, batch: Batch) -> None:
            take(worker, lease, held, batch)
            with took._lock:
                took.batches += 1
                took.events[worker.shard] += batch.rows.height

        monkeypatch.setattr(Worker, "_take", noted)

    def enough(self) -> bool:
        return self.batches >= self._stop_after


def test_a_worker_that_is_told_to_end_in_its_history_commits_what_it_took(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, store = EmbeddedLog(tmp_path / "ledger"), MemoryStore()
    log.create(STREAM)
    for first in range(0, 50, 10):
        append(log, read_events(first, 10))
    took = Took(monkeypatch, stop_after=2)
    worker = Worker(definition(), log, store, should_stop=took.enough)
    worker.run()
    state = store.state(worker.shard)
    assert state is not None
    assert state.cut not in (None, START)
    assert took.events[worker.shard] == 20
    assert (state.info["events"], state.info["phase"]) == (20, "bootstrapping")
    # The next one goes on from there, and what is not bootstrapped is not called built.
    assert "built" not in state.info
    outcome = verify(definition(), 1, log, store, now_us=SYSTEM.now_us())
    assert (outcome.ok, outcome.events) == (True, 20)
    run_until_caught_up(Worker(definition(), log, store), log, store, worker.shard)
    assert took.events[worker.shard] == 50
    log.close()


class Both:
    """Shares in which both partitions are one member's."""

    def __init__(self) -> None:
        self.closed = False

    def owned(self) -> frozenset[int]:
        return frozenset({0, 1})

    def committed(self, position: Position) -> None:
        """Take no note of it."""

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def parted() -> tuple[SimulatedLog, Definition]:
    room = test_shared.Room(1)
    for _ in range(8):
        for partition in (0, 1):
            room.send(5, partition)
    return room.sim.log, room.define("page")


def test_a_crew_that_is_told_to_end_commits_what_each_of_its_loops_took(
    parted: tuple[SimulatedLog, Definition], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, made = parted
    store, shares = MemoryStore(), Both()
    took = Took(monkeypatch, stop_after=2)
    Crew(made, log, store, shares, name="me", should_stop=took.enough).run()
    assert shares.closed
    assert 10 <= sum(took.events.values()) < 80
    for partition in (0, 1):
        shard = part_shard(made.shard, partition)
        state, taken = store.state(shard), took.events[shard]
        assert (0 if state is None else state.info.get("events", 0)) == taken
        if taken:
            assert state is not None
            assert state.cut not in (None, START)


def test_verify_replays_to_the_position_of_a_worker_that_was_stopped(tmp_path: Any) -> None:
    """What came after is not the worker's fault, nor is it missing."""
    log, store = EmbeddedLog(tmp_path / "ledger"), MemoryStore()
    log.create(STREAM)
    append(log, read_events(0, 70))
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    before = log.end(STREAM.name)
    append(log, read_events(70, 50, users=9))
    outcome = verify(definition(), 1, log, store, now_us=SYSTEM.now_us())
    assert (outcome.ok, outcome.events, outcome.entities) == (True, 70, 7)
    assert outcome.position == str(before)
    log.close()
