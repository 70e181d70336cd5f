"""What grows with a stream, and what must not: a worker's memory, and its way back to work."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.loop import Worker
from tests.benchmarks import data
from tests.benchmarks.harness import Config, forget_peak, memory_mb
from tests.benchmarks.work import Watched, fold_all

PIECE = 1_000_000
PIECES_TOLD = 10
SOURCE = data.stream("read_events")


class Grown(NamedTuple):
    """What a worker's peak of memory grew by up to a tenth of a stream and up to its end, in MB."""

    tenth_mb: float
    all_mb: float
    seconds: float


class _Weighed(Watched):
    """Notes the peak of memory at the first commit beyond a tenth of the events."""

    def __init__(self, store: RedisStore, events: int) -> None:
        super().__init__(store)
        self._events = events
        self.tenth_mb: float | None = None

    def commit(self, lease: Any, **options: Any) -> Any:
        committed = super().commit(lease, **options)
        done = int(options["info"].get("events", 0))
        if self.tenth_mb is None and done * PIECES_TOLD >= self._events:
            self.tenth_mb = memory_mb("VmHWM")
        return committed


def fill_long(config: Config) -> None:
    """Append `long` events as Arrow batches, a piece at a time."""
    log = PulsarLog(config["url"], admin_url=config["admin_url"])
    stream = data.stream(config["topic"])
    log.create(stream)
    left = config["long"]
    piece = data.events(min(left, PIECE), config["entities"])
    while left:
        log.append(stream, piece.head(left))
        left -= min(left, piece.height)
    log.close()


def worker_growth(config: Config) -> Grown:
    """Fold all of the long topic, commits included."""
    log = PulsarLog(config["url"], admin_url=config["admin_url"])
    store = RedisStore(config["redis"])
    definition = data.define("long", data.WORKER_SQL, data.stream(config["topic"]))
    weighed: Any = _Weighed(store, config["long"])
    worker = Worker(definition, log, weighed, should_stop=lambda: weighed.live)
    before_mb = memory_mb("VmRSS")
    forget_peak()
    begun_s = time.perf_counter()
    worker.run()
    seconds = time.perf_counter() - begun_s
    state = store.state(definition.shard)
    assert state is not None
    assert state.info["events"] == config["long"]
    store.drop(definition.shard)
    return Grown(weighed.tenth_mb - before_mb, memory_mb("VmHWM") - before_mb, seconds)


def fill_many(config: Config) -> None:
    """Fold one event each of `many` entities, and leave one more event to fold."""
    log = EmbeddedLog(Path(config["folder"]) / "many")
    log.create(SOURCE)
    users = np.arange(config["many"])
    rows = pl.DataFrame({"user": users, "readtime": users, "amount": users / 8}).with_columns(
        ("u" + pl.col("user").cast(pl.String)).alias("user"),
        pl.from_epoch(pl.lit(data.BEGIN_US), "us").dt.replace_time_zone("UTC").alias("ts"),
    )
    log.append(SOURCE, rows)
    store = RedisStore(config["redis"])
    fold_all(_many(), log, store)
    log.append(SOURCE, rows.head(1))
    store.close()
    log.close()


def first_commit(config: Config) -> float:
    """Go on from there; return when the event was committed, in seconds since the epoch."""
    log = EmbeddedLog(Path(config["folder"]) / "many")
    store = RedisStore(config["redis"])
    _, events = fold_all(_many(), log, store)
    at_s = time.time()
    assert events == config["many"] + 1
    store.drop(_many().shard)
    store.close()
    log.close()
    return at_s


def _many() -> Any:
    return data.define("many", data.WORKER_SQL, SOURCE)


def promoted(config: Config) -> float:
    """Return the seconds from `promote` to a live feature, nothing running before it."""
    name = f"{config['topic']}-promoted"
    left = config["promoted"]
    with _session(config) as session:
        piece = data.events(min(left, PIECE), config["entities"])
        while left:
            session.upload(piece.head(left), name, time="ts")
            left -= min(left, piece.height)
        session.define("promoted", data.WORKER_SQL.replace("read_events", f'"{name}"'))
        begun_s = time.perf_counter()
        status = session.promote("promoted")
        taken_s = time.perf_counter() - begun_s
        assert (status.state, status.events) == ("live", config["promoted"])
        session.stop()
        session.store.drop(session.catalog.refresh().group("promoted").latest.shard)
    return taken_s


def previewed(config: Config) -> tuple[float, float]:
    """Return what a preview of the JSON topic's last tenth takes, first and again, in ms."""
    stream = data.stream(config["topic"])
    with _session(config) as session:
        session.declare(config["topic"], columns=dict(stream.columns), time="ts")
        session.define(
            "sliced",
            "SELECT user, COUNT(*) AS sliced_reads, SUM(readtime) AS sliced_total, "
            f'AVG(amount) AS sliced_mean FROM "{config["topic"]}" GROUP BY user',
        )
        taken = []
        for _ in range(4):
            begun_s = time.perf_counter()
            preview = session.preview("sliced", last=f"{data.DAYS // 10}d")
            taken.append(1000 * (time.perf_counter() - begun_s))
            assert preview.frame.height > 0
    return taken[0], statistics.median(taken[1:])


@contextmanager
def _session(config: Config) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        place = Connection(Path(folder), config["url"], config["redis"], config["admin_url"])
        session = Session(place)
        try:
            yield session
        finally:
            session.stop()
            session.close()
