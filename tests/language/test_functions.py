"""Functions of lists, structs, text, times and numbers: what DuckDB has means what it means."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import DefinitionError, FeatureStoreError, OverflowInFold
from fs_notebook.language.expr import Expr
from fs_notebook.language.plan import Plan
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.types import Type

SOURCE = SourceColumns(
    "events",
    (
        ("user", Type.VARCHAR),
        ("i", Type.BIGINT),
        ("f", Type.DOUBLE),
        ("s", Type.VARCHAR),
        ("w", Type.VARCHAR),
        ("ts", Type.TIMESTAMP),
        ("back", Type.TIMESTAMP),
        ("day", Type.DATE),
        ("xs", Type("BIGINT[]")),
        ("fs", Type("DOUBLE[]")),
        ("words", Type("VARCHAR[]")),
        ("spot", Type('STRUCT("lat" DOUBLE, "Place" STRUCT("city" VARCHAR, "tags" VARCHAR[]))')),
        ("many", Type('STRUCT("a" BIGINT)[]')),
    ),
    "ts",
)


def place(lat: float | None, city: str | None, tags: list[str] | None) -> dict[str, Any]:
    return {"lat": lat, "Place": {"city": city, "tags": tags}}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ROWS: list[dict[str, Any]] = [
    {
        "user": "a", "i": 2, "f": 2.5, "s": "a,bé,,c", "w": ",",
        "ts": moment("2024-03-05T13:14:15.123456"), "back": moment("2023-12-31T23:59:59"),
        "day": moment("2024-02-29").date(), "xs": [3, 1, None, 2, 3], "fs": [1.5, -2.0, None],
        "words": ["x", None, "ÿ", "x"], "spot": place(1.5, "Ulm", ["p", "q"]),
        "many": [{"a": 1}, {"a": None}],
    },
    {
        "user": "b", "i": -1, "f": -2.5, "s": "", "w": "x", "ts": moment("1969-07-20T20:17:40"),
        "back": moment("1970-01-01T00:00:00"), "day": moment("1969-12-31").date(), "xs": [],
        "fs": [], "words": [], "spot": place(None, None, None), "many": [],
    },
    {
        "user": "c", "i": 0, "f": 0.0, "s": "xx ü xx ", "w": "xx",
        "ts": moment("2024-01-01T00:00:00"), "back": moment("2024-12-31T00:00:00"),
        "day": moment("2024-12-30").date(), "xs": [None], "fs": [None], "words": [None],
        "spot": place(0.0, "", []), "many": [{"a": 7}],
    },
    {k: "d" if k == "user" else None for k, _ in SOURCE.columns},
    {
        "user": "e", "i": 7, "f": 1e300, "s": "naïve caffè", "w": "è",
        "ts": moment("2024-12-30T00:00:00"), "back": moment("2025-01-06T00:00:00"),
        "day": moment("2025-01-01").date(), "xs": [2**62, -5], "fs": [1e3], "words": ["b", "a"],
        "spot": place(-1.0, "Bonn", None), "many": None,
    },
]  # fmt: skip
FRAME = pl.DataFrame(ROWS, schema={n: t.polars for n, t in SOURCE.columns}, orient="row")


def compiled(columns: str) -> Plan:
    return compile_sql(
        f"SELECT user, {columns} FROM events GROUP BY user", name="x", find_source=lambda _: SOURCE
    )


def row_expression(sql: str) -> Expr:
    """Return an expression over rows, by way of a condition that holds it."""
    plan = compiled(f"COUNT(CASE WHEN ({sql}) IS NULL THEN 1 END) AS x")
    (case,) = plan.aggregations[0].args
    is_null = case.args[0]  # type: ignore[union-attr]
    return is_null.args[0]  # type: ignore[union-attr,no-any-return]


def ours(sql: str, frame: pl.DataFrame = FRAME) -> list[Any]:
    expr = row_expression(sql)
    with overflow_named("a test"):
        got = frame.select(pl.col("user"), compile_expr(expr).alias("x")).get_column("x")
    assert got.dtype == expr.type.polars
    return got.to_list()


AS_DUCKDB = [
    "LEN(xs)", "LENGTH(words)", "ARRAY_LENGTH(xs)", "xs[1]", "xs[2]", "xs[-1]", "xs[99]", "xs[i]",
    "xs[0]", "words[i - 1]", "xs[2:3]", "xs[:2]", "xs[2:]", "xs[-2:]", "xs[:-2]", "xs[3:2]",
    "xs[1:99]", "LIST_SLICE(xs, 2, 3)", "LIST_EXTRACT(words, 1)", "LIST_CONTAINS(xs, 3)",
    "LIST_CONTAINS(words, w)", "ARRAY_CONTAINS(fs, i)", "LIST_AVG(fs)", "LIST_AVG(xs)",
    "LIST_SUM(fs)", "LIST_SUM(xs)", "LIST_MIN(xs)", "LIST_MAX(xs)", "LIST_MIN(words)",
    "LIST_MAX(fs)", "LIST_SORT(xs)", "LIST_REVERSE_SORT(xs)", "LIST_SORT(words)",
    "LIST_REVERSE(xs)", "ARRAY_TO_STRING(words, '|')", "STRING_SPLIT(s, ',')",
    "STRING_SPLIT(s, w)", "[i, 3]", "[i, f]", "[s, w][2]", "LEN([1, 2, 3])",
    "spot.lat", "spot['lat']", "events.spot.lat", "spot.place.city", "spot.Place.tags[1]",
    "many[1].a",
    "STRUCT_EXTRACT(spot, 'lat')", "{'a': i, 'b': s}", "STRUCT_PACK(a := i, b := [f])",
    "{'a': i}.a + 1",
    "COALESCE(xs, [1, 2])", "CASE WHEN i > 0 THEN words ELSE [s] END",
    "REPLACE(s, ',', '--')", "REPLACE(s, 'x', w)", "REPLACE(s, '', 'q')", "REPLACE(s, 'é', '$1')",
    "REGEXP_MATCHES(s, '[a-c]+')", "REGEXP_EXTRACT(s, '([a-z])(.)', 2)",
    "REGEXP_EXTRACT(s, 'x+')", "LEFT(s, 3)", "RIGHT(s, 3)", "LEFT(s, i)", "RIGHT(s, i)",
    "LPAD(s, 5, '*')", "RPAD(s, 10, 'é')", "LPAD(s, i::INT, '0')", "POSITION('c' IN s)",
    "STRPOS(s, w)",
    "INSTR(s, '')", "ENDS_WITH(s, w)", "SUFFIX(s, 'c')", "LTRIM(s)", "RTRIM(s)", "TRIM(s)",
    "LOG(2.0, 8)", "LOG10(100)", "TRUNC(f)", "TRUNC(i)", "PI()", "SIN(f)", "COS(i)", "ISNAN(f)",
    "ISFINITE(f)",
    *(f"DATE_DIFF('{u}', back, ts)" for u in (
        "microsecond", "second", "minute", "hour", "day", "month", "quarter", "year")),
    "DATE_DIFF('day', day, ts)", "DATE_PART('year', ts)", "DATE_PART('dow', day)", "SECOND(ts)",
    "EXTRACT(second FROM ts)",
]  # fmt: skip


@pytest.mark.parametrize("sql", AS_DUCKDB)
def test_means_what_duckdb_means(sql: str) -> None:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    plain = FRAME.with_columns(pl.col("ts", "back").dt.replace_time_zone(None))
    db.register("events", plain.to_arrow())
    want = [row[0] for row in db.execute(f"SELECT {sql} FROM events").fetchall()]
    got = ours(sql)
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        if isinstance(mine, float) and theirs is not None:
            assert mine == pytest.approx(float(theirs), rel=1e-12)
        else:
            assert mine == theirs


@pytest.mark.parametrize(
    ("sql", "want"),
    [
        # Where we differ from DuckDB, or DuckDB promises nothing.
        ("LIST_DISTINCT(xs)", [[3, 1, 2], [], [], None, [2**62, -5]]),
        ("LOG(f)", [pytest.approx(math.log10(2.5)), None, None, None, pytest.approx(300.0)]),
        ("LOG(i, 8)", [3.0, None, None, None, pytest.approx(math.log(8, 7))]),
        ("LIST_CONTAINS(xs, NULLIF(i, 2))", [None, False, False, None, False]),
        ("TO_TIMESTAMP(i)", [moment(f"1970-01-01T00:00:0{n}") for n in (2,)] + [
            moment("1969-12-31T23:59:59"), moment("1970-01-01"), None,
            moment("1970-01-01T00:00:07"),
        ]),
        ("TO_TIMESTAMP(f)", [
            moment("1970-01-01T00:00:02.5"), moment("1969-12-31T23:59:57.5"),
            moment("1970-01-01"), None, None,
        ]),
        ("i IN [2, 7]", [True, False, False, None, True]),
    ],
)  # fmt: skip
def test_means_this(sql: str, want: list[Any]) -> None:
    assert ours(sql) == want


def test_nan_in_lists_is_greater_than_every_number() -> None:
    nan = float("nan")
    frame = FRAME.with_columns(pl.Series("fs", [[nan, 1.0], [nan], [2.0], None, [None, nan, -1.0]]))
    assert ours("LIST_MIN(fs)", frame)[:3] == [1.0, pytest.approx(nan, nan_ok=True), 2.0]
    assert [v is not None and math.isnan(v) for v in ours("LIST_MAX(fs)", frame)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert ours("LIST_SORT(fs)", frame)[4][0] == -1.0


def test_a_lists_sum_that_does_not_fit_is_an_error() -> None:
    frame = FRAME.with_columns(pl.Series("xs", [[2**62, 2**62]] * 5))
    with pytest.raises(OverflowInFold, match="64 bits"):
        ours("LIST_SUM(xs)", frame)
    assert ours("LIST_AVG(xs)", frame) == [2.0**62] * 5


REFUSED = [
    ("SUM(xs)", "types do not fit", "SUM"),
    ("MAX(xs[1:2])", "types do not fit", "MAX"),
    ("MAX(xs['a'])", "types do not fit", "xs"),
    ("MAX(spot.lon)", "no field in the struct", "spot"),
    ("MAX(spot['lab'])", "'lat'", "spot"),
    ("MAX(many.a)", "a", None),
    ("MAX(spot > spot)", "types do not fit", "spot"),
    ("MAX([])", "no type", None),
    ("MAX([[1], [2]][1][1])", "types do not fit", None),
    ("MAX([i, s][1])", "types do not fit", None),
    ("MAX(LIST_CONTAINS(xs, 1.5))", "types do not fit", "LIST_CONTAINS"),
    ("MAX(STRUCT_PACK(a := 1, a := 2).a)", "different names", None),
    ("MAX(NOW() - ts)", "no now", None),
    ("MAX(ts - CURRENT_TIMESTAMP)", "no now", None),
    ("MAX(CURRENT_DATE)", "no now", None),
    ("MAX(AGE(ts))", "AGE", "AGE"),
    ("MAX(RANDOM())", "Chance", None),
    ("MAX(REGEXP_MATCHES(s, '('))", "regular expression", "REGEXP"),
    ("MAX(REGEXP_MATCHES(s, w))", "constant text", "REGEXP"),
    ("MAX(REGEXP_EXTRACT(s, '(a)', 2))", "regular expression", "REGEXP"),
    ("MAX(LPAD(s, 3, 'ab'))", "one character", "LPAD"),
    ("MAX(TRIM(s, 'x'))", "spaces only", None),
    ("MAX(TRUNC(f, 2))", "one number", None),
    ("MAX(DATE_DIFF('decade', back, ts))", "unit of time", None),
    ("MAX(DATE_DIFF('week', back, ts))", "weeks", "DATE_DIFF"),
    ("MAX(DATE_PART('decade', ts))", "no such part", None),
    ("MAX(EPOCH_MS(i))", "seconds since", None),
    ("MAX(REPLACE(s, w, 'x'))", "constant text", "REPLACE"),
]


@pytest.mark.parametrize(("sql", "says", "at"), REFUSED)
def test_refusals_say_what_and_where(sql: str, says: str, at: str | None) -> None:
    with pytest.raises(DefinitionError) as caught:
        compiled(f"{sql} AS x")
    assert re.search(says, str(caught.value))
    assert caught.value.remedy
    text = caught.value.text or ""
    if at is not None:
        assert text[(caught.value.column or 0) - 1 :].startswith(at)


TOKENS = """
    xs fs words spot many s i ts [ ] [ ] : - 1 2 'a' . lat Place city { } , ( ) + = AND IN
    LEN LIST_SORT LIST_SUM LIST_CONTAINS ARRAY_TO_STRING STRING_SPLIT STRUCT_PACK := REPLACE
    REGEXP_EXTRACT '(' LPAD POSITION DATE_DIFF DATE_PART TO_TIMESTAMP NOW CURRENT_DATE LOG TRUNC PI
    CLIP BIN ONE_HOT HASH_BUCKET MIN_MAX_SCALE Z_SCORE QUANTILE_BIN EMBED 'hashing' COUNT LAST NULL
