"""Workers on a simulated ledger and store: everything that can go wrong, wherever it can.

Numbers are those of the list of faults. What a worker left behind is compared with a fold in
plain Python of the events that were sent. A schedule that fails is repeated by its seed, which
is in the message; FS_NOTEBOOK_SCHEDULES asks for more of them than a test run has time for.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import polars as pl
import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.errors import (
    FencedError,
    HistoryLost,
    IntegrityError,
    StreamChanged,
    UnknownPosition,
    UnreachableError,
)
from fs_notebook.log.protocol import EARLIEST, Stream
from fs_notebook.position import START, Cut
from fs_notebook.testing import Fault, Simulation
from fs_notebook.testing.clock import BEGIN_US
from fs_notebook.testing.turns import Turns
from fs_notebook.types import Type
from fs_notebook.worker.loop import Worker

SCHEDULES = int(os.environ.get("FS_NOTEBOOK_SCHEDULES", "320"))
BLOCKS = 16
PARTITIONS = 2
STREAM = Stream("reads", (("user", Type.VARCHAR), ("n", Type.BIGINT)), partitions=PARTITIONS)
SQL = "SELECT user, SUM(n) AS total, COUNT(*) AS events, LAST(n) AS latest FROM reads GROUP BY user"
WINDOW_MS = 60_000
USERS = ("a", "b", "ü", "", "e")
EVERYTHING = {
    Fault.KILLED: 0.01, Fault.LEDGER_SILENT: 0.01, Fault.BATCH_CUT: 0.03, Fault.REDELIVERY: 0.02,
    Fault.DELAY: 0.02, Fault.STORE_SILENT: 0.02, Fault.COMMIT_LOST: 0.06, Fault.COMMIT_LATE: 0.06,
    Fault.REPLY_LOST: 0.06, Fault.OUT_OF_MEMORY: 0.03, Fault.TAKEN_OVER: 0.03,
    Fault.WENT_BACK: 0.02, Fault.FLUSHED: 0.01, Fault.EVICTED: 0.02,
}  # fmt: skip


@cache
def defined(window: str | None = None) -> Definition:
    sim = Simulation()
    sim.log.create(STREAM)
    definition = sim.define("reading", SQL, window=window)
    assert isinstance(definition, Definition)
    return definition


@dataclass
class Sender:
    """Sends random events to a simulation, and remembers them."""

    sim: Simulation
    chance: random.Random
    events: list[dict[str, Any]] = field(default_factory=list)
    dead: int = 0

    def send(self, count: int) -> None:
        """Send events of one time and partition: ties, null keys and late ones among them."""
        partition = self.chance.randrange(PARTITIONS)
        event_ms = BEGIN_US // 1000 + self.chance.randrange(-90_000, 90_000, 500)
        users = [u for i, u in enumerate(USERS) if i % PARTITIONS == partition] + [None]
        payloads: list[bytes] = []
        for _ in range(count):
            if self.chance.random() < 0.03:
                payloads.append(self.chance.choice([b"", b"{", b"[1]", b'{"n": "x"}']))
                self.dead += 1
                continue
            event = {"user": self.chance.choice(users), "n": self.chance.randrange(-9, 99)}
            payloads.append(json.dumps(event).encode())
            self.events.append({**event, "ms": event_ms})
        with self.sim.faults.calm():
            self.sim.log.send(
                "reads", payloads, partition=partition, event_ms=event_ms,
                batch=self.chance.randrange(4),
            )  # fmt: skip

    def expected(self, user: str, window_ms: int | None) -> tuple[int | None, int, int | None]:
        """Return the total, the number of events and the latest value, folded in plain Python."""
        mine = [e for e in self.events if e["user"] == user]
        if window_ms is not None and mine:
            t_us = max(self.sim.clock.now_us(), max(e["ms"] for e in mine) * 1000 + 1)
            mine = [e for e in mine if t_us - window_ms * 1000 <= e["ms"] * 1000 < t_us]
        if not mine:
            return None, 0, None
        # The last of the newest, since a user's events are in one partition.
        latest = max(enumerate(mine), key=lambda pair: (pair[1]["ms"], pair[0]))[1]
        return sum(e["n"] for e in mine), len(mine), latest["n"]

    def compare(self, definition: Definition) -> None:
        """Fail, with the seed, unless every value and counter is what was sent."""
        window_ms = WINDOW_MS if definition.options["window"] else None
        got = self.sim.serve(definition, user=list(USERS))
        for row in got.rows:
            values = (row["total"], row["events"], row["latest"])
            assert values == self.expected(row["user"], window_ms), (row, self.sim)
        state = self.sim.store.memory.state(definition.shard)
        assert state is not None
        counted = {name: state.info[name] for name in ("events", "dead", "null_keys")}
        nulls = sum(e["user"] is None for e in self.events)
        expected = {"events": len(self.events), "dead": self.dead, "null_keys": nulls}
        assert counted == expected, self.sim


def rehearse(sim: Simulation, definition: Definition, *, workers: int = 1) -> Sender:
    """Send events before and during a run, and compare what comes of it."""
    sim.log.create(STREAM)
    sender = Sender(sim, random.Random(f"sender {sim.seed}"))
    for _ in range(sender.chance.randrange(4)):
        sender.send(sender.chance.randrange(1, 9))
    for _ in range(sender.chance.randrange(1, 4)):
        sim.meanwhile(partial(sender.send, sender.chance.randrange(1, 7)))
    if sender.chance.random() < 0.3:
        sim.meanwhile(partial(sim.log.unload, "reads"))
    sim.run(definition, workers=workers)
    sender.compare(definition)
    return sender


def made(seed: int, **options: Any) -> Simulation:
    """Return a simulation whose streams are made without mishap."""
    sim = Simulation(seed=seed, **options)
    create = sim.log.create

    def calmly(stream: Stream) -> None:
        with sim.faults.calm():
            create(stream)

    sim.log.create = calmly  # type: ignore[method-assign]
    return sim


@pytest.mark.parametrize("block", range(BLOCKS))
def test_any_schedule_of_faults_leaves_what_was_sent(block: int) -> None:
    """Faults 1-11, 13, 14, 19, 21, 23-25, 27 in any mixture, one worker or two."""
    struck = 0
    for seed in range(block, SCHEDULES, BLOCKS):
        definition = defined("60s" if seed % 3 == 0 else None)
        sim = made(seed, rates=EVERYTHING)
        rehearse(sim, definition, workers=1 + (seed // BLOCKS) % 2)
        if seed % 8 == block % 8:
            sim.check(definition)
        struck += len(sim.faults.struck)
    assert struck > SCHEDULES // BLOCKS


@pytest.mark.parametrize(
    ("kinds", "places_min"),
    [
        pytest.param([Fault.KILLED], 40, id="fault_01_02_killed_at_any_step"),
        pytest.param(
            [Fault.COMMIT_LOST, Fault.COMMIT_LATE, Fault.REPLY_LOST], 4,
            id="fault_03_any_commit_times_out",
        ),
        pytest.param([Fault.TAKEN_OVER], 4, id="fault_04_fenced_before_any_commit"),
        pytest.param([Fault.WENT_BACK], 8, id="fault_06_07_08_the_store_goes_back_at_any_call"),
        pytest.param([Fault.FLUSHED], 8, id="fault_09_flushed_at_any_call"),
        pytest.param([Fault.OUT_OF_MEMORY], 4, id="fault_11_no_memory_for_any_commit"),
        pytest.param([Fault.STORE_SILENT], 6, id="fault_03_the_store_is_silent_at_any_call"),
        pytest.param([Fault.LEDGER_SILENT], 20, id="fault_13_the_ledger_is_silent_at_any_call"),
        pytest.param([Fault.BATCH_CUT], 15, id="fault_14_21_a_batch_ends_anywhere"),
        pytest.param([Fault.REDELIVERY], 15, id="fault_19_messages_come_again_anywhere"),
    ],
)  # fmt: skip
def test_one_fault_at_each_place_where_it_can_strike(kinds: list[Fault], places_min: int) -> None:
    for kind in kinds:
        place = 0
        while True:
            sim = made(0, at={kind: [place]})
            rehearse(sim, defined())
            if not sim.faults.struck:
                break
            place += 1
            assert place < 200, f"{kind} has no end of opportunities"
        assert place >= places_min, f"{kind} struck at {place} places only"


def prepared(seed: int = 0, count: int = 20, **options: Any) -> tuple[Simulation, Sender]:
    """Return a simulation with events in its stream."""
    sim = made(seed, **options)
    sim.log.create(STREAM)
    sender = Sender(sim, random.Random(f"sender {seed}"))
    for _ in range(count):
        sender.send(2)
    return sim, sender


def worker_of(sim: Simulation, stop: Callable[[], bool] = lambda: False) -> Worker:
    return Worker(
        defined(), sim.log, sim.store, clock=sim.clock, beside=False, should_stop=stop,
        commit_every_s=0.0,
    )  # fmt: skip


def position_of(sim: Simulation) -> Cut | None:
    held = sim.store.memory.state(defined().shard)
    return None if held is None else held.cut


def test_fault_05_of_two_workers_for_one_share_one_goes_on_and_the_other_says_why() -> None:
    """Their steps are mixed in any order, and commits of either may arrive late."""
    fenced = 0
    for seed in range(40):
        sim, sender = prepared(seed, rates={Fault.COMMIT_LATE: 0.1, Fault.BATCH_CUT: 0.1})
        turns = Turns(seed)
        sim.faults.on_step = lambda where, turns=turns: turns.step()  # type: ignore[misc]
        end = sim.log.end("reads")
        workers = [
            worker_of(sim, lambda sim=sim, end=end: position_of(sim) == end)  # type: ignore[misc]
            for _ in range(2)
        ]
        errors = turns.run([worker.run for worker in workers])
        told = [error for error in errors if error is not None]
        assert len(told) < 2, (told, sim)
        assert all(isinstance(error, FencedError) for error in told), told
        assert all("Another worker" in str(error) for error in told), told
        fenced += len(told)
        with sim.faults.calm():
            sim.store.settle()
        sender.compare(defined())
    assert fenced > 10


def test_fault_04_a_fenced_worker_that_cannot_ask_does_not_claim_the_share_back() -> None:
    """Whether it was fenced or the store went back cannot be told while the store is silent."""
    sim, _ = prepared(at={Fault.TAKEN_OVER: [1]})
    state, silences = sim.store.state, iter(range(3))

    def silent(shard: str) -> Any:
        held = sim.store.memory.state(shard)
        assert held is not None
        if held.epoch == 2 and next(silences, None) is not None:
            raise UnreachableError("The store does not answer.")
        return state(shard)

    sim.store.state = silent  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        worker_of(sim).run()
    assert next(silences, None) is None
    held = sim.store.memory.state(defined().shard)
    assert held is not None
    assert held.epoch == 2


def test_fault_07_a_store_that_forgot_that_a_shard_was_built_is_told_again() -> None:
    """The same position and epoch, but the moment before the worker called itself live."""
    sim, sender = prepared()
    memory, copies = sim.store.memory, []
    commit = memory.commit

    def copied(lease: Any, **options: Any) -> Any:
        if options["info"]["phase"] == "live" and not copies:
            copies.append(memory.copy())
        return commit(lease, **options)

    memory.commit = copied  # type: ignore[method-assign]
    looks = 0

    def stop() -> bool:
        nonlocal looks
        state, report = memory.state(defined().shard), memory.health(defined().shard)
        looks += report is not None and report["state"] == "live"
        if looks == 3:
            memory.restore(copies[0])
            return False
        built = state is not None and state.info.get("built", False)
        return (looks > 3 and built) or sim.clock.monotonic_s() > 60

    worker_of(sim, stop).run()
    assert sim.clock.monotonic_s() < 10
    sender.compare(defined())


def test_fault_10_a_value_that_is_gone_is_an_error_and_a_rebuild_mends_it() -> None:
    sim, sender = prepared()
    sim.run(defined())
    shard = defined().shard
    lost = sorted(sim.store.memory.entities(shard))[0]
    sim.store.memory.evict(shard, lost)
    for _ in range(12):
        sender.send(3)
    with pytest.raises(IntegrityError, match="evicted") as caught:
        worker_of(sim).run()
    assert "promote it again" in str(caught.value.remedy)
    # What does not touch it may have been folded before; it is not taken for a new entity.
    assert lost not in sim.store.memory.entities(shard)
    report = sim.store.memory.health(shard)
    assert report is not None
    assert report["state"] == "failing"
    sim.store.memory.drop(shard)
    sim.run(defined())
    sender.compare(defined())


def test_fault_11_without_memory_the_position_stays_and_the_worker_says_so() -> None:
    sim, sender = prepared(at={Fault.OUT_OF_MEMORY: range(1, 7)})
    begun_s = sim.clock.monotonic_s()
    seen: set[tuple[Cut | None, str]] = set()
    heartbeat = sim.store.heartbeat

    def noted(shard: str, fields: Any, **options: Any) -> None:
        if fields["error"]:
            seen.add((position_of(sim), fields["error"].splitlines()[0]))
        heartbeat(shard, fields, **options)

    sim.store.heartbeat = noted  # type: ignore[method-assign]
    sim.run(defined())
    sender.compare(defined())
    ((cut, error),) = seen
    assert cut == START
    assert "memory" in error
    # It waited between its tries, longer each time: 0.1 s, 0.2 s … 3.2 s.
    assert 6 < sim.clock.monotonic_s() - begun_s < 20


def test_fault_15_a_worker_stops_where_history_was_lost() -> None:
    sim, sender = prepared()
    sim.run(defined())
    before = position_of(sim)
    for _ in range(12):
        sender.send(3)
    sim.log.unload("reads")
    for _ in range(8):
        sender.send(1)
    for end in sim.log.end("reads"):
        sim.log.trim("reads", end)
    with pytest.raises(HistoryLost, match="are gone"):
        sim.run(defined())
    assert position_of(sim) == before


@pytest.mark.parametrize("whole", [True, False])
def test_fault_15_history_lost_before_a_partition_was_begun_is_told(whole: bool) -> None:
    """No position in the cut tells it: where the partition began is stored with the state."""
    sim, _ = prepared(count=40)
    sim.log.unload("reads")
    sim.log.append(STREAM, pl.DataFrame({"user": ["a", "b", "c", "d", "e"], "n": [1] * 5}))
    ends: list[Cut] = []

    def first_is_folded() -> bool:
        held = position_of(sim)
        if held is not None and len(held.positions) == 1:
            ends.append(held)
        return bool(ends)

    worker_of(sim, first_is_folded).run()
    (done,) = ends[0]
    other = 1 - done.partition
    lost = sim.log.end("reads").get(other)
    assert lost is not None
    first = sim.log.beginning("reads").get(other)
    sim.log.trim("reads", lost._replace(ledger=lost.ledger + 1) if whole else lost)
    with pytest.raises(HistoryLost, match="were removed before 'reading' had folded") as caught:
        sim.run(defined())
    assert f"partition {other} began at {first}" in str(caught.value.found)
    assert ("now it has none" in str(caught.value.found)) == whole
    assert position_of(sim) == ends[0]


def test_history_that_is_removed_while_a_partition_is_read_for_the_first_time_is_told() -> None:
    sim, _ = prepared(count=40)
    sim.log.unload("reads")
    end = sim.log.end("reads")
    read, trimmed = sim.log.read, False

    def trimming(stream: Stream, **options: Any) -> Any:
        nonlocal trimmed
        for place in () if trimmed else end:
            sim.log.trim("reads", place)
        trimmed = True
        return read(stream, **options)

    sim.log.read = trimming  # type: ignore[method-assign]
    with pytest.raises(HistoryLost, match="were removed before"):
        sim.run(defined())
    assert position_of(sim) == START


def test_what_was_gone_before_a_feature_was_promoted_is_no_loss() -> None:
    sim, sender = prepared(count=40)
    for place in sim.log.end("reads"):
        sim.log.trim("reads", place)
    sim.run(defined())
    for _ in range(5):
        sender.send(1)
    sim.run(defined())
    held = position_of(sim)
    assert held == sim.log.end("reads")


@pytest.mark.parametrize("seed", range(4))
def test_fault_16_a_position_that_the_ledger_does_not_have_yet_is_refused(seed: int) -> None:
    """The ledger was restored from an older copy than the store, or is another one."""
    older, _ = prepared(seed, count=6)
    newer, _ = prepared(seed + 1, count=30)
    newer.run(defined())
    older.store.memory.restore(newer.store.memory.copy())
    before = position_of(older)
    with pytest.raises(UnknownPosition, match="has no position"):
        older.run(defined())
    assert position_of(older) == before


def test_fault_17_a_stream_that_was_made_again_is_not_taken_for_the_old_one() -> None:
    sim, sender = prepared()
    sim.run(defined())
    sim.log.delete("reads")
    sim.log.create(STREAM)
    sender.send(3)
    with pytest.raises(StreamChanged, match="made again"):
        sim.run(defined())


@pytest.mark.parametrize("seed", range(30))
def test_fault_17_a_stream_that_is_made_again_under_a_worker_stops_it(seed: int) -> None:
    """At any step: the client reconnects, and is handed the new stream's events."""
    sim, sender = prepared(seed, count=8)
    sim.run(defined())
    for _ in range(12):
        sender.send(2)
    counted = len(sender.events)
    ends: list[Cut] = []

    def again() -> None:
        ends.append(sim.log.end("reads"))
        sim.log.delete("reads")
        sim.log.create(STREAM)
        for _ in range(30):
            sender.send(2)

    sim.meanwhile(again)
    with pytest.raises(StreamChanged, match="made again"):
        sim.run(defined())
    held = sim.store.memory.state(defined().shard)
    assert held is not None
    assert held.info.get("events", 0) <= counted, sim
    # What had been fetched of the old one may have been committed since.
    assert ends[0].contains(position_of(sim) or START), sim


