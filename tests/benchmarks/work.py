"""The worker from an empty store to the end of the stream, commits to Redis included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from fs_notebook.log.cache import CachedLog
from fs_notebook.log.connect import CACHE_BYTES_MAX
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.worker.loop import Worker
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run


class Watched:
    """A store that notices the commit by which a worker says that it has caught up."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.live = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, lease: Any, **options: Any) -> Any:
        committed = self._store.commit(lease, **options)
        self.live = options["info"].get("phase") == "live"
        return committed


def fold_all(definition: Any, log: Any, store: RedisStore) -> tuple[float, int]:
    """Run a worker until it has caught up; return its seconds and the events it counted."""
    watched: Any = Watched(store)
    worker = Worker(definition, log, watched, should_stop=lambda: watched.live)
    begun_s = time.perf_counter()
    worker.run()
    taken_s = time.perf_counter() - begun_s
    state = store.state(definition.shard)
    assert state is not None
    assert watched.live
    return taken_s, int(state.info["events"])


@contextmanager
def on_pulsar(config: Config) -> Iterator[Run]:
    """As a promoted feature finds it: the topic was never read before on this machine."""
    plain = PulsarLog(config["url"], admin_url=config["admin_url"])
    store = RedisStore(config["redis"])
    definition = data.define("bench", data.WORKER_SQL, data.stream(config["topic"]))

    def run() -> float:
        _flush(config["redis"])
        with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
            cache = SegmentCache(Path(folder), bytes_max=CACHE_BYTES_MAX)
            taken_s, events = fold_all(definition, CachedLog(plain, cache), store)
        assert events == config["messages"]
        return taken_s

    yield run
    store.close()
    plain.close()


@contextmanager
def filled_ledger(config: Config, count: int) -> Iterator[EmbeddedLog]:
    """An embedded ledger with `count` events in its stream ``read_events``."""
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        log = EmbeddedLog(Path(folder))
        source = data.stream("read_events")
        log.create(source)
        log.append(source, data.events(count, config["entities"]))
        yield log
        log.close()


@contextmanager
def on_embedded(config: Config) -> Iterator[Run]:
    """The same events from the embedded ledger."""
    with filled_ledger(config, config["messages"]) as log:
        store = RedisStore(config["redis"])
        definition = data.define("bench", data.WORKER_SQL, data.stream("read_events"))

        def run() -> float:
            _flush(config["redis"])
            taken_s, events = fold_all(definition, log, store)
            assert events == config["messages"]
            return taken_s

        yield run
        store.close()


def _flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()
