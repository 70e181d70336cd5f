"""The cache: the same answers, sooner; never trusted against the broker; never in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pulsar
import pytest

from fs_notebook.errors import HistoryLost
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.protocol import PUBLISHED, Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import PART, WRITTEN_S_MAX, CacheWarning, SegmentCache
from fs_notebook.position import START
from tests.support.broker import Broker
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all, upto

pytestmark = pytest.mark.pulsar


class Counting:
    """A Pulsar log that counts how often the broker was read from."""

    def __init__(self, log: PulsarLog) -> None:
        self._log = log
        self.reads: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def decoded(self, stream: Stream, part: Any, start: Any, end: Any, **options: Any) -> Any:
        self.reads.append((start, end))
        return self._log.decoded(stream, part, start, end, **options)


@pytest.fixture
def counting(pulsar_log: PulsarLog) -> Counting:
    return Counting(pulsar_log)


@pytest.fixture
def cached(counting: Any, tmp_path: Path) -> CachedLog:
    return CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))


@pytest.fixture
def stream(broker: Broker, pulsar_log: PulsarLog) -> Stream:
    stream = Stream(broker.fresh(), COLUMNS, time="ts")
    pulsar_log.create(stream)
    return stream


@pytest.fixture
def mixed(broker: Broker, pulsar_log: PulsarLog, stream: Stream, tmp_path: Path) -> Stream:
    """A stream of JSON and Arrow messages with malformed ones among them."""
    pulsar_log.append(stream, events(0, 900))
    logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, str(tmp_path / "client.log"))
    client = pulsar.Client(broker.url, logger=logger)
    producer = client.create_producer(stream.name, batching_enabled=True)
    for payload in (b"{", json.dumps({"n": 900}).encode(), b"junk"):
        producer.send_async(payload, lambda *_: None)
    producer.flush()
    client.close()
    pulsar_log.append(stream, events(901, 6_000))
    return stream


def everything(batches: list[Any]) -> tuple[Any, ...]:
    frames = [b.rows for b in batches]
    dead = [d for b in batches for d in b.dead]
    return [r for f in frames for r in f.rows()], positions_of(batches), dead, batches[-1].end


def test_the_answer_is_the_same_from_the_cache(
    mixed: Stream, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog
) -> None:
    columns = [*mixed.names, PUBLISHED]
    plain = everything(read_all(pulsar_log, mixed, columns=columns))
    cold = everything(read_all(cached, mixed, columns=columns))
    assert len(counting.reads) == 1
    warm = everything(read_all(cached, mixed, columns=columns))
    assert len(counting.reads) == 1
    assert plain == cold == warm
    assert len(warm[2]) == 2
    places = warm[1]
    for k in (0, 899, 900, 901, 3_000, len(places) - 1):
        cut = upto([places[k]])
        after, before = read_all(cached, mixed, start=cut), read_all(cached, mixed, end=cut)
        assert positions_of(before) + positions_of(after) == places
    span = {"time_from_us": 1_700_000_100_000_000, "time_to_us": 1_700_003_000_000_000}
    filtered = everything(read_all(cached, mixed, rows_max=500, **span))
    assert filtered == everything(read_all(pulsar_log, mixed, **span))
    assert len(counting.reads) == 1


def test_segments_that_lie_outside_the_times_are_not_loaded(
    stream: Stream,
    cached: CachedLog,
    pulsar_log: PulsarLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Late events lie in later segments: what is passed over is told by the events alone."""
    start, late = START, events(0, 3)
    for k in range(4):
        rows = pl.concat([events(k * 6_000, 6_000), late]) if k == 2 else events(k * 6_000, 6_000)
        pulsar_log.append(stream, rows)
        read_all(cached, stream, start=start)
        start = pulsar_log.end(stream.name)
    loaded: list[Path] = []
    load = SegmentCache.load

    def noted(self: SegmentCache, segment: Any) -> Any:
        loaded.append(segment.path)
        return load(self, segment)

    monkeypatch.setattr(SegmentCache, "load", noted)
    base, second = 1_700_000_000_000_000, 1_000_001
    for first, last, segments in (
        (0, 10, {0, 2}),
        (6_000, 12_000, {1, 2}),
        (23_999, 30_000, {3}),
        (30_000, 40_000, set()),
    ):
        loaded.clear()
        span = {
            "time_from_us": base + first * second,
            "time_to_us": base + last * second,
        }
        found = everything(read_all(cached, stream, **span))
        assert found == everything(read_all(pulsar_log, stream, **span))
        # The first is looked at in any case: is it still the history that the broker has?
        assert len(set(loaded)) == len(segments | {0})


