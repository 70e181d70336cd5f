"""Time that only moves when somebody waits, so that an hour of waiting costs nothing."""

from __future__ import annotations

import threading

BEGIN_US = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z, where a simulation begins unless told otherwise."""


class SimulatedClock:
    """A `Clock` that moves by what its users sleep; thread-safe.

    Parameters
    ----------
    start_us
        What time it is at first, in microseconds since the epoch, UTC.

    Examples
    --------
    >>> clock = SimulatedClock(start_us=0)
    >>> clock.sleep_s(90.0)
    >>> clock.now_us()
    90000000
    """

    def __init__(self, *, start_us: int = BEGIN_US) -> None:
        self._start_us = start_us
        self._passed_us = 0
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return self._start_us + self._passed_us

    def monotonic_s(self) -> float:
        """Return the seconds since this clock was made."""
        return self._passed_us / 1_000_000

    def sleep_s(self, seconds: float) -> None:
        """Move the clock on; nobody waits."""
        with self._lock:
            self._passed_us += max(round(seconds * 1_000_000), 0)
