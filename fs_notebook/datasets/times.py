"""Where the time of made-up data lies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

ENDS = datetime(2024, 3, 1, tzinfo=UTC)


def beginning_us(days: int, until: datetime | None) -> int:
    """Return the midnight, in µs of UTC, from which on `days` whole days have passed by `until`."""
    end = ENDS if until is None else until.astimezone(UTC)
    first = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
    return int(first.timestamp()) * 1_000_000


def moments(days: Sequence[float] | npt.NDArray[np.float64], first_us: int) -> pl.Series:
    """Return times to the second, UTC, of days since the beginning."""
    us = first_us + np.round(np.asarray(days) * 86_400) * 1_000_000
    return pl.Series(us.astype(np.int64)).cast(pl.Datetime("us", "UTC"))
