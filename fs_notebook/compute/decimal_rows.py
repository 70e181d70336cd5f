"""What functions of numbers mean for decimals: exact, and an error where a digit has no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from fs_notebook import decimals
from fs_notebook.compute.casts import Build, cast
from fs_notebook.language.expr import Call, Literal
from fs_notebook.types import PRECISION_MAX, Type, decimal_of


def _in_result_type(args: Sequence[pl.Expr], call: Call) -> list[pl.Expr]:
    return [
        a if e.type is call.type else cast(a, e.type, call.type)
        for a, e in zip(args, call.args, strict=True)
    ]


def _summed(operate: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        left, right = _in_result_type(args, call)
        # Polars checks that it has 38 digits at most, as the type then has.
        return operate(left, right).cast(call.type.polars)

    return build


def _multiply(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    # Without places the product is exact, and Polars checks its digits.
    whole = [
        (decimals.unscaled(a) if e.type.is_decimal else a).cast(pl.Decimal(PRECISION_MAX, 0))
        for a, e in zip(args, call.args, strict=True)
    ]
    product = decimals.unscaled(whole[0] * whole[1])
    return decimals.scaled(product, call.type)


def _modulo(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    top, bottom = map(decimals.unscaled, _in_result_type(args, call))
    rest = (top.abs() % bottom.abs()) * top.sign()
    return decimals.scaled(pl.when(bottom != 0).then(rest), call.type)


def _round(*, even: bool) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        digits = sum(int(a.value or 0) for a in call.args[1:] if isinstance(a, Literal))
        places = call.args[0].type.scale - digits
        if places <= 0:
            return args[0].cast(call.type.polars)
        whole = decimals.without_places(decimals.unscaled(args[0]), places, even=even)
        kept = decimal_of(PRECISION_MAX, digits)
        return decimals.scaled(whole, kept).cast(call.type.polars)

    return build


def _whole(divide: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        unit = decimals.wide(10 ** call.args[0].type.scale)
        return decimals.scaled(divide(decimals.unscaled(args[0]), unit), call.type)

    return build


BUILDERS: dict[str, Build] = {
    "add": _summed(lambda a, b: a + b),
    "subtract": _summed(lambda a, b: a - b),
    "multiply": _multiply,
    "modulo": _modulo,
    "negate": lambda args, call: decimals.scaled(0 - decimals.unscaled(args[0]), call.type),
    "abs": lambda args, call: decimals.scaled(decimals.unscaled(args[0]).abs(), call.type),
    "sign": lambda args, call: decimals.unscaled(args[0]).sign().cast(pl.Int64),
    "round": _round(even=False),
    "round_even": _round(even=True),
    "floor": _whole(lambda whole, unit: whole // unit),
    "ceil": _whole(lambda whole, unit: 0 - (0 - whole) // unit),
    "trunc": _whole(lambda whole, unit: whole.abs() // unit * whole.sign()),
}
"""Functions that decimals have their own meaning of."""


def build_of(call: Call) -> Build | None:
    """Return what a call means if it is one of decimals; None where numbers have one meaning."""
    kinds = [a.type for a in call.args]
    if Type.DOUBLE in kinds or not any(k.is_decimal for k in kinds):
        return None
    return BUILDERS.get(call.function)
