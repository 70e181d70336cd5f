"""IPython in a terminal: no kernel, no HTML, and the same session from a cell to production."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fs_notebook.worker.connection import Connection
from tests.support.sessions import stop_all

READS = (
    "reads = [dict(user=f'u{n % 3}', readtime=n, ts=begin + timedelta(minutes=n))"
    " for n in range(30)]"
)
SUM = "SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user"
# What is typed → words of what is answered. Blank lines end a cell.
SAID = (
    ("%load_ext fs_notebook", ()),
    ("from datetime import datetime, timedelta, UTC", ()),
    ("begin = datetime(2024, 1, 1, tzinfo=UTC)", ()),
    (READS, ()),
    ("%feature connect", ("ledger embedded",)),
    ("%feature upload reads --stream read_events --time ts", ("30 events to read_events",)),
    (
        f"%%feature reading_time --entity user\n{SUM}\n\n",
        ("3 entities, 30 events folded", "total_readtime BIGINT"),
    ),
    ("%feature preview reading_time --last 10m", ("10 events folded",)),
    ("%feature promote reading_time", ("live v1",)),
    ("fs.serve('total_readtime', user='u1')", ("1 served", "145")),
    ("%feature verify reading_time", ("0 mismatches",)),
    ("%feature catalog reading", ("reading_time", "live v1")),
    ("%feature about reading_time", ("total_readtime", "v1")),
    ("%feature live total_readtime user=u1", ("145",)),
    (f"%%feature x\n{SUM.replace('readtime)', 'redtime)')}\n\n", ()),
    ("%feature stop", ("runner stopped",)),
)  # fmt: skip


@pytest.mark.timeout(120)
def test_a_session_in_a_terminal(tmp_path: Path) -> None:
    """What a person types, what is printed: text, with nothing of a notebook's in it."""
    env = {**os.environ, "FS_NOTEBOOK_HOME": str(tmp_path / "home"), "IPYTHONDIR": str(tmp_path),
           "TERM": "dumb", "NO_COLOR": "1"}  # fmt: skip
    typed = "\n".join(f"print('<<{n}>>')\n{cell}" for n, (cell, _) in enumerate(SAID))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor",
             "--no-confirm-exit"],
            input=f"{typed}\n", env=env, cwd=tmp_path, text=True, capture_output=True, timeout=100,
        )  # fmt: skip
    finally:
        stop_all(Connection.remembered(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    # The one mistake is one message, that points into the cell.
    assert done.stderr.startswith("UsageError: ")
    assert "did you mean 'readtime'?" in done.stderr
    assert done.stderr.rstrip().endswith("^^^^^^^")
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout
    assert "object at 0x" not in done.stdout
    assert "<div" not in done.stdout
    for n, (cell, told) in enumerate(SAID):
        _, _, rest = done.stdout.partition(f"<<{n}>>")
        answer = rest.partition("<<")[0]
        for words in told:
            assert words in answer, f"{cell}\n{answer}"
