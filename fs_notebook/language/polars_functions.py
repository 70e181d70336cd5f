"""What Polars' methods mean, where that is more than one call of a row function."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce

from fs_notebook.clock import to_us
from fs_notebook.decimals import text_of
from fs_notebook.language.casts import decimal_literal
from fs_notebook.language.expr import Call, Expr, Literal
from fs_notebook.language.functions import castable
from fs_notebook.language.polars_expr import Handler, PolarsTranslator
from fs_notebook.language.polars_text import format_parts, shortened
from fs_notebook.language.polars_tree import Node
from fs_notebook.language.sql_expr import membership, null_of
from fs_notebook.types import Type

_BY_HALF = {"HalfToEven": "round_even", "HalfAwayFromZero": "round"}
_TRUNCATE = {
    "1s": "second", "1m": "minute", "1h": "hour", "1d": "day", "1w": "week", "1mo": "month",
    "1q": "quarter", "1y": "year",
}  # fmt: skip
_SECONDS = {"Days": 86_400, "Hours": 3_600, "Minutes": 60, "Seconds": 1}
_DAY_US = 86_400_000_000
_INFINITY = Literal(math.inf, Type.DOUBLE)
_WHOLE = ("round", "round_even", "floor", "ceil")


def _literal(t: PolarsTranslator, node: Node) -> Expr:
    value, name = node.option
    if name is None:
        raise t.refuse(
            node, "A bare None has no type.", remedy="pl.lit(None, dtype=pl.Float64), or is_null()"
        )
    return Literal(value, Type(name))


def _list(t: PolarsTranslator, node: Node) -> Expr:
    raise t.refuse(
        node, "A list of constants can stand in is_in only.", remedy='pl.col("x").is_in([1, 2])'
    )


def _plus(t: PolarsTranslator, node: Node) -> Expr:
    left, right = map(t, node.inputs)
    text = left.type is Type.VARCHAR and right.type is Type.VARCHAR
    return t.call(node, "concat" if text else "add", left, right)


def _floored(t: PolarsTranslator, node: Node) -> Expr:
    """Divide and floor: the language's own ``//`` cuts off toward zero, as SQL does."""
    top, bottom = map(t, node.inputs)
    if top.type is Type.BIGINT and bottom.type is Type.BIGINT:
        rest = _positive_rest(t, node, top, bottom)
        return t.call(node, "int_divide", t.call(node, "subtract", top, rest), bottom)
    return t.call(node, "floor", t.call(node, "divide", top, bottom))


def _modulo(t: PolarsTranslator, node: Node) -> Expr:
    """Take the rest that has the divisor's sign; the language's own has the dividend's."""
    top, bottom = map(t, node.inputs)
    rest = t.call(node, "modulo", top, bottom)
    if rest.type is Type.BIGINT:
        return _positive_rest(t, node, top, bottom)
    zero = Literal(0, Type.BIGINT)
    signs = [t.call(node, "lt", side, zero) for side in (rest, bottom)]
    other = t.call(node, "and", t.call(node, "ne", rest, zero), t.call(node, "ne", *signs))
    return t.call(node, "case", other, t.call(node, "add", rest, bottom), rest)


def _positive_rest(t: PolarsTranslator, node: Node, top: Expr, bottom: Expr) -> Expr:
    rest = t.call(node, "modulo", top, bottom)
    return t.call(node, "modulo", t.call(node, "add", rest, bottom), bottom)


def _xor(t: PolarsTranslator, node: Node) -> Expr:
    return t.call(node, "ne", *map(t.condition, node.inputs))


def _eq_missing(t: PolarsTranslator, node: Node) -> Expr:
    left, right = map(t, node.inputs)
    nulls = t.call(node, "and", t.call(node, "is_null", left), t.call(node, "is_null", right))
    same = t.call(node, "coalesce", t.call(node, "eq", left, right), nulls)
    return same if node.kind == "binary.EqValidity" else t.call(node, "not", same)


