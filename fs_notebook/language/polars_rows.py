"""Row transforms written in Polars, as trees: what a view keeps, and what features read from.

They mean what the SQL of the same steps means, and give the same plan: a filter is a WHERE, a
select a SELECT, a join one with a table or with a keyed stream as of the row's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fs_notebook.errors import DefinitionError, unknown_name
from fs_notebook.language.expr import Expr
from fs_notebook.language.polars_expr import PolarsTranslator
from fs_notebook.language.polars_functions import HANDLERS
from fs_notebook.language.polars_text import named_text, shortened
from fs_notebook.language.polars_tree import Node
from fs_notebook.language.relation import Relation, Resolver, conjunction, mismatch, with_join

_STEPS = ("filter", "select", "with_columns", "drop", "rename", "join")


@dataclass(frozen=True)
class RowStep:
    """One thing that is done to rows.

    Attributes
    ----------
    kind
        The method's name.
    exprs
        The expressions that it takes, each with the name that it is given, if any.
    names, others
        Of drop the columns; of rename the old and the new names; of join the other stream's key
        columns, and its name and how.
    """

    kind: str
    exprs: tuple[tuple[str | None, Node], ...] = ()
    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def to_json(self) -> list[Any]:
        """Return the canonical form, fit for `json.dumps`."""
        exprs = [[name, node.to_json()] for name, node in self.exprs]
        return [self.kind, exprs, list(self.names), list(self.others)]

    @classmethod
    def from_json(cls, data: Any) -> RowStep:
        """Return the step that `to_json` wrote."""
        kind, exprs, names, others = data
        if kind not in _STEPS:
            raise ValueError(f"there is no step {kind!r}")
        nodes = tuple((name, Node.from_json(node)) for name, node in exprs)
        return cls(kind, nodes, tuple(names), tuple(others))

    def __str__(self) -> str:
        """Return Python that says the same."""
        args = [named_text(name, node) for name, node in self.exprs]
        if self.kind == "drop":
            args = [repr(n) for n in self.names]
        elif self.kind == "rename":
            args = [repr(dict(zip(self.names, self.others, strict=True)))]
        elif self.kind == "join":
            other, how = self.others
            args = [f"fs.stream({other!r})", f"left_on=[{', '.join(args)}]",
                    f"right_on={list(self.names)!r}", f"how={how!r}"]  # fmt: skip
        return f".{self.kind}({', '.join(args)})"


@dataclass(frozen=True)
class PolarsRows:
    """The rows of a stream or a view, and what is done to them, step by step."""

    stream: str
    steps: tuple[RowStep, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        return {"stream": self.stream, "steps": [s.to_json() for s in self.steps]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolarsRows:
        """Return the rows that `to_json` wrote."""
        return cls(data["stream"], tuple(RowStep.from_json(s) for s in data["steps"]))

    def __str__(self) -> str:
        """Return Python that says the same."""
        return f"fs.stream({self.stream!r})" + "".join(map(str, self.steps))

    def relation(self, resolver: Resolver, text: str = "") -> Relation:
        """Return the rows.

        Parameters
        ----------
        resolver
            Finds the stream or the view, and what is joined.
        text
            What the user wrote, for errors that point into it.

        Raises
        ------
        DefinitionError
            If a step is no row transform, or a column is not there; says why.
        UnknownName
            If there is no such stream or view.
        """
        rows = resolver.named(self.stream)
        for step in self.steps:
            row = PolarsTranslator(HANDLERS, rows.columns, rows.source.name, text)
            if step.kind == "filter":
                for _, node in step.exprs:
                    rows = replace(rows, where=conjunction(rows.where, row.condition(node)))
            elif step.kind == "join":
                rows = _joined(rows, step, row, resolver)
            else:
                rows = replace(rows, columns=_columns(rows, step, row))
            # Only columns of the rows themselves have a name from here on.
            rows = replace(rows, qualified={})
        return rows


def _columns(rows: Relation, step: RowStep, row: PolarsTranslator) -> dict[str, Expr]:
    known = dict(rows.columns)
    for name in step.names:
        if name not in known:
            error = unknown_name(f"column in {rows.source.name!r}", name, known)
            raise DefinitionError(
                error.message, found=error.found, remedy=error.remedy or "one of those names"
            )
    if step.kind == "drop":
        return {n: e for n, e in known.items() if n not in step.names}
    if step.kind == "rename":
        new = dict(zip(step.names, step.others, strict=True))
        called = [(new.get(n, n), e) for n, e in known.items()]
    else:
        made = [(name or output_name(node), row(node)) for name, node in step.exprs]
        _check_names([n for n, _ in made])
        called = made if step.kind == "select" else [*(known | dict(made)).items()]
    _check_names([n for n, _ in called])
    return dict(called)


def _check_names(names: list[str]) -> None:
    if twice := {n for n in names if names.count(n) > 1}:
        raise DefinitionError(
            f"Two columns are called {min(twice)!r}.", remedy='another .alias("name")'
        )


def output_name(node: Node) -> str:
    """Return the name that Polars gives to an expression: an alias, or that of what comes first."""
    top = node
    while node.inputs and node.kind != "alias":
        node = node.inputs[1 if node.kind == "ternary" else 0]
    if node.kind in ("alias", "column"):
        return str(node.option)
    raise DefinitionError(
        "A column that is made needs a name.", found=shortened(top), remedy='… .alias("name")'
    )


def _joined(rows: Relation, step: RowStep, row: PolarsTranslator, resolver: Resolver) -> Relation:
    name, how = step.others
    right = resolver.find_source(name)
    types = dict(right.columns)
    keys: list[tuple[Expr, str]] = []
    for (_, node), column in zip(step.exprs, step.names, strict=True):
        if column not in types:
            error = unknown_name(f"column in {name!r}", column, types)
            raise DefinitionError(
                error.message, found=error.found, remedy=error.remedy or "one of those names"
            )
        key = row(node)
        if different := mismatch(key, types[column]):
            raise row.refuse(node, "The two sides of a join have different types.",
                             found=different, remedy=".cast(…) on left_on")  # fmt: skip
        keys.append((key, column))
    if right.time is None and right.cut is None:
        raise DefinitionError(f"The table {name!r} has no row.", remedy="upload it first")
    cut = right.cut if right.time is None else None
    beside, columns = with_join(rows, right, keys, outer=how == "left", cut=cut)
    called = dict(rows.columns)
    for column, expr in columns.items():
        if column not in step.names:
            called[f"{column}_right" if column in called else column] = expr
    return replace(beside, columns=called)
