"""A Polars expression's tree as the Python that makes it: what errors and the catalog show.

What `render` gives for a tree that the language understands is Python: evaluated, it has the same
plan again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

import polars as pl

from fs_notebook.clock import from_us
from fs_notebook.errors import near_names
from fs_notebook.language.polars_tree import NAMESPACES, Node
from fs_notebook.types import Type

SYMBOLS = {
    "Plus": "+", "Minus": "-", "Multiply": "*", "TrueDivide": "/", "FloorDivide": "//",
    "Modulus": "%", "Eq": "==", "NotEq": "!=", "Lt": "<", "LtEq": "<=", "Gt": ">", "GtEq": ">=",
    "And": "&", "Or": "|", "Xor": "^",
}  # fmt: skip

METHODS = {
    "agg.Count": "count", "agg.First": "first", "agg.FirstNonNull": "first", "agg.Last": "last",
    "agg.LastNonNull": "last", "agg.Max": "max", "agg.Mean": "mean", "agg.Median": "median",
    "agg.Min": "min", "agg.NUnique": "n_unique", "agg.Std": "std", "agg.Sum": "sum",
    "agg.Var": "var", "alias": "alias", "binary.EqValidity": "eq_missing",
    "binary.NotEqValidity": "ne_missing", "cast": "cast", "filter": "filter",
    "fn.Abs": "abs", "fn.ApproxNUnique": "approx_n_unique", "fn.ArgMax": "arg_max",
    "fn.ArgMin": "arg_min", "fn.Boolean.All": "all", "fn.Boolean.Any": "any",
    "fn.Boolean.IsBetween": "is_between", "fn.Boolean.IsFinite": "is_finite",
    "fn.Boolean.IsIn": "is_in", "fn.Boolean.IsInfinite": "is_infinite",
    "fn.Boolean.IsNan": "is_nan", "fn.Boolean.IsNotNan": "is_not_nan",
    "fn.Boolean.IsNotNull": "is_not_null", "fn.Boolean.IsNull": "is_null",
    "fn.Boolean.Not": "not_", "fn.Ceil": "ceil", "fn.Clip": "clip", "fn.DropNans": "drop_nans",
    "fn.DropNulls": "drop_nulls", "fn.Entropy": "entropy", "fn.Exp": "exp",
    "fn.FillNull": "fill_null", "fn.FillNullWithStrategy": "fill_null", "fn.Floor": "floor",
    "fn.Kurtosis": "kurtosis", "fn.Log": "log", "fn.MaxBy": "max_by", "fn.MinBy": "min_by",
    "fn.Mode": "mode", "fn.Negate": "neg", "fn.NullCount": "null_count",
    "fn.Pow.Generic": "pow", "fn.Pow.Sqrt": "sqrt", "fn.Quantile": "quantile",
    "fn.Reverse": "reverse", "fn.Round": "round", "fn.Sign": "sign", "fn.Skew": "skew",
    "fn.StringExpr.Contains": "str.contains", "fn.StringExpr.EndsWith": "str.ends_with",
    "fn.StringExpr.Head": "str.head", "fn.StringExpr.LenChars": "str.len_chars",
    "fn.StringExpr.Lowercase": "str.to_lowercase", "fn.StringExpr.Slice": "str.slice",
    "fn.StringExpr.StartsWith": "str.starts_with",
    "fn.StringExpr.StripChars": "str.strip_chars", "fn.StringExpr.Strptime": "str.to_datetime",
    "fn.StringExpr.Uppercase": "str.to_uppercase", "fn.TemporalExpr.ConvertTimeZone":
    "dt.convert_time_zone", "fn.TemporalExpr.Date": "dt.date", "fn.TemporalExpr.Day": "dt.day",
    "fn.TemporalExpr.Hour": "dt.hour", "fn.TemporalExpr.Minute": "dt.minute",
    "fn.TemporalExpr.Month": "dt.month", "fn.TemporalExpr.OrdinalDay": "dt.ordinal_day",
    "fn.TemporalExpr.Quarter": "dt.quarter", "fn.TemporalExpr.TotalDays": "dt.total_days",
    "fn.TemporalExpr.TotalHours": "dt.total_hours",
    "fn.TemporalExpr.TotalMinutes": "dt.total_minutes",
    "fn.TemporalExpr.TotalSeconds": "dt.total_seconds",
    "fn.TemporalExpr.Truncate": "dt.truncate", "fn.TemporalExpr.Week": "dt.week",
    "fn.TemporalExpr.WeekDay": "dt.weekday", "fn.TemporalExpr.Year": "dt.year",
    "fn.Unique": "unique", "fn.UniqueCounts": "unique_counts", "gather": "get",
    "rolling": "rolling", "slice": "slice", "sort_by": "sort_by",
}  # fmt: skip
"""How the methods of the language are called, by the kind of node that they make."""

FUNCTIONS = {
    "fn.Boolean.AllHorizontal": "all_horizontal", "fn.Boolean.AnyHorizontal": "any_horizontal",
    "fn.Coalesce": "coalesce", "fn.Correlation": "corr", "fn.MaxHorizontal": "max_horizontal",
    "fn.MinHorizontal": "min_horizontal", "fn.StringExpr.ConcatHorizontal": "concat_str",
    "fn.StringExpr.Format": "format", "fn.TemporalExpr.DatetimeFunction": "datetime",
    "len": "len",
}  # fmt: skip
"""The same of what is called as ``pl.name(…)``."""

_MODES = {"HalfToEven": "half_to_even", "HalfAwayFromZero": "half_away_from_zero"}
_DTYPES = {
    Type.BIGINT: "pl.Int64", Type.DOUBLE: "pl.Float64", Type.VARCHAR: "pl.String",
    Type.BOOLEAN: "pl.Boolean", Type.DATE: "pl.Date", Type.TIMESTAMP: 'pl.Datetime("us", "UTC")',
}  # fmt: skip


def method_of(kind: str) -> str:
    """Return the method's name for a kind of node, one that is not understood too."""
    if kind in METHODS:
        return METHODS[kind]
    *rooms, last = kind.split(".")
    room = rooms[-1] if rooms else ""
    if room == "binary" and last in SYMBOLS:
        return SYMBOLS[last]
    prefix = NAMESPACES.get(room, "")
    known = dir(getattr(pl.col(""), prefix.rstrip("."))) if prefix.endswith(".") else dir(pl.Expr)
    squeezed = {n.replace("_", ""): n for n in known if not n.startswith("_")}
    real = squeezed.get(last.lower()) or squeezed.get(f"to{last.lower()}")
    return prefix + (real or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower())


