"""What was once read from a broker, kept as Arrow files: a ledger's history never changes."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log import frames
from fs_notebook.log.cursors import Part
from fs_notebook.log.facts import Drift, Facts
from fs_notebook.log.lanes import Stopped
from fs_notebook.log.messages import Decoded, cut_batches, dress
from fs_notebook.log.partitions import side_by_side
from fs_notebook.log.protocol import (
    BATCH,
    ENTRY,
    LEDGER,
    POSITION_COLUMNS,
    PUBLISHED,
    Batch,
    DeadLetter,
    Shares,
    Stream,
)
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.seeking import Promised, PromiseWarning, broken, nothing
from fs_notebook.log.segments import Loaded, Segment, SegmentCache
from fs_notebook.position import Cut, Position
from fs_notebook.types import TIME

SEGMENT_ROWS = 500_000
SEGMENT_BYTES = 64 * 2**20
WORTH_ROWS = 5_000


class CachedLog:
    """A Pulsar log whose reads take from a cache what they can, and add to it what they cannot.

    Before a cached segment is trusted, the topic is asked whether it is still the same one and
    whether its history still begins where it did: two short calls for each partition.
    """

    def __init__(self, log: PulsarLog, cache: SegmentCache) -> None:
        self.url = log.url
        self._log = log
        self._cache = cache
        self._minded: set[str] = set()

    def create(self, stream: Stream) -> None:
        """Make the stream; nothing happens where it is there already."""
        self._log.create(stream)

    def delete(self, name: str) -> None:
        """Remove the stream and all its events, for good."""
        self._log.delete(name)

    def exists(self, name: str) -> bool:
        """Tell whether there is a stream of this name."""
        return self._log.exists(name)

    def names(self) -> list[str]:
        """Return the names of the streams that are there, sorted."""
        return self._log.names()

    def identity(self, name: str) -> str:
        """Return text that stays the same as long as the stream is the same one."""
        return self._log.identity(name)

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first events that are left lie."""
        return self._log.beginning(name, only)

    def infer_stream(self, name: str, *, sample: int = 200) -> Stream:
        """Return a declaration that fits the stream's first `sample` events."""
        return self._log.infer_stream(name, sample=sample)

    def append(self, stream: Stream, rows: pl.DataFrame, *, expected: Cut | None = None) -> Cut:
        """Append events; return the cut just after them."""
        return self._log.append(stream, rows, expected=expected)

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event of each partition, frozen now."""
        return self._log.end(name)

    def partitions(self, name: str) -> int:
        """Return how many partitions the stream has now."""
        return self._log.partitions(name)

    def share(self, name: str, among: str, member: str) -> Shares:
        """Take part in sharing the stream's partitions; see `EventLog.share`."""
        return self._log.share(name, among, member)

    def unshare(self, name: str, among: str) -> None:
        """Forget that the stream was shared."""
        self._log.unshare(name, among)

    def facts(self, name: str) -> Facts:
        """Return what the admin interface tells of the stream."""
        return self._log.facts(name)

    def drift(self, stream: Stream) -> Drift | None:
        """Return how the topic's newest schema differs from the declaration, if that is known."""
        return self._log.drift(stream)

    @property
    def schemas_met(self) -> int:
        """How many versions of schemas its readings have met."""
        return self._log.schemas_met

    def promise(self, promised: Promised) -> None:
        """Let what is declared by now tell how far ahead of publishing a stream's times are."""
        self._log.promised = promised

    def before(self, name: str, position: Position, events: int) -> Position | None:
        """Return a position with `events` events or more in (it, position]; None: all there are."""
        return self._log.before(name, position, events)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        rows_max: int = 10_000,
        idle_seconds: float = 0.2,
        only: int | None = None,
    ) -> Iterator[Batch | None]:
        """Yield the events after `start` for ever, as they arrive; they are not cached."""
        return self._log.tail(
            stream, start=start, columns=columns, rows_max=rows_max, idle_seconds=idle_seconds,
            only=only,
        )  # fmt: skip

    def close(self) -> None:
        """Close all connections; calls after it raise."""
        self._log.close()

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        rows_max: int = 200_000,
    ) -> Iterator[Batch]:
        """Yield the events in (start, end]; see `EventLog.read`.

        Of what is asked for by time, whole segments are passed over unread if all their events
        lie outside; a segment knows its earliest and latest event. What is not cached is read
        wholly up to the next segment, but for what comes before and was published so early that
        a stream that promises how far `ahead` times are has nothing there.
        """
        if rows_max < 1:
            raise UsageError(f"A batch cannot hold {rows_max} rows.", remedy="use 1 or more")
        asked = frames.asked_columns(stream, columns)
        parts = self._log.check_cuts(stream.name, start, end)
        identity = self._log.identity(stream.name)
        times = (time_from_us, time_to_us)
        return self._read(stream, parts, start, end, identity, asked, times, rows_max)

    def _read(
        self,
        stream: Stream,
        parts: list[Part],
        start: Cut,
        end: Cut,
        identity: str,
        asked: tuple[str, ...],
        times: tuple[int | None, int | None],
        rows_max: int,
    ) -> Iterator[Batch]:
        def batches(
            until: Position, rows_max: int, stopped: Stopped | None = None
        ) -> Iterator[Batch]:
            part, at = parts[until.partition], start.get(until.partition)
            if at is not None and at >= until:
                return
            key = self._cache.key(self.url, identity, stream, until.partition)
            trusted = self._cache.find(key, at) is None or self._still_true(part, key, at)
            sought = False
            while at is None or at < until:
                held = self._cache.find(key, at) if trusted else None
                if held is None and not sought:
                    sought = True
                    begin = self._log.begin(stream, part, at, until, times[0])
                    if begin != at:
                        # It was at the broker this moment, and so is what follows it.
                        at, trusted = begin, True
                        if at == until:
                            yield nothing(stream, asked, until)
                        continue
                stop = self._stop(part, key, at, until, trusted) if held is None else held.end
                stop = min(stop, until)
                if held is None:
                    cold = self._cold(stream, part, key, at, stop, stopped)
                    with closing(cold):
                        for rows, dead, upto in cold:
                            yield from _batches(rows, dead, upto, asked, times, rows_max)
                elif held.lies_outside(times):
                    yield nothing(stream, asked, stop)
                else:
                    loaded = self._cache.load(held)
                    if loaded is None:
                        continue
                    rows, dead = _between(loaded, held, at, stop)
                    yield from _batches(rows, dead, stop, asked, times, rows_max)
                at, trusted = stop, True

        return side_by_side(batches, end, rows_max, self._log.readers)

    def _mind(self, stream: Stream, rows: pl.DataFrame) -> None:
        """Warn, once for each stream, where what was read does not keep its promise."""
        ahead_us = self._log.promised(stream)
        if ahead_us is None or stream.name in self._minded:
            return
        if (said := broken(rows, ahead_us)) is not None:
            self._minded.add(stream.name)
            remedy = f'fs.declare({stream.name!r}, ahead=...) more, or "" to take it back'
            warnings.warn(f"Of {stream.name!r}, {said}. {remedy}", PromiseWarning, stacklevel=2)

    def _stop(
        self, part: Part, key: str, at: Position | None, until: Position, trusted: bool
    ) -> Position:
        """Return how far to read from the broker: to the next segment, if it still is history."""
        following = self._cache.next_start(key, at) if trusted else None
        if following is None or following >= until or not self._still_true(part, key, following):
            return until
        return following

    def _still_true(self, part: Part, key: str, at: Position | None) -> bool:
        """Tell whether the history that was cached is still the broker's own."""
        earliest = self._log.earliest(part)
        if earliest is None:
            return False
        if at is not None:
            return earliest <= at
        first = self._cache.find(key, None)
        loaded = None if first is None else self._cache.load(first)
        if loaded is None or loaded.first == earliest:
            return True
        self._cache.forget(key)
        return False

    def _cold(
        self,
        stream: Stream,
        part: Part,
        key: str,
        at: Position | None,
        until: Position,
        stopped: Stopped | None,
    ) -> Generator[tuple[pl.DataFrame, tuple[DeadLetter, ...], Position], None, None]:
        """Yield what the broker has in (at, until], and keep it in segments as it comes."""
        segment_start = at
        gathered: list[pl.DataFrame] = []
        letters: list[DeadLetter] = []
        size = 0
        found = self._log.decoded(
            stream, part, at, until, rows_max=SEGMENT_ROWS, stopped=stopped, apart=True
        )
        with closing(found):
            for one in found:
                frame = _full(one, stream)
                self._mind(stream, frame)
                yield frame, one.dead, one.end
                gathered.append(frame)
                letters += one.dead
                size += int(frame.estimated_size())
                rows = sum(f.height for f in gathered)
                last = one.end == until
                # Short ends are not worth a file each time: they are read again sooner.
                worth = rows >= WORTH_ROWS or segment_start is None
                if rows >= SEGMENT_ROWS or size >= SEGMENT_BYTES or (last and worth):
                    self._cache.store(key, segment_start, one.end, pl.concat(gathered), letters)
                    gathered, letters, size = [], [], 0
                    segment_start = one.end


