"""The local cache of values: bounded, and honest about when each was read from the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from fs_notebook.clock import Clock
from fs_notebook.online.asks import Blobs, Shards

ENTRIES_MAX = 100_000


class KeptValues:
    """Values as they were read from the store, for some seconds. Thread-safe.

    What is kept is the stored value, not the finished one: windows and times to live go on
    ending while it is here. Only what a worker wrote meanwhile is not seen.

    Parameters
    ----------
    seconds
        How long a value is used; 0: nothing is kept.
    entries_max
        How many are kept; of more, those go that were used longest ago.
    """

    def __init__(self, seconds: float, *, clock: Clock, entries_max: int = ENTRIES_MAX) -> None:
        self.seconds = seconds
        self.entries_max = entries_max
        self._clock = clock
        self._generation = -1
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, bytes], tuple[bytes | None, float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def find(self, generation: int, shards: Shards) -> tuple[Blobs, list[list[int]], int]:
        """Return what is here, which places of each shard are not, and the oldest's time.

        The time is in microseconds since the epoch, now where nothing is here.
        """
        now_s, oldest_us = self._clock.monotonic_s(), self._clock.now_us()
        found: Blobs = []
        lacking: list[list[int]] = []
        with self._lock:
            current = generation == self._generation
            for shard, keys in shards:
                mine: list[bytes | None] = []
                lacks: list[int] = []
                for place, key in enumerate(keys):
                    held = self._held.get((shard, key)) if current else None
                    if held is None or now_s - held[1] > self.seconds:
                        mine.append(None)
                        lacks.append(place)
                        continue
                    self._held.move_to_end((shard, key))
                    mine.append(held[0])
                    oldest_us = min(oldest_us, held[2])
                found.append(mine)
                lacking.append(lacks)
        return found, lacking, oldest_us

    def keep(
        self, generation: int, shards: Shards, blobs: Sequence[Sequence[bytes | None]],
        *, asked_s: float, asked_us: int,
    ) -> None:  # fmt: skip
        """Keep what was asked for at `asked_s` of the monotonic clock, and came."""
        with self._lock:
            if generation != self._generation:
                self._held.clear()
                self._generation = generation
            for (shard, keys), mine in zip(shards, blobs, strict=True):
                for key, blob in zip(keys, mine, strict=True):
                    self._held[shard, key] = (blob, asked_s, asked_us)
                    self._held.move_to_end((shard, key))
            while len(self._held) > self.entries_max:
                self._held.popitem(last=False)
