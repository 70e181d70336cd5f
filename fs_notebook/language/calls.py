"""Aggregates as SQL writes them: which of the kernel's is called, with what.

The dialect is near DuckDB's and PostgreSQL's; names that other dialects use are understood too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from fs_notebook.errors import DefinitionError, near_names
from fs_notebook.kernel import AGGREGATES, Parameter
from fs_notebook.language.expr import Literal
from fs_notebook.language.plan import Scalar
from fs_notebook.types import Type

ALIASES = {
    "any_value": "first",
    "approx_count_distinct": "approx_n_unique",
    "approx_distinct": "approx_n_unique",
    "argmax": "arg_max",
    "argmin": "arg_min",
    "array_agg": "collect_list",
    "bool_and": "bool_and",
    "bool_or": "bool_or",
    "every": "bool_and",
    "first_value": "first",
    "last_value": "last",
    "list": "collect_list",
    "logical_and": "bool_and",
    "logical_or": "bool_or",
    "max_by": "arg_max",
    "mean": "avg",
    "min_by": "arg_min",
    "percentile_cont": "quantile_cont",
    "percentile_disc": "quantile_disc",
    "quantile": "quantile_cont",
    "stddev": "stddev_samp",
    "variance": "var_samp",
}
"""Other names of an aggregate."""

_NODES: dict[type[exp.Expr], str] = {
    exp.Count: "count",
    exp.Sum: "sum",
    exp.Avg: "avg",
    exp.Min: "min",
    exp.Max: "max",
    exp.LogicalOr: "bool_or",
    exp.LogicalAnd: "bool_and",
    exp.Stddev: "stddev_samp",
    exp.StddevSamp: "stddev_samp",
    exp.StddevPop: "stddev_pop",
    exp.Variance: "var_samp",
    exp.VariancePop: "var_pop",
    exp.Corr: "corr",
    exp.CovarPop: "covar_pop",
    exp.CovarSamp: "covar_samp",
    exp.ApproxDistinct: "approx_n_unique",
    exp.ApproxQuantile: "approx_quantile",
    exp.Quantile: "quantile_cont",
    exp.PercentileCont: "quantile_cont",
    exp.PercentileDisc: "quantile_disc",
    exp.Mode: "mode",
    exp.Skewness: "skewness",
    exp.Kurtosis: "kurtosis",
    exp.First: "first",
    exp.Last: "last",
    exp.FirstValue: "first",
    exp.LastValue: "last",
    exp.AnyValue: "first",
    exp.ArrayAgg: "collect_list",
    exp.ArgMax: "arg_max",
    exp.ArgMin: "arg_min",
}

_WRAPPED = (exp.AggFunc, exp.CountIf, exp.Median, exp.WithinGroup, exp.IgnoreNulls)
_DISTINCT = {"count": "n_unique", "sum": "sum_distinct", "avg": "avg_distinct"}
_SAME_WHEN_DISTINCT = ("min", "max", "bool_or", "bool_and", "n_unique", "approx_n_unique")
COLLECT_MAX = 1_000
"""How many values ARRAY_AGG(a) keeps, where it says no number."""


@dataclass(frozen=True)
class AggregateCall:
    """An aggregate as it is called: its name in the kernel, and the nodes of what it is given."""

    name: str
    args: tuple[exp.Expr, ...] = ()
    conditions: tuple[exp.Expr, ...] = field(default=())


def _name_of(node: exp.Expr) -> str | None:
    known = _NODES.get(type(node))
    if known is not None:
        return known
    if isinstance(node, exp.Anonymous):
        name = node.name.lower()
        name = ALIASES.get(name, name)
        return name if name in AGGREGATES else None
    return None


def is_aggregate(node: exp.Expr) -> bool:
    """Tell whether a node, without what surrounds it, calls an aggregate."""
    return _name_of(node) is not None or isinstance(node, _WRAPPED)


def has_aggregate(node: exp.Expr) -> bool:
    """Tell whether an aggregate is called anywhere inside `node`."""
    return any(is_aggregate(n) for n in node.walk())


def call_of(node: exp.Expr) -> AggregateCall | None:
    """Return what an aggregate's node calls; None where the language has no such aggregate."""
    if isinstance(node, exp.IgnoreNulls):
        # Aggregates pass nulls over in any case.
        return call_of(node.this)
    if isinstance(node, exp.CountIf):
        return AggregateCall("count", (), (node.this,))
    if isinstance(node, exp.Median):
        return AggregateCall("quantile_cont", (node.this, exp.Literal.number("0.5")))
    if isinstance(node, exp.WithinGroup):
        return _within_group(node)
    name = _name_of(node)
    if name is None:
        return None
    args = _args_of(node)
    if args and isinstance(args[0], exp.Distinct):
        distinct = args[0]
        if distinct.args.get("on") or len(distinct.expressions) != 1:
            return None
        args = (distinct.expressions[0], *args[1:])
        name = _DISTINCT.get(name, name if name in _SAME_WHEN_DISTINCT else "")
        if name == "":
            name = "collect_set" if _name_of(node) == "collect_list" else ""
        if name == "":
            return None
    if len(args) == 1 and isinstance(args[0], exp.Star):
        args = ()
    if name in ("collect_list", "collect_set") and len(args) == 1:
        args = (*args, exp.Literal.number(str(COLLECT_MAX)))
    if name in ("last", "first") and len(args) == 2:
        # FIRST(a, 3), as the n-value forms are written elsewhere.
        name = f"{name}_n"
    return AggregateCall(name, args)