def _full(decoded: Decoded, stream: Stream) -> pl.DataFrame:
    frame = dress(decoded, stream, (*stream.names, PUBLISHED), positions=True)
    return frame.drop(POSITION_COLUMNS[0]).with_columns(
        pl.col(ENTRY).cast(pl.Int64), pl.col(BATCH).cast(pl.Int32)
    )


def _between(
    loaded: Loaded, segment: Segment, at: Position | None, stop: Position
) -> tuple[pl.DataFrame, tuple[DeadLetter, ...]]:
    """Return the part of a segment that lies in (at, stop]."""
    rows = loaded.rows
    if stop < segment.end:
        rows = rows.slice(0, _count_to(rows, stop))
    if at is not None and at != segment.start:
        rows = rows.slice(_count_to(rows, at))
    dead = tuple(d for d in loaded.dead if d.position <= stop and (at is None or d.position > at))
    return rows, dead


def _count_to(rows: pl.DataFrame, at: Position) -> int:
    """Return how many of the rows, which are in order, lie at or before `at`."""
    before = (pl.col(LEDGER) < at.ledger) | (
        (pl.col(LEDGER) == at.ledger)
        & ((pl.col(ENTRY) < at.entry) | ((pl.col(ENTRY) == at.entry) & (pl.col(BATCH) <= at.batch)))
    )
    return int(rows.select(before.sum()).item())


def _batches(
    rows: pl.DataFrame,
    dead: tuple[DeadLetter, ...],
    stop: Position,
    asked: tuple[str, ...],
    times: tuple[int | None, int | None],
    rows_max: int,
) -> Iterator[Batch]:
    def positions() -> pl.DataFrame:
        return frames.position_frame(
            partition=stop.partition,
            ledger=rows.get_column(LEDGER),
            entry=rows.get_column(ENTRY),
            batch=rows.get_column(BATCH),
        )

    wanted = rows.select(*asked, TIME)
    yield from cut_batches(stop.partition, wanted, positions, stop, dead, times, rows_max)
