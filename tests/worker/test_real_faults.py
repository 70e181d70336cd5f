"""Worker processes on a real broker and a real Redis, and what befalls either.

Numbers are those of FAULTS.md. Whatever happened, the stored values are the fold in plain Python
of what was sent, or the worker ended and said why.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.preview import preview
from fs_notebook.errors import FeatureStoreError
from fs_notebook.ingest import fit, to_frame
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.codec import pack_key, unpack_value
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.states import StateCodec
from fs_notebook.position import START, Cut
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import verify
from tests.support.broker import Broker, free_ports, start, stop
from tests.support.forks import Forks, forks
from tests.support.redis import RedisServer
from tests.support.sessions import BEGIN, read_events, until
from tests.worker.test_handover import STREAM, definition

pytestmark = [pytest.mark.pulsar, pytest.mark.redis, pytest.mark.timeout(180)]

SHARD = definition().shard
META = b"fs:{%s}:m" % SHARD.encode()
KEYED = replace(STREAM, key=("user",), partitions=2)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(definition(), tmp_path_factory.mktemp("forks") / "words") as made:
        yield made


@dataclass
class Pair:
    """A stream, a store, and workers between them."""

    broker: Broker
    redis: RedisServer
    parent: Forks
    namespace: str
    sent: int = 0

    def __post_init__(self) -> None:
        self.ledger = f"{self.broker.url}/{self.namespace}"
        self.log = PulsarLog(self.ledger, admin_url=self.broker.admin_url)
        self.store = RedisStore(self.redis.url)
        self.pids: list[int] = []
        self.said = len(self.parent.failures())
        self.log.create(KEYED)

    def send(self, count: int) -> None:
        rows = fit(to_frame(read_events(self.sent, count)), KEYED)
        self.log.append(KEYED, rows)
        self.sent += count

    def work(self) -> int:
        """Start a worker and return its process ID, once it has claimed the shard."""
        before = self.epoch()
        pid = self.parent.start(self.ledger, self.broker.admin_url, self.redis.url)
        self.pids.append(pid)
        until(lambda: self.epoch() != before or not psutil.pid_exists(pid), what="a claim")
        return pid

    def epoch(self) -> int | None:
        state = self.store.state(SHARD)
        return None if state is None else state.epoch

    def report(self, name: str) -> Any:
        return (self.store.health(SHARD) or {}).get(name)

    def words(self, pid: int) -> str:
        """Wait for a worker's end, and return what it and those before it said."""
        until(lambda: not psutil.pid_exists(pid), what="the worker's end")
        return self.parent.failures()[self.said :]

    def settled(self) -> None:
        """Wait until all that was sent is folded, each once, and compare every value."""

        def is_done() -> bool:
            try:
                state = self.store.state(SHARD)
                return (
                    state is not None
                    and state.info.get("phase") == "live"
                    and state.cut == self.log.end(KEYED.name)
                )
            except FeatureStoreError:
                return False

        until(is_done, seconds_max=60, what="the worker to catch up")
        state = self.store.state(SHARD)
        assert state is not None
        assert state.info["events"] == self.sent
        totals: Counter[str] = Counter()
        for event in read_events(0, self.sent):
            totals[event["user"]] += event["readtime"]
        _, blobs = self.store.snapshot(SHARD, [pack_key((user,)) for user in totals])
        assert [unpack_value(b or b"").values[0] for b in blobs] == list(totals.values())

    def close(self) -> None:
        for pid in self.pids:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        self.log.close()
        self.store.close()


@pytest.fixture
def pair(broker: Broker, own_redis: RedisServer, parent: Forks) -> Iterator[Pair]:
    made = Pair(broker, own_redis, parent, broker.namespace())
    yield made
    made.close()


def test_fault_04_a_paused_worker_that_goes_on_after_a_take_over_writes_nothing(
    pair: Pair,
) -> None:
    pair.send(300)
    first = pair.work()
    pair.settled()
    os.kill(first, signal.SIGSTOP)
    pair.send(300)
    second = pair.work()
    pair.settled()
    before = pair.store.state(SHARD)
    os.kill(first, signal.SIGCONT)
    assert "FencedError" in pair.words(first)
    assert pair.store.state(SHARD) == before
    pair.send(300)
    pair.settled()
    assert psutil.pid_exists(second)


def test_fault_05_the_earlier_of_two_workers_ends_and_says_why(pair: Pair) -> None:
    pair.send(300)
    first = pair.work()
    pair.settled()
    second = pair.work()
    assert "Another worker" in pair.words(first)
    pair.send(100)
    pair.settled()
    assert psutil.pid_exists(second)


