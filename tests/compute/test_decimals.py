"""Functions of decimals are what Python's decimals say, to the last digit, or an error."""

from __future__ import annotations

from collections.abc import Callable
from decimal import (
    ROUND_CEILING,
    ROUND_DOWN,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    localcontext,
)
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import DefinitionError, OverflowInFold
from fs_notebook.language.expr import Expr
from fs_notebook.language.plan import Plan
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.types import TIME, Type
from tests.compute.cases import scaled

pytestmark = pytest.mark.timeout(120)

KINDS = {
    "m": Type("DECIMAL(9,2)"), "n": Type("DECIMAL(5,4)"), "h": Type("DECIMAL(38,9)"),
    "z": Type("DECIMAL(38,0)"), "q": Type("DECIMAL(38,38)"),
}  # fmt: skip
COLUMNS = {**KINDS, "i": Type.BIGINT, "f": Type.DOUBLE, "s": Type.VARCHAR}
SOURCE = SourceColumns(
    "events", (("user", Type.VARCHAR), *COLUMNS.items(), ("t", Type.TIMESTAMP)), "t"
)
SCHEMA = {"user": pl.String(), **{name: kind.polars for name, kind in COLUMNS.items()}}


@cache
def row_expression(sql: str) -> Expr:
    text = f"SELECT user, LAST({sql}) AS x FROM events GROUP BY user"
    plan = compile_sql(text, name="x", find_source=lambda name: SOURCE)
    assert Plan.from_dict(plan.to_dict()) == plan
    (aggregation,) = plan.aggregations
    return aggregation.args[0]


def computed(sql: str, row: dict[str, Any]) -> Any:
    """Return the value of an expression in a row, alone and as the second of three."""
    expr = row_expression(sql)
    frame = pl.DataFrame([{}, row, {}], schema=SCHEMA, orient="row")
    with overflow_named("a test"):
        # Beside a column, so that a constant has a value in each row.
        found = frame.select("user", compile_expr(expr).alias("x")).get_column("x")
    assert found.dtype == expr.type.polars, (sql, found.dtype)
    assert found.len() == 3
    return found[1]


def decimals(kind: Type) -> st.SearchStrategy[Decimal]:
    most = 10**kind.precision - 1
    whole = st.one_of(
        st.integers(-most, most), st.integers(-120, 120), st.sampled_from([most, -most, 0, 5, -5]),
        st.integers(-120, 120).map(lambda n: min(max(n * 10**kind.scale, -most), most)),
    )  # fmt: skip
    return whole.map(lambda n: scaled(n, kind.scale))


rows = st.fixed_dictionaries(
    {name: decimals(kind) for name, kind in KINDS.items()}
    | {"i": st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))}
)


def remainder(a: Decimal, b: Decimal) -> Decimal | None:
    return None if b == 0 else a % b


BINARY: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("{} + {}", lambda a, b: a + b),
    ("{} - {}", lambda a, b: a - b),
    ("{} * {}", lambda a, b: a * b),
    ("{} % {}", remainder),
]
COMPARISONS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("{} = {}", lambda a, b: a == b),
    ("{} <> {}", lambda a, b: a != b),
    ("{} < {}", lambda a, b: a < b),
    ("{} <= {}", lambda a, b: a <= b),
    ("{} > {}", lambda a, b: a > b),
    ("{} >= {}", lambda a, b: a >= b),
    ("{} IN (0, {})", lambda a, b: a in (0, b)),
]
PAIRS = ["mn", "nm", "mm", "mi", "im", "mh", "hn", "hi", "zi", "qn", "zz", "hh", "zm", "qm", "qi"]


def exactly(function: Callable[..., Any], *values: Any) -> Any:
    """Return what Python's decimals give, with digits enough for any of these."""
    with localcontext(Context(prec=300)):
        return function(*(Decimal(v) if isinstance(v, int) else v for v in values))


def fits(value: Decimal, kind: Type) -> bool:
    with localcontext(Context(prec=300)):
        return abs(value.scaleb(kind.scale)) < 10**kind.precision


@settings(max_examples=50)
@given(row=rows)
def test_arithmetic_is_exact_or_an_error(row: dict[str, Any]) -> None:
    for usage, function in BINARY:
        for left, right in PAIRS:
            sql = usage.format(left, right)
            try:
                kind = row_expression(sql).type
            except DefinitionError:
                # A product has no room for the places of both.
                assert usage == "{} * {}"
                assert COLUMNS[left].scale + COLUMNS[right].scale > 38
                continue
            want = exactly(function, row[left], row[right])
            # The terms of a sum are brought to its type first, as in DuckDB; a division by zero
            # computes nothing.
            alone = usage == "{} * {}" or want is None
            terms = [] if alone else [Decimal(row[left]), Decimal(row[right])]
            if all(fits(v, kind) for v in (*terms, want) if v is not None):
                assert computed(sql, row) == want, (sql, row)
            else:
                with pytest.raises(OverflowInFold):
                    computed(sql, row)


