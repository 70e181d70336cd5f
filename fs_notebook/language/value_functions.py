"""More functions of numbers, text and times: names and type rules."""

from __future__ import annotations

from collections.abc import Sequence

from fs_notebook.language.rules import Rule, Table, all_of, common, numeric, whole_part
from fs_notebook.types import Type, list_of

DIFF_UNITS = (
    "microsecond", "millisecond", "second", "minute", "hour", "day",
    "month", "quarter", "year",
)  # fmt: skip
"""Units whose boundaries DATE_DIFF counts."""


def _typed(result: Type, *kinds: Type) -> Rule:
    return lambda types: result if tuple(types) == kinds else None


def _date_diff(types: Sequence[Type]) -> Type | None:
    if len(types) != 3 or types[0] is not Type.VARCHAR:
        return None
    kind = common(types[1:])
    return Type.BIGINT if kind in (Type.TIMESTAMP, Type.DATE) else None


def _regexp_extract(types: Sequence[Type]) -> Type | None:
    fits = list(types[:2]) == [Type.VARCHAR] * 2 and list(types[2:]) in ([], [Type.BIGINT])
    return Type.VARCHAR if fits else None


def _truncated(types: Sequence[Type]) -> Type | None:
    if len(types) != 1 or not types[0].is_number:
        return None
    return whole_part(types[0], rounded=False) if types[0].is_decimal else types[0]


_V, _N = Type.VARCHAR, Type.BIGINT

TABLE: Table = [
    ("log", "LOG(base, a)", numeric(Type.DOUBLE, 2)),
    ("sin", "SIN(a)", numeric(Type.DOUBLE)),
    ("cos", "COS(a)", numeric(Type.DOUBLE)),
    ("trunc", "TRUNC(a)", _truncated),
    ("is_nan", "ISNAN(a)", all_of(Type.DOUBLE, Type.BOOLEAN, 1)),
    ("is_finite", "ISFINITE(a)", all_of(Type.DOUBLE, Type.BOOLEAN, 1)),
    ("replace", "REPLACE(text, 'from', to)", _typed(_V, _V, _V, _V)),
    ("regexp_matches", "REGEXP_MATCHES(text, 'pattern')", _typed(Type.BOOLEAN, _V, _V)),
    ("regexp_extract", "REGEXP_EXTRACT(text, 'pattern' [, group])", _regexp_extract),
    ("left", "LEFT(text, count)", _typed(_V, _V, _N)),
    ("right", "RIGHT(text, count)", _typed(_V, _V, _N)),
    ("lpad", "LPAD(text, count, 'character')", _typed(_V, _V, _N, _V)),
    ("rpad", "RPAD(text, count, 'character')", _typed(_V, _V, _N, _V)),
    ("ltrim", "LTRIM(text)", _typed(_V, _V)),
    ("rtrim", "RTRIM(text)", _typed(_V, _V)),
    ("position", "POSITION(part IN text)", _typed(_N, _V, _V)),
    ("ends_with", "ENDS_WITH(text, suffix)", _typed(Type.BOOLEAN, _V, _V)),
    ("string_split", "STRING_SPLIT(text, separator)", _typed(list_of(_V), _V, _V)),
    ("second", "EXTRACT(second FROM time)", _typed(_N, Type.TIMESTAMP)),
    ("to_timestamp", "TO_TIMESTAMP(seconds)", numeric(Type.TIMESTAMP)),
    ("date_diff", "DATE_DIFF('unit', from, to)", _date_diff),
]
