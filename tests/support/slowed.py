"""Worker processes whose history comes in small batches, so that a bootstrap can be watched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROWS = 50
PAUSE_SECONDS = 0.2
"""After each batch, so that some reports fall into every bootstrap."""
HELD_AFTER = 4
SITE = """
import sys
if "fs_notebook.worker.process" in sys.orig_argv:
    from tests.support.slowed import slow
    slow({gate!r})
"""


def slow(gate: str) -> None:
    """Slow this process's worker down; after some batches it waits until the file is there."""
    from fs_notebook.worker import loop

    def one_by_one(batches: Iterator[Any], **options: Any) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            yield batch
            time.sleep(PAUSE_SECONDS)
            while number == HELD_AFTER and not Path(gate).exists():
                time.sleep(PAUSE_SECONDS)

    loop.BOOTSTRAP_ROWS_MAX = ROWS
    loop.gathered = one_by_one  # type: ignore[assignment]


def slowed_workers(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Slow down the workers that are started from now on.

    Returns the file that lets them go on beyond the first batches, once it is there.
    """
    gate = folder / "go on"
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE.format(gate=str(gate)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    return gate
