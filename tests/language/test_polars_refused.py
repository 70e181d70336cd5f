"""What Polars can say and a fold cannot: refused with the method, the place, and what to write."""

from __future__ import annotations

import contextlib
import json
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold
from fs_notebook.errors import DefinitionError, FeatureStoreError
from fs_notebook.language.plan import Plan
from fs_notebook.language.polars_frame import stream
from fs_notebook.language.polars_plan import compile_polars, read_polars
from fs_notebook.language.polars_tree import DEPTH_MAX, OPTIONS_MAX, tree_of
from fs_notebook.types import TIME
from tests.language.polars_pairs import RELATION, SOURCE, WHOLE, b, d, f, g, i, j, s, t, u


def compiled(value: object, text: str = "", **options: Any) -> Plan:
    options.setdefault("entity", ["user"])
    return compile_polars(read_polars(value), name="x", relation=RELATION, text=text, **options)


nested = i
for _ in range(DEPTH_MAX + 1):
    nested = nested + 1
doubled = i
for _ in range(20):
    doubled = (doubled + 1) // 7
long_sum = i
for _ in range(5_000):
    long_sum = long_sum + 1

# Each refusal: the expression, a part of the message, and a part of the remedy.
REFUSED: list[tuple[Any, str, str]] = [
    (pl.col("usr").sum(), "no column in 'events' named 'usr'", "did you mean 'user'"),
    (pl.col("nonsense").sum(), "no column", ""),
    (i.map_elements(repr, return_dtype=pl.String).max(), "Python function", "when"),
    (i.map_batches(lambda v: v).sum(), "Python function", "when"),
    (pl.struct("i", "j").map_batches(lambda v: v).sum(), "Python function", "when"),
    (pl.fold(pl.lit(0), lambda a, x: a + x, [i, j]).sum(), "fold_horizontal", ""),
    (i.rolling_map(lambda v: v.sum(), 3).sum(), "", ""),
    (i.cum_sum().sum(), "cum_sum", "running total"),
    (i.cumulative_eval(pl.element().sum()).sum(), "", ""),
    (i.shift(1).sum(), "shift", "neighbours"),
    (i.sum().over("user"), "over", "--entity"),
    (f.sin().sum(), "sin", "sign"),
    (f.cbrt().sum(), "cbrt", "1 / 3"),
    (s.str.replace("a", "b").max(), "str.replace", ""),
    (s.str.to_titlecase().max(), "str.to_titlecase", ""),
    (s.str.contains("a.*b").any(), "regular expression", "literal=True"),
    (s.str.contains(s).any(), "regular expression", "literal=True"),
    (s.str.ends_with("50%").any(), "without %", ""),
    (s.str.strip_chars().max(), "Only blanks", '" "'),
    (s.str.slice(-3).max(), "from 0 on", "str.slice(0, 3)"),
    (s.str.slice(i).max(), "from 0 on", "str.slice(0, 3)"),
    (s.str.to_datetime("%Y").max(), "ISO 8601", "without a format"),
    (s.str.len_bytes().max(), "len_bytes", "len_chars"),
    (t.dt.second().max(), "dt.second", "did you mean"),
    (t.dt.truncate("15m").max(), "one whole unit", "1h"),
    (t.dt.convert_time_zone("Europe/Berlin").max(), "UTC", "UTC"),
    (pl.datetime(i, 1, 1).max(), "constants", "2024"),
    (t.dt.timestamp().max(), "dt.timestamp", "total_seconds"),
    (i.dt.total_seconds().max(), "no length of time", "end"),
    (i.cast(pl.Int32).sum(), "no such cast", "pl.Int64"),
    (i.cast(pl.Int64, wrap_numerical=True).sum() + f.cast(pl.Int8).sum(), "no such cast", ""),
    (t.cast(pl.Int64).max(), "cannot be cast", ""),
    (t.cast(pl.Datetime("ms")).max(), "no such cast", ""),
    ((i == s).any(), "types do not fit ==", "like with like"),
    ((i & j).any(), "types do not fit &", ""),
    ((t + 1).max(), "types do not fit +", ""),
    ((t > "2024-01-01").any(), "", ""),
    (pl.when(i).then(1).sum(), "true or false", "> 0"),
    (pl.when(b).then(None).count(), "No branch has a type", "dtype"),
    (i.filter(i).sum(), "true or false", "> 0"),
    (i.clip(0.5, 1.5).sum(), "whole numbers", "Float64"),
    (f.log(3).sum(), "base e, 2 or 10", "/"),
    (f.log1p().sum(), "log1p", "1 +"),
    (f.round(99).sum(), "digits", "round(2)"),
    (i.fill_null(strategy="forward").sum(), "neighbours", "fill_null(0)"),
    (i.is_in(j).any(), "written out", "is_in"),
    (i.is_in([]).any(), "never true", ""),
    (i.is_in(list(range(2_000))).any(), "1,000 constants", "column"),
    (f.is_in([float("nan")]).any(), "NaN", "is_nan"),
    (f.is_in(pl.Series([0.5], dtype=pl.Float32)).any(), "type", ""),
    (s.is_in([b"x"]).any(), "", ""),
    ((f == float("nan")).any(), "NaN", "is_nan"),
    ((f == pl.lit(float("inf"), dtype=pl.Float64)).any(), "NaN", ""),
    ((i == 2**70).any(), "64 bits", ""),
    ((s == b"x").any(), "type", "numbers"),
    ((f == pl.lit(0.1, dtype=pl.Float32)).any(), "type", "pl.Float64"),
    ((i == pl.lit(None)).any(), "None", "is_null"),
    (pl.lit([1, 2]).max(), "is_in only", "is_in"),
    (pl.concat_str("s", "w", ignore_nulls=True).max(), "null", "fill_null"),
    (pl.sum_horizontal("i", "j").sum(), "sum_horizontal", "+"),
    (pl.col("i", "j").sum(), "selector", "one expression"),
    (pl.all().sum(), "selector", "one expression"),
    (pl.selectors.numeric().sum(), "selector", "one expression"),
    (i.sum().name.suffix("_x"), "rename_alias", "alias"),
    (pl.element().sum(), "element", ""),
    (pl.struct("i", "j").n_unique(), "as_struct", ""),
    (i, "No aggregate", "sum()"),
    (pl.lit(1), "No aggregate", "sum()"),
    (pl.lit(1).sum(), "constant", "pl.len()"),
    (i.sum() + i, "outside of it", "max()"),
    ((i - i.mean()).sum(), "aggregate cannot stand here", "single rows"),
    (i.filter(i > i.mean()).sum(), "aggregate cannot stand here", "single rows"),
    (i.sum().filter(b), "chosen before", "filter"),
    ((i.filter(b) * 2).sum(), "aggregate cannot stand here", ""),
    (i.sort().first(), "sort", "order"),
    (i.sort_by("j").last(), "order of their time", "'t'"),
    (i.sort_by("t", descending=True).last(), "order of their time", "'t'"),
    (i.unique(), "chosen before", ""),
    (i.unique().std(), "distinct", "sum"),
    (i.mode(), "several modes", "first()"),
    (i.mode().last(), "several modes", "first()"),
    (i.implode(), "implode", "tail"),
    (i.product(), "product", "log"),
    (i.top_k(3), "top_k", "TOP_K"),
    (s.value_counts(sort=True), "value_counts", "HISTOGRAM"),
    (f.hist(), "hist", "HISTOGRAM_BINS"),
    (i.get(0), "place in time", "max_by"),
    (i.gather([0, 1]), "place in time", "max_by"),
    (i.slice(2, 3), "first or the last", "head(3)"),
    (i.tail(j), "first or the last", "head(3)"),
    (i.head(3).reverse(), "turned round", "tail(3)"),
    (i.head(20_000), "constant n", "10000"),
    (i.nan_min(), "NaN only", "min()"),
    (f.std(ddof=2), "population or of a sample", "ddof=1"),
    (f.quantile(0.5), "interpolated", "linear"),
    (f.quantile(1.5, "linear"), "constant q", "from 0 to 1"),
    (f.quantile(g.max(), "linear"), "", ""),
    (b.any(ignore_nulls=False), "pass nulls over", "fill_null"),
    (f.skew(), "sample", "bias=False"),
    (f.kurtosis(), "sample", "bias=False"),
    (f.kurtosis(fisher=False, bias=False), "sample", "bias=False"),
    (f.entropy(base=2), "shares", "unique_counts"),
    (s.unique_counts().entropy(), "shares", "base=2"),
    (pl.corr("f", "g", method="spearman"), "Pearson", "pl.corr"),
    (pl.corr(f.filter(b), g), "same rows", "filter"),
    (s.sum(), "do not fit SUM", "cast"),
    (i.any(), "do not fit BOOL_OR", ""),
    (f.ewm_mean(half_life=2).sum(), "ewm_mean", "DECAYED"),
    (i.sum().rolling("u", period="1d"), "event time", '"t"'),
    (i.sum().rolling("t", period="1mo"), "fixed time", "7d"),
    (i.sum().rolling("t", period="1d", offset="0d"), "fixed time", "7d"),
    (i.sum().rolling("t", period="1d", closed="both"), "fixed time", "7d"),
    (i.sum().rolling("t", period="1d").rolling("t", period="2d"), "", ""),
    (nested.sum(), "nested too deeply", "fewer"),
    (long_sum.sum(), "nested too deeply", "fewer"),
    (doubled.sum(), "too large", "fewer"),
    ((s == "x" * 2_000_000).any(), "too large", "stream"),
    (None, "A feature is a Polars expression", "sum()"),
    (7, "a int", "sum()"),
    ({}, "no feature", "sum()"),
    ([], "no feature", "sum()"),
    ({"a": 7}, "int for 'a'", "sum()"),
    ({3: i.sum()}, "under a name", ""),
    ([i.sum(), "SUM(i)"], "str", ""),
    (pl.DataFrame({"i": [1]}), "a DataFrame", ""),
    (pl.LazyFrame({"i": [1]}).group_by("i").agg(i.sum()), "a LazyFrame", ""),
    (stream("events").group_by("user"), "a Grouped", ""),
    ([i.sum(), i.sum()], "Two features", "alias"),
    ([i.sum() + 1, j.sum() + 1], "no name", "alias"),
    ({"user": i.sum()}, "as its key", "alias"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("value", "message", "remedy"), REFUSED, ids=[f"{n}" for n in range(len(REFUSED))]
)
def test_refusals_say_what_to_write(value: object, message: str, remedy: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        compiled(value)
    shown = f"{caught.value.message} {caught.value.found}"
    assert message in shown
    assert caught.value.remedy
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entity": []}, "No key"),
        ({"entity": ["f"]}, "cannot be DOUBLE"),
        ({"entity": ["nobody"]}, "no column"),
        ({"entity": ["who=user", "who=i"]}, "Two keys"),
    ],
)
def test_keys_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        compiled(pl.len(), **options)
    with pytest.raises(DefinitionError, match="another number of keys"):
        compiled(stream("events").group_by("user").agg(pl.len()), entity=["a", "b"])
    with pytest.raises(DefinitionError, match="needs a name"):
        read_polars(stream("events").group_by(i + 1).agg(pl.len()))


