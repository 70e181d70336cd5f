"""The aggregates of the language: names, usage and type rules. Their algebra is in `kernel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs_notebook.errors import DefinitionError
from fs_notebook.language.functions import Rule
from fs_notebook.language.types import Type


@dataclass(frozen=True, slots=True)
class Signature:
    """How an aggregate is called and what type it gives."""

    name: str
    usage: str
    rule: Rule


def _one_number(result: Type | None) -> Rule:
    def rule(types: Sequence[Type]) -> Type | None:
        return (result or types[0]) if len(types) == 1 and types[0].is_number else None

    return rule


def _any_one(types: Sequence[Type]) -> Type | None:
    return types[0] if len(types) == 1 else None


SIGNATURES = {
    s.name: s
    for s in (
        Signature("count", "COUNT(*) or COUNT(a)", lambda t: Type.BIGINT if len(t) < 2 else None),
        Signature("sum", "SUM(number)", _one_number(None)),
        Signature("avg", "AVG(number)", _one_number(Type.DOUBLE)),
        Signature("min", "MIN(a)", _any_one),
        Signature("max", "MAX(a)", _any_one),
    )
}


def aggregate_type(name: str, types: Sequence[Type]) -> Type:
    """Return the type that aggregate `name` gives for arguments of `types`."""
    result = SIGNATURES[name].rule(list(types))
    if result is None:
        raise DefinitionError(
            f"The types do not fit {SIGNATURES[name].usage}.",
            found=", ".join(t.value for t in types) or "no arguments",
            remedy="cast the argument, e.g. SUM(CAST(x AS DOUBLE))",
        )
    return result