def _negate(t: PolarsTranslator, node: Node) -> Expr:
    value = t(node.inputs[0])
    if isinstance(value, Literal) and value.type.is_number and value.value != -(2**63):
        if value.value is None:
            return value
        if value.type.is_decimal:
            return Literal(text_of(Decimal(str(value.value)).copy_negate(), value.type), value.type)
        assert isinstance(value.value, (int, float))
        return Literal(-value.value, value.type)
    return t.call(node, "negate", value)


def _log(t: PolarsTranslator, node: Node) -> Expr:
    value, base = map(t, node.inputs)
    names = {math.e: "ln", 2: "log2", 10: "log10"}
    known = names.get(base.value) if isinstance(base, Literal) else None  # type: ignore[arg-type]
    if known is None:
        raise t.refuse(node, "A logarithm has the base e, 2 or 10.", remedy='pl.col("x").log() / c')
    return t.call(node, known, value)


def _not_null(t: PolarsTranslator, node: Node) -> Expr:
    return t.call(node, "not", t.call(node, "is_null", t(node.inputs[0])))


def _nan(function: str) -> Handler:
    # NaN equals itself and is greater than infinity.
    def handle(t: PolarsTranslator, node: Node) -> Expr:
        value = t(node.inputs[0])
        if not value.type.is_number:
            return t.call(node, "abs", value)
        if node.kind in ("fn.Boolean.IsFinite", "fn.Boolean.IsInfinite"):
            value = t.call(node, "abs", value)
        return t.call(node, function, value, _INFINITY)

    return handle


def _in(t: PolarsTranslator, node: Node) -> Expr:
    value = t(node.inputs[0])
    options = node.inputs[1]
    if options.kind != "list":
        raise t.refuse(node, "is_in takes a list that is written out.", remedy='is_in(["a", "b"])')
    known = [t(n) for n in options.inputs if n.option[0] is not None]
    if not known:
        raise t.refuse(node, "is_in of no value is never true.", remedy="leave it out")
    found = t.call(node, "in", value, *membership(known))
    if not node.option["nulls_equal"]:
        return found
    return t.call(node, "coalesce", found, Literal(len(known) < len(options.inputs), Type.BOOLEAN))


def _between(t: PolarsTranslator, node: Node) -> Expr:
    value, low, high = map(t, node.inputs)
    closed = node.option["closed"]
    above = t.call(node, "ge" if closed in ("Both", "Left") else "gt", value, low)
    return t.call(
        node, "and", above, t.call(node, "le" if closed in ("Both", "Right") else "lt", value, high)
    )


def _ternary(t: PolarsTranslator, node: Node) -> Expr:
    args: list[Expr | None] = []
    rest = node
    while rest.kind == "ternary":
        condition, truthy, rest = rest.inputs
        args += [t.condition(condition), _maybe_null(t, truthy)]
    args.append(_maybe_null(t, rest))
    # A null without a type takes the one of the first value that has one.
    typed = next((a for i, a in enumerate(args) if a is not None and _is_value(i, args)), None)
    if typed is None:
        raise t.refuse(node, "No branch has a type.", remedy="pl.lit(None, dtype=pl.Float64)")
    return t.call(node, "case", *(null_of(typed.type) if a is None else a for a in args))


def _is_value(index: int, args: Sequence[object]) -> bool:
    return index % 2 == 1 or index == len(args) - 1


def _maybe_null(t: PolarsTranslator, node: Node) -> Expr | None:
    return None if node.kind == "literal" and node.option == [None, None] else t(node)


def _horizontal(function: str) -> Handler:
    def handle(t: PolarsTranslator, node: Node) -> Expr:
        return reduce(lambda a, b: t.call(node, function, a, b), map(t.condition, node.inputs))

    return handle


