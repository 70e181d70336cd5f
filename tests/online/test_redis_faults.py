"""The commit rule on real Redis under real faults. Numbers are those of FAULTS.md."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fs_notebook.errors import (
    FencedError,
    IntegrityError,
    StalePosition,
    UnreachableError,
    UsageError,
)
from fs_notebook.online.codec import pack_key, seal
from fs_notebook.online.protocol import Lease
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.wire import hide_password
from fs_notebook.position import Cut, Position
from tests.support.redis import (
    RedisServer,
    make_server,
    remove_server,
    system_server,
    wheel_server,
)

pytestmark = pytest.mark.timeout(120)

SHARD = "s@1"
META = b"fs:{s@1}:m"
A, B = pack_key(("a",)), pack_key(("b",))
MANY = [pack_key((i,)) for i in range(300)]


def cut(entry: int) -> Cut:
    return Cut((Position(0, 1, entry, 0),))


def begin(store: RedisStore) -> Lease:
    lease = store.claim(SHARD, fingerprint="f")
    return store.commit(lease, cut=cut(1), puts={A: b"1"}, info={})


@pytest.fixture(params=[system_server, wheel_server], ids=["system", "wheel"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of each version for one test alone."""
    made = make_server(request.param(), appendonly="yes", appendfsync="always")
    try:
        made.start()
        yield made
    finally:
        remove_server(made)


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    made = RedisStore(server.url)
    yield made
    made.close()


