"""Functions of lists and structs: names and type rules.

Lists count from 1, and from -1 at their end, as in DuckDB. A struct's field is named by a
constant, which a rule over types cannot see: `field_of` and `struct_of_exprs` make those calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from fs_notebook.errors import DefinitionError, unknown_name
from fs_notebook.language.expr import Call, Expr, Literal
from fs_notebook.language.rules import Rule, Table, common
from fs_notebook.types import PRECISION_MAX, Type, decimal_of, list_of, struct_of


def _list(types: Sequence[Type]) -> Type | None:
    kind = common(types) if types and all(t.is_scalar for t in types) else None
    return None if kind is None else list_of(kind)


def _then(result: Type | None, *more: Type, numbers: bool = False) -> Rule:
    """Return the rule of a list followed by `more`; without `result` it gives an element."""

    def rule(types: Sequence[Type]) -> Type | None:
        element = types[0].element if types else None
        if element is None or tuple(types[1:]) != more or (numbers and not element.is_number):
            return None
        return result or element

    return rule


def _same_list(*more: Type, scalars: bool = False) -> Rule:
    def rule(types: Sequence[Type]) -> Type | None:
        element = types[0].element if types else None
        fits = element is not None and tuple(types[1:]) == more
        return types[0] if fits and (not scalars or _is_scalar(element)) else None

    return rule


def _is_scalar(kind: Type | None) -> bool:
    return kind is not None and kind.is_scalar


def _extreme(types: Sequence[Type]) -> Type | None:
    element = types[0].element if len(types) == 1 else None
    return element if _is_scalar(element) else None


def _contains(types: Sequence[Type]) -> Type | None:
    element = types[0].element if len(types) == 2 else None
    if element is None or not element.is_scalar:
        return None
    return Type.BOOLEAN if common([element, types[1]]) is element else None


def _to_string(types: Sequence[Type]) -> Type | None:
    element = types[0].element if len(types) == 2 and types[1] is Type.VARCHAR else None
    return Type.VARCHAR if element in (Type.VARCHAR, Type.BIGINT) else None


def _sum(types: Sequence[Type]) -> Type | None:
    element = types[0].element if len(types) == 1 else None
    if element is None or not element.is_number:
        return None
    return decimal_of(PRECISION_MAX, element.scale) if element.is_decimal else element


def _by_constants(types: Sequence[Type]) -> Type | None:
    return None


TABLE: Table = [
    ("list", "[a, b, …]", _list),
    ("list_length", "LEN(list)", _then(Type.BIGINT)),
    ("list_extract", "list[i]", _then(None, Type.BIGINT)),
    ("list_slice", "list[a:b]", _same_list(Type.BIGINT, Type.BIGINT)),
    ("list_contains", "LIST_CONTAINS(list, a)", _contains),
    ("list_sum", "LIST_SUM(list)", _sum),
    ("list_avg", "LIST_AVG(list)", _then(Type.DOUBLE, numbers=True)),
    ("list_min", "LIST_MIN(list)", _extreme),
    ("list_max", "LIST_MAX(list)", _extreme),
    ("list_sort", "LIST_SORT(list)", _same_list(scalars=True)),
    ("list_reverse_sort", "LIST_REVERSE_SORT(list)", _same_list(scalars=True)),
    ("list_reverse", "LIST_REVERSE(list)", _same_list()),
    ("list_distinct", "LIST_DISTINCT(list)", _same_list(scalars=True)),
    ("array_to_string", "ARRAY_TO_STRING(list, separator)", _to_string),
    ("struct_extract", "struct.field", _by_constants),
    ("struct_pack", "{'name': a, …}", _by_constants),
]


def field_of(struct: Expr, name: str) -> Call:
    """Return the call that takes a field out of a struct: by its name, or one of another case.

    Raises
    ------
    DefinitionError
        If `struct` is none, or has no such field.
    """
    fields = struct.type.fields
    if not fields:
        raise DefinitionError(
            f"Only a struct has a field {name!r}.",
            found=str(struct.type), remedy="a column that holds structs",
        )  # fmt: skip
    alike = [n for n, _ in fields if n.casefold() == name.casefold()]
    chosen = name if name in dict(fields) else alike[0] if len(alike) == 1 else None
    if chosen is None:
        error = unknown_name("field in the struct", name, [n for n, _ in fields])
        raise DefinitionError(
            error.message, found=error.found, remedy=error.remedy or "one of those names"
        )
    return Call("struct_extract", (struct, Literal(chosen, Type.VARCHAR)), dict(fields)[chosen])


def struct_of_exprs(fields: Sequence[tuple[str, Expr]]) -> Call:
    """Return the call that makes a struct of named values.

    Raises
    ------
    DefinitionError
        If there is no field, or two of one name.
    """
    names = [n for n, _ in fields]
    if not names or len(set(names)) != len(names):
        raise DefinitionError(
            "A struct has fields, with different names.",
            found=", ".join(names) or "none", remedy="{'a': x, 'b': y}",
        )  # fmt: skip
    args: list[Expr] = []
    for name, value in fields:
        args += [Literal(name, Type.VARCHAR), value]
    return Call("struct_pack", tuple(args), struct_of([(n, e.type) for n, e in fields]))
