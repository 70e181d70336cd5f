"""An interrupt stops work at a place that is told, and leaves nothing half done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest

from fs_notebook import sources
from fs_notebook.errors import Interrupted
from fs_notebook.processes import interrupts_held
from fs_notebook.session import Session
from tests.support.sessions import SUM_SQL, read_events


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


done: list[int] = []


def held(*steps: Callable[[], object]) -> None:
    """Take `steps` in a block that holds interrupts; `done` has those that were taken."""
    with interrupts_held():
        for number, step in enumerate(steps):
            step()
            done.append(number)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    done.clear()
    former = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is former


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    with pytest.raises(KeyboardInterrupt):
        held(interrupt, int)
    assert done == [0, 1]


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt):
        held(interrupt, interrupt, int)
    assert done == [0]


def test_an_error_of_the_block_is_not_hidden_by_an_interrupt() -> None:
    with pytest.raises(ZeroDivisionError):
        held(interrupt, lambda: 1 / 0)


@pytest.mark.parametrize("once", [True, False])
def test_an_interrupted_upload_says_what_is_stored(
    embedded_session: Session, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    """An interrupt between storing a part and noting it would store the part twice."""
    monkeypatch.setattr(sources, "UPLOAD_ROWS_MAX", 100)
    log, append = embedded_session.log, embedded_session.log.append
    calls: list[int] = []

    def interrupted(stream: Any, rows: pl.DataFrame, **options: Any) -> Any:
        end = append(stream, rows, **options)
        if stream.name == "read_events":
            calls.append(rows.height)
            if len(calls) == 2:
                interrupt()
        return end

    monkeypatch.setattr(log, "append", interrupted)
    rows = pl.DataFrame(read_events(0, 350))
    with pytest.raises(Interrupted, match="200 of 350 events are in 'read_events'") as caught:
        embedded_session.upload(rows, "read_events", time="ts", once=once)
    if once:
        assert "it goes on from there" in str(caught.value)
        assert embedded_session.upload(rows, "read_events", once=True).rows == 150
    else:
        assert "append the rest, from row 200 on" in str(caught.value)
        embedded_session.upload(rows[200:], "read_events")
    assert calls == [100, 100, 100, 50]
    assert embedded_session.feature("reading_time", SUM_SQL).events == 350


def test_an_interrupted_promotion_goes_on_in_the_background(embedded_session: Session) -> None:
    embedded_session.upload(read_events(0, 10), "read_events", time="ts")
    embedded_session.define("reading_time", SUM_SQL)

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the worker of 'reading_time' v1 goes on"):
        embedded_session.promote("reading_time", on_progress=stop)
    assert embedded_session.promote("reading_time").state == "live"