def test_errors_point_into_the_text() -> None:
    text = 'limit = 3\npl.col("i").filter(\n    pl.col("raed") > limit\n).sum()'
    with pytest.raises(DefinitionError) as caught:
        compiled(i.filter(pl.col("raed") > 3).sum(), text=text)
    assert (caught.value.line, caught.value.column) == (3, 13)
    assert str(caught.value).splitlines()[-1].index("^") == len('  line 3:     pl.col("')
    with pytest.raises(DefinitionError) as caught:
        compiled(i.shift(1).sum(), text='pl.col("i")\n  .shift(1).sum()')
    assert (caught.value.line, caught.value.column) == (2, 4)
    with pytest.raises(DefinitionError) as caught:
        compiled(i.shift(1).sum() + j.shift(1).sum(), text="i.shift(1).sum() + j.shift(1).sum()")
    assert caught.value.line is None


def test_no_python_function_gets_into_a_tree() -> None:
    class Unstorable:
        def __reduce__(self) -> str:
            raise RuntimeError("not to be pickled")

    thing = Unstorable()
    for function in (lambda v: v, lambda v: thing):
        with warnings.catch_warnings(action="ignore"):
            expr = pl.col("i").map_batches(function).sum()
            with pytest.raises(DefinitionError) as caught:
                tree_of(expr)
        assert caught.value.remedy


NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
ROWS = pl.DataFrame(
    [
        {"user": "a", "i": 3, "j": -2, "f": 0.5, "g": float("nan"), "s": "news", "w": "",
         "b": True, "c": None, "d": NOON.date(), "u": NOON, "t": NOON, TIME: NOON},
        {"user": "a", "i": 1, "j": None, "f": -2.5, "g": 4.0, "s": None, "w": "ü",
         "b": False, "c": True, "d": None, "u": NOON, "t": NOON, TIME: NOON},
    ],
    schema={**{n: k.polars for n, k in SOURCE.columns}, TIME: pl.Datetime("us", "UTC")},
)  # fmt: skip
EVALUATED = {
    "pl": pl, "datetime": datetime, "date": date, "timedelta": timedelta, "UTC": UTC,
    "Decimal": Decimal,
}  # fmt: skip
METHODS = [
    name for name in dir(pl.Expr)
    if not name.startswith("_") and name not in ("meta", "deserialize", "from_json", "pipe")
    and callable(getattr(pl.Expr, name))
]  # fmt: skip
ROOMS = ["str", "dt", "list", "struct", "arr", "cat", "bin", "name", "ext"]
NESTED = [
    (room, name)
    for room in ROOMS if hasattr(pl.Expr, room)
    for name in dir(getattr(pl.col("x"), room)) if not name.startswith("_")
]  # fmt: skip
LEAVES = [
    *(pl.col(n) for n, _ in SOURCE.columns), pl.col("nobody"), pl.len(), pl.lit(None), pl.all(),
    *(pl.lit(v) for v in (0, 1, -3, 2**70, 1.5, float("nan"), True, "a", b"b", [1, None])),
    pl.lit(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))), pl.lit(timedelta(days=-1)),
    pl.lit(pl.Series([1, 2])), pl.lit(1, dtype=pl.UInt8), pl.element(), d, u, t, g, j,
    *(e for _, e in WHOLE),
]  # fmt: skip
PLAIN = [0, 1, 3, -1, 0.5, "a", "1h", "linear", True, None, "user", [1, 2], timedelta(days=1),
         pl.Int64, pl.Float64, pl.String, pl.Datetime("ns"), pl.Datetime("us")]  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn) -> pl.Expr:
    expr = draw(st.sampled_from(LEAVES))
    for _ in range(draw(st.integers(1, 5))):
        room, name = draw(st.sampled_from([*(("", m) for m in METHODS), *NESTED]))
        method = getattr(getattr(expr, room) if room else expr, name)
        one = st.one_of(st.sampled_from(LEAVES), st.sampled_from(PLAIN))
        args = draw(st.lists(one, max_size=3))
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            made = method(*args)
            expr = made if isinstance(made, pl.Expr) else expr
    return expr


