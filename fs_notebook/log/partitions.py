"""A stream's partitions: one after the other, or side by side where that takes long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol, cast

from fs_notebook.log.lanes import Make, Stopped, in_lanes
from fs_notebook.log.protocol import Batch
from fs_notebook.position import Cut, Position

APART_AFTER_S = 1.0
"""What one process reads alone in: another one needs as long to start."""


class Readers(Protocol):
    """Processes that help with reading."""

    @property
    def count(self) -> int:
        """How many there may be."""
        ...

    @property
    def are_ready(self) -> bool:
        """Whether one waits for work, so that none needs to be started."""
        ...


class PartBatches(Protocol):
    """Reads one partition up to a position; with `stopped`, apart from this process."""

    def __call__(
        self, until: Position, rows_max: int, stopped: Stopped | None = None
    ) -> Iterator[Batch]: ...


def side_by_side(
    batches: PartBatches, end: Cut, rows_max: int, readers: Readers
) -> Iterator[Batch]:
    """Yield the batches of all partitions in `end`: each one's in their order.

    They are read one after the other. Where that takes longer than `APART_AFTER_S`, or where
    processes are there already, up to `readers.count` of them help with those that are left, and
    batches are taken in turns.
    """
    left = deque(end)
    begun_s = time.monotonic()
    if len(left) > 1 and readers.are_ready:
        several: list[Make[Batch]] = [partial(_here, batches, left.popleft(), rows_max)]
        several += [partial(batches, until, rows_max) for until in left]
        yield from in_lanes(several, at_once_max=1 + readers.count, ahead_max=1)
        return
    while left:
        current = batches(left.popleft(), rows_max)
        with closing(cast(Generator[Batch, None, None], current)):
            for batch in current:
                yield batch
                if readers.count and left and time.monotonic() - begun_s >= APART_AFTER_S:
                    break
            else:
                continue
            makes: list[Make[Batch]] = [partial(_rest, current)]
            makes += [partial(batches, until, rows_max) for until in left]
            taken = in_lanes(makes, at_once_max=1 + readers.count, ahead_max=1)
            with closing(taken):
                yield from taken
            return


def _here(
    batches: PartBatches, until: Position, rows_max: int, stopped: Stopped
) -> Iterator[Batch]:
    """Yield a partition's batches, read in this process."""
    yield from batches(until, rows_max)


def _rest(batches: Iterator[Batch], stopped: Stopped) -> Iterator[Batch]:
    """Yield what is left of a partition that is read in this process."""
    yield from batches
