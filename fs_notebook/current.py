"""The current session: what the magics and the package's own functions act on."""

from __future__ import annotations

import os
from pathlib import Path

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection, default_home
from fs_notebook.worker.runner import ensure_runner

LOG_VARIABLE, REDIS_VARIABLE = "FS_NOTEBOOK_LOG", "FS_NOTEBOOK_REDIS"
ADMIN_VARIABLE = "FS_NOTEBOOK_ADMIN"

_current: Session | None = None


def connect(
    log: str | None = None,
    *,
    redis: str | None = None,
    admin: str | None = None,
    home: str | Path | None = None,
    actor: str | None = None,
    clock: Clock = SYSTEM,
) -> Session:
    """Connect to a ledger and an online store, and make that the current session.

    Parameters
    ----------
    log
        ``pulsar://host:6650``; default, where `redis` is not said either: that of
        ``FS_NOTEBOOK_LOG``, else what this home was connected to last, else the embedded ledger
        (say ``"embedded:"`` to go back to it).
    redis
        ``redis://host:6379/0``; default: the embedded one, or, where `log` is not said either,
        that of ``FS_NOTEBOOK_REDIS``, else what this home was connected to last.
    admin
        Pulsar's admin address, where it is not port 8080 of the broker's host; default, where
        nothing else is said either: that of ``FS_NOTEBOOK_ADMIN``.
    home
        Where the embedded ledger, Redis, cache and logs live; default: ``FS_NOTEBOOK_HOME``.

    Raises
    ------
    UnreachableError
        If one does not answer; the former session stays current.
    """
    global _current
    place = Path(home).expanduser().absolute() if home is not None else default_home()
    if log is None and redis is None:
        log, redis = os.environ.get(LOG_VARIABLE), os.environ.get(REDIS_VARIABLE)
        admin = admin or os.environ.get(ADMIN_VARIABLE)
    connection = Connection.named(place, log, redis, admin)
    session = Session(connection, actor=actor, clock=clock)
    connection.remember()
    if session.status():
        # Versions should be running: see to it that somebody runs them.
        ensure_runner(connection, clock=clock)
    former, _current = _current, session
    if former is not None:
        former.close()
    return session


def get_session() -> Session:
    """Return the current session; the first call connects to what this home remembers."""
    return _current if _current is not None else connect()
