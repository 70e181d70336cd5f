"""Serving from a session: versions by number, times to live, and what a notebook sees of both."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.language.cell import parse_cell
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, SUM_SQL, read_events, until

TWICE_SQL = "SELECT user, SUM(2 * readtime) AS total_readtime FROM read_events GROUP BY user"


def test_versions_that_run_are_read_by_their_numbers(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 70), "read_events", time="ts", key="user")
    session.define("reading_time", SUM_SQL, entity="user")
    session.promote("reading_time")
    one = session.serve("total_readtime@1", user="u3")["total_readtime@1"]
    session.define("reading_time", TWICE_SQL, entity="user")
    session.promote("reading_time")

    def both() -> list[Any]:
        asked = ["total_readtime", "total_readtime@1", "total_readtime@2"]
        return [v[0] for n, v in session.serve(asked, user="u3").to_dict().items() if n != "user"]

    twice = 2 * one[0]
    assert both() == [twice, one[0], twice]
    session.append(read_events(73, 1), "read_events")
    now = one[0] + 73
    until(lambda: both() == [2 * now, now, 2 * now], what="both versions to go on")
    session.rollback("reading_time")
    assert both() == [now, now, 2 * now]
    session.retire("reading_time", 2)
    with pytest.raises(UnknownName, match=r"(?s)Version 2 of 'total_readtime'.*v1 \(serving\)"):
        both()


def test_a_time_to_live_holds_offline_and_online(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 14), "read_events", time="ts", key="user")
    preview = session.feature("reading_time", SUM_SQL, entity="user", ttl="5m")
    assert preview.notes == ("null once an entity's newest event is older than 5m",)
    # u0 read in minute 7, u6 in minute 13, and the preview is of the moment after that.
    seen = dict(preview.frame.select("user", "total_readtime").iter_rows())
    assert (seen["u0"], seen["u1"], seen["u2"], seen["u6"]) == (None, None, 11, 19)
    at = [BEGIN + timedelta(minutes=12), BEGIN + timedelta(minutes=12, microseconds=1)]
    labels = pl.DataFrame({"user": ["u0"] * 2, "at": at})
    assert session.training_set(labels, ["reading_time"]).to_dict()["total_readtime"] == [7, None]
    session.promote("reading_time")
    served = session.serve("total_readtime", user=["u6", "nobody"])
    assert served.to_dict() == {"user": ["u6", "nobody"], "total_readtime": [None, None]}
    assert served.status()["total_readtime"].to_list() == ["expired", "not found"]
    assert served.freshness()["total_readtime"][0] == BEGIN + timedelta(minutes=13)
    assert session.verify("reading_time").ok
    derived = "SELECT user, COALESCE(total_readtime, -1) AS known, total_readtime + 1 AS more"
    session.define("more", f"{derived} FROM reading_time")
    session.promote("more")
    status = session.serve(["known", "more"], user=["u6", "nobody"]).status()
    assert status.rows() == [("u6", "present", "expired"), ("nobody", "not found", "not found")]


def test_a_time_to_live_is_a_length_of_time(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 7), "read_events", time="ts", key="user")
    with pytest.raises(UsageError, match="--ttl is not a length of time"):
        session.define("reading_time", SUM_SQL, ttl="soon")
    session.define("reading_time", SUM_SQL)
    with pytest.raises(UsageError, match=r"(?s)no time to live of its own.*--ttl 1d"):
        session.define("more", "SELECT user, total_readtime + 1 AS y FROM reading_time", ttl="1d")
    cell = parse_cell("reading_time --ttl 30d", SUM_SQL)
    assert cell.ttl == "30d"
    assert session.define_cell(cell).plan.ttl_us == 30 * 86_400_000_000  # type: ignore[union-attr]
