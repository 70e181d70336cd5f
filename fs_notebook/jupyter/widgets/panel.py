"""What all widgets share: state as traits, typed messages, work beside the kernel, errors told.

The front end sends messages and changes no trait; a widget's own threads answer them, so that no
cell waits for a widget. A thread reads what changes, as long as somebody looks at the widget.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anywidget
import traitlets

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.compute.preview import OnProgress, Progress
from fs_notebook.errors import CancelledError, FeatureStoreError
from fs_notebook.jupyter.progress import seconds_left
from fs_notebook.jupyter.values import clean

if TYPE_CHECKING:
    from fs_notebook.session import Session

TEXT_CHARS_MAX = 2_000
LINES_MAX = 400
IDLE_S = 600.0
"""Nothing is read any more once no page has shown the widget for so long."""
PROGRESS_S = 0.2
_ASSETS = Path(__file__).parent / "assets"

M = TypeVar("M", bound=Callable[..., None])


@cache
def style() -> str:
    """Return the style sheet that all widgets share."""
    return (_ASSETS / "panel.css").read_text()


@cache
def script(*names: str) -> str:
    """Return the front end as one module: what all share, then these parts."""
    parts = ("dom", "charts", "panel", *names)
    return "\n".join((_ASSETS / f"{name}.js").read_text() for name in parts)


def synced(value: Any) -> Any:
    """Return a trait that the front end sees; it is replaced as a whole, never changed in place."""
    return traitlets.Any(value).tag(sync=True)


def action(**fields: type) -> Callable[[M], M]:
    """Mark a method as what the front end may ask for: ``{"do": its name, field: value, …}``.

    Parameters
    ----------
    **fields
        What the message must have besides, and of which type each is. A float may come as a
        whole number and is finite; a text has `TEXT_CHARS_MAX` characters at most.
    """

    def marked(method: M) -> M:
        method.fields = fields  # type: ignore[attr-defined]
        return method

    return marked


def tidy(value: Any) -> Any:
    """Return a JSON value with nothing in its texts that steers a display; their lines stay."""
    if isinstance(value, str):
        lines = value.split("\n")[:LINES_MAX]
        return "\n".join(clean(line, length_max=TEXT_CHARS_MAX) for line in lines)
    if isinstance(value, Mapping):
        return {k: tidy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def told(error: Exception) -> dict[str, str | None]:
    """Return an error as the front end shows it: what is wrong, what was found, what to do."""
    if isinstance(error, FeatureStoreError):
        said = {"message": error.message, "found": error.found, "remedy": error.remedy}
    else:
        said = {
            "message": "The widget could not do that.",
            "found": f"{type(error).__name__}: {error}",
            "remedy": "run its cell again; if it stays, the same call without the widget says more",
        }
    return {k: None if v is None else tidy(v) for k, v in said.items()}


class Panel(anywidget.AnyWidget):
    """The base of all widgets here.

    Parameters
    ----------
    session
        Whose features; default: the current session's, whichever that is at the time.
    every_s
        How often `tick` reads what may have changed, in seconds; None: never.
    """

    _css = style()

    error = synced(None)
    """What went wrong last: `message`, `found`, `remedy`."""
    progress = synced(None)
    """How far the work under way has come: `what`, `share`, `events`, `rate`, `left_s`."""

    def __init__(
        self,
        session: Session | None = None,
        *,
        every_s: float | None = None,
        clock: Clock = SYSTEM,
        **traits: Any,
    ) -> None:
        self._given = session
        self._every_s = every_s
        self._clock = clock
        self._asks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._seen_at_s = clock.monotonic_s()
        self._job: threading.Event | None = None
        self._job_thread: threading.Thread | None = None
        self._failed_tick = False
        self._lock = threading.RLock()
        self._ended = False
        super().__init__(**tidy(traits))
        self.on_msg(self._received)
        name = f"fs_notebook {type(self).__name__}"
        self._thread = threading.Thread(target=self._answer, name=name, daemon=True)
        self._thread.start()

    @property
    def session(self) -> Session:
        """Whose features are shown."""
        if self._given is not None:
            return self._given
        from fs_notebook.current import get_session

        return get_session()

    def tick(self) -> None:
        """Read what may have changed; called in the widget's own thread."""

    def show(self, **traits: Any) -> None:
        """Set traits, with nothing in their texts that steers a display."""
        with self._lock:
            if not self._ended:
                for name, value in traits.items():
                    setattr(self, name, tidy(value))

    def settle(self, timeout_s: float = 30.0) -> None:
        """Wait until everything that was asked so far is done; for scripts and tests.

        Raises
        ------
        FeatureStoreError
            If that takes longer.
        """
        done = threading.Event()
        self._asks.put(done.set)
        job = self._job_thread if done.wait(timeout_s) else None
        if job is not None:
            job.join(timeout_s)
        if not done.is_set() or (job is not None and job.is_alive()):
            raise FeatureStoreError(
                "The widget is still at work.", found=f"{timeout_s:g} s passed",
                remedy="its Stop button, or close()",
            )  # fmt: skip

    def close(self) -> None:
        """Take the widget off the page, and end its work."""
        self._end()
        super().close()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        self.halt()
        self._asks.put(None)

    def halt(self) -> None:
        """Stop the work under way, soon; nothing is half done."""
        job = self._job
        if job is not None:
            job.set()

    def begin(self, what: str, work: Callable[[OnProgress], None]) -> None:
        """Do long work in a thread of its own, with progress; what was under way is stopped."""
        self.halt()
        stopped = self._job = threading.Event()
        begun_s, shown_s = self._clock.monotonic_s(), 0.0

        def report(now: Progress) -> None:
            nonlocal shown_s
            if stopped.is_set():
                raise CancelledError("Stopped.", remedy="ask again")
            at_s = self._clock.monotonic_s()
            if at_s - max(shown_s, begun_s) >= PROGRESS_S:
                shown_s = at_s
                self.show(progress={
                    "what": what, "share": now.share, "events": now.events, "rate": now.rate,
                    "left_s": seconds_left(now),
                })  # fmt: skip

        def run() -> None:
            self._guarded(lambda: work(report))
            with self._lock:
                if self._job is stopped:
                    self._job = None
                    self.show(progress=None)

        self.show(progress={"what": what, "share": None, "events": 0, "rate": 0.0, "left_s": None})
        self._job_thread = threading.Thread(target=run, name=f"fs_notebook {what}", daemon=True)
        self._job_thread.start()

    @action()
    def stop(self) -> None:
        """Stop the work under way."""
        self.halt()

    @action()
    def seen(self) -> None:
        """Take note that a page shows the widget."""

    def _received(self, _: Any, content: Any, buffers: Any) -> None:
        """Check a message of the front end, and leave its answer to the widget's thread."""
        self._seen_at_s = self._clock.monotonic_s()
        do = content.get("do") if isinstance(content, dict) else None
        method = getattr(type(self), do, None) if isinstance(do, str) else None
        fields: Mapping[str, type] | None = getattr(method, "fields", None)
        given = {} if fields is None else {k: v for k, v in content.items() if k != "do"}
        if (
            method is None
            or fields is None
            or given.keys() != fields.keys()
            or not all(_is(given[name], kind) for name, kind in fields.items())
        ):
            self.show(error={
                "message": "The widget's page asked for what there is not.",
                "found": clean(repr(content), length_max=120),
                "remedy": "reload the page: it may be of another version than the kernel",
            })  # fmt: skip
            return
        if method.__name__ == "stop":
            # What is to be stopped may be what the thread is at.
            self.halt()
        elif method.__name__ != "seen":
            self._asks.put(lambda: self._asked(method, given))

    def _asked(self, method: Callable[..., None], given: Mapping[str, Any]) -> None:
        self.show(error=None)
        self._guarded(lambda: method(self, **given))

    def _answer(self) -> None:
        """Do what is asked, one after the other; in between, look what has changed."""
        while True:
            try:
                ask = self._asks.get(timeout=self._every_s)
            except queue.Empty:
                if self._clock.monotonic_s() - self._seen_at_s < IDLE_S:
                    self._ticked()
                continue
            if ask is None:
                return
            ask()

    def _ticked(self) -> None:
        failed = self._guarded(self.tick)
        if self._failed_tick and not failed:
            self.show(error=None)
        self._failed_tick = failed

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do something, show its error if it has one, and tell whether it has."""
        try:
            work()
        except CancelledError:
            return False
        except Exception as error:  # noqa: BLE001
            # Whatever it is: the page says so, and the thread goes on.
            self.show(error=told(error))
            return True
        return False


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int and isinstance(value, bool):
        return False
    if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
        return False
    return isinstance(value, kind)
