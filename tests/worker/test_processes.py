"""How processes end, and how it is known that they have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from fs_notebook.processes import ended, stops_heard
from tests.support.sessions import until


def test_one_that_nobody_has_taken_note_of_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seen = psutil.Process(process.pid)
        assert ended([seen], seconds_max=0.05) == [seen]
        os.kill(process.pid, signal.SIGKILL)
        # It is not waited for: until then the system keeps it, as some keep all for a second.
        until(lambda: seen.status() == psutil.STATUS_ZOMBIE)
        assert ended([seen], seconds_max=5.0) == []
        assert process.wait() == -signal.SIGKILL
        assert ended([seen], seconds_max=0.0) == []


def test_what_was_said_is_written_out_before_the_end() -> None:
    code = (
        "import logging, sys; from fs_notebook.processes import exit_now;"
        "logging.basicConfig(); logging.warning('ended well');"
        "sys.stdout = open(1, 'w', buffering=4096); print('done', end=''); exit_now(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (3, "done")
    assert "ended well" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_means_what_it_did_once_it_was_heard(number: signal.Signals) -> None:
    former, heard = signal.getsignal(number), []

    def interrupted() -> None:
        with stops_heard(lambda: heard.append(number)):
            signal.raise_signal(number)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert heard == [number]
    assert signal.getsignal(number) is former


@pytest.mark.parametrize("module", ["process", "runner"])
def test_it_starts_without_what_only_definitions_need(module: str) -> None:
    code = (
        f"import sys, fs_notebook.worker.{module};"
        "print(*sorted({'sqlglot', 'sklearn', 'altair', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