def _clip(t: PolarsTranslator, node: Node) -> Expr:
    value, *bounds = map(t, node.inputs)
    if value.type is Type.BIGINT and any(b.type is not Type.BIGINT for b in bounds):
        raise t.refuse(
            node, "Whole numbers are clipped at whole numbers.",
            remedy='pl.col("x").cast(pl.Float64).clip(…)',
        )  # fmt: skip
    args: list[Expr] = []
    if node.option["has_min"]:
        args += [t.call(node, "lt", value, bounds[0]), bounds[0]]
    if node.option["has_max"]:
        above = t.call(node, "gt", value, bounds[-1])
        if value.type is Type.DOUBLE:
            # NaN stays NaN, although it is above every bound.
            above = t.call(node, "and", above, t.call(node, "le", value, _INFINITY))
        args += [above, bounds[-1]]
    return t.call(node, "case", *args, value) if args else value


def _round(t: PolarsTranslator, node: Node) -> Expr:
    digits, function = node.option["decimals"], _BY_HALF.get(node.option["mode"])
    if function is None or not 0 <= digits <= 15:
        raise t.refuse(
            node, "Rounding takes a number of digits from 0 to 15, and one of two modes.",
            remedy='round(2), or round(2, mode="half_away_from_zero") as SQL does',
        )  # fmt: skip
    value = t(node.inputs[0])
    return t.call(node, function, value, *([Literal(digits, Type.BIGINT)] if digits else []))


def _fill(t: PolarsTranslator, node: Node) -> Expr:
    value = t(node.inputs[0])
    constant = {"Zero": 0, "One": 1}.get(str(node.option))
    if constant is None or not value.type.is_number:
        raise t.refuse(
            node, "A fold has no neighbours to fill from.", remedy="fill_null(0), or .last()"
        )
    return t.call(node, "coalesce", value, Literal(constant, Type.BIGINT))


def _cast(t: PolarsTranslator, node: Node) -> Expr:
    name = node.option["to"]
    if name is None or node.option["mode"] == "Overflowing":
        raise t.refuse(
            node, "There is no such cast.", found=shortened(node),
            remedy="pl.Int64, pl.Float64, pl.Decimal(18, 2), pl.String, pl.Boolean, pl.Date, "
            "pl.Datetime('us', 'UTC')",
        )  # fmt: skip
    target = Type(name)
    if node.inputs[0].kind == "literal" and node.inputs[0].option == [None, None]:
        return null_of(target)
    return cast(t, node, t(node.inputs[0]), target)


