"""Polars to plans: the same plan as its SQL twin, the same again from what is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.language.plan import Plan, Window
from fs_notebook.language.polars_aggregates import _CALLS as AGGREGATE_CALLS
from fs_notebook.language.polars_aggregates import _PLAIN
from fs_notebook.language.polars_expr import _CALLS, AGGREGATE_KINDS
from fs_notebook.language.polars_frame import stream
from fs_notebook.language.polars_functions import HANDLERS
from fs_notebook.language.polars_plan import (
    PolarsDefinition,
    compile_polars,
    read_polars,
    sole_stream,
)
from fs_notebook.language.polars_text import FUNCTIONS, METHODS, SYMBOLS
from fs_notebook.language.polars_tree import Node, tree_of
from fs_notebook.language.relation import Resolver
from fs_notebook.language.sql import compile_sql
from tests.language.polars_pairs import ALONE, CONDITIONS, RELATION, SOURCE, WHOLE

HOUR_US = 3_600_000_000


def compiled(value: object, **options: Any) -> Plan:
    definition = value if isinstance(value, PolarsDefinition) else read_polars(value)
    options.setdefault("entity", ["user"] if not definition.keys else [])
    options.setdefault("relation", RELATION)
    return compile_polars(definition, name="x", **options)


def sql(columns: str, *, where: str = "", group: str = "user", **options: Any) -> Plan:
    text = f"SELECT {columns} FROM events {where} GROUP BY {group}"
    return compile_sql(text, name="x", find_source=lambda name: SOURCE, **options)


def ids(pair: object) -> str:
    return pair if isinstance(pair, str) else ""


@pytest.mark.parametrize(("text", "expr"), WHOLE, ids=ids)
def test_sql_and_polars_are_one_version(text: str, expr: pl.Expr) -> None:
    ours, theirs = compiled(expr), sql(text)
    assert ours.to_dict() == theirs.to_dict()
    assert ours.fingerprint == theirs.fingerprint


@pytest.mark.parametrize("window_us", [None, HOUR_US])
@pytest.mark.parametrize("closed", ["left", "right"])
def test_options_mean_the_same(window_us: int | None, closed: str) -> None:
    options = {"window_us": window_us, "closed": closed, "resolution_us": HOUR_US // 60}
    ours = compiled({"a": pl.col("i").sum(), "n": pl.len()}, **options)
    assert ours.fingerprint == sql("user, SUM(i) AS a, COUNT(*) AS n", **options).fingerprint


EXPRESSIONS = [expr for _, expr in WHOLE] + [e.max() for e in ALONE]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_what_is_stored_and_what_is_shown_have_the_same_plan(expr: pl.Expr) -> None:
    definition = read_polars(expr)
    plan = compiled(definition)
    stored = PolarsDefinition.from_json(json.loads(json.dumps(definition.to_json())))
    assert compiled(stored).fingerprint == plan.fingerprint
    shown = eval(str(definition), {"pl": pl, "datetime": datetime, "UTC": UTC, "Decimal": Decimal})
    assert compiled(shown).fingerprint == plan.fingerprint
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_every_method_of_the_language_is_in_the_table() -> None:
    seen = {node.kind for e in EXPRESSIONS for node in tree_of(e).walk()}
    seen |= {node.kind for e in (*WHOLE, *CONDITIONS) for node in tree_of(e[1]).walk()}
    seen |= {node.kind for node in tree_of(ROLLING).walk()}
    seen |= {node.kind for node in tree_of(pl.col("f").drop_nans().max()).walk()}
    known = {*HANDLERS, *_CALLS, *AGGREGATE_KINDS, *AGGREGATE_CALLS, *_PLAIN}
    assert known <= seen
    # What is shown has a name of its own, not one that is guessed.
    named = {*METHODS, *FUNCTIONS, *(f"binary.{s}" for s in SYMBOLS)}
    assert known - named <= {"column", "literal", "list", "ternary"}


ROLLING = pl.col("i").sum().rolling("t", period="7d")


def test_each_aggregate_may_have_its_own_window() -> None:
    other = (pl.col("i").sum() / pl.len()).rolling("t", period="90m", closed="left")
    ours = compiled({"week": ROLLING, "share": other, "all": pl.col("i").sum()})
    frame = "RANGE BETWEEN INTERVAL '{}' {} PRECEDING AND CURRENT ROW"
    over = f"OVER (PARTITION BY user ORDER BY t {frame})"
    hour = over.format(90, "MINUTE")
    text = (
        f"SELECT SUM(i) {over.format(7, 'DAY')} AS week, SUM(i) {hour} / COUNT(*) {hour} AS share, "
        f"SUM(i) OVER (PARTITION BY user) AS all FROM events"
    )
    assert ours == compile_sql(text.replace("AS all", 'AS "all"'), name="x",
                               find_source=lambda name: SOURCE)  # fmt: skip
    assert Window(7 * 24 * HOUR_US) in ours.windows


def test_a_stream_is_filtered_and_grouped() -> None:
    frame = stream("events").filter(pl.col("b"), pl.col("i") > 3).filter(pl.col("s") != "x")
    ours = compiled(
        frame.group_by("user", genre=pl.col("s").str.to_lowercase()).agg(
            pl.len().alias("n"), total=pl.col("i").sum()
        )
    )
    text = "user, LOWER(s) AS genre, COUNT(*) AS n, SUM(i) AS total"
    theirs = sql(text, where="WHERE b AND i > 3 AND s <> 'x'", group="user, LOWER(s)")
    assert ours == theirs
    shown = str(read_polars(frame.group_by("user").agg(n=pl.len())))
    assert shown == (
        "fs.stream('events').filter(pl.col('b')).filter(pl.col('i') > 3)"
        ".filter(pl.col('s') != 'x').group_by(pl.col('user')).agg(pl.len().alias('n'))"
    )


def test_a_view_is_read_like_a_stream() -> None:
    view = "SELECT user, i * 2 AS twice, t AS at FROM events WHERE b"
    resolver = Resolver(lambda name: SOURCE, {"doubled": view}.get)
    twice = pl.col("twice").filter(pl.col("twice") > 3).sum()
    ours = compiled(
        {"x": twice, "day": pl.len().rolling("at", period="1d")},
        relation=resolver.named("doubled"),
    )
    over = "OVER (PARTITION BY user ORDER BY at RANGE INTERVAL '1' DAY PRECEDING)"
    text = (
        f"SELECT SUM(twice) FILTER (WHERE twice > 3) OVER (PARTITION BY user) AS x, "
        f"COUNT(*) {over} AS day FROM doubled"
    )
    assert ours == compile_sql(
        text, name="x", find_source=lambda name: SOURCE, find_view={"doubled": view}.get
    )
    with pytest.raises(DefinitionError, match="no column"):
        compiled(pl.col("i").sum(), relation=resolver.named("doubled"))


def test_names() -> None:
    named = compiled([pl.col("i").sum(), pl.len().alias("n"), pl.col("i").filter("b").max()])
    assert named.features == ("sum_i", "n", "max_i")
    assert (
        named.fingerprint == sql("user, SUM(i), COUNT(*) AS n, MAX(i) FILTER (WHERE b)").fingerprint
    )
    assert compiled({"a": pl.col("i").sum().alias("b")}).features == ("a",)
    assert compiled(pl.col("i").sum().alias("a") / pl.len()).features == ("a",)
    chosen = pl.when(pl.len().alias("n") > 3).then(pl.col("i").sum().alias("a"))
    assert compiled(chosen).features == ("a",)
    assert compiled([pl.len(), pl.col("i").len().alias("m")]).features == ("count", "m")
    assert compiled(pl.len(), entity=["who=user", "i"]).entity == ("who", "i")


def test_unnamed_options_are_kept_apart() -> None:
    one = compiled([pl.col("i").sum(), pl.col("i").sum().alias("again")])
    assert len(one.aggregations) == 1


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({"a": ["i"]}, "a"),
        ({"a": ["i"], "b": ["i"]}, None),
        ({"a": ["s"], "b": ["i"]}, None),
        ({}, None),
    ],
)
def test_the_stream_is_told_or_asked_for(known: Mapping[str, list[str]], found: str | None) -> None:
    definition = read_polars(pl.col("i").sum())
    if found is not None:
        assert sole_stream(definition, known) == found
        return
    with pytest.raises(UsageError, match="which stream") as caught:
        sole_stream(definition, known)
    fits = [n for n, columns in known.items() if "i" in columns] or ["read_events"]
    assert caught.value.remedy == "--stream " + " or --stream ".join(fits)


def test_how_polars_serialises() -> None:
    """Fails where a release of Polars writes its trees otherwise: then see `polars_tree`."""
    expr = pl.col("x").filter(pl.col("g") == "news").sum().fill_null(0).alias("total")
    assert json.loads(expr.meta.serialize(format="json")) == {
        "Alias": [
            {"Function": {
                "input": [
                    {"Agg": {"Sum": {"Filter": {
                        "input": {"Column": "x"},
                        "by": {"BinaryExpr": {
                            "left": {"Column": "g"}, "op": "Eq",
                            "right": {"Literal": {"Scalar": {"String": "news"}}}}},
                    }}}},
                    {"Literal": {"Dyn": {"Int": 0}}},
                ],
                "function": "FillNull",
            }},
            "total",
        ]
    }  # fmt: skip
    assert tree_of(pl.col("x").is_in([2, None]).any()).to_json() == [
        "fn.Boolean.Any",
        [["fn.Boolean.IsIn", [
            ["column", [], "x"],
            ["list", [["literal", [], [2, "BIGINT"]], ["literal", [], [None, "BIGINT"]]], None],
        ], {"nulls_equal": False}]],
        {"ignore_nulls": True},
    ]  # fmt: skip
    assert tree_of(pl.len()) == Node("len")
