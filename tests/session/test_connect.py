"""Connecting: what is remembered, what is refused, and that nothing is half done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import polars as pl
import psutil
import pytest
from click.testing import CliRunner

import fs_notebook as fs
from fs_notebook import current
from fs_notebook.cli import main
from fs_notebook.clock import SYSTEM
from fs_notebook.errors import UnreachableError, UsageError
from fs_notebook.log.access import Access
from fs_notebook.online.access import RedisAccess
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.redis import RedisServer, make_server, remove_server, system_server
from tests.support.sessions import BEGIN, SUM_SQL, read_events, stop_all


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "home"
    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(place))
    monkeypatch.setattr(current, "_current", None)
    yield place
    if current._current is not None:
        current._current.close()
    stop_all(Connection(place))


def test_the_first_use_connects_to_the_embedded_pair(home: Path) -> None:
    assert fs.streams() == []
    assert (home / "ledger").is_dir()


def test_a_connection_is_remembered_privately(home: Path, own_redis: RedisServer) -> None:
    fs.connect("embedded:", redis=own_redis.url)
    file = home / "connection.json"
    assert file.stat().st_mode & 0o077 == 0
    assert Connection.remembered(home).online == own_redis.url
    again = fs.connect()
    assert again.connection.online == own_redis.url
    assert fs.connect("embedded:").connection.online == "embedded:"


def test_the_environment_names_what_nobody_said(
    home: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FS_NOTEBOOK_REDIS", own_redis.url)
    assert fs.connect().connection == Connection(home, "embedded:", own_redis.url)
    # What is said counts, and then all of it.
    assert fs.connect("embedded:").connection == Connection(home)
    monkeypatch.delenv("FS_NOTEBOOK_REDIS")
    assert fs.connect().connection == Connection(home)


def test_the_package_runs_as_the_command_line(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fs_notebook", "streams"], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "no streams yet"


@pytest.mark.parametrize(
    ("log", "redis", "error", "names"),
    [
        ("pulsar://127.0.0.1:1", None, UnreachableError, "127.0.0.1:1"),
        ("pulsar://127.0.0.1:1/one", None, UsageError, "tenant/namespace"),
        (None, "redis://127.0.0.1:1/0", UnreachableError, "127.0.0.1:1"),
        ("kafka://127.0.0.1:9092", None, UsageError, "pulsar://"),
        (None, "memcached://127.0.0.1", UsageError, "redis://"),
    ],
)
@pytest.mark.timeout(60)
def test_what_cannot_be_reached_leaves_the_session_as_it_was(
    home: Path, log: str | None, redis: str | None, error: type[Exception], names: str
) -> None:
    before = fs.connect()
    with pytest.raises(error) as caught:
        fs.connect(log, redis=redis)
    assert names in str(caught.value)
    assert current.get_session() is before
    assert Connection.remembered(home) == Connection(home)
    assert fs.streams() == []


def test_a_broker_that_nobody_runs_is_told_at_once(home: Path) -> None:
    begun_s = SYSTEM.monotonic_s()
    with pytest.raises(UnreachableError, match="does not answer") as caught:
        fs.connect("pulsar://127.0.0.1:1,127.0.0.1:2")
    assert "127.0.0.1:2: " in str(caught.value.found)
    assert SYSTEM.monotonic_s() - begun_s < 4


def test_a_broker_that_does_not_answer_leaves_no_redis_behind(home: Path) -> None:
    with pytest.raises(UnreachableError):
        fs.connect("pulsar://127.0.0.1:1")
    assert not (home / "redis").exists()


def test_a_password_is_shown_nowhere(home: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        fs.connect("embedded:", redis="redis://:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in str(caught.value)


PASSWORD = "hunter2-is-not-to-be-found"


def test_a_password_is_kept_nowhere_but_in_the_private_connection(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in a ledger, a log, a command line, a cache, a display or a message."""
    server = make_server(system_server())
    server.start()
    server.client().config_set("requirepass", PASSWORD)
    session = None
    try:
        session = fs.connect("embedded:", redis=server.url.replace("://", f"://:{PASSWORD}@"))
        session.upload(read_events(0, 70), "read_events")
        session.define("reading_time", SUM_SQL)
        session.preview("reading_time")
        session.promote("reading_time")
        rows = [{"user": "u1", "t": BEGIN + timedelta(days=1), "y": n % 2} for n in range(4)]
        made = session.training_set(pl.DataFrame(rows), ["total_readtime"], name="kept")
        shown = [session, *session.status(), made, session.serve("total_readtime", user="u1")]
        texts = [repr(one) for one in shown]
        texts += [one._repr_html_() for one in shown if hasattr(one, "_repr_html_")]
        texts += [" ".join(p.cmdline()) for p in _processes()]
        said = capsys.readouterr()
        assert not any(PASSWORD in text for text in [*texts, said.out, said.err])
        holding = {
            path.name
            for path in home.rglob("*")
            if path.is_file() and PASSWORD.encode() in path.read_bytes()
        }
        assert holding == {"connection.json"}
        assert (home / "connection.json").stat().st_mode & 0o077 == 0
    finally:
        if session is not None:
            session.stop()
        remove_server(server)


