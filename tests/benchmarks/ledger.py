"""The ledger beyond one topic of JSON: several partitions, Arrow, Avro; and writing to it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import fastavro
import pulsar
from pulsar.schema import AvroSchema

from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.position import START
from tests.benchmarks import data, replay
from tests.benchmarks.harness import Config, Run, forget_peak, memory_mb

PARTITIONS = 4
TIMES = 2
"""How often a long topic is read to watch the memory of a replay."""
AVRO = {
    "type": "record",
    "name": "Read",
    "fields": [
        {"name": "user", "type": "string"},
        {"name": "readtime", "type": "long"},
        {"name": "amount", "type": "double"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}


def fill_partitions(config: Config) -> None:
    """Write the very messages of the JSON topic to one of four partitions, in turn."""
    log = _log(config)
    log.create(replace(data.stream(config["topic"]), partitions=PARTITIONS))
    log.close()
    messages = data.json_messages(data.events(config["messages"], config["entities"]))
    client = replay.client_of(config["url"])
    for part in range(PARTITIONS):
        _send(client, f"{config['topic']}-partition-{part}", messages[part::PARTITIONS])
    client.close()


def fill_arrow(config: Config) -> None:
    """Append the same events as our own upload does, as Arrow batches."""
    log = _log(config)
    log.create(data.stream(config["topic"]))
    log.append(data.stream(config["topic"]), data.events(config["messages"], config["entities"]))
    log.close()


def fill_avro(config: Config) -> None:
    """Write the same events as Avro, with the topic's schema in the registry."""
    schema = fastavro.parse_schema(AVRO)
    payloads = []
    for row in data.events(config["messages"], config["entities"]).iter_rows(named=True):
        sink = io.BytesIO()
        fastavro.schemaless_writer(sink, schema, row)
        payloads.append(sink.getvalue())
    log = _log(config)
    log.create(replace(data.stream(config["topic"]), format="avro"))
    log.close()
    client = replay.client_of(config["url"])
    _send(client, config["topic"], payloads, schema=_Encoded(None, schema_definition=AVRO))
    client.close()


class _Encoded(AvroSchema):  # type: ignore[misc]
    """Avro that was encoded before."""

    def encode(self, obj: bytes) -> bytes:
        return obj


@contextmanager
def partitions(config: Config) -> Iterator[Run]:
    """Our read of a topic of four partitions, side by side."""
    stream = replace(data.stream(config["parted"]), partitions=PARTITIONS)
    yield from _reading(config, stream)


@contextmanager
def arrow(config: Config) -> Iterator[Run]:
    """Our read of Arrow batches."""
    yield from _reading(config, data.stream(config["arrow"]))


@contextmanager
def avro(config: Config) -> Iterator[Run]:
    """Our read of Avro, by the topic's registry."""
    yield from _reading(config, replace(data.stream(config["avro"]), format="avro"))


def _reading(config: Config, stream: Any) -> Iterator[Run]:
    log = _log(config)
    yield lambda: replay.read_all(log, stream, config["messages"])
    log.close()


@contextmanager
def upload_json(config: Config) -> Iterator[Run]:
    """Our append of events as JSON messages, until they are stored."""
    yield from _appending(config, json_only=True)


@contextmanager
def upload_arrow(config: Config) -> Iterator[Run]:
    """Our append of the same events as Arrow batches."""
    yield from _appending(config, json_only=False)


def _appending(config: Config, *, json_only: bool) -> Iterator[Run]:
    log = _log(config)
    rows = data.events(config["sent"], config["entities"])
    count = 0

    def run() -> float:
        nonlocal count
        count += 1
        name = f"{config['topic']}-{'json' if json_only else 'arrow'}-{count}-{time.time_ns()}"
        stream = replace(data.stream(name), json_only=json_only)
        log.create(stream)
        begun_s = time.perf_counter()
        log.append(stream, rows)
        return time.perf_counter() - begun_s

    yield run
    log.close()


@contextmanager
def send_loop(config: Config) -> Iterator[Run]:
    """The client as its documentation has it: encoded before, no answer asked for, then flushed."""
    messages = data.json_messages(data.events(config["sent"], config["entities"]))
    client = replay.client_of(config["url"])

    def run() -> float:
        topic = f"{config['topic']}-bare-{time.time_ns()}"
        producer = client.create_producer(
            topic, batching_enabled=True, batching_max_messages=5_000,
            max_pending_messages=20_000, block_if_queue_full=True,
        )  # fmt: skip
        begun_s = time.perf_counter()
        for message in messages:
            producer.send_async(message, None)
        producer.flush()
        taken_s = time.perf_counter() - begun_s
        producer.close()
        return taken_s

    yield run
    client.close()


def growth_mb(config: Config) -> tuple[float, float]:
    """Return what a long replay's peak of memory grows by, up to a tenth of it and in all, in MB.

    Nothing of what is read is kept. The topic is read `TIMES` times.
    """
    log = _log(config)
    stream = data.stream(config["topic"])
    end = log.end(stream.name)
    rows, tenth_mb = 0, 0.0
    before_mb = memory_mb("VmRSS")
    forget_peak()
    for _ in range(TIMES):
        for batch in log.read(stream, start=START, end=end):
            rows += batch.rows.height
            if not tenth_mb and rows * 10 >= TIMES * config["long"]:
                tenth_mb = memory_mb("VmHWM") - before_mb
    assert rows == TIMES * config["long"]
    log.close()
    return tenth_mb, memory_mb("VmHWM") - before_mb


def _log(config: Config) -> PulsarLog:
    return PulsarLog(config["url"], admin_url=config["admin_url"])


def _send(client: Any, topic: str, payloads: list[bytes], **options: Any) -> None:
    failed: list[Any] = []

    def answered(result: Any, _: Any) -> None:
        if result != pulsar.Result.Ok:
            failed.append(result)

    producer = client.create_producer(
        topic, batching_enabled=True, block_if_queue_full=True, max_pending_messages=20_000,
        **options,
    )  # fmt: skip
    for payload in payloads:
        producer.send_async(payload, answered)
    producer.flush()
    producer.close()
    assert not failed, failed[:3]
