"""Segments: stretches of a partition's history as Arrow files, in a folder and, if wanted, shared.

A file's name says what it holds, so that a folder's listing is the index. What a colleague has
read already is taken from the shared place (`log/shared.py`) instead of from the broker.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from fs_notebook.clock import SYSTEM, new_id
from fs_notebook.log.protocol import BATCH, ENTRY, LEDGER, DeadLetter, Stream
from fs_notebook.log.shared import SharedFailure, SharedFiles
from fs_notebook.position import Position
from fs_notebook.types import TIME

PART = ".part"
"""What the name of a file ends with while it is written."""
WRITTEN_S_MAX = 600
"""A file that has not grown for so long is not being written any more: its writer was killed."""
_FORMAT = "2"
_ANY = "any"


class CacheWarning(UserWarning):
    """The cache could not be used; reading goes on without it."""


@dataclass(frozen=True)
class Segment:
    """A file with the events of one partition in (start, end]; start None is the beginning.

    `times` are the earliest and the latest event time in it, UTC microseconds. None means that it
    must be looked at whatever is asked for, since it has malformed events.
    """

    path: Path
    start: Position | None
    end: Position
    size: int
    times: tuple[int, int] | None

    def lies_outside(self, times: tuple[int | None, int | None]) -> bool:
        """Tell whether none of its events lies in [from, to), so that it can be passed over."""
        if self.times is None:
            return False
        from_us, to_us = times
        return (from_us is not None and self.times[1] < from_us) or (
            to_us is not None and self.times[0] >= to_us
        )


@dataclass(frozen=True)
class Loaded:
    """A segment's content; the rows are mapped from the file, not read."""

    rows: pl.DataFrame
    dead: tuple[DeadLetter, ...]
    first: Position


class SegmentCache:
    """Segments in a folder, bounded in size; several processes may use it at once.

    Parameters
    ----------
    folder
        Where they lie; made when first written to.
    bytes_max
        How large they may become together; the least recently used go first.
    shared
        Where a team keeps its segments: they are looked for there too, and put there.
    """

    def __init__(self, folder: Path, *, bytes_max: int, shared: SharedFiles | None = None) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._shared = shared
        self._refused: set[str] = set()
        self._warned = False
        self._shrink()

    def key(self, url: str, identity: str, stream: Stream, partition: int) -> str:
        """Return the name under which the segments of one partition lie.

        It depends on the declaration, since that decides what decoding gives.
        """
        declared = [[n, t.value] for n, t in stream.columns]
        parts = [_FORMAT, url, stream.name, identity, partition, declared, stream.time]
        if stream.format != "json" or stream.meta:
            parts.append([stream.format, stream.schema, [list(pair) for pair in stream.meta]])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def find(self, key: str, at: Position | None) -> Segment | None:
        """Return the segment that reaches furthest beyond `at` of those that start at or before."""
        best = _furthest(self._segments(key), at)
        theirs = _furthest(self._shared_segments(key), at)
        if theirs is not None and (best is None or theirs.end > best.end):
            return self._fetched(key, theirs) or best
        return best

    def next_start(self, key: str, at: Position | None) -> Position | None:
        """Return where the first segment that begins behind `at` does so."""
        starts = (s.start for s in (*self._segments(key), *self._shared_segments(key)))
        return min((s for s in starts if s is not None and (at is None or s > at)), default=None)

    def _shared_segments(self, key: str) -> Iterable[Segment]:
        if self._shared is None:
            return ()
        try:
            names = [n for n in self._shared.names(key) if n not in self._refused]
            return _named(self._folder / key, names)
        except SharedFailure as failure:
            self._unshared(failure)
            return ()

    def _fetched(self, key: str, segment: Segment) -> Segment | None:
        """Bring a shared segment here; None if that fails."""
        assert self._shared is not None
        try:
            if not segment.path.exists():
                self._shared.fetch(key, segment.path.name, segment.path)
                self._shrink()
        except SharedFailure as failure:
            self._unshared(failure)
            return None
        return segment

    def _unshared(self, failure: SharedFailure) -> None:
        """Go on without the shared place, having said so once."""
        if self._shared is not None:
            message = f"The shared cache {self._shared.url} is not used: {failure}"
            warnings.warn(message, CacheWarning, stacklevel=4)
        self._shared = None

    def load(self, segment: Segment) -> Loaded | None:
        """Return what the segment holds, or None if it is torn; then it is removed."""
        try:
            if segment.path.stat().st_size != segment.size:
                raise pa.ArrowInvalid("the file has another length than when it was written")
            source = pa.memory_map(str(segment.path))
            table = pa.ipc.open_file(source).read_all()
            note = json.loads((table.schema.metadata or {})[b"fs"])
            rows = pl.from_arrow(table)
            assert isinstance(rows, pl.DataFrame)
            if rows.height != note["rows"]:
                raise pa.ArrowInvalid("the file has another number of rows than were written")
            os.utime(segment.path)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            self._drop(segment, error)
            return None
        dead = tuple(
            DeadLetter(Position(*d["position"]), d["reason"], base64.b64decode(d["payload"]))
            for d in note["dead"]
        )
        return Loaded(rows, dead, Position(*note["first"]))

    def store(
        self,
        key: str,
        start: Position | None,
        end: Position,
        rows: pl.DataFrame,
        dead: Sequence[DeadLetter],
    ) -> None:
        """Keep the events of (start, end]; where that fails, warn once and do without."""
        firsts = [d.position for d in dead]
        if rows.height:
            firsts.append(Position(end.partition, *rows.select(LEDGER, ENTRY, BATCH).row(0)))
        if not firsts:
            return
        note = {
            "rows": rows.height,
            "first": list(min(firsts)),
            "dead": [
                {
                    "position": list(d.position),
                    "reason": d.reason,
                    "payload": base64.b64encode(d.payload).decode(),
                }
                for d in dead
            ],
        }
        table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
        table = table.replace_schema_metadata({"fs": json.dumps(note)})
        folder = self._folder / key
        part = folder / f"{new_id()}{PART}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            name = f"{_written(start)}~{_written(end)}~{size}~{_times(rows, dead)}.arrow"
            part.rename(folder / name)
            self._prune(key)
            if self._shared is not None:
                self._shared.put(key, folder / name, self._unshared)
            self._shrink()
        except OSError as error:
            self._warn(f"what was read could not be kept: {error}")
            try:
                part.unlink(missing_ok=True)
            except OSError:
                return

    def forget(self, key: str) -> None:
        """Remove all segments of one partition."""
        for segment in self._segments(key):
            segment.path.unlink(missing_ok=True)

    def _segments(self, key: str) -> Iterator[Segment]:
        partition_folder = self._folder / key
        try:
            names = sorted(os.listdir(partition_folder))
        except OSError:
            return
        yield from (s for s in _named(partition_folder, names) if s.path.name not in self._refused)

    def _prune(self, key: str) -> None:
        """Remove what other segments hold as well, so that no event is in more than two of them.

        Who reads one stretch at the same time as another, to another end, cuts it otherwise.
        """
        left = sorted(self._segments(key), key=lambda s: s.size)
        for segment in list(left):
            others = [s for s in left if s is not segment]
            if _are_whole(others, segment.start, segment.end):
                segment.path.unlink(missing_ok=True)
                left = others

    def flush(self) -> None:
        """Wait until what was kept is shared too."""
        if self._shared is not None:
            self._shared.flush()

    def _shrink(self) -> None:
        """Remove what nobody will finish, then the least recently used until the rest fits."""
        files, total = [], 0
        orphaned_s = SYSTEM.now_us() / 1e6 - WRITTEN_S_MAX
        for path in self._folder.glob("*/*"):
            try:
                stat = path.stat()
                unfinished = path.suffix == PART
                if unfinished and stat.st_mtime < orphaned_s:
                    path.unlink(missing_ok=True)
                    continue
            except OSError:
                continue
            total += stat.st_size
            if not unfinished:
                files.append((stat.st_mtime, stat.st_size, path))
        for _, size, path in sorted(files):
            if total <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _drop(self, segment: Segment, error: Exception) -> None:
        self._warn(f"the damaged file {segment.path.name} is dropped: {error}")
        # It may have come damaged from the shared place: it is not fetched again. Nor is it
        # looked at where it cannot be removed.
        self._refused.add(segment.path.name)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError:
            return

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            message = f"The cache in {self._folder} is not used: {why}"
            warnings.warn(message, CacheWarning, stacklevel=4)


