"""Where a window begins and ends at time t. One rule, for expressions, arrays and integers alike.

A window closed on the left holds the events in [start, end), one closed on the right those in
(start, end].
"""

from __future__ import annotations

from typing import Any

import polars as pl

from fs_notebook.language.plan import Window
from fs_notebook.types import TIME


def _floor(t: Any, step_us: int) -> Any:
    return t // step_us * step_us


def end(window: Window, t: Any) -> Any:
    """Return where the window ends at `t`; microseconds, whatever carries them."""
    return t if window.slide_us is None else _floor(t, window.slide_us)


def start(window: Window, t: Any) -> Any:
    """Return where a window of some length begins at `t`."""
    assert window.length_us is not None
    begin = end(window, t) - window.length_us
    return begin if window.resolution_us is None else _floor(begin, window.resolution_us)


def inside(window: Window, t: pl.Expr, time: pl.Expr | None = None) -> pl.Expr:
    """Tell which rows, by their `time`, a window of some length holds at `t`."""
    time = pl.col(TIME) if time is None else time
    low: pl.Expr = start(window, t)
    high: pl.Expr = end(window, t)
    if window.closed == "left":
        return (time >= low) & (time < high)
    return (time > low) & (time <= high)


def valid_until(window: Window, oldest: pl.Expr, newest: pl.Expr, t: pl.Expr) -> pl.Expr:
    """Return the last time at which the window still holds what it holds at `t`.

    `oldest` and `newest` are the times of the first and last event in it; null where it is empty.
    No event is thought to come meanwhile.
    """
    until: pl.Expr
    if window.gap_us is not None:
        return newest + window.gap_us
    assert window.length_us is not None
    step = window.resolution_us or 1
    if window.slide_us is not None:
        until = end(window, t) + (window.slide_us - 1)
    elif window.closed == "left":
        until = _floor(oldest, step) + (step + window.length_us - 1)
    else:
        until = _floor(oldest + (step - 1), step) + (window.length_us - 1)
    return until
