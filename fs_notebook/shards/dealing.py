"""Events read once, and dealt out to the key shards of each plan that folds them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

from fs_notebook.compute.fold import Fold
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import Batch
from fs_notebook.shards.hashing import Asked, key_hashes, shards_of
from fs_notebook.shards.spill import BUFFER_BYTES, Spill
from fs_notebook.shards.work import LOG_PARTITION

SHARDS_MAX = 4_096
FINE = 256
"""Shards where nobody says how many: so many go to disk, and as many together as fit are one
task."""

MEMORY = "FS_NOTEBOOK_MEMORY_MB"
_CGROUP = Path("/sys/fs/cgroup/memory.max")
SHARE_MIN = 0.01
"""How much of a stream tells how much the whole of it is."""

WORK_FACTOR = 8
"""How many times an event's bytes its point-in-time join takes at most, about."""


@dataclass(frozen=True)
class Limits:
    """What bounds memory.

    Attributes
    ----------
    buffer_bytes
        Rows that wait to be written, of all spills together.
    slice_rows
        Labels that are held at once, where they come from a file.
    task_bytes
        Of a task, where nobody says how many shards there are; one shard may have more.
    """

    buffer_bytes: int = 2 * BUFFER_BYTES
    slice_rows: int = 500_000
    task_bytes: int = 2**26

    @classmethod
    def here(cls) -> Limits:
        """Return limits that fit this machine's memory."""
        memory = memory_bytes()
        return cls(
            buffer_bytes=max(min(memory // 32, 4 * BUFFER_BYTES), 2**20),
            task_bytes=max(memory // (2 * WORK_FACTOR), 2**22),
        )


class TooLarge(Exception):
    """The events of a training set do not fit memory; `told` says how many bytes they take."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told

    @classmethod
    def check(cls, held_bytes: int, share: float, bytes_max: int) -> None:
        """Raise if so many bytes, of a share of the stream, mean more than `bytes_max` in all."""
        whole = held_bytes / share if share >= SHARE_MIN else held_bytes
        if whole > bytes_max:
            told = f"events of about {whole / 1e6:,.0f} MB do not fit in {bytes_max / 1e6:,.0f} MB"
            raise cls(told)


def memory_bytes() -> int:
    """Return the bytes that a training set may take: half of what is free.

    ``FS_NOTEBOOK_MEMORY_MB`` says otherwise. A container's limit counts as the machine's memory.

    Raises
    ------
    UsageError
        If that variable holds no number.
    """
    said = os.environ.get(MEMORY)
    if said:
        if not said.isdecimal() or int(said) == 0:
            raise UsageError(f"{MEMORY} is a number of megabytes.", found=said, remedy="4000")
        return int(said) * 10**6
    free = int(psutil.virtual_memory().available)
    try:
        limit = _CGROUP.read_text().strip()
    except OSError:
        limit = "max"
    if limit.isdecimal():
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return max(free // 2, 2**26)


def check_shards(shards: int | None) -> None:
    """Raise unless it is a number of shards."""
    if shards is not None and not 1 <= shards <= SHARDS_MAX:
        raise UsageError(
            "shards is how many parts the entities are dealt out to.",
            found=str(shards), remedy=f"1 to {SHARDS_MAX}",
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Dealt:
    """A plan's events by shard.

    Attributes
    ----------
    asked
        The entities that are asked for; None: all.
    """

    fold: Fold
    events: Spill
    asked: Asked | None = None

    def add(self, batch: Batch, stamps: Sequence[str] = ()) -> tuple[int, int]:
        """Deal out a batch; return how many of its rows were kept, and dropped for a null key."""
        frame, null_keys = self.fold.project(batch.rows, batch.positions, stamps)
        return self.add_projected(frame, batch.partition), null_keys

    def add_projected(self, frame: pl.DataFrame, partition: int) -> int:
        hashes = key_hashes(frame, self.fold.keys)
        if self.asked is not None:
            there = self.asked.has(hashes)
            frame, hashes = frame.filter(pl.Series(there)), hashes[there]
        number = pl.lit(partition, dtype=pl.Int32).alias(LOG_PARTITION)
        self.events.add(frame.with_columns(number), shards_of(hashes, self.events.count))
        return frame.height


def together(
    count: int, sizes: Sequence[int], *, shards: int | None, task_bytes: int
) -> Iterator[list[int]]:
    """Yield which shards are one task: as many as fit, or each by itself where it was said."""
    held: list[int] = []
    for shard in range(count):
        full = shards is not None or sum(sizes[s] for s in held) + sizes[shard] > task_bytes
        if held and full:
            yield held
            held = []
        held.append(shard)
    if held:
        yield held
