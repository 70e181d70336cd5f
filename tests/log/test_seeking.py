"""Reading by time passes over what was published long before, where a stream promises enough."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import HistoryLost, UnknownPosition
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.cursors import Cursor, Part
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.seeking import PromiseWarning, begin_at
from fs_notebook.log.segments import SegmentCache
from fs_notebook.position import Cut, Position
from fs_notebook.testing import SimulatedClock, SimulatedLog
from fs_notebook.testing.broker import MessageId, Stored
from fs_notebook.types import TIME
from tests.support.broker import Broker
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all, upto

AHEAD_US = 300_000_000
HOUR_US = 3_600_000_000


def answers(log: Any, stream: Stream, **options: Any) -> tuple[Any, ...]:
    """Return rows with positions, and where each partition's last batch ends."""
    batches = read_all(log, stream, **options)
    rows = sorted(zip(positions_of(batches), numbers(batches), strict=True))
    return rows, {b.partition: b.end for b in batches}


def timed(first: int, times_us: list[int]) -> pl.DataFrame:
    """Return events with these times."""
    times = pl.Series("ts", times_us).cast(pl.Datetime("us", "UTC"))
    return events(first, len(times_us)).with_columns(times)


@pytest.mark.parametrize("seed", range(12))
def test_a_kept_promise_changes_no_answer(seed: int) -> None:
    chance = random.Random(seed)
    clock = SimulatedClock(start_us=1_700_000_000_000_000)
    log = SimulatedLog(seed=seed, clock=clock)
    stream = Stream("reads", COLUMNS, time="ts", partitions=chance.choice([1, 3]))
    log.create(stream)
    promised = replace(stream, ahead_us=AHEAD_US)
    count = 0
    for _ in range(chance.randint(3, 12)):
        clock.sleep_s(chance.choice([0, 0.01, 1, 60, 7_200]))
        lot = chance.randint(1, 40)
        now = clock.now_us() // 1000 * 1000
        times = [now + chance.randint(-2 * HOUR_US, AHEAD_US) for _ in range(lot)]
        log.append(stream, timed(count, times))
        count += lot
    places = positions_of(read_all(log, stream))
    span = clock.now_us() - 1_700_000_000_000_000
    for _ in range(12):
        from_us = 1_700_000_000_000_000 + chance.randint(-HOUR_US, span + 2 * HOUR_US)
        options: dict[str, Any] = {"time_from_us": from_us}
        if chance.random() < 0.4:
            options["time_to_us"] = from_us + chance.randint(0, 2 * HOUR_US)
        if chance.random() < 0.4:
            options["start"] = upto([chance.choice(places)])
        assert answers(log, promised, **options) == answers(log, stream, **options)


@dataclass
class Held(Cursor):
    """A cursor over messages in a list."""

    left: Iterator[Stored]

    def next(self, timeout_ms: int) -> Stored | None:
        return next(self.left, None)

    def close(self) -> None:
        self.left = iter(())


@dataclass
class Careless:
    """A broker that finds any message when it is asked for one by time."""

    log: list[Stored]
    chance: random.Random
    url: str = "careless"

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Any:
        at = (0, 0) if start is None else start[1:3]
        return Held(m for m in self.log if (m.at.ledger, m.at.entry) >= at)

    def since(self, topic: str, published_ms: int) -> Any:
        return Held(iter(self.log[self.chance.randint(0, len(self.log)) :]))

    def last(self, topic: str) -> Any:
        return self.log[-1]

    def is_lost(self, cursor: Any) -> bool:
        return False


