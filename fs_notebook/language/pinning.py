"""What a plan leaves open, and how it is put in: statistics and embedders' versions.

A plan that says ``Z_SCORE(x)`` has no mean and no deviation yet. They are measured once, at a cut
of the ledger, and become constants of the plan: it stays pure, and every path computes the same.
This module finds what is open and substitutes; `compute.statistics` measures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fs_notebook.language import expr as ex
from fs_notebook.language.expr import Aggregated, Call, Column, Expr, Literal
from fs_notebook.language.operations import is_open
from fs_notebook.language.plan import Plan
from fs_notebook.types import Type

WHERE, ROWS, ENTITIES = "all rows", "rows", "entities"
"""What an open operation is measured over: it stands in WHERE, in a key or an aggregate's
argument, or beside finished aggregates."""

STATISTICS = {"min_max_scale": ("low", "high"), "z_score": ("mean", "deviation")}
"""Operation → what is measured for it, in the order of its constants."""


@dataclass(frozen=True)
class Pin:
    """What was put into a plan in one place.

    Attributes
    ----------
    key
        Tells one open operation from another, whatever stands around it.
    function, expression
        What was open, and of what, as text.
    over
        What was measured: ``"all rows"``, ``"rows"`` (that WHERE keeps) or ``"entities"`` (their
        values at the cut); ``"registry"`` for an embedder's version.
    values
        The constants that were put in, by what they are called.
    count
        How many values were measured.
    cut
        The position in the ledger up to which they were; None for an embedder's version.
    """

    key: str
    function: str
    expression: str
    over: str
    values: Mapping[str, Any]
    count: int = 0
    cut: str | None = None

    def __str__(self) -> str:
        # The catalog keeps no order of names.
        names = STATISTICS.get(self.function, sorted(self.values))
        values = ", ".join(f"{name} {_short(self.values[name])}" for name in names)
        text = f"{self.function.upper()} of {self.expression}: {values}"
        if self.cut is None:
            return text
        return f"{text}; pinned over {self.count:,} {self.over} up to {self.cut}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key, "function": self.function, "expression": self.expression,
            "over": self.over, "values": dict(self.values), "count": self.count, "cut": self.cut,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pin:
        """Return the pin that `to_dict` wrote."""
        return cls(**data)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        shown = ", ".join(_short(v) for v in value[:6])
        return f"[{shown}{', …' if len(value) > 6 else ''}]"
    return str(value)


def open_calls(plan: Plan) -> tuple[str, list[Call]] | None:
    """Return what to measure next: a place, and the open operations there that hold no other.

    None where nothing is open. What stands in WHERE comes first, since it decides which rows
    there are; what stands beside finished aggregates last.
    """
    where = [plan.where] if plan.where is not None else []
    rows = [k.expr for k in plan.keys] + [a for g in plan.aggregations for a in g.args]
    beside = [o.expr for o in plan.outputs]
    for place, exprs in ((WHERE, where), (ROWS, rows), (ENTITIES, beside)):
        found = [call for e in exprs for call in _innermost(e)]
        if found:
            return place, list(dict.fromkeys(found))
    return None


def _innermost(expr: Expr) -> Iterator[Call]:
    if not isinstance(expr, Call):
        return
    inner = [c for a in expr.args for c in _innermost(a)]
    yield from inner
    if not inner and is_open(expr):
        yield expr


def closed(call: Call, values: Mapping[str, Any]) -> Call:
    """Return an open operation with what was measured in it."""
    match call.function:
        case "embed":
            version = Literal(values["version"], Type.VARCHAR)
            dimensions = Literal(values["dimensions"], Type.BIGINT)
            return Call("embed", (*call.args, version, dimensions), call.type)
        case "quantile_bin":
            value = call.args[0]
            edges = tuple(Literal(e, value.type) for e in values["edges"])
            return Call("bin", (value, *edges), call.type)
        case _:
            given = [float(values[name]) for name in STATISTICS[call.function]]
            constants = tuple(Literal(v, Type.DOUBLE) for v in given)
            return Call(call.function, (*call.args, *constants), call.type)


def substituted(plan: Plan, place: str, made: Mapping[Call, Call]) -> Plan:
    """Return the plan with the calls of `made` replaced, in one place of it."""
    if place == WHERE:
        return replace(plan, where=None if plan.where is None else _put(plan.where, made))
    if place == ENTITIES:
        outputs = tuple(replace(o, expr=_put(o.expr, made)) for o in plan.outputs)
        return replace(plan, outputs=outputs)
    return replace(
        plan,
        keys=tuple(replace(k, expr=_put(k.expr, made)) for k in plan.keys),
        aggregations=tuple(
            replace(a, args=tuple(_put(e, made) for e in a.args)) for a in plan.aggregations
        ),
    )


def _put(expr: Expr, made: Mapping[Call, Call]) -> Expr:
    if not isinstance(expr, Call):
        return expr
    if expr in made:
        return made[expr]
    return Call(expr.function, tuple(_put(a, made) for a in expr.args), expr.type)


def identity(plan: Plan, place: str, call: Call) -> str:
    """Return what tells this operation from others: what is measured, and over what."""
    about: list[Any] = [plan.source, plan.time, place, _resolved(plan, call)]
    # Columns have these names only within a union or a join: others hold other values.
    about += [j.to_list() for j in plan.joins] + [b.to_list() for b in plan.branches]
    if place != WHERE:
        about.append(None if plan.where is None else ex.to_json(plan.where))
    if place == ENTITIES:
        about.append([ex.to_json(k.expr) for k in plan.keys])
    text = json.dumps(about, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _resolved(plan: Plan, expr: Expr) -> Any:
    """Return an expression's canonical form with aggregates themselves in it, not their numbers."""
    if isinstance(expr, Aggregated):
        return plan.to_dict()["aggregations"][expr.index]
    if isinstance(expr, Call):
        return ["call", expr.function, [_resolved(plan, a) for a in expr.args], expr.type.value]
    return ex.to_json(expr)


