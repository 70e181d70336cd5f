"""An interrupt stops work at a place that is told, and leaves nothing half done."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook import sources
from fs_notebook.errors import Interrupted
from fs_notebook.processes import interrupts_held
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.broker import Broker
from tests.support.redis import RedisServer
from tests.support.sessions import BEGIN, SUM_SQL, read_events


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


done: list[int] = []


def held(*steps: Callable[[], object]) -> None:
    """Take `steps` in a block that holds interrupts; `done` has those that were taken."""
    with interrupts_held():
        for number, step in enumerate(steps):
            step()
            done.append(number)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    done.clear()
    former = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is former


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    with pytest.raises(KeyboardInterrupt):
        held(interrupt, int)
    assert done == [0, 1]


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt):
        held(interrupt, interrupt, int)
    assert done == [0]


def test_an_error_of_the_block_is_not_hidden_by_an_interrupt() -> None:
    with pytest.raises(ZeroDivisionError):
        held(interrupt, lambda: 1 / 0)


@pytest.mark.parametrize("once", [True, False])
def test_an_interrupted_upload_says_what_is_stored(
    embedded_session: Session, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    """An interrupt between storing a part and noting it would store the part twice."""
    monkeypatch.setattr(sources, "UPLOAD_ROWS_MAX", 100)
    log, append = embedded_session.log, embedded_session.log.append
    calls: list[int] = []

    def interrupted(stream: Any, rows: pl.DataFrame, **options: Any) -> Any:
        end = append(stream, rows, **options)
        if stream.name == "read_events":
            calls.append(rows.height)
            if len(calls) == 2:
                interrupt()
        return end

    monkeypatch.setattr(log, "append", interrupted)
    rows = pl.DataFrame(read_events(0, 350))
    with pytest.raises(Interrupted, match="200 of 350 events are in 'read_events'") as caught:
        embedded_session.upload(rows, "read_events", time="ts", once=once)
    if once:
        assert "it goes on from there" in str(caught.value)
        assert embedded_session.upload(rows, "read_events", once=True).rows == 150
    else:
        assert "append the rest, from row 200 on" in str(caught.value)
        embedded_session.upload(rows[200:], "read_events")
    assert calls == [100, 100, 100, 50]
    assert embedded_session.feature("reading_time", SUM_SQL).events == 350


def test_an_interrupted_promotion_goes_on_in_the_background(embedded_session: Session) -> None:
    embedded_session.upload(read_events(0, 10), "read_events", time="ts")
    embedded_session.define("reading_time", SUM_SQL)

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the worker of 'reading_time' v1 goes on"):
        embedded_session.promote("reading_time", on_progress=stop)
    assert embedded_session.promote("reading_time").state == "live"


REPLAYING = """
import sys, threading
from pathlib import Path
import psutil
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection

session = Session(Connection.from_json(sys.argv[1]))
threads = threading.active_count()

def told(progress):
    if progress.events:
        print("begun", flush=True)

try:
    session.preview("reading_time", on_progress=told)
except KeyboardInterrupt:
    print("stopped", flush=True)
# The kernel goes on, and nothing of what was given up does.
print([p for p in psutil.Process().children() if "reader_process" in " ".join(p.cmdline())])
print(threading.active_count() - threads, list(Path(session.connection.home).rglob("*.part")))
print(session.preview("reading_time").events)
session.close()
"""


def line_of(process: subprocess.Popen[bytes], seconds_max: float) -> str:
    """Return the next line that a process writes; fail if it does not come in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds_max)
    assert ready, f"nothing for {seconds_max} s"
    return process.stdout.readline().decode().strip()


@pytest.mark.pulsar
@pytest.mark.redis
@pytest.mark.timeout(240)
def test_fault_35_an_interrupt_in_the_middle_of_a_long_replay_stops_it(
    broker: Broker, own_redis: RedisServer, tmp_path: Path
) -> None:
    place = Connection(
        tmp_path / "home", f"{broker.url}/{broker.namespace()}", own_redis.url, broker.admin_url
    )
    count = 600_000
    with closing(Session(place, actor="tester")) as session:
        session.upload(read_events(0, 10), "read_events", time="ts")
        session.define("reading_time", SUM_SQL)
        number = pl.int_range(10, count, dtype=pl.Int64, eager=True)
        rows = pl.DataFrame({"readtime": number}).select(
            ("u" + (pl.col("readtime") % 7).cast(pl.String)).alias("user"),
            "readtime",
            (pl.lit(BEGIN) + pl.duration(seconds="readtime")).alias("ts"),
        )
        # A message each, which takes longest to read.
        session.log.append(replace(session.source("read_events"), json_only=True), rows)
    command = [sys.executable, "-c", REPLAYING, place.to_json()]
    # Without a buffer, since what lies in one is not seen by `select`.
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            assert line_of(process, 60) == "begun"
            process.send_signal(signal.SIGINT)
            heard = line_of(process, 5)
            while heard == "begun":
                heard = line_of(process, 5)
            assert heard == "stopped"
            left, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert left.decode().splitlines() == ["[]", "0 []", str(count)]
    assert process.returncode == 0
