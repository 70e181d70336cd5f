"""Following the end of a stream: every partition read as events arrive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from fs_notebook.clock import Clock
from fs_notebook.errors import FeatureStoreError, StreamChanged
from fs_notebook.log.cursors import Cursors, Part
from fs_notebook.log.messages import Chunk, decode, regrouped
from fs_notebook.log.payloads import PayloadReader
from fs_notebook.log.protocol import Batch
from fs_notebook.log.reader import CHUNK_BYTES_MAX, WAIT_MS, PartReader
from fs_notebook.position import Cut, Position

LINGER_MS = 2
HOLD_S = 0.01
"""How long messages are taken that come without a pause, before the first of them go on."""
PARTS_EVERY_S = 5.0
CHUNKS_MAX = 4


Ahead = Callable[[Part, Position | None], int]
"""Tells how many messages of a partition to fetch ahead, from a position on."""


class _Held:
    """Asked now and then while messages are taken: whether those that came are held for long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None

    def __call__(self) -> bool:
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            # It is asked for the first time when some are there; before them it may have waited.
            self._since_s = now_s
        return now_s - self._since_s > HOLD_S


class _Follower:
    """A thread for each partition, and the chunks that they found."""

    def __init__(self, cursors: Cursors, ahead: Ahead, rows_max: int, clock: Clock) -> None:
        self._cursors = cursors
        self._clock = clock
        self._ahead = ahead
        self._rows_max = rows_max
        self._stopped = threading.Event()
        self._threads: dict[int, threading.Thread] = {}
        self._error: BaseException | None = None
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

    def take(self, wait_s: float) -> list[Chunk]:
        """Return the chunks that are there, waiting for the first; none if none came in time.

        All at once: whoever commits each alone is always as many commits late as chunks wait.

        Raises
        ------
        FeatureStoreError
            What a thread met, once the chunks before it are handed over.
        """
        if self._error is not None:
            raise self._error
        chunks: list[Chunk] = []
        rows = size = 0
        try:
            item = self.found.get(timeout=wait_s)
            while True:
                if isinstance(item, BaseException):
                    self._error = item
                    break
                chunks.append(item)
                rows += len(item.payloads)
                size += sum(map(len, item.payloads))
                if rows >= self._rows_max or size >= CHUNK_BYTES_MAX:
                    break
                item = self.found.get_nowait()
        except queue.Empty:
            pass
        if self._error is not None and not chunks:
            raise self._error
        return chunks

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads.values():
            thread.join(timeout=5)

    def _run(self, reader: PartReader) -> None:
        try:
            while not self._stopped.is_set():
                chunk = reader.collect(
                    self._rows_max,
                    end=None,
                    wait_ms=WAIT_MS,
                    linger_ms=LINGER_MS,
                    stopped=_Held(self._clock),
                )
                if chunk is not None and chunk.payloads:
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
    follower = _Follower(cursors, ahead, rows_max, clock)
    try:
        known = parts()
        for part in known:
            follower.take_up(part, start.get(part.partition))
        growth = _Growth(stream.name, parts, known)
        looked_at = quiet_since = clock.monotonic_s()
        while True:
            chunks = follower.take(min(idle_seconds, 0.1))
            for some in _by_partition(chunks):
                decoded = chain.from_iterable(decode(chunk, payloads) for chunk in some)
                yield from regrouped(decoded, stream, asked, (None, None), rows_max)
            if chunks:
                quiet_since = clock.monotonic_s()
            elif clock.monotonic_s() - quiet_since >= idle_seconds:
                yield None
                quiet_since = clock.monotonic_s()
            if clock.monotonic_s() - looked_at >= PARTS_EVERY_S:
                growth.look()
                looked_at = clock.monotonic_s()
            for part in growth.found():
                follower.take_up(part, None)
    finally:
        follower.stop()


def _by_partition(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Return the chunks of each partition in order, with neighbours of plain events made one."""
    found: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        mine = found.setdefault(chunk.partition, [])
        if mine and not chunk.arrow and not mine[-1].arrow:
            mine[-1] = _joined(mine[-1], chunk)
        else:
            mine.append(chunk)
    return list(found.values())


def _joined(one: Chunk, other: Chunk) -> Chunk:
    assert one.places is not None
    assert other.places is not None
    ledger, entry, batch = map(np.concatenate, zip(one.places, other.places, strict=True))
    return Chunk(
        one.partition,
        False,
        [*one.messages, *other.messages],
        [*one.payloads, *other.payloads],
        places=(ledger, entry, batch),
    )


class _Growth:
    """Asks beside the loop which partitions there are by now: a broker may take its time."""

    def __init__(self, name: str, parts: Callable[[], list[Part]], known: list[Part]) -> None:
        self._name = name
        self._parts = parts
        self._known = known
        self._answers: queue.SimpleQueue[list[Part] | Exception] = queue.SimpleQueue()
        self._asks = threading.Event()

    def look(self) -> None:
        """Ask, unless it is being asked."""
        if not self._asks.is_set():
            self._asks.set()
            threading.Thread(target=self._ask, name="fs-notebook-parts", daemon=True).start()

    def found(self) -> list[Part]:
        """Return the partitions that an answer named, if there is one.

        Raises
        ------
        StreamChanged
            If there are fewer than there were.
        """
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return []
        if isinstance(answer, FeatureStoreError):
            # The broker is asked again the next time.
            return []
        if isinstance(answer, Exception):
            raise answer
        if len(answer) < len(self._known):
            raise StreamChanged(
                f"Stream {self._name!r} has lost partitions while it was followed.",
                found=f"{len(answer)} instead of {len(self._known)}",
                remedy="start again on the new stream, from its beginning",
            )
        return answer

    def _ask(self) -> None:
        try:
            self._answers.put(self._parts())
        except Exception as error:  # noqa: BLE001 - it goes on in the other thread.
            self._answers.put(error)
        finally:
            self._asks.clear()
