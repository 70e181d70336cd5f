"""A derived feature's SQL, compiled to a plan: features in FROM, request values by ``:name``.

::

    SELECT user, :amount / NULLIF(mean_amount_30d, 0) AS amount_ratio
    FROM spending JOIN reading_time USING (user)

FROM names feature groups or single features. They are joined on their keys only: for any entity
each group has a value (that of the empty fold, if it was never seen), so that inner, left and
full joins mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.language.calls import has_aggregate
from fs_notebook.language.derived import (
    DerivedPlan,
    Input,
    feature_column,
    replaced,
    request_column,
)
from fs_notebook.language.derived_scope import (
    REQUEST_TYPES,
    Given,
    Scope,
    from_items,
    is_name,
    mark_placeholders,
    name_of,
    request_type,
)
from fs_notebook.language.expr import Column, Expr, columns_of
from fs_notebook.language.parse import parse_joined
from fs_notebook.language.plan import Key, Output
from fs_notebook.language.sql_expr import Translator, refuse
from fs_notebook.types import Type

_REFUSED: dict[str, tuple[str, str]] = {
    "where": ("WHERE would drop entities.", "CASE WHEN … THEN … END, which is null elsewhere"),
    "group": ("A derived feature folds nothing.", "leave GROUP BY out: one row is one entity"),
    "having": ("HAVING would drop entities.", "CASE WHEN … THEN … END"),
    "windows": ("A derived feature folds nothing.", "fold it in a feature of its own"),
    "with_": ("A WITH clause cannot stand over features.", "write the expression in place"),
    "order": ("ORDER BY has no meaning: one row is one entity.", "leave it out"),
    "limit": ("LIMIT would drop entities.", "leave it out; --sample makes a preview smaller"),
    "offset": ("OFFSET would drop entities.", "leave it out"),
    "qualify": ("QUALIFY would drop entities.", "CASE WHEN … THEN … END"),
    "distinct": ("SELECT DISTINCT has no meaning: one row is one entity.", "leave it out"),
    "laterals": ("A lateral view cannot stand over features.", "one entity in, one row out"),
    "sample": ("TABLESAMPLE would drop entities.", "--sample makes a preview smaller"),
}
_DECLARED = re.compile(r"\s*:?([A-Za-z_]\w*)\s+(\w+(?:\s*\([\d\s,]*\))?)\s*")
_BETWEEN = re.compile(r",(?![^(]*\))")


def parse_requests(text: str | None) -> dict[str, Type]:
    """Return name → type of ``amount DOUBLE, country VARCHAR``.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    declared: dict[str, Type] = {}
    for part in _BETWEEN.split(text or ""):
        if not part.strip():
            continue
        match = _DECLARED.fullmatch(part)
        kind = request_type(re.sub(r"\s", "", match[2])) if match else None
        if match is None or kind is None or match[1] in declared:
            raise UsageError(
                "A request value is declared by its name and its type, once.",
                found=part.strip(),
                remedy=f"amount DOUBLE; types: {', '.join(dict.fromkeys(_TYPES))}",
            )
        declared[match[1]] = kind
    return declared


_TYPES = [*(t.value for t in REQUEST_TYPES.values()), "DECIMAL(10,2)"]


@dataclass(frozen=True)
class Shape:
    """What a SELECT reads, at first sight: enough to tell what kind of feature it is."""

    tables: tuple[str, ...]
    folds: bool


def shape_of(text: str) -> Shape:
    """Return the names in FROM and JOIN, and whether the SELECT folds rows of them."""
    select = parse_joined(text)
    nodes = [n for n, _ in from_items(select)]
    names = tuple(name_of(n) for n in nodes if is_name(n))
    # What a WITH clause names is neither a stream nor a feature.
    whole = len(names) == len(nodes) and bool(nodes) and select.args.get("with_") is None
    folds = select.args.get("group") is not None or any(map(has_aggregate, select.expressions))
    return Shape(names if whole else (), folds)


def compile_derived(
    text: str,
    *,
    name: str,
    find_group: Callable[[str], Given],
    entity: Sequence[str] = (),
    requests: Mapping[str, Type] | None = None,
) -> DerivedPlan:
    """Compile a derived feature cell's SQL.

    Parameters
    ----------
    text
        One SELECT over features.
    name
        The feature group's name; a single feature without an alias takes it.
    find_group
        Gives what a name in FROM means; raises `UnknownName` for one that is not there.
    entity
        What the parts of the entity are called, in the order in which FROM brings them; default:
        what the groups call them.
    requests
        The types of request values. Default: what an inner derived feature says; else the type
        that CAST gives a value wherever it is read; else DOUBLE.

    Raises
    ------
    DefinitionError
        If the text is no SQL, or is no expression over features; says where, why, what instead.
    """
    select = parse_joined(text)
    for clause, (message, remedy) in _REFUSED.items():
        if (node := select.args.get(clause)) is not None and node != []:
            first = node[0] if isinstance(node, list) else node
            at = first if isinstance(first, exp.Expr) else select
            raise refuse(at, text, message, remedy=remedy)
    mark_placeholders(select, text)
    scope = Scope(text)
    scope.read_from(select, find_group)
    scope.name_entities(select, list(entity))
    scope.type_requests(select, dict(requests or {}))
    return _Compiler(text, name, scope).compile(select)