class Proxy:
    """Passes bytes between a client and Redis; loses the reply to the armed command."""

    def __init__(self, port: int) -> None:
        self.lose_reply_to: bytes | None = None
        self.seen = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        lost = threading.Event()
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=self._reply, args=(server, client, lost), daemon=True)
            back.start()
            while request := receive(client):
                if self.lose_reply_to is not None and self.lose_reply_to in request:
                    self.seen += 1
                    lost.set()
                server.sendall(request)
            end(server)
            back.join()

    def _reply(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        while (reply := receive(server)) and not lost.is_set():
            client.sendall(reply)
        end(client)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""


def end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def test_fault_01_a_killed_server_keeps_values_and_position_together(
    server: RedisServer, store: RedisStore
) -> None:
    lease = store.claim(SHARD, fingerprint="f")
    for entry in range(1, 4):
        reached = threading.Event()
        failed: list[Exception] = []

        def work(
            lease: Lease, steps: int, reached: threading.Event, failed: list[Exception]
        ) -> None:
            try:
                for step in range(1, 100_000):
                    at = (lease.cut.positions[0].entry if lease.cut else 0) + 1
                    puts = dict.fromkeys(MANY, b"%d" % at)
                    lease = store.commit(lease, cut=cut(at), puts=puts, info={"at": at})
                    if step == steps:
                        reached.set()
            except UnreachableError as error:
                failed.append(error)

        thread = threading.Thread(target=work, args=(lease, 7 * entry, reached, failed))
        thread.start()
        assert reached.wait(30)
        server.kill()
        thread.join()
        assert failed
        server.start()
        state, values = store.snapshot(SHARD, MANY)
        assert state is not None
        assert state.cut is not None
        at = state.cut.positions[0].entry
        assert at >= (lease.cut.positions[0].entry if lease.cut else 0) + 7 * entry
        assert state.info == {"at": at}
        assert set(values) == {b"%d" % at}
        lease = store.claim(SHARD, fingerprint="f")
        assert store.load(lease, MANY) == values


def test_fault_02_a_lost_reply_is_an_unknown_outcome_and_never_repeated(
    server: RedisServer,
) -> None:
    proxy = Proxy(server.port)
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0")
    try:
        lease = begin(store)
        proxy.lose_reply_to = b"EVALSHA"
        with pytest.raises(UnreachableError):
            store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
        assert proxy.seen == 1
        proxy.lose_reply_to = None
        with pytest.raises(StalePosition):
            store.load(lease, [A])
        again = store.claim(SHARD, fingerprint="f")
        assert again.cut == cut(2)
        assert store.load(again, [A]) == [b"2"]
    finally:
        store.close()
        proxy.close()


def test_fault_03_a_commit_that_times_out_is_read_back(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout_seconds=0.3)
    lease = begin(store)
    with server.client() as other:
        other.client_pause(60_000, all=False)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
            store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
        other.client_unpause()
    again = store.claim(SHARD, fingerprint="f")
    assert again.cut in (cut(1), cut(2))
    expected = b"1" if again.cut == cut(1) else b"2"
    assert store.load(again, [A]) == [expected]
    store.close()


def test_fault_07_a_restored_copy_takes_values_and_position_back_together(
    server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    lease = begin(store)
    copy = tmp_path / "copy"
    shutil.copytree(server.folder, copy, ignore=shutil.ignore_patterns("*.sock"))
    newer = store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={})
    server.kill()
    for path in server.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "log":
            path.unlink()
    shutil.copytree(copy, server.folder, dirs_exist_ok=True)
    server.start()
    for call in (
        lambda: store.commit(newer, cut=cut(3), puts={A: b"3"}, info={}),
        lambda: store.load(newer, [A]),
    ):
        with pytest.raises(StalePosition):
            call()
    again = store.claim(SHARD, fingerprint="f")
    assert again.cut == cut(1)
    assert store.load(again, [A, B]) == [b"1", None]
    again = store.commit(again, cut=cut(2), puts={A: b"2", B: b"2"}, info={})
    assert store.load(again, [A, B]) == [b"2", b"2"]


def test_fault_08_another_history_is_stale_or_fenced(
    server: RedisServer, store: RedisStore
) -> None:
    other = make_server(server.binary)
    second: RedisStore | None = None
    try:
        other.start()
        lease = begin(store)
        with server.client() as primary, other.client() as replica:
            replica.replicaof("127.0.0.1", str(server.port))
            wait_for(lambda: replica.info("replication").get("master_link_status") == "up")
            primary.execute_command("WAIT", 1, 10_000)
            second = RedisStore(other.url)
            with pytest.raises(UnreachableError, match="refuses"):
                second.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
            replica.replicaof("NO", "ONE")
        newer = store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
        with pytest.raises(StalePosition):
            second.commit(newer, cut=cut(3), puts={A: b"3"}, info={})
        third = store.claim(SHARD, fingerprint="f")
        with pytest.raises(FencedError):
            second.load(third, [A])
        there = second.claim(SHARD, fingerprint="f")
        assert there.cut == cut(1)
        assert second.load(there, [A]) == [b"1"]
        assert there.epoch not in (lease.epoch, third.epoch)
    finally:
        if second is not None:
            second.close()
        remove_server(other)


def wait_for(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("the condition never held")


def test_fault_10_a_store_that_may_evict_is_refused(server: RedisServer, store: RedisStore) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UsageError, match="noeviction"):
            store.claim(SHARD, fingerprint="f")
        client.config_set("maxmemory-policy", "volatile-lru")
        store.claim(SHARD, fingerprint="f")


def test_fault_11_out_of_memory_leaves_the_position(server: RedisServer, store: RedisStore) -> None:
    lease = begin(store)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        for puts in ({A: b"2", B: b"2"}, {}):
            with pytest.raises(UnreachableError, match="maxmemory"):
                store.commit(lease, cut=cut(2), puts=puts, info={})
        with pytest.raises(UnreachableError, match="maxmemory"):
            store.claim(SHARD, fingerprint="f")
        state, values = store.snapshot(SHARD, [A, B])
        assert state is not None
        assert state.cut == cut(1)
        assert values == [b"1", None]
        client.config_set("maxmemory", "0")
    lease = store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={})
    assert store.load(lease, [A, B]) == [b"2", b"2"]


def test_fault_11_a_commit_that_only_frees_memory_goes_through_whole(
    server: RedisServer, store: RedisStore
) -> None:
    lease = begin(store)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        store.commit(lease, cut=cut(2), puts={}, deletes=[A], info={})
    state, values = store.snapshot(SHARD, [A])
    assert state is not None
    assert state.cut == cut(2)
    assert values == [None]


@pytest.mark.parametrize("kind", ["string", "list", "hash"])
def test_fault_12_a_foreign_position_key_is_named(
    server: RedisServer, store: RedisStore, kind: str
) -> None:
    lease = begin(store)
    with server.client() as client:
        client.delete(META)
        if kind == "string":
            client.set(META, "x")
        elif kind == "list":
            client.rpush(META, "x")
        else:
            client.hset(META, "x", "y")
        before = client.dump(META)
        for call in (
            lambda: store.claim(SHARD, fingerprint="f"),
            lambda: store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={}),
            lambda: store.load(lease, [A]),
            lambda: store.state(SHARD),
        ):
            with pytest.raises(IntegrityError, match=r"fs:\{s@1\}:m"):
                call()
        assert client.dump(META) == before
        assert client.get(b"fs:{s@1}:e:" + A) == seal(A, b"1")


