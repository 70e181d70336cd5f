"""SQL to plans: what is understood, what it means, what is refused and how."""

from __future__ import annotations

import contextlib
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.rows import _BUILDERS, compile_expr
from fs_notebook.errors import DefinitionError, FeatureStoreError, unknown_name
from fs_notebook.language.functions import FUNCTIONS
from fs_notebook.language.plan import Plan, Window
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.types import Type

SOURCE = SourceColumns(
    "read_events",
    (
        ("user", Type.VARCHAR),
        ("readtime", Type.BIGINT),
        ("score", Type.DOUBLE),
        ("genre", Type.VARCHAR),
        ("ok", Type.BOOLEAN),
        ("ts", Type.TIMESTAMP),
    ),
    "ts",
)


def find(name: str) -> SourceColumns:
    if name != SOURCE.name:
        raise unknown_name("stream", name, [SOURCE.name])
    return SOURCE


def compiled(sql: str, **options: object) -> Plan:
    return compile_sql(sql, name="reading_time", find_source=find, **options)  # type: ignore[arg-type]


LITERAL = "SELECT user, SUM(readtime) FROM read_events GROUP BY user;"


def test_the_sentence_of_the_mission() -> None:
    plan = compiled(LITERAL)
    assert plan.entity == ("user",)
    assert [(o.name, o.type) for o in plan.outputs] == [("reading_time", Type.BIGINT)]
    assert [(a.function, str(a.window)) for a in plan.aggregations] == [("sum", "lifetime")]
    assert plan.columns == ("readtime", "user")


@pytest.mark.parametrize(
    "same",
    [
        "select user, sum(readtime) from read_events group by user",
        "-- comment\nSELECT\tuser ,\n SUM( readtime ) /* x */ FROM read_events GROUP BY 1",
        "SELECT user, SUM(readtime) AS reading_time FROM read_events GROUP BY user",
        "SELECT user, SUM(READTIME) reading_time FROM read_events GROUP BY ALL",
        "SELECT user, SUM(readtime) OVER (PARTITION BY user) AS reading_time FROM read_events",
        "SELECT user, SUM((readtime)) OVER w reading_time FROM read_events "  # noqa: ISC004
        "WINDOW w AS (PARTITION BY user ORDER BY ts)",
    ],
)
def test_ways_of_writing_make_no_new_version(same: str) -> None:
    assert compiled(same).fingerprint == compiled(LITERAL).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        "SELECT user, SUM(readtime + 0) FROM read_events GROUP BY user",
        "SELECT user, SUM(readtime) FROM read_events WHERE ok GROUP BY user",
        "SELECT user, AVG(readtime) FROM read_events GROUP BY user",
        "SELECT user, SUM(readtime) AS other FROM read_events GROUP BY user",
        "SELECT genre, SUM(readtime) FROM read_events GROUP BY genre",
        "SELECT user, SUM(score) FROM read_events GROUP BY user",
        "SELECT user, SUM(readtime) FILTER (WHERE ok) FROM read_events GROUP BY user",
    ],
)
def test_a_change_of_meaning_makes_one(other: str) -> None:
    assert compiled(other).fingerprint != compiled(LITERAL).fingerprint


def test_windows_by_the_standards_words() -> None:
    frame = "RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW"
    over = f"PARTITION BY user ORDER BY ts {frame}"
    plain = compiled(f"SELECT user, AVG(score) OVER ({over}) AS x FROM read_events")
    named = compiled(f"SELECT user, AVG(score) OVER w AS x FROM read_events WINDOW w AS ({over})")
    option = compiled("SELECT user, AVG(score) AS x FROM read_events GROUP BY user",
                      window_us=7 * 86_400_000_000)  # fmt: skip
    assert plain == named == option
    assert plain.windows == (Window(7 * 86_400_000_000),)
    right = compiled(f"SELECT user, AVG(score) OVER ({over}) AS x FROM read_events",
                     closed="right")  # fmt: skip
    assert right.fingerprint != plain.fingerprint


def test_plan_survives_json() -> None:
    plan = compiled(
        "SELECT LOWER(user) AS who, COALESCE(SUM(score) / COUNT(*), 0.1) AS r, MAX(ts) AS last "
        "FROM read_events WHERE genre IN ('a', 'b') OR ts >= '2024-01-01' GROUP BY 1"
    )
    again = Plan.from_dict(plan.to_dict())
    assert again == plan
    assert again.fingerprint == plan.fingerprint


