"""Several tasks that run one at a time and change over at their steps, in an order from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence

from fs_notebook.testing.faults import Killed

WAIT_S_MAX = 60.0


class _Task:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.turn = threading.Semaphore(0)
        self.error: BaseException | None = None


class Turns:
    """Runs tasks by turns. Each has a thread, of which one runs and the others wait.

    Parameters
    ----------
    seed
        Draws who goes on at each step.

    Examples
    --------
    >>> turns, said = Turns(1), []
    >>> def say(word):
    ...     for _ in range(2):
    ...         turns.step()
    ...         said.append(word)
    >>> turns.run([lambda: say("a"), lambda: say("b")])
    [None, None]
    >>> sorted(said)
    ['a', 'a', 'b', 'b']
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"turns {seed}")
        self._waiting: list[_Task] = []
        self._current: _Task | None = None
        self._done = threading.Semaphore(0)

    def run(self, tasks: Sequence[Callable[[], None]]) -> list[BaseException | None]:
        """Run all tasks to their ends; return what each raised, None where it did not."""
        made = [_Task(run) for run in tasks]
        threads = [threading.Thread(target=self._body, args=(t,), daemon=True) for t in made]
        self._waiting = list(made)
        for thread in threads:
            thread.start()
        self._hand_over()
        if not self._done.acquire(timeout=WAIT_S_MAX):
            raise AssertionError(f"the tasks did not end within {WAIT_S_MAX:.0f} s")
        for thread in threads:
            thread.join()
        return [task.error for task in made]

    def step(self) -> None:
        """Let another task go on here, perhaps; outside a task nothing happens."""
        mine = self._current
        if mine is None or not self._waiting:
            return
        chosen = self._chance.randrange(len(self._waiting) + 1)
        if chosen == len(self._waiting):
            return
        self._waiting[chosen], self._current = mine, self._waiting[chosen]
        self._current.turn.release()
        mine.turn.acquire()

    def _body(self, task: _Task) -> None:
        task.turn.acquire()
        try:
            task.run()
        except (Exception, Killed) as error:  # noqa: BLE001 - it is handed to whoever runs all.
            task.error = error
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let a task go on that has not ended; the last one ends the run."""
        self._current = None
        if self._waiting:
            chosen = self._waiting.pop(self._chance.randrange(len(self._waiting)))
            self._current = chosen
            chosen.turn.release()
        else:
            self._done.release()
