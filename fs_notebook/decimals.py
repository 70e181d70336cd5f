"""Decimals as whole numbers of their last place, and as texts: exactly, or not at all.

A grouped sum of Polars' decimals wraps, a product is rounded to the longer scale, and casts round
half to even. So decimals are computed here by the 128-bit integers behind them, their unscaled
values, which come back through a check of their digits.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal

import polars as pl

from fs_notebook.types import PRECISION_MAX, Type, decimal_of

_EXACT = Context(prec=1_000, rounding=ROUND_HALF_UP)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?")
_WIDE = pl.Decimal(PRECISION_MAX, 0)


def number_of(value: object, kind: Type) -> int | float | Decimal:
    """Return the value of a numeric constant of the language, which writes decimals as text."""
    if kind.is_decimal:
        return Decimal(str(value))
    assert isinstance(value, (int, float))
    return value


def type_of_decimal(value: Decimal) -> Type | None:
    """Return the smallest type that holds `value`; None where none does.

    Examples
    --------
    >>> type_of_decimal(Decimal("12.30"))
    Type('DECIMAL(4,2)')
    """
    if not value.is_finite():
        return None
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(-exponent, 0)
    whole = max(len(digits) + exponent, 0) if value else 0
    if whole + scale > PRECISION_MAX:
        return None
    return decimal_of(max(whole + scale, 1), scale)


def read(text: str) -> Decimal | None:
    """Return the number that `text` is, as SQL and JSON write them; None where it is none."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def text_of(value: Decimal, kind: Type, *, rounded: bool = False) -> str | None:
    """Return `value` with as many places as `kind` has; None where it does not fit.

    Parameters
    ----------
    rounded
        Whether places that `kind` has not are rounded, half away from zero. Else nothing but
        zeros may stand there.

    Examples
    --------
    >>> text_of(Decimal("12.345"), decimal_of(4, 2), rounded=True)
    '12.35'
    """
    if not value.is_finite() or (value and value.adjusted() >= PRECISION_MAX):
        return None
    fitted = value.quantize(Decimal(1).scaleb(-kind.scale), context=_EXACT)
    if fitted != value and not rounded:
        return None
    if fitted and fitted.adjusted() >= kind.precision - kind.scale:
        return None
    return f"{fitted if fitted else fitted.copy_abs():f}"


def exact_texts(texts: pl.Series, kind: Type) -> pl.Series:
    """Return texts as decimals; null where a text is no number that `kind` holds exactly."""
    places = rf"\.[0-9]{{0,{kind.scale}}}0*" if kind.scale else r"\.0*"
    plain = texts.str.contains(rf"^[+-]?[0-9]+(?:{places})?$")
    found = texts.to_frame("v").select(pl.when(plain).then("v")).to_series()
    known = found.cast(kind.polars, strict=False)
    rest = texts.filter(known.is_null()).drop_nulls().unique()
    if rest.is_empty():
        return known.alias(texts.name)
    read_texts = [None if (v := read(t)) is None else text_of(v, kind) for t in rest]
    others = _looked_up(texts, rest, read_texts).cast(kind.polars)
    return pl.select(pl.coalesce(known, others)).to_series().alias(texts.name)


def exact(value: pl.Expr, have: pl.DataType, kind: Type) -> pl.Expr:
    """Return values of a Polars type as decimals; null where one is none that `kind` holds.

    Integers, texts and other decimals may be; a double never is, since what it stands for is not
    known.
    """
    if have == pl.String:
        return value.map_batches(
            lambda texts: exact_texts(texts, kind), return_dtype=kind.polars, is_elementwise=True
        )
    if have.is_integer():
        return value.cast(kind.polars, strict=False)
    if have == pl.Decimal:
        cast = value.cast(kind.polars, strict=False)
        return pl.when(cast == value).then(cast)
    return pl.lit(None, dtype=kind.polars)


