"""The same store in memory: for simulation, and for tests that need no server."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.online import checks
from fs_notebook.online.codec import seal, unseal
from fs_notebook.online.protocol import Lease, ShardState
from fs_notebook.position import Cut


@dataclass
class _Shard:
    epoch: int
    fingerprint: str
    cut: Cut | None = None
    info: str = "{}"


@dataclass
class _Data:
    """All that a crash may take and a copy may bring back."""

    shards: dict[str, _Shard] = field(default_factory=dict)
    values: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    index: dict[str, set[bytes]] = field(default_factory=dict)
    reports: dict[str, tuple[str, int]] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    generation: int = 0


class MemoryStore:
    """`OnlineStore` in this process's memory; thread-safe.

    Parameters
    ----------
    clock
        Tells when a worker's report has expired.
    """

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self.url = "memory:"
        self._clock = clock
        self._lock = threading.RLock()
        self._data = _Data()
        # Beyond every flush and restored copy, so that no epoch or generation returns.
        self._numbers = 0

    def claim(self, shard: str, *, fingerprint: str) -> Lease:
        """Take over a shard; see `OnlineStore.claim`."""
        checks.check_shard(shard)
        with self._lock:
            held = self._data.shards.get(shard)
            if held is None:
                if self._data.index.get(shard):
                    raise checks.orphaned(shard)
                held = self._data.shards[shard] = _Shard(0, fingerprint)
            elif held.fingerprint != fingerprint:
                raise checks.other_fingerprint(shard, held=held.fingerprint, wanted=fingerprint)
            held.epoch = self._next_number()
            return Lease(shard, held.epoch, held.cut, json.loads(held.info))

    def load(self, lease: Lease, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`; see `OnlineStore.load`."""
        with self._lock:
            self._held(lease)
            values = self._data.values.get(lease.shard, {})
            index = self._data.index.get(lease.shard, set())
            for key in keys:
                if key not in values and key in index:
                    raise checks.lost(lease.shard, key)
            return self._opened(lease.shard, keys)

    def commit(
        self,
        lease: Lease,
        *,
        cut: Cut,
        puts: Mapping[bytes, bytes],
        deletes: Sequence[bytes] = (),
        info: Mapping[str, Any],
    ) -> Lease:
        """Write values and position together; see `OnlineStore.commit`."""
        checks.check_commit(lease, cut, puts, deletes)
        text = checks.to_json(info)
        with self._lock:
            held = self._held(lease)
            values = self._data.values.setdefault(lease.shard, {})
            index = self._data.index.setdefault(lease.shard, set())
            values.update((k, seal(k, v)) for k, v in puts.items())
            index.update(puts)
            for key in deletes:
                values.pop(key, None)
                index.discard(key)
            held.cut, held.info = cut, text
        return Lease(lease.shard, lease.epoch, cut, json.loads(text))

    def state(self, shard: str) -> ShardState | None:
        """Return the shard's position and info, None where it was never claimed."""
        return self.snapshot(shard, ())[0]

    def snapshot(
        self, shard: str, keys: Sequence[bytes]
    ) -> tuple[ShardState | None, list[bytes | None]]:
        """Return state and values as of one instant."""
        checks.check_shard(shard)
        checks.check_snapshot(keys)
        with self._lock:
            held = self._data.shards.get(shard)
            values = self._opened(shard, keys)
            if held is None:
                return None, values
            info = json.loads(held.info)
            return ShardState(shard, held.epoch, held.cut, info, held.fingerprint), values

    def entities(self, shard: str) -> Iterator[bytes]:
        """Yield every entity key of the shard that is stored."""
        with self._lock:
            keys = list(self._data.values.get(shard, ()))
        yield from keys

    def drop(self, shard: str) -> int:
        """Delete all of a shard; return how many values there were."""
        checks.check_shard(shard)
        with self._lock:
            self._data.shards.pop(shard, None)
            self._data.index.pop(shard, None)
            self._data.reports.pop(shard, None)
            return len(self._data.values.pop(shard, ()))

    def heartbeat(self, shard: str, fields: Mapping[str, Any], *, ttl_seconds: float) -> None:
        """Store the worker's report, which vanishes after `ttl_seconds`."""
        checks.check_shard(shard)
        until_us = self._clock.now_us() + int(ttl_seconds * 1_000_000)
        with self._lock:
            self._data.reports[shard] = (checks.to_json(fields), until_us)

    def health(self, shard: str) -> Mapping[str, Any] | None:
        """Return the newest report, None when it is older than its time to live."""
        with self._lock:
            text, until_us = self._data.reports.get(shard, ("", 0))
        if self._clock.now_us() >= until_us:
            return None
        fields: dict[str, Any] = json.loads(text)
        return fields

    def reports(self, shards: Sequence[str]) -> list[Mapping[str, Any] | None]:
        """Return `health` of many shards."""
        return [self.health(shard) for shard in shards]

    def states(self, shards: Sequence[str]) -> list[ShardState | None]:
        """Return `state` of many shards."""
        return [self.state(shard) for shard in shards]

    def publish(self, group: str, record: Mapping[str, Any] | None) -> None:
        """Set or remove a group's serving record, and move the generation with it."""
        text = None if record is None else checks.to_json(record)
        with self._lock:
            if text is None:
                self._data.records.pop(group, None)
            else:
                self._data.records[group] = text
            self._data.generation = self._next_number()

    def published(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the serving generation and all records, by group."""
        with self._lock:
            records = sorted(self._data.records.items())
            return self._data.generation, {group: json.loads(text) for group, text in records}

    def read(
        self, generation: int, shards: Sequence[tuple[str, Sequence[bytes]]]
    ) -> tuple[bool, list[list[bytes | None]]]:
        """Return values of several shards as of one instant, verified."""
        with self._lock:
            current = self._data.generation == generation
            values = [self._opened(shard, keys) for shard, keys in shards]
            for (shard, keys), mine in zip(shards, values, strict=True):
                index = self._data.index.get(shard, set())
                for key, blob in zip(keys, mine, strict=True):
                    if current and blob is None and shard not in self._data.shards:
                        raise checks.unbuilt(shard)
                    if current and blob is None and key in index:
                        raise checks.lost(shard, key)
            return current, values

    def ping(self) -> None:
        """Do nothing: memory always answers."""

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def copy(self) -> object:
        """Return a copy of all data, for `restore`: what a backup would hold."""
        with self._lock:
            return copy.deepcopy(self._data)

    def restore(self, data: object) -> None:
        """Go back to what `copy` returned: what a crash leaves of the last seconds."""
        assert isinstance(data, _Data)
        with self._lock:
            self._data = copy.deepcopy(data)

    def evict(self, shard: str, key: bytes) -> None:
        """Lose one committed value, as a store that is short of memory may."""
        with self._lock:
            del self._data.values[shard][key]

    def flush(self) -> None:
        """Lose everything."""
        with self._lock:
            self._data = _Data()

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _held(self, lease: Lease) -> _Shard:
        held = self._data.shards.get(lease.shard)
        if held is None:
            raise checks.missing(lease)
        if held.epoch != lease.epoch:
            raise checks.fenced(lease, held.epoch)
        if held.cut != lease.cut:
            raise checks.stale(lease, held.cut.to_json() if held.cut is not None else "none")
        return held

    def _opened(self, shard: str, keys: Sequence[bytes]) -> list[bytes | None]:
        values = self._data.values.get(shard, {})
        return [unseal(key, values[key], shard=shard) if key in values else None for key in keys]
