"""Positions in a log, and cuts through it.

Every event has a position: (partition, ledger, entry, batch index). Within a partition
positions are totally ordered. A cut maps each partition to the last position that lies on
its near side; a partition that a cut does not name lies wholly on the far side.
All intervals between cuts are half-open: ``(start, end]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """Where one event lies; sorts within a partition in log order."""

    partition: int
    ledger: int
    entry: int
    batch: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.ledger}:{self.entry}:{self.batch}"


@dataclass(frozen=True)
class Cut:
    """The last position on the near side, for each partition that has one."""

    positions: tuple[Position, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(Position(*p) for p in self.positions))
        if len({p.partition for p in ordered}) != len(ordered):
            raise ValueError("a cut holds at most one position a partition")
        object.__setattr__(self, "positions", ordered)

    def __iter__(self) -> Iterator[Position]:
        return iter(self.positions)

    def get(self, partition: int) -> Position | None:
        """Return the partition's last position on the near side, or None."""
        for position in self.positions:
            if position.partition == partition:
                return position
        return None

    def covers(self, position: Position) -> bool:
        """Tell whether `position` lies on the near side."""
        mine = self.get(position.partition)
        return mine is not None and position <= mine

    def contains(self, other: Cut) -> bool:
        """Tell whether all of `other`'s near side is on this one's near side."""
        return all(self.covers(p) for p in other)

    def advanced(self, positions: Iterable[Position]) -> Cut:
        """Return this cut with the given partitions moved forward (never back)."""
        merged = {p.partition: p for p in self.positions}
        for p in positions:
            known = merged.get(p.partition)
            merged[p.partition] = p if known is None or p > known else known
        return Cut(tuple(merged.values()))

    def entries_to(self, end: Cut) -> int | None:
        """Return how many stored entries lie in (self, end], None where that cannot be told.

        Within a ledger entries are numbered from 0 without gaps; how many there are in ledgers
        between is not in a position. On the embedded ledger an entry is an event; on Pulsar it
        is a batch of messages.
        """
        total = 0
        for last in end:
            first = self.get(last.partition)
            if first is None and last.ledger == 0:
                total += last.entry + 1
            elif first is not None and first.ledger == last.ledger:
                total += max(last.entry - first.entry, 0)
            elif first is None or first < last:
                return None
        return total

    def to_json(self) -> str:
        """Return the canonical text: sorted by partition, no spaces."""
        return json.dumps([list(p) for p in self.positions], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Cut:
        """Return the cut that `to_json` wrote."""
        return cls(tuple(Position(*map(int, p)) for p in json.loads(text)))

    def __str__(self) -> str:
        return ", ".join(str(p) for p in self.positions) or "start"


START = Cut()


class Way:
    """How much of a way to a cut is done: the share of the entries that lay ahead at first."""

    def __init__(self, end: Cut) -> None:
        self._end = end
        self._most = 0

    def share(self, at: Cut) -> float | None:
        """Return the share done at `at`, from 0 to 1, None while it cannot be told."""
        left = at.entries_to(self._end)
        if left is None:
            return None
        self._most = max(self._most, left)
        return 1.0 - left / self._most if self._most else 1.0
