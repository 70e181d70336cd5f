"""Unions: what is done to their rows is done in each branch, wherever it was written."""

from __future__ import annotations

import json
import re

import pytest

from fs_notebook.errors import DefinitionError, unknown_name
from fs_notebook.language.plan import Plan
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sources import streams_of
from fs_notebook.language.sql import compile_sql
from fs_notebook.language.unions import BRANCHES_MAX
from fs_notebook.types import Type

SOURCES = {
    "clicks": SourceColumns(
        "clicks", (("user", Type.VARCHAR), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)), "ts"
    ),
    "buys": SourceColumns(
        "buys", (("who", Type.VARCHAR), ("price", Type.DOUBLE), ("at", Type.TIMESTAMP)), "at"
    ),
    "notes": SourceColumns("notes", (("user", Type.VARCHAR), ("text", Type.VARCHAR)), None),
}
VIEWS = {
    "acts": "SELECT user, n AS amount, ts FROM clicks UNION ALL SELECT who, price, at FROM buys",
}


def find(name: str) -> SourceColumns:
    if name not in SOURCES:
        raise unknown_name("stream", name, list(SOURCES))
    return SOURCES[name]


def compiled(sql: str, **options: object) -> Plan:
    return compile_sql(sql, name="x", find_source=find, find_view=VIEWS.get, **options)  # type: ignore[arg-type]


PLAIN = (
    "SELECT user, SUM(amount * 2) AS x FROM (SELECT user, n AS amount FROM clicks WHERE n > 1 "
    "UNION ALL SELECT who, price FROM buys) WHERE amount < 9 GROUP BY user"
)


@pytest.mark.parametrize(
    "apart",
    [
        ("SELECT u AS user, SUM(twice) AS x FROM (SELECT user AS u, CAST(n AS DOUBLE) * 2 AS twice "
         "FROM clicks WHERE n > 1 AND CAST(n AS DOUBLE) < 9 UNION ALL SELECT who, price * 2 "
         "FROM buys WHERE price < 9) GROUP BY u"),
        ("WITH a AS (SELECT * FROM clicks WHERE n > 1), b AS (SELECT user, n AS m FROM a UNION ALL "
         "SELECT who, price FROM buys), c AS (SELECT user, m * 2 AS d FROM b WHERE m < 9) "
         "SELECT user, SUM(d) AS x FROM c GROUP BY user"),
        ("SELECT user, SUM(amount * 2) AS x FROM (WITH a AS (SELECT user, n FROM clicks WHERE "
         "n > 1) (SELECT user, n AS amount FROM a) UNION ALL (SELECT who AS y, price AS y "
         "FROM buys)) WHERE amount < 9 GROUP BY user"),
    ],
)  # fmt: skip
def test_what_is_written_apart_is_what_is_written_in_place(apart: str) -> None:
    plain = compiled(PLAIN)
    assert compiled(apart).fingerprint == plain.fingerprint
    assert compiled(PLAIN.replace("< 9", "< 8")).fingerprint != plain.fingerprint
    assert compiled(PLAIN.replace("n > 1", "n > 2")).fingerprint != plain.fingerprint


def test_a_plan_of_a_union_comes_back_from_json() -> None:
    plan = compiled(PLAIN)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.source == "clicks + buys"
    assert streams_of(plan.source) == ("clicks", "buys")
    assert plan.where is None
    # Of the streams' columns nothing is left but what the fold needs.
    assert plan.columns == ("c0", "c1")
    assert [b.time for b in plan.branches] == ["ts", "at"]


def test_a_plan_without_a_union_is_as_it_was() -> None:
    plan = compiled("SELECT user, SUM(n) AS x FROM clicks GROUP BY user")
    assert not {"branches", "joins"} & plan.to_dict().keys()


