"""A change that another notebook makes, in a process of its own, reaches the browsers here."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import polars as pl

from fs_notebook.server.hub import CatalogHub
from fs_notebook.service import Service
from fs_notebook.session import Session
from tests.support.sessions import SUM_SQL, read_events

# Two seconds are promised; a machine that also runs other tests gets some more.
SEEN_S_MAX = 2.0 * 3

OTHER = """
import sys
from pathlib import Path
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
session = Session(Connection(Path(sys.argv[1])), actor="other")
for _ in sys.stdin:
    names = [group["name"] for group in session.features()]
    session.define(f"reading_{len(names)}", sys.argv[2].replace("total", f"total_{len(names)}"))
    print(*names, flush=True)
"""


async def test_two_notebooks_and_a_browser_see_each_others_changes(
    embedded_session: Session, jp_asyncio_loop
) -> None:
    home = embedded_session.connection.home
    embedded_session.upload(pl.DataFrame(read_events(0, 20)), "read_events", time="ts")
    changes: asyncio.Queue[list[str]] = asyncio.Queue()
    hub = CatalogHub(
        factory=lambda: Service(Session(embedded_session.connection)),
        emit=lambda revision, changed: changes.put_nowait(changed),
        log=logging.getLogger("test-hub"),
    )
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(home), SUM_SQL],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdin is not None
    assert other.stdout is not None

    async def turn() -> list[str]:
        """Let the other notebook say what it sees, and define one feature more."""
        other.stdin.write("\n")
        other.stdin.flush()
        return (await asyncio.to_thread(other.stdout.readline)).split()

    try:
        await hub.overview()
        assert await turn() == []
        async with asyncio.timeout(SEEN_S_MAX):
            assert await changes.get() == ["reading_0"]
        assert [group["name"] for group in embedded_session.features()] == ["reading_0"]
        embedded_session.define("mine", SUM_SQL.replace("SUM", "MAX"))
        async with asyncio.timeout(SEEN_S_MAX):
            assert await changes.get() == ["mine"]
        # The other process is asked at once: what was changed here is there.
        assert sorted(await turn()) == ["mine", "reading_0"]
        async with asyncio.timeout(SEEN_S_MAX):
            assert await changes.get() == ["reading_2"]
    finally:
        await hub.close()
        other.kill()
        other.communicate()
