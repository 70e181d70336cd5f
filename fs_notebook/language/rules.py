"""What type rules are made of: how functions say which types they take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fs_notebook.types import Type

Rule = Callable[[Sequence[Type]], Type | None]
"""Gives the result's type, or None where the arguments' types do not fit."""


Table = list[tuple[str, str, Rule]]
"""Functions: name, usage, rule."""


def common(types: Sequence[Type]) -> Type | None:
    """Return the type that all of `types` widen to: BIGINT widens to DOUBLE, DATE to TIMESTAMP."""
    kinds = set(types)
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds == {Type.BIGINT, Type.DOUBLE}:
        return Type.DOUBLE
    if kinds == {Type.DATE, Type.TIMESTAMP}:
        return Type.TIMESTAMP
    return None


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