def test_unions_of_unions_are_flat() -> None:
    nested = (
        "SELECT user, SUM(amount) AS x FROM (SELECT user, amount FROM acts WHERE amount > 2 "
        "UNION ALL SELECT user, n FROM clicks) GROUP BY user"
    )
    flat = (
        "SELECT user, SUM(amount) AS x FROM (SELECT user, CAST(n AS DOUBLE) AS amount FROM clicks "
        "WHERE CAST(n AS DOUBLE) > 2 UNION ALL SELECT who, price FROM buys WHERE price > 2 "
        "UNION ALL SELECT user, n FROM clicks) GROUP BY user"
    )
    assert compiled(nested).fingerprint == compiled(flat).fingerprint
    assert compiled(nested).source == "clicks + buys + clicks"


def test_windows_need_the_event_time_of_every_branch() -> None:
    frame = "RANGE BETWEEN INTERVAL '1' DAY PRECEDING AND CURRENT ROW"
    over = "SELECT user, SUM(amount) OVER (PARTITION BY user ORDER BY ts {}) AS x FROM {}"
    plan = compiled(over.format(frame, "acts"))
    assert str(plan.aggregations[0].window) == "1d"
    other = (
        "(SELECT user, n AS amount, ts FROM clicks UNION ALL SELECT who, price, "
        "TIMESTAMP '2020-01-01' FROM buys)"
    )
    with pytest.raises(DefinitionError, match="event time") as caught:
        compiled(over.format(frame, other))
    assert "each SELECT" in str(caught.value.remedy)
    # The window's own option asks for no name of the time.
    assert compiled(f"SELECT user, SUM(amount) AS x FROM {other} GROUP BY user",
                    window_us=5).windows  # fmt: skip


BOTH = "SELECT user, COUNT(*) AS x FROM ({}) GROUP BY user"
REFUSED = [
    ("SELECT user, n FROM clicks UNION SELECT who, price FROM buys", "drops equal rows", None),
    ("SELECT user, n FROM clicks EXCEPT SELECT who, price FROM buys", "set operation", None),
    ("SELECT user, n FROM clicks UNION ALL SELECT who FROM buys", "different numbers", "who FROM"),
    ("SELECT user, n FROM clicks UNION ALL SELECT who, at FROM buys", "different types",
     "who, at FROM"),
    ("SELECT user, n FROM clicks UNION ALL BY NAME SELECT user, 1 AS n FROM notes", "BY NAME",
     None),
    ("SELECT user, n FROM clicks UNION ALL SELECT who, prize FROM buys", "There is no column",
     "prize"),
    ("SELECT user, n FROM clicks UNION ALL SELECT who, SUM(price) FROM buys GROUP BY who",
     "no groups", None),
    ("SELECT user, n FROM clicks UNION ALL SELECT who, SUM(price) FROM buys", "aggregate stands",
     "SUM(price)"),
    ("SELECT user, n FROM clicks UNION ALL SELECT who, price FROM buys LIMIT 3", "LIMIT", None),
    ("SELECT user, n FROM clicks UNION ALL VALUES ('u', 1)", "FROM takes", None),
    (" UNION ALL ".join(["SELECT user, n FROM clicks"] * (BRANCHES_MAX + 1)), "too many", None),
]  # fmt: skip


@pytest.mark.parametrize(("union", "says", "at"), REFUSED)
def test_refusals_say_what_and_where(union: str, says: str, at: str | None) -> None:
    sql = BOTH.format(union)
    with pytest.raises(DefinitionError, match=re.escape(says)) as caught:
        compiled(sql)
    assert caught.value.remedy
    if at is not None:
        assert sql[(caught.value.column or 0) - 1 :].startswith(at)


def test_too_many_streams_by_way_of_views_are_refused() -> None:
    half = " UNION ALL ".join(["SELECT user, amount FROM acts"] * (BRANCHES_MAX // 2))
    assert len(compiled(BOTH.format(half)).branches) == BRANCHES_MAX
    with pytest.raises(DefinitionError, match="too many"):
        compiled(BOTH.format(half + " UNION ALL SELECT user, n FROM clicks"))


def test_a_feature_itself_is_no_union() -> None:
    with pytest.raises(DefinitionError, match="a SELECT"):
        compiled("SELECT user, COUNT(*) AS x FROM clicks GROUP BY user UNION ALL SELECT 1, 2")
