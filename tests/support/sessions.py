"""Sessions on each pair of ledger and store, everything of theirs stopped at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fs_notebook.online.embedded import stop_embedded
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid, stop_runner

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SUM_SQL = "SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user;"


def read_events(first: int, count: int, users: int = 7) -> list[dict[str, Any]]:
    """Return `count` reads numbered from `first`, a minute apart."""
    return [
        {"user": f"u{n % users}", "readtime": n, "ts": BEGIN + timedelta(minutes=n)}
        for n in range(first, first + count)
    ]


def until(condition: Callable[[], Any], *, seconds_max: float = 30.0, what: str = "") -> Any:
    """Wait for a true value of `condition` and return it; fail, saying what was awaited."""
    end = time.monotonic() + seconds_max
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds_max} s for {what or condition}"
        time.sleep(0.01)


def stop_all(connection: Connection) -> None:
    """Stop whatever a test left of a connection's processes."""
    for path in sorted((connection.home / "runners").glob("*/*.log")):
        # pytest shows what is printed here if the test failed.
        print(f"{path.name}:\n" + "\n".join(path.read_text().splitlines()[-15:]))
    pid = runner_pid(connection)
    children = psutil.Process(pid).children(recursive=True) if pid is not None else []
    stop_runner(connection)
    for child in children:
        if child.is_running():
            os.kill(child.pid, signal.SIGKILL)
    stop_embedded(connection.home)


@pytest.fixture(
    params=["embedded", pytest.param("pulsar", marks=[pytest.mark.pulsar, pytest.mark.redis])]
)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """The embedded pair, then a real broker with a real Redis server."""
    home = tmp_path / "home"
    if request.param == "embedded":
        place = Connection(home)
    else:
        broker = request.getfixturevalue("broker")
        redis = request.getfixturevalue("own_redis")
        namespace = broker.namespace()
        place = Connection(home, f"{broker.url}/{namespace}", redis.url, broker.admin_url)
    yield place
    stop_all(place)


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    """A session on each pair in turn."""
    session = Session(connection, actor="tester")
    yield session
    session.close()


@pytest.fixture
def embedded_session(tmp_path: Path) -> Iterator[Session]:
    """A session on the embedded pair only."""
    place = Connection(tmp_path / "home")
    session = Session(place, actor="tester")
    yield session
    session.close()
    stop_all(place)
