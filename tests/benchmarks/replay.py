"""Reading a topic: the bare client's loop, our read with decoding, and our cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pulsar

from fs_notebook.log.cache import CachedLog
from fs_notebook.log.connect import CACHE_BYTES_MAX
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.position import START
from fs_notebook.types import TIME
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run

QUEUE_MESSAGES = 10_000
WAIT_MS = 10_000


def client_of(url: str) -> Any:
    log = Path(tempfile.gettempdir()) / "fs-notebook-benchmark-client.log"
    return pulsar.Client(url, logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, str(log)))


def fill(config: Config) -> float:
    """Write the topic's messages, with a producer's usual batching; return their mean size."""
    messages = data.json_messages(data.events(config["messages"], config["entities"]))
    log = PulsarLog(config["url"], admin_url=config["admin_url"])
    log.create(data.stream(config["topic"]))
    log.close()
    failed: list[Any] = []

    def acknowledged(result: Any, _: Any) -> None:
        if result != pulsar.Result.Ok:
            failed.append(result)

    client = client_of(config["url"])
    producer = client.create_producer(
        config["topic"],
        batching_enabled=True,
        block_if_queue_full=True,
        max_pending_messages=20_000,
    )
    for message in messages:
        producer.send_async(message, acknowledged)
    producer.flush()
    client.close()
    assert not failed, failed[:3]
    return sum(map(len, messages)) / len(messages)


@contextmanager
def bare(config: Config) -> Iterator[Run]:
    """The client as its documentation has it: read a message, take its bytes."""
    client = client_of(config["url"])
    count = config["messages"]

    def run() -> float:
        size = 0
        begun_s = time.perf_counter()
        reader = client.create_reader(
            config["topic"], pulsar.MessageId.earliest, receiver_queue_size=QUEUE_MESSAGES
        )
        for _ in range(count):
            size += len(reader.read_next(WAIT_MS).data())
        taken_s = time.perf_counter() - begun_s
        reader.close()
        assert size > 0
        return taken_s

    yield run
    client.close()


@contextmanager
def ours(config: Config) -> Iterator[Run]:
    """Our read of the topic, without a cache."""
    log = PulsarLog(config["url"], admin_url=config["admin_url"])
    yield lambda: _read_all(log, config)
    log.close()


@contextmanager
def cold(config: Config) -> Iterator[Run]:
    """The first read through the cache, which fills it."""
    log = PulsarLog(config["url"], admin_url=config["admin_url"])

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
            cache = SegmentCache(Path(folder), bytes_max=CACHE_BYTES_MAX)
            return _read_all(CachedLog(log, cache), config)

    yield run
    log.close()


@contextmanager
def warm(config: Config) -> Iterator[Run]:
    """Every further read through the cache."""
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        plain = PulsarLog(config["url"], admin_url=config["admin_url"])
        log = CachedLog(plain, SegmentCache(Path(folder), bytes_max=CACHE_BYTES_MAX))
        _read_all(log, config)
        yield lambda: _read_all(log, config)
        plain.close()


def _read_all(log: Any, config: Config) -> float:
    return read_all(log, data.stream(config["topic"]), config["messages"])


def read_all(log: Any, stream: Stream, count: int) -> float:
    """Read to the end and use every value: a frame that is mapped from a file is not yet read."""
    rows = used = 0
    begun_s = time.perf_counter()
    for batch in log.read(stream, start=START, end=log.end(stream.name)):
        rows += batch.rows.height
        used += batch.rows.select(
            pl.col("user").str.len_bytes().sum(),
            pl.col("readtime").sum(),
            pl.col("amount").sum(),
            pl.col("ts").max(),
            pl.col(TIME).max().alias("time"),
        ).height
    taken_s = time.perf_counter() - begun_s
    assert rows == count, rows
    assert used > 0
    return taken_s
