"""A replay holds a bounded part of its topic, however large its messages are."""

from __future__ import annotations

import io
import json
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


@pytest.fixture(scope="module")
def large(broker: Broker, pulsar_log: PulsarLog) -> Any:
    """Give a topic of 400 MB in Arrow messages of 4 MB each, sent as anybody may."""
    import pulsar

    stream = Stream(broker.fresh("large"), (("v", Type.DOUBLE), ("ts", Type.TIMESTAMP)), time="ts")
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
    topic = f"persistent://public/default/{stream.name}"
    producer = client.create_producer(topic, batching_enabled=False, block_if_queue_full=True)
    for _ in range(MESSAGES):
        producer.send_async(payload, None, properties={"fs-rows": str(ROWS)})
    producer.flush()
    client.close()
    yield stream
    pulsar_log.delete(stream.name)


@pytest.mark.timeout(120)
def test_a_replay_of_large_messages_holds_few_of_them(
    broker: Broker, large: Stream, tmp_path: Any
) -> None:
    words = [broker.url, broker.admin_url, json.dumps(large.to_dict())]
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, *words, str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    rows, growth_mb = json.loads(done.stdout)
    assert rows == ROWS * MESSAGES
    assert growth_mb < GROWTH_MB_MAX
