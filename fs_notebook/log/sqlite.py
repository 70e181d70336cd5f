"""The embedded ledger's database file: connections, transactions, errors."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fs_notebook.clock import Clock
from fs_notebook.errors import FeatureStoreError, IntegrityError, UnreachableError, UsageError

BUSY_S_MAX = 10
_PAGE_BYTES = 16_384

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS streams (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        identity TEXT NOT NULL,
        declaration TEXT NOT NULL,
        next INTEGER NOT NULL,
        published_us INTEGER NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS batches (
        id INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        first INTEGER NOT NULL,
        n INTEGER NOT NULL,
        min_time INTEGER NOT NULL,
        max_time INTEGER NOT NULL,
        timed TEXT,
        data BLOB NOT NULL)""",
    # It covers all that decides whether a batch is wanted, so that the data of one that is
    # not is never touched.
    """CREATE UNIQUE INDEX IF NOT EXISTS batches_in_order
        ON batches (stream, first, n, min_time, max_time, timed)""",
)


class _Held:
    """One thread's connection; closed when the thread ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.pid = os.getpid()

    def __del__(self) -> None:
        # A forked child must not close what its parent still uses: SQLite's locks would go.
        if self.pid == os.getpid():
            self.connection.close()


class Database:
    """A SQLite file in WAL mode, with a connection for each thread.

    Writes use ``synchronous=FULL``: a transaction is on the disk when it is acknowledged, so
    that a power cut loses no more than a killed process does, which is nothing.
    """

    def __init__(self, file: Path, *, clock: Clock, bytes_max: int | None = None) -> None:
        self._file = file
        self._clock = clock
        self._pages_max = None if bytes_max is None else max(bytes_max // _PAGE_BYTES, 1)
        self._local = threading.local()
        self._all: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._closed = False
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnreachableError(
                f"The ledger's folder {file.parent} cannot be made.",
                found=str(error),
                remedy="choose another with FS_NOTEBOOK_HOME",
            ) from None
        with self.reading():
            pass

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give this thread's connection; SQLite's errors come out as this package's."""
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise self._explained(error) from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that nobody else can write beside.

        It is committed at the end; any error or interrupt takes all of it back.
        """
        with self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close every thread's connection."""
        self._closed = True
        for held in list(self._all):
            held.connection.close()

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise UsageError("This ledger was closed.", remedy="open it again")
        held: _Held | None = getattr(self._local, "held", None)
        if held is None or held.pid != os.getpid():
            held = _Held(self._open())
            self._local.held = held
            self._all.add(held)
        return held.connection

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._file, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            self._enter_wal(db)
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 67108864")
            db.execute("PRAGMA cache_size = -32768")
            if self._pages_max is not None:
                db.execute(f"PRAGMA max_page_count = {self._pages_max}")
            there = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not there:
                db.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    db.execute(statement)
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _enter_wal(self, db: sqlite3.Connection) -> None:
        # Entering WAL mode does not wait for another process that is just doing the same.
        until = self._clock.monotonic_s() + BUSY_S_MAX
        while True:
            try:
                if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                locked = "locked" in str(error)
                if not locked or self._clock.monotonic_s() >= until:
                    raise
                self._clock.sleep_s(0.01)

    def _explained(self, error: sqlite3.Error) -> FeatureStoreError:
        text = str(error)
        name = f"The ledger {self._file}"
        if "full" in text:
            return UnreachableError(
                f"{name} has no space left; nothing of this call was written.",
                found=text,
                remedy="free some space and do it again; what was there before is intact",
            )
        if "locked" in text or "busy" in text:
            return UnreachableError(
                f"{name} was locked by another process for {BUSY_S_MAX} s.",
                found=text,
                remedy="wait for the other's upload to end, then do it again",
            )
        if "readonly" in text:
            return UnreachableError(
                f"{name} is read-only.",
                found=text,
                remedy="make it writable, or choose another folder with FS_NOTEBOOK_HOME",
            )
        if "malformed" in text or "not a database" in text or "no such" in text:
            return IntegrityError(
                f"{name} is damaged or is no ledger.",
                found=text,
                remedy="restore it from a copy, or choose another folder with FS_NOTEBOOK_HOME",
            )
        return UnreachableError(
            f"{name} cannot be used; nothing of this call was written.",
            found=text,
            remedy="check its disk and permissions",
        )