@settings(max_examples=50)
@given(row=rows)
@example(row={"m": Decimal(1), "n": Decimal(1), "h": Decimal(1), "z": Decimal(2**63 - 1),
              "q": Decimal(0), "i": 2**63 - 1})  # fmt: skip
def test_comparisons_are_exact_whatever_the_types(row: dict[str, Any]) -> None:
    for usage, function in COMPARISONS:
        for left, right in PAIRS:
            sql = usage.format(left, right)
            assert computed(sql, row) is exactly(function, row[left], row[right]), (sql, row)


def rounding(mode: str, places: int) -> Callable[[Decimal], Decimal]:
    return lambda value: value.quantize(Decimal(1).scaleb(-places), rounding=mode)


UNARY: list[tuple[str, Callable[[Any], Any]]] = [
    ("-{}", lambda a: -a),
    ("ABS({})", abs),
    ("SIGN({})", lambda a: (a > 0) - (a < 0)),
    ("ROUND({})", rounding(ROUND_HALF_UP, 0)),
    ("ROUND({}, 1)", rounding(ROUND_HALF_UP, 1)),
    ("ROUND_EVEN({}, 1)", rounding(ROUND_HALF_EVEN, 1)),
    ("FLOOR({})", rounding(ROUND_FLOOR, 0)),
    ("CEIL({})", rounding(ROUND_CEILING, 0)),
    ("TRUNC({})", rounding(ROUND_DOWN, 0)),
    ("CAST({} AS DECIMAL(38,1))", rounding(ROUND_HALF_UP, 1)),
    ("CAST({} AS DECIMAL(12,3))", rounding(ROUND_HALF_UP, 3)),
    ("CAST(CAST({} AS VARCHAR) AS DECIMAL(38,1))", rounding(ROUND_HALF_UP, 1)),
    ("CAST({} AS BIGINT)", rounding(ROUND_HALF_UP, 0)),
    ("LIST_SUM([{0}, {0}, {0}])", lambda a: 3 * a),
]


@settings(max_examples=50)
@given(row=rows)
def test_functions_of_one_decimal_are_exact_or_an_error(row: dict[str, Any]) -> None:
    for usage, function in UNARY:
        for name in KINDS:
            sql = usage.format(name)
            kind = row_expression(sql).type
            want = exactly(function, row[name])
            if "TRUNC" in usage and kind.scale == 0 and want == 0:
                want = Decimal(0)
            room = abs(want) < 2**63 if kind is Type.BIGINT else fits(Decimal(want), kind)
            if usage == "ROUND({}, 1)" and KINDS[name].scale == 0:
                want, room = row[name], True
            if room:
                assert computed(sql, row) == want, (sql, row)
            else:
                with pytest.raises(OverflowInFold):
                    computed(sql, row)


@given(value=decimals(KINDS["h"]))
def test_a_decimal_as_text_and_back_loses_nothing(value: Decimal) -> None:
    row = {"h": value}
    text = computed("CAST(h AS VARCHAR)", row)
    assert text == f"{value:.9f}"
    assert computed("CAST(s AS DECIMAL(38,9))", {"s": text}) == value
    as_double = computed("CAST(h AS DOUBLE)", row)
    assert as_double == pytest.approx(float(value), rel=1e-15)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.105", "1.11"), ("-1.105", "-1.11"), ("1e2", "100"), ("0E-9", "0"), (".5", "0.5"),
     ("5.", "5"), ("+2", "2"), ("1e-999999", "0"), ("x", None), ("", None), ("NaN", None),
     ("1_000", None), (" 1", None), ("1,5", None), ("٣", None)],
)  # fmt: skip
def test_texts_that_are_numbers_and_texts_that_are_none(text: str, value: str | None) -> None:
    want = None if value is None else Decimal(value)
    assert computed("CAST(s AS DECIMAL(6,2))", {"s": text}) == want


@pytest.mark.parametrize(
    ("value", "want"),
    [(0.125, "0.13"), (-0.125, "-0.13"), (2.5, "2.50"), (1e-300, "0"), (float("nan"), None),
     (float("inf"), None), (-float("inf"), None)],
)  # fmt: skip
def test_doubles_round_half_away_from_zero(value: float, want: str | None) -> None:
    found = computed("CAST(f AS DECIMAL(6,2))", {"f": value})
    assert found == (None if want is None else Decimal(want))


