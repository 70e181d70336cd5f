"""Online reads: `FeatureReader.read`, as `serve` does it, beside redis-py's own pipeline."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import redis

from fs_notebook.language.expr import Column
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.serve import FeatureReader, Served
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run
from tests.benchmarks.work import fold_all

EVENTS_EACH = 10
BLOCK_ENTITIES = 20_000
CALLS_MAX = 1_000


def fill(config: Config) -> None:
    """Let a worker write ten features of every entity, and the same values into plain hashes."""
    store = RedisStore(config["redis"])
    source = data.stream("read_events")
    definition = data.define("ten", data.TEN_SQL, source)
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        log = EmbeddedLog(Path(folder))
        log.create(source)
        log.append(source, data.events(config["entities"] * EVENTS_EACH, config["entities"]))
        fold_all(definition, log, store)
        log.close()
    plan = definition.plan
    columns = tuple(k.expr.name for k in plan.keys if isinstance(k.expr, Column))
    served = Served("ten", 1, definition.fingerprint, definition.shard, plan, columns)
    store.publish("ten", served.to_record())
    users = [f"u{i}" for i in range(config["entities"])]
    rows = FeatureReader(store).read(list(data.TEN), user=users).rows
    with redis.Redis.from_url(config["redis"]) as client:
        pipe = client.pipeline(transaction=False)
        for row in rows:
            present = {n: row[n] for n in data.TEN if row[n] is not None}
            pipe.hset(f"raw:{row['user']}", mapping=present)
        pipe.execute()
    store.close()


@contextmanager
def ours(config: Config) -> Iterator[Run]:
    store = RedisStore(config["redis"])
    reader = FeatureReader(store)

    def read(users: list[str]) -> int:
        answer = reader.read(list(data.TEN), user=users).to_dict()
        return len(answer["f9"])

    yield lambda: _block(read, config)
    store.close()


@contextmanager
def raw(config: Config) -> Iterator[Run]:
    """The fields of every entity's hash in one pipeline: bytes, as Redis sends them."""
    fields = list(data.TEN)
    with redis.Redis.from_url(config["redis"]) as client:

        def read(users: list[str]) -> int:
            pipe = client.pipeline(transaction=False)
            for user in users:
                pipe.hmget(f"raw:{user}", fields)
            return len(pipe.execute())

        yield lambda: _block(read, config)


def _block(read: object, config: Config) -> float:
    """Return the median seconds of many calls, each for other entities."""
    assert callable(read)
    size = config["size"]
    random = np.random.default_rng(data.SEED)
    calls = min(max(BLOCK_ENTITIES // size, 10), CALLS_MAX)
    drawn = random.integers(0, config["entities"], (calls, size))
    asked = [[f"u{i}" for i in row] for row in drawn]
    taken_s: list[float] = []
    for users in asked:
        begun_s = time.perf_counter()
        count = read(users)
        taken_s.append(time.perf_counter() - begun_s)
        assert count == size
    return statistics.median(taken_s)