def test_fault_12_foreign_keys_in_other_places_are_named(
    server: RedisServer, store: RedisStore
) -> None:
    lease = begin(store)
    with server.client() as client:
        client.rpush(b"fs:{s@1}:e:" + B, "x")
        with pytest.raises(IntegrityError, match=r"(?s)'b'.*type list"):
            store.load(lease, [A, B])
        client.delete(b"fs:{s@1}:e:" + B)
        for bucket in range(4096):
            client.delete(b"fs:{s@1}:i:%03x" % bucket)
            client.set(b"fs:{s@1}:i:%03x" % bucket, "x")
        with pytest.raises(IntegrityError, match=r"fs:\{s@1\}:i:"):
            store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={})
        assert store.snapshot(SHARD, [A, B])[1] == [b"1", None]
        client.set("fs:serving", "x")
    for call in (
        lambda: store.publish("g", {}),
        lambda: store.published(),
        lambda: store.read(0, []),
    ):
        with pytest.raises(IntegrityError):
            call()


def test_scripts_that_redis_forgot_are_loaded_again(server: RedisServer, store: RedisStore) -> None:
    lease = begin(store)
    with server.client() as client:
        client.script_flush()
        lease = store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
        client.script_flush()
        keys = [pack_key((i,)) for i in range(12_000)]
        assert store.load(lease, [A, *keys]) == [b"2", *[None] * len(keys)]


def test_readers_survive_a_restart_of_the_server(server: RedisServer, store: RedisStore) -> None:
    begin(store)
    server.kill()
    with pytest.raises(UnreachableError):
        store.read(0, [(SHARD, [A])])
    server.start()
    assert store.read(0, [(SHARD, [A])]) == (True, [[b"1"]])


def test_an_interrupted_call_leaves_no_reply_for_the_next(store: RedisStore) -> None:
    lease = begin(store)
    connection: Any = store._wire._idle[-1]
    read = connection.read_response

    def interrupted(*args: object, **kwargs: object) -> object:
        connection.read_response = read
        raise KeyboardInterrupt

    connection.read_response = interrupted
    with pytest.raises(KeyboardInterrupt):
        store.load(lease, [A])
    assert store.health(SHARD) is None
    assert store.load(lease, [A]) == [b"1"]


def test_users_and_passwords(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "fs", "on", ">se:cret/@", "~fs:*", "+@all", "-@admin", "-info"
        )
    good = f"redis://fs:se%3Acret%2F%40@127.0.0.1:{server.port}/0"
    store = RedisStore(good)
    lease = begin(store)
    assert store.load(lease, [A]) == [b"1"]
    assert "cret" not in store.url
    assert store.url.startswith("redis://fs:***@127.0.0.1")
    store.close()
    wrong = RedisStore(f"redis://fs:wr0ng@127.0.0.1:{server.port}/0")
    with pytest.raises(UnreachableError, match="password") as caught:
        wrong.ping()
    assert "wr0ng" not in str(caught.value)
    wrong.close()


def test_a_user_without_rights_is_told(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ro", "on", ">x", "~fs:*", "+@read", "+ping")
    store = RedisStore(f"redis://ro:x@127.0.0.1:{server.port}/0")
    with pytest.raises(UnreachableError, match="allow"):
        store.claim(SHARD, fingerprint="f")
    store.close()


def test_a_client_gives_its_address(server: RedisServer) -> None:
    for client in (
        redis.Redis(port=server.port, decode_responses=True),
        redis.Redis(unix_socket_path=str(server.socket_path)),
    ):
        with client:
            store = RedisStore(client)
            store.ping()
            assert store.claim("c", fingerprint="f").epoch
            store.close()


def test_options_in_the_address_do_not_change_what_is_read(server: RedisServer) -> None:
    store = RedisStore(f"{server.url}?decode_responses=true")
    lease = begin(store)
    assert store.load(lease, [A]) == [b"1"]
    store.close()


@pytest.mark.parametrize("url", ["http://x", "redis", "redis://h:port/0", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        RedisStore(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("rediss://u:p@w@h:1/2?x=1", "rediss://u:***@h:1/2?x=1"),
        ("redis://u@h/0", "redis://u@h/0"),
        ("unix:///tmp/a.sock?db=1&password=pw", "unix:///tmp/a.sock?db=1&password=***"),
        ("unix://u:pw@/tmp/a.sock", "unix://u:***@/tmp/a.sock"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown
