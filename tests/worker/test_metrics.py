"""The metrics of a runner: fetched over HTTP, read by a parser of their format."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from fs_notebook.cli import main
from fs_notebook.errors import UnreachableError, UsageError
from fs_notebook.jupyter.display import StatusTable
from fs_notebook.model.card import bytes_text
from fs_notebook.online.memory import MemoryStore
from fs_notebook.position import START
from fs_notebook.session import Session
from fs_notebook.testing import SimulatedLog
from fs_notebook.testing.clock import BEGIN_US, SimulatedClock
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.metrics import (
    Watched,
    WorkerMetrics,
    lag_seconds,
    metrics_served,
    parse_address,
)
from fs_notebook.worker.sizes import state_bytes
from tests.support.sessions import SUM_SQL, read_events, until
from tests.worker.test_handover import STREAM, definition, run_until_caught_up

READING = {"feature": "reading_time", "version": "1"}
RUNNER = "import sys; from fs_notebook.cli import main; main(sys.argv[1:])"


def fetched(url: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples of each name, with their labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200
        text = answer.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def value(samples: dict[str, Any], name: str, **labels: str) -> float | None:
    """Return the only sample of the name that has these labels, None if there is none."""
    found = [v for of, v in samples.get(f"fs_notebook_{name}", ()) if labels.items() <= of.items()]
    assert len(found) <= 1
    return found[0] if found else None


@contextmanager
def runner_of(home: Path, *options: str) -> Iterator[Path]:
    """Run `fs-notebook runner` in the foreground, as systemd would; gives its log."""
    log = home.parent / "runner.log"
    command = [sys.executable, "-c", RUNNER, "--home", str(home), "runner", *options]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=dict(os.environ))
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def url_in(log: Path) -> str:
    """Return where the runner says that its metrics are."""

    def look() -> str | None:
        lines = [line for line in log.read_text().splitlines() if "metrics at " in line]
        return lines[0].rpartition(" ")[2] if lines else None

    return str(until(look, what="the runner to serve its metrics"))


def test_a_runner_tells_of_its_workers(embedded_session: Session) -> None:
    session = embedded_session
    events = [*read_events(0, 100), {**read_events(0, 1)[0], "user": None}]
    session.upload(events, "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    with runner_of(session.connection.home, "--metrics", "127.0.0.1:0") as log:
        url = url_in(log)
        assert value(fetched(url), "store_up") == 1
        session.promote("reading_time")
        session.append(read_events(100, 5), "read_events")

        def settled() -> Any:
            samples = fetched(url)
            wanted = {"events_total": 106, "lag_messages": 0, "serving": 1}
            live = value(samples, "worker_state", **READING, state="live") == 1
            there = all(value(samples, n, **READING) == v for n, v in wanted.items())
            return samples if live and there else None

        samples = until(settled, what="the appended events to be in the metrics")
        assert value(samples, "null_keys_total", **READING) == 1
        assert value(samples, "late_total", **READING) == 0
        assert value(samples, "dead_letters_total", **READING) == 0
        assert value(samples, "entities", **READING) == 7
        assert value(samples, "lag_seconds", **READING) == 0
        assert value(samples, "worker_state", **READING, state="failing") == 0
        assert value(samples, "worker_restarts_total", **READING) == 0
        rate = value(samples, "events_per_second", **READING)
        assert rate is not None
        assert rate >= 0
        until(
            lambda: (value(fetched(url), "state_bytes", **READING) or 0) > 7 * len("u1"),
            what="the size of the state",
        )
        (status,) = session.status("reading_time")
        assert status.state_bytes is not None
        assert 7 * len("u1") < status.state_bytes < 1_000
        assert f"state {status.state_bytes} bytes" in repr(status)
        assert f"{status.state_bytes} bytes" in StatusTable([status]).html()
        total_s = value(samples, "commit_seconds_sum", **READING)
        assert total_s is not None
        assert 0 < total_s < 60

        (status,) = session.status("reading_time")
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        until(
            lambda: value(fetched(url), "worker_restarts_total", **READING) == 1,
            what="the restart to be counted",
        )
    assert session.serve("total_readtime", user="u1")["total_readtime"] != [None]


def test_late_events_and_dead_letters_are_counted() -> None:
    log, store = SimulatedLog(), MemoryStore()
    log.create(STREAM)
    windowed = definition("""
        SELECT user, COUNT(*) OVER w AS recent FROM read_events
        WINDOW w AS (PARTITION BY user ORDER BY ts
                     RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)
    """)
    payloads = [
        b'{"user": "u1", "readtime": 1, "ts": "2024-01-01T12:00:00Z"}',
        b'{"user": "u1", "readtime": 1, "ts": "2024-01-01T11:00:00Z"}',
        b'{"user": "u1", "readtime": ',
        b'{"user": "u1", "readtime": "many", "ts": "2024-01-01T12:00:00Z"}',
    ]
    log.send(STREAM.name, payloads)
    worker = Worker(windowed, log, store)
    run_until_caught_up(worker, log, store, worker.shard)
    watched = Watched("reading_time", 1, worker.shard, 7, True)
    with metrics_served(WorkerMetrics(store, lambda: [watched]), "127.0.0.1:0") as url:
        samples = fetched(url)
    assert value(samples, "events_total", **READING) == 2
    assert value(samples, "late_total", **READING) == 1
    assert value(samples, "dead_letters_total", **READING) == 2
    assert value(samples, "state_bytes", **READING) is None


def test_the_size_of_a_state_is_counted_or_estimated_from_a_sample() -> None:
    store = MemoryStore()
    assert state_bytes(store, "s") is None
    lease = store.claim("s", fingerprint="f")
    assert state_bytes(store, "s") == 0
    puts = {b"%04d" % n: b"x" * (90 + n % 13) for n in range(500)}
    lease = store.commit(lease, cut=START, puts=puts, info={"entities": 500})
    taken = sum(len(k) + len(v) for k, v in puts.items())
    assert state_bytes(store, "s", sample=len(puts) + 1) == taken
    assert state_bytes(store, "s", sample=100) == pytest.approx(taken, rel=0.05)
    # Of a state whose entities were not counted nothing is made up.
    store.commit(lease, cut=START, puts={}, info={})
    assert state_bytes(store, "s", sample=100) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (12_340, "12.3 kB"), (5 * 10**12, "5000.0 GB")],
)
def test_bytes_in_words(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_two_runners_do_not_share_a_port(embedded_session: Session) -> None:
    home = embedded_session.connection.home
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(main, ["--home", str(home), "runner", "--metrics", address])
    assert done.exit_code == 1
    assert f"cannot be served at {address}" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("text", ["", "9109", ":9109", "host:", "host:x", "host:99999", "host:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9109", ("127.0.0.1", 9109)), ("[::1]:0", ("::1", 0)), (" a.b:1 ", ("a.b", 1))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


def test_a_silent_store_is_told_and_the_rest_goes_on() -> None:
    class Silent(MemoryStore):
        def state(self, shard: str) -> Any:
            raise UnreachableError("silent")

    watched = Watched("reading_time", 1, "reading_time@1", 7, True, restarts=3)
    with metrics_served(WorkerMetrics(Silent(), lambda: [watched]), "127.0.0.1:0") as url:
        samples = fetched(url)
    assert value(samples, "store_up") == 0
    assert value(samples, "worker_restarts_total", **READING) == 3
    assert value(samples, "worker_state", **READING, state="live") is None
    assert value(samples, "events_total", **READING) is None


def test_names_are_escaped_and_lag_is_by_the_newest_folded_event() -> None:
    clock, store = SimulatedClock(), MemoryStore()
    shard = 'a"b\\c\nd'
    lease = store.claim(shard, fingerprint="f")
    info = {"published": BEGIN_US - 90_000_000, "entities": 2}
    store.commit(lease, cut=START, puts={}, info=info)
    store.heartbeat(shard, {"state": "live", "pid": 7, "lag": 4}, ttl_seconds=60)
    watched = Watched(shard, 2, shard, 7, False)
    collector = WorkerMetrics(store, lambda: [watched], clock=clock)
    with metrics_served(collector, "127.0.0.1:0") as url:
        samples = fetched(url)
    labels = {"feature": shard, "version": "2"}
    assert value(samples, "lag_seconds", **labels) == 90
    assert value(samples, "lag_messages", **labels) == 4
    assert value(samples, "serving", **labels) == 0


@pytest.mark.parametrize(
    ("lag", "published_us", "seconds"),
    [(0, None, 0.0), (0, 1, 0.0), (3, None, None), (None, 1, None), (3, 4_000_000, 6.0),
     (3, 11_000_000, 0.0)],
)  # fmt: skip
def test_lag_in_seconds(lag: int | None, published_us: int | None, seconds: float | None) -> None:
    assert lag_seconds(lag, published_us, 10_000_000) == seconds


@pytest.mark.parametrize(
    ("watched", "health", "state"),
    [
        (Watched("a", 1, "s", 7, True), {"pid": 7, "state": "live"}, "live"),
        (Watched("a", 1, "s", 7, True), {"pid": 6, "state": "live"}, "starting"),
        (Watched("a", 1, "s", 7, True), {}, "starting"),
        (Watched("a", 1, "s", None, True), {"pid": 6, "state": "live"}, "stopped"),
        (Watched("a", 1, "s", None, True, failures=2), {"pid": 6, "state": "live"}, "failing"),
        (Watched("a", 1, "s", None, True, elsewhere=True), {"pid": 6, "state": "live"}, "live"),
        (Watched("a", 1, "s", None, True, elsewhere=True), {}, "stopped"),
    ],
)
def test_states(watched: Watched, health: dict[str, Any], state: str) -> None:
    assert watched.state(health) == state
