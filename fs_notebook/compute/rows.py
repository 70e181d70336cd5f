"""The row functions' meaning: typed expressions compiled to Polars.

Integer arithmetic is done in 128 bits and checked on its way back to 64: a result that does not
fit is an error, never a wrap. So is a decimal with more digits than its type (`decimal_rows`).
Division by zero is null. NaN equals itself and is greater than every other number. A text that
does not parse casts to null.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

import polars as pl

from fs_notebook.compute import decimal_rows, list_rows, operation_rows, value_rows
from fs_notebook.compute.casts import Build, cast, literal, widened
from fs_notebook.errors import FeatureStoreError, OverflowInFold
from fs_notebook.language.expr import Aggregated, Call, Column, Expr, Literal
from fs_notebook.types import Type


def compile_expr(expr: Expr, aggregated: Callable[[int], pl.Expr] | None = None) -> pl.Expr:
    """Return the Polars expression of `expr`.

    Parameters
    ----------
    expr
        Over a row's columns, or, with `aggregated`, over finished aggregates.
    aggregated
        Gives the column that holds the finished value of an aggregation, by its index.
    """
    match expr:
        case Column(name, _):
            return pl.col(name)
        case Literal(value, kind):
            return literal(value, kind)
        case Aggregated(index, _):
            assert aggregated is not None
            return aggregated(index)
        case Call(function, args, kind):
            compiled = [compile_expr(a, aggregated) for a in args]
            if function.startswith("cast_"):
                return cast(compiled[0], args[0].type, kind)
            build = decimal_rows.build_of(expr) or _BUILDERS[function]
            return build(compiled, expr)


@contextmanager
def overflow_named(what: str) -> Iterator[None]:
    """Turn Polars' own errors inside into this package's, naming `what` was computed."""
    try:
        yield
    except (pl.exceptions.InvalidOperationError, pl.exceptions.ComputeError) as error:
        found = str(error).splitlines()[0]
        if isinstance(error, pl.exceptions.ComputeError) and "overflow" not in found:
            raise FeatureStoreError(f"{what} could not be computed.", found=found) from None
        is_decimal = "decimal" in found
        digits = "A decimal in {} has more digits than its type."
        raise OverflowInFold(
            (digits if is_decimal else "An integer in {} does not fit 64 bits.").format(what),
            found=found,
            remedy="CAST the argument AS DOUBLE, if an approximate result will do",
        ) from None
    except pl.exceptions.PolarsError as error:
        raise FeatureStoreError(
            f"{what} could not be computed.", found=str(error).splitlines()[0]
        ) from None
    except FeatureStoreError as error:
        raise operation_rows.original(error) from None


def _arithmetic(operate: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        if call.type is Type.BIGINT:
            wide = [a.cast(pl.Int128) for a in args]
            return operate(wide[0], wide[1]).cast(pl.Int64)
        left, right = widened(args, call)
        return operate(left, right)

    return build


def _compare(operate: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        left, right = widened(args, call)
        return operate(left, right)

    return build


def _divide(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    top, bottom = widened(args, call, Type.DOUBLE)
    return pl.when(bottom != 0).then(top / bottom)


def _int_divide(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    top, bottom = (a.cast(pl.Int128) for a in args)
    quotient = (top.abs() // bottom.abs()) * top.sign() * bottom.sign()
    return pl.when(bottom != 0).then(quotient).cast(pl.Int64)


def _modulo(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    if call.type is Type.BIGINT:
        top, bottom = (a.cast(pl.Int128) for a in args)
        rest = (top.abs() % bottom.abs()) * top.sign()
        return pl.when(bottom != 0).then(rest).cast(pl.Int64)
    top, bottom = widened(args, call)
    return pl.when(bottom != 0).then(top.abs() % bottom.abs() * top.sign())


def _sign_changing(change: Callable[[pl.Expr], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        if call.type is Type.BIGINT:
            return change(args[0].cast(pl.Int128)).cast(pl.Int64)
        return change(args[0])

    return build


def _double(function: Callable[[pl.Expr], pl.Expr], *, above: float | None = None) -> Build:
    """Build a function of one DOUBLE; where it has no value (ln of 0, …) it is null."""

    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        value = args[0].cast(pl.Float64)
        return function(value) if above is None else pl.when(value > above).then(function(value))

    return build


def _case(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    values = [
        cast(a, e.type, call.type) if e.type is not call.type else a
        for a, e in zip(args, call.args, strict=True)
    ]
    result = values[-1]
    for index in range(len(args) - 3, -1, -2):
        result = pl.when(args[index]).then(values[index + 1]).otherwise(result)
    return result


def _in(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    wide = widened(args, call)
    return reduce(lambda a, b: a | b, (wide[0] == option for option in wide[1:]))


def _round(*, even: bool) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        if call.type is Type.BIGINT:
            return args[0]
        digits = sum(int(a.value or 0) for a in call.args[1:] if isinstance(a, Literal))
        return args[0].round(digits, mode="half_to_even" if even else "half_away_from_zero")

    return build


def _like(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    pattern = call.args[1]
    assert isinstance(pattern, Literal)
    parts = re.split(r"([%_])", str(pattern.value))
    regex = "".join({"%": ".*", "_": "."}.get(p, re.escape(p)) for p in parts)
    return args[0].str.contains(f"(?s)^{regex}$")


def _substring(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    # SQL counts from 1; a start before the text eats into the length, as the standard has it.
    start = args[1] - 1
    first = pl.max_horizontal(start, pl.lit(0, dtype=pl.Int64))
    if len(args) == 2:
        return args[0].str.slice(first)
    length = pl.max_horizontal(start + args[2] - first, pl.lit(0, dtype=pl.Int64))
    return args[0].str.slice(first, length)


_TRUNCATE = {
    "second": "1s", "minute": "1m", "hour": "1h", "day": "1d",
    "week": "1w", "month": "1mo", "quarter": "1q", "year": "1y",
}  # fmt: skip


def _date_trunc(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    unit = call.args[0]
    assert isinstance(unit, Literal)
    return args[1].dt.truncate(_TRUNCATE[str(unit.value)])


def _epoch(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    return args[0].to_physical().cast(pl.Float64) / 1e6


def _part(function: Callable[[pl.Expr], pl.Expr]) -> Build:
    return lambda args, call: function(args[0]).cast(pl.Int64)


def _extreme(function: Callable[..., pl.Expr]) -> Build:
    return lambda args, call: function(*widened(args, call))


def _greatest(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    wide = widened(args, call)
    most = pl.max_horizontal(*wide)
    if call.type is not Type.DOUBLE:
        return most
    # NaN is greater than every other number; Polars passes it over.
    any_nan = reduce(lambda a, b: a | b, (a.is_nan().fill_null(False) for a in wide))
    return pl.when(any_nan).then(float("nan")).otherwise(most)


_BUILDERS: dict[str, Build] = {
    "add": _arithmetic(lambda a, b: a + b),
    "subtract": _arithmetic(lambda a, b: a - b),
    "multiply": _arithmetic(lambda a, b: a * b),
    "divide": _divide,
    "int_divide": _int_divide,
    "modulo": _modulo,
    "negate": _sign_changing(lambda a: 0 - a),
    "abs": _sign_changing(lambda a: a.abs()),
    "sign": lambda args, call: args[0].sign(),
    "eq": _compare(lambda a, b: a == b),
    "ne": _compare(lambda a, b: a != b),
    "lt": _compare(lambda a, b: a < b),
    "le": _compare(lambda a, b: a <= b),
    "gt": _compare(lambda a, b: a > b),
    "ge": _compare(lambda a, b: a >= b),
    "and": lambda args, call: reduce(lambda a, b: a & b, args),
    "or": lambda args, call: reduce(lambda a, b: a | b, args),
    "not": lambda args, call: ~args[0],
    "is_null": lambda args, call: args[0].is_null(),
    "in": _in,
    "case": _case,
    "coalesce": _extreme(pl.coalesce),
    "greatest": _greatest,
    "least": _extreme(pl.min_horizontal),
    "round": _round(even=False),
    "round_even": _round(even=True),
    "floor": _double(lambda a: a.floor()),
    "ceil": _double(lambda a: a.ceil()),
    "sqrt": _double(lambda a: a.sqrt(), above=-5e-324),
    "exp": _double(lambda a: a.exp()),
    "ln": _double(lambda a: a.log(), above=0.0),
    "log10": _double(lambda a: a.log10(), above=0.0),
    "log2": _double(lambda a: a.log(2.0), above=0.0),
    "power": lambda args, call: args[0].cast(pl.Float64) ** args[1].cast(pl.Float64),
    "lower": lambda args, call: args[0].str.to_lowercase(),
    "upper": lambda args, call: args[0].str.to_uppercase(),
    "trim": lambda args, call: args[0].str.strip_chars(" "),
    "length": lambda args, call: args[0].str.len_chars().cast(pl.Int64),
    "concat": lambda args, call: pl.concat_str(list(args)),
    "like": _like,
    "starts_with": lambda args, call: args[0].str.starts_with(args[1]),
    "contains": lambda args, call: args[0].str.contains(args[1], literal=True),
    "substring": _substring,
    "epoch": _epoch,
    "date_trunc": _date_trunc,
    "year": _part(lambda a: a.dt.year()),
    "quarter": _part(lambda a: a.dt.quarter()),
    "month": _part(lambda a: a.dt.month()),
    "week": _part(lambda a: a.dt.week()),
    "day": _part(lambda a: a.dt.day()),
    "dow": _part(lambda a: a.dt.weekday() % 7),
    "isodow": _part(lambda a: a.dt.weekday()),
    "doy": _part(lambda a: a.dt.ordinal_day()),
    "hour": _part(lambda a: a.dt.hour()),
    "minute": _part(lambda a: a.dt.minute()),
    **value_rows.BUILDERS,
    **list_rows.BUILDERS,
    **operation_rows.BUILDERS,
}
