"""How long commits take: counts by duration, small enough to go with each report."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the counts, each inclusive; what takes longer is counted beyond them."""


@dataclass
class Timings:
    """Durations, counted by the first bound that they do not exceed.

    Examples
    --------
    >>> timings = Timings((0.1, 1.0))
    >>> for seconds in (0.05, 0.1, 7.0):
    ...     timings.add(seconds)
    >>> timings.to_dict()
    {'counts': [2, 0, 1], 'sum': 7.15}
    """

    bounds: Sequence[float] = COMMIT_SECONDS
    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        assert len(self.counts) == len(self.bounds) + 1

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds

    def to_dict(self) -> dict[str, Any]:
        """Return what a report says: a count for each bound and one beyond them, and the sum."""
        return {"counts": list(self.counts), "sum": round(self.sum_s, 6)}