def _processes() -> list[psutil.Process]:
    """Return this process's and all that were started for its sessions."""
    found = [psutil.Process()]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "fs_notebook" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def ring() -> Iterator[dict[tuple[str, str], str]]:
    """A keyring in memory, in place of the machine's."""
    import keyring
    from keyring.backend import KeyringBackend

    held: dict[tuple[str, str], str] = {}

    class Ring(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def get_password(self, service: str, username: str) -> str | None:
            return held.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            held[service, username] = password

    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    yield held
    keyring.set_keyring(before)


def test_a_secret_may_lie_in_the_keyring(
    ring: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ring["team/redis", "worker"] = PASSWORD
    monkeypatch.setenv("FS_NOTEBOOK_REDIS_PASSWORD", "keyring:team/redis/worker")
    assert RedisAccess.from_environment().password == PASSWORD
    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_TOKEN", "keyring:team/redis/worker")
    assert Access.from_environment().token == PASSWORD
    for odd in ("keyring:team/redis/other", "keyring:", "keyring:worker"):
        monkeypatch.setenv("FS_NOTEBOOK_REDIS_PASSWORD", odd)
        with pytest.raises(UsageError, match="no such entry as FS_NOTEBOOK_REDIS_PASSWORD"):
            RedisAccess.from_environment()


def test_the_command_line_says_the_same(home: Path) -> None:
    session = fs.connect()
    session.upload(read_events(0, 70), "read_events")
    session.define("reading_time", SUM_SQL, tags=["reading"])

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == code, done.output
        return done.output

    assert "reading_time (user): draft; total_readtime BIGINT" in run("catalog", "reading")
    assert "user VARCHAR" in run("streams")
    assert "reading_time v1 live (serving)" in run("promote", "reading_time")
    assert "lag 0" in run("status")
    assert "0 mismatches in 7 values of 7 entities," in run("verify", "reading_time")
    sampled = run("verify", "reading_time", "--sample", "2", "--seed", "5")
    assert "0 mismatches in 2 values of 2 of 7 entities (a sample, seed 5)" in sampled
    assert "number of entities" in run("verify", "reading_time", "--sample", "0", code=1)
    assert "worker of reading_time version 1 starts" in run("logs", "reading_time")
    assert "no former version" in run("rollback", "reading_time", code=1)
    assert "did you mean 'reading_time'" in run("promote", "reading_tim", code=1)
    assert "runner stopped" in run("stop", "--no-redis")
    assert "no runner was running" in run("stop", "--no-redis")
    # What was committed is still served, and a new runner goes on.
    assert session.serve("total_readtime", user="u1")["total_readtime"] == [sum(range(1, 70, 7))]


def test_two_sessions_see_each_others_changes(home: Path) -> None:
    one, two = fs.connect(), Session(Connection(home), actor="bob")
    one.upload(read_events(0, 7), "read_events")
    one.define("reading_time", SUM_SQL)
    assert [v["name"] for v in two.features()] == ["reading_time"]
    two.define("reading_time", SUM_SQL, description="By Bob")
    assert one.view("reading_time")["actor"] == "bob"
    two.close()