def _named(folder: Path, names: Iterable[str]) -> Iterator[Segment]:
    """Yield the segments that files of these names are."""
    for name in names:
        fields = name.removesuffix(".arrow").split("~")
        if not name.endswith(".arrow") or len(fields) != 4:
            continue
        try:
            start, end = _read(fields[0]), _read(fields[1])
            size = int(fields[2])
            times = _times_read(fields[3])
        except (ValueError, TypeError):
            continue
        if end is not None:
            yield Segment(folder / name, start, end, size, times)


def _furthest(segments: Iterable[Segment], at: Position | None) -> Segment | None:
    """Return the segment that reaches furthest beyond `at` of those that start at or before."""
    best: Segment | None = None
    for segment in segments:
        starts = segment.start is None or (at is not None and segment.start <= at)
        reaches = at is None or segment.end > at
        if starts and reaches and (best is None or segment.end > best.end):
            best = segment
    return best


def _are_whole(segments: Sequence[Segment], at: Position | None, end: Position) -> bool:
    """Tell whether segments hold all of (at, end] together."""
    while (best := _furthest(segments, at)) is not None:
        at = best.end
        if at >= end:
            return True
    return False


def _written(position: Position | None) -> str:
    return "start" if position is None else ".".join(map(str, position))


def _read(text: str) -> Position | None:
    return None if text == "start" else Position(*map(int, text.split(".")))


def _times(rows: pl.DataFrame, dead: Sequence[DeadLetter]) -> str:
    # Malformed events have no time: whoever reads past them is told of them.
    if dead or not rows.height:
        return _ANY
    times = rows.get_column(TIME).to_physical().to_numpy()
    return f"{int(times.min())}.{int(times.max())}"


def _times_read(text: str) -> tuple[int, int] | None:
    if text == _ANY:
        return None
    first, last = map(int, text.split("."))
    return first, last