def test_every_name_has_its_meaning() -> None:
    assert set(FUNCTIONS) == set(_BUILDERS)


# Each refusal: the SQL, a part of the message, and the text that the caret points at.
DAY_BEFORE = "RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW"
REFUSED = [
    ("SUM(raedtime)", "readtime", "raedtime"),
    ("readtime", "No aggregate", None),
    ("ok, SUM(readtime)", "neither a key", "ok"),
    ("SUM(readtime", "not SQL", None),
    ("SUM(genre)", "types do not fit", "SUM"),
    ("SUM(genre || 1)", "types do not fit", "genre"),
    ("SUM(fluor(score))", "FLOOR", None),
    ("STRING_AGG(genre, ',')", "aggregate", None),
    ("COUNT(DISTINCT genre, ok)", "aggregate", "COUNT"),
    ("QUANTILE_CONT(score, 1.5)", "constant q", "QUANTILE_CONT"),
    ("QUANTILE_CONT(score, score)", "constant q", "QUANTILE_CONT"),
    ("LAST_N(score)", "constant n", "LAST_N"),
    ("SUM(score) AS x, COUNT(*) AS x", "Two features", None),
    ("SUM(SUM(score))", "cannot stand here", "SUM(score))"),
    ("SUM(score) * readtime", "outside of it", "readtime"),
    ("MAX(DATE_TRUNC('decade', ts))", "no such unit", None),
    ("SUM(ROUND(score, readtime))", "digits", None),
    ("SUM(ROUND(score, -2))", "digits", None),
    ("COUNT(CASE WHEN genre LIKE user THEN 1 END)", "pattern", None),
    ("SUM(score) / 'x'", "types do not fit", None),
    ("SUM(CAST(score AS BLOB))", "no such type", None),
    ("SUM(score) OVER (PARTITION BY user)", "do not mix", "SUM"),
]
REFUSED = [(f"SELECT user, {c} FROM read_events GROUP BY user", *rest) for c, *rest in REFUSED]
WINDOWS = [
    ("ORDER BY ts ROWS 3 PRECEDING", "counts rows", "SUM"),
    (f"ORDER BY score {DAY_BEFORE}", "event time", "SUM"),
    (f"ORDER BY ts DESC {DAY_BEFORE}", "event time", "SUM"),
    (f"ORDER BY ts {DAY_BEFORE}".replace("1 DAY", "1 MONTH"), "no fixed length", None),
    ("ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL 1 DAY FOLLOWING", "the future", "SUM"),
    (f"ORDER BY ts {DAY_BEFORE}".replace("1 DAY", "0 DAY"), "above zero", "SUM"),
]
REFUSED += [
    (f"SELECT user, SUM(score) OVER (PARTITION BY user {w}) AS x FROM read_events", *rest)
    for w, *rest in WINDOWS
]
REFUSED += [
    ("SELECT SUM(readtime) FROM read_events", "No key", "SUM"),
    ("SELECT user, SUM(score) FROM read_events WHERE score GROUP BY user", "true or", "score"),
    (
        "SELECT user, SUM(score) FROM read_events WHERE SUM(score) > 1 GROUP BY user",
        "cannot",
        "SUM(score) >",
    ),
    ("SELECT user, SUM(score) FROM read_events GROUP BY user HAVING 1 > 0", "HAVING", None),
    ("SELECT user, SUM(score) FROM read_events GROUP BY user LIMIT 3", "LIMIT", None),
    (
        "SELECT user, SUM(score) FROM read_events FULL JOIN b USING (user) GROUP BY user",
        "join",
        None,
    ),
    ("SELECT * FROM read_events GROUP BY user", "names no feature", None),
    ("SELECT 1; SELECT 2", "one SELECT", None),
    ("DROP TABLE read_events", "SELECT over one stream", None),
    ("", "no SQL", None),
]


@pytest.mark.parametrize(("sql", "says", "at"), REFUSED)
def test_refusals_say_what_and_where_and_what_instead(sql: str, says: str, at: str | None) -> None:
    with pytest.raises(DefinitionError, match=re.escape(says)) as caught:
        compiled(sql)
    assert caught.value.remedy
    if at is not None:
        assert (caught.value.line, caught.value.text) == (1, sql)
        assert sql[(caught.value.column or 0) - 1 :].startswith(at)


