"""What the functions of `language.list_functions` mean, in Polars.

A list's nulls are passed over by what looks at its values, as aggregates do: a list of none has
no sum and no least value. NaN is greater than every other number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from fs_notebook.compute.casts import Build, cast, widened
from fs_notebook.kernel.totals import listed_mean, listed_total
from fs_notebook.language.expr import Call, Literal
from fs_notebook.types import Type

_ZERO, _ONE = pl.lit(0, dtype=pl.Int64), pl.lit(1, dtype=pl.Int64)


def _list(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    element = call.type.element
    assert element is not None
    return pl.concat_list(widened(args, call, element)).cast(call.type.polars)


def _extract(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    index = args[1]
    place = pl.when(index > 0).then(index - 1).when(index < 0).then(index)
    return args[0].list.get(place, null_on_oob=True)


def _slice(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    values, begin, end = args
    size = values.list.len().cast(pl.Int64)
    # From here on both ends count from 1 at the front, the end included.
    first = pl.when(begin < 0).then(size + begin + 1).otherwise(begin)
    last = pl.when(end < 0).then(size + end + 1).otherwise(end)
    start = pl.max_horizontal(first, _ONE)
    length = pl.max_horizontal(pl.min_horizontal(last, size) - start + 1, _ZERO)
    known = begin.is_not_null() & end.is_not_null()
    return pl.when(known).then(values.list.slice(start - 1, length))


def _contains(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    element = call.args[0].type.element
    assert element is not None
    value = args[1] if call.args[1].type is element else cast(args[1], call.args[1].type, element)
    return pl.when(value.is_not_null()).then(args[0].list.contains(value))


def _known(values: pl.Expr) -> pl.Expr:
    return values.list.drop_nulls().list.len()


def _sum(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    values = args[0]
    if call.type.is_decimal:
        total = listed_total(values, call.args[0].type.element or call.type)
    elif call.type is Type.BIGINT:
        total = values.cast(pl.List(pl.Int128)).list.sum().cast(pl.Int64)
    else:
        total = values.list.sum()
    return pl.when(_known(values) > 0).then(total)


def _avg(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    values, element = args[0], call.args[0].type.element
    if element is not None and element.is_decimal:
        return pl.when(_known(values) > 0).then(listed_mean(values, element))
    whole = element is Type.BIGINT
    wide = values.cast(pl.List(pl.Int128())) if whole else values
    total = wide.list.sum().cast(pl.Float64)
    return pl.when(_known(values) > 0).then(total / _known(values))


def _end_of_sorted(*, greatest: bool) -> Build:
    def build(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
        # Sorting, since it has the one order of NaN, texts and times that everything has.
        ordered = args[0].list.drop_nulls().list.sort(descending=greatest)
        return ordered.list.get(0, null_on_oob=True)

    return build


def _to_string(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    texts = args[0].cast(pl.List(pl.String())).list.drop_nulls()
    # As in DuckDB, a list of nothing but nulls has no text, and an empty one the empty text.
    has_text = (texts.list.len() > 0) | (args[0].list.len() == 0)
    return pl.when(has_text).then(texts.list.join(args[1]))


def _struct_extract(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    name = call.args[1]
    assert isinstance(name, Literal)
    return args[0].struct.field(str(name.value))


def _struct_pack(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    named = zip(args[1::2], call.type.fields, strict=True)
    return pl.struct([value.alias(name) for value, (name, _) in named])


def _on_values(function: Callable[[pl.Expr], pl.Expr]) -> Build:
    return lambda args, call: function(args[0])


BUILDERS: dict[str, Build] = {
    "list": _list,
    "list_length": _on_values(lambda a: a.list.len().cast(pl.Int64)),
    "list_extract": _extract,
    "list_slice": _slice,
    "list_contains": _contains,
    "list_sum": _sum,
    "list_avg": _avg,
    "list_min": _end_of_sorted(greatest=False),
    "list_max": _end_of_sorted(greatest=True),
    "list_sort": _on_values(lambda a: a.list.sort(nulls_last=True)),
    "list_reverse_sort": _on_values(lambda a: a.list.sort(descending=True, nulls_last=True)),
    "list_reverse": _on_values(lambda a: a.list.reverse()),
    "list_distinct": _on_values(lambda a: a.list.drop_nulls().list.unique(maintain_order=True)),
    "array_to_string": _to_string,
    "struct_extract": _struct_extract,
    "struct_pack": _struct_pack,
}
