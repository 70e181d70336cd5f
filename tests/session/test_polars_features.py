"""Polars features through every room: defined, previewed, trained, promoted, served, verified."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

import fs_notebook as fs
from fs_notebook.catalog.model import Definition, definition_of
from fs_notebook.errors import DefinitionError, UnknownName, UsageError
from fs_notebook.language.cell import parse_source
from fs_notebook.language.polars_plan import PolarsDefinition, compile_polars
from fs_notebook.language.relation import SourceColumns, whole
from fs_notebook.service import Service
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, SUM_SQL, embedded_session, read_events, until

__all__ = ["embedded_session"]

GENRES = ("news", "sport", None)


def events(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {**e, "genre": GENRES[e["readtime"] % 3], "share": e["readtime"] / 4}
        for e in read_events(first, count)
    ]


FEATURES = {
    "news_time": pl.col("readtime").filter(pl.col("genre") == "news").sum(),
    "reads": pl.len(),
    "mean_share": (pl.col("share").sum() / pl.len()).fill_null(0),
    "last_genres": pl.col("genre").tail(3),
    "late": (pl.col("ts").dt.hour() >= 1).any(),
    "hour": pl.col("readtime").sum().rolling("ts", period="1h"),
}


def expected(log: list[dict[str, Any]], user: str, at: Any) -> dict[str, Any]:
    mine = [e for e in log if e["user"] == user and e["ts"] < at]
    hour = [e["readtime"] for e in mine if e["ts"] >= at - timedelta(hours=1)]
    return {
        "news_time": sum(e["readtime"] for e in mine if e["genre"] == "news") or None,
        "reads": len(mine),
        "mean_share": sum(e["share"] for e in mine) / len(mine),
        "last_genres": [e["genre"] for e in mine if e["genre"] is not None][-3:] or None,
        "late": any(e["ts"].hour >= 1 for e in mine),
        "hour": sum(hour) if hour else None,
    }


def test_from_an_expression_to_production(embedded_session: Session) -> None:
    session = embedded_session
    log = events(0, 300)
    session.upload(log, "read_events", time="ts", key="user")
    preview = session.feature("reading", FEATURES, entity="user")
    assert preview.types == {
        "news_time": "BIGINT", "reads": "BIGINT", "mean_share": "DOUBLE",
        "last_genres": "VARCHAR[]", "late": "BOOLEAN", "hour": "BIGINT",
    }  # fmt: skip
    names = list(FEATURES)
    for row in preview.frame.iter_rows(named=True):
        assert {n: row[n] for n in names} == expected(log, row["user"], preview.at)

    moments = [BEGIN + timedelta(minutes=m) for m in (30, 61, 150, 299)]
    labels = pl.DataFrame({"user": ["u1", "u2", "u1", "u5"], "at": moments})
    training = session.training_set(labels, ["reading"]).to_polars()
    for row in training.iter_rows(named=True):
        assert {n: row[n] for n in names} == expected(log, row["user"], row["at"])

    assert session.promote("reading").state == "live"
    now = log[-1]["ts"] + timedelta(days=1)
    users = ["u1", "u2"]
    lasting = [n for n in names if n != "hour"]
    served = session.serve(["reading"], user=users)
    for n, user in enumerate(users):
        want = expected(log, user, now)
        assert {name: served[name][n] for name in lasting} == {k: want[k] for k in lasting}
    assert served["hour"] == [None, None]
    more = events(300, 20)
    session.append(more, "read_events")
    want_reads = [expected([*log, *more], u, now + timedelta(days=1))["reads"] for u in users]
    until(lambda: session.serve("reads", user=users)["reads"] == want_reads, what="the new events")
    assert session.verify("reading").ok


def stored(session: Session, name: str) -> Definition:
    return session.catalog.refresh().group(name).latest


def test_the_catalog_holds_a_tree_and_no_code(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(events(0, 10), "read_events", time="ts")
    limit = 3
    expr = pl.col("readtime").filter(pl.col("readtime") > limit).max()
    defined = session.define("most", expr, entity="user", stream="read_events", window="7d")
    again = definition_of(json.loads(json.dumps(defined.to_dict())))
    assert again == defined == stored(session, "most")
    assert (again.language, again.options["stream"]) == ("polars", "read_events")
    # What it was made of, with the variable's value: enough to compile it again.
    assert again.text == "pl.col('readtime').filter(pl.col('readtime') > 3).max()"
    stream = again.source
    compiled = compile_polars(
        PolarsDefinition.from_json(again.options["polars"]), name="most", entity=["user"],
        relation=whole(SourceColumns(stream.name, stream.columns, stream.time)),
        window_us=7 * 86_400_000_000,
    )  # fmt: skip
    assert compiled == again.plan
    assert session.view("most")["definition"] == again.text
    # The same again is no new draft; SQL that says the same is the same version.
    before = session.catalog.refresh().events
    session.define("most", expr, entity="user", stream="read_events", window="7d")
    assert session.catalog.refresh().events == before
    sql = "SELECT user, MAX(readtime) FILTER (WHERE readtime > 3) FROM read_events GROUP BY user"
    assert session.define("most", sql, window="7d").fingerprint == defined.fingerprint


def test_the_stream_is_asked_for_where_it_cannot_be_told(embedded_session: Session) -> None:
    session = embedded_session
    expr = pl.col("share").mean()
    with pytest.raises(UsageError, match="which stream"):
        session.define("share", expr, entity="user")
    session.upload(events(0, 10), "read_events", time="ts")
    assert session.define("share", expr, entity="user").source.name == "read_events"
    session.upload(read_events(0, 10), "other", time="ts")
    with pytest.raises(UsageError, match="--stream read_events"):
        session.define("share", expr, entity="user")
    grouped = fs.stream("read_events").filter(pl.col("genre") == "news").group_by("user")
    assert session.define("share", grouped.agg(expr), window="1d").plan.where is not None
    with pytest.raises(UsageError, match="given twice"):
        session.define("share", grouped.agg(expr), stream="other")
    with pytest.raises(UsageError, match="FROM"):
        session.define("total", SUM_SQL, stream="read_events")
    with pytest.raises(DefinitionError, match="a int"):
        session.define("total", 7)


def test_a_view_is_a_source_like_any_other(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(events(0, 30), "read_events", time="ts")
    session.create_view("news", "SELECT user, readtime * 2 AS twice FROM read_events "
                                "WHERE genre = 'news'")  # fmt: skip
    preview = session.feature("twice", pl.col("twice").sum(), entity="user", stream="news")
    want = {
        user: sum(
            2 * e["readtime"] for e in events(0, 30) if (e["user"], e["genre"]) == (user, "news")
        )
        for user in preview.frame["user"]
    }
    assert dict(preview.frame.select("user", "twice").iter_rows()) == want
    with pytest.raises(DefinitionError, match="did you mean 'twice'"):
        session.define("other", pl.col("twic").sum(), entity="user", stream="news")
    with pytest.raises(UnknownName, match="did you mean 'read_events'"):
        session.define("other", pl.col("twice").sum(), entity="user", stream="read_evnts")


CELL = """%%feature news_time --entity user -l polars --stream read_events
wanted = "news"
pl.col("readtime").filter(pl.col("genre") == wanted).sum()
"""


def test_the_sidebar_promotes_what_the_catalog_has_of_a_cell(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(events(0, 30), "read_events", time="ts")
    cell = parse_source(CELL)
    assert (cell.language, cell.stream, cell.entity) == ("polars", "read_events", ("user",))
    service = Service(session)
    with pytest.raises(UsageError, match="run the cell first"):
        service.promote_source(CELL, actor="ann")
    expr = pl.col("readtime").filter(pl.col("genre") == "news").sum()
    defined = session.define_cell(cell, expr)
    assert (defined.text, defined.cell) == (cell.text, cell.source)
    with pytest.raises(UsageError, match="run the cell first"):
        service.promote_source(CELL.replace("news", "sport"), actor="ann")
    view = service.promote_source("\n" + CELL.rstrip(), actor="ann")
    assert (view["name"], view["latest"], view["actor"]) == ("news_time", 1, "ann")
    # The same once more: it changes nothing, and waits until that version serves.
    assert session.promote("news_time").version == 1
    total = sum(e["readtime"] for e in events(0, 30) if e["user"] == "u0" and e["genre"] == "news")
    assert session.serve("news_time", user="u0")["news_time"] == [total]