@dataclass(frozen=True)
class _Row(Translator):
    """Translates expressions over the features of one entity."""

    scope: Scope = field(default_factory=lambda: Scope(""))

    def _translate(self, node: exp.Expr) -> Expr:
        if isinstance(node, exp.Column):
            return self.scope.column(node)
        if isinstance(node, (exp.Placeholder, exp.Parameter)) and node.name:
            return Column(request_column(node.name), self.scope.requests[node.name])
        return super()._translate(node)


@dataclass
class _Compiler:
    text: str
    name: str
    scope: Scope

    def compile(self, select: exp.Select) -> DerivedPlan:
        row = _Row(self.text, (), "features", on_aggregate=self._no_aggregate, scope=self.scope)
        outputs: list[Output] = []
        for item in select.expressions:
            node = item.this if isinstance(item, exp.Alias) else item
            alias = item.alias if isinstance(item, exp.Alias) else ""
            if isinstance(node, exp.Star) or isinstance(getattr(node, "this", None), exp.Star):
                raise refuse(
                    node, self.text, "SELECT * names no feature.",
                    remedy="expressions over features, with aliases",
                )  # fmt: skip
            expr = row(node)
            if isinstance(expr, Column) and expr.name.startswith("entity:"):
                self._check_key(node, expr, alias)
                continue
            outputs.append(Output(self._output_name(alias, node, select), expr))
            if len({o.name for o in outputs}) != len(outputs):
                raise refuse(
                    node, self.text, f"Two features are called {outputs[-1].name!r}.",
                    remedy="another name after AS",
                )  # fmt: skip
        if not outputs:
            raise refuse(
                select, self.text, "Nothing is derived: only keys are selected.",
                remedy="an expression over features, with an alias",
            )  # fmt: skip
        for index, table in enumerate(self.scope.tables):
            if index not in self.scope.used:
                raise refuse(
                    table.node, self.text, f"No feature of {table.alias!r} is used.",
                    remedy="leave it out of FROM",
                )  # fmt: skip
        return self._plan(outputs)

    def _check_key(self, node: exp.Expr, expr: Column, alias: str) -> None:
        name = expr.name.partition(":")[2]
        if alias not in ("", name):
            raise refuse(
                node, self.text, "A key is no feature.",
                found=f"{alias!r} for {name!r}",
                remedy="--entity gives the key another name",
            )  # fmt: skip

    def _output_name(self, alias: str, node: exp.Expr, select: exp.Select) -> str:
        keys = [label for label, _ in self.scope.entities]
        if alias in keys:
            raise refuse(
                node, self.text, f"The feature {alias!r} is called as its key is.",
                remedy="another name after AS",
            )  # fmt: skip
        if alias:
            return alias
        if isinstance(node, exp.Column):
            raise refuse(
                node, self.text, f"{node.name!r} is a feature already.",
                remedy=f"{node.name} AS another_name, or reuse it as it is",
            )  # fmt: skip
        others = [i for i in select.expressions if not isinstance(i, exp.Column)]
        if len(others) == 1:
            return self.name
        raise refuse(node, self.text, "This feature has no name.", remedy="… AS name")

    def _no_aggregate(self, node: exp.Expr) -> Expr:
        raise refuse(
            node, self.text, "An aggregate cannot stand over features: one row is one entity.",
            remedy="fold it over a stream in a feature of its own, then use that one here",
        )  # fmt: skip

    def _plan(self, outputs: list[Output]) -> DerivedPlan:
        """Return the plan with its inputs in an order that does not depend on how FROM is put."""
        features: dict[int, dict[str, Type]] = {}
        requests: dict[str, Type] = {}
        read = set().union(*(columns_of(o.expr) for o in outputs))
        kinds = {c.name: c.type for o in outputs for c in _columns(o.expr)}
        for name in sorted(read):
            kind, _, rest = name.partition(":")
            if kind == "request":
                requests[rest] = kinds[name]
            elif kind == "input":
                number, _, feature = rest.partition(":")
                features.setdefault(int(number), {})[feature] = kinds[name]
        order = sorted(features, key=lambda n: self.scope.leaves[n])
        places = {number: place for place, number in enumerate(order)}

        def renamed(column: Column) -> Expr:
            kind, _, rest = column.name.partition(":")
            if kind != "input":
                return column
            number, _, feature = rest.partition(":")
            return Column(feature_column(places[int(number)], feature), column.type)

        if not order:
            raise DefinitionError(
                "No stored feature is used.",
                remedy="an expression over request values alone needs no feature store",
            )
        return DerivedPlan(
            keys=tuple(Key(n, Column(n, t)) for n, t in self.scope.entities),
            inputs=tuple(
                Input(*self.scope.leaves[n], tuple(sorted(features[n].items()))) for n in order
            ),
            requests=tuple(sorted(requests.items())),
            outputs=tuple(Output(o.name, replaced(o.expr, renamed)) for o in outputs),
        )


def _columns(expr: Expr) -> list[Column]:
    found: list[Column] = []

    def keep(column: Column) -> Expr:
        found.append(column)
        return column

    replaced(expr, keep)
    return found
