"""What type rules are made of: how functions say which types they take and give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from fs_notebook.types import PRECISION_MAX, Type, decimal_of

Rule = Callable[[Sequence[Type]], Type | None]
"""Gives the result's type, or None where the arguments' types do not fit."""


Table = list[tuple[str, str, Rule]]
"""Functions: name, usage, rule."""


def common(types: Sequence[Type]) -> Type | None:
    """Return the type that all of `types` widen to: BIGINT widens to DOUBLE, DATE to TIMESTAMP.

    Decimals, and integers beside them, widen to a decimal of the most places of any of them and
    the most digits before the point, 38 digits in all: a value that does not fit is an error when
    it comes.
    """
    kinds = set(types)
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds and all(k.is_number for k in kinds):
        return Type.DOUBLE if Type.DOUBLE in kinds else _capped(*_digits(kinds))
    if kinds == {Type.DATE, Type.TIMESTAMP}:
        return Type.TIMESTAMP
    return None


def as_decimal(kind: Type) -> Type:
    """Return the decimal that holds every value of a decimal or an integer type."""
    return kind if kind.is_decimal else decimal_of(19, 0)


def _digits(kinds: Collection[Type]) -> tuple[int, int]:
    """Return the most digits before the point, and behind it, that any of `kinds` has."""
    decimals = [as_decimal(k) for k in kinds]
    return max(d.precision - d.scale for d in decimals), max(d.scale for d in decimals)


def _capped(before: int, behind: int) -> Type:
    return decimal_of(min(max(before + behind, 1), PRECISION_MAX), behind)


def sum_of(types: Sequence[Type]) -> Type | None:
    """Return the type of a sum or difference: a decimal has one digit more than its terms."""
    kind = _two_numbers(types)
    if kind is None or not kind.is_decimal:
        return kind
    before, behind = _digits(types)
    return _capped(before + 1, behind)


def product_of(types: Sequence[Type]) -> Type | None:
    """Return the type of a product: of decimals the digits add up; above 38 places it has none."""
    kind = _two_numbers(types)
    if kind is None or not kind.is_decimal:
        return kind
    left, right = (as_decimal(t) for t in types)
    behind = left.scale + right.scale
    if behind > PRECISION_MAX:
        return None
    return decimal_of(min(left.precision + right.precision, PRECISION_MAX), behind)


def _two_numbers(types: Sequence[Type]) -> Type | None:
    return common(types) if len(types) == 2 and all(t.is_number for t in types) else None


def whole_part(kind: Type, *, rounded: bool) -> Type:
    """Return the decimal without places that a decimal becomes, with a digit more if `rounded`."""
    more = 1 if rounded and kind.scale else 0
    return decimal_of(max(kind.precision - kind.scale + more, 1), 0)


def all_of(kind: Type, result: Type, count: int | None = None) -> Rule:
    """Return the rule of functions whose arguments are all of one type."""

    def rule(types: Sequence[Type]) -> Type | None:
        fits = all(t is kind for t in types) and (count is None or len(types) == count)
        return result if fits else None

    return rule


def numeric(result: Type | None, count: int = 1) -> Rule:
    """Return the rule of functions of numbers; without `result` they give what they are given."""

    def rule(types: Sequence[Type]) -> Type | None:
        if len(types) != count or not all(t.is_number for t in types):
            return None
        return result or common(types)

    return rule


def not_a_key(kind: Type) -> str | None:
    """Return why values of a scalar type cannot name an entity; None where they can."""
    if kind is Type.DOUBLE:
        return "A key cannot be DOUBLE: two such numbers may look alike and differ."
    if kind.is_decimal:
        return "A key cannot be DECIMAL: 1.1 and 1.10 would be two texts of one entity."
    return None
