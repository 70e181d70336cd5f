"""Workers that fail again and again: growing pauses, and everybody is told why."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fs_notebook.catalog import Catalog, Version
from fs_notebook.catalog.model import PROMOTED
from fs_notebook.cli import main
from fs_notebook.clock import from_us
from fs_notebook.errors import FeatureStoreError, OverflowInFold, UnreachableError
from fs_notebook.jupyter.display import StatusTable
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import part_shard
from fs_notebook.position import Cut, Position
from fs_notebook.session import Session
from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.views import Status, status_of
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.failures import Failure, Trouble, leave, left, report_name
from fs_notebook.worker.process import FENCED, STUCK
from fs_notebook.worker.runner import BACKOFF_SECONDS_MAX, RAN_WELL_SECONDS, Runner
from fs_notebook.worker.shared import members_of, tell_partitions
from tests.support.sessions import BEGIN, SUM_SQL, until
from tests.worker.test_handover import STREAM, definition

SHARD = definition().shard
LARGE = 2**62


@dataclass
class Made:
    """A process that does what a test says."""

    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = 0

    def wait(self, timeout: float) -> int:
        return self.code or 0


@dataclass
class Stage:
    """A runner with a clock and processes that a test moves."""

    home: Path
    workers: int | None = None
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    made: list[Made] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)
        self.log = EmbeddedLog(self.home / "ledger")
        self.log.create(STREAM)
        self.catalog = Catalog(self.log, actor="tester", clock=self.clock)
        body: dict[str, Any] = {"definition": definition().to_dict()}
        if self.workers is not None:
            body["workers"] = self.workers
        self.catalog.record(PROMOTED, "reading", body)
        self.runner = Runner(Connection(self.home), clock=self.clock)
        numbers = itertools.count(1_000_000)

        def spawn(version: Version, name: str) -> Any:
            self.made.append(Made(next(numbers)))
            return self.made[-1]

        self.runner._spawn = spawn  # type: ignore[method-assign]
        self.round()

    def round(self) -> None:
        self.runner.reconcile(self.catalog, self.store)

    def beat(self, state: str) -> None:
        fields = {"state": state, "pid": self.made[-1].pid, "host": "h"}
        self.store.heartbeat(SHARD, fields, ttl_seconds=10)

    def pause_s(self, code: int = STUCK) -> float:
        """End the newest process; return how long it takes until there is another."""
        before = len(self.made)
        self.made[-1].code = code
        begun_s = self.clock.monotonic_s()
        self.round()
        while len(self.made) == before:
            self.clock.sleep_s(0.05)
            self.round()
            assert self.clock.monotonic_s() - begun_s < 2 * BACKOFF_SECONDS_MAX + 1
        return self.clock.monotonic_s() - begun_s

    def status(self) -> Status:
        (group,) = self.catalog.refresh().groups.values()
        return status_of(group, group.version(1), self.store)


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    stage = Stage(tmp_path)
    yield stage
    stage.log.close()


def test_pauses_grow_up_to_a_bound(stage: Stage) -> None:
    pauses = [stage.pause_s() for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.25, abs=0.06)
    assert pauses[3] == pytest.approx(2.0, abs=0.06)
    assert pauses[-1] == pytest.approx(BACKOFF_SECONDS_MAX, abs=0.06)
    assert [w.failures for w in stage.runner.watched] == [10]


def test_running_well_ends_the_row(stage: Stage) -> None:
    for _ in range(5):
        stage.pause_s()
    for _ in range(int(RAN_WELL_SECONDS) - 2):
        stage.beat("live")
        stage.clock.sleep_s(1)
        stage.round()
    assert stage.status().failures == 5
    for _ in range(3):
        stage.beat("live")
        stage.clock.sleep_s(1)
        stage.round()
    assert stage.status().failures == 0
    assert stage.status().tries is None
    assert stage.pause_s() == pytest.approx(0.25, abs=0.06)
    assert stage.status().failures == 1


def test_a_worker_that_hangs_does_not_run_well(stage: Stage) -> None:
    stage.pause_s()
    for _ in range(2 * int(RAN_WELL_SECONDS)):
        stage.beat("retrying")
        stage.clock.sleep_s(1)
        stage.round()
    assert stage.status().failures == 1


def test_a_worker_killed_again_and_again_while_it_bootstraps_is_given_pauses(
    stage: Stage,
) -> None:
    """As the kernel does where memory runs out."""
    pauses = []
    for _ in range(4):
        stage.beat("bootstrapping")
        pauses.append(stage.pause_s(-signal.SIGKILL))
    assert pauses[-1] > 4 * pauses[0]


def test_a_worker_that_gets_on_is_not_made_to_wait(stage: Stage) -> None:
    """Each of them commits something before it is killed: they will be through."""
    lease = stage.store.claim(SHARD, fingerprint=definition().fingerprint)
    for entry in range(4):
        stage.beat("bootstrapping")
        cut = Cut((Position(0, 1, entry, 0),))
        lease = stage.store.commit(lease, cut=cut, puts={}, info={})
        assert stage.pause_s(-signal.SIGKILL) == pytest.approx(0.25, abs=0.06)
    assert stage.status().failures == 4


def test_a_member_waits_unless_a_partition_of_its_own_gets_on(tmp_path: Path) -> None:
    """What another worker of the version commits does not end this one's crash loop."""
    stage = Stage(tmp_path, workers=1)
    tell_partitions(stage.store, SHARD, 2)
    (member,) = members_of(SHARD, 1)
    leases = [
        stage.store.claim(part_shard(SHARD, n), fingerprint=definition().fingerprint)
        for n in range(2)
    ]
    pauses: dict[int, list[float]] = {0: [], 1: []}
    # What it folded is told by its report: first the partition that gets on, then the other.
    for own in (0, 1):
        for entry in range(4):
            stage.store.heartbeat(
                member, {"pid": stage.made[-1].pid, "state": "bootstrapping", "owns": [own]},
                ttl_seconds=10,
            )  # fmt: skip
            cut = Cut((Position(0, own + 1, entry, 0),))
            leases[0] = stage.store.commit(leases[0], cut=cut, puts={}, info={})
            pauses[own].append(stage.pause_s(-signal.SIGKILL))
    stage.log.close()
    assert pauses[0] == pytest.approx([0.25] * 4, abs=0.06)
    assert pauses[1] == sorted(pauses[1])
    assert pauses[1][-1] > 1


