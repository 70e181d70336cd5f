"""A worker killed with SIGKILL again and again, on a real broker and a real Redis.

FS_NOTEBOOK_KILLS says how often; `make soak` asks for more than a test run has time for.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.ingest import fit, to_frame
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.codec import pack_key, unpack_value
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import verify
from tests.support.broker import Broker
from tests.support.forks import forks
from tests.support.redis import RedisServer
from tests.support.sessions import read_events, until
from tests.worker.test_handover import STREAM, definition, run_until_caught_up

KILLS = int(os.environ.get("FS_NOTEBOOK_KILLS", "200"))
USERS = 50
BATCH = 40
EVENTS_MAX = 120_000


@pytest.mark.slow
@pytest.mark.pulsar
@pytest.mark.redis
@pytest.mark.timeout(90 + KILLS)
def test_fault_01_02_two_hundred_kills_lose_nothing_and_double_nothing(
    broker: Broker, own_redis: RedisServer, tmp_path: Path
) -> None:
    """At a random moment after a random number of commits; or before it did anything."""
    chance = random.Random(200)
    ledger = f"{broker.url}/{broker.namespace()}"
    log, store = PulsarLog(ledger, admin_url=broker.admin_url), RedisStore(own_redis.url)
    log.create(STREAM)
    made = definition()
    sent, done, pause = 0, threading.Event(), threading.Event()

    def write() -> None:
        nonlocal sent
        while not done.is_set() and sent < EVENTS_MAX:
            log.append(STREAM, fit(to_frame(read_events(sent, BATCH, users=USERS)), STREAM))
            sent += BATCH
            pause.wait(0.01)

    def at() -> str:
        state = store.state(made.shard)
        return "" if state is None else f"{state.epoch} {state.cut} {state.info.get('phase')}"

    thread = threading.Thread(target=write)
    thread.start()
    reached: Counter[str] = Counter()
    try:
        with forks(made, tmp_path / "words") as workers:
            for _ in range(KILLS):
                seen = at()
                pid = workers.start(ledger, broker.admin_url, own_redis.url)
                for _ in range(chance.choice([0, 1, 1, 2, 4])):
                    until(lambda seen=seen: at() != seen, what="a commit")  # type: ignore[misc]
                    seen = at()
                pause.wait(chance.random() * 0.05)
                os.kill(pid, signal.SIGKILL)
                reached[seen.rpartition(" ")[2] or "nothing"] += 1
            assert workers.failures() == ""
    finally:
        done.set()
        thread.join()
    # Kills met it while it built and while it followed.
    assert reached["bootstrapping"] > KILLS // 20, reached
    assert reached["live"] > KILLS // 20, reached
    assert sent > KILLS * 5
    run_until_caught_up(Worker(made, log, store), log, store, made.shard)
    state = store.state(made.shard)
    assert state is not None
    assert state.info["events"] == sent
    totals: Counter[str] = Counter()
    for event in read_events(0, sent, users=USERS):
        totals[event["user"]] += event["readtime"]
    _, blobs = store.snapshot(made.shard, [pack_key((user,)) for user in totals])
    assert [unpack_value(b or b"").values[0] for b in blobs] == list(totals.values())
    outcome = verify(made, 1, log, store, now_us=SYSTEM.now_us())
    assert (outcome.mismatches, outcome.entities, outcome.events) == (0, USERS, sent)
    log.close()
    store.close()
