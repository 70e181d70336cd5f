"""What an online store is: state and position of each shard, moved together or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fs_notebook.position import Cut


def part_shard(shard: str, partition: int) -> str:
    """Return the name of the shard that holds one partition's share of a feature's state."""
    return f"{shard}#{partition}"


@dataclass(frozen=True)
class Lease:
    """The right to write one shard until somebody else claims it.

    Attributes
    ----------
    shard
        Which share of which feature version, e.g. ``"reading_time@3f2a9c01"``.
    epoch
        Grows with every claim; writes of an older epoch are refused.
    cut
        The stored position, None where nothing was ever committed.
    info
        What the last commit stored beside the position (counters, phase …).
    """

    shard: str
    epoch: int
    cut: Cut | None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardState:
    """What is stored of a shard, apart from its values."""

    shard: str
    epoch: int
    cut: Cut | None
    info: Mapping[str, Any]
    fingerprint: str


class OnlineStore(Protocol):
    """Keeps one packed value per (shard, entity), under the commit rule.

    Entity keys and values are bytes that `fs_notebook.online.codec` packs; the store adds a
    checksum to each value and verifies it on the way out (`IntegrityError`).
    """

    url: str

    def claim(self, shard: str, *, fingerprint: str) -> Lease:
        """Take over a shard: a new epoch; whoever held it before is fenced from now on.

        Raises
        ------
        IntegrityError
            If the shard was written under another fingerprint.
        """
        ...

    def load(self, lease: Lease, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of `keys` as last committed, None where there is none.

        Raises `FencedError` if the lease is not the newest, `StalePosition` if the stored
        position is not `lease.cut`.
        """
        ...

    def commit(
        self,
        lease: Lease,
        *,
        cut: Cut,
        puts: Mapping[bytes, bytes],
        deletes: Sequence[bytes] = (),
        info: Mapping[str, Any],
    ) -> Lease:
        """Write absolute values and then the position, atomically; return the lease at `cut`.

        Raises `FencedError` or `StalePosition` with nothing written. On any doubt about the
        outcome (timeout, broken connection) raises `UnreachableError`: the caller must
        `claim` again and read the position back.
        """
        ...

    def state(self, shard: str) -> ShardState | None:
        """Return the shard's position and info, None where it was never claimed."""
        ...

    def snapshot(
        self, shard: str, keys: Sequence[bytes]
    ) -> tuple[ShardState | None, list[bytes | None]]:
        """Return state and values as of one instant, for `verify`. At most 1,000 keys a call."""
        ...

    def entities(self, shard: str) -> Iterator[bytes]:
        """Yield every entity key of the shard that is stored (in no order)."""
        ...

    def drop(self, shard: str) -> int:
        """Delete all of a shard; return how many values there were."""
        ...

    def heartbeat(self, shard: str, fields: Mapping[str, Any], *, ttl_seconds: float) -> None:
        """Store the worker's own report (state, lag, rate, last error), outside the commit."""
        ...

    def health(self, shard: str) -> Mapping[str, Any] | None:
        """Return the newest report, None when it is older than its time to live."""
        ...

    def reports(self, shards: Sequence[str]) -> list[Mapping[str, Any] | None]:
        """Return `health` of many shards, in few round trips."""
        ...

    def states(self, shards: Sequence[str]) -> list[ShardState | None]:
        """Return `state` of many shards, in few round trips; each is of its own instant."""
        ...

    def publish(self, group: str, record: Mapping[str, Any] | None) -> None:
        """Set (or, with None, remove) what serving must know of a group; readers see it at once."""
        ...

    def published(self) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the serving generation (grows with every change) and all records, by group."""
        ...

    def read(
        self, generation: int, shards: Sequence[tuple[str, Sequence[bytes]]]
    ) -> tuple[bool, list[list[bytes | None]]]:
        """Return values of several shards in ONE round trip, verified.

        The flag says whether `generation` is still the current one; if not, the caller
        refreshes with `published` and asks again.

        Raises
        ------
        IntegrityError
            If, at the current generation, a value was committed and is gone, or all of a shard is.
        """
        ...

    def ping(self) -> None:
        """Raise `UnreachableError`, naming where, if the store does not answer."""
        ...

    def close(self) -> None: ...