ROW = {
    "user": "Ann", "readtime": 7, "score": -2.5, "genre": "news", "ok": True,
    "ts": "2024-03-05T13:14:15.123456",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("readtime / 2", 3.5),
        ("readtime // 2", 3),
        ("-readtime // 2", -3),
        ("-readtime % 4", -3),
        ("readtime / 0", None),
        ("readtime % 0", None),
        ("readtime * 2 - 1", 13),
        ("ABS(score) + readtime", 9.5),
        ("ROUND(score)", -3.0),
        ("CAST(score AS BIGINT)", -3),
        ("CAST('x' AS BIGINT)", None),
        ("CASE WHEN readtime > 5 THEN 'long' ELSE 'short' END", "long"),
        ("CASE genre WHEN 'news' THEN 1 WHEN 'sport' THEN 2 END", 1),
        ("NULLIF(readtime, 7)", None),
        ("COALESCE(NULLIF(readtime, 7), 9)", 9),
        ("readtime BETWEEN 7 AND 8", True),
        ("genre IN ('sport', 'news')", True),
        ("genre NOT IN ('sport')", True),
        ("genre LIKE 'n_w%'", True),
        ("genre LIKE 'n.w%'", False),
        ("UPPER(genre) || '!'", "NEWS!"),
        ("SUBSTRING(genre, 2, 2)", "ew"),
        ("SUBSTRING(genre, 0, 2)", "n"),
        ("LENGTH(TRIM('  ü '))", 1),
        ("EXTRACT(hour FROM ts)", 13),
        ("EXTRACT(dow FROM ts)", 2),
        ("HOUR(ts) * 60 + MINUTE(ts)", 794),
        ("EPOCH(ts - DATE_TRUNC('day', ts))", 47655.123456),
        ("ts > '2024-03-05'", True),
        ("ts + INTERVAL '1' DAY > TIMESTAMP '2024-03-06 13:14:15'", True),
        ("LN(0)", None),
        ("SQRT(-1)", None),
        ("GREATEST(readtime, 7.5)", 7.5),
        ("GREATEST(1.0, CAST('nan' AS DOUBLE)) > 1e300", True),
        ("ok IS NOT TRUE", False),
        ("score IS NULL OR NOT ok", False),
        ("starts_with(user, 'An') AND contains(user, 'nn')", True),
    ],
)
def test_row_expressions_mean_what_sql_means(sql: str, value: object) -> None:
    plan = compiled(f"SELECT user, MAX({sql}) AS x FROM read_events GROUP BY user")
    (arg,) = plan.aggregations[0].args
    time = pl.col("ts").str.to_datetime(time_unit="us", time_zone="UTC")
    got = pl.DataFrame([ROW]).with_columns(time).select(compile_expr(arg)).item()
    assert got == value
    assert type(got) is type(value)


TOKENS = """
    SELECT FROM WHERE GROUP BY OVER ( ) , ; * user readtime score ts read_events SUM COUNT AVG
    PARTITION ORDER RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW CASE WHEN THEN END
    1 2.5 'x' " ' -- /* NULL IS NOT + - / % || AS x WINDOW w FILTER DISTINCT CAST DOUBLE ::
    LAST_N( QUANTILE_CONT( TOP_K( MODE( WITHIN ENTROPY( DECAYED_SUM( ARG_MAX( STDDEV( MEDIAN(
    TUMBLE( HOP( SESSION( RATE( SESSION_LENGTH( HISTOGRAM_BINS( COUNT_IF( ARRAY_AGG( MINUTE -1
"""
WORDS = st.sampled_from(TOKENS.split())


@settings(max_examples=300)
@given(st.one_of(st.lists(WORDS, max_size=25).map(" ".join), st.text(max_size=60)))
def test_no_text_crashes_the_compiler(text: str) -> None:
    with contextlib.suppress(FeatureStoreError):
        compiled(text)


def test_deep_nesting_is_refused_not_crashed() -> None:
    deep = "(" * 5000 + "readtime" + ")" * 5000
    with pytest.raises(DefinitionError, match=r"nested too deeply|not SQL"):
        compiled(f"SELECT user, SUM({deep}) AS x FROM read_events GROUP BY user")


