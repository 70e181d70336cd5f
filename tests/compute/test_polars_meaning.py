"""What a Polars feature means here is what it means in Polars, but for the rules that are ours."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold
from fs_notebook.compute.rows import compile_expr
from fs_notebook.language.polars_expr import PolarsTranslator
from fs_notebook.language.polars_functions import HANDLERS
from fs_notebook.language.polars_plan import compile_polars, read_polars
from fs_notebook.language.polars_text import render
from fs_notebook.language.polars_tree import tree_of
from fs_notebook.types import TIME
from tests.language.polars_pairs import AGGREGATES, ALONE, CONDITIONS, RELATION, ROWS, SOURCE

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = {name: kind.polars for name, kind in SOURCE.columns}

# Polars refuses these on our columns, or on a text that does not parse; here they have a value.
OURS_ALONE = (
    "pl.col('t') >= pl.datetime(2024, 1, 1, time_zone=\"UTC\")", "pl.col('s').cast(pl.Int64)",
    "pl.col('s').cast(pl.Float64)", "to_datetime", "to_date",
)  # fmt: skip
# NaN is passed over, or refused, in Polars; here it is greater than every other number, or null.
NUMBERS_ONLY = ("pl.max_horizontal", "cast(pl.Int64)")
# Division by zero, logarithms and roots of what has none: null here, infinity or NaN there.
NO_VALUE = ("/", "%", ".log", ".sqrt", "pl.corr")


def nullable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


whole = st.integers(-9, 9)
floats = st.one_of(
    st.sampled_from([0.0, 0.5, 1.5, 2.5, -0.5, -2.5, float("nan"), float("inf"), -float("inf")]),
    st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 3)),
)
times = st.integers(-(10**6), 10**8).map(lambda s: BEGIN + timedelta(seconds=s))
texts = st.sampled_from(["news", "sport", "  a b ", "", "News a.b", "1", "2.5", "ünü"])


@st.composite
def rows(draw: st.DrawFn, size_max: int = 8) -> pl.DataFrame:
    row = st.fixed_dictionaries({
        "user": st.sampled_from(["u", "v"]), "i": nullable(whole), "j": nullable(whole),
        "f": nullable(floats), "g": nullable(floats), "s": nullable(texts),
        "w": nullable(texts), "b": nullable(st.booleans()), "c": nullable(st.booleans()),
        "d": nullable(times.map(datetime.date)), "u": nullable(times), "t": times,
    })  # fmt: skip
    return pl.DataFrame(draw(st.lists(row, min_size=1, max_size=size_max)), schema=SCHEMA)


def alike(ours: Any, theirs: Any, text: str) -> bool:
    if ours is None and isinstance(theirs, float) and any(n in text for n in NO_VALUE):
        return not math.isfinite(theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(
            alike(a, b, text) for a, b in zip(ours, theirs, strict=True)
        )
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        both_nan = math.isnan(ours) and math.isnan(theirs)
        return both_nan or math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
    return bool(ours == theirs)


ROW_EXPRESSIONS = [
    e for e in (*(e for _, e in ROWS), *(e for _, e in CONDITIONS), *ALONE)
    if not any(o in render(tree_of(e)) for o in OURS_ALONE)
]  # fmt: skip


def compared(expressions: list[pl.Expr], frame: pl.DataFrame) -> None:
    translate = PolarsTranslator(HANDLERS, RELATION.columns, SOURCE.name)
    ours = frame.select(
        compile_expr(translate(tree_of(e))).alias(str(n)) for n, e in enumerate(expressions)
    )
    theirs = frame.select(e.alias(str(n)) for n, e in enumerate(expressions))
    for n, expr in enumerate(expressions):
        text = render(tree_of(expr))
        pairs = zip(ours[str(n)].to_list(), theirs[str(n)].to_list(), strict=True)
        for index, (mine, other) in enumerate(pairs):
            assert alike(mine, other, text), (text, frame.row(index, named=True), mine, other)


@settings(max_examples=60, deadline=None)
@given(frame=rows())
def test_row_functions(frame: pl.DataFrame) -> None:
    numbers = [e for e in ROW_EXPRESSIONS if any(n in render(tree_of(e)) for n in NUMBERS_ONLY)]
    others = [e for e in ROW_EXPRESSIONS if not any(e is n for n in numbers)]
    assert len(numbers) > 2
    compared(others, frame)
    finite = pl.when(pl.col("f", "g").is_finite()).then(pl.col("f", "g"))
    compared(numbers, frame.with_columns(finite))


LEFT_OUT = ("filter(pl.col('b')).filter(", ".sum().is_null()")
"""Polars has no rows left for a second filter; the empty sum is null here and 0 there."""
AGGREGATE_EXPRESSIONS = [
    e for _, e in AGGREGATES if not any(o in render(tree_of(e)) for o in LEFT_OUT)
]
NULLS_COUNT_THERE = ("first", "last", "head", "tail", "unique", "max_by", "min_by", "arg_m")
"""What takes nulls for values in Polars: it is given none here."""


WITHOUT_SPREAD = ("skew", "kurtosis", "corr")


def folded(expressions: list[pl.Expr], frame: pl.DataFrame) -> dict[str, Any]:
    named = {f"x{n}": e for n, e in enumerate(expressions)}
    fold = Fold(compile_polars(read_polars(named), name="x", relation=RELATION, entity=["user"]))
    state = fold.add(fold.empty, frame.with_columns(pl.col("t").alias(TIME))).state
    return fold.values(state, now_us=None).row(0, named=True)


@settings(max_examples=60, deadline=None)
@given(frame=rows(size_max=20))
def test_aggregates(frame: pl.DataFrame) -> None:
    # Neither NaN nor infinity: of these the rules are ours, and other tests have them.
    finite = pl.when(pl.col("f", "g").is_finite()).then(pl.col("f", "g"))
    frame = frame.with_columns(finite, pl.lit("u").alias("user")).sort("t", maintain_order=True)
    strict, plain = [], []
    for expr in AGGREGATE_EXPRESSIONS:
        text = render(tree_of(expr))
        bare = "ignore_nulls" not in text and any(n in text for n in NULLS_COUNT_THERE)
        (strict if bare or ".mode()" in text else plain).append(expr)
    for expressions, rows_ in ((plain, frame), (strict, frame.drop_nulls())):
        if rows_.is_empty():
            continue
        ours = folded(expressions, rows_)
        named = [e.alias(f"x{n}") for n, e in enumerate(expressions)]
        theirs = rows_.group_by("user").agg(named).row(0, named=True)
        for n, expr in enumerate(expressions):
            text, mine, other = render(tree_of(expr)), ours[f"x{n}"], theirs[f"x{n}"]
            if mine is None and other in (0, False, True, [], None):
                # The empty sum, any and all are null here, and the list of no value.
                continue
            if mine is None and any(s in text for s in WITHOUT_SPREAD):
                # Values without a spread have no shape here; there it is NaN.
                assert math.isnan(other), (text, rows_, other)
                continue
            if ".mode()" in text:
                # Of several modes Polars gives any.
                other = rows_[text.split("'")[1]].mode().min()
            assert alike(mine, other, text), (text, rows_, mine, other)


def test_times_without_a_zone_are_utc() -> None:
    naive = pl.col("t") >= datetime(2024, 1, 1)  # noqa: DTZ001
    aware = pl.col("t") >= datetime(2024, 1, 1, tzinfo=UTC)
    translate = PolarsTranslator(HANDLERS, RELATION.columns, SOURCE.name)
    assert translate(tree_of(naive)) == translate(tree_of(aware))


def test_texts_that_do_not_parse_are_null() -> None:
    frame = pl.DataFrame({"s": ["1", "2.5", "x", None]})
    translate = PolarsTranslator(HANDLERS, RELATION.columns, SOURCE.name)
    strict, loose = (pl.col("s").cast(pl.Int64, strict=s) for s in (True, False))
    ours = [frame.select(compile_expr(translate(tree_of(e)))).to_series() for e in (strict, loose)]
    assert [s.to_list() for s in ours] == [frame.select(loose).to_series().to_list()] * 2


def test_the_rules_that_are_ours() -> None:
    """Empty sums, NaN beside numbers, nulls among distinct values."""
    frame = pl.DataFrame(
        {"user": ["u"] * 3, "i": [None] * 3, "f": [float("nan"), 1.0, None], "t": [BEGIN] * 3},
        schema={n: k for n, k in SCHEMA.items() if n in ("user", "i", "f", "t")},
    )
    i, f = pl.col("i"), pl.col("f")
    ours = folded([i.sum(), f.max(), i.n_unique(), (i > 0).any(), i.filter(i > 0).len()], frame)
    values = [ours[f"x{n}"] for n in range(5)]
    without = [f.drop_nans().len(), f.drop_nans().sum(), f.drop_nans().count()]
    apart = folded(without, frame)
    assert [apart[f"x{n}"] for n in range(3)] == [2, 1.0, 1]
    assert values[0] is None
    assert math.isnan(values[1])
    assert values[2:] == [0, None, 0]