def cast(t: PolarsTranslator, node: Node, value: Expr, target: Type) -> Expr:
    """Cast as Polars does: whole numbers are what is left of a fraction."""
    if value.type is target:
        return value
    if not castable(value.type, target):
        raise t.refuse(
            node, f"A {value.type} cannot be cast to {target}.",
            remedy="a cast between numbers, text, booleans and times that has a meaning",
        )  # fmt: skip
    if isinstance(value, Literal) and isinstance(value.value, int):
        # pl.date(2024, 1, 31) is a time that is cast.
        if (value.type, target) == (Type.TIMESTAMP, Type.DATE):
            return Literal(value.value // _DAY_US, target)
        if (value.type, target) == (Type.DATE, Type.TIMESTAMP):
            return Literal(value.value * _DAY_US, target)
    if target.is_decimal and isinstance(value, Literal) and value.value is not None:
        constant = decimal_literal(str(value.value), target)
        if constant is not None:
            return constant
    if value.type is Type.DOUBLE and target is Type.BIGINT:
        value = _whole(t, node, value)
    if value.type.is_decimal and target is Type.BIGINT and value.type.scale:
        value = t.call(node, "trunc", value)
    return Call(f"cast_{target.value}", (value,), target)


def _whole(t: PolarsTranslator, node: Node, value: Expr) -> Expr:
    """Cut a fraction off; the language's own cast would round."""
    if isinstance(value, Call) and value.function in _WHOLE and len(value.args) == 1:
        return value
    below = t.call(node, "lt", value, Literal(0, Type.BIGINT))
    return t.call(node, "case", below, t.call(node, "ceil", value), t.call(node, "floor", value))


def _contains(t: PolarsTranslator, node: Node) -> Expr:
    value, part = map(t, node.inputs)
    if not node.option["literal"]:
        constant = part.value if isinstance(part, Literal) else None
        if not isinstance(constant, str) or re.search(r"[\\.^$|?*+()\[\]{}]", constant):
            raise t.refuse(
                node, "A regular expression is not in the feature language.",
                remedy='str.contains("news", literal=True), starts_with, ends_with',
            )  # fmt: skip
    return t.call(node, "contains", value, part)


def _ends_with(t: PolarsTranslator, node: Node) -> Expr:
    value, part = map(t, node.inputs)
    constant = part.value if isinstance(part, Literal) else None
    if not isinstance(constant, str) or "%" in constant or "_" in constant:
        raise t.refuse(
            node, "ends_with takes a constant without % and _.", remedy='str.ends_with("news")'
        )
    return t.call(node, "like", value, Literal(f"%{constant}", Type.VARCHAR))


def _strip(t: PolarsTranslator, node: Node) -> Expr:
    if node.inputs[1].kind != "literal" or node.inputs[1].option[0] != " ":
        raise t.refuse(node, "Only blanks are stripped.", remedy='str.strip_chars(" ")')
    return t.call(node, "trim", t(node.inputs[0]))


def _substring(t: PolarsTranslator, node: Node) -> Expr:
    bounds = [n.option[0] if n.kind == "literal" else -1 for n in node.inputs[1:]]
    start, length = (0, *bounds) if node.kind == "fn.StringExpr.Head" else bounds
    if not isinstance(start, int) or start < 0 or (
        length is not None and not (isinstance(length, int) and length >= 0)
    ):  # fmt: skip
        raise t.refuse(
            node, "A slice of text is two constants from 0 on: where, and how long.",
            remedy="str.slice(0, 3), str.head(3)",
        )  # fmt: skip
    known = [start + 1] if length is None else [start + 1, length]
    return t.call(node, "substring", t(node.inputs[0]), *(Literal(n, Type.BIGINT) for n in known))


def _texts(t: PolarsTranslator, node: Node) -> list[Expr]:
    return [cast(t, node, t(n), Type.VARCHAR) for n in node.inputs]


def _concat(t: PolarsTranslator, node: Node) -> Expr:
    if node.option["ignore_nulls"]:
        raise t.refuse(
            node, "concat_str of a null is null.", remedy='pl.col("x").fill_null("") in it'
        )
    texts, between = _texts(t, node), node.option["delimiter"]
    if between:
        parts = [p for text in texts for p in (Literal(between, Type.VARCHAR), text)]
        texts = parts[1:]
    return texts[0] if len(texts) == 1 else t.call(node, "concat", *texts)


def _format(t: PolarsTranslator, node: Node) -> Expr:
    parts: list[Expr] = []
    values: list[Expr | None] = [*_texts(t, node), None]
    for text, value in zip(format_parts(node), values, strict=True):
        parts += [Literal(text, Type.VARCHAR)] if text else []
        parts += [value] if value is not None else []
    return parts[0] if len(parts) == 1 else t.call(node, "concat", *parts)


def _strptime(t: PolarsTranslator, node: Node) -> Expr:
    dtype, options = node.option
    shown = dtype.get("Literal") if isinstance(dtype, dict) else None
    target = Type.DATE if shown == "Date" else Type.TIMESTAMP
    known = shown in ("Date", {"Datetime": ["Microseconds", None]}) or shown == {
        "Datetime": ["Microseconds", {"inner": "UTC"}]}  # fmt: skip
    if not known or options["format"] is not None or not options["exact"]:
        raise t.refuse(
            node, "A text is read as a time in one way: ISO 8601.",
            remedy="str.to_datetime(), without a format",
        )  # fmt: skip
    return cast(t, node, t(node.inputs[0]), target)


def _truncate(t: PolarsTranslator, node: Node) -> Expr:
    every = node.inputs[1].option
    unit = _TRUNCATE.get(every[0]) if isinstance(every, list) else None
    if unit is None:
        raise t.refuse(node, "Times are truncated to one whole unit.", remedy=", ".join(_TRUNCATE))
    return t.call(node, "date_trunc", Literal(unit, Type.VARCHAR), t(node.inputs[0]))


def _date(t: PolarsTranslator, node: Node) -> Expr:
    return cast(t, node, t(node.inputs[0]), Type.DATE)


def _zone(t: PolarsTranslator, node: Node) -> Expr:
    if node.option != {"inner": "UTC"}:
        raise t.refuse(node, "Times are UTC.", remedy='dt.convert_time_zone("UTC"), or nothing')
    return t(node.inputs[0])


def _moment(t: PolarsTranslator, node: Node) -> Expr:
    parts = [n.option[0] if n.kind == "literal" else None for n in node.inputs[:7]]
    if node.option.get("time_zone") not in (None, {"inner": "UTC"}):
        raise t.refuse(node, "Times are UTC.", remedy='pl.datetime(2024, 1, 31, time_zone="UTC")')
    try:
        moment = datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]
    except (TypeError, ValueError):
        raise t.refuse(
            node, "A time is made of constants.", remedy="pl.datetime(2024, 1, 31, 12)"
        ) from None
    return Literal(to_us(moment), Type.TIMESTAMP)


