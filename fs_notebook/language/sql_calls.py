"""SQL's ways of writing functions that take a special reading: lists, structs, and more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl
from sqlglot import exp

from fs_notebook.errors import DefinitionError
from fs_notebook.language.expr import Expr, Literal
from fs_notebook.language.list_functions import field_of, struct_of_exprs
from fs_notebook.language.operations import check_constants
from fs_notebook.language.value_functions import DIFF_UNITS
from fs_notebook.types import Type

if TYPE_CHECKING:
    from fs_notebook.language.sql_expr import Translator

Read = Callable[["Translator", exp.Expr], Expr]

_NAMED = {
    "CLAMP": "clip", "CLIP": "clip", "FILL": "coalesce", "HASH_BUCKET": "hash_bucket",
    "MIN_MAX_SCALE": "min_max_scale", "Z_SCORE": "z_score", "QUANTILE_BIN": "quantile_bin",
    "EMBED": "embed", "ISFINITE": "is_finite", "LIST_AVG": "list_avg", "LIST_MEAN": "list_avg",
    "LIST_EXTRACT": "list_extract", "LIST_ELEMENT": "list_extract", "LIST_REVERSE": "list_reverse",
    "LIST_SLICE": "list_slice", "LIST_SUM": "list_sum", "SUFFIX": "ends_with",
    "ARRAY_LENGTH": "list_length", "LIST_REVERSE_SORT": "list_reverse_sort",
}  # fmt: skip
_WITH_LIST = {"BIN": "bin", "ONE_HOT": "one_hot"}
"""Functions whose second argument is a written list, which becomes their constants."""

_NOW_NAMES = ("NOW", "TODAY", "GET_CURRENT_TIMESTAMP", "CURRENT_TIME")
_NOW_NODES = (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.CurrentDatetime)


def special_call(translate: Translator, node: exp.Expr) -> Expr | None:
    """Return what a node of a special form means; None where it is no such form.

    Raises
    ------
    DefinitionError
        If it is one, and cannot be folded.
    """
    _check_deterministic(translate, node)
    read = _READ.get(type(node))
    if read is not None:
        return read(translate, node)
    if not isinstance(node, exp.Anonymous):
        return None
    name = node.name.upper()
    if name in _WITH_LIST:
        return _with_list(translate, node)
    if name == "DATE_PART" and len(node.expressions) == 2:
        part, moment = (translate(e) for e in node.expressions)
        return translate.part(_text(part, "DATE_PART('year', ts)").lower(), moment, node)
    if name in _NAMED:
        args = [translate(e) for e in node.expressions]
        return check_constants(translate.call(_NAMED[name], *args))
    return None


def _check_deterministic(translate: Translator, node: exp.Expr) -> None:
    from fs_notebook.language.sql_expr import refuse

    name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
    if isinstance(node, _NOW_NODES) or name in _NOW_NAMES:
        raise refuse(
            node, translate.text,
            "There is no now in a feature: its value is asked at a time t, of a label or a reader.",
            remedy="TIME_SINCE_LAST() over events, or ts - other_time within one",
        )  # fmt: skip
    if name == "AGE":
        raise refuse(
            node, translate.text, "AGE counts months, which have no fixed length.",
            remedy="ts - other_time, or DATE_DIFF('day', other_time, ts)",
        )  # fmt: skip
    if isinstance(node, (exp.Rand, exp.Uuid)) or name in ("RANDOM", "UUID", "GEN_RANDOM_UUID"):
        raise refuse(
            node, translate.text, "Chance cannot be folded twice to the same value.",
            remedy="HASH_BUCKET(key, 100) for a choice that stays",
        )  # fmt: skip


def qualified(translate: Translator, node: exp.Column) -> Expr | None:
    """Return the field that ``struct.field`` names; None where what is in front is no struct."""
    names = [part.name for part in node.parts]
    known = {n for n, t in translate.columns if t.fields}
    folded = {n.casefold() for n in known}
    if len(names) > 2 and names[0].casefold() not in folded:
        # What is in front of the column names the table, as everywhere.
        names = names[1:]
    if len(names) == 1 or names[0].casefold() not in folded:
        return None
    found = translate.column(exp.column(names[0]))
    for name in names[1:]:
        found = field_of(found, name)
    return found


def _text(value: Expr, usage: str) -> str:
    if not isinstance(value, Literal) or not isinstance(value.value, str):
        raise DefinitionError("A constant text belongs there.", remedy=usage)
    return value.value


def _bracket(translate: Translator, node: exp.Expr) -> Expr:
    value = translate(node.this)
    if len(node.expressions) != 1:
        raise DefinitionError("One place in a list at a time.", remedy="list[1], list[1:3]")
    inside = node.expressions[0]
    if value.type.fields:
        return field_of(value, _text(translate(inside), "struct['field']"))
    if isinstance(inside, exp.Slice):
        ends = (inside.this, inside.expression)
        open_ends = (Literal(1, Type.BIGINT), Literal(-1, Type.BIGINT))
        begin, end = (
            o if e is None else translate(e) for e, o in zip(ends, open_ends, strict=True)
        )
        if inside.args.get("step"):
            raise DefinitionError("A slice has no steps.", remedy="list[1:3]")
        return translate.call("list_slice", value, begin, end)
    return translate.call("list_extract", value, translate(inside))


def _array(translate: Translator, node: exp.Expr) -> Expr:
    if not node.expressions:
        raise DefinitionError("An empty list has no type.", remedy="[1, 2], or leave it out")
    return translate.call("list", *map(translate, node.expressions))


def _struct(translate: Translator, node: exp.Expr) -> Expr:
    fields = []
    for part in node.expressions:
        if not isinstance(part, exp.PropertyEQ):
            raise DefinitionError("A struct's fields have names.", remedy="{'a': x, 'b': y}")
        fields.append((part.this.name, translate(part.expression)))
    return struct_of_exprs(fields)


def _dot(translate: Translator, node: exp.Expr) -> Expr:
    return field_of(translate(node.this), node.expression.name)


def _length(translate: Translator, node: exp.Expr) -> Expr:
    value = translate(node.this)
    return translate.call("length" if value.type is Type.VARCHAR else "list_length", value)


def _reversed(translate: Translator, node: exp.Expr) -> Expr:
    return translate.call("list_reverse", translate(node.this))


def _sorted(translate: Translator, node: exp.Expr) -> Expr:
    if node.expression is not None:
        raise DefinitionError("LIST_SORT takes a list.", remedy="LIST_SORT(list)")
    down = node.args.get("asc") is not None and not node.args["asc"].this
    name = "list_reverse_sort" if down else "list_sort"
    return translate.call(name, translate(node.this))


def _of_this(function: str) -> Read:
    return lambda translate, node: translate.call(function, translate(node.this))


def _of_two(function: str) -> Read:
    return lambda translate, node: translate.call(
        function, translate(node.this), translate(node.expression)
    )


def _date_diff(translate: Translator, node: exp.Expr) -> Expr:
    unit = Literal(node.args["unit"].name.lower() if node.args.get("unit") else "", Type.VARCHAR)
    if unit.value == "week":
        raise DefinitionError(
            "Dialects count weeks differently.", found="DATE_DIFF('week', …)",
            remedy="DATE_DIFF('day', a, b) // 7",
        )  # fmt: skip
    if unit.value not in DIFF_UNITS:
        raise DefinitionError(
            "There is no such unit of time.", found=str(unit.value), remedy=", ".join(DIFF_UNITS)
        )
    start, end = translate(node.expression), translate(node.this)
    return translate.call("date_diff", unit, start, end)


def _to_timestamp(translate: Translator, node: exp.Expr) -> Expr:
    if node.args.get("scale") is not None:
        raise DefinitionError(
            "Only seconds since the epoch are understood.", remedy="TO_TIMESTAMP(x / 1000)"
        )
    return translate.call("to_timestamp", translate(node.this))


def _log(translate: Translator, node: exp.Expr) -> Expr:
    if node.expression is None:
        return translate.call("log10", translate(node.this))
    if node.this.name in ("2", "10"):
        return translate.call(f"log{node.this.name}", translate(node.expression))
    return translate.call("log", translate(node.this), translate(node.expression))


def _trim(translate: Translator, node: exp.Expr) -> Expr:
    if node.expression is not None:
        raise DefinitionError("TRIM takes away spaces only.", remedy="REPLACE(text, 'x', '')")
    position = str(node.args.get("position") or "").upper()
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(position, "trim")
    return translate.call(name, translate(node.this))


def _trunc(translate: Translator, node: exp.Expr) -> Expr:
    if node.args.get("decimals") is not None:
        raise DefinitionError("TRUNC takes one number.", remedy="ROUND(x, 2)")
    return translate.call("trunc", translate(node.this))


def _replace(translate: Translator, node: exp.Expr) -> Expr:
    what = translate(node.expression)
    _text(what, "REPLACE(text, 'from', to)")
    to = translate(node.args["replacement"])
    return translate.call("replace", translate(node.this), what, to)


def _pattern(value: Expr, usage: str, group: int) -> Expr:
    text = _text(value, usage)
    try:
        groups = pl.select(pl.lit("").str.extract_groups(text)).to_series().dtype
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            "This is no regular expression.", found=str(error).splitlines()[0][:200], remedy=usage
        ) from None
    count = len(groups.fields) if isinstance(groups, pl.Struct) else 0
    if group > count:
        raise DefinitionError(
            f"The regular expression has no group {group}.", found=f"{count} groups", remedy=usage
        )
    return value


def _regexp_matches(translate: Translator, node: exp.Expr) -> Expr:
    usage = "REGEXP_MATCHES(text, 'a.*z')"
    if node.args.get("flag") is not None:
        raise DefinitionError("Flags stand in the pattern.", remedy="'(?i)pattern'")
    pattern = _pattern(translate(node.expression), usage, 0)
    return translate.call("regexp_matches", translate(node.this), pattern)


def _regexp_extract(translate: Translator, node: exp.Expr) -> Expr:
    usage = "REGEXP_EXTRACT(text, '(a+)b', 1)"
    group = Literal(0, Type.BIGINT)
    if node.args.get("group") is not None:
        given = translate(node.args["group"])
        if not isinstance(given, Literal) or not isinstance(given.value, int) or given.value < 0:
            raise DefinitionError("A group is a number that is written out.", remedy=usage)
        group = given
    if any(node.args.get(k) is not None for k in ("position", "occurrence", "parameters")):
        raise DefinitionError("Only a group follows the pattern.", remedy=usage)
    pattern = _pattern(translate(node.expression), usage, int(group.value or 0))
    return translate.call("regexp_extract", translate(node.this), pattern, group)


def _pad(translate: Translator, node: exp.Expr) -> Expr:
    fill = node.args.get("fill_pattern")
    char = Literal(" ", Type.VARCHAR) if fill is None else translate(fill)
    if len(_text(char, "LPAD(text, 5, '0')")) != 1:
        raise DefinitionError("Text is filled up with one character.", remedy="LPAD(text, 5, '0')")
    name = "lpad" if node.args.get("is_left") else "rpad"
    return translate.call(name, translate(node.this), translate(node.expression), char)


def _position(translate: Translator, node: exp.Expr) -> Expr:
    if node.args.get("position") is not None or node.args.get("occurrence") is not None:
        raise DefinitionError("The first place is found.", remedy="POSITION('a' IN text)")
    return translate.call("position", translate(node.this), translate(node.args["substr"]))


def _struct_extract(translate: Translator, node: exp.Expr) -> Expr:
    name = _text(translate(node.expression), "STRUCT_EXTRACT(struct, 'field')")
    return field_of(translate(node.this), name)


def _with_list(translate: Translator, node: exp.Expr) -> Expr:
    function = _WITH_LIST[node.name.upper()]
    usage = "BIN(x, [0, 10, 100])" if function == "bin" else "ONE_HOT(genre, ['news', 'sport'])"
    if len(node.expressions) != 2 or not isinstance(node.expressions[1], exp.Array):
        raise DefinitionError(f"{node.name.upper()} takes a value and a list.", remedy=usage)
    constants = [translate(e) for e in node.expressions[1].expressions]
    value = translate(node.expressions[0])
    return check_constants(translate.call(function, value, *constants))


_READ: dict[type[exp.Expr], Read] = {
    exp.Array: _array,
    exp.ArrayContains: _of_two("list_contains"),
    exp.ArrayDistinct: _of_this("list_distinct"),
    exp.ArrayMax: _of_this("list_max"),
    exp.ArrayMin: _of_this("list_min"),
    exp.ArrayReverse: _reversed,
    exp.ArraySize: _of_this("list_length"),
    exp.ArraySort: _sorted,
    exp.ArrayToString: _of_two("array_to_string"),
    exp.Bracket: _bracket,
    exp.DateDiff: _date_diff,
    exp.Dot: _dot,
    exp.EndsWith: _of_two("ends_with"),
    exp.Left: _of_two("left"),
    exp.Length: _length,
    exp.Log: _log,
    exp.Pad: _pad,
    exp.Pi: lambda translate, node: Literal(math.pi, Type.DOUBLE),
    exp.RegexpExtract: _regexp_extract,
    exp.RegexpLike: _regexp_matches,
    exp.Replace: _replace,
    exp.Right: _of_two("right"),
    exp.Split: _of_two("string_split"),
    exp.StrPosition: _position,
    exp.Struct: _struct,
    exp.StructExtract: _struct_extract,
    exp.Trim: _trim,
    exp.Trunc: _trunc,
    exp.UnixToTime: _to_timestamp,
}
