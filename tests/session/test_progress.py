"""How far a bootstrap has come, as session, command line and status tell it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fs_notebook import promotion
from fs_notebook.cli import main
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import Interrupted, UnreachableError
from fs_notebook.session import Session
from tests.support.sessions import SUM_SQL, read_events, until
from tests.support.slowed import slowed_workers

COUNT = 600


@pytest.fixture
def session(embedded_session: Session) -> Session:
    """A feature with some history."""
    embedded_session.upload(read_events(0, COUNT), "read_events", time="ts")
    embedded_session.define("reading_time", SUM_SQL)
    return embedded_session


@pytest.fixture
def gate(session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its worker is slow, and goes on beyond the first batches once this file is there."""
    return slowed_workers(monkeypatch, tmp_path)


def test_shares_rise_while_promote_waits(session: Session, gate: Path) -> None:
    gate.touch()
    seen: list[Progress] = []
    status = session.promote("reading_time", on_progress=seen.append)
    assert (status.state, status.events) == ("live", COUNT)
    shares = [p.share for p in seen if p.share is not None]
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 1}) >= 3
    seconds = [p.seconds for p in seen]
    assert seconds == sorted(seconds)
    assert session.verify("reading_time").ok


def test_the_command_line_shows_it_on_stderr(session: Session, gate: Path) -> None:
    def run(*words: str) -> Any:
        home = str(session.connection.home)
        done = CliRunner().invoke(main, ["--home", home, *words])
        assert done.exit_code == 0, done.output
        return done

    run("promote", "reading_time", "--no-wait")

    def percentage() -> Any:
        return re.search(r"v1 bootstrapping, ([1-9][0-9]?)%", run("status").stdout)

    until(percentage, what="a percentage in the status")
    gate.touch()
    done = run("promote", "reading_time")
    assert "reading_time v1 live (serving)" in done.stdout
    assert "%" not in done.stdout
    assert re.search(r"Bootstrapping █+░+ [1-9][0-9]?%, ", done.stderr)
    assert re.search(r"Bootstrapping: done after [0-9.,]+ s", done.stderr)
    assert run("promote", "reading_time", "--quiet").stderr == ""


def test_a_store_that_is_busy_for_a_moment_does_not_end_the_waiting(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = session.store, itertools.count()
    state = store.state

    def busy(shard: str) -> Any:
        if next(calls) in (1, 4, 5):
            raise UnreachableError("BUSY Redis is busy running a script")
        return state(shard)

    monkeypatch.setattr(store, "state", busy)
    assert session.promote("reading_time").state == "live"
    assert next(calls) > 6

    def silent(shard: str) -> Any:
        raise UnreachableError("nobody answers")

    monkeypatch.setattr(store, "state", silent)
    monkeypatch.setattr(promotion, "RETRYING_SECONDS_MAX", 0.1)
    session.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 1)"))
    with pytest.raises(UnreachableError, match="nobody answers"):
        session.promote("reading_time")


def test_an_interrupt_of_the_command_line_says_that_the_worker_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise Interrupted("the worker goes on")

    monkeypatch.setattr(Session, "promote", interrupted)
    home = str(session.connection.home)
    done = CliRunner().invoke(main, ["--home", home, "promote", "reading_time"])
    assert (done.exit_code, done.stdout) == (130, "")
    assert "the worker goes on" in done.stderr
