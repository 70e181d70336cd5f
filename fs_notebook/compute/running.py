"""A fold in progress: rows come in batch by batch, the state is asked for when it is wanted."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from fs_notebook.compute.fold import Fold, State

HELD_ROWS = 250_000
"""Projected rows that may wait to be folded, whatever the number of entities."""


class Running:
    """Folds many batches into one state of all their entities, in bounded memory.

    Merging costs time for each entity that the state has, touched or not. So rows wait until
    there are as many as entities and events in the state (and `HELD_ROWS`): what a row costs
    then has a bound whatever the number of entities, and what waits is never more than twice
    what is there.

    Examples
    --------
    >>> running = Running(Fold(plan))                          # doctest: +SKIP
    >>> for batch in log.read(source, start=START, end=end):   # doctest: +SKIP
    ...     running.add(batch.rows, batch.positions)
    >>> running.state                                          # doctest: +SKIP
    """

    def __init__(self, fold: Fold, *, held_rows: int = HELD_ROWS) -> None:
        self.fold = fold
        self._held_rows = held_rows
        self._state = fold.empty
        self._held: list[pl.DataFrame] = []
        self._rows = 0

    def add(self, rows: pl.DataFrame, positions: Callable[[], pl.DataFrame] | None = None) -> int:
        """Take in rows of the source; return how many were dropped for a null in their key."""
        frame, null_keys = self.fold.project(rows, positions)
        self.add_projected(frame)
        return null_keys

    def add_projected(self, frame: pl.DataFrame) -> None:
        """Take in rows that `Fold.project` gave."""
        self._held.append(frame)
        self._rows += frame.height
        known = self._state.lifetime.height + self._state.recent.height
        if self._rows >= max(self._held_rows, known):
            self._settle()

    def _settle(self) -> None:
        if self._held:
            self._state = self.fold.add_projected(self._state, pl.concat(self._held)).state
            self._held, self._rows = [], 0

    @property
    def state(self) -> State:
        """The state of all that came in so far."""
        self._settle()
        return self._state
