"""The fenced store in Redis: state and position of a shard move in one atomic script.

Keys, all of one shard under one hash tag (so in one slot of a cluster)::

    fs:{shard}:m          hash: epoch, fingerprint, cut, info
    fs:{shard}:e:<key>    an entity's sealed value
    fs:{shard}:i:<hex>    the index of entities, 4,096 sets of hashes (see `scripts`)
    fs:{shard}:h          the worker's report, with a time to live
    fs:serving            hash: generation, and a record for each group ("g:<group>")

The server's run id needs no check of its own: position and values lie in the same data set
and move together, so another history of the server shows as another position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import redis

from fs_notebook.errors import FeatureStoreError, IntegrityError, UnreachableError, UsageError
from fs_notebook.online import checks, cluster, redis_reads, scripts
from fs_notebook.online.codec import corrupt, seal
from fs_notebook.online.protocol import Lease, ShardState
from fs_notebook.online.redis_keys import (
    GENERATION_ALONE,
    GROUP,
    SERVING,
    health_key,
    index_key,
    info_of,
    meta_key,
    opened,
    value_prefix,
)
from fs_notebook.online.wire import Talk, UnknownScript, Wire, url_of
from fs_notebook.position import Cut

T = TypeVar("T")

_LOAD_KEYS = 5_000
_LOAD_CALLS = 4
_DROP_KEYS = 1_000
_ASKED_TOGETHER = 1_000
_SCAN_COUNT = 1_000


class RedisStore:
    """`OnlineStore` in a Redis of version 6.2 or newer.

    Epochs and generations are Redis's own microseconds where those are ahead of the last
    number, so that one lost in a crash or a flush never returns.

    A commit is one script call whatever its size, since values and position may not come
    apart. 10,000 values keep Redis busy for some 10 ms; 200,000 for a third of a second, and
    for a second where all of them are new. Batches of up to 20,000 entities leave readers
    unbothered; the bounds are in `fs_notebook.online.codec`.

    Parameters
    ----------
    source
        The address (``redis://``, ``rediss://``, ``unix://``; of a Redis Cluster
        ``redis+cluster://`` or ``rediss+cluster://`` with some of its nodes), or a redis-py
        client to take the address from; its connections are not used, since they may repeat
        commands.
    timeout_seconds
        How long a reply may take before the outcome counts as unknown.

    Attributes
    ----------
    url
        The address with its password hidden, fit to be shown.
    """

    def __init__(self, source: str | redis.Redis, *, timeout_seconds: float = 20.0) -> None:
        address = source if isinstance(source, str) else url_of(source)
        is_cluster = address.partition("://")[0] in cluster.SCHEMES
        made: type[Wire] | type[cluster.ClusterWire] = cluster.ClusterWire if is_cluster else Wire
        self._wire: Talk = made(address, timeout_seconds=timeout_seconds)
        self.url = self._wire.shown
        self._values = redis_reads.Values(one_slot=not is_cluster)

    @property
    def address(self) -> str:
        """The address itself, its password included: for connecting, never for showing."""
        return self._wire.url

    def claim(self, shard: str, *, fingerprint: str) -> Lease:
        """Take over a shard; see `OnlineStore.claim`.

        Raises
        ------
        IntegrityError
            If the shard has another fingerprint, or values but no position, or a key of
            another type is in its way.
        UsageError
            If Redis is set to evict keys without a time to live when it is full.
        """
        checks.check_shard(shard)
        meta = meta_key(shard)
        self._refuse_eviction(meta)
        (reply,) = self._wire.run(scripts.CLAIM, [([meta], [index_key(shard), fingerprint])])
        word, *rest = reply
        if word == b"type":
            raise self._in_the_way(meta, rest[0])
        if word == b"orphans":
            raise checks.orphaned(shard)
        if word == b"fingerprint":
            raise checks.other_fingerprint(shard, held=rest[0].decode(), wanted=fingerprint)
        epoch, cut, info = rest
        return Lease(shard, int(epoch), _cut_of(shard, cut), info_of(shard, info))

    def load(self, lease: Lease, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`; see `OnlineStore.load`.

        Raises
        ------
        IntegrityError
            If a value is damaged, of another type, or was put once and is gone (evicted).
        """
        prefix, meta = value_prefix(lease.shard), meta_key(lease.shard)
        args = [lease.epoch, _cut_text(lease), index_key(lease.shard)]
        values: list[bytes | None] = []
        step = _LOAD_KEYS * _LOAD_CALLS
        for start in range(0, max(len(keys), 1), step):
            stretch = keys[start : start + step]
            chunks = [
                stretch[i : i + _LOAD_KEYS] for i in range(0, max(len(stretch), 1), _LOAD_KEYS)
            ]
            calls = [([meta, *[prefix + k for k in chunk]], args) for chunk in chunks]
            replies = self._wire.run(scripts.LOAD, calls)
            for chunk, (word, *rest) in zip(chunks, replies, strict=True):
                if word == b"lost":
                    raise checks.lost(lease.shard, chunk[rest[0] - 1])
                if word == b"entity":
                    held = f"a key of type {rest[1].decode()}: {prefix + chunk[rest[0] - 1]!r}"
                    raise corrupt(lease.shard, chunk[rest[0] - 1], found=held)
                self._check(lease, word, rest)
                values += opened(lease.shard, chunk, rest[0])
        return values

    def commit(
        self,
        lease: Lease,
        *,
        cut: Cut,
        puts: Mapping[bytes, bytes],
        deletes: Sequence[bytes] = (),
        info: Mapping[str, Any],
    ) -> Lease:
        """Write values, then the position, atomically; see `OnlineStore.commit`.

        Raises
        ------
        UnreachableError
            If the outcome is unknown, or Redis refused for want of memory or another
            reason that may pass; then nothing was written, as the message says.
        """
        checks.check_commit(lease, cut, puts, deletes)
        prefix, meta = value_prefix(lease.shard), meta_key(lease.shard)
        text = checks.to_json(info)
        keys = [meta]
        keys += [prefix + k for k in puts]
        keys += [prefix + k for k in dict.fromkeys(deletes)]
        args: list[Any] = [
            lease.epoch,
            _cut_text(lease),
            cut.to_json(),
            text,
            index_key(lease.shard),
            len(puts),
        ]
        args += [seal(k, v) for k, v in puts.items()]
        (reply,) = self._wire.run(scripts.COMMIT, [(keys, args)])
        self._check(lease, reply[0], reply[1:])
        return Lease(lease.shard, lease.epoch, cut, json.loads(text))

    def state(self, shard: str) -> ShardState | None:
        """Return the shard's position and info, None where it was never claimed."""
        return self.snapshot(shard, ())[0]

    def snapshot(
        self, shard: str, keys: Sequence[bytes]
    ) -> tuple[ShardState | None, list[bytes | None]]:
        """Return state and values as of one instant; an absent value is None."""
        checks.check_shard(shard)
        checks.check_snapshot(keys)
        prefix, meta = value_prefix(shard), meta_key(shard)
        asked = [meta, *[prefix + k for k in keys]]
        (reply,) = self._wire.run(scripts.SNAPSHOT, [(asked, ())])
        state = self._state_of(shard, reply)
        return state, opened(shard, keys, reply[2])

    def _state_of(self, shard: str, reply: Any) -> ShardState | None:
        """Return the state that a reply of the script holds."""
        if reply[0] == b"type":
            raise self._in_the_way(meta_key(shard), reply[1])
        epoch, cut, info, fingerprint = reply[1]
        if epoch is None:
            return None
        cut_, info_ = _cut_of(shard, cut), info_of(shard, info)
        return ShardState(shard, int(epoch), cut_, info_, fingerprint.decode())

    def entities(self, shard: str) -> Iterator[bytes]:
        """Yield every entity key that is stored, once each, in no order.

        Walks all keys of the database (of a cluster: of the shard's node); what is put or deleted
        meanwhile may be missed.
        """
        prefix = value_prefix(shard)
        seen: set[bytes] = set()
        for keys in self._scan(prefix):
            for key in keys:
                if key not in seen:
                    seen.add(key)
                    yield key[len(prefix) :]

    def drop(self, shard: str) -> int:
        """Delete all of a shard, the position first; return how many values there were.

        Cut short, it leaves values without a position, which `claim` refuses: drop again.
        """
        checks.check_shard(shard)
        self._wire.ask([("UNLINK", meta_key(shard), health_key(shard))])
        dropped = 0
        for keys in self._scan(value_prefix(shard)):
            for start in range(0, len(keys), _DROP_KEYS):
                dropped += self._wire.ask([("UNLINK", *keys[start : start + _DROP_KEYS])])[0]
        index = index_key(shard)
        buckets = [index + b"%03x" % i for i in range(scripts.INDEX_BUCKETS)]
        for start in range(0, len(buckets), _DROP_KEYS):
            self._wire.ask([("UNLINK", *buckets[start : start + _DROP_KEYS])])
        return dropped

    def heartbeat(self, shard: str, fields: Mapping[str, Any], *, ttl_seconds: float) -> None:
        """Store the worker's report, which vanishes after `ttl_seconds`."""
        checks.check_shard(shard)
        ttl_ms = max(int(ttl_seconds * 1000), 1)
        self._wire.ask([("SET", health_key(shard), checks.to_json(fields), "PX", ttl_ms)])

    def health(self, shard: str) -> Mapping[str, Any] | None:
        """Return the newest report, None when it is older than its time to live."""
        (text,) = self._wire.read_again([("GET", health_key(shard))])
        return None if text is None else info_of(shard, text)

    def reports(self, shards: Sequence[str]) -> list[Mapping[str, Any] | None]:
        """Return `health` of many shards, in few round trips."""
        found: list[Mapping[str, Any] | None] = []
        for start in range(0, len(shards), _ASKED_TOGETHER):
            part = shards[start : start + _ASKED_TOGETHER]
            texts = self._wire.read_again([("GET", health_key(shard)) for shard in part])
            found += [
                None if text is None else info_of(shard, text)
                for shard, text in zip(part, texts, strict=True)
            ]
        return found

    def states(self, shards: Sequence[str]) -> list[ShardState | None]:
        """Return `state` of many shards, in few round trips; each is of its own instant."""
        found: list[ShardState | None] = []
        for start in range(0, len(shards), _ASKED_TOGETHER):
            part = shards[start : start + _ASKED_TOGETHER]
            calls = [([meta_key(shard)], ()) for shard in part]
            replies = self._wire.run(scripts.SNAPSHOT, calls)
            found += [self._state_of(s, reply) for s, reply in zip(part, replies, strict=True)]
        return found

    def publish(self, group: str, record: Mapping[str, Any] | None) -> None:
        """Set or remove a group's serving record, and move the generation with it."""
        text = "" if record is None else checks.to_json(record)
        keys = [SERVING, GENERATION_ALONE]
        (reply,) = self._wire.run(scripts.PUBLISH, [(keys, [GROUP + group.encode(), text])])
        if reply[0] == b"type":
            raise self._in_the_way(SERVING, reply[1])

    def published(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the serving generation, 0 before the first change, and all records."""
        return self._ask(redis_reads.published())

    def read(
        self, generation: int, shards: Sequence[tuple[str, Sequence[bytes]]]
    ) -> tuple[bool, list[list[bytes | None]]]:
        """Return values of several shards in one round trip, verified."""
        return self._ask(self._values.ask(generation, shards))

    def _ask(self, asked: redis_reads.Asked[T]) -> T:
        while True:
            try:
                return asked.answer(self._wire.read_again(asked.commands))
            except (UnknownScript, redis_reads.Unsure):
                if asked.otherwise is None:
                    raise
                asked = asked.otherwise()

    def ping(self) -> None:
        """Raise `UnreachableError`, naming where, if Redis does not answer."""
        self._wire.ping()

    def is_cluster_node(self) -> bool:
        """Tell whether this is the address of one node of a cluster; not of the cluster."""
        try:
            (text,) = self._wire.read_again([("INFO", "cluster")])
        except FeatureStoreError as error:
            if isinstance(error, UnreachableError) and error.__cause__ is not None:
                raise
            return False
        return b"cluster_enabled:1" in text

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def _scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
        cursor: bytes = b"0"
        while True:
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            ((cursor, keys),) = self._wire.read_again([command], near=prefix)
            if keys:
                yield keys
            if cursor == b"0":
                return

    def _check(self, lease: Lease, word: bytes, rest: Sequence[Any]) -> None:
        if word == b"ok":
            return
        if word == b"missing":
            raise checks.missing(lease)
        if word == b"fenced":
            raise checks.fenced(lease, rest[0].decode())
        if word == b"stale":
            raise checks.stale(lease, rest[0].decode())
        if word == b"index":
            raise self._in_the_way(rest[0], rest[1])
        assert word == b"type", word
        raise self._in_the_way(meta_key(lease.shard), rest[0])

    def _in_the_way(self, key: bytes, kind: bytes) -> IntegrityError:
        return IntegrityError(
            f"The key {key.decode(errors='replace')!r} in the Redis at {self.url} is in the way.",
            found=f"a key of type {kind.decode()} that this package did not write",
            remedy="find out who wrote it and remove it, or use another database",
        )

    def _refuse_eviction(self, key: bytes) -> None:
        try:
            (text,) = self._wire.read_again([("INFO", "memory")], near=key)
        except FeatureStoreError as error:
            if isinstance(error, UnreachableError) and error.__cause__ is not None:
                raise
            # A user who may not ask for it cannot be told; lost values still show in `load`.
            return
        lines = (line.partition(b":") for line in text.splitlines())
        memory = {name: value.decode() for name, _, value in lines}
        policy = memory.get(b"maxmemory_policy", "")
        if policy.startswith("allkeys") and memory.get(b"maxmemory", "0") != "0":
            raise UsageError(
                f"The Redis at {self.url} may throw state away when it is full.",
                found=f"maxmemory-policy {policy}",
                remedy="set maxmemory-policy to noeviction or to a volatile- one there",
            )


def _cut_text(lease: Lease) -> str:
    return "" if lease.cut is None else lease.cut.to_json()


def _cut_of(shard: str, text: bytes | None) -> Cut | None:
    try:
        return None if text is None else Cut.from_json(text.decode())
    except (ValueError, TypeError) as error:
        raise IntegrityError(
            f"The stored position of {shard!r} cannot be read.",
            found=f"{text!r}: {error}",
            remedy="rebuild the feature from the ledger: promote it again",
        ) from None
