"""Progress shows in one place, not too often, not for short work, and says how it ended."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest

from fs_notebook.compute.preview import Progress
from fs_notebook.errors import CancelledError
from fs_notebook.jupyter import progress as under_test
from fs_notebook.jupyter.progress import (
    LineScreen,
    NotebookScreen,
    ProgressBar,
    TerminalScreen,
    find_screen,
    seconds_left,
)

pytestmark = pytest.mark.timeout(30)


class HandClock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep_s(self, seconds: float) -> None:
        self.now_s += seconds


class Recorder:
    """A screen that keeps what was written."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.lines: list[str] = []
        self.last: list[bool] = []

    def write(self, page: str, line: str, *, last: bool) -> None:
        self.pages.append(page)
        self.lines.append(line)
        self.last.append(last)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def screen() -> Recorder:
    return Recorder()


def run(bar: ProgressBar, clock: HandClock, *, seconds: float, step_s: float) -> None:
    steps = round(seconds / step_s)
    for n in range(1, steps + 1):
        clock.sleep_s(step_s)
        bar(Progress(n / steps, 1000 * n, n * step_s))


def test_short_work_shows_nothing(clock: HandClock, screen: Recorder) -> None:
    with ProgressBar("Replaying", clock=clock, screen=screen) as bar:
        run(bar, clock, seconds=0.29, step_s=0.01)
    assert screen.lines == []


def test_updates_are_at_most_ten_a_second_and_one_line_ends_them(
    clock: HandClock, screen: Recorder
) -> None:
    with ProgressBar("Replaying", clock=clock, screen=screen) as bar:
        run(bar, clock, seconds=5, step_s=0.001)
    assert 40 <= len(screen.lines) <= 49
    assert screen.last == [False] * (len(screen.lines) - 1) + [True]
    assert screen.lines[-1] == "Replaying: done after 5 s, 5,000,000 events, 1M/s"


def test_a_line_says_share_events_rate_and_time_left(clock: HandClock, screen: Recorder) -> None:
    with ProgressBar("Replaying", clock=clock, screen=screen) as bar:
        clock.sleep_s(10)
        bar(Progress(0.25, 50_000, 10.0))
    assert (
        screen.lines[0]
        == "Replaying █████░░░░░░░░░░░░░░░ 25%, 50,000 events, 5k/s, about 30 s left"
    )
    attributes: dict[str, str | None] = {}

    class Find(HTMLParser):
        def handle_starttag(self, name: str, found: list[tuple[str, str | None]]) -> None:
            if name == "progress":
                attributes.update(found)

    Find().feed(screen.pages[0])
    assert attributes == {"max": "1", "value": "0.250", "aria-label": "Replaying"}


def test_an_unknown_whole_shows_no_share(clock: HandClock, screen: Recorder) -> None:
    with ProgressBar("Replaying", clock=clock, screen=screen) as bar:
        clock.sleep_s(2)
        bar(Progress(None, 3_000, 2.0))
    assert screen.lines[0] == "Replaying: 3,000 events, 1.5k/s"
    assert "value=" not in screen.pages[0]


def test_a_phase_is_named_and_a_bare_share_is_enough(clock: HandClock, screen: Recorder) -> None:
    with ProgressBar("Verifying", clock=clock, screen=screen) as bar:
        clock.sleep_s(1)
        bar(Progress(0.5, 0, 1.0, "comparing"))
        clock.sleep_s(1)
        bar.share(0.75)
    assert screen.lines[0].startswith("Verifying: comparing █")
    assert screen.lines[1].startswith("Verifying █")
    assert screen.lines[2] == "Verifying: done after 2 s"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (CancelledError("stopped"), "interrupted"),
        (ValueError("bad"), "failed"),
    ],
)
def test_the_end_is_named_and_the_error_goes_on(
    clock: HandClock, screen: Recorder, error: BaseException, word: str
) -> None:
    def work() -> None:
        with ProgressBar("Replaying", clock=clock, screen=screen) as bar:
            run(bar, clock, seconds=2, step_s=0.1)
            raise error

    with pytest.raises(type(error)):
        work()
    assert screen.lines[-1] == f"Replaying: {word} after 2 s, 20,000 events, 10k/s"
    assert "<progress" not in screen.pages[-1]


def test_what_goes_on_is_text_and_no_markup(clock: HandClock, screen: Recorder) -> None:
    with ProgressBar("<b>x", clock=clock, screen=screen) as bar:
        clock.sleep_s(1)
        bar(Progress(0.5, 1, 1.0, "<i>"))
    assert all("<b>" not in p and "<i>" not in p for p in screen.pages)


@pytest.mark.parametrize(
    ("share", "seconds", "left"),
    [(None, 5.0, None), (0.01, 5.0, None), (0.5, 5.0, 5.0), (1.0, 5.0, 0.0), (0.5, 0.0, None)],
)
def test_time_left(share: float | None, seconds: float, left: float | None) -> None:
    assert seconds_left(Progress(share, 1, seconds)) == left


def test_a_terminal_line_is_written_over_wholly() -> None:
    stream = io.StringIO()
    screen = TerminalScreen(stream)
    screen.write("", "a long line", last=False)
    screen.write("", "short", last=True)
    assert stream.getvalue() == "\ra long line\rshort      \n"


def test_a_file_gets_few_lines_and_the_last_one(clock: HandClock) -> None:
    stream = io.StringIO()
    with ProgressBar("Replaying", clock=clock, screen=LineScreen(stream, clock=clock)) as bar:
        run(bar, clock, seconds=600, step_s=0.5)
    lines = stream.getvalue().splitlines()
    assert 5 < len(lines) < 25
    assert lines[-1].startswith("Replaying: done after 600 s")
    assert "\r" not in stream.getvalue()


def test_without_ipython_there_is_no_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: HandClock
) -> None:
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: None)
    assert find_screen() is None
    with ProgressBar("Replaying", clock=clock) as bar:
        run(bar, clock, seconds=2, step_s=0.1)
    assert capsys.readouterr() == ("", "")


def test_ipython_in_a_terminal_writes_to_stderr_if_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace())
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert isinstance(find_screen(), TerminalScreen)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    assert find_screen() is None


def test_a_kernel_has_the_notebooks_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "IPython.core.getipython.get_ipython", lambda: SimpleNamespace(kernel=object())
    )
    assert isinstance(find_screen(), NotebookScreen)


def test_a_real_kernel_keeps_one_output() -> None:
    """Run in a kernel by nbclient: all updates land in a single display."""
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    code = f"""
import time
from {under_test.__name__} import ProgressBar
from fs_notebook.compute.preview import Progress
class Clock:
    now = 0.0
    def monotonic_s(self): Clock.now += 0.2; return Clock.now
with ProgressBar("Replaying", clock=Clock()) as bar:
    for n in range(1, 11):
        bar(Progress(n / 10, n, float(n)))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=25, kernel_name="python3").execute()
    outputs: list[Any] = notebook.cells[0].outputs
    assert len(outputs) == 1, json.dumps(outputs, default=str)[:2000]
    assert outputs[0].data["text/plain"].startswith("Replaying: done after")
    assert "done after" in outputs[0].data["text/html"]