def test_fault_07_08_a_redis_that_comes_back_older_under_a_live_worker(
    pair: Pair, tmp_path: Path
) -> None:
    """Its last seconds are gone, and its run id is another: state and position went together."""
    pair.send(300)
    worker = pair.work()
    pair.settled()
    copy = tmp_path / "copy"
    shutil.copytree(pair.redis.folder, copy, ignore=shutil.ignore_patterns("*.sock", "log"))
    older = pair.store.state(SHARD)
    pair.send(500)
    pair.settled()
    with pair.redis.client() as client:
        run_id = client.info("server")["run_id"]
    pair.redis.kill()
    for path in pair.redis.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.copytree(copy, pair.redis.folder, dirs_exist_ok=True)
    pair.redis.start()
    with pair.redis.client() as client:
        assert client.info("server")["run_id"] != run_id
    assert older is not None
    pair.send(100)
    pair.settled()
    assert psutil.pid_exists(worker)
    now = pair.store.state(SHARD)
    assert now is not None
    assert now.epoch > older.epoch


def test_fault_09_flushall_under_a_live_worker_builds_all_of_it_again(pair: Pair) -> None:
    pair.send(600)
    worker = pair.work()
    pair.settled()
    with pair.redis.client() as client:
        client.flushall()
        # Idle or at work, it notices.
        pair.settled()
        client.flushall()
        pair.send(200)
        pair.settled()
    assert psutil.pid_exists(worker)


def test_fault_10_a_value_that_was_evicted_ends_the_worker_and_a_rebuild_mends_it(
    pair: Pair,
) -> None:
    pair.send(300)
    worker = pair.work()
    pair.settled()
    with pair.redis.client() as client:
        assert client.delete(b"fs:{%s}:e:%s" % (SHARD.encode(), pack_key(("u3",)))) == 1
    pair.send(70)
    said = pair.words(worker)
    assert "IntegrityError" in said
    assert "'u3'" in said
    assert "evicted or deleted" in said
    assert "promote it again" in said
    pair.store.drop(SHARD)
    pair.work()
    pair.settled()


def test_fault_11_no_memory_leaves_the_position_until_there_is_some(pair: Pair) -> None:
    pair.send(300)
    worker = pair.work()
    pair.settled()
    before = pair.store.state(SHARD)
    with pair.redis.client() as client:
        client.config_set("maxmemory", "1")
        pair.send(300)
        # Its report needs memory too, so it cannot say so; nothing moves meanwhile.
        refused = client.info("stats")["total_error_replies"]
        until(lambda: client.info("stats")["total_error_replies"] > refused, what="a refusal")
        assert pair.store.state(SHARD) == before
        client.config_set("maxmemory", "0")
    pair.settled()
    assert psutil.pid_exists(worker)


def test_fault_12_a_key_of_another_type_ends_the_worker_and_is_named(pair: Pair) -> None:
    pair.send(300)
    worker = pair.work()
    pair.settled()
    with pair.redis.client() as client:
        client.delete(META)
        client.rpush(META, "x")
        said = pair.words(worker)
        assert "IntegrityError" in said
        assert META.decode() in said
        assert client.lrange(META, 0, -1) == [b"x"]


def test_fault_14_topics_unloaded_under_a_live_worker_lose_and_double_nothing(pair: Pair) -> None:
    pair.send(300)
    pair.work()
    for _ in range(4):
        pair.send(500)
        pair.broker.admin("PUT", f"persistent/{pair.namespace}/{KEYED.name}/unload")
        pair.send(11)
    pair.settled()


def test_fault_15_history_that_was_trimmed_ends_the_worker(pair: Pair) -> None:
    pair.send(300)
    worker = pair.work()
    pair.settled()
    os.kill(worker, signal.SIGKILL)
    path = f"persistent/{pair.namespace}/{KEYED.name}"
    pair.send(100)
    pair.broker.admin("PUT", f"{path}/unload")
    pair.send(100)
    body = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
    pair.broker.admin("POST", f"{path}/retention", body)
    before = pair.store.state(SHARD)
    assert before is not None
    assert before.cut is not None

    def is_trimmed() -> bool:
        assert before is not None
        for position in before.cut or ():
            part = f"{path}-partition-{position.partition}"
            pair.broker.admin("POST", f"{part}/trim")
            stats = pair.broker.admin("GET", f"{part}/internalStats")
            if min(x["ledgerId"] for x in stats["ledgers"]) <= position.ledger:
                return False
        return True

    until(is_trimmed, what="retention")
    again = pair.work()
    assert "HistoryLost" in pair.words(again)
    after = pair.store.state(SHARD)
    assert after is not None
    assert after.cut == before.cut


def test_fault_16_a_position_beyond_the_end_of_the_topic_ends_the_worker(pair: Pair) -> None:
    """The store is newer than the ledger, which was restored from a copy, or is another one."""
    pair.send(300)
    worker = pair.work()
    pair.settled()
    os.kill(worker, signal.SIGKILL)
    lease = pair.store.claim(SHARD, fingerprint=definition().fingerprint)
    assert lease.cut is not None
    beyond = Cut(tuple(p._replace(entry=p.entry + 1_000) for p in lease.cut))
    pair.store.commit(lease, cut=beyond, puts={}, info=lease.info)
    again = pair.work()
    said = pair.words(again)
    assert "UnknownPosition" in said
    assert "has no position" in said
    # What arrives meanwhile is not folded from somewhere in between either.
    pair.send(50)
    assert "UnknownPosition" in pair.words(pair.work())
    after = pair.store.state(SHARD)
    assert after is not None
    assert (after.cut, after.info["events"]) == (beyond, 300)