def test_fault_17_a_live_worker_that_is_handed_another_streams_events_folds_none() -> None:
    sim, sender = prepared()
    looks = 0
    before: list[Cut | None] = []

    def stop() -> bool:
        nonlocal looks
        report = sim.store.memory.health(defined().shard)
        looks += report is not None and report["state"] == "live"
        # By the third look its tail has been open for a while.
        if looks == 3:
            before.append(position_of(sim))
            sim.log.delete("reads")
            sim.log.create(STREAM)
            for _ in range(10):
                sender.send(2)
        return False

    with pytest.raises(StreamChanged, match="made again"):
        worker_of(sim, stop).run()
    assert [position_of(sim)] == before
    report = sim.store.memory.health(defined().shard)
    assert report is not None
    assert "made again" in report["error"]


def test_fault_17_22_where_a_stream_without_identity_begins_may_change() -> None:
    """Somebody else's topic: where it begins stands in for what it is, and that changes."""
    sim, sender = prepared(count=0)

    def identity(name: str) -> str:
        with sim.faults.calm():
            batches = sim.log.read(STREAM, start=START, end=sim.log.end(name))
            first = next(iter(batches), None)
        return EARLIEST + ("none" if first is None else str(first.positions().row(0)))

    sim.log.identity = identity  # type: ignore[method-assign]
    sim.run(defined())
    for _ in range(20):
        sender.send(3)
    sim.run(defined())
    sender.compare(defined())
    for end in sim.log.end("reads"):
        sim.log.trim("reads", end)
    for _ in range(5):
        sender.send(2)
    sim.run(defined())
    sender.compare(defined())