def near_methods(kind: str) -> list[str]:
    """Return methods of the language that look like the one of `kind`."""
    return near_names(method_of(kind), sorted({*METHODS.values(), *FUNCTIONS.values()}))


def shortened(node: Node, *, chars_max: int = 120) -> str:
    """Return a node's Python on one line, for an error."""
    text = render(node)
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def render(node: Node) -> str:
    """Return the Python that makes a node."""
    if node.kind.startswith("binary.") and node.kind.removeprefix("binary.") in SYMBOLS:
        left, right = node.inputs
        symbol = SYMBOLS[node.kind.removeprefix("binary.")]
        return f"{_operand(left)} {symbol} {_operand(right, right=True)}"
    drawn = _SPECIAL.get(node.kind)
    if drawn is not None:
        return drawn(node)
    if node.kind in FUNCTIONS:
        return f"pl.{FUNCTIONS[node.kind]}({', '.join(map(render, node.inputs))})"
    if not node.inputs:
        return f"pl.{method_of(node.kind)}()"
    return _method(node, *map(plain, node.inputs[1:]))


def named_text(name: str | None, node: Node) -> str:
    """Return Python that gives an expression under a name; None leaves it its own."""
    if name is None or (node.kind == "column" and node.option == name):
        return render(node)
    inner = node.inputs[0] if node.kind == "alias" else node
    return render(Node("alias", (inner,), name))


def _method(node: Node, *args: str, name: str = "") -> str:
    return f"{_operand(node.inputs[0])}.{name or method_of(node.kind)}({', '.join(args)})"


def _operand(node: Node, *, right: bool = False) -> str:
    text = plain(node) if right else render(node)
    return f"({text})" if node.kind.startswith("binary.") else text


def plain(node: Node) -> str:
    """Return an argument: constants as they are, everything else as an expression."""
    kinds = (None, "BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR")
    if node.kind == "literal" and node.option[1] in kinds:
        value, kind = node.option
        return repr(value) if value is not None or kind is None else render(node)
    if node.kind == "list":
        return f"[{', '.join(map(_listed, node.inputs))}]"
    return render(node)


def _listed(node: Node) -> str:
    """Return a constant in a list: Polars takes Python's own times there."""
    value, name = node.option
    if value is not None and name is not None and Type(name).is_decimal:
        return f"Decimal({value!r})"
    if value is None or name not in ("TIMESTAMP", "DATE", "INTERVAL"):
        return repr(value)
    if name == "INTERVAL":
        return f"timedelta(microseconds={value})"
    if name == "DATE":
        return render(node).removeprefix("pl.")
    return _time(value).removeprefix("pl.").replace('time_zone="UTC"', "tzinfo=UTC")