def test_partitions_are_cached_side_by_side(
    broker: Broker, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog
) -> None:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", key=("user",), partitions=6)
    pulsar_log.create(stream)
    pulsar_log.append(stream, events(0, 70_000))
    end = pulsar_log.end(stream.name)
    plain = read_all(pulsar_log, stream)
    cold = read_all(cached, stream)
    assert len(counting.reads) == len(end.positions) > 1
    warm = read_all(cached, stream)
    assert len(counting.reads) == len(end.positions)
    for position in end:
        of = [[b for b in batches if b.partition == position.partition]
              for batches in (plain, cold, warm)]  # fmt: skip
        assert everything(of[0]) == everything(of[1]) == everything(of[2])
        assert of[0][-1].end == position


def test_only_the_rest_is_read_from_the_broker(
    stream: Stream, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog
) -> None:
    first = pulsar_log.append(stream, events(0, 7_000))
    read_all(cached, stream)
    second = pulsar_log.append(stream, events(7_000, 8_000))
    assert numbers(read_all(cached, stream)) == list(range(15_000))
    assert counting.reads == [(None, first.get(0)), (first.get(0), second.get(0))]
    assert numbers(read_all(cached, stream, start=first)) == list(range(7_000, 15_000))
    assert len(counting.reads) == 2


