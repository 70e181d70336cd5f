"""Four workers that share a topic of four partitions, killed and added at random: real servers."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from fs_notebook.errors import UsageError
from fs_notebook.online.protocol import part_shard
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.places import log_path
from fs_notebook.worker.runner import ensure_runner, orphans, runner_pid, stop_runner
from fs_notebook.worker.shared import subscription_of
from tests.support.broker import Broker
from tests.support.redis import RedisCluster, RedisServer
from tests.support.sessions import BEGIN, stop_all, until

pytestmark = [pytest.mark.pulsar, pytest.mark.redis, pytest.mark.timeout(240)]

PARTITIONS = 4
USERS, PAGES = 40, 7
SQL = """
SELECT {key}, SUM(readtime) AS {key}_total, COUNT(*) AS {key}_events, LAST(readtime) AS {key}_latest
FROM reads GROUP BY {key}
"""


def reads(first: int, count: int) -> list[dict[str, Any]]:
    """Return events at times of their own, so that the latest is one whatever its partition."""
    return [
        {"user": f"u{n * 7 % USERS}", "page": f"p{n % PAGES}", "readtime": n,
         "ts": BEGIN.replace(microsecond=0) + (n * (BEGIN.resolution * 1_000_000))}
        for n in range(first, first + count)
    ]  # fmt: skip


def naive(key: str, count: int) -> dict[str, tuple[int, int, int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in reads(0, count):
        found[event[key]].append(event["readtime"])
    return {value: (sum(ns), len(ns), max(ns)) for value, ns in found.items()}


@pytest.fixture
def place(broker: Broker, own_redis: RedisServer, tmp_path: Path) -> Iterator[Connection]:
    url = f"{broker.url}/{broker.namespace()}"
    made = Connection(tmp_path / "home", url, own_redis.url, broker.admin_url)
    yield made
    stop_all(made)


@pytest.fixture
def session(place: Connection) -> Iterator[Session]:
    made = Session(place, actor="tester")
    made.upload(reads(0, 2_000), "reads", time="ts", key="user", partitions=PARTITIONS)
    yield made
    made.close()


def pids(place: Connection) -> list[int]:
    return [p.pid for p in orphans(place)]


def served(session: Session, key: str, count: int) -> bool:
    wanted = naive(key, count)
    found = session.serve(f"by_{key}", **{key: list(wanted)})
    got = {
        row[key]: (row[f"{key}_total"], row[f"{key}_events"], row[f"{key}_latest"])
        for row in found.rows
    }
    return got == wanted


@pytest.mark.slow
@pytest.mark.parametrize("key", ["user", "page"])
def test_fault_01_04_workers_killed_and_added_at_random_lose_and_double_nothing(
    session: Session, place: Connection, key: str, tmp_path: Path
) -> None:
    """The stream's key is the user: a page's events, and its state, lie in all partitions."""
    chance = random.Random(f"shared {key}")
    session.define(f"by_{key}", SQL.format(key=key))
    session.promote(f"by_{key}", workers=2)
    assert served(session, key, 2_000)
    other = Connection(tmp_path / "another machine", place.log, place.online, place.admin)
    sent, done = [2_000], threading.Event()
    writer = Session(place, actor="writer")

    def write() -> None:
        while not done.is_set():
            writer.append(reads(sent[0], 60), "reads")
            sent[0] += 60
            done.wait(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    killed = 0
    try:
        for turn in range(12):
            if turn == 2:
                # Two more, of another runner.
                ensure_runner(other)
            victims = until(lambda: pids(place) + pids(other), what="a worker")
            victim = chance.choice(victims)
            if chance.random() < 0.25:
                # A machine that stands still for a while: its leases are others' when it goes on.
                os.kill(victim, signal.SIGSTOP)
                done.wait(0.5)
                os.kill(victim, signal.SIGCONT)
            else:
                os.kill(victim, signal.SIGKILL)
                killed += 1
            done.wait(chance.random())
    finally:
        done.set()
        thread.join()
        writer.close()
    assert killed > 5
    stop_runner(other)
    until(lambda: served(session, key, sent[0]), what="the workers to catch up")
    assert served(session, key, sent[0])
    outcome = session.verify(f"by_{key}")
    entities = USERS if key == "user" else PAGES
    assert (outcome.mismatches, outcome.entities, outcome.events) == (0, entities, sent[0])


def test_status_says_who_owns_what_and_partitions_move_when_workers_come_and_go(
    session: Session, place: Connection, broker: Broker
) -> None:
    session.define("by_page", SQL.format(key="page"))
    session.promote("by_page", workers=2)

    def owners() -> dict[str, set[int]]:
        (status,) = session.status("by_page")
        found: dict[str, set[int]] = defaultdict(set)
        for part in (status.owners or "").split(", "):
            number, _, who = part.partition(": ")
            found[who].add(int(number))
        return found

    both = until(lambda: len(owners()) == 2 and owners(), what="two owners")
    assert sorted(n for parts in both.values() for n in parts) == list(range(PARTITIONS))
    (status,) = session.status("by_page")
    assert (status.state, status.serving, status.events) == ("live", True, 2_000)
    assert status.lag == 0
    assert "partitions 0: " in repr(status)
    shard = session.catalog.refresh().group("by_page").version(1).definition.shard

    def backlog() -> int:
        namespace = "/".join(place.log.split("/")[-2:])
        total = 0
        for n in range(PARTITIONS):
            path = f"persistent/{namespace}/reads-partition-{n}/stats"
            told = broker.admin("GET", path)["subscriptions"][subscription_of(shard)]
            total += told["msgBacklog"]
        return total

    for first in range(2_000, 2_400, 50):
        session.append(reads(first, 50), "reads")
    until(lambda: served(session, "page", 2_400), what="new events")
    # What is folded is acknowledged, but for each partition's last entry.
    until(lambda: backlog() < 120, what="acknowledgements")
    # One worker more, promoted again: the same version, its state where it was.
    assert session.promote("by_page", workers=3).version == 1
    until(lambda: len(owners()) == 3, what="a third owner")
    with pytest.raises(UsageError, match="from 1 to"):
        session.promote("by_page", workers=0)
    told = session.explain("by_page", page="p3")
    assert told.values == told.online
    # Another definition, by one worker; then the shared one is retired and leaves nothing.
    session.define("by_page", SQL.format(key="page").replace("LAST", "MIN"))
    session.promote("by_page")
    with pytest.raises(UsageError, match="one shard already"):
        session.promote("by_page", workers=2)
    session.define("by_page", SQL.format(key="page").replace("LAST", "MAX"))
    session.promote("by_page")
    session.retire("by_page", 1)
    assert all(session.store.state(part_shard(shard, n)) is None for n in range(PARTITIONS))


def test_fault_04_18_a_machine_that_stood_still_and_partitions_that_were_added(
    session: Session, place: Connection, broker: Broker
) -> None:
    """The one that stood still is no consumer any more when it goes on, and others have its work.

    Then the topic gets more partitions: what served serves on until they are folded, too.
    """
    session.define("by_page", SQL.format(key="page"))
    session.promote("by_page", workers=2)
    shard = session.catalog.refresh().group("by_page").version(1).definition.shard
    topic = "persistent/" + "/".join(place.log.split("/")[-2:]) + "/reads"
    path = log_path(place, shard)

    def owner(partition: int) -> int | None:
        health = session.store.health(part_shard(shard, partition))
        return None if health is None else int(health["pid"])

    def epoch(partition: int) -> int:
        state = session.store.state(part_shard(shard, partition))
        return 0 if state is None else state.epoch

    zombie = until(lambda: owner(0), what="an owner")
    before, said = epoch(0), len(path.read_text())
    os.kill(zombie, signal.SIGSTOP)
    try:
        broker.admin("PUT", f"{topic}/unload")
        until(lambda: epoch(0) > before and owner(0) != zombie, what="another owner")
        session.append(reads(2_000, 200), "reads")
        until(lambda: served(session, "page", 2_200), what="the new owner")
    finally:
        os.kill(zombie, signal.SIGCONT)
    pattern = re.compile("partition 0 (was taken over|is let go)")
    until(lambda: pattern.search(path.read_text()[said:]), what="the zombie to stop")
    assert psutil.pid_exists(zombie)
    assert epoch(0) > before
    assert served(session, "page", 2_200)

    broker.admin("POST", f"{topic}/partitions", PARTITIONS + 2)
    for first in range(2_200, 2_500, 50):
        session.append(reads(first, 50), "reads")
        assert session.serve("by_page", page=["p0"])["page_events"] != [None]
    added = part_shard(shard, PARTITIONS + 1)

    def is_folded() -> bool:
        # At no time is there nothing that serves, nor less than before.
        (events,) = session.serve("page_events", page=["p0"])["page_events"]
        assert events >= naive("page", 2_200)["p0"][1]
        return session.store.state(added) is not None and served(session, "page", 2_500)

    until(is_folded, what="the added partitions")
    folded = [session.store.state(part_shard(shard, n)) for n in range(PARTITIONS + 2)]
    assert all(state is not None and state.info["events"] > 0 for state in folded)
    outcome = session.verify("by_page")
    assert (outcome.mismatches, outcome.entities, outcome.events) == (0, PAGES, 2_500)


def test_workers_share_a_topic_on_a_redis_cluster(
    broker: Broker, redis_cluster: RedisCluster, tmp_path: Path
) -> None:
    """The states of a page lie in shards of all partitions, and these on different nodes."""
    redis_cluster.flush()
    url = f"{broker.url}/{broker.namespace()}"
    place = Connection(tmp_path / "home", url, redis_cluster.url, broker.admin_url)
    try:
        with closing(Session(place, actor="tester")) as session:
            session.upload(reads(0, 600), "reads", time="ts", key="user", partitions=PARTITIONS)
            session.define("by_page", SQL.format(key="page"))
            session.promote("by_page", workers=2)
            shard = session.catalog.refresh().group("by_page").version(1).definition.shard
            parts = [part_shard(shard, n) for n in range(PARTITIONS)]
            nodes = {redis_cluster.node_of(b"fs:{%s}:m" % p.encode()).port for p in parts}
            assert len(nodes) > 1
            until(lambda: served(session, "page", 600), what="the history")
            os.kill(pids(place)[0], signal.SIGKILL)
            session.append(reads(600, 200), "reads")
            until(lambda: served(session, "page", 800), what="the other worker to take over")
            outcome = session.verify("by_page")
            assert (outcome.mismatches, outcome.entities, outcome.events) == (0, PAGES, 800)
    finally:
        stop_all(place)


def test_what_cannot_be_shared_is_told(session: Session, embedded_session: Session) -> None:
    both = "(SELECT user FROM reads UNION ALL SELECT user FROM more)"
    session.upload(reads(0, 10), "more", time="ts", key="user")
    session.define("union_n", f"SELECT user, COUNT(*) AS n FROM {both} GROUP BY user")
    with pytest.raises(UsageError, match="several streams"):
        session.promote("union_n", workers=2)
    session.define("twice", "SELECT user, SUM(readtime) AS total FROM reads GROUP BY user")
    session.define("derived", "SELECT user, total * 2 AS doubled FROM twice")
    with pytest.raises(UsageError, match="has no worker"):
        session.promote("derived", workers=2)
    embedded_session.upload(reads(0, 10), "reads", time="ts")
    embedded_session.define("total", "SELECT user, SUM(readtime) AS total FROM reads GROUP BY user")
    with pytest.raises(UsageError, match="one partition"):
        embedded_session.promote("total", workers=2)
    assert runner_pid(embedded_session.connection) is None