@settings(max_examples=400, deadline=None)
@given(expr=expressions())
def test_any_expression_compiles_or_is_explained(expr: pl.Expr) -> None:
    refused: list[str | None] = []
    plan: Plan | None = None
    with warnings.catch_warnings(action="ignore"):
        try:
            definition = read_polars(expr)
            assert str(definition)
            plan = compile_polars(definition, name="x", relation=RELATION, entity=["user"])
        except FeatureStoreError as error:
            refused = [error.remedy]
    assert all(refused)
    if plan is None:
        return
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))).fingerprint == plan.fingerprint
    shown = eval(str(definition), EVALUATED)
    assert compile_polars(read_polars(shown), name="x", relation=RELATION, entity=["user"]) == plan
    with contextlib.suppress(FeatureStoreError):
        # What compiles can be folded, if no number of it overflows.
        fold = Fold(plan)
        state = fold.add(fold.empty, ROWS).state
        kinds = fold.values(state, now_us=None)
        assert kinds["x"].dtype == plan.outputs[0].type.polars


def test_what_is_just_not_too_deep_is_folded() -> None:
    deep = i
    for _ in range(DEPTH_MAX - 2):
        deep = deep + 1
    fold = Fold(compiled(deep.sum()))
    values = fold.values(fold.add(fold.empty, ROWS).state, now_us=None)
    assert values["x"].to_list() == [2 * (DEPTH_MAX - 2) + 4]
    plan = compiled(i.is_in(list(range(OPTIONS_MAX))).sum())
    fold = Fold(plan)
    assert fold.values(fold.add(fold.empty, ROWS).state, now_us=None)["x"].to_list() == [2]
