"""Where the time of made-up data lies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

ENDS = datetime(2024, 3, 1, tzinfo=UTC)


def beginning(days: int, until: datetime | None) -> datetime:
    """Return the midnight, UTC, from which on `days` whole days have passed by `until`."""
    end = ENDS if until is None else until.astimezone(UTC)
    return end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)
