"""The fold itself: micro-batches, windows, a preview, and a busy key's read."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.fold import Fold, State
from fs_notebook.compute.preview import WHOLE, preview
from fs_notebook.compute.running import Running
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.serve import FeatureReader, Served
from fs_notebook.position import START
from fs_notebook.types import TIME
from fs_notebook.worker.loop import Worker
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run
from tests.benchmarks.work import filled_ledger

BATCH_ROWS = 10_000
STRETCH_DAYS = data.WINDOW_DAYS + 1
QUIET_US = 2 * 3_600_000_000
COLD_EVENTS = 100


@contextmanager
def one_thread() -> Iterator[None]:
    """Let processes that start inside use one core: Polars reads this when it is loaded."""
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
        else:
            os.environ["POLARS_MAX_THREADS"] = before


def _batches(config: Config) -> list[pl.DataFrame]:
    frame = data.events(config["messages"], config["entities"])
    frame = frame.with_columns(pl.col("ts").alias(TIME))
    return [frame[i : i + BATCH_ROWS] for i in range(0, frame.height, BATCH_ROWS)]


Folding = Callable[[Fold, list[pl.DataFrame]], State]


def _at_the_end(fold: Fold, batches: list[pl.DataFrame]) -> State:
    running = Running(fold)
    for batch in batches:
        running.add(batch)
    return running.state


def _after_each(fold: Fold, batches: list[pl.DataFrame]) -> State:
    state = fold.empty
    for batch in batches:
        state = fold.add(state, batch).state
    return state


def _folding(config: Config, sql: str, folding: Folding) -> Run:
    fold = Fold(data.define("bench", sql, data.stream("read_events")).plan)
    batches = _batches(config)

    def run() -> float:
        begun_s = time.perf_counter()
        state = folding(fold, batches)
        taken_s = time.perf_counter() - begun_s
        assert state.lifetime.height > 0
        return taken_s

    return run


@contextmanager
def lifetime(config: Config) -> Iterator[Run]:
    """Three aggregates over lifetimes, batch after batch, the state of all entities at the end."""
    yield _folding(config, data.WORKER_SQL, _at_the_end)


@contextmanager
def by_hand(config: Config) -> Iterator[Run]:
    """The same three, as one would write them for this query alone."""
    batches = _batches(config)

    def run() -> float:
        begun_s = time.perf_counter()
        found = _grouped(pl.concat(batches))
        taken_s = time.perf_counter() - begun_s
        assert found.height > 0
        return taken_s

    yield run


@contextmanager
def lifetime_each(config: Config) -> Iterator[Run]:
    """Three aggregates over lifetimes, the state of all entities made anew after each batch."""
    yield _folding(config, data.WORKER_SQL, _after_each)


@contextmanager
def by_hand_each(config: Config) -> Iterator[Run]:
    """The same, as one would write it for this query alone."""
    batches = _batches(config)

    def run() -> float:
        begun_s = time.perf_counter()
        state: pl.DataFrame | None = None
        for batch in batches:
            part = _grouped(batch)
            if state is not None:
                part = pl.concat([state, part]).group_by("user").agg(pl.all().sum())
            state = part
        return time.perf_counter() - begun_s

    yield run


def _grouped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("user").agg(
        pl.len().cast(pl.Int64).alias("n"), pl.col("readtime").sum(), pl.col("amount").sum()
    )


@contextmanager
def week(config: Config) -> Iterator[Run]:
    """An exact window of seven days."""
    yield _folding(config, data.sum_sql("readtime", windowed=True), _at_the_end)


@contextmanager
def preview_cell(config: Config) -> Iterator[Run]:
    """A whole preview, replay from the embedded ledger included."""
    source = data.stream("read_events")
    plan = data.define("bench", data.WORKER_SQL, source).plan
    with filled_ledger(config, config["events"]) as log:

        def run() -> float:
            begun_s = time.perf_counter()
            shown = preview("bench", plan, source, log, clock=SYSTEM, where=WHOLE)
            taken_s = time.perf_counter() - begun_s
            assert shown.folded == config["events"]
            return taken_s

        yield run


@contextmanager
def query_by_hand(config: Config) -> Iterator[Run]:
    """The query in Polars over the same replay, as one would write it for this query alone."""
    source = data.stream("read_events")
    columns = ["user", "readtime", "amount"]
    with filled_ledger(config, config["events"]) as log:

        def run() -> float:
            begun_s = time.perf_counter()
            batches = log.read(source, start=START, end=log.end(source.name), columns=columns)
            frame = pl.concat([b.rows for b in batches])
            means = frame.group_by("user").agg(
                pl.len().alias("reads"), pl.col("readtime").sum().alias("total"),
                pl.col("amount").mean().alias("mean"),
            )  # fmt: skip
            result = means.sort("user")
            taken_s = time.perf_counter() - begun_s
            assert result.height
            return taken_s

        yield run


def fill_hot(config: Config) -> None:
    """Let a worker fold a key with very many events in its window, and one with few.

    The newest events are two hours old, so that something has left both windows since they were
    written: both are finished anew at each read.
    """
    until_us = SYSTEM.now_us() - QUIET_US
    span_us = STRETCH_DAYS * data.DAY_US

    def rows(user: str, count: int) -> pl.DataFrame:
        at = (
            until_us
            - span_us
            + pl.int_range(count, eager=True, dtype=pl.Int64) * (span_us // count)
        )
        return pl.DataFrame({"ts": at.cast(pl.Datetime("us", "UTC"))}).with_columns(
            pl.lit(user).alias("user"), pl.lit(1).cast(pl.Int64).alias("readtime"),
            pl.lit(0.5).alias("amount"),
        )  # fmt: skip

    frame = pl.concat(
        [
            rows("hot", config["hot_events"] * STRETCH_DAYS // data.WINDOW_DAYS),
            rows("cold", COLD_EVENTS),
        ]
    ).sort("ts")
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        log = EmbeddedLog(Path(folder))
        definition = _hot()
        log.create(definition.source)
        names = [n for n, _ in data.COLUMNS]
        log.append(definition.source, frame.select(names))
        store = RedisStore(config["redis"])
        stopped: list[bool] = []

        def caught_up() -> bool:
            state = store.state(definition.shard)
            if state is not None and state.info.get("phase") == "live":
                stopped.append(True)
            return bool(stopped)

        Worker(definition, log, store, should_stop=caught_up).run()
        served = Served(
            "hot", 1, definition.fingerprint, definition.shard, definition.plan, ("user",)
        )
        store.publish("hot", served.to_record())
        store.close()
        log.close()


def _hot() -> Definition:
    sql = data.sum_sql("readtime", windowed=True)
    return data.define("hot", sql, Stream("hot_events", data.COLUMNS, time="ts"))


def _reading(config: Config, user: str) -> Iterator[Run]:
    store = RedisStore(config["redis"])
    reader = FeatureReader(store)
    repeats = 200

    def run() -> float:
        begun_s = time.perf_counter()
        for _ in range(repeats):
            values: Any = reader.read("total", user=user)
        taken_s = (time.perf_counter() - begun_s) / repeats
        assert values["total"][0] > 0
        return taken_s

    yield run
    store.close()


@contextmanager
def hot_read(config: Config) -> Iterator[Run]:
    """Read a key of which nearly every moment an event leaves the window."""
    yield from _reading(config, "hot")


@contextmanager
def cold_read(config: Config) -> Iterator[Run]:
    yield from _reading(config, "cold")
