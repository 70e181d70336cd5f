"""How long after an event was sent its value is served, beside how long a bare client waits for it.

A process of its own sends at a steady rate. Every `PROBE_EVERY`-th event is a probe, which carries
when it was sent; each side tells the 99th percentile of how old probes are when it sees them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulsar

from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.serve import FeatureReader, Served
from fs_notebook.types import Type
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run
from tests.benchmarks.replay import WAIT_MS, client_of
from tests.support.forks import forks
from tests.support.sessions import until

RATE = 5_000
PROBE_EVERY = 100
TICK_S = 0.005
BATCH_MS = 5
"""How long the client gathers events before it sends them, as one does at such a rate."""
LOOK_S = 0.003
PROBE = "probe"
SQL = "SELECT user, MAX(sent_us) AS newest, COUNT(*) AS events FROM read_events GROUP BY user"
COLUMNS = (("user", Type.VARCHAR), ("sent_us", Type.BIGINT))


def percentile(waits_us: list[int], share: float) -> float:
    """Return the least wait, in seconds, that `share` of all waits do not exceed."""
    ordered = sorted(waits_us)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6


def _is_live(store: RedisStore, shard: str) -> bool:
    state = store.state(shard)
    return state is not None and state.info.get("phase") == "live"


class _Sender:
    """The process that sends; `sent` waits for its end."""

    def __init__(self, url: str, topic: str, count: int) -> None:
        arguments = [sys.executable, "-m", "tests.benchmarks.freshness", url, topic, str(count)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    def sent(self) -> list[int]:
        """Return when each probe was sent, in microseconds since the epoch."""
        out, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return [int(us) for us in json.loads(out)]

    @property
    def done(self) -> bool:
        return self._process.poll() is not None


@contextmanager
def served(config: Config) -> Iterator[Run]:
    """From the call that sends to the read that has the value."""
    topic = f"{config['topic']}-served"
    source = Stream(topic, COLUMNS)
    log = PulsarLog(config["url"], admin_url=config["admin_url"])
    log.create(source)
    log.close()
    definition = data.define("fresh", SQL, source)
    store = RedisStore(config["redis"])
    record = Served(
        "fresh", 1, definition.fingerprint, definition.shard, definition.plan, ("user",)
    )
    store.publish("fresh", record.to_record())
    reader = FeatureReader(store)

    def newest() -> int:
        (value,) = reader.read("newest", user=PROBE)["newest"]
        return int(value or 0)

    with (
        tempfile.TemporaryDirectory(dir=config["folder"]) as folder,
        forks(definition, Path(folder) / "words") as parent,
    ):
        parent.start(config["url"], config["admin_url"], config["redis"])
        until(lambda: _is_live(store, definition.shard), what="a live worker")

        def run() -> float:
            before = newest()
            sender = _Sender(config["url"], topic, config["steady"])
            seen: list[tuple[int, int]] = []
            last = before
            give_up_s = time.monotonic() + 120
            sent: list[int] | None = None
            while sent is None or last < sent[-1]:
                value = newest()
                if value > last:
                    seen.append((value, time.time_ns() // 1_000))
                    last = value
                if sent is None and sender.done:
                    sent = sender.sent()
                assert time.monotonic() < give_up_s
                # Who looks more often than an application would takes the time of what it looks at.
                time.sleep(LOOK_S)
            waits: list[int] = []
            at = 0
            for us in sent:
                while seen[at][0] < us:
                    at += 1
                waits.append(seen[at][1] - us)
            return percentile(waits, 0.99)

        yield run
    store.close()


@contextmanager
def received(config: Config) -> Iterator[Run]:
    """From the call that sends to the bare client's message."""
    topic = f"{config['topic']}-received"
    client = client_of(config["url"])
    reader = client.create_reader(topic, pulsar.MessageId.latest)

    def run() -> float:
        count = config["steady"]
        sender = _Sender(config["url"], topic, count)
        waits: list[int] = []
        for _ in range(count):
            body = json.loads(reader.read_next(WAIT_MS * 6).data())
            if body["user"] == PROBE:
                waits.append(time.time_ns() // 1_000 - body["sent_us"])
        sender.sent()
        return percentile(waits, 0.99)

    yield run
    client.close()


def _send(url: str, topic: str, count: int) -> list[int]:
    client = client_of(url)
    producer = client.create_producer(
        topic, block_if_queue_full=True, batching_enabled=True,
        batching_max_publish_delay_ms=BATCH_MS,
    )  # fmt: skip
    probes: list[int] = []
    failed: list[Any] = []

    def acknowledged(result: Any, _: Any) -> None:
        if result != pulsar.Result.Ok:
            failed.append(result)

    begun_s = time.perf_counter()
    for number in range(count):
        ahead_s = begun_s + number / RATE - time.perf_counter()
        if ahead_s > TICK_S:
            time.sleep(ahead_s)
        is_probe = number % PROBE_EVERY == PROBE_EVERY - 1
        sent_us = time.time_ns() // 1_000
        if is_probe:
            probes.append(sent_us)
        body = {"user": PROBE if is_probe else f"u{number % 997}", "sent_us": sent_us}
        producer.send_async(json.dumps(body).encode(), acknowledged)
    producer.flush()
    client.close()
    assert not failed, failed[:3]
    return probes


if __name__ == "__main__":
    print(json.dumps(_send(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
