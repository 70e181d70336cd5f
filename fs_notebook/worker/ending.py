"""Stopping what a connection runs in the background on this machine."""

from __future__ import annotations

from fs_notebook.online.connect import EMBEDDED
from fs_notebook.online.embedded import stop_embedded
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import stop_runner


def stop_background(connection: Connection, *, redis: bool = True) -> tuple[str, ...]:
    """Stop the runner with its workers and, if `redis`, the embedded Redis; say what was stopped.

    Nothing is lost: state and positions are on disk, and connecting starts them again.
    """
    told = ["runner stopped" if stop_runner(connection) else "no runner was running"]
    if redis and connection.online == EMBEDDED:
        stopped = stop_embedded(connection.home)
        told.append("embedded Redis stopped" if stopped else "no embedded Redis was running")
    return tuple(told)
