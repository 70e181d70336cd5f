"""Row transforms written in Polars, as trees: what a view keeps, and what features read from.

They mean what the SQL of the same steps means, and give the same plan: a filter is a WHERE, a
select a SELECT, a join one with a table or with a keyed stream as of the row's time.
"""

from __future__ import annotations

from dataclasses import replace

from fs_notebook.errors import DefinitionError, unknown_name
from fs_notebook.language.expr import Expr
from fs_notebook.language.polars_expr import PolarsTranslator
from fs_notebook.language.polars_functions import HANDLERS
from fs_notebook.language.polars_text import shortened
from fs_notebook.language.polars_tree import Node
from fs_notebook.language.relation import Relation, Resolver, conjunction, mismatch, with_join
from fs_notebook.language.row_steps import PolarsRows, RowStep


def relation_of(transform: PolarsRows, resolver: Resolver, text: str) -> Relation:
    """Return the rows that a transform gives: see `PolarsRows.relation`."""
    rows = resolver.named(transform.stream)
    for step in transform.steps:
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
