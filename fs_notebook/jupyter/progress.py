"""One updating line while something long runs, and one last line when it ended."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Protocol, TextIO

from fs_notebook.clock import SYSTEM, Clock, new_id
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import CancelledError
from fs_notebook.jupyter.table import Markup, card, tag
from fs_notebook.jupyter.values import clean, count, number, short, width

PATIENCE_S = 0.3
"""Work that ends sooner shows nothing at all."""

UPDATES_PER_S_MAX = 10
_SHARE_TRUSTED = 0.02
_CELLS = 20
_LINE_MAX = 100
_LINES_PAUSE_S = 1.0
_LINES_PAUSE_S_MAX = 60.0


class Screen(Protocol):
    """Where progress shows: one place that is written over."""

    def write(self, page: str, line: str, *, last: bool) -> None:
        """Replace what is there; after the `last` one nothing follows."""
        ...


class NotebookScreen:
    """One output of the running cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def write(self, page: str, line: str, *, last: bool) -> None:
        bundle = {"text/html": page, "text/plain": line}
        if self._handle is not None:
            self._handle.update(bundle, raw=True)
            return
        from IPython.display import display

        self._handle = display(bundle, raw=True, display_id=new_id())  # type: ignore[no-untyped-call]


class TerminalScreen:
    """One line of a terminal, written over by carriage returns."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0

    def write(self, page: str, line: str, *, last: bool) -> None:
        shown = line[:_LINE_MAX]
        blanks = " " * max(self._drawn - width(shown), 0)
        self._stream.write(f"\r{shown}{blanks}" + ("\n" if last else ""))
        self._stream.flush()
        self._drawn = width(shown)


class LineScreen:
    """Lines of a file or a pipe: few, each a while after the one before."""

    def __init__(self, stream: TextIO, *, clock: Clock = SYSTEM) -> None:
        self._stream = stream
        self._clock = clock
        self._pause_s = _LINES_PAUSE_S
        self._due_s = clock.monotonic_s()

    def write(self, page: str, line: str, *, last: bool) -> None:
        now_s = self._clock.monotonic_s()
        if not last and now_s < self._due_s:
            return
        self._due_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LINES_PAUSE_S_MAX)
        self._stream.write(line + "\n")
        self._stream.flush()


def screen_on(stream: TextIO) -> Screen:
    """Return the screen that fits a stream: of a terminal one line, of anything else lines."""
    return TerminalScreen(stream) if stream.isatty() else LineScreen(stream)


def find_screen() -> Screen | None:
    """Return the notebook's screen, the IPython terminal's, or None where there is neither."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return None
    if getattr(shell, "kernel", None) is not None:
        return NotebookScreen()
    return TerminalScreen(sys.stderr) if sys.stderr.isatty() else None


class ProgressBar:
    """A context that shows the progress it is called with.

    ``with ProgressBar("Replaying") as bar: session.preview(name, on_progress=bar)``

    Parameters
    ----------
    what
        What is going on, in a word or two; it begins the line.
    clock
        Where time comes from.
    screen
        Where to show it; default: wherever this process is seen, if anywhere.
    """

    def __init__(self, what: str, *, clock: Clock = SYSTEM, screen: Screen | None = None) -> None:
        self.what = what
        self._clock = clock
        self._screen = find_screen() if screen is None else screen
        self._begun_s = clock.monotonic_s()
        self._next_s = self._begun_s + PATIENCE_S
        self._shown = False
        self._progress: Progress | None = None

    def __enter__(self) -> ProgressBar:
        self._begun_s = self._clock.monotonic_s()
        self._next_s = self._begun_s + PATIENCE_S
        return self

    def __call__(self, progress: Progress) -> None:
        """Take note of how far the work has come; show it if it is time to."""
        self._progress = progress
        if self._screen is None or (now_s := self._clock.monotonic_s()) < self._next_s:
            return
        self._next_s = now_s + 1 / UPDATES_PER_S_MAX
        self._shown = True
        text = _now(progress)
        title = self._title(progress)
        self._screen.write(_page(title, progress.share, text), _line(title, progress.share, text),
                           last=False)  # fmt: skip

    def share(self, share: float) -> None:
        """Take note of progress that is known only as a share from 0 to 1."""
        elapsed_s = self._clock.monotonic_s() - self._begun_s
        self(Progress(share, 0, elapsed_s, self.what.casefold()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._screen is None or not self._shown:
            return
        end = "done"
        if kind is not None:
            stopped = issubclass(kind, KeyboardInterrupt | CancelledError)
            end = "interrupted" if stopped else "failed"
        elapsed_s = self._clock.monotonic_s() - self._begun_s
        text = _summary(end, self._progress, elapsed_s)
        page = card(self.what, tag("p", f"{self.what}: {text}", class_="fsn-foot"))
        self._screen.write(page, f"{self.what}: {text}", last=True)

    def _title(self, progress: Progress) -> str:
        same = progress.what.casefold() == self.what.casefold()
        return self.what if same else f"{self.what}: {clean(progress.what)}"


def seconds_left(progress: Progress) -> float | None:
    """Return the seconds that the rest takes at the pace so far; None while that is a guess."""
    share = progress.share
    if share is None or share < _SHARE_TRUSTED or progress.seconds <= 0:
        return None
    return progress.seconds * max(1 - share, 0.0) / share


def _now(progress: Progress) -> str:
    parts = []
    if progress.share is not None:
        parts.append(f"{100 * min(max(progress.share, 0.0), 1.0):.0f}%")
    if progress.events:
        parts.append(f"{count(progress.events)} events")
        parts.append(f"{short(progress.rate)}/s")
    left_s = seconds_left(progress)
    if left_s is not None:
        parts.append(f"about {_length(left_s)} left")
    return ", ".join(parts) or "working"


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _summary(end: str, progress: Progress | None, elapsed_s: float) -> str:
    took = f"{end} after {number(round(elapsed_s, 1))} s"
    if progress is None or not progress.events:
        return took
    rate = progress.events / elapsed_s if elapsed_s > 0 else 0.0
    return f"{took}, {count(progress.events)} events, {short(rate)}/s"


def _page(title: str, share: float | None, text: str) -> str:
    value = None if share is None else f"{min(max(share, 0.0), 1.0):.3f}"
    bar: Markup = tag("progress", max="1", value=value, aria_label=title)
    return card(title, tag("p", f"{title} ", bar, f" {text}", class_="fsn-foot"))


def _line(title: str, share: float | None, text: str) -> str:
    if share is None:
        return f"{title}: {text}"
    full = round(_CELLS * min(max(share, 0.0), 1.0))
    return f"{title} {'█' * full}{'░' * (_CELLS - full)} {text}"