"""


@settings(max_examples=400)
@given(st.lists(st.sampled_from(TOKENS.split()), max_size=14).map(" ".join))
def test_no_expression_crashes_the_compiler(text: str) -> None:
    with contextlib.suppress(FeatureStoreError):
        plan = compiled(f"{text} AS x")
        assert Plan.from_dict(plan.to_dict()) == plan


def test_a_list_is_no_key() -> None:
    with pytest.raises(DefinitionError, match="key"):
        compile_sql(
            "SELECT xs, COUNT(*) AS n FROM events GROUP BY xs", name="x",
            find_source=lambda _: SOURCE,
        )  # fmt: skip


def test_structs_and_lists_made_in_a_sub_query_are_seen_through() -> None:
    rows = "(SELECT user, {'at': spot.lat, 'xs': xs} AS p, ts FROM events) AS q"
    inlined = compile_sql(
        f"SELECT user, SUM(p.at + q.p.xs[1]) AS x FROM {rows} GROUP BY user", name="x",
        find_source=lambda _: SOURCE,
    )  # fmt: skip
    direct = compiled("SUM({'at': spot.lat, 'xs': xs}.at + {'at': spot.lat, 'xs': xs}.xs[1]) AS x")
    assert inlined.fingerprint == direct.fingerprint


def test_plans_with_lists_and_structs_survive_json() -> None:
    plan = compiled("MAX(spot.lat) AS a, LAST_N(words[1], 3)[1:2] AS b, MAX(many[1].a) AS c")
    assert Plan.from_dict(plan.to_dict()) == plan
    assert [o.type.value for o in plan.outputs] == ["DOUBLE", "VARCHAR[]", "BIGINT"]


def test_errors_show_places_in_lists_as_they_were_written() -> None:
    with pytest.raises(DefinitionError, match=re.escape("xs[1]")):
        compiled("SUM(xs[1] || 'x') AS x")
