"""A look at streams: which events, in which order, where they lie; and what is known of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from fs_notebook.cli import main
from fs_notebook.errors import UnknownName, UnknownPosition, UsageError
from fs_notebook.inspection import parse_position
from fs_notebook.position import Position
from fs_notebook.session import Session
from tests.support.broker import Broker
from tests.support.sessions import BEGIN, SUM_SQL, read_events, until


def numbers(peek: Any) -> list[int]:
    return list(peek.events["readtime"])


def test_a_peek_begins_where_it_is_told(session: Session) -> None:
    for first in (0, 5, 10):
        session.upload(read_events(first, 5), "read_events", time="ts")
    head = session.peek("read_events", 7)
    assert numbers(head) == list(range(7))
    assert head.events["time"].to_list() == [BEGIN + timedelta(minutes=n) for n in range(7)]
    assert numbers(session.peek("read_events", 4, newest=True)) == [11, 12, 13, 14]
    assert numbers(session.peek("read_events", 40, newest=True)) == list(range(15))
    since = BEGIN + timedelta(minutes=9)
    assert numbers(session.peek("read_events", 3, since=since)) == [9, 10, 11]
    assert numbers(session.peek("read_events", since="2024-01-02")) == []
    for row in (0, 6, 14):
        position = session.peek("read_events", 100).events["position"][row]
        found = session.peek("read_events", 3, at=position)
        assert numbers(found) == list(range(row, min(row + 3, 15)))
        assert found.events["position"][0] == position
    published = head.events["published"]
    assert abs(datetime.now(UTC) - published[0]) < timedelta(hours=1)


def test_a_peek_spans_large_batches_and_partitions(session: Session) -> None:
    rows = pl.DataFrame(read_events(0, 3000))
    session.upload(rows, "reads", time="ts", key="user", partitions=3)
    found = session.peek("reads", 5000)
    assert sorted(numbers(found)) == list(range(3000))
    newest = session.peek("reads", 10, newest=True)
    assert newest.events.height == 10
    by_partition = found.events.group_by(part=pl.col("position").str.head(1)).agg("position")
    last = {p for row in by_partition["position"] for p in row.to_list()[-10:]}
    assert set(newest.events["position"]) <= last


def test_times_of_a_large_stream_are_those_of_its_first_and_last_event(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of a sample: of what lies between, only a ledger that knows can tell."""
    monkeypatch.setattr("fs_notebook.inspection.SAMPLE_EVENTS", 5)
    events = read_events(0, 40)
    events[2]["ts"] = BEGIN - timedelta(days=1)
    events[37]["ts"] = BEGIN + timedelta(days=9)
    session.upload(events, "read_events", time="ts")
    told = session.describe("read_events")
    if session.log.url.startswith("embedded"):
        assert (told.first, told.last) == (BEGIN - timedelta(days=1), BEGIN + timedelta(days=9))
    else:
        assert (told.first, told.last) == (BEGIN, BEGIN + timedelta(minutes=39))


def test_a_description_says_what_is_known(session: Session) -> None:
    # Publish times are in milliseconds.
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    session.upload(
        read_events(0, 30), "read_events", time="ts", key="user", partitions=2
    )  # fmt: skip
    told = session.describe("read_events")
    assert (told.first, told.last) == (BEGIN, BEGIN + timedelta(minutes=29))
    assert (told.sampled, told.dead) == (30, 0)
    assert told.published is not None
    begun, ended = told.published
    assert before <= begun <= ended <= datetime.now(UTC)
    figures = dict(told.figures())
    assert figures["first event published, UTC"] == f"{begun:%Y-%m-%d %H:%M:%S.%f}"
    whole = session.log.url.startswith("embedded")
    name = "greatest event time, UTC" if whole else "event time of the last, UTC"
    assert figures[name] == "2024-01-01 00:29:00.000000"
    assert figures["kept"] == "for ever"
    assert figures["key"] == "user"
    # The embedded ledger has a stream in one piece, whatever was asked for.
    one = session.log.url.startswith("embedded")
    assert figures["partitions"] == ("1 (declared with 2)" if one else "2")
    assert figures["event time"] == "ts"
    if session.log.url.startswith("embedded"):
        assert figures["events"] == "30"
        assert told.rate == pytest.approx(1 / 60)
    else:
        assert figures["offloaded"] == "0% of the bytes"
        assert told.facts.entries is not None
        assert told.facts.entries > 0
    assert "readtime  BIGINT" in repr(told)
    (line,) = session.overviews()
    assert line.fields()["partitions"] == session.log.partitions("read_events")
    assert line.fields()["columns"] == "user VARCHAR, readtime BIGINT, ts TIMESTAMP"


