"""As known: of each label's range of events, those that were published before the label's time.

Most of a range was published before the label: its beginning, up to the first event of the entity
that was not, is a range as ever. Behind the last one that was there is nothing to count. What lies
between, where late and early events are mixed, is tiled with blocks of 1, 2, 4, … events: sorted
by publish time, what a label may see of a block is its beginning, a range again. So the work grows
with events + labels here too, but for a logarithm, however publish times lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Ranges of events in another order; a label may own several.

    Attributes
    ----------
    order
        Which event is in which place.
    owners
        The labels that the ranges belong to.
    low, high
        The ranges [low, high) of places; none is empty.
    """

    order: Ints
    owners: Ints
    low: Ints
    high: Ints


class Known:
    """Which events a label may see.

    Parameters
    ----------
    published
        Publish times of events that lie in the order of (entity, event time).
    codes, label_codes
        The entity of each event and of each label.
    label_times
        Each label's time: what was published before it counts.
    """

    def __init__(self, published: Ints, codes: Ints, label_codes: Ints, label_times: Ints) -> None:
        distinct = np.unique(published)
        self._span = distinct.size + 1
        self._ranks: Ints = np.searchsorted(distinct, published)
        self._label_ranks: Ints = np.searchsorted(distinct, label_times, side="left")
        # Entities ascend, so that what is accumulated of one says nothing of the next.
        self._seen_by = codes * self._span + self._ranks
        self._keys = label_codes * self._span + self._label_ranks
        self._latest = np.maximum.accumulate(self._seen_by)
        self._earliest = np.minimum.accumulate(self._seen_by[::-1])[::-1]

    def split(self, low: Ints, high: Ints) -> tuple[Ints, list[Part]]:
        """Return what the labels may see of their ranges [low, high).

        Returns
        -------
        middle
            All of [low, middle) may be seen.
        parts
            What else there is.
        """
        high = np.maximum(low, high)
        middle = np.clip(np.searchsorted(self._latest, self._keys), low, high)
        end = np.clip(np.searchsorted(self._earliest, self._keys), middle, high)
        parts, owners, level = [], np.flatnonzero(middle < end), 0
        first, last = middle[owners], end[owners]
        while owners.size:
            odd, even = (first & 1) == 1, (last & 1) == 1
            block = np.concatenate([first[odd], last[even] - 1])
            if block.size:
                part = self._part(level, np.concatenate([owners[odd], owners[even]]), block)
                if part.owners.size:
                    parts.append(part)
            first, last, level = (first + 1) >> 1, last >> 1, level + 1
            more = first < last
            owners, first, last = owners[more], first[more], last[more]
        return middle, parts

    def _part(self, level: int, owners: Ints, block: Ints) -> Part:
        """Return what labels may see of blocks of 2 ** level events."""
        places = (np.arange(self._ranks.size) >> level) * self._span + self._ranks
        order = np.argsort(places, kind="stable")
        low = block << level
        high = np.searchsorted(places[order], block * self._span + self._label_ranks[owners])
        some = high > low
        return Part(order, owners[some], low[some], high[some])

    def last(self, low: Ints, high: Ints) -> Ints:
        """Return the index of the last event of [low, high) that a label may see, else -1."""
        middle, parts = self.split(low, high)
        found = np.where(middle > low, middle - 1, -1)
        for part in parts:
            # Each of these ranges has an event, and what lies between two of them is left out.
            bounds = np.stack([part.low, part.high], axis=1).reshape(-1)
            padded = np.append(part.order, -1)
            greatest = np.maximum.reduceat(padded, bounds)[::2]
            np.maximum.at(found, part.owners, greatest)
        return found

    def session(self, times: Ints, label_times: Ints, low: Ints, high: Ints, gap_us: int) -> Ints:
        """Return where the session of events that a label may see begins; `high` where none is.

        [low, high) is the session of all events, which holds it.
        """
        begin = low.copy()
        active = np.flatnonzero((low < high) & (np.searchsorted(self._latest, self._keys) < high))
        begin[active] = high[active]
        place, after = high[active] - 1, label_times[active]
        while active.size:
            near = after - times[place] <= gap_us
            seen = near & (self._seen_by[place] < self._keys[active])
            begin[active[seen]] = place[seen]
            after = np.where(seen, times[place], after)
            more = near & (place > low[active])
            active, place, after = active[more], place[more] - 1, after[more]
        return begin
