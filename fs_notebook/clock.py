"""Time and randomness, injected. Times are UTC, in microseconds since the epoch."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What the rest of the package may ask of time."""

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that only ever grow."""
        ...

    def sleep_s(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM = SystemClock()


def to_us(moment: datetime) -> int:
    """Return microseconds since the epoch; a naive `moment` is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """Return the UTC datetime of microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=us)


def new_id() -> str:
    """Return a fresh random identifier, 32 hexadecimal digits."""
    return uuid.uuid4().hex
