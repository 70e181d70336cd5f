"""Replays of large messages: what they hold is bounded, and an interrupt ends them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.types import Type
from tests.support.broker import Broker

pytestmark = pytest.mark.pulsar

ROWS, MESSAGES = 250_000, 100
GROWTH_MB_MAX = 200

REPLAY = """
import json, sys, time
from contextlib import closing
from pathlib import Path
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.position import START

def memory_mb(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith(field)).split()[1]) / 1024

url, admin_url, declared, cache = sys.argv[1:]
log = PulsarLog(url, admin_url=admin_url)
log = CachedLog(log, SegmentCache(Path(cache), bytes_max=2**30))
stream = Stream.from_dict(json.loads(declared))
end = log.end(stream.name)
before_mb = memory_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
rows = 0
with closing(log.read(stream, start=START, end=end)) as batches:
    for batch in batches:
        rows += batch.rows.height
        # Whoever folds is slower than a broker of this machine.
        time.sleep(0.02)
print(json.dumps([rows, memory_mb("VmHWM") - before_mb]))
"""


INTERRUPTED = """
import json, os, signal, sys, threading, time
from contextlib import closing
import psutil
from fs_notebook.log import partitions
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.position import START

url, admin_url, declared, _ = sys.argv[1:]
log = PulsarLog(url, admin_url=admin_url)
stream = Stream.from_dict(json.loads(declared))
end = log.end(stream.name)

def readers():
    threads = [t for t in threading.enumerate() if t.name == "fs-notebook-read"]
    return len(threads), len(psutil.Process().children())

told, rows = [], 0
for aside in (False, True):
    # How long it reads alone.
    partitions.APART_AFTER_S = 0.0 if aside else 1e9
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with closing(log.read(stream, start=START, end=end)) as batches:
            for batch in batches:
                rows += batch.rows.height
                # Once where it reads alone, once when another process has joined in.
                if timer.ident is None and bool(readers()[1]) == aside:
                    timer.start()
        timer.join()
    except KeyboardInterrupt:
        # An interrupt may come while a thread that has ended already is waited for.
        until_s = time.monotonic() + 10
        while any(readers()) and time.monotonic() < until_s:
            time.sleep(0.01)
        told.append(readers())
print(json.dumps([told, rows, sum(1 for _ in log.end(stream.name))]))
"""


@pytest.fixture(scope="module")
def large(broker: Broker, pulsar_log: PulsarLog) -> Any:
    """Give two partitions of 400 MB in Arrow messages of 4 MB each, sent as anybody may."""
    import pulsar

    columns = (("v", Type.DOUBLE), ("ts", Type.TIMESTAMP))
    stream = Stream(broker.fresh("large"), columns, time="ts", partitions=2)
    pulsar_log.create(stream)
    chance = np.random.default_rng(1)
    times = 1_700_000_000_000_000 + chance.integers(0, 10**12, ROWS)
    sink = io.BytesIO()
    pl.DataFrame({"v": chance.random(ROWS), "ts": times}).with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC"))
    ).write_ipc_stream(sink)
    payload = sink.getvalue()
    assert 3.9e6 < len(payload) < 4.2e6
    client = pulsar.Client(broker.url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
    for part in range(2):
        topic = f"persistent://public/default/{stream.name}-partition-{part}"
        producer = client.create_producer(topic, batching_enabled=False, block_if_queue_full=True)
        for _ in range(MESSAGES // 2):
            producer.send_async(payload, None, properties={"fs-rows": str(ROWS)})
        producer.flush()
    client.close()
    yield stream
    pulsar_log.delete(stream.name)


def run(script: str, broker: Broker, stream: Stream, *words: str, readers: int) -> Any:
    """Return what a script prints of a replay in a process of its own."""
    given = [broker.url, broker.admin_url, json.dumps(stream.to_dict()), *words]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], capture_output=True, text=True, timeout=100,
        env=os.environ | {"FS_NOTEBOOK_READERS": str(readers)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(120)
def test_a_replay_of_large_messages_holds_few_of_them(
    broker: Broker, large: Stream, tmp_path: Any
) -> None:
    rows, growth_mb = run(REPLAY, broker, large, str(tmp_path / "cache"), readers=0)
    assert rows == ROWS * MESSAGES
    assert growth_mb < GROWTH_MB_MAX


@pytest.mark.timeout(120)
def test_fault_35_an_interrupt_ends_all_that_reads_large_messages(
    broker: Broker, large: Stream
) -> None:
    """No thread and no process is left, and the log stays usable."""
    told, rows, partitions = run(INTERRUPTED, broker, large, "", readers=1)
    assert told == [[0, 0], [0, 0]]
    assert rows < 2 * ROWS * MESSAGES
    assert partitions == 2