@pytest.mark.parametrize("seed", range(12))
def test_fault_18_partitions_that_are_added_lose_and_double_nothing(seed: int) -> None:
    """While a worker builds or follows, which is killed now and then as well."""
    sim, sender = prepared(seed, count=8, rates={Fault.KILLED: 0.01, Fault.BATCH_CUT: 0.05})

    def send_there() -> None:
        payloads = [json.dumps({"user": "e", "n": n}).encode() for n in range(5)]
        sim.log.send("reads", payloads, partition=3, batch=2, event_ms=BEGIN_US // 1000)
        sender.events += [{"user": "e", "n": n, "ms": BEGIN_US // 1000} for n in range(5)]

    sim.meanwhile(
        partial(sender.send, 3), partial(sim.log.add_partitions, "reads", 4), send_there, send_there
    )
    sim.run(defined())
    state = sim.store.memory.state(defined().shard)
    assert state is not None
    assert state.cut is not None
    assert state.cut.get(3) is not None
    assert state.info["events"] == len(sender.events), sim
    sim.check(defined())


def test_fault_22_an_empty_stream_is_live_at_once_and_folds_its_first_event() -> None:
    sim, sender = prepared(count=0)
    reports: list[str] = []

    def stop() -> bool:
        report = sim.store.memory.health(defined().shard)
        if report is not None and report["state"] == "live" and not reports:
            assert position_of(sim) == START
            reports.append(report["state"])
            sender.send(4)
        return bool(reports) and position_of(sim) == sim.log.end("reads")

    worker_of(sim, stop).run()
    assert reports == ["live"]
    sender.compare(defined())


@pytest.mark.parametrize("seed", range(10))
def test_fault_25_of_equal_times_the_later_position_is_the_later_event(seed: int) -> None:
    """However the ledger is cut into batches, and whatever is folded twice."""
    sim = made(seed, rates={Fault.BATCH_CUT: 0.2, Fault.KILLED: 0.02, Fault.REDELIVERY: 0.1})
    sim.log.create(STREAM)
    numbers = random.Random(seed).sample(range(1_000), 40)
    with sim.faults.calm():
        for start in range(0, 40, 4):
            payloads = [json.dumps({"user": "a", "n": n}).encode() for n in numbers[start:][:4]]
            sim.log.send("reads", payloads, event_ms=BEGIN_US // 1000, batch=start % 3)
    sim.run(defined())
    assert sim.serve(defined(), user=["a"]).to_dict()["latest"] == [numbers[-1]], sim
    sim.check(defined())


def test_a_failing_run_says_its_seed_and_repeats_itself() -> None:
    def run() -> tuple[str, list[tuple[Fault, int]], dict[str, Any]]:
        sim = made(5, rates=EVERYTHING)
        sender = rehearse(sim, defined(), workers=2)
        return repr(sim), sim.faults.struck, {"steps": sim.faults.steps, "sent": sender.events}

    first = run()
    assert first == run()
    assert "seed=5" in first[0]
    sim, sender = prepared(3)
    sim.run(defined())
    sender.events.append({"user": "a", "n": 1, "ms": BEGIN_US // 1000})
    with pytest.raises(AssertionError, match="seed=3"):
        sender.compare(defined())
    sim.store.memory.evict(defined().shard, sorted(sim.store.memory.entities(defined().shard))[0])
    with pytest.raises(AssertionError, match="seed=3"):
        sim.check(defined())