def widens(have: pl.DataType, kind: Type) -> bool:
    """Tell whether a strict cast of a Polars type to `kind` loses no digit of a decimal."""
    if isinstance(have, pl.List) and kind.element is not None:
        inner = have.inner
        return isinstance(inner, pl.DataType) and widens(inner, kind.element)
    if isinstance(have, pl.Struct) and kind.fields:
        inside = {f.name: f.dtype for f in have.fields}
        return all(
            widens(t, k) for n, k in kind.fields if isinstance(t := inside.get(n), pl.DataType)
        )
    if not kind.is_decimal:
        return True
    return have.is_integer() or (isinstance(have, pl.Decimal) and have.scale <= kind.scale)


def rounded_texts(texts: pl.Series, kind: Type) -> pl.Series:
    """Return texts as texts of decimals that are rounded to `kind`; null where one is no number.

    A number that is too large stays as it is, so that the cast that follows says so.
    """
    distinct = texts.drop_nulls().unique()
    found: list[str | None] = []
    for text in distinct:
        value = read(text)
        fits = None if value is None else text_of(value, kind, rounded=True)
        found.append(None if value is None else fits or "9" * (PRECISION_MAX + 1))
    return _looked_up(texts, distinct, found)


def _looked_up(texts: pl.Series, distinct: pl.Series, results: list[str | None]) -> pl.Series:
    known = pl.DataFrame({"v": distinct, "r": pl.Series(results, dtype=pl.String)})
    joined = texts.alias("v").to_frame().join(known, on="v", how="left", maintain_order="left")
    return joined.get_column("r").alias(texts.name)


def unscaled(value: pl.Expr) -> pl.Expr:
    """Return decimals as integers of 128 bits: how often each holds its last place."""
    return value.to_physical()


def scaled(whole: pl.Expr, kind: Type) -> pl.Expr:
    """Return integers of 128 bits as the decimals that they are of; too large ones are an error."""
    value = whole.cast(_WIDE)
    if kind.scale:
        place = Decimal(1).scaleb(-kind.scale)
        value = value * pl.lit(place, dtype=pl.Decimal(PRECISION_MAX, kind.scale))
    return value if kind.precision == PRECISION_MAX else value.cast(kind.polars)


def wide(number: int) -> pl.Expr:
    """Return a constant of 128 bits."""
    return pl.lit(number, dtype=pl.Int128)


def without_places(whole: pl.Expr, places: int, *, even: bool = False) -> pl.Expr:
    """Return integers divided by 10 to the power of `places`, rounded half away from zero.

    With `even`, the half is rounded to the even neighbour.
    """
    if not places:
        return whole
    unit, half, size = wide(10**places), wide(10**places // 2), whole.abs()
    if even:
        below, rest = size // unit, size % unit
        odd = below % wide(2) == 1
        size = below + ((rest > half) | ((rest == half) & odd)).cast(pl.Int128)
    else:
        size = (size + half) // unit
    return size * whole.sign()


def rescaled(value: pl.Expr, source: Type, target: Type) -> pl.Expr:
    """Return decimals of one type as those of another, rounded half away from zero."""
    if source.scale <= target.scale:
        return value.cast(target.polars)
    return scaled(without_places(unscaled(value), source.scale - target.scale), target)


def from_double(value: pl.Expr, target: Type) -> pl.Expr:
    """Return doubles as decimals, rounded half away from zero; NaN and infinity are null."""
    finite = pl.when(value.is_finite()).then(value)
    whole = (finite * 10.0**target.scale).round(0, mode="half_away_from_zero")
    return scaled(whole.cast(pl.Int128), target)


def from_text(value: pl.Expr, target: Type) -> pl.Expr:
    """Return texts as decimals, rounded half away from zero; what is no number is null."""
    texts = value.map_batches(
        lambda series: rounded_texts(series, target), return_dtype=pl.String(), is_elementwise=True
    )
    return texts.cast(target.polars)


def to_integer(value: pl.Expr, source: Type) -> pl.Expr:
    """Return decimals as integers of 64 bits, rounded half away from zero."""
    return without_places(unscaled(value), source.scale).cast(pl.Int64)
