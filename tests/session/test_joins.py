"""Joins: the row that was known then, in every path; tables by their pinned version."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition
from fs_notebook.compute.joins import joined_log
from fs_notebook.errors import DefinitionError
from fs_notebook.jupyter.display import PreviewCard, ViewCard
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START
from fs_notebook.session import Session
from fs_notebook.types import TIME, Type
from tests.support.sessions import BEGIN, until

READS = Stream(
    "reads", (("user", Type.VARCHAR), ("article", Type.BIGINT), ("ts", Type.TIMESTAMP)), time="ts"
)
ARTICLES = Stream(
    "articles",
    (("article", Type.BIGINT), ("genre", Type.VARCHAR), ("at", Type.TIMESTAMP)),
    time="at", key=("article",),
)  # fmt: skip
SQL = """
SELECT user, COUNT(*) AS n, COUNT(*) FILTER (WHERE a.genre = 'news') AS news,
       LAST(a.genre) AS newest
FROM reads r {how} articles a ON r.article = a.article GROUP BY user
"""


class Ticking:
    """A clock that goes on by a second at each look."""

    def __init__(self) -> None:
        self.us = 10**15

    def now_us(self) -> int:
        self.us += 1_000_000
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6

    def sleep_s(self, seconds: float) -> None:
        self.us += int(seconds * 1e6)


def rows(stream: Stream, values: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {n: t.polars for n, t in stream.columns}
    shown = [(*v[:-1], BEGIN + timedelta(seconds=v[-1])) for v in values]
    return pl.DataFrame(shown, schema=schema, orient="row")


def define(how: str) -> Definition:
    streams = {s.name: s for s in (READS, ARTICLES)}
    plan = compile_sql(
        SQL.format(how=how), name="x",
        find_source=lambda n: SourceColumns(n, streams[n].columns, streams[n].time),
    )  # fmt: skip
    return Definition("x", SQL, plan, READS, joined=(ARTICLES,))


seconds = st.integers(0, 6)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.one_of(st.none(), st.integers(0, 2)), seconds),
        st.tuples(st.just("article"), st.integers(0, 2), seconds,
                  st.one_of(st.none(), st.sampled_from(["news", "sport", "arts"]))),
    ),
    max_size=18,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps=steps, outer=st.booleans(), rows_max=st.integers(1, 5))
def test_each_row_finds_what_was_known_then(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[Any, ...]],
    outer: bool,
    rows_max: int,
) -> None:
    log = EmbeddedLog(tmp_path_factory.mktemp("ledger"), clock=Ticking())
    log.create(READS)
    log.create(ARTICLES)
    known: list[tuple[int, int, str | None]] = []
    wanted: list[tuple[int | None, str | None]] = []
    for step in steps:
        if step[0] == "article":
            _, article, at, genre = step
            log.append(ARTICLES, rows(ARTICLES, [(article, genre, at)]))
            known.append((article, at, genre))
            continue
        _, article, at = step
        log.append(READS, rows(READS, [("ann", article, at)]))
        # Of those that were in the ledger by then the newest by time, of equals the last.
        seen = [k for k in known if k[0] == article and k[1] <= at]
        best = max(enumerate(seen), key=lambda p: (p[1][1], p[0]))[1] if seen else None
        if best is not None or outer:
            wanted.append((article, best[2] if best else None))
    definition = define("LEFT JOIN" if outer else "JOIN")
    joined = joined_log(definition.plan, definition.joined, log)
    found: list[tuple[Any, ...]] = []
    positions = 0
    end = log.end("reads")
    (name,) = {n for n, c, _ in definition.plan.joins[0].columns if c == "genre"}
    for batch in joined.read(READS, start=START, end=end, columns=["article"], rows_max=rows_max):
        found += batch.rows.select("article", name).rows()
        assert batch.positions().height == batch.rows.height
        positions += batch.rows.height
        assert TIME in batch.rows.columns
    assert found == wanted
    log.close()


def read_log(count: int, first: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(first)
    return [
        {"user": f"u{rng.randrange(4)}", "article": rng.randrange(6),
         "ts": BEGIN + timedelta(minutes=first + n)}
        for n in range(count)
    ]  # fmt: skip


def article_rows(at: datetime, genre: str, articles: range) -> list[dict[str, Any]]:
    return [{"article": a, "genre": f"{genre}", "at": at} for a in articles]


@pytest.mark.parametrize("how", ["JOIN", "LEFT JOIN"])
def test_a_joined_feature_goes_all_the_way(session: Session, how: str) -> None:
    session.upload(article_rows(BEGIN, "news", range(4)), "articles", time="at", key="article")
    session.upload(read_log(60), "reads", time="ts", key="user", partitions=2)
    # From here on article 0 is sport; what was read before stays news.
    later = BEGIN + timedelta(minutes=60)
    session.append(article_rows(later, "sport", range(1)), "articles")
    session.append(read_log(40, first=60), "reads")
    preview = session.feature("genres", SQL.format(how=how))
    expected: dict[str, list[int]] = {}
    for n, event in enumerate([*read_log(60), *read_log(40, first=60)]):
        genre = None if event["article"] > 3 else "news"
        if event["article"] == 0 and n >= 60:
            genre = "sport"
        if genre is None and how == "JOIN":
            continue
        counted = expected.setdefault(event["user"], [0, 0])
        counted[0] += 1
        counted[1] += genre == "news"
    shown = {r["user"]: [r["n"], r["news"]] for r in preview.frame.rows(named=True)}
    assert shown == expected
    at = later + timedelta(days=1)
    users = sorted(expected)
    labels = pl.DataFrame({"user": users, "asked_at": [at] * len(users)})
    trained = session.training_set(labels, ["genres"]).to_polars()
    assert [list(r) for r in trained.select("n", "news").rows()] == [expected[u] for u in users]
    session.promote("genres")
    served = session.serve(["genres"], user=users)
    assert [[a, b] for a, b in zip(served["n"], served["news"], strict=True)] == [
        expected[u] for u in users
    ]
    assert session.verify("genres").ok
    session.append(article_rows(at, "arts", range(2)), "articles")
    session.append([{"user": "u1", "article": 1, "ts": at}], "reads")
    until(lambda: session.serve("newest", user="u1")["newest"] == ["arts"])
    assert session.verify("genres").ok


def test_a_table_is_pinned_by_its_version(session: Session) -> None:
    table = [{"article": a, "genre": "news" if a < 3 else "sport"} for a in range(6)]
    session.upload(table, "kinds", key="article", table=True)
    session.upload(read_log(50), "reads", time="ts")
    sql = (
        "SELECT user, COUNT(*) AS news FROM reads JOIN kinds USING (article) "
        "WHERE genre = 'news' GROUP BY user"
    )
    one = session.define("news_reads", sql)
    news = session.preview("news_reads").frame["news"].sum()
    assert news == sum(e["article"] < 3 for e in read_log(50))
    session.upload([{"article": 0, "genre": "sport"}], "kinds")
    # What was defined keeps the version that there was; the cell, run again, takes the new one.
    assert session.preview("news_reads").frame["news"].sum() == news
    two = session.define("news_reads", sql)
    assert two.fingerprint != one.fingerprint
    fewer = sum(e["article"] in (1, 2) for e in read_log(50))
    assert session.preview("news_reads").frame["news"].sum() == fewer
    session.promote("news_reads")
    assert session.verify("news_reads").ok


@pytest.mark.parametrize(
    ("join", "says"),
    [
        ("JOIN articles a ON r.article <> a.article", "equal columns"),
        ("JOIN articles a ON r.user = a.article", "different types"),
        ("FULL JOIN articles a USING (article)", "cannot be folded"),
        (", articles a", "cannot be folded"),
        ("JOIN (SELECT * FROM articles) a USING (article)", "cannot be folded"),
        ("JOIN articles FOR SYSTEM_TIME AS OF r.user a ON r.article = a.article", "event time"),
        ("JOIN articles a ON r.article = a.artcle", "There is no column"),
    ],
)
def test_what_is_no_join_is_refused(embedded_session: Session, join: str, says: str) -> None:
    embedded_session.upload(article_rows(BEGIN, "news", range(2)), "articles", time="at",
                            key="article")  # fmt: skip
    embedded_session.upload(read_log(3), "reads", time="ts")
    with pytest.raises(DefinitionError, match=says):
        embedded_session.define(
            "x", f"SELECT user, COUNT(*) AS n FROM reads r {join} GROUP BY user"
        )


def test_ways_of_writing_a_join_are_one_meaning(embedded_session: Session) -> None:
    embedded_session.upload(article_rows(BEGIN, "news", range(2)), "articles", time="at",
                            key="article")  # fmt: skip
    embedded_session.upload(read_log(3), "reads", time="ts")
    texts = [
        "SELECT user, COUNT(genre) AS n FROM reads JOIN articles USING (article) GROUP BY user",
        (
            "SELECT r.user, COUNT(a.genre) AS n FROM reads r JOIN articles a "
            "ON a.article = r.article GROUP BY r.user"
        ),
        (
            "SELECT user, COUNT(x.genre) AS n FROM reads INNER JOIN articles FOR SYSTEM_TIME AS OF "
            "reads.ts AS x ON reads.article = x.article GROUP BY user"
        ),
        (
            "WITH j AS (SELECT user, genre AS g FROM reads JOIN articles USING (article)) "
            "SELECT user, COUNT(g) AS n FROM j GROUP BY user"
        ),
    ]
    prints = {embedded_session.define("x", text).fingerprint for text in texts}
    assert len(prints) == 1


def test_rows_that_find_no_partner_are_told(embedded_session: Session) -> None:
    """A table that was uploaded after the events is not yet there for them: S10."""
    read, article = rows(READS, [("u1", 1, 1), ("u2", 2, 2)]), [(1, "news", 0)]
    embedded_session.upload(read, "reads", time="ts")
    embedded_session.upload(rows(ARTICLES, article), "articles", time="at", key="article")
    preview = embedded_session.feature("x", SQL.format(how="JOIN"))
    (note,) = preview.notes
    assert note.startswith("2 of 2 rows found no partner in articles")
    assert "upload articles first" in note
    html = PreviewCard(preview).html()
    assert note in html
    assert "No row of this slice came out of the joins." in html
    shown = embedded_session.create_view(
        "both", "SELECT r.user, a.genre, r.ts FROM reads r JOIN articles a ON r.article = a.article"
    )
    assert shown.notes == (note,)
    assert note in ViewCard(shown).html()
    assert embedded_session.feature("x", SQL.format(how="LEFT JOIN")).notes == ()
    # Those that happen from now on find the row.
    embedded_session.append(read, "reads")
    (note,) = embedded_session.feature("x", SQL.format(how="JOIN")).notes
    assert note.startswith("3 of 4 rows found no partner in articles")
