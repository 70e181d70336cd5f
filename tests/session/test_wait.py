"""`wait`: one reads one's own writes, and is told why if that takes too long or cannot be."""

from __future__ import annotations

import os
import re
import signal

import polars as pl
import pytest
from click.testing import CliRunner
from IPython.core.interactiveshell import InteractiveShell

from fs_notebook import waiting
from fs_notebook.cli import main
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import FeatureStoreError, Interrupted, NotCaughtUp, UsageError
from fs_notebook.session import Session
from fs_notebook.worker.runner import stop_runner
from tests.jupyter.test_completion import completed
from tests.jupyter.test_magics import run, shell, shows
from tests.support.sessions import (
    BEGIN,
    SUM_SQL,
    connection,
    embedded_session,
    read_events,
    session,
    until,
)

__all__ = ["connection", "embedded_session", "session", "shell"]
pytestmark = pytest.mark.timeout(120)


def defined(s: Session) -> Session:
    s.upload(pl.DataFrame(read_events(0, 30)), "read_events", time="ts")
    s.define("reading_time", SUM_SQL)
    return s


@pytest.fixture
def live(embedded_session: Session) -> Session:
    """A session with a feature that a worker keeps current."""
    defined(embedded_session).promote("reading_time")
    return embedded_session


def total(s: Session) -> int:
    return int(s.serve("total_readtime", user="u1")["total_readtime"][0])


def append(s: Session, readtime: int) -> None:
    s.append([{"user": "u1", "readtime": readtime, "ts": BEGIN}], "read_events")


def worker_pid(s: Session) -> int:
    return int(until(lambda: s.status("reading_time")[0].pid, what="the worker's report"))


def test_what_was_written_before_the_call_is_served_after_it(session: Session) -> None:
    """On each pair of ledger and store, from a promotion on that nobody waited for."""
    s = defined(session)
    s.promote("reading_time", wait=False)
    done = s.wait("reading_time")
    assert (done.name, done.version) == ("reading_time", 1)
    expected = sum(e["readtime"] for e in read_events(0, 30) if e["user"] == "u1")
    assert total(s) == expected
    for n in range(1, 6):
        append(s, n)
        done = s.wait("total_readtime")
        expected += n
        assert total(s) == expected
        assert done.cuts == (("read_events", s.log.end("read_events")),)
    assert re.fullmatch(
        r"reading_time v1 has folded read_events up to \S+ \(\d+\.\d\d s\)", repr(done)
    )


def test_a_derived_feature_waits_for_what_it_is_derived_from(live: Session) -> None:
    s = live
    s.define("many", "SELECT user, COUNT(*) AS reads FROM read_events GROUP BY user")
    s.define("mean", "SELECT total_readtime / reads AS mean_readtime FROM reading_time "
             "JOIN many USING (user)", entity="user")  # fmt: skip
    s.promote("mean", with_inputs=True)
    append(s, 1_000)
    assert [name for name, _ in s.wait("mean_readtime").cuts] == ["read_events"] * 2
    count = s.serve("reads", user="u1")["reads"][0]
    assert s.serve("mean_readtime", user="u1")["mean_readtime"] == [total(s) / count]
    assert total(s) > 1_000


def test_a_worker_that_stands_still_is_told_and_waited_for_again(live: Session) -> None:
    pid, before = worker_pid(live), total(live)
    os.kill(pid, signal.SIGSTOP)
    try:
        append(live, 7)
        seen: list[Progress] = []
        with pytest.raises(NotCaughtUp) as caught:
            live.wait("reading_time", timeout_s=0.2, on_progress=seen.append)
        assert "'reading_time' v1 had not caught up within 0.2 seconds" in caught.value.message
        assert "read_events at 0:0:29:0, which ends at 0:0:30:0" in str(caught.value.found)
        assert "%feature status reading_time" in str(caught.value.remedy)
        assert [p.what for p in seen[:1]] == ["catching up"]

        def interrupt(progress: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(Interrupted, match="the worker of 'reading_time' v1 goes on"):
            live.wait("reading_time", on_progress=interrupt)
    finally:
        os.kill(pid, signal.SIGCONT)
    live.wait("reading_time")
    assert total(live) == before + 7


def test_a_killed_worker_is_started_again_meanwhile(live: Session) -> None:
    before = total(live)
    os.kill(worker_pid(live), signal.SIGKILL)
    append(live, 9)
    live.wait("reading_time")
    assert total(live) == before + 9


def test_a_worker_that_cannot_go_on_says_why(live: Session) -> None:
    live.append([{"user": "u1", "readtime": 2**62, "ts": BEGIN}] * 2, "read_events")
    with pytest.raises(FeatureStoreError, match="cannot go on") as caught:
        live.wait("reading_time")
    assert "64 bits" in str(caught.value.found)
    assert "fs-notebook logs reading_time" in str(caught.value.remedy)


def test_without_any_worker_nobody_waits_long(
    live: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_runner(live.connection)
    monkeypatch.setattr(waiting, "STOPPED_S_MAX", 0.1)
    append(live, 3)
    until(lambda: live.status("reading_time")[0].state == "stopped", what="the report to be gone")
    with pytest.raises(FeatureStoreError, match="No worker keeps 'reading_time' v1 current"):
        live.wait("reading_time")


def test_there_must_be_something_to_wait_for(embedded_session: Session) -> None:
    s = defined(embedded_session)
    with pytest.raises(UsageError, match="never promoted"):
        s.wait("reading_time")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="more than 0 seconds"):
            s.wait("reading_time", timeout_s=wrong)
    s.promote("reading_time")
    s.define("reading_time", SUM_SQL.replace("SUM", "MAX"))
    s.promote("reading_time")
    assert [s.wait("reading_time", version=n).version for n in (1, 2)] == [1, 2]
    s.retire("reading_time", 1)
    with pytest.raises(UsageError, match="not kept current"):
        s.wait("reading_time", version=1)


def test_the_magic_and_the_command_wait_too(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events --time ts")
    shows(shell, f"%%feature reading_time --entity user\n{SUM_SQL}")
    assert "%feature wait reading_time" in completed(shell, "%feature wait re|")
    assert "fs.wait" in completed(shell, "fs.wai|")
    assert "%feature wait reading_time" in shows(shell, "%feature help wait")
    result, shown = run(shell, "%feature wait reading_time")
    assert not result.success
    assert "never promoted" in shown.stdout + shown.stderr
    shows(shell, "%feature promote reading_time")
    told = shows(shell, "%feature wait total_readtime --timeout 30")
    assert "reading_time v1 has folded read_events up to 0:0:99:0" in told
    done = CliRunner().invoke(main, ["wait", "reading_time", "--timeout", "30"])
    assert done.exit_code == 0
    assert "reading_time v1 has folded read_events" in done.output
