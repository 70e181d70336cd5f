"""Going back to the former version, beside what it would take without it: folding all again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fs_notebook.online.redis_store import RedisStore
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run
from tests.benchmarks.work import filled_ledger, fold_all


@contextmanager
def rollback(config: Config) -> Iterator[Run]:
    """From the call until a reader has the other version's value, both versions being warm."""
    with tempfile.TemporaryDirectory(dir=config["folder"]) as folder:
        session = Session(Connection(Path(folder), "embedded:", config["redis"]))
        try:
            events = data.events(config["messages"], config["entities"])
            session.upload(events, "read_events", time="ts")
            for sign in (1, -1):
                text = data.WORKER_SQL.replace("COUNT(*)", f"COUNT(*) * {sign}")
                session.define("flipped", text)
                session.promote("flipped")
            user = events["user"][0]

            def run() -> float:
                (former,) = session.serve("reads", user=user)["reads"]
                begun_s = time.perf_counter()
                session.rollback("flipped")
                (value,) = session.serve("reads", user=user)["reads"]
                taken_s = time.perf_counter() - begun_s
                assert value == -former
                return taken_s

            yield run
        finally:
            session.stop()
            session.close()


@contextmanager
def backfill(config: Config) -> Iterator[Run]:
    """A worker from nothing to the end of the stream."""
    with filled_ledger(config, config["messages"]) as log:
        store = RedisStore(config["redis"])
        definition = data.define("folded_again", data.WORKER_SQL, data.stream("read_events"))

        def run() -> float:
            store.drop(definition.shard)
            taken_s, events = fold_all(definition, log, store)
            assert events == config["messages"]
            return taken_s

        yield run
        store.close()
