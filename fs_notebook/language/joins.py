"""What a plan with joins needs of them: the columns that something reads, no others.

So a definition reads no more of the other stream than it uses, and a column that is added to it
makes no new version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from fs_notebook.language.expr import Expr, columns_of, conjunction, conjuncts
from fs_notebook.language.plan import Plan


def joined_columns(plan: Plan) -> set[str]:
    """Return the names that joins give to the columns that they put beside a row."""
    return {name for join in plan.joins for name, _, _ in join.columns}


def pruned(plan: Plan) -> Plan:
    """Return the plan with those columns of joined streams only that it reads.

    A join stays where none is read: it may drop rows.
    """
    if not plan.joins:
        return plan
    exprs = [k.expr for k in plan.keys] + [e for a in plan.aggregations for e in a.args]
    exprs += [] if plan.where is None else [plan.where]
    # One join's key may be a column of another's.
    exprs += [e for join in plan.joins for e, _ in join.keys]
    read = set().union(*map(columns_of, exprs))
    return replace(
        plan,
        joins=tuple(
            replace(j, columns=tuple(c for c in j.columns if c[0] in read)) for j in plan.joins
        ),
    )


def early_where(plan: Plan) -> Expr | None:
    """Return what of WHERE can be told of a row before it is joined; None for nothing."""
    joined = joined_columns(plan)
    return _conditions(plan, lambda names: not names & joined)


def other_where(plan: Plan) -> Expr | None:
    """Return what of WHERE can be told of an interval join's other stream by itself."""
    assert plan.pairs is not None
    mine = {name for name, _, _ in plan.pairs.columns}
    return _conditions(plan, lambda names: bool(names) and names <= mine)


def _conditions(plan: Plan, wanted: Callable[[set[str]], bool]) -> Expr | None:
    found = [] if plan.where is None else conjuncts(plan.where)
    none: Expr | None = None
    return reduce(conjunction, [c for c in found if wanted(set(columns_of(c)))], none)
