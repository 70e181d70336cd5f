"""What the functions of `language.value_functions` mean, in Polars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from fs_notebook.compute.casts import Build, widened
from fs_notebook.language.expr import Call, Literal
from fs_notebook.types import Type


def _constant(call: Call, index: int) -> str:
    arg = call.args[index]
    assert isinstance(arg, Literal)
    assert isinstance(arg.value, str)
    return arg.value


def _log(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    base, value = (a.cast(pl.Float64) for a in args)
    has_value = (base > 0) & (base != 1) & (value > 0)
    return pl.when(has_value).then(value.log() / base.log())


def _double(function: Callable[[pl.Expr], pl.Expr]) -> Build:
    return lambda args, call: function(args[0].cast(pl.Float64))


def _trunc(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    return args[0] if call.type is Type.BIGINT else args[0].truncate()


def _replace(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    part = _constant(call, 1)
    if not part:
        return pl.when(args[2].is_not_null()).then(args[0])
    # Split and joined, since a replacement that differs by row cannot be asked for otherwise.
    return args[0].str.split(pl.lit(part)).list.join(args[2], ignore_nulls=False)


def _regexp_extract(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    group = call.args[2].value if len(call.args) == 3 and isinstance(call.args[2], Literal) else 0
    found = args[0].str.extract(_constant(call, 1), int(group or 0))
    # As in DuckDB, what is not found is the empty text.
    return pl.when(args[0].is_not_null()).then(found.fill_null(""))


def _padded(pad: Callable[[pl.Expr, pl.Expr, str], pl.Expr]) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        count = pl.max_horizontal(args[1], pl.lit(0, dtype=pl.Int64))
        padded = pad(args[0].str.head(count), count.cast(pl.UInt64), _constant(call, 2))
        return pl.when(args[1].is_not_null()).then(padded)

    return build


def _position(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    text, part = args
    before = text.str.splitn(part, 2).struct.field("field_0").str.len_chars().cast(pl.Int64)
    found = text.str.contains(part, literal=True)
    first = pl.when(part == "").then(pl.lit(1, dtype=pl.Int64)).otherwise(before + 1)
    return pl.when(found).then(first).when(found.is_not_null()).then(pl.lit(0, dtype=pl.Int64))


def _to_timestamp(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    kind = Type.TIMESTAMP.polars
    if call.args[0].type is Type.BIGINT:
        return (args[0].cast(pl.Int128) * 1_000_000).cast(pl.Int64).cast(kind)
    # What is no number, or lies out of any calendar, is no time.
    us = (args[0].cast(pl.Float64) * 1e6).round(0, mode="half_away_from_zero")
    return us.cast(pl.Int64, strict=False).cast(kind)


_FIXED_US = {
    "microsecond": 1, "millisecond": 1_000, "second": 1_000_000, "minute": 60_000_000,
    "hour": 3_600_000_000, "day": 86_400_000_000,
}  # fmt: skip
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def _date_diff(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    unit = _constant(call, 0)
    moments = widened(args[1:], Call("date_diff", call.args[1:], call.type), Type.TIMESTAMP)
    if unit in _MONTHS:
        month = [m.dt.year().cast(pl.Int64) * 12 + m.dt.month() - 1 for m in moments]
        numbers = [m // _MONTHS[unit] for m in month]
    else:
        numbers = [m.to_physical() // _FIXED_US[unit] for m in moments]
    return numbers[1] - numbers[0]


def _split(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    return args[0].str.split(args[1])


BUILDERS: dict[str, Build] = {
    "log": _log,
    "sin": _double(lambda a: a.sin()),
    "cos": _double(lambda a: a.cos()),
    "trunc": _trunc,
    "is_nan": lambda args, call: args[0].is_nan(),
    "is_finite": lambda args, call: args[0].is_finite(),
    "replace": _replace,
    "regexp_matches": lambda args, call: args[0].str.contains(_constant(call, 1)),
    "regexp_extract": _regexp_extract,
    "left": lambda args, call: args[0].str.head(args[1]),
    "right": lambda args, call: args[0].str.tail(args[1]),
    "lpad": _padded(lambda text, count, char: text.str.pad_start(count, char)),
    "rpad": _padded(lambda text, count, char: text.str.pad_end(count, char)),
    "ltrim": lambda args, call: args[0].str.strip_chars_start(" "),
    "rtrim": lambda args, call: args[0].str.strip_chars_end(" "),
    "position": _position,
    "ends_with": lambda args, call: args[0].str.ends_with(args[1]),
    "string_split": _split,
    "second": lambda args, call: args[0].dt.second().cast(pl.Int64),
    "to_timestamp": _to_timestamp,
    "date_diff": _date_diff,
}
