"""A Redis Cluster of three real nodes: one trip a node, slots that move, nodes that are gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.errors import FeatureStoreError, UnreachableError, UsageError
from fs_notebook.ingest import fit, to_frame
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.online.async_store import reads_of
from fs_notebook.online.codec import pack_key
from fs_notebook.online.connect import open_store
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.serve import AsyncFeatureReader, FeatureReader, Served
from fs_notebook.online.wire import Wire
from fs_notebook.position import START, Cut, Position
from fs_notebook.types import Type
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import verify
from tests.support.certificates import certify
from tests.support.redis import RedisCluster, RedisServer
from tests.support.sessions import read_events

pytestmark = pytest.mark.redis

STREAM = Stream(
    "read_events",
    (("user", Type.VARCHAR), ("readtime", Type.BIGINT), ("ts", Type.TIMESTAMP)),
    "ts",
)
A, B = pack_key(("a",)), pack_key(("b",))


def cut(entry: int) -> Cut:
    return Cut((Position(0, 1, entry, 0),))


@pytest.fixture
def store(redis_cluster: RedisCluster) -> Iterator[RedisStore]:
    redis_cluster.flush()
    made = RedisStore(redis_cluster.url)
    yield made
    made.close()


def definition(name: str) -> Definition:
    sql = (
        f"SELECT user, SUM(readtime) OVER (PARTITION BY user) AS {name}_total, "
        f"COUNT(*) OVER w AS {name}_recent FROM read_events WINDOW w AS (PARTITION BY user "
        "ORDER BY ts RANGE BETWEEN INTERVAL 10 MINUTE PRECEDING AND CURRENT ROW)"
    )
    source = SourceColumns(STREAM.name, STREAM.columns, STREAM.time)
    plan = compile_sql(sql, name=name, find_source=lambda name: source)
    return Definition(name, sql, plan, STREAM)


def build(names: list[str], log: EmbeddedLog, store: RedisStore) -> None:
    """Fold a feature group for each name, verify it, and serve it."""
    for name in names:
        made = definition(name)

        def caught_up(shard: str = made.shard) -> bool:
            state = store.state(shard)
            return state is not None and state.info.get("phase") == "live"

        Worker(made, log, store, should_stop=caught_up).run()
        assert verify(made, 1, log, store, now_us=SYSTEM.now_us()).ok
        served = Served(name, 1, made.fingerprint, made.shard, made.plan, ("user",))
        store.publish(name, served.to_record())


def test_workers_and_readers_work_over_all_nodes_in_one_trip_each(
    store: RedisStore, redis_cluster: RedisCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EmbeddedLog(tmp_path)
    log.create(STREAM)
    log.append(STREAM, fit(to_frame(read_events(0, 300, users=20)), STREAM))
    names = [f"g{n}" for n in range(6)]
    build(names, log, store)
    nodes = {redis_cluster.node_of(b"fs:{%s}:m" % definition(n).shard.encode()).port for n in names}
    assert len(nodes) > 1
    reader = FeatureReader(store)
    # Each node knows the script by now, and that there are entities without a value.
    reader.read([f"{n}_total" for n in names], user=["nobody"])
    trips: list[tuple[str, str]] = []
    begin = Wire.begin

    def begun(self: Wire, commands: Any) -> Any:
        exchange = begin(self, commands)
        trips.append(("sent", self.url))
        read = exchange.replies

        def noted() -> Any:
            trips.append(("read", self.url))
            return read()

        exchange.replies = noted  # type: ignore[method-assign]
        return exchange

    monkeypatch.setattr(Wire, "begin", begun)
    found = reader.read([f"{n}_total" for n in names], user=["u1", "u2", "nobody"])
    wanted = [sum(n for n in range(300) if n % 20 == user) for user in (1, 2)] + [None]
    assert all(found.to_dict()[f"{n}_total"] == wanted for n in names)
    sent = [url for what, url in trips if what == "sent"]
    assert len(sent) == len(set(sent)) > 1
    # All was sent before anything was waited for.
    assert [what for what, _ in trips] == ["sent"] * len(sent) + ["read"] * len(sent)
    log.close()


def test_a_cluster_with_tls_serves_a_user_that_may_only_touch_our_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certify(tmp_path, "127.0.0.1")
    (tmp_path / "users").write_text(
        "user default on nopass ~* &* +@all\n"
        "user worker on >secret ~fs:* +@all -@admin -@dangerous +info +keys\n"
        "user stranger on >secret ~other:* +@all\n"
    )
    cluster = RedisCluster(
        tls_cert_file=str(files["broker"]), tls_key_file=str(files["broker-key"]),
        tls_ca_cert_file=str(files["ca"]), tls_auth_clients="optional",
        aclfile=str(tmp_path / "users"),
    )  # fmt: skip
    log = EmbeddedLog(tmp_path / "ledger")
    log.create(STREAM)
    log.append(STREAM, fit(to_frame(read_events(0, 300, users=20)), STREAM))
    try:
        cluster.start()
        with pytest.raises(UnreachableError, match="certificate"):
            RedisStore(cluster.secured_url("worker:secret")).ping()
        monkeypatch.setenv("FS_NOTEBOOK_REDIS_TLS_CA", str(files["ca"]))
        with pytest.raises(FeatureStoreError, match="does not allow this") as caught:
            RedisStore(cluster.secured_url("stranger:secret")).published()
        assert "secret" not in str(caught.value)
        store = RedisStore(cluster.secured_url("worker:secret"))
        assert "secret" not in store.url
        names = [f"g{n}" for n in range(4)]
        build(names, log, store)
        found = FeatureReader(store).read([f"{n}_total" for n in names], user=["u1", "nobody"])
        wanted = [sum(n for n in range(300) if n % 20 == 1), None]
        assert all(found.to_dict()[f"{n}_total"] == wanted for n in names)

        async def read() -> Any:
            async with AsyncFeatureReader(reads_of(store)) as reader:
                return await reader.read(["g0_total"], user=["u1"])

        assert asyncio.run(read()).to_dict()["g0_total"] == wanted[:1]
        store.close()
    finally:
        cluster.remove()
        log.close()


def move(redis_cluster: RedisCluster, key: bytes, *, finish: bool) -> None:
    """Move a key's slot to another node, with the keys in it only if it is to `finish`."""
    source = redis_cluster.node_of(key)
    target = next(n for n in redis_cluster.nodes if n is not source)
    with source.client() as here, target.client() as there:
        slot = here.execute_command("CLUSTER", "KEYSLOT", key)
        mine = here.execute_command("CLUSTER", "MYID")
        theirs = there.execute_command("CLUSTER", "MYID")
        there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", mine)
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", theirs)
        if not finish:
            return
        while keys := here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            here.execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys
            )  # fmt: skip
        for node in (target, source, *redis_cluster.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", theirs)


def test_a_slot_that_moved_is_found_and_nothing_runs_twice(
    store: RedisStore, redis_cluster: RedisCluster
) -> None:
    lease = store.claim("moving@1", fingerprint="f")
    lease = store.commit(lease, cut=cut(1), puts={A: b"1"}, info={})
    before = redis_cluster.node_of(b"fs:{moving@1}:m")
    move(redis_cluster, b"fs:{moving@1}:m", finish=True)
    assert redis_cluster.node_of(b"fs:{moving@1}:m") is not before
    lease = store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={})
    assert store.read(0, [("moving@1", [A, B])])[1] == [[b"2", b"2"]]
    assert sorted(store.entities("moving@1")) == [A, B]
    assert store.drop("moving@1") == 2