def test_a_torn_file_is_noticed_and_read_again(
    stream: Stream, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    pulsar_log.append(stream, events(0, 7_000))
    read_all(cached, stream)
    (file,) = (tmp_path / "cache").glob("*/*.arrow")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(CacheWarning, match="damaged"):
        assert numbers(read_all(cached, stream)) == list(range(7_000))
    assert len(counting.reads) == 2
    (file,) = (tmp_path / "cache").glob("*/*.arrow")
    content = bytearray(file.read_bytes())
    content[-60:-20] = bytes(40)
    file.write_bytes(content)
    log: Any = counting
    fresh = CachedLog(log, SegmentCache(tmp_path / "cache", bytes_max=2**30))
    with pytest.warns(CacheWarning, match="damaged"):
        assert numbers(read_all(fresh, stream)) == list(range(7_000))
    assert len(counting.reads) == 3


def test_a_file_that_goes_just_before_it_is_loaded_is_read_again(
    stream: Stream,
    cached: CachedLog,
    counting: Counting,
    pulsar_log: PulsarLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process shrinks the cache between the look at the folder and the file."""
    first = pulsar_log.append(stream, events(0, 7_000))
    read_all(cached, stream)
    pulsar_log.append(stream, events(7_000, 7_000))
    whole = everything(read_all(cached, stream))
    assert len(counting.reads) == 2
    load = SegmentCache.load

    def gone(self: SegmentCache, segment: Any) -> Any:
        if segment.start == first.get(0):
            segment.path.unlink(missing_ok=True)
        return load(self, segment)

    with monkeypatch.context() as patched:
        patched.setattr(SegmentCache, "load", gone)
        assert everything(read_all(cached, stream)) == whole
    assert counting.reads[2:] == [(first.get(0), whole[-1])]
    assert everything(read_all(cached, stream)) == whole
    assert len(counting.reads) == 3


def test_a_folder_that_is_removed_is_filled_again(
    stream: Stream, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    pulsar_log.append(stream, events(0, 7_000))
    whole = everything(read_all(cached, stream))
    shutil.rmtree(tmp_path / "cache")
    assert everything(read_all(cached, stream)) == whole
    assert len(counting.reads) == 2
    assert everything(read_all(cached, stream)) == whole
    assert len(counting.reads) == 2


def test_readers_to_different_ends_do_not_fill_the_disk(
    stream: Stream,
    counting: Any,
    pulsar_log: PulsarLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each began when nothing was cached yet: none finds the others' segments in time."""
    monkeypatch.setattr("fs_notebook.log.cache.WORTH_ROWS", 500)
    json_only = replace(stream, json_only=True)
    ends = [pulsar_log.append(json_only, events(k * 2_500, 2_500)) for k in range(6)]
    alone = CachedLog(counting, SegmentCache(tmp_path / "alone", bytes_max=2**30))
    read_all(alone, stream)
    once = sum(f.stat().st_size for f in (tmp_path / "alone").glob("*/*"))
    readers: list[tuple[Any, list[Any], Any]] = []

    def cut_otherwise(k: int) -> None:
        monkeypatch.setattr("fs_notebook.log.cache.SEGMENT_ROWS", 1_500 + 130 * k)

    for k, end in enumerate((*ends, *ends)):
        cut_otherwise(k)
        log = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
        batches = log.read(stream, start=START, end=end, rows_max=1_000)
        readers.append((batches, [next(batches)], end))
    # By turns, a batch each, and then the rest.
    for k, (batches, seen, _) in enumerate(readers * 3):
        cut_otherwise(k % len(readers))
        seen += batches if k >= 2 * len(readers) else islice(batches, 1)
    for k, (_, seen, end) in enumerate(readers):
        assert numbers(seen) == list(range((k % 6 + 1) * 2_500))
        assert seen[-1].end == end.get(0)
    files = list((tmp_path / "cache").glob("*/*"))
    assert sum(f.stat().st_size for f in files) <= 2 * once
    counting.reads.clear()
    log = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
    assert numbers(read_all(log, stream)) == list(range(15_000))
    assert counting.reads == []


FILLING = """
import os, sys
from pathlib import Path
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from tests.support.logs import COLUMNS, numbers, read_all

url, admin, name, folder, stuck = sys.argv[1:]
if stuck:
    # It stops for good with the file written and not yet whole.
    def halted(number):
        print("writing", flush=True)
        sys.stdin.read()
    os.fsync = halted
log = CachedLog(PulsarLog(url, admin_url=admin), SegmentCache(Path(folder), bytes_max=2**30))
assert numbers(read_all(log, Stream(name, COLUMNS, time="ts"))) == list(range(20_000))
print("whole", flush=True)
log.close()
"""


@pytest.mark.timeout(120)
def test_processes_fill_one_cache_and_one_of_them_is_killed_as_it_writes(
    broker: Broker, stream: Stream, counting: Any, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    pulsar_log.append(stream, events(0, 20_000))
    folder = tmp_path / "cache"

    def begun(stuck: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", FILLING, broker.url, broker.admin_url, stream.name]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, str(folder), stuck], stdin=pipe, stdout=pipe, text=True)

    with begun("stuck") as victim:
        # First, or it would find all of it written by the others.
        assert victim.stdout is not None
        assert victim.stdout.readline() == "writing\n"
        with begun("") as one, begun("") as two:
            victim.send_signal(signal.SIGKILL)
            assert [p.communicate(timeout=60)[0] for p in (one, two)] == ["whole\n"] * 2
            assert (one.returncode, two.returncode) == (0, 0)
    (orphan,) = folder.glob(f"*/*{PART}")
    assert orphan.stat().st_size > 0
    cached = CachedLog(counting, SegmentCache(folder, bytes_max=2**30))
    assert numbers(read_all(cached, stream)) == list(range(20_000))
    assert counting.reads == []
    assert orphan.exists()
    an_age_ago = orphan.stat().st_mtime - WRITTEN_S_MAX - 60
    os.utime(orphan, (an_age_ago, an_age_ago))
    SegmentCache(folder, bytes_max=2**30)
    assert not orphan.exists()
    assert numbers(read_all(cached, stream)) == list(range(20_000))
    assert counting.reads == []


def test_fault_34_a_cache_that_cannot_be_written_is_done_without(
    stream: Stream, counting: Any, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cached = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
    pulsar_log.append(stream, events(0, 7_000))
    with pytest.warns(CacheWarning, match="could not be kept"):
        assert numbers(read_all(cached, stream)) == list(range(7_000))
    assert numbers(read_all(cached, stream)) == list(range(7_000))


def test_the_cache_is_bounded(
    stream: Stream, counting: Any, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    cached = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=1_200_000))
    start = START
    for k in range(5):
        pulsar_log.append(stream, events(k * 6_000, 6_000))
        read_all(cached, stream, start=start)
        start = pulsar_log.end(stream.name)
    files = list((tmp_path / "cache").glob("*/*.arrow"))
    assert 0 < len(files) < 5
    assert sum(f.stat().st_size for f in files) <= 1_200_000
    assert numbers(read_all(cached, stream)) == list(range(30_000))


def test_fault_17_a_topic_made_again_is_not_answered_from_the_cache(
    stream: Stream, cached: CachedLog, pulsar_log: PulsarLog
) -> None:
    pulsar_log.append(stream, events(0, 6_000))
    read_all(cached, stream)
    pulsar_log.delete(stream.name)
    pulsar_log.create(stream)
    pulsar_log.append(stream, events(100, 5_500))
    assert numbers(read_all(cached, stream)) == list(range(100, 5_600))


def test_fault_15_history_that_was_trimmed_is_not_answered_from_the_cache(
    broker: Broker, stream: Stream, cached: CachedLog, pulsar_log: PulsarLog
) -> None:
    path = f"persistent/public/default/{stream.name}"
    first = pulsar_log.append(stream, events(0, 6_000))
    broker.admin("PUT", f"{path}/unload")
    second = pulsar_log.append(stream, events(6_000, 6_000))
    read_all(cached, stream)
    broker.admin("PUT", f"{path}/unload")
    pulsar_log.append(stream, events(12_000, 10))
    body = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
    broker.admin("POST", f"{path}/retention", body)
    last = second.get(0)
    assert last is not None
    gone = threading.Event()
    while not gone.is_set():
        broker.admin("POST", f"{path}/trim")
        ledgers = broker.admin("GET", f"{path}/internalStats")["ledgers"]
        if min(x["ledgerId"] for x in ledgers) > last.ledger:
            gone.set()
        gone.wait(0.1)
    assert numbers(read_all(cached, stream)) == list(range(12_000, 12_010))
    with pytest.raises(HistoryLost):
        read_all(cached, stream, start=first)


def test_a_changed_declaration_is_decoded_anew(
    stream: Stream, cached: CachedLog, counting: Counting, pulsar_log: PulsarLog
) -> None:
    pulsar_log.append(stream, events(0, 6_000))
    read_all(cached, stream)
    other = Stream(stream.name, COLUMNS[:2], time=None)
    batches = read_all(cached, other)
    assert numbers(batches) == list(range(6_000))
    assert len(counting.reads) == 2


def test_several_readers_fill_one_cache(
    stream: Stream, counting: Any, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    pulsar_log.append(stream, events(0, 9_000))
    seen: list[list[int]] = []

    def read() -> None:
        log = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
        seen.append(numbers(read_all(log, stream)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert seen == [list(range(9_000))] * 4
    assert not list((tmp_path / "cache").glob("*/*.part"))