def test_a_kill_of_a_live_worker_is_no_crash_loop(stage: Stage) -> None:
    for _ in range(4):
        stage.beat("live")
        assert stage.pause_s(-signal.SIGKILL) == pytest.approx(0.25, abs=0.06)


def test_status_tells_why_how_often_and_when_next(stage: Stage) -> None:
    for _ in range(3):
        stage.pause_s()
    error = OverflowInFold("It is too large.", found="2**64", remedy="a DOUBLE")
    words = stage.home / "runners" / stage.runner.connection.id / f"{SHARD}.failure.json"
    at_us = stage.clock.now_us()
    leave(words, Failure.of(error), at_us=at_us)
    stage.made[-1].pid = os.getpid()
    failed_at = from_us(at_us)
    stage.made[-1].code = STUCK
    stage.round()
    status = stage.status()
    assert (status.state, status.failures, status.error) == ("failing", 4, str(error))
    assert (status.failure, status.failed_at) == (str(error), failed_at)
    assert status.retry_at == failed_at + timedelta(seconds=2)
    assert status.tries == "failed 4 times in a row, last at 00:00:01 UTC, next try at 00:00:03"
    shown = repr(status)
    for text in ("It is too large.", "Found: 2**64", "Try: a DOUBLE", status.tries):
        assert text in shown
    html = StatusTable([status]).html()
    assert "failed 4 times in a row" in html
    assert "It is too large." in html
    # The next one runs: there is no next try, and what happened is still told.
    stage.clock.sleep_s(2.1)
    stage.round()
    stage.beat("bootstrapping")
    status = stage.status()
    assert (status.failures, status.retry_at, status.failure) == (4, None, str(error))
    assert status.error is None
    assert "It is too large." in repr(status)