TIES = """
SELECT user, LAST(readtime) AS latest, FIRST(readtime) AS earliest, LAST_N(readtime, 3) AS newest
FROM ties GROUP BY user
"""


@pytest.mark.parametrize("json_only", [True, False], ids=["json", "arrow"])
def test_fault_25_of_equal_event_times_the_position_decides(
    broker: Broker, own_redis: RedisServer, json_only: bool
) -> None:
    """In history and live, in the worker as in a preview; several partitions and messages."""
    log = PulsarLog(f"{broker.url}/{broker.namespace()}", admin_url=broker.admin_url)
    stream = replace(STREAM, name="ties", partitions=2, json_only=json_only)
    source = SourceColumns(stream.name, stream.columns, stream.time)
    plan = compile_sql(TIES, name="ties", find_source=lambda name: source)
    made = Definition("ties", TIES, plan, stream)
    numbers = iter(random.Random(25).sample(range(10_000), 120))
    with closing(log), closing(RedisStore(own_redis.url)) as store:
        log.create(stream)
        worker = Worker(made, log, store)
        for count in (1, 40, 19):
            rows = [
                {"user": f"u{n % 3}", "readtime": next(numbers), "ts": BEGIN} for n in range(count)
            ]
            log.append(stream, fit(to_frame(rows), stream))
        appended = False

        def is_done() -> bool:
            nonlocal appended
            state = store.state(worker.shard)
            if state is None or state.info.get("phase") != "live":
                return False
            if not appended:
                appended = True
                rows = [
                    {"user": f"u{n % 3}", "readtime": next(numbers), "ts": BEGIN} for n in range(60)
                ]
                log.append(stream, fit(to_frame(rows), stream))
            return state.cut == log.end(stream.name)

        worker._should_stop = is_done
        worker.run()
        by_user: dict[str, list[tuple[tuple[int, ...], int]]] = {}
        for batch in log.read(stream, start=START, end=log.end(stream.name)):
            places = batch.positions().rows()
            events = batch.rows.select("user", "readtime").rows()
            for place, (user, readtime) in zip(places, events, strict=True):
                by_user.setdefault(user, []).append((place, readtime))
        assert sum(map(len, by_user.values())) == 120
        assert len({place[0] for events in by_user.values() for place, _ in events}) == 2
        wanted = {}
        for user, events in by_user.items():
            ordered = [n for _, n in sorted(events)]
            wanted[user] = (ordered[-1], ordered[0], ordered[:-4:-1])
        previewed = preview("ties", plan, stream, log, clock=SYSTEM).frame
        names = ("user", "latest", "earliest", "newest")
        assert {user: tuple(row) for user, *row in previewed.select(names).rows()} == wanted
        keys = [pack_key((user,)) for user in wanted]
        fold = Fold(plan)
        state = StateCodec(fold).decode(keys, store.snapshot(worker.shard, keys)[1])
        frame = fold.values(state, now_us=None).select(*fold.keys, *names[1:])
        assert {user: tuple(row) for user, *row in frame.rows()} == wanted
        assert verify(made, 1, log, store, now_us=SYSTEM.now_us()).ok


def test_fault_17_a_topic_that_was_deleted_and_made_again_ends_the_worker(pair: Pair) -> None:
    pair.send(300)
    worker = pair.work()
    pair.settled()
    before = pair.store.state(SHARD)
    pair.log.delete(KEYED.name)
    pair.log.create(KEYED)
    pair.send(300)
    said = pair.words(worker)
    assert "StreamChanged" in said
    after = pair.store.state(SHARD)
    assert before is not None
    assert after is not None
    assert after.cut == before.cut
    again = pair.work()
    assert "made again" in pair.words(again)


def test_fault_18_partitions_added_under_a_live_worker_are_taken_up(pair: Pair) -> None:
    pair.send(300)
    pair.work()
    pair.settled()
    pair.broker.admin("POST", f"persistent/{pair.namespace}/{KEYED.name}/partitions", 5)
    pair.send(500)
    pair.settled()
    state = pair.store.state(SHARD)
    assert state is not None
    assert len(list(state.cut or ())) > 2


@pytest.mark.slow
def test_fault_13_a_broker_that_is_killed_and_started_again_costs_nothing_but_time(
    own_redis: RedisServer, parent: Forks, tmp_path: Path
) -> None:
    service, web = free_ports(2)
    broker = Broker(f"pulsar://127.0.0.1:{service}", f"http://127.0.0.1:{web}")
    settings = {
        "brokerServicePort": str(service), "webServicePort": str(web),
    }  # fmt: skip
    process, _ = start(tmp_path / "broker", settings=settings, broker=broker)
    pair = None
    try:
        pair = Pair(broker, own_redis, parent, broker.namespace())
        pair.send(300)
        worker = pair.work()
        pair.settled()
        pair.send(300)
        stop(process)
        process, _ = start(tmp_path / "broker", settings=settings, broker=broker)
        pair.send(300)
        pair.settled()
        assert psutil.pid_exists(worker)
    finally:
        stop(process)
        if pair is not None:
            pair.close()
