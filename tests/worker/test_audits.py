"""Verification on a schedule: when, of what, and where its outcome is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fs_notebook.catalog import Version
from fs_notebook.cli import main
from fs_notebook.clock import SYSTEM
from fs_notebook.errors import UsageError
from fs_notebook.jupyter.display import StatusTable
from fs_notebook.online.codec import pack_key
from fs_notebook.online.memory import MemoryStore
from fs_notebook.position import START
from fs_notebook.session import Session
from fs_notebook.testing import SimulatedLog
from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.worker.audits import Audit, Audits, audit_name, parse_every, run_audit
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import drawn, verify
from tests.support.sessions import SUM_SQL, read_events, until
from tests.worker.test_handover import (
    STREAM,
    append,
    definition,
    run_until_caught_up,
)
from tests.worker.test_metrics import READING, fetched, runner_of, url_in, value
from tests.worker.test_shared import PARTITIONS, Room


@dataclass
class Made:
    """A process that ends when a test says."""

    code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = -15

    def wait(self, timeout: float) -> int:
        assert self.code is not None
        return self.code


class Stage:
    """A schedule with a clock and processes that a test moves."""

    def __init__(self, every_s: float = 3_600.0) -> None:
        self.clock = SimulatedClock()
        self.store = MemoryStore(clock=self.clock)
        self.started: list[tuple[float, Any]] = []
        self.process = Made(0)
        self.live: dict[str, Any] = {"a@1": "a", "b@1": "b"}

        def start(version: Version) -> Any:
            assert self.process.code is not None, "two at a time"
            self.started.append((self.clock.monotonic_s(), version))
            self.process = Made()
            return self.process

        self.audits = Audits(every_s, start, clock=self.clock)

    def pass_s(self, seconds: float, *, takes_s: float = 60.0) -> None:
        """Let time pass in steps of ten seconds; each verification takes `takes_s`."""
        for _ in range(int(seconds / 10)):
            self.audits.round(self.live, self.store)
            if self.process.code is None:
                begun_s = self.started[-1][0]
                done = self.clock.monotonic_s() - begun_s >= takes_s
                self.process.code = 0 if done else None
            self.clock.sleep_s(10)


def test_one_at_a_time_and_each_as_often_as_asked() -> None:
    stage = Stage()
    stage.pass_s(3 * 3_600)
    times: dict[Any, list[float]] = {}
    for at_s, version in stage.started:
        times.setdefault(version, []).append(at_s)
    assert times["a"] == [0, 3_600, 7_200]
    assert [round(t / 100) for t in times["b"]] == [1, 37, 73]


def test_what_another_runner_verified_counts() -> None:
    stage = Stage()
    begun_us = stage.clock.now_us() - 3_000_000_000
    report = asdict(Audit(begun_us, 1.0))
    stage.store.heartbeat(audit_name("a@1"), report, ttl_seconds=1e6)
    stage.live.pop("b@1")
    stage.pass_s(1_000)
    assert [at_s for at_s, _ in stage.started] == [600]


def test_long_verifications_do_not_pile_up() -> None:
    stage = Stage(every_s=60.0)
    stage.pass_s(3_600, takes_s=600.0)
    assert 4 <= len(stage.started) <= 7
    # Both have their turns.
    assert {version for _, version in stage.started} == {"a", "b"}


def test_stopping_ends_the_one_under_way() -> None:
    stage = Stage()
    stage.audits.round(stage.live, stage.store)
    assert stage.process.code is None
    stage.audits.stop()
    assert stage.process.code == -15


@pytest.mark.parametrize("text", ["", "1", "soon", "10ms", "0s", "-1h"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(UsageError, match="--verify-every"):
        parse_every(text)
    assert parse_every("1h") == 3_600


def test_a_sample_is_compared_and_another_one_the_next_time() -> None:
    log, store = SimulatedLog(), MemoryStore()
    log.create(STREAM)
    append(log, read_events(0, 400, users=40))
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    now_us = SYSTEM.now_us()
    whole = verify(definition(), 1, log, store, now_us=now_us)
    assert (whole.entities, whole.sampled_from, whole.ok) == (40, None, True)
    some = verify(definition(), 1, log, store, now_us=now_us, entities_max=5)
    assert (some.entities, some.sampled_from, some.ok, some.values) == (5, 40, True, 20)
    assert "5 of 40 entities (a sample, seed" in repr(some)
    # One damaged value of forty is found by some of the samples, not by all.
    keys = sorted(store.entities(worker.shard))
    other, wrong = keys[:2]
    lease = store.claim(worker.shard, fingerprint=definition().fingerprint)
    assert lease.cut not in (None, START)
    blob = store.load(lease, [other])[0]
    assert lease.cut is not None
    assert blob is not None
    store.commit(lease, cut=lease.cut, puts={wrong: blob}, info=lease.info)
    outcomes = [
        verify(definition(), 1, log, store, now_us=now_us + n, entities_max=10).ok
        for n in range(20)
    ]
    assert {True, False} == set(outcomes)
    assert not verify(definition(), 1, log, store, now_us=now_us, entities_max=40).ok


def test_a_seed_draws_the_same_entities_again_spread_over_all_of_them() -> None:
    keys = [b"%04d" % n for n in range(1_000)]
    first = drawn(keys, 100, 1)
    assert drawn(reversed(keys), 100, 1) == first
    assert len(set(first) & set(drawn(keys, 100, 2))) < 40
    # None of the ten hundreds is left out, nor has one of them most of the sample.
    hundreds = Counter(key[:2] for key in first)
    assert len(hundreds) == 10
    assert max(hundreds.values()) < 30


def test_a_sample_of_shared_work_is_of_entities_whose_state_lies_in_several_shards() -> None:
    room = Room(3)
    made = room.define("page")
    for _ in range(30):
        room.send(4)
    room.sim.run(made, shared=True)
    log, store, now_us = room.sim.log, room.sim.store.memory, room.sim.clock.now_us()
    whole = verify(made, 1, log, store, now_us=now_us, partitions=PARTITIONS)
    assert (whole.ok, whole.entities, whole.sampled_from) == (True, 3, None)
    some = verify(made, 1, log, store, now_us=now_us, partitions=PARTITIONS, entities_max=2, seed=0)
    assert (some.ok, some.entities, some.sampled_from, some.seed) == (True, 2, 3, 0)
    assert some.events == whole.events
    assert 0 < some.values < whole.values


@pytest.mark.parametrize("count", [0, -1])
def test_a_sample_of_nothing_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="number of entities"):
        verify(definition(), 1, SimulatedLog(), MemoryStore(), now_us=0, entities_max=count)


def test_the_outcome_is_in_status_and_metrics(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 100), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    options = ("--metrics", "127.0.0.1:0", "--verify-every", "1s")
    with runner_of(session.connection.home, *options) as log:
        url = url_in(log)
        session.promote("reading_time")
        until(
            lambda: value(fetched(url), "verification_ok", **READING) == 1,
            what="the first verification",
        )
        samples = fetched(url)
        assert value(samples, "verification_mismatches", **READING) == 0
        assert value(samples, "verification_entities", **READING) == 7
        began_s = value(samples, "verification_timestamp_seconds", **READING)
        assert began_s is not None
        assert 0 <= SYSTEM.now_us() / 1e6 - began_s < 60
        (status,) = session.status("reading_time")
        assert status.verified == "equal to the ledger, 7 entities"
        assert "equal to the ledger" in repr(status)
        assert "equal to the ledger" in StatusTable([status]).html()
        until(
            lambda: (
                (value(fetched(url), "verification_timestamp_seconds", **READING) or 0) > began_s
            ),
            what="the second verification",
        )


def test_what_differs_is_told(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 10), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    session.stop()
    version = session.catalog.refresh().group("reading_time").versions[0]
    shard = version.definition.shard
    lease = session.store.claim(shard, fingerprint=version.fingerprint)
    assert lease.cut is not None
    keys = [pack_key(("u1",)), pack_key(("u2",))]
    one, two = session.store.load(lease, keys)
    assert one is not None
    assert two is not None
    puts = {keys[0]: two, keys[1]: one}
    session.store.commit(lease, cut=lease.cut, puts=puts, info=lease.info)
    audit = run_audit(session.connection, "reading_time", version.fingerprint)
    # u1 has 1 + 8, u2 has 2 + 9; the times of their newest events are not each other's either.
    assert not audit.ok
    assert "'u1' total_readtime: online 11, ledger 9" in str(audit)
    assert "mismatches in 7 entities" in str(audit)
    (status,) = session.status("reading_time")
    assert status.verified == str(audit)
    assert str(audit) in repr(status)


def test_one_that_cannot_be_done_says_why(embedded_session: Session, tmp_path: Path) -> None:
    session = embedded_session
    session.upload(read_events(0, 10), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    session.stop()
    version = session.catalog.refresh().group("reading_time").versions[0]
    session.store.drop(version.definition.shard)
    audit = run_audit(session.connection, "reading_time", version.fingerprint)
    assert not audit.ok
    assert "no online values" in str(audit)
    (status,) = session.status("reading_time")
    assert "not done" in (status.verified or "")


def test_a_wrong_interval_is_told_at_once(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--home", str(tmp_path), "runner", "--verify-every", "soon"])
    assert done.exit_code == 1
    assert "--verify-every is not a length of time" in done.output
