"""Several sources made side by side, each in a thread of its own, taken in turns."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
Stopped = Callable[[], bool]
"""Tells a source that nobody wants any more of it; to be asked every 100 ms or so."""
Make = Callable[[Stopped], Iterator[T]]

LOOK_S = 0.1
ENDED_S_MAX = 5.0


class _End:
    """What a source ends with: nothing, or an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Lane(Generic[T]):
    """One source in its thread, and the few items that it is ahead."""

    def __init__(
        self,
        make: Make[T],
        ahead_max: int,
        stopped: threading.Event,
        errors: list[BaseException],
    ) -> None:
        self._make = make
        self._stopped = stopped
        self._errors = errors
        self.made: queue.Queue[T | _End] = queue.Queue(ahead_max)
        self.thread = threading.Thread(target=self._run, name="fs-notebook-read", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        last = _End(None)
        try:
            for item in self._make(self._stopped.is_set):
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - it goes on in the other thread.
            self._errors.append(error)
            last = _End(error)
        self._put(last)

    def _put(self, item: T | _End) -> bool:
        while not self._stopped.is_set():
            try:
                self.made.put(item, timeout=LOOK_S)
            except queue.Full:
                continue
            return True
        return False


def in_lanes(
    makes: Sequence[Make[T]], *, at_once_max: int, ahead_max: int
) -> Generator[T, None, None]:
    """Yield what all of `makes` yield: each one's items in their order, one of each in turn.

    The order depends on the items alone, never on which thread is faster. No more than
    `at_once_max` sources are open at a time, and none is more than `ahead_max` items ahead of
    what was taken, besides the one that it is making: so what is held depends neither on how
    many sources there are nor on how long they are.

    The first error ends all of them and is raised. Closing the generator, or an interrupt, ends
    the threads as soon as their sources ask whether they are stopped.
    """
    stopped = threading.Event()
    errors: list[BaseException] = []
    waiting = deque(makes)
    lanes: deque[_Lane[T]] = deque()

    def take_up() -> None:
        while waiting and len(lanes) < at_once_max:
            lanes.append(_Lane(waiting.popleft(), ahead_max, stopped, errors))

    try:
        take_up()
        while lanes:
            try:
                item = lanes[0].made.get(timeout=LOOK_S)
            except queue.Empty:
                if errors:
                    raise errors[0] from None
                continue
            if not isinstance(item, _End):
                lanes.rotate(-1)
                yield item
            elif errors:
                raise errors[0]
            else:
                lanes.popleft()
                take_up()
    finally:
        stopped.set()
        for lane in lanes:
            lane.thread.join(timeout=ENDED_S_MAX / len(lanes))
