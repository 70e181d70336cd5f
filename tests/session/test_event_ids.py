"""A stream whose events have ids holds each event once, however it is uploaded."""

from __future__ import annotations

import random
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fs_notebook.catalog import Catalog
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import silent
from fs_notebook.errors import ConflictError, UnknownName, UsageError
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.session import Session
from fs_notebook.sources import Sources
from fs_notebook.types import Type
from fs_notebook.views import Uploaded
from tests.support.logs import read_all
from tests.support.sessions import SUM_SQL, read_events


def identified(first: int, count: int) -> pl.DataFrame:
    frame = pl.DataFrame(read_events(first, count))
    return frame.with_columns(event_id="e" + pl.col("readtime").cast(pl.String))


def put(sources: Sources, data: Any, **options: Any) -> Uploaded:
    given = {"time": None, "key": (), "partitions": 1, "once": False, "table": False, "id": None}
    return sources.upload(data, "read_events", **given | options, on_progress=silent)


def stored(log: Any, stream: Stream) -> pl.DataFrame:
    return pl.concat([b.rows.select(stream.names) for b in read_all(log, stream)])


@settings(max_examples=25)
@given(
    times=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    seed=st.randoms(use_true_random=False),
    parts=st.integers(1, 5),
    rows_max=st.integers(1, 12),
)
def test_fault_20_any_overlapping_uploads_in_any_order_leave_each_event_once(
    times: list[int], seed: random.Random, parts: int, rows_max: int
) -> None:
    moments = pl.Series(times, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    events = pl.DataFrame({"id": range(len(times)), "ts": moments}).with_columns(n=pl.col("id") * 7)
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("fs_notebook.sources.UPLOAD_ROWS_MAX", rows_max)
        log = EmbeddedLog(Path(folder))
        sources = Sources(Catalog(log, actor="t"), log, clock=SYSTEM)
        seen: set[int] = set()
        for number in range(parts + 1):
            # The last one holds all events, in yet another order.
            size = len(times) if number == parts else seed.randint(1, len(times))
            chosen = seed.sample(range(len(times)), size)
            chosen += seed.choices(chosen, k=seed.randint(0, 5))
            once = seed.random() < 0.5
            done = put(sources, events[chosen], id="id" if number == 0 else None, once=once)
            new = set(chosen) - seen
            if not done.repeated:
                assert (done.rows, done.known) == (len(new), len(chosen) - len(new))
            seen |= new
        stream = sources.find("read_events")
        assert_frame_equal(stored(log, stream).sort("id"), events)
        log.close()


def test_ids_are_declared_once_and_hold_for_files_too(session: Session, tmp_path: Path) -> None:
    """FAULTS 20."""
    made = session.upload(identified(0, 100), "read_events", time="ts", id="event_id")
    assert (made.rows, made.known) == (100, 0)
    assert session.source("read_events").id == "event_id"
    with closing(Session(session.connection)) as other:
        assert other.source("read_events").id == "event_id"
    path = tmp_path / "reads.parquet"
    identified(50, 100).write_parquet(path)
    done = session.upload(path, "read_events", once=True)
    assert (done.rows, done.known) == (50, 50)
    assert "50 whose event_id was there already were skipped" in repr(done)
    assert session.upload(identified(0, 10).to_dicts(), "read_events").rows == 0
    frame = session.feature("reading_time", SUM_SQL).frame
    assert frame["total_readtime"].sum() == sum(range(150))


def test_a_stream_may_get_its_ids_later(embedded_session: Session) -> None:
    embedded_session.upload(identified(0, 10), "read_events", time="ts", once=True)
    assert embedded_session.upload(identified(5, 10), "read_events", id="event_id").rows == 5
    # What was uploaded once before stays known.
    assert embedded_session.upload(identified(0, 10), "read_events", once=True).repeated == 10
    with pytest.raises(UsageError, match=r"ids of 'read_events' are in 'event_id'"):
        embedded_session.upload(identified(0, 10), "read_events", id="user")


def test_declarations_without_ids_are_written_as_before() -> None:
    stream = Stream("s", (("a", Type.BIGINT),))
    assert "id" not in stream.to_dict()
    with_id = Stream("s", (("a", Type.BIGINT),), id="a")
    assert Stream.from_dict(with_id.to_dict()) == with_id
    assert Stream.from_dict(stream.to_dict()) == stream


@pytest.mark.parametrize(
    ("changes", "column", "error", "says"),
    [
        ({"event_id": pl.lit(None, dtype=pl.String)}, "event_id", UsageError, "have no id"),
        ({"event_id": pl.lit(1.5)}, "event_id", UsageError, "cannot be an event's id"),
        ({"event_id": pl.concat_list("readtime")}, "event_id", UsageError, "cannot be an event's"),
        ({}, "evnt_id", UnknownName, "did you mean 'event_id'"),
    ],
)
def test_what_is_no_id_is_refused(
    embedded_session: Session, changes: Any, column: str, error: Any, says: str
) -> None:
    frame = identified(0, 3).with_columns(**changes)
    with pytest.raises(error, match=says):
        embedded_session.upload(frame, "read_events", time="ts", id=column)
    assert embedded_session.streams() == []


def test_fault_20_two_uploads_of_the_same_events_at_one_moment_leave_each_once(
    embedded_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded_session.upload(identified(0, 10), "read_events", time="ts", id="event_id")
    other = Session(embedded_session.connection)
    append = embedded_session.log.append
    raced: list[int] = []

    def late(stream: Any, rows: pl.DataFrame, **options: Any) -> Any:
        if stream.name == "read_events" and not raced:
            raced.append(other.upload(identified(5, 20), "read_events").rows)
        return append(stream, rows, **options)

    monkeypatch.setattr(embedded_session.log, "append", late)
    done = embedded_session.upload(identified(0, 30), "read_events")
    assert (raced, done.rows, done.known) == ([15], 5, 25)
    stream = embedded_session.source("read_events")
    assert sorted(stored(embedded_session.log, stream)["readtime"]) == list(range(30))
    other.close()


def test_who_always_loses_the_race_is_told(
    embedded_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded_session.upload(identified(0, 10), "read_events", time="ts", id="event_id")
    append = embedded_session.log.append

    def lost(stream: Any, rows: pl.DataFrame, **options: Any) -> Any:
        if stream.name == "read_events":
            raise ConflictError("moved on")
        return append(stream, rows, **options)

    monkeypatch.setattr(embedded_session.log, "append", lost)
    with pytest.raises(ConflictError, match="too fast for ids to be compared"):
        embedded_session.upload(identified(10, 10), "read_events")
