"""Every kind of ledger behind one fixture, and events to put into it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Batch, Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.position import START, Cut, Position
from fs_notebook.testing import SimulatedClock, SimulatedLog
from fs_notebook.types import TIME, Type
from tests.support.broker import Broker

COLUMNS = (
    ("user", Type.VARCHAR),
    ("n", Type.BIGINT),
    ("amount", Type.DOUBLE),
    ("ok", Type.BOOLEAN),
    ("ts", Type.TIMESTAMP),
    ("day", Type.DATE),
)


@dataclass
class Ledger:
    """A ledger under test, with fresh streams on it."""

    kind: str
    log: Any
    partitions_max: int

    def stream(self, **changes: Any) -> Stream:
        """Make a stream that nobody else has."""
        given = {"columns": COLUMNS, "time": "ts"} | changes
        stream = Stream(f"t-{uuid.uuid4().hex[:12]}", **given)
        self.log.create(stream)
        return stream


def events(first: int, count: int) -> pl.DataFrame:
    """Return `count` events numbered from `first`, a second apart, from seven users."""
    number = pl.int_range(first, first + count, dtype=pl.Int64, eager=True)
    frame = pl.DataFrame({"n": number})
    return frame.select(
        ("u" + (pl.col("n") % 7).cast(pl.String)).alias("user"),
        "n",
        (pl.col("n") / 4).alias("amount"),
        pl.when(pl.col("n") % 5 > 0).then(pl.col("n") % 2 == 0).alias("ok"),
        (1_700_000_000_000_000 + pl.col("n") * 1_000_001)
        .cast(pl.Datetime("us", "UTC"))
        .alias("ts"),
        (pl.lit(19_000) + pl.col("n") % 100).cast(pl.Int32).cast(pl.Date).alias("day"),
    )


def read_all(log: Any, stream: Stream, **options: Any) -> list[Batch]:
    """Return the batches of (start, end], by default the whole stream."""
    options = {"start": START, "end": None} | options
    if options["end"] is None:
        options["end"] = log.end(stream.name)
    with closing(log.read(stream, **options)) as batches:
        return list(batches)


def rows_of(batches: list[Batch]) -> pl.DataFrame:
    """Return all rows of the batches, without the column that reading adds."""
    return pl.concat([b.rows for b in batches]).drop(TIME)


def positions_of(batches: list[Batch]) -> list[tuple[int, ...]]:
    return [row for b in batches for row in b.positions().rows()]


def numbers(batches: list[Batch]) -> list[int]:
    return [n for b in batches for n in b.rows.get_column("n").to_list()]


def upto(positions: list[tuple[int, ...]]) -> Cut:
    """Return the cut just behind the given positions."""
    return START.advanced([Position(*p) for p in positions])


@pytest.fixture(scope="session")
def pulsar_log(broker: Broker) -> Iterator[PulsarLog]:
    """The run's broker as a ledger, without a cache."""
    log = PulsarLog(broker.url, admin_url=broker.admin_url)
    yield log
    log.close()


@pytest.fixture
def client(broker: Broker, tmp_path: Path) -> Iterator[Any]:
    """Somebody else's client of the run's broker."""
    import pulsar

    logger = pulsar.FileLogger(pulsar.LoggerLevel.Error, str(tmp_path / "client.log"))
    client = pulsar.Client(broker.url, logger=logger)
    yield client
    client.close()


@pytest.fixture(
    params=[
        "embedded",
        "simulated",
        pytest.param("pulsar", marks=pytest.mark.pulsar),
        pytest.param("cached", marks=pytest.mark.pulsar),
    ]
)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """Each kind of ledger in turn."""
    if request.param == "embedded":
        log = EmbeddedLog(tmp_path / "ledger")
        yield Ledger("embedded", log, 1)
        log.close()
        return
    if request.param == "simulated":
        # Its time stands still while nobody waits, hence it is set after the test's own.
        clock = SimulatedClock(start_us=SYSTEM.now_us() + 3_600_000_000)
        yield Ledger("simulated", SimulatedLog(clock=clock), 4)
        return
    pulsar = request.getfixturevalue("pulsar_log")
    if request.param == "pulsar":
        yield Ledger("pulsar", pulsar, 4)
    else:
        cache = SegmentCache(tmp_path / "cache", bytes_max=2**30)
        yield Ledger("cached", CachedLog(pulsar, cache), 4)
