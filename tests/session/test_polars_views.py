"""Views in Polars: the same rows, and the same features over them, as their SQL twins give."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import fs_notebook as fs
from fs_notebook.errors import DefinitionError, FeatureStoreError, UsageError
from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, read_events, until

READS = fs.stream("read_events")
LONG = READS.filter(pl.col("readtime") >= 3).select(
    pl.col("user").alias("reader"), "ts", half=pl.col("readtime") / 2
)
PAIRS: dict[str, tuple[Any, str]] = {
    "filter and select": (
        LONG, ("SELECT user AS reader, ts, readtime / 2 AS half FROM read_events "
               "WHERE readtime >= 3"),
    ),
    "with_columns": (READS.with_columns(pl.col("readtime").add(1), n=pl.lit(1)),
                     "SELECT user, readtime + 1 AS readtime, ts, 1 AS n FROM read_events"),
    "drop and rename": (READS.drop("ts").rename({"user": "reader"}),
                        "SELECT user AS reader, readtime FROM read_events"),
    "steps over steps": (
        READS.with_columns(n=pl.col("readtime") * 2).filter(pl.col("n") > 4).select(twice="n"),
        "SELECT readtime * 2 AS twice FROM read_events WHERE readtime * 2 > 4",
    ),
    "join": (
        READS.join(fs.stream("people"), on="user").filter(pl.col("town") == "Oslo"),
        ("SELECT r.user, r.readtime, r.ts, p.town, p.readtime AS readtime_right FROM read_events r "
         "JOIN people p ON r.user = p.user WHERE p.town = 'Oslo'"),
    ),
    "left join on expressions": (
        READS.join("people", left_on=[pl.col("user").str.to_lowercase()], right_on=["user"],
                   how="left").drop("readtime_right"),
        ("SELECT r.user, r.readtime, r.ts, p.town FROM read_events r LEFT JOIN people p "
         "ON lower(r.user) = p.user"),
    ),
}  # fmt: skip


def upload(session: Session, count: int = 40) -> None:
    session.upload(read_events(0, count), "read_events", time="ts", key="user")
    people = [{"user": f"u{n}", "town": "Oslo" if n % 2 else "Rome", "readtime": n}
              for n in range(4)]  # fmt: skip
    session.upload(people, "people", key="user", table=True)


@pytest.mark.parametrize("what", PAIRS)
def test_a_polars_view_is_its_sql_twin(embedded_session: Session, what: str) -> None:
    session = embedded_session
    upload(session)
    polars, sql = PAIRS[what]
    one = session.create_view("one", polars, limit=100)
    two = session.create_view("two", sql, limit=100)
    assert one.types == two.types
    assert one.time == two.time
    assert one.frame.equals(two.frame)
    assert one.frame.height
    # What a feature reads from either is one version.
    name = one.types[0][0]
    features = [session.define("n", f"SELECT {name}, COUNT(*) AS n FROM {view} GROUP BY {name}")
                for view in ("one", "two")]  # fmt: skip
    assert features[0].fingerprint == features[1].fingerprint
    # Its text is Python that says the same, and what is kept is a tree.
    said: Any = eval(one.view.text, {"fs": fs, "pl": pl})
    assert str(said.rows) == one.view.text
    assert session.create_view("three", said).types == one.types
    assert PolarsRows.from_json(polars.rows.to_json()) == polars.rows


def test_a_feature_over_a_polars_view_goes_all_the_way(session: Session) -> None:
    upload(session)
    shown = session.create_view("long_reads", LONG, written="LONG  # as in my cell")
    assert shown.view.text == "LONG  # as in my cell"
    total = fs.stream("long_reads").group_by("reader").agg(total=pl.col("half").sum())
    preview = session.feature("total", total)

    def wanted(count: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for event in read_events(0, count):
            if event["readtime"] >= 3:
                found[event["user"]] = found.get(event["user"], 0) + event["readtime"] / 2
        return found

    assert dict(preview.frame.select("reader", "total").rows()) == wanted(40)
    session.promote("total")
    session.append(read_events(40, 9), "read_events")
    users = sorted(wanted(49))
    until(lambda: session.serve("total", reader=users)["total"] == [*map(wanted(49).get, users)])
    assert session.verify("total").ok


def test_features_are_made_of_transformed_rows_in_place(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    rows = READS.join("people", on="user").with_columns(minutes=pl.col("readtime") / 60)
    grouped = rows.filter(pl.col("minutes") > 0.1).group_by("town").agg(
        total=pl.col("minutes").sum()
    )  # fmt: skip
    one = session.define("total", grouped)
    two = session.define(
        "total", "SELECT p.town, SUM(r.readtime / 60) AS total FROM read_events r JOIN people p "
        "ON r.user = p.user WHERE r.readtime / 60 > 0.1 GROUP BY p.town",
    )  # fmt: skip
    assert one.fingerprint == two.fingerprint
    assert "fs.stream('read_events').join(fs.stream('people')" in one.text
    again: Any = eval(one.text, {"fs": fs, "pl": pl})
    assert session.define("total", again).fingerprint == one.fingerprint


def test_a_view_that_changes_its_language_is_a_new_version(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    assert session.create_view("v", LONG).view.version == 1
    assert session.create_view("v", LONG).view.version == 1
    assert session.create_view("v", PAIRS["filter and select"][1]).view.version == 2
    assert session.create_view("v", LONG.drop("ts")).view.version == 3
    # A view over a view, and one that would read itself.
    assert session.create_view("w", fs.stream("v").select("half")).types[0][0] == "half"
    with pytest.raises(FeatureStoreError, match="'x'"):
        session.create_view("x", fs.stream("x").select("half"))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: READS.select("raedtime"), "did you mean 'readtime'"),
        (lambda: READS.drop("nothing"), "nothing"),
        (lambda: READS.rename({"user": "ts"}), "Two columns are called 'ts'"),
        (lambda: READS.select("user", pl.col("ts").alias("user")), "Two columns are called"),
        (lambda: READS.filter(pl.col("readtime")), "true or false"),
        (lambda: READS.select(pl.col("readtime").sum()), "row"),
        (lambda: READS.select(pl.lit(1)), "needs a name"),
        (lambda: READS.select(pl.all()), "selector"),
        (lambda: READS.select(pl.col("ts").map_batches(repr)), "Python function"),
        (lambda: READS.join("people", on="user", how="full"), "how='full'"),
        (lambda: READS.join("people", left_on="user", right_on=["user", "town"]), "lengths"),
        (lambda: READS.join("people", left_on="user", right_on="nobody"), "nobody"),
        (lambda: READS.join("people", left_on="readtime", right_on="town"), "different types"),
        (lambda: READS.join("nowhere", on="user"), "nowhere"),
        (lambda: READS.join(LONG, on="user"), "a stream as it is"),
        (lambda: READS.select(7), "no Polars expression"),
        (lambda: READS.rename("user"), "no names"),
        (lambda: pl.col("user"), "a SELECT, or a stream"),
        (lambda: READS.group_by("user").agg(pl.len()), "a SELECT, or a stream"),
    ],
)
def test_what_is_no_view_is_refused(embedded_session: Session, made: Any, says: str) -> None:
    upload(embedded_session)
    with pytest.raises((DefinitionError, UsageError, FeatureStoreError)) as caught:
        embedded_session.create_view("v", made())
    assert says in str(caught.value)
    assert caught.value.remedy
    assert embedded_session.row_views() == []


def test_a_temporal_join_in_polars(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    session.upload([{"user": "u1", "level": n, "since": BEGIN} for n in (1, 2)], "levels",
                   time="since", key="user")  # fmt: skip
    joined = session.create_view("v", READS.join("levels", on="user").select("user", "level"))
    assert joined.frame.rows() == [] or set(joined.frame["level"]) == {2}
    sql = "SELECT r.user, l.level FROM read_events r JOIN levels l ON r.user = l.user"
    assert session.create_view("w", sql).frame.equals(joined.frame)
