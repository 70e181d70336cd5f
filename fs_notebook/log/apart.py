"""Partitions read in processes of their own: where one takes long, the other cores help.

The client hands over messages one by one, and no two threads of a process can take them at once.
A process costs a second to start, so that only what takes longer than that is worth one;
it is kept for the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Generator
from typing import IO, Any, cast

import polars as pl

from fs_notebook import errors
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.log.cursors import Part
from fs_notebook.log.lanes import Stopped
from fs_notebook.log.messages import Decoded
from fs_notebook.log.protocol import DeadLetter, Stream
from fs_notebook.log.reader_process import (
    DONE,
    EVENT_US,
    EVENTS,
    HEAD,
    PLACES,
    PUBLISHED_US,
)
from fs_notebook.position import Position

LOOK_S = 0.1
_PIPE_BYTES = 2**20


class _Process:
    """One reading process; whoever has it is alone with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fs_notebook.log.reader_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, task: dict[str, Any]) -> bool:
        """Give it a task; False if it has ended meanwhile."""
        asked = cast(IO[bytes], self._process.stdin)
        try:
            asked.write(json.dumps(task).encode() + b"\n")
            asked.flush()
        except OSError:
            return False
        return self.alive

    def answer(self, stopped: Stopped) -> tuple[bytes, Any, bytes] | None:
        """Return its next frame, or None once nobody wants it any more."""
        head = self._read(HEAD.size, stopped)
        if head is None:
            return None
        kind, noted, size = HEAD.unpack(head)
        note, body = self._read(noted, stopped), self._read(size, stopped)
        if note is None or body is None:
            return None
        return kind, json.loads(note), body

    def _read(self, count: int, stopped: Stopped) -> bytes | None:
        parts: list[bytes] = []
        left = count
        while left:
            if stopped():
                return None
            if not select.select([self._out], [], [], LOOK_S)[0]:
                continue
            part = os.read(self._out, min(left, _PIPE_BYTES))
            if not part:
                raise UnreachableError(
                    "A process that read a partition has ended.",
                    found=f"exit code {self._process.wait()}",
                    remedy="read again; FS_NOTEBOOK_READERS=0 reads without such processes",
                )
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast(IO[bytes], pipe).close()


class ReaderProcesses:
    """Processes that read partitions, kept for the next reading.

    Parameters
    ----------
    url, admin_url
        Of the broker. Secrets are in the environment, which the processes have as well.
    usable
        Whether a process of its own would read as this one does.
    """

    def __init__(self, url: str, admin_url: str | None, *, usable: bool) -> None:
        self._place = [url, admin_url]
        self._usable = usable
        self._idle: list[_Process] = []
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many there may be beside this process: the other cores, or what is said."""
        if not self._usable:
            return 0
        told = os.environ.get("FS_NOTEBOOK_READERS", "")
        return int(told) if told.isdigit() else min((os.cpu_count() or 1) - 1, 3)

    @property
    def are_ready(self) -> bool:
        """Whether one waits for work, so that none needs to be started."""
        with self._lock:
            return any(p.alive for p in self._idle) and self.count > 0

    def decoded(
        self,
        stream: Stream,
        part: Part,
        start: Position | None,
        end: Position,
        *,
        rows_max: int,
        stopped: Stopped,
    ) -> Generator[Decoded, None, None]:
        """Yield the events of one partition in (start, end], read by another process."""
        task = {
            "place": self._place, "stream": stream.to_dict(),
            "part": [part.stream, part.topic, part.partition],
            "start": None if start is None else list(start), "end": list(end),
            "rows_max": rows_max,
        }  # fmt: skip
        process = self._taken(task)
        whole = False
        try:
            while (answer := process.answer(stopped)) is not None:
                kind, note, body = answer
                if kind == EVENTS:
                    yield _made(part.partition, note, body)
                    continue
                whole = True
                if kind == DONE:
                    return
                raise _error(note)
        finally:
            self._give_back(process, whole)

    def close(self) -> None:
        """End those that wait for work."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _taken(self, task: dict[str, Any]) -> _Process:
        while True:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _Process()
            if process.ask(task):
                return process
            process.end()

    def _give_back(self, process: _Process, whole: bool) -> None:
        """Keep a process that has answered; one that is in the middle of it is ended."""
        if whole and process.alive:
            with self._lock:
                self._idle.append(process)
        else:
            process.end()


def _made(partition: int, note: dict[str, Any], body: bytes) -> Decoded:
    frame = pl.read_ipc_stream(body)
    extra = [c for c in (*PLACES, PUBLISHED_US, EVENT_US) if c in frame.columns]
    beside = {c: frame.get_column(c).to_numpy() for c in extra}
    dead = tuple(DeadLetter(Position(*p), why, bytes.fromhex(b)) for p, why, b in note["dead"])
    ledger, entry, batch = (beside[c] for c in PLACES)
    return Decoded(
        partition, frame.drop(extra), Position(*note["end"]), dead,
        lambda: (ledger, entry, batch), lambda: beside[PUBLISHED_US], lambda: beside.get(EVENT_US),
    )  # fmt: skip


def _error(told: list[Any]) -> FeatureStoreError:
    name, message, *more = told
    kind = getattr(errors, name, None) if name else None
    found, remedy = [*more, None, None][:2]
    if isinstance(kind, type) and issubclass(kind, FeatureStoreError):
        with contextlib.suppress(TypeError):
            return kind(message, found=found, remedy=remedy)
    return FeatureStoreError(message, found=found, remedy=remedy)
