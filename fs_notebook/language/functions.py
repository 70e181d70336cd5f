"""The row functions of the language: names and type rules. Their meaning is in `compute.rows`.

Nulls go through as in SQL: a null argument makes a null result, save where a function is made
for nulls (`coalesce`, `is_null`, `case`, `and`, `or`). Division by zero is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs_notebook.errors import DefinitionError
from fs_notebook.language import list_functions, operations, value_functions
from fs_notebook.language.rules import Rule, common, product_of, sum_of, whole_part
from fs_notebook.language.rules import all_of as _all
from fs_notebook.language.rules import numeric as _numeric
from fs_notebook.types import PRECISION_MAX, Type, decimal_of

BIGINT, DOUBLE, VARCHAR, BOOLEAN = Type.BIGINT, Type.DOUBLE, Type.VARCHAR, Type.BOOLEAN
TIMESTAMP, DATE, INTERVAL = Type.TIMESTAMP, Type.DATE, Type.INTERVAL


@dataclass(frozen=True, slots=True)
class Function:
    """A row function: how it is called and what type it gives."""

    name: str
    usage: str
    rule: Rule


def _arithmetic(types: Sequence[Type]) -> Type | None:
    return common(types) if len(types) == 2 and all(t.is_number for t in types) else None


def _add(types: Sequence[Type]) -> Type | None:
    match tuple(types):
        case (Type.TIMESTAMP, Type.INTERVAL) | (Type.INTERVAL, Type.TIMESTAMP):
            return TIMESTAMP
        case (Type.INTERVAL, Type.INTERVAL):
            return INTERVAL
    return sum_of(types)


def _subtract(types: Sequence[Type]) -> Type | None:
    match tuple(types):
        case (Type.TIMESTAMP, Type.INTERVAL):
            return TIMESTAMP
        case (Type.TIMESTAMP | Type.DATE, Type.TIMESTAMP | Type.DATE):
            return INTERVAL
        case (Type.INTERVAL, Type.INTERVAL):
            return INTERVAL
    return sum_of(types)


def _compare(types: Sequence[Type]) -> Type | None:
    fits = len(types) == 2 and all(t.is_scalar for t in types)
    return BOOLEAN if fits and common(types) else None


def _in(types: Sequence[Type]) -> Type | None:
    fits = len(types) > 1 and all(t.is_scalar for t in types)
    return BOOLEAN if fits and common(types) else None


def _extreme(types: Sequence[Type]) -> Type | None:
    return common(types) if types and all(t.is_scalar for t in types) else None


def _same(types: Sequence[Type]) -> Type | None:
    return common(types) if types else None


def _case(types: Sequence[Type]) -> Type | None:
    # Conditions and values in turn, the default last.
    conditions, values = types[0:-1:2], [*types[1:-1:2], types[-1]]
    fits = len(types) % 2 == 1 and all(c is BOOLEAN for c in conditions)
    return common(values) if fits else None


def _temporal_part(types: Sequence[Type]) -> Type | None:
    return BIGINT if len(types) == 1 and types[0] in (TIMESTAMP, DATE) else None


def _round(types: Sequence[Type]) -> Type | None:
    if len(types) in (1, 2) and types[0].is_number and all(t is BIGINT for t in types[1:]):
        kind = types[0]
        if kind.is_decimal and kind.scale:
            # 9.99 has three digits, and rounded to one place it has one more.
            return decimal_of(min(kind.precision + 1, PRECISION_MAX), kind.scale)
        return kind
    return None


def _whole(types: Sequence[Type]) -> Type | None:
    if len(types) != 1 or not types[0].is_number:
        return None
    return whole_part(types[0], rounded=True) if types[0].is_decimal else DOUBLE


def _sign(types: Sequence[Type]) -> Type | None:
    if len(types) != 1 or not types[0].is_number:
        return None
    return BIGINT if types[0].is_decimal else types[0]


_PARTS = ("year", "quarter", "month", "week", "day", "dow", "isodow", "doy", "hour", "minute")

PARTS = (*_PARTS, "second", "epoch")
"""What EXTRACT takes out of a time."""

_TABLE: list[tuple[str, str, Rule]] = [
    ("add", "a + b", _add),
    ("subtract", "a - b", _subtract),
    ("multiply", "a * b", product_of),
    ("divide", "a / b", _numeric(DOUBLE, 2)),
    ("int_divide", "a // b", _all(BIGINT, BIGINT, 2)),
    ("modulo", "a % b", _arithmetic),
    ("negate", "-a", _numeric(None)),
    ("eq", "a = b", _compare),
    ("ne", "a <> b", _compare),
    ("lt", "a < b", _compare),
    ("le", "a <= b", _compare),
    ("gt", "a > b", _compare),
    ("ge", "a >= b", _compare),
    ("and", "a AND b", _all(BOOLEAN, BOOLEAN)),
    ("or", "a OR b", _all(BOOLEAN, BOOLEAN)),
    ("not", "NOT a", _all(BOOLEAN, BOOLEAN, 1)),
    ("is_null", "a IS NULL", lambda types: BOOLEAN if len(types) == 1 else None),
    ("in", "a IN (b, …)", _in),
    ("case", "CASE WHEN a THEN b ELSE c END", _case),
    ("coalesce", "COALESCE(a, b, …)", _same),
    ("greatest", "GREATEST(a, b, …)", _extreme),
    ("least", "LEAST(a, b, …)", _extreme),
    ("abs", "ABS(a)", _numeric(None)),
    ("sign", "SIGN(a)", _sign),
    ("round", "ROUND(a [, digits])", _round),
    ("round_even", "ROUND_EVEN(a [, digits])", _round),
    ("floor", "FLOOR(a)", _whole),
    ("ceil", "CEIL(a)", _whole),
    ("sqrt", "SQRT(a)", _numeric(DOUBLE)),
    ("exp", "EXP(a)", _numeric(DOUBLE)),
    ("ln", "LN(a)", _numeric(DOUBLE)),
    ("log10", "LOG10(a)", _numeric(DOUBLE)),
    ("log2", "LOG2(a)", _numeric(DOUBLE)),
    ("power", "POWER(a, b)", _numeric(DOUBLE, 2)),
    ("lower", "LOWER(text)", _all(VARCHAR, VARCHAR, 1)),
    ("upper", "UPPER(text)", _all(VARCHAR, VARCHAR, 1)),
    ("trim", "TRIM(text)", _all(VARCHAR, VARCHAR, 1)),
    ("length", "LENGTH(text)", _all(VARCHAR, BIGINT, 1)),
    ("concat", "a || b", _all(VARCHAR, VARCHAR)),
    ("like", "text LIKE 'pattern'", _all(VARCHAR, BOOLEAN, 2)),
    ("starts_with", "STARTS_WITH(text, prefix)", _all(VARCHAR, BOOLEAN, 2)),
    ("contains", "CONTAINS(text, part)", _all(VARCHAR, BOOLEAN, 2)),
    (
        "substring",
        "SUBSTRING(text, start [, length])",
        lambda types: (
            VARCHAR
            if len(types) in (2, 3) and types[0] is VARCHAR and set(types[1:]) == {BIGINT}
            else None
        ),
    ),
    ("epoch", "EPOCH(time)", lambda types: DOUBLE if types in ([TIMESTAMP], [INTERVAL]) else None),
    *((part, f"EXTRACT({part} FROM time)", _temporal_part) for part in _PARTS),
    (
        "date_trunc",
        "DATE_TRUNC('unit', time)",
        lambda types: TIMESTAMP if tuple(types) == (VARCHAR, TIMESTAMP) else None,
    ),
]

FUNCTIONS = {
    name: Function(name, usage, rule)
    for name, usage, rule in (
        *_TABLE,
        *value_functions.TABLE,
        *list_functions.TABLE,
        *operations.TABLE,
    )
}

CASTS: dict[Type, frozenset[Type]] = {
    BIGINT: frozenset({DOUBLE, VARCHAR, BOOLEAN}),
    DOUBLE: frozenset({BIGINT, VARCHAR}),
    VARCHAR: frozenset({BIGINT, DOUBLE, TIMESTAMP, DATE}),
    BOOLEAN: frozenset({BIGINT, DOUBLE, VARCHAR}),
    TIMESTAMP: frozenset({DATE, VARCHAR}),
    DATE: frozenset({TIMESTAMP, VARCHAR}),
    INTERVAL: frozenset(),
}
"""What can be cast to what. A text that does not parse becomes null."""


def castable(source: Type, target: Type) -> bool:
    """Tell whether values of `source` can be cast to `target`."""
    if not (source.is_decimal or target.is_decimal):
        return source in CASTS.get(target, frozenset())
    other = source if target.is_decimal else target
    return other.is_decimal or other in (BIGINT, DOUBLE, VARCHAR)


def result_type(name: str, types: Sequence[Type]) -> Type:
    """Return the type that function `name` gives for arguments of `types`.

    Raises
    ------
    DefinitionError
        If the types do not fit; says how the function is called.
    """
    if name.startswith("cast_"):
        return Type(name.removeprefix("cast_"))
    function = FUNCTIONS[name]
    result = function.rule(list(types))
    if result is None:
        raise DefinitionError(
            f"The types do not fit {function.usage}.",
            found=", ".join(t.value for t in types) or "no arguments",
            remedy=_remedy(name, types),
        )
    return result


_INSTEAD_OF_DECIMALS = {
    "int_divide": "TRUNC(a / b)",
    "hash_bucket": "HASH_BUCKET(CAST(x AS VARCHAR), 100)",
    "is_nan": "leave it out: a decimal is never NaN",
    "is_finite": "leave it out: a decimal is never infinite",
    "multiply": "fewer places, since a product has those of both: CAST(a AS DECIMAL(18,4)) * b",
}


def _remedy(name: str, types: Sequence[Type]) -> str:
    if any(t.is_decimal for t in types):
        if name in _INSTEAD_OF_DECIMALS:
            return _INSTEAD_OF_DECIMALS[name]
        for kind in (VARCHAR, BIGINT, DOUBLE):
            if FUNCTIONS[name].rule([kind if t.is_decimal else t for t in types]) is not None:
                return f"cast the decimal: CAST(x AS {kind})"
    return "cast the arguments, e.g. CAST(x AS DOUBLE)"
