"""Events that are published later than they happened: told with a lag, uploads told apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM, from_us
from fs_notebook.compute import delays as module
from fs_notebook.compute.delays import live_from
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Batch, Stream
from fs_notebook.model.asked import PLAIN, AsOf
from fs_notebook.model.derived import training_set_of
from fs_notebook.model.measure import measure_lift
from fs_notebook.model.training import TrainingSet
from tests.model.definitions import READS, SECOND, define, windowed
from tests.model.test_as_known import CLOCK

pytestmark = pytest.mark.timeout(90)

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
DAY = 24 * HOUR
BEGIN = 1_700_000_000 * SECOND // DAY * DAY


def test_events_that_come_as_they_happen_are_live() -> None:
    events = BEGIN + np.arange(2000) * MINUTE
    rng = np.random.default_rng(0)
    late = events + rng.exponential(10 * MINUTE, 2000).astype(np.int64)
    begin = live_from(events, late)
    assert begin is not None
    assert begin < BEGIN + HOUR


@pytest.mark.parametrize("nights", [4, 20, 300])
def test_a_days_events_each_night_are_late_not_an_upload(nights: int) -> None:
    events = BEGIN + np.arange(nights * 48) * 30 * MINUTE
    published = (events // DAY + 1) * DAY + 2 * HOUR + np.arange(events.size) % 48 * SECOND
    begin = live_from(events, published)
    assert begin is not None
    assert (published >= begin).mean() > 0.6


def test_an_upload_of_history_tells_nothing() -> None:
    events = BEGIN + np.arange(3000) * HOUR
    now = BEGIN + 400 * DAY
    assert live_from(events, now + np.arange(3000) * 1000) is None
    # In any order, and all in one message.
    assert live_from(np.random.default_rng(1).permutation(events), now + np.arange(3000)) is None
    assert live_from(events, np.full(3000, now)) is None
    assert live_from(events[:20], events[:20]) is None
    assert live_from(events[:0], events[:0]) is None


def test_what_came_after_an_upload_is_live() -> None:
    past = BEGIN + np.arange(3000) * HOUR
    now = int(past[-1]) + HOUR
    fresh = now + np.arange(1000) * 10 * MINUTE
    events = np.concatenate([past, fresh])
    published = np.concatenate([now + np.arange(3000) * 1000, fresh + 5 * SECOND])
    begin = live_from(events, published)
    assert begin is not None
    assert (published >= begin).sum() == pytest.approx(1000, rel=0.2)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLog]:
    path: Path = tmp_path_factory.mktemp("late") / "ledger"
    log = EmbeddedLog(path, clock=CLOCK)
    yield log
    log.close()


def published(log: EmbeddedLog, name: str, delay_us: int, count: int = 600) -> Stream:
    """Make a stream of a read a minute, each 20 of which are published together, so much later."""
    stream = Stream(name, READS, "ts")
    log.create(stream)
    for first in range(0, count, 20):
        rows = [
            {"user": f"u{n % 3}", "n": 1, "x": float(n % 7), "ts": from_us(BEGIN + n * MINUTE)}
            for n in range(first, first + 20)
        ]
        CLOCK.us = BEGIN + (first + 20) * MINUTE + delay_us
        log.append(stream, pl.DataFrame(rows, schema_overrides={"ts": pl.Datetime("us", "UTC")}))
    return stream


def labels(count: int = 300) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [f"u{n % 3}" for n in range(count)],
            "at": [from_us(BEGIN + (2 * n + 1) * MINUTE + 30 * SECOND) for n in range(count)],
            "clicked": [n % 2 == 0 for n in range(count)],
        }
    )


class Counting:
    """A log that counts its readings."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.readings = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, *args: Any, **options: Any) -> Iterator[Batch]:
        self.readings += 1
        return self._log.read(*args, **options)


def training(log: Any, definition: Definition, as_of: AsOf = PLAIN) -> TrainingSet:
    features = definition.plan.features
    return training_set_of(labels(), [(definition, features)], log, clock=SYSTEM, as_of=as_of)


def total(stream: Stream) -> Definition:
    return define(
        stream, "SELECT user, SUM(n) AS total FROM STREAM GROUP BY user", name=stream.name
    )


def test_a_late_stream_is_told_with_a_lag_that_mends_it(log: EmbeddedLog) -> None:
    definition = total(published(log, "hourly", HOUR))
    counting = Counting(log)
    made = training(counting, definition)
    assert counting.readings == 1
    (late,) = made.late
    assert (late.stream, late.features) == ("hourly", ("total",))
    # Events wait up to twenty minutes for their batch, and an hour more.
    assert HOUR < late.median_us < HOUR + 20 * MINUTE
    assert late.max_us == HOUR + 20 * MINUTE
    assert late.lag == "2h"
    assert late.saw_with_lag == 0
    # Each label from then on counts events of the last hour, of which nobody knew.
    assert late.changed == late.saw
    assert late.share > 0.95
    (leak,) = made.leaks
    assert (leak.kind, leak.is_serious) == ("late", True)
    assert 'Try lag="2h": then none count an event that was not there' in made.notes[0]
    assert "another value with as_of" in made._repr_html_()
    # The values that it is about: those that differ as known.
    known = training(log, definition, AsOf.of(None, "known"))
    judged = made.frame.with_columns(known=known.frame["total"]).tail(late.labels)
    assert judged.filter(pl.col("total").ne_missing(pl.col("known"))).height == late.changed
    assert (known.late, known.leaks) == ((), ())
    assert training(log, definition, AsOf.of("2h", "event")).leaks == ()
    short = training(log, definition, AsOf.of("30m", "event"))
    assert short.late[0].lag == "2h"
    assert short.leaks[0].kind == "late"