def _literal(node: Node) -> str:
    value, name = node.option
    if value is None:
        dtype = "" if name is None else f", dtype={_dtype(Type(name))}"
        return f"pl.lit(None{dtype})"
    if name == "TIMESTAMP":
        return _time(value)
    if name == "DATE":
        try:
            day = date(1970, 1, 1) + timedelta(days=value)
        except OverflowError:
            return f"pl.lit({value}).cast(pl.Date)"
        return f"pl.date({day.year}, {day.month}, {day.day})"
    if name == "INTERVAL":
        units = {"days": 86_400_000_000, "hours": 3_600_000_000, "minutes": 60_000_000,
                 "seconds": 1_000_000, "microseconds": 1}  # fmt: skip
        unit = next(u for u, size in units.items() if value % size == 0)
        return f"pl.duration({unit}={value // units[unit]})"
    if name is not None and (kind := Type(name)).is_decimal:
        return f"pl.lit({value!r}).cast({_dtype(kind)})"
    return f"pl.lit({value!r})"


def _dtype(kind: Type) -> str:
    if kind.is_decimal:
        return f"pl.Decimal({kind.precision}, {kind.scale})"
    return _DTYPES.get(kind, kind.value)


def _time(us: int) -> str:
    try:
        moment = from_us(us)
    except (OverflowError, ValueError):
        return f'pl.from_epoch(pl.lit({us}), time_unit="us")'
    parts = [moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second,
             moment.microsecond]  # fmt: skip
    while len(parts) > 3 and parts[-1] == 0:
        parts.pop()
    return f'pl.datetime({", ".join(map(str, parts))}, time_zone="UTC")'


def _ternary(node: Node) -> str:
    text, rest = "pl", node
    while rest.kind == "ternary":
        condition, truthy, rest = rest.inputs
        text += f".when({render(condition)}).then({_branch(truthy)})"
    if rest.kind == "literal" and rest.option == [None, None]:
        return text
    return f"{text}.otherwise({_branch(rest)})"


def _branch(node: Node) -> str:
    # Text alone would be a column's name there.
    return render(node) if node.kind == "literal" and node.option[1] == "VARCHAR" else plain(node)


def _cast(node: Node) -> str:
    to = node.option["to"]
    dtype = f"pl.{node.option['polars']}" if to is None else _dtype(Type(to))
    strict = {"NonStrict": ", strict=False", "Overflowing": ", wrap_numerical=True"}
    return _method(node, dtype + strict.get(node.option["mode"], ""))


def _count(node: Node) -> str:
    return _method(node, name="len" if node.option["include_nulls"] else "count")


def _extreme(node: Node) -> str:
    name = method_of(node.kind)
    return _method(node, name=f"nan_{name}" if node.option["propagate_nans"] else name)


def _log(node: Node) -> str:
    base = node.inputs[1]
    if base.kind == "literal" and base.option[0] == 10:
        return _method(node, name="log10")
    natural = base.kind == "literal" and str(base.option[0]).startswith("2.71828")
    return _method(node, *([] if natural else [plain(base)]))


def _clip(node: Node) -> str:
    bounds = [_branch(n) for n in node.inputs[1:]]
    names = [n for n in ("min", "max") if node.option[f"has_{n}"]]
    words = {"min": "lower_bound", "max": "upper_bound"}
    return _method(node, *(f"{words[n]}={b}" for n, b in zip(names, bounds, strict=True)))


def _slice(node: Node) -> str:
    offset, length = (n.option[0] if n.kind == "literal" else None for n in node.inputs[1:])
    if isinstance(offset, int) and isinstance(length, int) and length > 0:
        if offset == 0:
            return _method(node, str(length), name="head")
        if offset == -length:
            return _method(node, str(length), name="tail")
    return _method(node, *map(plain, node.inputs[1:]))


def _concat(node: Node) -> str:
    args = ", ".join(map(render, node.inputs))
    options = "".join(
        [f", separator={node.option['delimiter']!r}" if node.option["delimiter"] else "",
         ", ignore_nulls=True" if node.option["ignore_nulls"] else ""]
    )  # fmt: skip
    return f"pl.concat_str({args}{options})"


def _format(node: Node) -> str:
    parts = [p.replace("{", "{{").replace("}", "}}") for p in format_parts(node)]
    return f"pl.format({'{}'.join(parts)!r}, {', '.join(map(render, node.inputs))})"


def format_parts(node: Node) -> list[str]:
    """Return what stands before, between and behind the values of ``pl.format``."""
    text, parts, at = node.option["format"].encode(), [], 0
    for place in node.option["insertions"]:
        parts.append(text[at:place].decode())
        at = place
    return [*parts, text[at:].decode()]


