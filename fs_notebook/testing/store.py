"""An online store in memory that fails as Redis, its host and its network do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fs_notebook.clock import Clock
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import Lease, ShardState
from fs_notebook.position import Cut
from fs_notebook.testing.broker import DELAY_MS_MAX, silent
from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.testing.faults import Fault, Faults

COPIES_MAX = 8
LATE_CALLS_MAX = 6


class SimulatedStore:
    """`OnlineStore` in this process's memory, with faults; deterministic from their seed.

    Parameters
    ----------
    clock
        Tells when reports expire and takes delays; by default a `SimulatedClock`.
    faults
        What goes wrong; by default nothing does.

    Attributes
    ----------
    memory
        The store without its faults, for looking into it and for damage of one's own.
    """

    def __init__(self, *, clock: Clock | None = None, faults: Faults | None = None) -> None:
        self.url = "simulated:"
        self.clock = clock if clock is not None else SimulatedClock()
        self.faults = faults if faults is not None else Faults()
        self.memory = MemoryStore(clock=self.clock)
        self._chance = random.Random(f"store {self.faults.seed}")
        self._copies: list[object] = [self.memory.copy()]
        self._late: list[tuple[int, Callable[[], object]]] = []

    def claim(self, shard: str, *, fingerprint: str) -> Lease:
        """Take over a shard; see `OnlineStore.claim`."""
        self._called("claim a shard")
        lease = self.memory.claim(shard, fingerprint=fingerprint)
        self._keep_copy()
        return lease

    def load(self, lease: Lease, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys`; see `OnlineStore.load`."""
        self._called("load values")
        self._damage()
        if self.faults.strikes(Fault.EVICTED):
            there = sorted(self.memory.entities(lease.shard))
            if there:
                lost = there[self.faults.draw(Fault.EVICTED, len(there))]
                self.memory.evict(lease.shard, lost)
        return self.memory.load(lease, keys)

    def commit(
        self,
        lease: Lease,
        *,
        cut: Cut,
        puts: Mapping[bytes, bytes],
        deletes: Sequence[bytes] = (),
        info: Mapping[str, Any],
    ) -> Lease:
        """Write values and position together; see `OnlineStore.commit`.

        Raises
        ------
        UnreachableError
            If `Fault.COMMIT_LOST`, `COMMIT_LATE`, `REPLY_LOST` or `OUT_OF_MEMORY` strikes.
        """
        faults = self.faults
        self._called("commit", answered=True)
        self._damage()
        held = self.memory.state(lease.shard)
        if held is not None and faults.strikes(Fault.TAKEN_OVER):
            self.memory.claim(lease.shard, fingerprint=held.fingerprint)
        if faults.strikes(Fault.OUT_OF_MEMORY):
            raise UnreachableError(
                "The simulated store refused a commit for want of memory; nothing was written.",
                found=f"{faults!r}",
                remedy="it is tried again",
            )

        def write() -> Lease:
            return self.memory.commit(lease, cut=cut, puts=puts, deletes=deletes, info=info)

        if faults.strikes(Fault.COMMIT_LOST):
            raise silent("answer a commit", faults)
        if faults.strikes(Fault.COMMIT_LATE):
            calls = faults.draw(Fault.COMMIT_LATE, LATE_CALLS_MAX)
            self._late.append((calls, write))
            raise silent("answer a commit", faults)
        done = write()
        self._keep_copy()
        faults.step("hear that a commit was done")
        if faults.strikes(Fault.REPLY_LOST):
            raise silent("answer a commit", faults)
        return done

    def state(self, shard: str) -> ShardState | None:
        """Return the shard's position and info, None where it was never claimed."""
        self._called("look at a shard")
        self._damage()
        return self.memory.state(shard)

    def snapshot(
        self, shard: str, keys: Sequence[bytes]
    ) -> tuple[ShardState | None, list[bytes | None]]:
        """Return state and values as of one instant."""
        self._called("look at a shard")
        return self.memory.snapshot(shard, keys)

    def entities(self, shard: str) -> Iterator[bytes]:
        """Yield every entity key of the shard that is stored."""
        self._called("list entities")
        return self.memory.entities(shard)

    def drop(self, shard: str) -> int:
        """Delete all of a shard; return how many values there were."""
        self._called("drop a shard")
        return self.memory.drop(shard)

    def heartbeat(self, shard: str, fields: Mapping[str, Any], *, ttl_seconds: float) -> None:
        """Store the worker's report, which vanishes after `ttl_seconds` of the clock."""
        self._called("store a report")
        self.memory.heartbeat(shard, fields, ttl_seconds=ttl_seconds)

    def health(self, shard: str) -> Mapping[str, Any] | None:
        """Return the newest report, None when it is older than its time to live."""
        self._called("read a report")
        return self.memory.health(shard)

    def reports(self, shards: Sequence[str]) -> list[Mapping[str, Any] | None]:
        """Return `health` of many shards."""
        return [self.health(shard) for shard in shards]

    def states(self, shards: Sequence[str]) -> list[ShardState | None]:
        """Return `state` of many shards."""
        return [self.state(shard) for shard in shards]

    def publish(self, group: str, record: Mapping[str, Any] | None) -> None:
        """Set or remove a group's serving record, and move the generation with it."""
        self._called("publish a record")
        self.memory.publish(group, record)

    def published(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the serving generation and all records, by group."""
        self._called("read the records")
        return self.memory.published()

    def read(
        self, generation: int, shards: Sequence[tuple[str, Sequence[bytes]]]
    ) -> tuple[bool, list[list[bytes | None]]]:
        """Return values of several shards as of one instant, verified."""
        self._called("read values")
        return self.memory.read(generation, shards)

    def ping(self) -> None:
        """Raise `UnreachableError` if `Fault.STORE_SILENT` strikes."""
        self._called("answer")

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def settle(self) -> None:
        """Let every commit that is still on its way arrive."""
        late, self._late = self._late, []
        for _, write in late:
            # One that comes after somebody else's claim or commit is refused, unheard.
            with suppress(FeatureStoreError):
                write()

    def _called(self, doing: str, *, answered: bool = False) -> None:
        """Let a call come in: somebody's late commit may be before it, or no answer to it."""
        self.faults.step(f"{doing} in the store")
        due = [write for calls, write in self._late if calls == 0]
        self._late = [(calls - 1, write) for calls, write in self._late if calls > 0]
        for write in due:
            with suppress(FeatureStoreError):
                write()
        if self.faults.strikes(Fault.DELAY):
            self.clock.sleep_s(self.faults.draw(Fault.DELAY, DELAY_MS_MAX) / 1000)
        if not answered and self.faults.strikes(Fault.STORE_SILENT):
            raise silent(f"{doing} in the store", self.faults)

    def _damage(self) -> None:
        """Let the store lose what it loses on its own."""
        if self.faults.strikes(Fault.FLUSHED):
            self.memory.flush()
        if self.faults.strikes(Fault.WENT_BACK):
            chosen = self.faults.draw(Fault.WENT_BACK, len(self._copies))
            self.memory.restore(self._copies[chosen])
            del self._copies[chosen + 1 :]

    def _keep_copy(self) -> None:
        """Keep a copy now and then, for a restart to go back to."""
        if self.faults.may(Fault.WENT_BACK) and self._chance.random() < 0.5:
            self._copies = [*self._copies[-COPIES_MAX + 1 :], self.memory.copy()]