def test_a_stream_that_is_there_at_once_and_an_upload_are_not_told(log: EmbeddedLog) -> None:
    # A batch of twenty minutes that is published as it ends: the first waits twenty minutes.
    stream = Stream("prompt", READS, "ts")
    log.create(stream)
    for n in range(300):
        CLOCK.us = BEGIN + n * MINUTE + SECOND // 2
        row = {"user": f"u{n % 3}", "n": 1, "x": 1.0, "ts": from_us(BEGIN + n * MINUTE)}
        log.append(stream, pl.DataFrame([row], schema_overrides={"ts": pl.Datetime("us", "UTC")}))
    made = training(log, total(stream))
    assert made.leaks == ()
    assert made.late[0].saw == 0
    assert made.late[0].p99_us == SECOND // 2
    uploaded = Stream("uploaded", READS, "ts")
    log.create(uploaded)
    CLOCK.us = BEGIN + 100 * DAY
    rows = [
        {"user": f"u{n % 3}", "n": 1, "x": 1.0, "ts": from_us(BEGIN + n * MINUTE)}
        for n in range(600)
    ]
    frame = pl.DataFrame(rows, schema_overrides={"ts": pl.Datetime("us", "UTC")})
    log.append(uploaded, frame)
    made = training(log, total(uploaded))
    assert (made.late, made.leaks) == ((), ())


def test_a_window_that_has_passed_saw_nothing_late(log: EmbeddedLog) -> None:
    """An event that leaves its window before the next label comes changes nothing."""
    stream = published(log, "windowed", HOUR)
    recent = define(stream, f"SELECT user, {windowed('COUNT(*)', 'recent', 10)} FROM STREAM")
    made = training(log, recent)
    # Labels are half a minute after events, the window is ten seconds.
    assert made.late[0].saw == 0
    minute = define(stream, f"SELECT user, {windowed('COUNT(*)', 'recent', 200)} FROM STREAM")
    assert training(log, minute).late[0].share > 0.9


def test_what_may_hold_the_labels_own_event_says_how_often(log: EmbeddedLog) -> None:
    stream = published(log, "closed", 0)
    definition = define(
        stream, "SELECT user, SUM(n) AS total FROM STREAM GROUP BY user", name="closed",
        closed="right",
    )  # fmt: skip
    mine = labels().with_columns(
        at=pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.col("at") - pl.duration(seconds=30))
        .otherwise("at")
    )  # fmt: skip
    made = training_set_of(mine, [(definition, ("total",))], log, clock=SYSTEM)
    leak = next(leak for leak in made.leaks if leak.kind == "same time")
    # A label of every tenth is at a read's very time; every third of those is its own user's.
    share = made.same_time["closed"]
    assert 0 < share < 0.1
    assert leak.is_serious
    assert f"{100 * share:.1f}".removesuffix(".0") + "% of the labels have one" in leak.text


def test_a_lift_of_what_was_not_known_is_suspicious(log: EmbeddedLog) -> None:
    """The total tells the label only by events that were published after it."""
    stream = Stream("deciding", READS, "ts")
    log.create(stream)
    rng = np.random.default_rng(4)
    told = rng.random(400) < 0.5
    clicked = told ^ (rng.random(400) < 0.2)
    for n in range(400):
        CLOCK.us = BEGIN + n * MINUTE + 10 * MINUTE
        row = {"user": "u0", "n": int(told[n]), "x": 1.0, "ts": from_us(BEGIN + n * MINUTE)}
        log.append(stream, pl.DataFrame([row], schema_overrides={"ts": pl.Datetime("us", "UTC")}))
    definition = define(stream, f"SELECT user, {windowed('SUM(n)', 'recent', 60)} FROM STREAM")
    mine = pl.DataFrame(
        {
            "user": ["u0"] * 400,
            "at": [from_us(BEGIN + n * MINUTE + 30 * SECOND) for n in range(400)],
            "clicked": clicked,
        }
    )
    options: dict[str, Any] = {
        "target": "clicked", "candidate": ["recent"], "baseline": [], "clock": SYSTEM, "folds": 1,
        "bootstraps": 100,
    }  # fmt: skip
    wanted = [(definition, ("recent",))]
    lift = measure_lift(training_set_of(mine, wanted, log, clock=SYSTEM), **options)
    assert lift.verdict == "suspicious: leak"
    assert "deciding is published late" in lift.reason
    known = training_set_of(mine, wanted, log, clock=SYSTEM, as_of=AsOf.of(None, "known"))
    assert measure_lift(known, **options).verdict != "suspicious: leak"


def test_of_many_labels_some_entities_are_looked_at(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = total(published(log, "many", HOUR))
    (whole,) = training(log, definition).late
    monkeypatch.setattr(module, "LABELS_MAX", 160)
    (some,) = training(log, definition).late
    assert 0 < some.labels < whole.labels
    assert some.share == pytest.approx(whole.share, abs=0.05)
    assert (some.events, some.lag) == (whole.events, whole.lag)