def test_an_empty_stream_can_be_looked_at(session: Session) -> None:
    session.upload(pl.DataFrame(read_events(0, 1)).head(0), "empty", time="ts")
    assert session.peek("empty", newest=True).events.height == 0
    told = session.describe("empty")
    assert (told.first, told.last, told.rate, told.sampled) == (None, None, None, 0)
    assert "dead letters: 0 of 0 sampled" in repr(told)
    assert repr(session.peek("empty")) == "empty: the first 10 events: none"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"at": "0:0"}, UsageError, "This is no position"),
        ({"at": "0:0:99:0"}, UnknownPosition, "has no position 0:0:99:0"),
        ({"at": "7:0:0:0"}, UnknownPosition, "its end is 0:0:4:0"),
        ({"newest": True, "since": "2024-01-01"}, UsageError, "begins at one place"),
        ({"since": "soon"}, UsageError, "--since is not a time"),
        ({"n": 0}, UsageError, "-n 1 to 10000"),
    ],
)
def test_a_look_that_cannot_be_is_told(
    embedded_session: Session, options: Any, error: Any, says: str
) -> None:
    embedded_session.upload(read_events(0, 5), "read_events", time="ts")
    with pytest.raises(error, match=says):
        embedded_session.peek("read_events", **options)


def test_names_and_values_cannot_steer_the_terminal(embedded_session: Session) -> None:
    """FAULTS 36."""
    row = {"time": BEGIN, "position": "\x1b[31mred\r\n", "list": [1.5, float("nan")]}
    embedded_session.upload([row], "odd", time="time")
    peek = embedded_session.peek("odd")
    assert "\x1b" not in repr(peek)
    assert len(repr(peek).splitlines()) == 4
    event = json.loads(next(peek.json_lines()))["event"]
    assert event == {
        "time": "2024-01-01T00:00:00.000000Z", "position": "\x1b[31mred\r\n", "list": [1.5, "nan"],
    }  # fmt: skip


def test_a_position_is_read_as_it_is_written() -> None:
    assert parse_position(str(Position(1, 22, 333, 4))) == Position(1, 22, 333, 4)


def run(home: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["--home", str(home), *arguments])
    return done.exit_code, done.output


def test_the_command_line_shows_streams(embedded_session: Session) -> None:
    home = embedded_session.connection.home
    assert run(home, "streams") == (0, "no streams yet\n")
    embedded_session.upload(read_events(0, 15), "read_events", time="ts", key="user")
    code, text = run(home, "streams")
    assert code == 0
    assert text.splitlines()[2].split()[:5] == ["read_events", "15", "1", "ts", "user"]
    code, text = run(home, "peek", "read_events", "-n", "2", "--newest", "--json")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["position"] for line in lines] == ["0:0:13:0", "0:0:14:0"]
    assert lines[1]["event"] == {
        "user": "u0", "readtime": 14, "ts": "2024-01-01T00:14:00.000000Z",
    }  # fmt: skip
    code, text = run(home, "peek", "read_events", "--at", "0:0:3:0", "-n", "1")
    assert "0:0:3:0" in text
    assert "u3" in text
    code, text = run(home, "describe", "read_events")
    assert "events: 15" in text
    assert "greatest event time, UTC: 2024-01-01 00:14:00" in text
    code, text = run(home, "peek", "read_event")
    assert code == 1
    assert "did you mean 'read_events'?" in text


def test_an_unknown_stream_is_told(embedded_session: Session) -> None:
    with pytest.raises(UnknownName, match="no stream named 'nothing'"):
        embedded_session.describe("nothing")


def test_a_preview_says_of_a_stream_that_it_is_not_kept_for_ever(
    session: Session, request: pytest.FixtureRequest
) -> None:
    session.upload(read_events(0, 3), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    assert not [n for n in session.preview("reading_time").notes if "is kept" in n]
    if session.log.url.startswith("embedded"):
        return
    broker: Broker = request.getfixturevalue("broker")
    place = session.connection.log.split("//")[1].partition("/")[2]
    body = {"retentionTimeInMinutes": 60, "retentionSizeInMB": -1}
    broker.admin("POST", f"persistent/{place}/read_events/retention", body)
    until(
        lambda: (
            "'read_events' is kept up to 60 minutes: values are of what is left"
            in str(session.preview("reading_time").notes)
        ),
        what="the broker's new policy",
    )
