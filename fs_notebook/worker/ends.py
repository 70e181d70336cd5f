"""Where a stream ends, asked of the ledger beside the loop that folds it.

A broker may take a tenth of a second to say where a stream ends. A loop that waited for that would
serve no event meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from fs_notebook.position import Cut

WAIT_SECONDS_MAX = 2.0


class Ends:
    """Asks in the caller's own thread: deterministic, and as good where the answer is at hand."""

    def __init__(self, ask: Callable[[], Cut]) -> None:
        self._ask = ask

    def ready(self, now_s: float) -> bool:
        """Tell whether `newest` answers at once; if not, it has been asked for."""
        return True

    def newest(self) -> Cut:
        """Return the end of the stream.

        Raises
        ------
        FeatureStoreError
            What the ledger answered instead.
        """
        return self._ask()


class EndsBeside(Ends):
    """Asks in a thread of its own, one question at a time."""

    def __init__(self, ask: Callable[[], Cut]) -> None:
        super().__init__(ask)
        self._asked_s: float | None = None
        self._answered = threading.Event()
        self._cut: Cut | None = None
        self._error: Exception | None = None

    def ready(self, now_s: float) -> bool:
        """Tell whether there is an answer, or it has been waited for long enough."""
        if self._asked_s is None:
            self._asked_s = now_s
            self._answered.clear()
            threading.Thread(target=self._find, name="fs-notebook-end", daemon=True).start()
        return self._answered.is_set() or now_s - self._asked_s > WAIT_SECONDS_MAX

    def newest(self) -> Cut:
        """Return the answer, or the one before it where it is not there yet."""
        if self._asked_s is not None and self._answered.is_set():
            self._asked_s = None
            error, self._error = self._error, None
            if error is not None:
                raise error
        if self._cut is None:
            self._cut = self._ask()
        return self._cut

    def _find(self) -> None:
        try:
            self._cut = self._ask()
        except Exception as error:  # noqa: BLE001 - it goes on in the other thread.
            self._error = error
        finally:
            self._answered.set()