@pytest.mark.parametrize(
    ("sql", "row"),
    [("CAST(f AS DECIMAL(6,2))", {"f": 1e4}), ("CAST(f AS DECIMAL(6,2))", {"f": 1e300}),
     ("CAST(s AS DECIMAL(6,2))", {"s": "10000"}), ("CAST(s AS DECIMAL(6,2))", {"s": "1e99999"}),
     ("CAST(i AS DECIMAL(6,2))", {"i": 10**4}), ("CAST(z AS BIGINT)", {"z": Decimal(2**63)})],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_that_says_so(sql: str, row: dict[str, Any]) -> None:
    with pytest.raises(OverflowInFold, match="in a test"):
        computed(sql, row)


def test_beside_a_double_decimals_are_doubles_and_division_gives_doubles() -> None:
    row = {"m": Decimal("1.10"), "f": 1.1, "n": Decimal("0.5")}
    assert computed("m + f", row) == pytest.approx(2.2)
    assert computed("m = f", row) is True
    assert computed("m / n", row) == pytest.approx(2.2)
    assert computed("m / 0", row) is None
    assert row_expression("m * 1.1").type is Type.DOUBLE
    assert computed("m * CAST(1.1 AS DECIMAL(2,1))", row) == Decimal("1.210")


def test_branches_and_defaults_are_brought_to_one_decimal_type() -> None:
    row = {"m": Decimal("1.10"), "n": Decimal("2.1234")}
    assert row_expression("COALESCE(m, n)").type.value == "DECIMAL(11,4)"
    assert computed("COALESCE(CAST(NULL AS DECIMAL(9,2)), n)", row) == Decimal("2.1234")
    assert computed("GREATEST(m, n, 2)", row) == Decimal("2.1234")
    assert computed("LEAST(m, n)", row) == Decimal("1.1")
    assert computed("CASE WHEN m > n THEN m ELSE 0 END", row) == Decimal(0)
    assert computed("CLIP(n, m, 2)", row) == Decimal(2)
    assert computed("BIN(m, [1, 2])", row) == 1
    assert computed("LIST_AVG([m, m])", row) == pytest.approx(1.1)
    assert computed("[m, n][2]", row) == Decimal("2.1234")


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [("m // 2", "TRUNC"), ("HASH_BUCKET(m, 3)", "CAST(x AS VARCHAR)"), ("ISNAN(m)", "leave it"),
     ("LOWER(m)", "CAST(x AS VARCHAR)"), ("q * m", "fewer places"),
     ("CAST(m AS BOOLEAN)", "a cast between"), ("CAST(m AS DECIMAL(39,2))", "DECIMAL(18,2)"),
     ("CAST('123' AS DECIMAL(2,0))", "more digits")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_place(sql: str, remedy: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        row_expression(sql)
    assert caught.value.line == 1
    assert remedy in str(caught.value)


def test_constants_are_read_as_they_are_written() -> None:
    written = [
        "CAST(1.10 AS DECIMAL(4,2))", "CAST('1.1' AS DECIMAL(4,2))", "1.1::NUMERIC(4,2)",
        "CAST(1.0999 AS DECIMAL(4,2))",
    ]  # fmt: skip
    assert len({row_expression(f"m + {text}") for text in written}) == 1
    digits = "12345678901234567890123456789.012345678"
    assert computed(f"CAST({digits} AS DECIMAL(38,9))", {"m": None}) == Decimal(digits)


def test_keys_are_no_decimals() -> None:
    with pytest.raises(DefinitionError, match="A key cannot be DECIMAL"):
        compile_sql(
            "SELECT m, COUNT(*) AS x FROM events GROUP BY m", name="x",
            find_source=lambda name: SOURCE,
        )  # fmt: skip


def summed(values: list[Decimal], kind: str, aggregate: str = "SUM") -> Any:
    source = SourceColumns("events", (("user", Type.VARCHAR), ("v", Type(kind))), None)
    text = f"SELECT user, {aggregate}(v) AS x FROM events GROUP BY user"
    fold = Fold(compile_sql(text, name="x", find_source=lambda name: source))
    frame = pl.DataFrame(
        {"user": ["u"] * len(values), "v": values},
        schema={"user": pl.String, "v": Type(kind).polars},
    ).with_columns(pl.lit(0).cast(pl.Datetime("us", "UTC")).alias(TIME))
    parts = [fold.partial(fold.project(frame[i : i + 3])[0]) for i in range(0, len(values), 3)]
    from fs_notebook.compute.fold import State

    state = State(fold.merge(parts), fold.empty.recent)
    return fold.values(state, now_us=None)["x"].item()


MOST = Decimal("9" * 36 + ".99")
LEAST = MOST.copy_negate()


def test_a_sum_may_leave_38_digits_and_come_back() -> None:
    """A grouped sum of Polars' decimals wraps: it was wrong, and said nothing."""
    there_and_back = [MOST] * 20 + [LEAST] * 20 + [Decimal("0.01")]
    assert summed(there_and_back, "DECIMAL(38,2)") == Decimal("0.01")
    assert summed([MOST, LEAST, LEAST], "DECIMAL(38,2)") == LEAST
    with pytest.raises(OverflowInFold, match="more digits than its type"):
        summed([MOST] * 20, "DECIMAL(38,2)")
    with pytest.raises(OverflowInFold, match="more digits than its type"):
        summed([LEAST, Decimal("-0.01")], "DECIMAL(38,2)")
    assert summed([MOST] * 20, "DECIMAL(38,2)", "AVG") == pytest.approx(float(MOST), rel=1e-12)
    assert summed([Decimal("-0.01")] * 3, "DECIMAL(38,2)", "AVG") == pytest.approx(-0.01)