_SIGNS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "int_divide": "//",
    "modulo": "%", "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "AND", "or": "OR", "concat": "||",
}  # fmt: skip


def shown(plan: Plan, expr: Expr) -> str:
    """Return an expression as text for people, near the SQL that made it."""

    def text(part: Expr) -> str:
        return shown(plan, part)

    match expr:
        case Column(name, _):
            return name
        case Literal(value, _):
            return repr(value)
        case Aggregated(index, _):
            aggregation = plan.aggregations[index]
            inside = [*map(text, aggregation.args), *map(str, aggregation.params)]
            over = "" if aggregation.window.is_lifetime else f" over {aggregation.window}"
            return f"{aggregation.function.upper()}({', '.join(inside) or '*'}){over}"
        case Call(function, args, kind):
            if function in _SIGNS and len(args) > 1:
                return f"({f' {_SIGNS[function]} '.join(map(text, args))})"
            if function == "list_extract":
                return f"{text(args[0])}[{text(args[1])}]"
            if function == "list":
                return f"[{', '.join(map(text, args))}]"
            if function == "struct_extract" and isinstance(args[1], Literal):
                return f"{text(args[0])}.{args[1].value}"
            if function.startswith("cast_"):
                return f"CAST({text(args[0])} AS {kind})"
            return f"{function.upper()}({', '.join(map(text, args))})"


Measure = Callable[[Plan, str, list[Call]], dict[Call, Pin]]


def pinned(plan: Plan, measure: Measure, known: Mapping[str, Pin]) -> tuple[Plan, tuple[Pin, ...]]:
    """Return the plan with nothing left open, and what was put in.

    Parameters
    ----------
    measure
        Gives the pins of open operations that `known` has not, in a place of a plan.
    known
        Pins of a former version by their key: they are put in again.
    """
    pins: dict[str, Pin] = {}
    while (found := open_calls(plan)) is not None:
        place, calls = found
        keys = {call: identity(plan, place, call) for call in calls}
        mine = {call: known[key] for call, key in keys.items() if key in known}
        if missing := [call for call in calls if call not in mine]:
            mine |= measure(plan, place, missing)
        assert set(mine) == set(calls)
        pins |= {pin.key: pin for pin in mine.values()}
        plan = substituted(plan, place, {c: closed(c, mine[c].values) for c in calls})
    return plan, tuple(pins.values())
