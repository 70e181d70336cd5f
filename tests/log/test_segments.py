"""Segments: what lies in the cache's folder, without a broker."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from fs_notebook.log.apart import ReaderProcesses
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.cursors import Part
from fs_notebook.log.protocol import BATCH, ENTRY, LEDGER, PUBLISHED, Stream
from fs_notebook.log.segments import PART, WRITTEN_S_MAX, CacheWarning, Segment, SegmentCache
from fs_notebook.position import Cut, Position
from fs_notebook.types import TIME, Type
from tests.support.logs import numbers, read_all

KEY = "k" * 32
MOMENT = pl.Datetime("us", "UTC")


def at(entry: int) -> Position:
    return Position(0, 1, entry, 0)


def rows(first: int, count: int, *, text: int = 0) -> pl.DataFrame:
    """Return events as segments have them, one an entry, numbered like their entries."""
    number = pl.int_range(first, first + count, dtype=pl.Int64, eager=True)
    return pl.DataFrame({"n": number}).select(
        "n",
        pl.col("n").cast(pl.String).str.pad_start(text, "x").alias("text"),
        pl.col("n").cast(MOMENT).alias(PUBLISHED),
        pl.col("n").cast(MOMENT).alias(TIME),
        pl.lit(1, pl.Int64).alias(LEDGER),
        pl.col("n").alias(ENTRY),
        pl.lit(0, pl.Int32).alias(BATCH),
    )


def keep(cache: SegmentCache, start: int | None, end: int) -> None:
    """Store the events (start, end]; they begin with number 0."""
    first = 0 if start is None else start + 1
    cache.store(
        KEY, None if start is None else at(start), at(end), rows(first, end - first + 1), ()
    )


def walked(cache: SegmentCache, place: Position | None) -> list[Segment]:
    """Return the segments through which one comes from a place as far as they go."""
    found: list[Segment] = []
    while (segment := cache.find(KEY, place)) is not None:
        found.append(segment)
        place = segment.end
    return found


@pytest.mark.parametrize("seed", range(20))
def test_whoever_writes_what_no_event_is_in_more_than_two_segments(
    tmp_path: Path, seed: int
) -> None:
    """Kernels that read at once to different ends cut one stretch differently."""
    chance = random.Random(seed)
    cache = SegmentCache(tmp_path, bytes_max=2**30)
    held: set[int] = set()
    for _ in range(25):
        start = None if chance.random() < 0.3 else chance.randint(0, 80)
        end = chance.randint(0 if start is None else start + 1, 90)
        keep(cache, start, end)
        held |= set(range(0 if start is None else start + 1, end + 1))
        spans = [
            range(0 if s.start is None else s.start.entry + 1, s.end.entry + 1)
            for s in cache._segments(KEY)
        ]
        depth = [sum(n in span for span in spans) for n in range(91)]
        assert max(depth) <= 2
        assert {n for n in range(91) if depth[n]} == held


def test_several_writers_of_one_history_do_not_double_it(tmp_path: Path) -> None:
    single = SegmentCache(tmp_path / "one", bytes_max=2**30)
    keep(single, None, 9_999)
    once = sum(f.stat().st_size for f in tmp_path.glob("one/*/*"))
    cache = SegmentCache(tmp_path / "many", bytes_max=2**30)
    # Ten of them, each in pieces of its own, taking turns.
    for step in range(10):
        for kernel in range(10):
            size = 900 + 10 * kernel
            start = step * size - 1
            keep(cache, None if start < 0 else start, min(start + size, 9_000 + kernel))
    assert walked(cache, None)[-1].end >= at(9_000)
    assert sum(f.stat().st_size for f in tmp_path.glob("many/*/*")) <= 2.5 * once


class Silent:
    """A ledger of which everything is in the cache: it must not be read."""

    def __init__(self, end: Position) -> None:
        self.url = "silent:"
        self.readers = ReaderProcesses("", None, usable=False)
        self._end = end

    def check_cuts(self, name: str, start: Cut, end: Cut) -> list[Part]:
        return [Part(name, name, 0)]

    def identity(self, name: str) -> str:
        return "one"

    def earliest(self, part: Part) -> Position:
        return at(0)

    def end(self, name: str) -> Cut:
        return Cut((self._end,))


def test_of_a_large_segment_only_what_is_asked_for_is_brought_into_memory(tmp_path: Path) -> None:
    stream = Stream("large", (("n", Type.BIGINT), ("text", Type.VARCHAR)))
    count = 150_000
    cache = SegmentCache(tmp_path, bytes_max=2**30)
    log: Any = Silent(at(count - 1))
    key = cache.key(log.url, "one", stream, 0)
    cache.store(key, None, at(count - 1), rows(0, count, text=900), ())
    (file,) = tmp_path.glob("*/*.arrow")
    size = file.stat().st_size
    assert size > 128 * 2**20
    cached, process = CachedLog(log, cache), psutil.Process()
    assert numbers(read_all(cached, stream, columns=["n"], end=Cut((at(9),)))) == list(range(10))
    before = process.memory_info().rss
    batches = read_all(cached, stream, columns=["n"])
    grown = process.memory_info().rss - before
    assert sum(b.rows.get_column("n").sum() for b in batches) == count * (count - 1) // 2
    assert grown < size / 8


def test_what_was_left_half_written_is_removed_in_time(tmp_path: Path) -> None:
    cache = SegmentCache(tmp_path, bytes_max=2**30)
    keep(cache, None, 10)
    old, new = (tmp_path / KEY / f"{name}{PART}" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    an_age_ago = old.stat().st_mtime - WRITTEN_S_MAX - 60
    os.utime(old, (an_age_ago, an_age_ago))
    keep(cache, at(10).entry, 20)
    assert not old.exists()
    # Somebody may be writing this one.
    assert new.exists()
    os.utime(new, (an_age_ago, an_age_ago))
    SegmentCache(tmp_path, bytes_max=2**30)
    assert not new.exists()
    assert walked(cache, None)[-1].end == at(20)


def test_a_cache_over_its_bound_takes_nothing_from_who_is_writing(tmp_path: Path) -> None:
    cache = SegmentCache(tmp_path, bytes_max=1)
    (tmp_path / KEY).mkdir()
    part = tmp_path / KEY / f"now{PART}"
    part.write_bytes(b"half")
    keep(cache, None, 10)
    assert [f.name for f in tmp_path.glob("*/*")] == [part.name]


class Full:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file: Any, left: int) -> None:
        self._file = file
        self._left = left

    def write(self, data: Any) -> int:
        self._left -= len(memoryview(data).cast("B"))
        if self._left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.mark.parametrize("left", [0, 5_000, 200_000])
def test_fault_34_a_disk_that_fills_up_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    cache = SegmentCache(tmp_path, bytes_max=2**30)
    keep(cache, None, 10)
    before = sorted(tmp_path.glob("*/*"))
    opened = Path.open

    def opening(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opened(path, mode, *args, **options)
        return Full(file, left) if path.suffix == PART else file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opening)
        with pytest.warns(CacheWarning, match="No space left"):
            keep(cache, 10, 20_000)
        # It has been said.
        keep(cache, 10, 20_000)
    assert sorted(tmp_path.glob("*/*")) == before
    (segment,) = walked(cache, None)
    loaded = cache.load(segment)
    assert loaded is not None
    assert loaded.rows.get_column("n").to_list() == list(range(11))
    keep(cache, 10, 20_000)
    assert walked(cache, None)[-1].end == at(20_000)
