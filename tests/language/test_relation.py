"""Sub-queries, CTEs and views are inlined: what is written apart is what is written in place."""

from __future__ import annotations

import re

import pytest

from fs_notebook.errors import DefinitionError, UnknownName
from fs_notebook.language.plan import Plan
from fs_notebook.language.sql import compile_sql
from tests.language.test_sql import find

VIEWS = {
    "news": "SELECT user AS reader, readtime / 60.0 AS minutes, ts AS at FROM read_events "
    "WHERE genre = 'news'",
    "long_news": "SELECT * FROM news WHERE minutes > 1",
    "endless": "SELECT * FROM endless",
    "counts": "SELECT user, COUNT(*) AS n FROM read_events GROUP BY user",
}


def compiled(sql: str, **options: object) -> Plan:
    return compile_sql(sql, name="x", find_source=find, find_view=VIEWS.get, **options)  # type: ignore[arg-type]


PLAIN = "SELECT user, SUM(readtime * 2) AS x FROM read_events WHERE ok AND score > 1 GROUP BY user"


@pytest.mark.parametrize(
    "apart",
    [
        ("SELECT user, SUM(r) AS x FROM (SELECT user, readtime * 2 AS r, score FROM read_events "
        "WHERE ok) t WHERE score > 1 GROUP BY user"),
        ("WITH t AS (SELECT user, readtime * 2 AS r, score FROM read_events WHERE ok) "
        "SELECT user, SUM(r) AS x FROM t WHERE score > 1 GROUP BY 1"),
        ("WITH a AS (SELECT * FROM read_events WHERE ok), "
        "b AS (SELECT user, readtime + 0 * 0 AS r0, readtime, score FROM a WHERE score > 1) "
        "SELECT user, SUM(readtime * 2) AS x FROM b GROUP BY user"),
        ("SELECT u AS user, SUM(r) AS x FROM (SELECT user AS u, r FROM (SELECT user, "
        "readtime * 2 AS r, score AS s FROM read_events WHERE ok) WHERE s > 1) GROUP BY u"),
        ("SELECT user, SUM(readtime) AS x FROM (SELECT * REPLACE (readtime * 2 AS readtime) "
        "FROM read_events WHERE ok) WHERE score > 1 GROUP BY user"),
    ],
)  # fmt: skip
def test_what_is_written_apart_is_what_is_written_in_place(apart: str) -> None:
    assert compiled(apart).fingerprint == compiled(PLAIN).fingerprint


def test_views_upon_views() -> None:
    written = compiled(
        "SELECT user AS reader, AVG(readtime / 60.0) AS x FROM read_events "
        "WHERE genre = 'news' AND readtime / 60.0 > 1 GROUP BY user"
    )
    seen = compiled("SELECT reader, AVG(minutes) AS x FROM long_news GROUP BY reader")
    assert seen.fingerprint == written.fingerprint
    assert seen.entity == ("reader",)
    assert seen.source == "read_events"


def test_the_event_time_is_known_by_its_new_name() -> None:
    frame = "RANGE BETWEEN INTERVAL '1' DAY PRECEDING AND CURRENT ROW"
    sql = "SELECT reader, SUM(minutes) OVER (PARTITION BY reader ORDER BY {} {}) AS x FROM news"
    plan = compiled(sql.format("at", frame))
    assert plan.time == "ts"
    assert str(plan.aggregations[0].window) == "1d"
    assert compiled("SELECT reader, COUNT(*) AS x FROM news GROUP BY reader, "
                    "TUMBLE(at, INTERVAL '1' DAY)").aggregations[0].window.slide_us  # fmt: skip
    with pytest.raises(DefinitionError, match="event time") as caught:
        compiled(sql.format("minutes", frame))
    assert "ORDER BY at" in str(caught.value)
    # A view that leaves the time out can have windows all the same.
    assert compiled("SELECT user, SUM(r) AS x FROM (SELECT user, readtime AS r FROM read_events) "
                    "GROUP BY user", window_us=5).windows  # fmt: skip


def test_a_key_is_called_as_the_row_calls_it() -> None:
    plan = compiled("SELECT who, COUNT(*) AS n FROM (SELECT LOWER(user) AS who FROM read_events) "
                    "GROUP BY who")  # fmt: skip
    assert plan.entity == ("who",)
    assert plan.columns == ("user",)


REFUSED = [
    ("SELECT user, SUM(n) AS x FROM counts GROUP BY user", "row transform", None),
    ("SELECT user, SUM(n) AS x FROM (SELECT user, SUM(score) AS n FROM read_events) GROUP BY user",
     "aggregate stands", "SUM(score)"),
    ("SELECT user, SUM(n) AS x FROM (SELECT user, score + 1 FROM read_events) GROUP BY user",
     "no name", "score + 1"),
    (("SELECT user, SUM(n) AS x FROM (SELECT user, score AS n, ok AS n FROM read_events) "
     "GROUP BY user"), "Two columns", None),
    ("SELECT user, SUM(x) AS x FROM (SELECT user, score FROM read_events) GROUP BY user",
     "There is no column", "x) AS"),
    ("SELECT a, COUNT(*) AS x FROM endless GROUP BY a", "nested too deeply", None),
    (("WITH RECURSIVE t AS (SELECT * FROM read_events) SELECT user, COUNT(*) AS x FROM t "
     "GROUP BY user"), "recursive", None),
    ("SELECT user, COUNT(*) AS x FROM (SELECT user FROM read_events LIMIT 3) GROUP BY user",
     "LIMIT", None),
    ("SELECT user, COUNT(*) AS x FROM (SELECT user FROM read_events WHERE score) GROUP BY user",
     "true or false", "score) GROUP"),
    ("SELECT user, COUNT(*) AS x FROM (SELECT DISTINCT user FROM read_events) GROUP BY user",
     "DISTINCT", None),
    ("SELECT user, COUNT(*) AS x FROM (VALUES (1)) t GROUP BY user", "FROM takes", None),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "says", "at"), REFUSED)
def test_refusals_say_what_and_where(sql: str, says: str, at: str | None) -> None:
    with pytest.raises(DefinitionError, match=re.escape(says)) as caught:
        compiled(sql)
    assert caught.value.remedy
    if at is not None:
        assert caught.value.text == sql
        assert sql[(caught.value.column or 0) - 1 :].startswith(at)


def test_an_unknown_name_in_from_suggests_near_ones() -> None:
    with pytest.raises(UnknownName, match="read_events"):
        compiled("SELECT user, COUNT(*) AS x FROM (SELECT * FROM read_event) GROUP BY user")
