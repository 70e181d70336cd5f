"""The values of one entity. A reader waits for these, so nothing is joined or grouped in vain.

The same as `Fold.values` in every bit, by other means: t is a number here, and what a window
holds is told by comparing whole columns with it, which costs far less than a query does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from fs_notebook.compute import buckets, windows
from fs_notebook.language.plan import Window
from fs_notebook.types import TIME

if TYPE_CHECKING:
    from fs_notebook.compute.fold import Fold, State

NEWEST, VALID_UNTIL = "__newest", "__valid_until"


def values(fold: Fold, state: State, *, now_us: int | None) -> tuple[pl.DataFrame, list[str]]:
    """Return the entity's states at t = max(now, newest + 1), of all windows in one row.

    Beside it the names of the columns that say until when each window holds what it holds.
    """
    moment = moment_of(state, now_us)
    frame = state.lifetime.hstack([pl.Series(buckets.MOMENT, [moment], dtype=pl.Int64)])
    ends: list[str] = []
    for number, (window, indices) in enumerate(fold.windows.items()):
        counted = _windowed(fold, state, moment, window, indices)
        ends.append(f"__until{number}")
        if not counted.height:
            counted = pl.DataFrame([[None] * counted.width], counted.schema, orient="row")
        columns = counted.get_columns()[len(fold.keys) :]
        if window.slide_us is not None:
            # What lies behind this window's end will come into a later one.
            next_end = windows.end(window, moment) + (window.slide_us - 1)
            columns[0] = pl.Series(VALID_UNTIL, [next_end], dtype=pl.Int64)
        columns[0] = columns[0].alias(ends[-1])
        frame = frame.hstack(columns)
    return frame, ends


def moment_of(state: State, now_us: int | None) -> int:
    """Return t = max(now, newest + 1) of a state that has one entity."""
    after = int(state.lifetime.item(0, NEWEST)) + 1
    return after if now_us is None else max(after, now_us)


def cut(fold: Fold, state: State, moment: int) -> list[int]:
    """Return the numbers of the entity's buckets that some window cuts through at `moment`."""
    parts = state.buckets
    assert parts is not None
    through = _none(parts.height)
    for window in fold.windows:
        through |= _told_apart(parts, window, moment)[1]
    return parts.get_column(buckets.BUCKET).filter(through).to_list()


def _told_apart(parts: pl.DataFrame, window: Window, moment: int) -> tuple[pl.Series, pl.Series]:
    """Mark the buckets that lie in the window as a whole, and those that its ends cut through."""
    oldest, latest = parts.get_column(buckets.OLDEST), parts.get_column(buckets.LATEST)
    whole = _inside(window, moment, oldest) & _inside(window, moment, latest)
    first, last = windows.start(window, moment), windows.end(window, moment)
    return whole, ~whole & (latest >= first) & (oldest <= last)


def _windowed(
    fold: Fold, state: State, moment: int, window: Window, indices: list[int]
) -> pl.DataFrame:
    """Return the states of a window's aggregations after `VALID_UNTIL`; no row if it is empty."""
    t, time = pl.lit(moment, dtype=pl.Int64), pl.col(TIME)
    seen = state.recent.get_column(TIME)
    held = _inside(window, moment, seen)
    if state.buckets is None:
        until = windows.valid_until(window, time.min(), time.max(), t).alias(VALID_UNTIL)
        return fold.folded(_only(state.recent, held), indices, [until])
    parts = state.buckets
    whole, apart = _told_apart(parts, window, moment)
    number = seen // fold.bucket_us
    edge = _none(seen.len())
    for bucket in parts.get_column(buckets.BUCKET).filter(apart):
        edge |= number == bucket
    buckets.check(int(edge.sum()), int(parts.get_column(buckets.COUNT).filter(apart).sum()))
    # Buckets follow each other in time: an event in the window lies in a whole one or in one
    # that is cut.
    about = [time.min().alias(buckets.OLDEST), time.max().alias(buckets.LATEST)]
    ends = fold.folded(_only(state.recent, held & edge), indices, about)
    whole_parts = _only(parts, whole, ends.columns)
    until = windows.valid_until(
        window, pl.col(buckets.OLDEST).min(), pl.col(buckets.LATEST).max(), t
    )
    together = pl.concat([ends, whole_parts])
    return fold.merged(together, indices, [until.alias(VALID_UNTIL)])


def _inside(window: Window, moment: int, time: pl.Series) -> pl.Series:
    low, high = windows.start(window, moment), windows.end(window, moment)
    left = window.closed == "left"
    held: pl.Series = (time >= low) & (time < high) if left else (time > low) & (time <= high)
    return held


def _none(rows: int) -> pl.Series:
    """Return a mask that marks no row; `repeat` would ask a query for it."""
    return pl.Series([False]).new_from_index(0, rows)


def _only(frame: pl.DataFrame, mask: pl.Series, columns: list[str] | None = None) -> pl.DataFrame:
    """Return the rows that `mask` marks."""
    return pl.DataFrame([frame.get_column(c).filter(mask) for c in columns or frame.columns])