def _args_of(node: exp.Expr) -> tuple[exp.Expr, ...]:
    if isinstance(node, exp.Anonymous):
        return tuple(node.expressions)
    found: list[exp.Expr] = []
    for key in node.arg_types:
        value = node.args.get(key)
        if isinstance(value, list):
            found += value
        elif isinstance(value, exp.Expr):
            found.append(value)
    return tuple(found)


def _within_group(node: exp.WithinGroup) -> AggregateCall | None:
    """Read ``PERCENTILE_CONT(q) WITHIN GROUP (ORDER BY a)`` and ``MODE() WITHIN GROUP (…)``."""
    name, order = _name_of(node.this), node.expression
    if not isinstance(order, exp.Order) or len(order.expressions) != 1:
        return None
    ordered = order.expressions[0]
    arg = ordered.this if isinstance(ordered, exp.Ordered) else ordered
    if isinstance(ordered, exp.Ordered) and ordered.args.get("desc"):
        return None
    if name in ("quantile_cont", "quantile_disc"):
        return AggregateCall(name, (arg, *_args_of(node.this)))
    return AggregateCall(name, (arg,)) if name == "mode" else None


def parameters_of(name: str, values: Sequence[object]) -> tuple[Scalar, ...]:
    """Return the checked parameters of aggregate `name`.

    Parameters
    ----------
    values
        For each given parameter its literal, as an expression.

    Raises
    ------
    DefinitionError
        If one is missing, is no constant, or lies outside its bounds.
    """
    kind = AGGREGATES[name]
    checked: list[Scalar] = []
    for i, parameter in enumerate(kind.parameters):
        value = values[i] if i < len(values) else None
        if value is None:
            if parameter.default is None:
                raise _wrong(kind.usage, parameter, "nothing")
            checked.append(parameter.default)
            continue
        checked.append(_checked(kind.usage, parameter, value))
    return tuple(checked)


def _checked(usage: str, parameter: Parameter, value: object) -> Scalar:
    if not isinstance(value, Literal) or value.value is None:
        raise _wrong(usage, parameter, "no constant")
    literal, kind = value.value, value.type
    if kind is Type.BIGINT and parameter.type is Type.DOUBLE:
        literal, kind = float(literal), Type.DOUBLE
    if kind is not parameter.type or isinstance(literal, (str, bool)):
        raise _wrong(usage, parameter, f"{literal!r}, which is {kind}")
    if not parameter.low <= literal <= parameter.high:
        raise _wrong(usage, parameter, f"{literal}")
    return literal


def _wrong(usage: str, parameter: Parameter, found: str) -> DefinitionError:
    unit = " microseconds" if parameter.type is Type.INTERVAL else ""
    return DefinitionError(
        f"{usage} takes a constant {parameter.name}.",
        found=found,
        remedy=f"{parameter.type} from {parameter.low:g} to {parameter.high:g}{unit}",
    )


def result_of(name: str, types: Sequence[Type]) -> Type:
    """Return the type that aggregate `name` gives for arguments of `types`.

    Raises
    ------
    DefinitionError
        If they do not fit; says how it is called.
    """
    result = AGGREGATES[name].result(list(types))
    if result is None:
        raise DefinitionError(
            f"The types do not fit {AGGREGATES[name].usage}.",
            found=", ".join(t.value for t in types) or "no arguments",
            remedy="cast the argument, e.g. SUM(CAST(x AS DOUBLE))",
        )
    return result


def usages(near: str = "") -> str:
    """Return how aggregates are called: those with a name like `near`, else the usual ones."""
    names = near_names(near, [*AGGREGATES, *ALIASES]) if near else []
    chosen = dict.fromkeys(ALIASES.get(n, n) for n in names) or ("sum", "count", "avg", "last")
    return ", ".join(AGGREGATES[n].usage for n in chosen)
