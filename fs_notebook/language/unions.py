"""Unions: several streams, each with its own row transform, folded as one.

What a definition does to the rows of a union is done to each of its streams: conditions and row
expressions are put into the branches. So the plan is the same wherever they were written, and
the names of columns between are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from sqlglot import exp

from fs_notebook.language.expr import (
    Call,
    Column,
    Expr,
    columns_of,
    conjunction,
    conjuncts,
    substitute,
    walk,
)
from fs_notebook.language.joins import early_where, joined_columns, pruned
from fs_notebook.language.operations import is_open
from fs_notebook.language.parse import check_clauses
from fs_notebook.language.pinning import open_calls
from fs_notebook.language.plan import Branch, Plan
from fs_notebook.language.rules import common
from fs_notebook.language.sources import BETWEEN, streams_of
from fs_notebook.language.sql_expr import refuse
from fs_notebook.types import Type

if TYPE_CHECKING:
    from fs_notebook.language.relation import Relation

BRANCHES_MAX = 16
"""Streams in a union: all of their partitions are numbered in the 15 bits that a fold has."""


def selects_of(node: exp.SetOperation, text: str) -> list[exp.Query]:
    """Return the SELECTs of a ``UNION ALL``, in order.

    Raises
    ------
    DefinitionError
        If it is another set operation, or there are too many of them.
    """
    found: list[exp.Query] = []
    ahead: list[exp.Expr] = [node]
    while ahead:
        part = ahead.pop()
        while isinstance(part, exp.Subquery) and not part.alias:
            part = part.this
        if isinstance(part, exp.SetOperation) and (part is node or not part.args.get("with_")):
            _check(part, text)
            ahead += [part.expression, part.this]
        elif isinstance(part, (exp.Select, exp.SetOperation)):
            found.append(part)
        else:
            raise refuse(
                part, text, "A union is of SELECTs.",
                remedy="SELECT … FROM one UNION ALL SELECT … FROM other",
            )  # fmt: skip
        if len(found) > BRANCHES_MAX:
            raise refuse(
                part, text, "The union has too many streams.",
                found=f"more than {BRANCHES_MAX}", remedy="fewer of them, or one stream for all",
            )  # fmt: skip
    return found


def by_place(select: exp.Query) -> exp.Query:
    """Return a SELECT whose columns are told apart by their places alone.

    What the second SELECT of a union calls its columns, if anything, has no meaning.
    """
    items = select.expressions if isinstance(select, exp.Select) else []
    if not items or any(item.find(exp.Star) for item in items):
        return select
    numbered = select.copy()
    named = [
        exp.Alias(this=item.unalias(), alias=exp.to_identifier(f"__{place}"))
        for place, item in enumerate(numbered.expressions)
    ]
    numbered.set("expressions", named)
    return numbered


def _check(node: exp.SetOperation, text: str) -> None:
    if not isinstance(node, exp.Union):
        raise refuse(
            node, text, "This set operation cannot be folded: it compares all rows with all.",
            remedy="UNION ALL, or a WHERE",
        )  # fmt: skip
    if node.args.get("distinct"):
        raise refuse(
            node, text, "UNION drops equal rows, and a fold forgets its rows.",
            remedy="UNION ALL keeps them",
        )  # fmt: skip
    if node.args.get("by_name"):
        raise refuse(
            node, text, "UNION ALL BY NAME is not in the language.",
            remedy="UNION ALL, with the columns in the same order in each SELECT",
        )  # fmt: skip
    check_clauses(node, text)


def unite(
    rows: Sequence[Relation], selects: Sequence[exp.Query], text: str
) -> tuple[tuple[tuple[str, Type], ...], str | None, tuple[Branch, ...]]:
    """Return the columns of a union, what the event time is called in it, and its branches.

    Columns go together by their order, and are called as the first SELECT calls them.

    Raises
    ------
    DefinitionError
        If the SELECTs differ in the number of their columns or in types; says where.
    """
    first = rows[0]
    for part, select in zip(rows, selects, strict=True):
        _check_part(part, select, text)
    for part, select in zip(rows[1:], selects[1:], strict=True):
        if len(part.columns) != len(first.columns):
            raise refuse(
                select, text, "The SELECTs of a union have different numbers of columns.",
                found=f"{len(first.columns)} and {len(part.columns)}",
                remedy="the same columns in the same order in each",
            )  # fmt: skip
    columns: list[tuple[str, Type]] = []
    time: str | None = None
    for place, name in enumerate(first.columns):
        exprs = [_at(part, place) for part in rows]
        kind = common([e.type for e in exprs])
        if kind is None:
            odd = next(i for i, e in enumerate(exprs) if common([exprs[0].type, e.type]) is None)
            raise refuse(
                selects[odd], text, f"The column {name!r} of the union has different types.",
                found=f"{exprs[0].type} and {exprs[odd].type}", remedy="CAST one of them",
            )  # fmt: skip
        columns.append((name, kind))
        is_time = all(p.is_time(e) for p, e in zip(rows, exprs, strict=True))
        time = name if is_time and time is None else time
    branches = [branch for part in rows for branch in _branches(part, columns)]
    if len(branches) > BRANCHES_MAX:
        raise refuse(
            selects[-1], text, "The union has too many streams.",
            found=f"{len(branches)}, of {BRANCHES_MAX} at most", remedy="one stream for several",
        )  # fmt: skip
    return tuple(columns), time, tuple(branches)


def _check_part(part: Relation, select: exp.Query, text: str) -> None:
    if part.joins:
        raise refuse(
            select, text, "A join stands inside of a union.",
            remedy="join the union's rows: FROM (SELECT … UNION ALL SELECT …) x JOIN …",
        )  # fmt: skip
    where = [] if part.where is None else [part.where]
    for inner in (i for e in (*part.columns.values(), *where) for i in walk(e)):
        if isinstance(inner, Call) and is_open(inner):
            raise refuse(
                select, text,
                f"{inner.function.upper()} is pinned by the feature, not by a part of a union.",
                remedy="use it in the feature over the union, or write its constants out",
            )  # fmt: skip


def _at(part: Relation, place: int) -> Expr:
    return list(part.columns.values())[place]


def _branches(part: Relation, columns: Sequence[tuple[str, Type]]) -> list[Branch]:
    """Return one SELECT as a branch; as several where it reads from a union itself."""
    source = part.source
    widened = tuple(
        (name, _widened(_at(part, place), kind)) for place, (name, kind) in enumerate(columns)
    )
    if not source.branches:
        return [Branch(source.name, source.time, part.where, widened)]
    return [_pushed(branch, part.where, widened) for branch in source.branches]


def _widened(expr: Expr, kind: Type) -> Expr:
    return expr if expr.type is kind else Call(f"cast_{kind.value}", (expr,), kind)


def _pushed(branch: Branch, where: Expr | None, columns: Sequence[tuple[str, Expr]]) -> Branch:
    """Return a branch on which a condition and expressions over its columns were put."""
    known = dict(branch.columns)
    condition = None if where is None else substitute(where, known)
    return replace(
        branch,
        where=conjunction(branch.where, condition),
        columns=tuple((name, substitute(e, known)) for name, e in columns),
    )


def canonical(plan: Plan) -> Plan:
    """Return a plan as it is folded: nothing in it that is not read, unions inlined."""
    plan = pruned(plan)
    if (pairs := plan.pairs) is not None and len(streams_of(plan.source)) == 1:
        # Pairs are of both streams, as what is in a union is: a cut is one of both.
        plan = replace(plan, source=BETWEEN.join((plan.source, pairs.source)))
    return _inlined(plan)


def _inlined(plan: Plan) -> Plan:
    """Return a plan over a union with what is done to its rows done in the branches.

    A plan over a stream stays as it is, and so does one that leaves something open: that is
    measured over the whole union first. What touches a joined column is done after the join.
    """
    if not plan.branches or open_calls(plan) is not None:
        return plan
    joined = joined_columns(plan)
    where = [] if plan.where is None else conjuncts(plan.where)
    late = [c for c in where if columns_of(c) & joined]
    early = early_where(plan)
    used = [k.expr for k in plan.keys] + [e for a in plan.aggregations for e in a.args]
    used += [e for join in plan.joins for e, _ in join.keys]
    whole = [e for e in used if not columns_of(e) & joined]
    # Of what is only known beside a joined row, the branches give the columns.
    parts = [part for e in (*used, *late) if columns_of(e) & joined for part in walk(e)]
    plain = [p for p in parts if isinstance(p, Column) and p.name not in joined]
    # A constant needs no column.
    made: dict[Expr, Expr] = {
        expr: Column(f"c{number}", expr.type)
        for number, expr in enumerate(dict.fromkeys(e for e in (*whole, *plain) if columns_of(e)))
    }
    named = [(f"c{number}", expr) for number, expr in enumerate(made)]
    renamed = {p.name: made[p] for p in plain}

    def put(expr: Expr) -> Expr:
        return made[expr] if expr in made else substitute(expr, renamed)

    return replace(
        plan,
        time=None,
        where=reduce(conjunction, map(put, late), None),
        keys=tuple(replace(k, expr=put(k.expr)) for k in plan.keys),
        aggregations=tuple(replace(a, args=tuple(map(put, a.args))) for a in plan.aggregations),
        joins=tuple(replace(j, keys=tuple((put(e), c) for e, c in j.keys)) for j in plan.joins),
        branches=tuple(_pushed(b, early, named) for b in plan.branches),
    )