def test_group_windows_by_the_names_of_streaming_sql() -> None:
    def window(call: str, **options: object) -> Window:
        plan = compiled(
            f"SELECT user, SUM(score) AS x FROM read_events GROUP BY user, {call}", **options
        )
        assert plan.entity == ("user",)
        return plan.aggregations[0].window

    hour, minute = 3_600_000_000, 60_000_000
    assert window("TUMBLE(ts, INTERVAL '1' HOUR)") == Window(hour, slide_us=hour)
    assert window("hop(ts, INTERVAL '15' MINUTE, INTERVAL '1' HOUR)") == Window(
        hour, slide_us=15 * minute
    )
    assert window("SESSION(ts, INTERVAL '30' MINUTE)") == Window(gap_us=30 * minute)
    assert str(window("TUMBLE(ts, INTERVAL 1 DAY)")) == "tumbling 1d"
    assert str(window("SESSION(ts, INTERVAL 5 MINUTE)")) == "session 5m"
    hop = window("HOP(ts, INTERVAL 1 MINUTE, INTERVAL 90 SECOND)")
    assert str(hop) == "hopping 90s every 1m"
    for call, says in [
        ("TUMBLE(score, INTERVAL '1' HOUR)", "event time"),
        ("TUMBLE(ts)", "another way"),
        ("HOP(ts, INTERVAL '1' HOUR)", "another way"),
        ("TUMBLE(ts, INTERVAL '0' HOUR)", "above zero"),
        ("TUMBLE(ts, INTERVAL 1 HOUR), SESSION(ts, INTERVAL 1 HOUR)", "one window"),
    ]:
        with pytest.raises(DefinitionError, match=says):
            window(call)
    with pytest.raises(DefinitionError, match="given twice"):
        window("TUMBLE(ts, INTERVAL '1' HOUR)", window_us=hour)


def test_a_resolution_is_part_of_the_meaning_where_there_is_a_window() -> None:
    text = "SELECT user, SUM(score) AS x FROM read_events GROUP BY user"
    plain, floored = (
        compiled(text, window_us=86_400_000_000, resolution_us=r) for r in (None, 3_600_000_000)
    )
    assert plain.fingerprint != floored.fingerprint
    assert str(floored.aggregations[0].window) == "1d by 1h"
    assert compiled(text).fingerprint == compiled(text, resolution_us=5).fingerprint


@pytest.mark.parametrize(
    ("written", "same_as"),
    [
        ("MEDIAN(score)", "QUANTILE_CONT(score, 0.5)"),
        ("PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY score)", "QUANTILE_CONT(score, 0.5)"),
        ("QUANTILE(score, 0.5)", "QUANTILE_CONT(score, 0.5)"),
        ("MODE() WITHIN GROUP (ORDER BY genre)", "MODE(genre)"),
        ("STDDEV(score)", "STDDEV_SAMP(score)"),
        ("VARIANCE(score)", "VAR_SAMP(score)"),
        ("MEAN(score)", "AVG(score)"),
        ("COUNT_IF(ok)", "COUNT(*) FILTER (WHERE ok)"),
        ("COUNT(*) FILTER (WHERE readtime > 3 AND ok)", "COUNT_IF(ok) FILTER (WHERE readtime > 3)"),
        ("LAST(genre, 3)", "LAST_N(genre, 3)"),
        ("MAX_BY(genre, score)", "ARG_MAX(genre, score)"),
        ("ARRAY_AGG(genre)", "COLLECT_LIST(genre, 1000)"),
        ("ARRAY_AGG(DISTINCT genre)", "COLLECT_SET(genre, 1000)"),
        ("MIN(DISTINCT genre)", "MIN(genre)"),
        ("ANY_VALUE(genre)", "FIRST(genre)"),
        ("BOOL_OR(ok)", "LOGICAL_OR(ok)"),
        ("EVERY(ok)", "BOOL_AND(ok)"),
        ("DECAYED_SUM(score, INTERVAL '7' DAY)", "DECAYED_SUM(score, INTERVAL '168' HOUR)"),
    ],
)  # fmt: skip
def test_an_aggregate_has_many_names_and_one_meaning(written: str, same_as: str) -> None:
    plans = [
        compiled(f"SELECT user, {x} AS x FROM read_events GROUP BY user")
        for x in (written, same_as)
    ]
    assert plans[0].aggregations == plans[1].aggregations
    assert plans[0].fingerprint == plans[1].fingerprint