def _correlation(node: Node) -> str:
    method = node.option["method"]
    args = ", ".join(map(render, node.inputs))
    if isinstance(method, dict) and "Covariance" in method:
        return f"pl.cov({args}, ddof={method['Covariance']})"
    return f"pl.corr({args})" if method == "Pearson" else f'pl.corr({args}, method="spearman")'


def _rolling(node: Node) -> str:
    period = node.option["period"]
    units = (("months", "mo"), ("weeks", "w"), ("days", "d"), ("nsecs", "ns"))
    text = "".join(f"{period[field]}{unit}" for field, unit in units if period[field])
    closed = node.option["closed_window"].lower()
    return _method(node, render(node.inputs[1]), f"period={text!r}", f"closed={closed!r}")


_SPECIAL: dict[str, Callable[[Node], str]] = {
    "column": lambda n: f"pl.col({n.option!r})",
    "literal": _literal,
    "list": plain,
    "alias": lambda n: _method(n, repr(n.option)),
    "agg.Count": _count,
    "agg.Max": _extreme,
    "agg.Min": _extreme,
    "agg.FirstNonNull": lambda n: _method(n, "ignore_nulls=True"),
    "agg.LastNonNull": lambda n: _method(n, "ignore_nulls=True"),
    "agg.Std": lambda n: _method(n, *([] if n.option == 1 else [f"ddof={n.option}"])),
    "agg.Var": lambda n: _method(n, *([] if n.option == 1 else [f"ddof={n.option}"])),
    "cast": _cast,
    "ternary": _ternary,
    "slice": _slice,
    "sort_by": lambda n: _method(
        n, *map(render, n.inputs[1:]), *(["descending=True"] if n.option else [])
    ),
    "rolling": _rolling,
    "fn.Clip": _clip,
    "fn.Correlation": _correlation,
    "fn.Log": _log,
    "fn.Boolean.Any": lambda n: _method(n, *_nulls(n)),
    "fn.Boolean.All": lambda n: _method(n, *_nulls(n)),
    "fn.Boolean.IsBetween": lambda n: _method(
        n, *map(_branch, n.inputs[1:]), f"closed={n.option['closed'].lower()!r}"
    ),
    "fn.Boolean.IsIn": lambda n: _method(
        n, plain(n.inputs[1]), *(["nulls_equal=True"] if n.option["nulls_equal"] else [])
    ),
    "fn.Entropy": lambda n: _method(n, f"base={n.option['base']!r}"),
    "fn.FillNullWithStrategy": lambda n: _method(n, f"strategy={_strategy(n)!r}"),
    "fn.Kurtosis": lambda n: _method(n, f"fisher={n.option[0]}", f"bias={n.option[1]}"),
    "fn.Skew": lambda n: _method(n, f"bias={n.option}"),
    "fn.Quantile": lambda n: _method(
        n, plain(n.inputs[1]), f"interpolation={n.option['method'].lower()!r}"
    ),
    "fn.Round": lambda n: _method(
        n, str(n.option["decimals"]), f"mode={_MODES.get(n.option['mode'], n.option['mode'])!r}"
    ),
    "fn.StringExpr.ConcatHorizontal": _concat,
    "fn.StringExpr.Format": _format,
    "fn.StringExpr.Contains": lambda n: _method(
        n, plain(n.inputs[1]), *(["literal=True"] if n.option["literal"] else [])
    ),
    "fn.StringExpr.Strptime": lambda n: _method(
        n, "strict=False", name="str.to_date" if "Date" in str(n.option[0])[:18]
        and "Datetime" not in str(n.option[0]) else "str.to_datetime"
    ),
    "fn.TemporalExpr.DatetimeFunction": lambda n: (
        f"pl.datetime({', '.join(plain(i) for i in n.inputs[:7])}, "
        f"time_zone={(n.option.get('time_zone') or {}).get('inner')!r})"
    ),
    "fn.TemporalExpr.ConvertTimeZone": lambda n: _method(n, repr((n.option or {}).get("inner"))),
    **{
        f"fn.TemporalExpr.Total{unit}": lambda n: _method(
            n, *(["fractional=True"] if n.option["fractional"] else [])
        )
        for unit in ("Days", "Hours", "Minutes", "Seconds")
    },
}  # fmt: skip


def _strategy(node: Node) -> str:
    name = next(iter(node.option)) if isinstance(node.option, dict) else str(node.option)
    return str(name).lower()


def _nulls(node: Node) -> list[str]:
    return [] if node.option["ignore_nulls"] else ["ignore_nulls=False"]
