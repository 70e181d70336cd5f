"""Where a connection's runner and workers keep their lock, their logs and their last words."""

from __future__ import annotations

from pathlib import Path

from fs_notebook.worker.connection import Connection


def folder(connection: Connection) -> Path:
    """Return the folder of a connection's lock, pid and logs, made if it is not there."""
    path = connection.home / "runners" / connection.id
    path.mkdir(parents=True, exist_ok=True)
    return path


def log_path(connection: Connection, shard: str) -> Path:
    """Return where a worker's log lines go."""
    return folder(connection) / f"{shard}.log"


def failure_path(connection: Connection, shard: str) -> Path:
    """Return where a worker that cannot go on says why."""
    return folder(connection) / f"{shard}.failure.json"
