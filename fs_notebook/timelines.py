"""How a stream's events lie in time: a histogram, from what can be read in a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.log.facts import Facts
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut, Position
from fs_notebook.types import TIME

Ints = npt.NDArray[np.int64]

BINS_MAX = 120
READ_MAX = 2_000_000
"""So many events are read whole; of more, stretches."""
STRETCHES = 64
STRETCH_EVENTS = 8_000
_SECOND = 1_000_000
_STEPS_S = (
    0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800,
    21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000,
    157_680_000, 315_360_000,
)  # fmt: skip
_BLOCKS = " ▁▂▃▄▅▆▇█"
_LINE_CELLS = 60


@dataclass(frozen=True)
class Timeline:
    """A stream's events over event time, in equal bins.

    Attributes
    ----------
    start_us, step_us
        The i-th bin is [start + i * step, start + (i + 1) * step), microseconds since the epoch.
    counts
        Events in each bin; where `sampled`, what the sample makes them out to be.
    events
        How many the stream has; None where the ledger does not know.
    read
        How many were looked at.
    sampled
        Whether stretches were read instead of all.
    note
        What a reader must know of it; empty where all events are in it.
    """

    stream: str
    start_us: int
    step_us: int
    counts: tuple[float, ...]
    events: int | None
    read: int
    sampled: bool
    note: str = ""

    @property
    def end_us(self) -> int:
        """Where the last bin ends."""
        return self.start_us + self.step_us * len(self.counts)

    @property
    def start(self) -> datetime:
        """Where the first bin begins, UTC."""
        return from_us(self.start_us)

    @property
    def end(self) -> datetime:
        """Where the last bin ends, UTC."""
        return from_us(self.end_us)

    def within(self, from_us: int, to_us: int) -> float:
        """Return about how many events lie in [from, to); bins count by the share inside."""
        inside = 0.0
        for place, n in enumerate(self.counts):
            low = self.start_us + place * self.step_us
            share = min(to_us, low + self.step_us) - max(from_us, low)
            inside += n * max(share, 0) / self.step_us
        return inside

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "stream": self.stream, "start_us": self.start_us, "step_us": self.step_us,
            "counts": list(self.counts), "events": self.events, "read": self.read,
            "sampled": self.sampled, "note": self.note,
        }  # fmt: skip

    def __repr__(self) -> str:
        if not self.counts:
            return f"{self.stream}: no events"
        parts = np.array_split(np.asarray(self.counts), min(len(self.counts), _LINE_CELLS))
        sums = [float(p.mean()) for p in parts]
        most = max(sums) or 1.0
        cells = [_BLOCKS[-(-int(1_000 * s / most * (len(_BLOCKS) - 1)) // 1_000)] for s in sums]
        count = self.read if self.events is None else self.events
        head = f"{self.stream}: {count:,} events, {self.start:%Y-%m-%d %H:%M} to "
        lines = [head + f"{self.end:%Y-%m-%d %H:%M} UTC", "".join(cells)]
        return "\n".join([*lines, self.note] if self.note else lines)


def timeline_of(
    log: EventLog, stream: Stream, *, clock: Clock, on_progress: OnProgress = silent
) -> Timeline:
    """Return how a stream's events lie in time.

    Up to two million events are read, their times only. Where the ledger counts events and there
    are more, 64 stretches of 8,000 that are equally far apart stand for all; where it does not
    count them, the first two million do.
    """
    facts_of: Callable[[str], Facts] | None = getattr(log, "facts", None)
    events = None if facts_of is None else facts_of(stream.name).events
    end = log.end(stream.name)
    if events is not None and events > READ_MAX:
        parts, whole = _stretches(log, stream, end, events), STRETCHES * STRETCH_EVENTS
    else:
        parts, whole = [[(START, end)]], events or 0
    begun_s = clock.monotonic_s()
    found: list[list[Ints]] = []
    read = 0
    for stretches in parts:
        found.append([])
        for one in stretches:
            times = [np.empty(0, dtype=np.int64)]
            for batch in _times(log, stream, *one):
                times.append(batch)
                read += batch.size
                share = min(read / whole, 1.0) if whole else None
                on_progress(Progress(share, read, clock.monotonic_s() - begun_s, "looking"))
                if read >= READ_MAX:
                    break
            found[-1].append(np.concatenate(times))
    every = np.concatenate([times for line in found for times in line])
    if events is not None and events > READ_MAX:
        return _estimated(stream.name, events, found, every)
    start_us, step_us, bins = _bins(every)
    counts = np.bincount((every - start_us) // step_us, minlength=bins)
    note = ""
    if read >= READ_MAX and events != read:
        note = f"Of the first {read:,} events only; later ones are not in it."
    return Timeline(
        stream.name, start_us, step_us, tuple(map(float, counts)), events, read, False, note
    )


def _estimated(name: str, events: int, found: Sequence[Sequence[Ints]], every: Ints) -> Timeline:
    """Return the timeline that stretches stand for.

    A stretch stands for the events up to the next one of its partition: they are spread evenly
    over the time between the two, or over its own where the log is not in the order of time. The
    last one only tells where the history ends.
    """
    start_us, step_us, bins = _bins(every)
    edges = start_us + step_us * np.arange(bins + 1, dtype=np.float64)
    counts = np.zeros(bins)
    stretches = sum(len(line) - 1 for line in found)
    for line in found:
        for place, (times, behind) in enumerate(pairwise(line)):
            if not times.size or not behind.size:
                continue
            is_last = place == len(line) - 2
            low, high = float(times.min()), float(times.max())
            high = max(high, float(behind.max() if is_last else behind.min())) + 1.0
            inside = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
            counts += inside / (high - low) * (events / stretches)
    note = (
        f"A sample: {every.size:,} of {events:,} events, in {stretches:,} stretches; "
        "counts are estimates."
    )
    return Timeline(
        name, start_us, step_us, tuple(round(float(n), 1) for n in counts), events,
        int(every.size), True, note,
    )  # fmt: skip


def _stretches(
    log: EventLog, stream: Stream, end: Cut, events: int
) -> list[list[tuple[Cut, Cut]]]:  # fmt: skip
    """Return of each partition stretches that begin equally far apart, then the newest one."""
    before = cast(Callable[..., Position | None], log.before)  # type: ignore[attr-defined]
    found = []
    pieces = max(STRETCHES // max(len(end.positions), 1), 1)
    each = max(events // (pieces * max(len(end.positions), 1)), 1)
    length = min(STRETCH_EVENTS, each)

    def back(until: Position, events: int) -> Cut:
        found = before(stream.name, until, events) if events else until
        return START if found is None else Cut((found,))

    for until in end.positions:
        line = [
            (back(until, n * each), back(until, n * each - length))
            for n in reversed(range(1, pieces + 1))
        ]
        found.append([*line, (back(until, length), Cut((until,)))])
    return found


def _times(log: EventLog, stream: Stream, start: Cut, end: Cut) -> Iterator[Ints]:
    batches = log.read(stream, start=start, end=end, columns=())
    with closing(cast(Any, batches)):
        for batch in batches:
            known = batch.rows[TIME].drop_nulls().cast(pl.Datetime("us", "UTC"))
            yield known.to_physical().to_numpy()


def _bins(times: Ints) -> tuple[int, int, int]:
    """Return where the first bin begins, how wide each is, and how many there are."""
    if not times.size:
        return 0, _SECOND, 0
    least, most = int(times.min()), int(times.max())
    wanted = (most - least) / BINS_MAX
    steps = (int(s * _SECOND) for s in _STEPS_S)
    step = next((s for s in steps if s >= wanted), int(wanted) + 1)
    start = least // step * step
    return start, step, (most - start) // step + 1