def test_while_a_slot_is_moved_a_commit_is_refused_for_now_and_then_goes_on(
    store: RedisStore, redis_cluster: RedisCluster
) -> None:
    move(redis_cluster, b"fs:{asked@1}:m", finish=False)
    # The new key goes where the old node says it is to be asked for.
    lease = store.claim("asked@1", fingerprint="f")
    assert store.state("asked@1") is not None
    with pytest.raises(UnreachableError, match="refuses for now"):
        store.commit(lease, cut=cut(1), puts={A: b"1", B: b"1"}, info={})
    move(redis_cluster, b"fs:{asked@1}:m", finish=True)
    lease = store.commit(lease, cut=cut(1), puts={A: b"1", B: b"1"}, info={})
    assert store.load(lease, [A, B]) == [b"1", b"1"]


def test_one_node_s_address_is_enough_and_its_store_is_the_cluster(
    redis_cluster: RedisCluster, tmp_path: Path
) -> None:
    store = open_store(redis_cluster.nodes[1].url, home=tmp_path)
    assert store.url.startswith("redis+cluster://")
    for n in range(8):
        lease = store.claim(f"any{n}@1", fingerprint="f")
        store.commit(lease, cut=START, puts={A: b"1"}, info={})
    store.close()


def test_what_is_no_cluster_and_who_is_no_client_of_one_are_told(
    redis_cluster: RedisCluster, system_redis: RedisServer
) -> None:
    alone = RedisStore(f"redis+cluster://127.0.0.1:{system_redis.port}")
    with pytest.raises(UsageError, match="is no cluster"):
        alone.ping()
    alone.close()
    one = RedisStore(redis_cluster.nodes[0].url)
    elsewhere = next(
        shard for n in range(99)
        if redis_cluster.node_of(b"fs:{%s}:m" % (shard := f"any{n}@1").encode())
        is not redis_cluster.nodes[0]
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"redis\+cluster://"):
        one.claim(elsewhere, fingerprint="f")
    one.close()
    for address in ("redis+cluster://127.0.0.1:7000/3", "redis+cluster://127.0.0.1:port"):
        with pytest.raises(UsageError, match="no address of a Redis Cluster"):
            RedisStore(address)
    nobody = RedisStore("redis+cluster://user:secret@127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(UnreachableError) as caught:
        nobody.ping()
    assert "secret" not in str(caught.value)
    nobody.close()


def test_fault_07_a_node_that_is_gone_is_named_and_found_again() -> None:
    """Shards on other nodes go on; the one that comes back has what it had committed."""
    made = RedisCluster()
    for node in made.nodes:
        node.options |= {
            "appendonly": "yes", "appendfsync": "always", "cluster-require-full-coverage": "no"
        }  # fmt: skip
    try:
        made.start()
        store = RedisStore(made.url, timeout_seconds=5)
        shards = [f"s{n}@1" for n in range(9)]
        leases = {s: store.claim(s, fingerprint="f") for s in shards}
        leases = {
            s: store.commit(v, cut=cut(1), puts={A: b"1"}, info={}) for s, v in leases.items()
        }
        gone = made.nodes[2]
        lost = [s for s in shards if made.node_of(b"fs:{%s}:m" % s.encode()) is gone]
        assert 0 < len(lost) < len(shards)
        gone.kill()
        for shard, lease in leases.items():
            if shard not in lost:
                store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
                continue
            with pytest.raises(UnreachableError, match=str(gone.port)):
                store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
        gone.start()
        done = threading.Event()
        for _ in range(200):
            try:
                cuts = {store.claim(s, fingerprint="f").cut for s in lost}
                break
            except UnreachableError:
                done.wait(0.05)
        assert cuts == {cut(1)}
        store.close()
    finally:
        made.remove()
