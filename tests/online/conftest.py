"""One suite for every store: each with a back door through which tests do damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import redis.cluster

from fs_notebook.clock import SYSTEM
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.testing import SimulatedStore
from tests.support.redis import (
    RedisCluster,
    RedisServer,
    own_redis,
    redis_cluster,
    system_redis,
    wheel_redis,
)

__all__ = ["own_redis", "redis_cluster", "system_redis", "wheel_redis"]


class BackDoor(Protocol):
    """Damage done to a store behind its back."""

    @property
    def store(self) -> OnlineStore: ...

    def evict(self, shard: str, key: bytes) -> None: ...

    def evict_position(self, shard: str) -> None: ...

    def overwrite(self, shard: str, key: bytes, sealed: bytes) -> None: ...

    def sealed(self, shard: str, key: bytes) -> bytes: ...

    def flush(self) -> None: ...


class MemoryDoor:
    def __init__(self, *, simulated: bool) -> None:
        self.memory = MemoryStore()
        self.store: OnlineStore = self.memory
        if simulated:
            made = SimulatedStore(clock=SYSTEM)
            self.memory, self.store = made.memory, made

    def evict(self, shard: str, key: bytes) -> None:
        self.memory.evict(shard, key)

    def evict_position(self, shard: str) -> None:
        del self.memory._data.shards[shard]

    def overwrite(self, shard: str, key: bytes, sealed: bytes) -> None:
        self.memory._data.values[shard][key] = sealed

    def sealed(self, shard: str, key: bytes) -> bytes:
        return self.memory._data.values[shard][key]

    def flush(self) -> None:
        self.memory.flush()


class RedisDoor:
    def __init__(self, server: RedisServer, url: str) -> None:
        self.store = RedisStore(url)
        self.client = server.client()

    def evict(self, shard: str, key: bytes) -> None:
        assert self.client.delete(b"fs:{%s}:e:%s" % (shard.encode(), key)) == 1

    def evict_position(self, shard: str) -> None:
        assert self.client.delete(b"fs:{%s}:m" % shard.encode()) == 1

    def overwrite(self, shard: str, key: bytes, sealed: bytes) -> None:
        self.client.set(b"fs:{%s}:e:%s" % (shard.encode(), key), sealed)

    def sealed(self, shard: str, key: bytes) -> bytes:
        found = self.client.get(b"fs:{%s}:e:%s" % (shard.encode(), key))
        assert isinstance(found, bytes)
        return found

    def flush(self) -> None:
        self.client.flushall()


class ClusterDoor(RedisDoor):
    def __init__(self, cluster: RedisCluster) -> None:
        self.store = RedisStore(cluster.url)
        self.cluster = cluster
        first = cluster.nodes[0]
        self.client: Any = redis.cluster.RedisCluster(host="127.0.0.1", port=first.port, protocol=2)

    def flush(self) -> None:
        self.cluster.flush()


@pytest.fixture(params=["memory", "simulated", "system", "wheel", "socket", "cluster"])
def door(request: pytest.FixtureRequest) -> Iterator[BackDoor]:
    """A store of each kind, empty: Redis over TCP (two versions) and over a Unix socket."""
    if request.param in ("memory", "simulated"):
        yield MemoryDoor(simulated=request.param == "simulated")
        return
    if request.param == "cluster":
        door = ClusterDoor(request.getfixturevalue("redis_cluster"))
        door.flush()
        yield door
        door.store.close()
        door.client.close()
        return
    name = "system_redis" if request.param == "system" else "wheel_redis"
    server: RedisServer = request.getfixturevalue(name)
    made = RedisDoor(server, server.unix_url if request.param == "socket" else server.url)
    made.client.flushall()
    yield made
    made.store.close()
    made.client.close()


@pytest.fixture
def store(door: BackDoor) -> OnlineStore:
    return door.store