@pytest.mark.parametrize("seed", range(30))
def test_no_order_of_publish_times_is_relied_on(seed: int) -> None:
    """Producers' clocks differ: what is passed over is told by the promise alone."""
    chance = random.Random(seed)
    log = []
    for entry in range(40):
        stamp = 1_000_000 + entry * 1_000 + chance.randint(-20_000, 20_000)
        for index in range(chance.randint(1, 3)):
            log.append(Stored(MessageId(entry // 7, entry % 7, index), b"{}", stamp))
    # The least publish time from each message on bounds that message's event time.
    least = [min(m.publish_ms for m in log[i:]) for i in range(len(log))]
    part, end = Part("s", "t", 0), Position(0, *_triple(log[-1]))
    moved = 0
    for _ in range(60):
        before_ms = chance.randint(950_000, 1_080_000)
        start = None
        if chance.random() < 0.5:
            start = Position(0, *_triple(chance.choice(log[:-1])))
        client = Careless(log, chance)
        found = begin_at(client, part, start, end, before_ms * 1000)
        if found != start:
            moved += 1
            assert found is not None
            assert start is None or start < found <= end
            passed = [i for i, m in enumerate(log) if _triple(m) <= found[1:]]
            assert all(least[i] < before_ms for i in passed)
    assert moved > 5


def _triple(message: Stored) -> tuple[int, int, int]:
    return (message.at.ledger, message.at.entry, message.at.batch)


def test_a_start_that_is_not_there_is_told_as_ever() -> None:
    clock = SimulatedClock(start_us=1_700_000_000_000_000)
    log = SimulatedLog(clock=clock)
    stream = Stream("reads", COLUMNS, time="ts", ahead_us=1_000)
    log.create(stream)
    now = clock.now_us()
    log.append(stream, timed(0, [now] * 50))
    middle = Position(*positions_of(read_all(log, stream))[40])
    foreign = middle._replace(batch=middle.batch + 1_000)
    clock.sleep_s(3_600)
    log.append(stream, timed(50, [clock.now_us()]))
    since = {"time_from_us": clock.now_us()}
    assert numbers(read_all(log, stream, start=Cut((middle,)), **since)) == [50]
    with pytest.raises(UnknownPosition):
        read_all(log, stream, start=Cut((foreign,)), **since)
    early = Position(*positions_of(read_all(log, stream))[0])
    log.unload("reads")
    log.append(stream, timed(51, [clock.now_us()]))
    log.trim("reads", log.end("reads").positions[0])
    with pytest.raises(HistoryLost):
        read_all(log, stream, start=Cut((early,)), **since)
    # What was removed from the beginning is not missed by who asks for what is left.
    assert numbers(read_all(log, stream, **since)) == [51]


class Counting(PulsarLog):
    """A ledger that notes where it begins to read from the broker, and how much it hands over."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reads: list[tuple[Position | None, Position]] = []
        self.taken = 0

    def decoded(self, stream: Any, part: Any, start: Any, end: Any, **options: Any) -> Any:
        self.reads.append((start, end))
        for one in super().decoded(stream, part, start, end, **options):
            self.taken += one.rows.height
            yield one


@pytest.fixture
def counting(broker: Broker) -> Iterator[Counting]:
    with closing(Counting(broker.url, admin_url=broker.admin_url)) as log:
        yield log


def lots(log: PulsarLog, stream: Stream, count: int, size: int) -> list[int]:
    """Append lots of events that happen as they are published; return when each begins."""
    moments = []
    for lot in range(count):
        moment = time.time_ns() // 1000
        # Publish times are in milliseconds, and lots are to differ in them.
        while time.time_ns() // 1000 < moment + 60_000:
            time.sleep(0.005)
        moment += 60_000
        log.append(stream, timed(lot * size, [moment] * size))
        moments.append(moment)
    return moments


@pytest.mark.pulsar
@pytest.mark.parametrize(("partitions", "json_only"), [(1, True), (1, False), (3, True)])
def test_what_was_published_before_a_slice_is_not_read(
    broker: Broker, counting: Counting, partitions: int, json_only: bool
) -> None:
    key = ("user",) if partitions > 1 else ()
    stream = Stream(
        broker.fresh(), COLUMNS, time="ts", key=key, partitions=partitions, json_only=json_only
    )
    promised = replace(stream, ahead_us=1_000)
    counting.create(stream)
    moments = lots(counting, stream, 6, 1_500)
    since = {"time_from_us": moments[4]}
    counting.taken = 0
    whole = answers(counting, stream, **since)
    assert counting.taken == 9_000
    counting.taken, counting.reads = 0, []
    assert answers(counting, promised, **since) == whole
    assert len(whole[0]) == 3_000
    assert all(start is not None for start, _ in counting.reads)
    # Of the lot before, the last entry is where it begins.
    assert 3_000 <= counting.taken < 4_500
    cut = Cut(tuple(start for start, _ in counting.reads if start is not None))
    later = {"start": cut, "time_from_us": moments[1]}
    assert answers(counting, promised, **later) == answers(counting, stream, **later)
    nothing = {"time_from_us": time.time_ns() // 1000 + HOUR_US}
    counting.taken = 0
    assert answers(counting, promised, **nothing) == ([], whole[1])
    assert counting.taken == 0


@pytest.mark.pulsar
def test_a_stretch_that_begins_later_is_cached_as_such(
    broker: Broker, counting: Counting, tmp_path: Path
) -> None:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", ahead_us=1_000)
    counting.create(stream)
    moments = lots(counting, stream, 4, 6_000)
    cached = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
    end = counting.end(stream.name).get(0)
    plain = replace(stream, ahead_us=None)

    def read(since_us: int | None, beginnings: int) -> None:
        counting.reads = []
        found = answers(cached, stream, time_from_us=since_us)
        assert len(counting.reads) == beginnings
        reads, counting.reads = counting.reads, []
        assert found == answers(counting, plain, time_from_us=since_us)
        counting.reads = reads

    read(moments[3], 1)
    ((third, until),) = counting.reads
    assert third is not None
    assert until == end
    read(moments[3], 0)
    # An earlier slice is read up to where the cached one begins, and so is all that is left.
    read(moments[2], 1)
    ((second, until),) = counting.reads
    assert second is not None
    assert (second < third, until) == (True, third)
    read(moments[2], 0)
    read(None, 1)
    assert counting.reads == [(None, second)]
    read(None, 0)
    read(moments[1], 0)
    assert len(list((tmp_path / "cache").glob("*/*.arrow"))) == 3


@pytest.mark.pulsar
def test_who_reads_a_broken_promise_is_told_once(
    broker: Broker, counting: Counting, tmp_path: Path
) -> None:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", ahead_us=60_000_000)
    counting.create(stream)
    now = time.time_ns() // 1000
    cached = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
    counting.append(stream, timed(0, [now, now + 50_000_000]))
    assert len(numbers(read_all(cached, stream))) == 2
    counting.append(stream, timed(2, [now + HOUR_US, now]))
    with pytest.warns(PromiseWarning, match=r"lies 0:59:\d\d.* no more than 0:01:00 was promised"):
        assert len(numbers(read_all(cached, stream))) == 4
    counting.append(stream, timed(4, [now + HOUR_US]))
    assert len(numbers(read_all(cached, stream))) == 5


@pytest.mark.pulsar
def test_a_promise_is_that_of_now(broker: Broker, counting: Counting) -> None:
    """What a version of a feature was defined with may be older than the promise."""
    stream = Stream(broker.fresh(), COLUMNS, time="ts")
    counting.create(stream)
    moments = lots(counting, stream, 2, 1_000)
    counting.promised = lambda _: 1_000
    batches = read_all(counting, stream, time_from_us=moments[1])
    assert numbers(batches) == list(range(1_000, 2_000))
    assert counting.taken < 2_000
    assert all(TIME in b.rows.columns for b in batches)