def _total(unit: str) -> Handler:
    def handle(t: PolarsTranslator, node: Node) -> Expr:
        value = t(node.inputs[0])
        if value.type is not Type.INTERVAL:
            raise t.refuse(
                node, "This is no length of time.", remedy='(pl.col("end") - pl.col("start"))'
            )
        total = t.call(node, "epoch", value)
        if unit != "Seconds":
            total = t.call(node, "divide", total, Literal(_SECONDS[unit], Type.BIGINT))
        if node.option["fractional"]:
            return total
        return Call("cast_BIGINT", (_whole(t, node, total),), Type.BIGINT)

    return handle


HANDLERS: dict[str, Handler] = {
    "column": PolarsTranslator.column,
    "literal": _literal,
    "list": _list,
    "alias": lambda t, n: t(n.inputs[0]),
    "ternary": _ternary,
    "cast": _cast,
    "binary.Plus": _plus,
    "binary.FloorDivide": _floored,
    "binary.Modulus": _modulo,
    "binary.Xor": _xor,
    "binary.EqValidity": _eq_missing,
    "binary.NotEqValidity": _eq_missing,
    "fn.Negate": _negate,
    "fn.Log": _log,
    "fn.Clip": _clip,
    "fn.Round": _round,
    "fn.FillNullWithStrategy": _fill,
    "fn.Boolean.IsNotNull": _not_null,
    "fn.Boolean.IsNan": _nan("gt"),
    "fn.Boolean.IsNotNan": _nan("le"),
    "fn.Boolean.IsFinite": _nan("lt"),
    "fn.Boolean.IsInfinite": _nan("eq"),
    "fn.Boolean.IsIn": _in,
    "fn.Boolean.IsBetween": _between,
    "fn.Boolean.AllHorizontal": _horizontal("and"),
    "fn.Boolean.AnyHorizontal": _horizontal("or"),
    "fn.StringExpr.Contains": _contains,
    "fn.StringExpr.EndsWith": _ends_with,
    "fn.StringExpr.StripChars": _strip,
    "fn.StringExpr.Slice": _substring,
    "fn.StringExpr.Head": _substring,
    "fn.StringExpr.ConcatHorizontal": _concat,
    "fn.StringExpr.Format": _format,
    "fn.StringExpr.Strptime": _strptime,
    "fn.TemporalExpr.Truncate": _truncate,
    "fn.TemporalExpr.Date": _date,
    "fn.TemporalExpr.DatetimeFunction": _moment,
    "fn.TemporalExpr.ConvertTimeZone": _zone,
    **{f"fn.TemporalExpr.Total{unit}": _total(unit) for unit in _SECONDS},
}