def test_what_another_process_left_is_not_told(stage: Stage) -> None:
    words = stage.home / "runners" / stage.runner.connection.id / f"{SHARD}.failure.json"
    leave(words, Failure.of(UnreachableError("an older one")), at_us=1)
    stage.made[-1].code = STUCK
    stage.round()
    assert "ended with code 4" in (stage.status().failure or "")


def test_one_that_was_taken_over_did_not_fail(stage: Stage) -> None:
    stage.made[-1].code = FENCED
    stage.round()
    assert stage.status().failures == 0
    assert stage.store.health(report_name(SHARD)) is None


def test_a_silent_store_does_not_shorten_the_pauses(stage: Stage) -> None:
    for _ in range(4):
        stage.pause_s()
    heartbeat = stage.store.heartbeat

    def silent(*args: Any, **options: Any) -> None:
        raise UnreachableError("silent")

    stage.store.heartbeat = silent  # type: ignore[method-assign]
    stage.made[-1].code = STUCK
    with pytest.raises(UnreachableError):
        stage.round()
    stage.store.heartbeat = heartbeat  # type: ignore[method-assign]
    count = len(stage.made)
    for _ in range(30):
        stage.clock.sleep_s(0.1)
        stage.round()
    assert len(stage.made) == count
    stage.clock.sleep_s(1.1)
    stage.round()
    assert len(stage.made) == count + 1


def test_failures_are_told_as_they_are() -> None:
    ours = Failure.of(OverflowInFold("m", found="f", remedy="r"))
    assert (ours.kind, ours.message, ours.found, ours.remedy) == ("OverflowInFold", "m", "f", "r")
    assert str(ours) == str(OverflowInFold("m", found="f", remedy="r"))
    other = Failure.of(ZeroDivisionError("division by zero"))
    assert other.found == "ZeroDivisionError: division by zero"
    assert "SIGKILL" in Failure.of_code(-9).message
    trouble = Trouble(2, ours, 5, None)
    again = Trouble.from_report(
        {**trouble.to_dict(), "failure": dict(trouble.to_dict()["failure"])}
    )
    assert again == trouble
    assert Trouble.from_report({}) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 7}', '{"pid": 7, "x": 1}'])
def test_damaged_words_are_no_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "words.json"
    assert left(path, 7) is None
    path.write_text(text)
    assert left(path, 7) is None


def test_last_words_are_read_by_who_knows_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.failure.json"
    failure = Failure.of(UnreachableError("m", found="f"))
    leave(path, failure, at_us=5)
    assert left(path, os.getpid()) == (failure, 5)
    assert left(path, os.getpid() + 1) is None


def test_fault_26_an_overflow_in_a_live_worker(embedded_session: Session) -> None:
    """The whole way: a real worker fails, is tried again, and tells; promoting anew mends it."""
    session = embedded_session
    rows = [{"user": "a", "readtime": LARGE, "ts": BEGIN}]
    session.upload(rows, "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    session.append(rows, "read_events")

    def failed() -> Status | None:
        (status,) = session.status("reading_time")
        return status if status.failures >= 2 and status.retry_at is not None else None

    status = until(failed, what="the worker to fail twice")
    assert status.state == "failing"
    assert "64 bits" in (status.failure or "")
    assert "Traceback" not in repr(status)
    told = CliRunner().invoke(main, ["--home", str(session.connection.home), "status"])
    assert told.exit_code == 0
    assert "times in a row" in told.output
    assert "64 bits" in told.output
    with pytest.raises(FeatureStoreError, match="64 bits"):
        session.promote("reading_time")
    # An event that takes the sum back below the bound; the ledger as it is now can be folded.
    session.append([{"user": "a", "readtime": -LARGE, "ts": BEGIN}], "read_events")
    live = session.promote("reading_time")
    assert (live.state, live.error) == ("live", None)
    assert session.serve("total_readtime", user="a")["total_readtime"] == [LARGE]
