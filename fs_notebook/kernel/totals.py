"""Sums that are exact whatever the order: of integers, of decimals, and of decimals in lists.

Integers of 64 bits and decimals of up to 18 digits are added in 128 bits, which no log can fill.
Longer decimals are added in two halves, the upper and the lower 18 digits: only the finished sum
has to fit 38 digits, whatever it went through.
"""

from __future__ import annotations

import polars as pl

from fs_notebook.decimals import scaled, unscaled, wide
from fs_notebook.kernel.algebra import Exprs, Field
from fs_notebook.types import PRECISION_MAX, Type, decimal_of

_DIGITS = 18
_HALF = 10**_DIGITS


def total_type(kind: Type) -> Type:
    """Return the type of a sum: decimals have 38 digits, other numbers stay what they are."""
    return decimal_of(PRECISION_MAX, kind.scale) if kind.is_decimal else kind


def total_fields(kind: Type) -> tuple[Field, ...]:
    """Return the columns that hold a sum of numbers of a type."""
    if kind is Type.DOUBLE:
        return (Field("s", pl.Float64(), "sum"),)
    names = ("high", "low") if kind.precision > _DIGITS else ("s",)
    return tuple(Field(name, pl.Int128(), "sum") for name in names)


def lifted_total(kind: Type, value: pl.Expr) -> Exprs:
    """Return the columns of a sum of one value."""
    if kind is Type.DOUBLE:
        return (value,)
    if not kind.is_decimal:
        return (value.cast(pl.Int128),)
    whole = unscaled(value)
    if kind.precision <= _DIGITS:
        return (whole,)
    return (whole // wide(_HALF), whole % wide(_HALF))


def total(kind: Type, columns: Exprs) -> pl.Expr:
    """Return the sum that columns hold; an error where it does not fit `total_type`."""
    if kind is Type.DOUBLE:
        return columns[0]
    if not kind.is_decimal:
        return columns[0].cast(pl.Int64)
    return scaled(_whole(columns), total_type(kind))


def mean(kind: Type, columns: Exprs, count: pl.Expr) -> pl.Expr:
    """Return the sum that columns hold, divided by a count: DOUBLE, and never an error."""
    if len(columns) == 1:
        return columns[0].cast(pl.Float64) / 10.0**kind.scale / count
    high, low = _carried(columns)
    fits = high.abs() < wide(_HALF * 100)
    small = pl.when(fits).then(high).otherwise(wide(0)) * wide(_HALF) + low
    large = high.cast(pl.Float64) * float(_HALF)
    found = pl.when(fits).then(small.cast(pl.Float64)).otherwise(large)
    return found / 10.0**kind.scale / count


def _carried(columns: Exprs) -> tuple[pl.Expr, pl.Expr]:
    """Return the two halves of a sum, of one sign, the lower one of 18 digits."""
    high, low = columns
    upper, rest = high + low // wide(_HALF), low % wide(_HALF)
    borrowed = (upper < 0) & (rest > 0)
    return (
        pl.when(borrowed).then(upper + 1).otherwise(upper),
        pl.when(borrowed).then(rest - wide(_HALF)).otherwise(rest),
    )


def _whole(columns: Exprs) -> pl.Expr:
    if len(columns) == 1:
        return columns[0]
    high, low = _carried(columns)
    # As decimals, since Polars checks their digits.
    number = pl.Decimal(PRECISION_MAX, 0)
    return unscaled(high.cast(number) * wide(_HALF).cast(number) + low.cast(number))


def listed_total(values: pl.Expr, kind: Type) -> pl.Expr:
    """Return the sum of each list of decimals, of type `kind` or of fewer digits."""
    return total(kind, _listed(values, kind))


def listed_mean(values: pl.Expr, kind: Type) -> pl.Expr:
    """Return the mean of each list of decimals of type `kind`; nulls are passed over."""
    known = values.list.drop_nulls()
    return mean(kind, _listed(known, kind), known.list.len())


def _listed(values: pl.Expr, kind: Type) -> Exprs:
    return tuple(values.list.eval(part).list.sum() for part in lifted_total(kind, pl.element()))
