"""Aggregates as Polars writes them: which of the kernel's is called, with what, over which rows.

The language's rules hold for all of them, as in SQL. Events come in the order of their time. Nulls
are passed over, by ``first``, ``last``, ``n_unique``, ``head`` and ``tail`` too. The empty ``sum``,
``any`` and ``all`` are null (Polars: 0, false, true). ``max`` of what holds a NaN is NaN, as
``nan_max`` is. Of several modes the smallest is the first. ``tail(n)`` is COLLECT_LIST, oldest
first; ``tail(n).reverse()`` is LAST_N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fs_notebook.errors import DefinitionError
from fs_notebook.language.polars_expr import PolarsTranslator
from fs_notebook.language.polars_tree import Node, literal
from fs_notebook.types import Type


@dataclass(frozen=True, slots=True)
class Called:
    """An aggregate as it is called.

    Attributes
    ----------
    name
        Its name in the kernel.
    args
        What it folds.
    constants
        What it is given beside that, as literals' nodes.
    rows
        Whether it counts the rows of its argument, null or not.
    """

    name: str
    args: tuple[Node, ...]
    constants: tuple[Node, ...] = ()
    rows: bool = False


_PLAIN = {
    "agg.Sum": "sum", "agg.Mean": "avg", "agg.NUnique": "n_unique", "agg.First": "first",
    "agg.FirstNonNull": "first", "agg.Last": "last", "agg.LastNonNull": "last",
    "fn.ApproxNUnique": "approx_n_unique", "fn.MaxBy": "arg_max", "fn.MinBy": "arg_min",
}  # fmt: skip
_ONCE = {
    "sum": "sum_distinct", "avg": "avg_distinct", "count": "n_unique", "min": "min", "max": "max",
    "n_unique": "n_unique", "bool_or": "bool_or", "bool_and": "bool_and",
    "approx_n_unique": "approx_n_unique",
}  # fmt: skip
_QUANTILES = {"Linear": "quantile_cont", "Equiprobable": "quantile_disc"}


def called_by(t: PolarsTranslator, node: Node) -> Called | None:
    """Return what `node` calls, or None where it is no aggregate.

    Raises
    ------
    DefinitionError
        If it is an aggregate that is not in the language, or called in another way.
    """
    if node.kind in _PLAIN:
        called = _unwrapped(t, node, _PLAIN[node.kind])
    elif node.kind in _CALLS:
        called = _CALLS[node.kind](t, node)
    else:
        return None
    if called.args and called.args[0].kind == "fn.Unique":
        name = _ONCE.get(called.name)
        if name is None:
            raise t.refuse(
                node, "Of distinct values this cannot be told.",
                remedy="unique() before sum, mean, count, min, max",
            )  # fmt: skip
        return Called(name, called.args[0].inputs)
    return called


def _unwrapped(t: PolarsTranslator, node: Node, name: str) -> Called:
    """Read the detours by which Polars reaches an aggregate that the language has by name."""
    inner = node.inputs[0]
    if inner.kind == "fn.Mode":
        if name != "first":
            raise _needs_first(t, inner)
        return Called("mode", inner.inputs)
    return Called(name, node.inputs)


def _needs_first(t: PolarsTranslator, node: Node) -> DefinitionError:
    return t.refuse(
        node, "There may be several modes.",
        remedy=".mode().first(): the smallest of them",
    )  # fmt: skip


def _mode(t: PolarsTranslator, node: Node) -> Called:
    raise _needs_first(t, node)


def _count(t: PolarsTranslator, node: Node) -> Called:
    return Called("count", node.inputs, rows=bool(node.option["include_nulls"]))


def _extreme(t: PolarsTranslator, node: Node) -> Called:
    name = node.kind.removeprefix("agg.").lower()
    if node.inputs[0].kind == "fn.Mode" and name == "min":
        return Called("mode", node.inputs[0].inputs)
    if name == "min" and node.option["propagate_nans"]:
        raise t.refuse(
            node, "The least value is NaN only if there is nothing else.", remedy=".min()"
        )
    return Called(name, node.inputs)


def _spread(t: PolarsTranslator, node: Node) -> Called:
    names = {"agg.Std": ("stddev_pop", "stddev_samp"), "agg.Var": ("var_pop", "var_samp")}
    if node.option not in (0, 1):
        raise t.refuse(
            node, "A spread is of a population or of a sample.", remedy="ddof=0, or ddof=1"
        )
    return Called(names[node.kind][node.option], node.inputs)


def _median(t: PolarsTranslator, node: Node) -> Called:
    return Called("quantile_cont", node.inputs, (literal(0.5, Type.DOUBLE),))


def _quantile(t: PolarsTranslator, node: Node) -> Called:
    name = _QUANTILES.get(node.option["method"])
    if name is None:
        raise t.refuse(
            node, "A quantile is interpolated, or a value that was there.",
            remedy='quantile(0.9, interpolation="linear"), or interpolation="equiprobable"',
        )  # fmt: skip
    return Called(name, node.inputs[:1], node.inputs[1:])


def _logical(t: PolarsTranslator, node: Node) -> Called:
    if not node.option["ignore_nulls"]:
        raise t.refuse(node, "Aggregates pass nulls over.", remedy=".any(), .all(), fill_null(…)")
    return Called("bool_or" if node.kind.endswith("Any") else "bool_and", node.inputs)


def _skew(t: PolarsTranslator, node: Node) -> Called:
    if node.option is not False:
        raise t.refuse(node, "The skewness is the sample's.", remedy="skew(bias=False)")
    return Called("skewness", node.inputs)


def _kurtosis(t: PolarsTranslator, node: Node) -> Called:
    if node.option != [True, False]:
        raise t.refuse(
            node, "The kurtosis is the sample's excess kurtosis.", remedy="kurtosis(bias=False)"
        )
    return Called("kurtosis", node.inputs)


def _entropy(t: PolarsTranslator, node: Node) -> Called:
    inner = node.inputs[0]
    if inner.kind != "fn.UniqueCounts" or node.option != {"base": 2.0, "normalize": True}:
        raise t.refuse(
            node, "The entropy is that of the values' shares, in bits.",
            remedy='pl.col("genre").unique_counts().entropy(base=2)',
        )  # fmt: skip
    return Called("entropy", inner.inputs)


def _correlation(t: PolarsTranslator, node: Node) -> Called:
    method = node.option["method"]
    ddof = method.get("Covariance") if isinstance(method, dict) else None
    if method == "Pearson":
        return Called("corr", node.inputs)
    if ddof in (0, 1):
        return Called("covar_samp" if ddof else "covar_pop", node.inputs)
    raise t.refuse(
        node, "There is Pearson's correlation, and the covariance.",
        remedy='pl.corr("x", "y"), pl.cov("x", "y", ddof=1)',
    )  # fmt: skip


def _gather(t: PolarsTranslator, node: Node) -> Called:
    value, index = node.inputs
    names = {"fn.ArgMax": "arg_max", "fn.ArgMin": "arg_min"}
    if index.kind not in names or not node.option["returns_scalar"]:
        raise t.refuse(
            node, "A value is taken by its place in time, or where another is extreme.",
            remedy='.first(), .last(), or pl.col("x").max_by("y")',
        )  # fmt: skip
    return Called(names[index.kind], (value, *index.inputs))


def _kept(node: Node) -> tuple[str, int] | None:
    """Return head or tail, and how many, where a slice is one of them."""
    offset, length = (n.option[0] if n.kind == "literal" else None for n in node.inputs[1:])
    if not isinstance(length, int) or length <= 0 or offset not in (0, -length):
        return None
    return "head" if offset == 0 else "tail", length


def _slice(t: PolarsTranslator, node: Node) -> Called:
    kept = _kept(node)
    if kept is None:
        raise t.refuse(
            node, "Lists hold the first or the last so many values.", remedy="head(3), tail(3)"
        )
    name = "first_n" if kept[0] == "head" else "collect_list"
    return Called(name, node.inputs[:1], (literal(kept[1], Type.BIGINT),))


def _reverse(t: PolarsTranslator, node: Node) -> Called:
    inner = node.inputs[0]
    kept = _kept(inner) if inner.kind == "slice" else None
    if kept is None or kept[0] != "tail":
        raise t.refuse(
            node, "Only the last values can be turned round.", remedy="tail(3).reverse()"
        )
    return Called("last_n", inner.inputs[:1], (literal(kept[1], Type.BIGINT),))


def _null_count(t: PolarsTranslator, node: Node) -> Called:
    inner = node.inputs[0]
    while inner.kind in ("filter", "alias"):
        inner = inner.inputs[0]
    nulls = Node("filter", (node.inputs[0], Node("fn.Boolean.IsNull", (inner,))))
    return Called("count", (nulls,), rows=True)


def _rows(t: PolarsTranslator, node: Node) -> Called:
    return Called("count", (), rows=True)


_CALLS: dict[str, Callable[[PolarsTranslator, Node], Called]] = {
    "len": _rows,
    "agg.Count": _count,
    "agg.Max": _extreme,
    "agg.Min": _extreme,
    "agg.Std": _spread,
    "agg.Var": _spread,
    "agg.Median": _median,
    "fn.Quantile": _quantile,
    "fn.Boolean.Any": _logical,
    "fn.Boolean.All": _logical,
    "fn.Skew": _skew,
    "fn.Kurtosis": _kurtosis,
    "fn.Entropy": _entropy,
    "fn.Correlation": _correlation,
    "fn.Mode": _mode,
    "fn.NullCount": _null_count,
    "fn.Reverse": _reverse,
    "gather": _gather,
    "slice": _slice,
}
