"""Bootstrap to a frozen cut, hand-over to the very next event, and workers that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.errors import FencedError, IntegrityError
from fs_notebook.ingest import fit, to_frame
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.memory import MemoryStore
from fs_notebook.position import START, Cut, Position
from fs_notebook.session import Session
from fs_notebook.testing import SimulatedLog
from fs_notebook.types import Type
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.loop import Worker, gathered
from fs_notebook.worker.runner import ensure_runner, runner_pid
from fs_notebook.worker.verify import verify
from tests.support.sessions import SUM_SQL, read_events, until

STREAM = Stream(
    "read_events",
    (("user", Type.VARCHAR), ("readtime", Type.BIGINT), ("ts", Type.TIMESTAMP)),
    "ts",
)
SQL = """
SELECT user, SUM(readtime) OVER (PARTITION BY user) AS total, COUNT(*) OVER w AS recent
FROM read_events
WINDOW w AS (PARTITION BY user ORDER BY ts
             RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
"""


def definition(sql: str = SQL) -> Definition:
    source = SourceColumns(STREAM.name, STREAM.columns, STREAM.time)
    plan = compile_sql(sql, name="reading", find_source=lambda name: source)
    return Definition("reading", sql, plan, STREAM)


def append(log: Any, events: list[dict[str, Any]]) -> None:
    log.append(STREAM, fit(to_frame(events), STREAM))


def run_until_caught_up(worker: Worker, log: Any, store: Any, shard: str) -> None:
    """Run a worker in this thread until its stored position is the log's end."""

    def stop() -> bool:
        state = store.state(shard)
        done = state is not None and state.info.get("phase") == "live"
        return done and state.cut == log.end(STREAM.name)

    worker._should_stop = stop
    worker.run()


@pytest.fixture(params=["embedded", "simulated", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "embedded":
        log: Any = EmbeddedLog(tmp_path / "ledger")
    elif request.param == "simulated":
        log = SimulatedLog()
    else:
        broker = request.getfixturevalue("broker")
        log = PulsarLog(f"{broker.url}/{broker.namespace()}", admin_url=broker.admin_url)
    log.create(STREAM)
    yield log
    log.close()


def test_fault_21_handover_at_every_position(log: Any) -> None:
    """FAULTS 21: history ends at each position in turn; the next event is the very next one."""
    for first in range(0, 30, 10):
        append(log, read_events(first, 10))
    shard = definition().shard
    end = log.end(STREAM.name)
    places = [
        Position(*row)
        for batch in log.read(STREAM, start=START, end=end)
        for row in batch.positions().rows()
    ]
    assert len(places) == 30
    for target in [START, *(Cut((place,)) for place in places)]:
        store = MemoryStore()
        lease = store.claim(shard, fingerprint=definition().fingerprint)
        info = {"phase": "bootstrapping", "target": target.to_json()}
        info["identity"] = log.identity(STREAM.name)
        store.commit(lease, cut=START, puts={}, info=info)
        worker = Worker(definition(), log, store)
        run_until_caught_up(worker, log, store, shard)
        state = store.state(shard)
        assert state is not None
        assert (state.cut, state.info["events"]) == (end, 30)
        outcome = verify(definition(), 1, log, store, now_us=SYSTEM.now_us())
        assert outcome.ok, (target, outcome)


def test_fault_23_events_during_bootstrap_are_neither_lost_nor_doubled(
    log: Any,
) -> None:
    """FAULTS 23."""
    append(log, read_events(0, 500))
    store = MemoryStore()
    worker = Worker(definition(), log, store)
    shard = worker.shard
    take = worker._take
    late = iter(range(500, 600, 10))

    def take_and_append(lease: Any, held: Any, batch: Any) -> None:
        first = next(late, None)
        if first is not None:
            append(log, read_events(first, 10))
        take(lease, held, batch)

    worker._take = take_and_append  # type: ignore[method-assign]
    run_until_caught_up(worker, log, store, shard)
    state = store.state(shard)
    assert state is not None
    assert state.info["events"] == 600
    assert verify(definition(), 1, log, store, now_us=SYSTEM.now_us()).ok


def test_fault_01_02_crash_between_any_two_commits_changes_nothing(log: Any) -> None:
    """FAULTS 1 and 2: the worker dies before a commit, or after it and before the answer."""

    class Crash(Exception):
        pass

    for before in (True, False):
        for number in range(6):
            store = MemoryStore()
            commits, commit = iter(range(1000)), store.commit

            def crashing(*args: Any, **options: Any) -> Any:
                dies = next(commits) == number  # noqa: B023
                if dies and before:  # noqa: B023
                    raise Crash
                lease = commit(*args, **options)  # noqa: B023
                if dies:
                    raise Crash
                return lease

            store.commit = crashing  # type: ignore[method-assign]
            if number == 0 and before:
                append(log, read_events(0, 40))
            shard = definition().shard
            small = Worker(definition(), log, store)
            try:
                run_until_caught_up(small, log, store, shard)
            except Crash:
                run_until_caught_up(Worker(definition(), log, store), log, store, shard)
            assert verify(definition(), 1, log, store, now_us=SYSTEM.now_us()).ok


def test_fault_24_late_events_change_nothing_and_are_counted(log: Any) -> None:
    """FAULTS 24."""
    sql = SQL.replace("SUM(readtime) OVER (PARTITION BY user) AS total, ", "")
    # The second seven are of the same users, and long past; the bootstrap reads all in one batch.
    append(log, [*read_events(90, 15), *read_events(0, 7)])
    store = MemoryStore()
    worker = Worker(definition(sql), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    state = store.state(worker.shard)
    assert state is not None
    assert (state.info["events"], state.info["late"]) == (22, 7)
    assert verify(definition(sql), 1, log, store, now_us=SYSTEM.now_us()).ok


def test_fault_04_a_worker_that_was_taken_over_stops_and_writes_nothing(log: Any) -> None:
    """FAULTS 4 and 5."""
    append(log, read_events(0, 10))
    store = MemoryStore()
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    worker._should_stop = lambda: False
    follow = worker._follow

    def taken_over(lease: Any) -> None:
        store.claim(worker.shard, fingerprint=definition().fingerprint)
        append(log, read_events(10, 10))
        follow(lease)

    worker._follow = taken_over  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        worker.run()
    state = store.state(worker.shard)
    assert state is not None
    assert state.info["events"] == 10


def test_fault_09_a_flushed_store_is_bootstrapped_again(log: Any) -> None:
    """FAULTS 9: visibly, from the start, never live with empty state."""
    append(log, read_events(0, 30))
    store = MemoryStore()
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    phases: list[str] = []
    heartbeat = store.heartbeat

    def noted(shard: str, fields: Any, **options: Any) -> None:
        phases.append(fields["state"])
        heartbeat(shard, fields, **options)

    store.heartbeat = noted  # type: ignore[method-assign]
    store.flush()
    append(log, read_events(30, 5))
    run_until_caught_up(worker, log, store, worker.shard)
    assert phases[0] == "bootstrapping"
    assert verify(definition(), 1, log, store, now_us=SYSTEM.now_us()).ok


def test_fault_29_another_definition_under_the_same_shard_is_refused(log: Any) -> None:
    """FAULTS 29."""
    store = MemoryStore()
    store.claim(definition().shard, fingerprint="0" * 64)
    with pytest.raises(IntegrityError, match=r"fingerprint|definition"):
        Worker(definition(), log, store).run()


def _worker_pid(session: Session, other_than: int | None = None) -> int:
    def look() -> int | None:
        found = session.status("reading_time")
        pid = found[0].pid if found else None
        return pid if pid is not None and pid != other_than and psutil.pid_exists(pid) else None

    pid = until(look, what="a worker's heartbeat")
    assert isinstance(pid, int)
    return pid


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_fault_01_02_03_31_kill_nine_four_times_while_events_arrive(session: Session) -> None:
    """The runner starts the next one; no event lost, none counted twice.

    `test_kills.py` kills far more often, without a runner.
    """
    chance = random.Random(7)
    session.upload(read_events(0, 20_000, users=50), "read_events", time="ts", key="user")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    sent, done = [20_000], threading.Event()
    writer = Session(session.connection, actor="writer")

    def write() -> None:
        while not done.is_set():
            writer.append(read_events(sent[0], 50, users=50), "read_events")
            sent[0] += 50

    thread = threading.Thread(target=write)
    thread.start()
    try:
        pid: int | None = None
        for _ in range(4):
            pid = _worker_pid(session, other_than=pid)
            time.sleep(chance.random() * 0.5)  # A random point of its work is what we want.
            os.kill(pid, signal.SIGKILL)
    finally:
        done.set()
        thread.join()
        writer.close()
    _worker_pid(session, other_than=pid)
    total = sum(range(sent[0]))
    users = [f"u{n}" for n in range(50)]

    def caught_up() -> bool:
        values = session.serve("total_readtime", user=users)["total_readtime"]
        return sum(v or 0 for v in values) == total

    until(lambda: any(s.serving for s in session.status("reading_time")), what="the first version")
    until(caught_up, what="the worker to catch up")
    outcome = session.verify("reading_time")
    assert (outcome.mismatches, outcome.entities, outcome.events) == (0, 50, sent[0])


@pytest.mark.timeout(120)
def test_fault_05_31_worker_outlives_the_kernel_and_a_new_runner_takes_over(
    embedded_session: Session,
) -> None:
    """Promote in a process that is killed; then kill the runner as well."""
    session = embedded_session
    session.upload(read_events(0, 100), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    script = (
        "import os, signal, fs_notebook as fs; fs.connect(); fs.promote('reading_time'); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    kernel = subprocess.run(
        [sys.executable, "-c", script], env=dict(session.connection.environment()), timeout=60
    )
    assert kernel.returncode == -signal.SIGKILL
    session.append(read_events(100, 7), "read_events")

    def served(count: int) -> bool:
        wanted = sum(n for n in range(count) if n % 7 == 1)
        return session.serve("total_readtime", user="u1")["total_readtime"] == [wanted]

    until(lambda: served(107), what="events after the kernel's death")

    runner = runner_pid(session.connection)
    assert runner is not None
    os.kill(runner, signal.SIGKILL)
    until(lambda: runner_pid(session.connection) is None)
    orphan = _worker_pid(session)
    # The orphan goes on until somebody starts a runner; its worker then takes the shard over.
    session.append(read_events(107, 7), "read_events")
    until(lambda: served(114), what="the orphan's work")
    ensure_runner(Connection(session.connection.home))
    until(lambda: not psutil.pid_exists(orphan), what="the orphan to be fenced and to end")
    session.append(read_events(114, 7), "read_events")
    until(lambda: served(121), what="the new worker's work")
    assert session.verify("reading_time").ok


@pytest.mark.timeout(120)
def test_fault_31_worker_outlives_the_terminal(embedded_session: Session) -> None:
    """Promote at a terminal that is closed; whoever reads from it is hung up on."""
    session = embedded_session
    session.upload(read_events(0, 100), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    # The first terminal that the leader of a session opens is the one that it belongs to.
    # A hang-up ends it as it does at any terminal, even if nohup started the tests.
    script = (
        "import os, signal, time, fs_notebook as fs; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "os.open(os.ttyname(0), os.O_RDWR); fs.connect(); "
        "fs.promote('reading_time'); print('promoted', flush=True); time.sleep(600)"
    )
    terminal, there = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=dict(session.connection.environment()),
        stdin=there, stdout=there, stderr=there, start_new_session=True,
    )  # fmt: skip
    os.close(there)
    said = b""
    while b"promoted" not in said:
        said += os.read(terminal, 1_000)
    worker, runner = _worker_pid(session), runner_pid(session.connection)
    assert runner is not None
    assert os.getsid(process.pid) == process.pid
    assert process.pid not in (os.getsid(worker), os.getsid(runner))
    os.close(terminal)
    assert process.wait(30) == -signal.SIGHUP
    session.append(read_events(100, 7), "read_events")
    wanted = sum(n for n in range(107) if n % 7 == 1)
    until(
        lambda: session.serve("total_readtime", user="u1")["total_readtime"] == [wanted],
        what="events after the terminal's end",
    )
    assert _worker_pid(session) == worker
    assert runner_pid(session.connection) == runner


def test_batches_gathered_for_the_bootstrap_are_the_same_events_in_order(log: Any) -> None:
    for first in range(0, 40, 8):
        append(log, read_events(first, 8))
    end = log.end(STREAM.name)
    batches = list(log.read(STREAM, start=START, end=end, rows_max=5))
    joined = list(gathered(iter(batches), clock=SYSTEM, rows_max=20))
    assert [n for b in joined for n in b.rows["readtime"]] == list(range(40))
    assert max(b.rows.height for b in joined) <= 20
    assert len(joined) < len(batches)
    assert joined[-1].end == batches[-1].end
    # A log that hands over slowly is not waited for.
    assert len(list(gathered(iter(batches), clock=SYSTEM, seconds_max=-1.0))) == len(batches)


@pytest.mark.parametrize(("rows_max", "commits"), [(10**6, 1), (400, 2), (0, 6)])
def test_fault_38_more_entities_than_a_worker_holds_are_committed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_max: int, commits: int
) -> None:
    """FAULTS 38: what a bootstrap holds is bounded in entities; its values do not depend on it."""
    monkeypatch.setattr("fs_notebook.worker.held.ROWS_MAX", rows_max)
    log: Any = EmbeddedLog(tmp_path / "ledger")
    log.create(STREAM)
    for first in range(0, 1_200, 200):
        append(log, read_events(first, 200, users=900))
    store = MemoryStore()
    sql = "SELECT user, SUM(readtime) AS total, COUNT(*) AS reads FROM read_events GROUP BY user"
    worker = Worker(definition(sql), log, store)
    put: list[int] = []
    commit, read = store.commit, log.read

    def counted(lease: Any, *, puts: Any, **options: Any) -> Any:
        put.append(len(puts))
        return commit(lease, puts=puts, **options)

    store.commit = counted  # type: ignore[method-assign]
    log.read = lambda *given, **options: read(*given, **options | {"rows_max": 200})
    monkeypatch.setattr("fs_notebook.worker.loop.gathered", lambda batches, clock: batches)
    run_until_caught_up(worker, log, store, worker.shard)
    assert verify(definition(sql), 0, log, store, now_us=SYSTEM.now_us()).ok
    state = store.state(worker.shard)
    assert state is not None
    assert (state.info["events"], state.info["entities"]) == (1_200, 900)
    # What is full is committed at once, with no more in it than one batch beyond the bound.
    written = [n for n in put if n]
    assert len(written) == commits
    assert max(written) <= max(rows_max + 200, 200)
    log.close()


def test_fault_07_an_idle_worker_notices_a_store_that_went_back_in_time(log: Any) -> None:
    """FAULTS 7: state and position went back together; what came since is folded again."""
    append(log, read_events(0, 20))
    store = MemoryStore()
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    earlier = store.copy()
    append(log, read_events(20, 20))
    end = log.end(STREAM.name)
    gone_back: list[bool] = []

    def stop() -> bool:
        state = store.state(worker.shard)
        caught_up = state is not None and state.cut == end and state.info["phase"] == "live"
        if caught_up and not gone_back:
            gone_back.append(True)
            store.restore(earlier)
            return False
        return caught_up

    worker._should_stop = stop
    worker.run()
    state = store.state(worker.shard)
    assert gone_back
    assert state is not None
    assert state.info["events"] == 40
    assert verify(definition(), 1, log, store, now_us=SYSTEM.now_us()).ok


def test_a_worker_that_is_not_wanted_does_not_build_again_what_was_dropped(log: Any) -> None:
    append(log, read_events(0, 20))
    store = MemoryStore()
    worker = Worker(definition(), log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    store.drop(worker.shard)
    worker._should_stop = lambda: False
    worker._is_wanted = lambda: False
    claim = store.claim

    def dropped_after(*args: Any, **options: Any) -> Any:
        lease = claim(*args, **options)
        store.drop(worker.shard)
        return lease

    store.claim = dropped_after  # type: ignore[method-assign]
    worker.run()
    assert store.state(worker.shard) is None
