"""What there is to see of streams and features: timelines, values now and in training, health."""

from __future__ import annotations

from datetime import timedelta
from html import unescape

import polars as pl
import pytest

from fs_notebook import timelines
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import CancelledError, UnknownName
from fs_notebook.model.drift import kolmogorov_smirnov
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, SUM_SQL, read_events

DAY = timedelta(days=1)


@pytest.fixture
def known(embedded_session: Session) -> Session:
    embedded_session.upload(pl.DataFrame(read_events(0, 2_000)), "read_events", time="ts")
    return embedded_session


def test_a_timeline_has_every_event_in_its_bin(known: Session) -> None:
    line = known.timeline("read_events")
    assert (sum(line.counts), line.events, line.read, line.sampled) == (2_000, 2_000, 2_000, False)
    assert line.start <= BEGIN
    assert line.end > BEGIN + timedelta(minutes=1_999)
    assert line.within(line.start_us, line.end_us) == 2_000
    half = line.start_us + line.step_us // 2
    assert line.within(line.start_us, half) == pytest.approx(line.counts[0] / 2)
    text = repr(line)
    assert "2,000 events" in text
    assert "█" in text
    with pytest.raises(UnknownName):
        known.timeline("raed_events")


def test_a_timeline_is_of_all_partitions(session: Session) -> None:
    session.upload(pl.DataFrame(read_events(0, 500)), "reads", time="ts", key="user", partitions=3)
    line = session.timeline("reads")
    assert (sum(line.counts), line.read, line.note) == (500, 500, "")
    session.define("reading_time", "SELECT user, SUM(readtime) AS total FROM reads GROUP BY user")
    assert session.past("reading_time")[0].entities == 7


def test_an_empty_stream_has_an_empty_timeline(known: Session) -> None:
    known.declare("empty", {"user": "VARCHAR", "at": "TIMESTAMP"}, time="at")
    assert known.timeline("empty").counts == ()
    assert repr(known.timeline("empty")) == "empty: no events"


def test_of_a_long_stream_stretches_stand_for_all(
    known: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timelines, "READ_MAX", 1_000)
    monkeypatch.setattr(timelines, "STRETCHES", 20)
    monkeypatch.setattr(timelines, "STRETCH_EVENTS", 10)
    line = known.timeline("read_events")
    assert line.sampled
    assert line.read == 210
    assert sum(line.counts) == pytest.approx(2_000, rel=0.01)
    assert "210 of 2,000 events, in 20 stretches" in repr(line)
    # Both ends of the history are in it.
    assert line.start == BEGIN
    assert line.end > BEGIN + timedelta(minutes=1_999)
    # One event a minute is one event a minute, wherever the stretches lay.
    whole = line.counts[1:-1]
    assert max(whole) == pytest.approx(min(whole), rel=0.15)


def test_a_look_at_a_stream_can_be_interrupted(known: Session) -> None:
    def stop(progress: Progress) -> None:
        raise CancelledError("Stopped.")

    with pytest.raises(CancelledError):
        known.timeline("read_events", on_progress=stop)


def test_the_past_is_as_training_rows_have_it(known: Session) -> None:
    known.define("reading_time", SUM_SQL)
    (past,) = known.past("reading_time")
    assert past.entities == 7
    at = past.at[11]
    labels = pl.DataFrame({"user": [f"u{n}" for n in range(7)], "ts": [at] * 7})
    values = known.training_set(labels, ["reading_time"]).frame["total_readtime"]
    assert past.median[11] == values.median()
    assert "median" in repr(past)
    known.define("latest", "SELECT user, LAST(user) AS who FROM read_events GROUP BY user")
    assert known.past("latest") == ()


def test_a_portrait_says_which_values_it_is_of(known: Session) -> None:
    known.define("reading_time", SUM_SQL)
    labels = pl.DataFrame({"user": [f"u{n % 7}" for n in range(70)],
                           "ts": [BEGIN + n * DAY / 70 for n in range(70)]})  # fmt: skip
    training = known.training_set(labels, ["reading_time"], name="spring")
    before = known.portrait("reading_time")
    assert before.what == "previewed values of 7 entities"
    assert known.health("reading_time") == []
    known.promote("reading_time")
    (one,) = known.portrait("reading_time").likenesses
    served = known.serve(["total_readtime"], user=[f"u{n}" for n in range(7)])["total_readtime"]
    assert sorted(one.values) == sorted(served)
    assert one.then is not None
    assert one.then.rows == 70
    (health,) = known.health("reading_time")
    assert (health.version, health.serving, health.state, health.lag_s) == (1, True, "live", 0.0)
    assert health.events == 2_000
    known.define("reading_time", SUM_SQL.replace("SUM(", "MAX("))
    known.promote("reading_time")
    after = known.portrait("reading_time")
    assert "'spring' learnt of v1 of total_readtime, not of what is shown." in after.notes
    (moved,) = after.likenesses
    assert moved.then is not None
    assert moved.now is not None
    assert (moved.ks, moved.js) == (moved.then.ks(moved.now), moved.then.js(moved.now))
    # A maximum lies below all but the first of the sums that were learnt from.
    raw = kolmogorov_smirnov(training.frame["total_readtime"].drop_nulls().cast(pl.Float64)
                             .to_numpy(), moved.values.cast(pl.Float64).to_numpy())  # fmt: skip
    assert moved.ks == pytest.approx(raw, abs=max(*moved.then.shares, *moved.now.shares))
    assert moved.psi is not None
    told = f"PSI {moved.psi:.3f}, KS {moved.ks:.3f}, JS {moved.js:.3f} against spring"
    assert told in repr(after)
    shown = after._repr_html_()
    for measure in (moved.psi, moved.ks, moved.js):
        assert f">{measure:.3f}</td>" in shown
    assert "'spring' learnt of v1" in unescape(shown)
    assert [h.version for h in known.health("reading_time")] == [1, 2]
