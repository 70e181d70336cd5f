"""Following the end of a stream: every partition read as events arrive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from fs_notebook.clock import Clock
from fs_notebook.errors import FeatureStoreError, StreamChanged
from fs_notebook.log.messages import Chunk, decode, regrouped
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.protocol import Batch
from fs_notebook.log.reader import WAIT_MS, Cursors, Part, PartReader
from fs_notebook.position import Cut, Position

LINGER_MS = 2
PARTS_EVERY_S = 5.0
CHUNKS_MAX = 4


Ahead = Callable[[Part, Position | None], int]
"""Tells how many messages of a partition to fetch ahead, from a position on."""


class _Follower:
    """A thread for each partition, and the chunks that they found."""

    def __init__(self, cursors: Cursors, ahead: Ahead, rows_max: int) -> None:
        self._cursors = cursors
        self._ahead = ahead
        self._rows_max = rows_max
        self._stopped = threading.Event()
        self._threads: dict[int, threading.Thread] = {}
        self.found: queue.Queue[Chunk | BaseException] = queue.Queue(CHUNKS_MAX)

    def take_up(self, part: Part, start: Position | None) -> None:
        """Follow one more partition; the position is checked before this returns."""
        if part.partition in self._threads:
            return
        reader = PartReader(self._cursors, part, start, queue=self._ahead(part, start))
        thread = threading.Thread(
            target=self._run, args=(reader,), name="fs-notebook-tail", daemon=True
        )
        self._threads[part.partition] = thread
        thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads.values():
            thread.join(timeout=5)

    def _run(self, reader: PartReader) -> None:
        try:
            while not self._stopped.is_set():
                chunk = reader.collect(
                    self._rows_max, end=None, wait_ms=WAIT_MS, linger_ms=LINGER_MS
                )
                if chunk is not None and chunk.messages:
                    self._put(chunk)
        except BaseException as error:  # noqa: BLE001 - it goes on in the other thread.
            self._put(error)
        finally:
            reader.close()

    def _put(self, item: Chunk | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                self.found.put(item, timeout=0.1)
            except queue.Full:
                continue
            return


def follow(
    payloads: PayloadReader,
    start: Cut,
    asked: tuple[str, ...],
    *,
    cursors: Cursors,
    parts: Callable[[], list[Part]],
    ahead: Ahead,
    rows_max: int,
    idle_seconds: float,
    clock: Clock,
) -> Iterator[Batch | None]:
    """Yield the events after `start` as they arrive, and None when none did for a while."""
    stream = payloads.stream
    follower = _Follower(cursors, ahead, rows_max)
    try:
        known = parts()
        for part in known:
            follower.take_up(part, start.get(part.partition))
        looked_at = quiet_since = clock.monotonic_s()
        while True:
            try:
                item = follower.found.get(timeout=min(idle_seconds, 0.1))
            except queue.Empty:
                now = clock.monotonic_s()
                if now - quiet_since >= idle_seconds:
                    yield None
                    quiet_since = clock.monotonic_s()
            else:
                if isinstance(item, BaseException):
                    raise item
                yield from regrouped(decode(item, payloads), stream, asked, (None, None), rows_max)
                quiet_since = clock.monotonic_s()
            if clock.monotonic_s() - looked_at >= PARTS_EVERY_S:
                for part in _grown(stream.name, parts, known):
                    follower.take_up(part, None)
                looked_at = clock.monotonic_s()
    finally:
        follower.stop()


def _grown(name: str, parts: Callable[[], list[Part]], known: list[Part]) -> list[Part]:
    """Return the partitions as they are now; those known if the broker does not answer."""
    try:
        now = parts()
    except FeatureStoreError:
        return known
    if len(now) < len(known):
        raise StreamChanged(
            f"Stream {name!r} has lost partitions while it was followed.",
            found=f"{len(now)} instead of {len(known)}",
            remedy="start again on the new stream, from its beginning",
        )
    return now
