"""Interval joins: pairs of rows of two streams whose event times lie near each other.

``a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1' HOUR AND a.ts`` gives a row for each
pair of equal keys for which lower ≤ b's event time - a's ≤ upper. A pair happens when the later of
its two events does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from fs_notebook.language.expr import Call, Expr
from fs_notebook.language.sql_expr import interval_us, refuse
from fs_notebook.types import Type

if TYPE_CHECKING:
    from fs_notebook.language.relation import Relation, SourceColumns

REACH_MAX_US = 2**60
"""How far apart two events of a pair may be: some 36,000 years."""

_EXAMPLE = "{0}.{1} BETWEEN {2} - INTERVAL '1' HOUR AND {2}"
_FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE,
}  # fmt: skip
# How many of the row's time, of the other stream's time, and how many microseconds.
_Sum = tuple[int, int, int]


def is_bound(node: exp.Expr) -> bool:
    """Tell whether a condition of a join bounds something, instead of being an equality."""
    return isinstance(node, (exp.Between, *_FLIPPED))


class _Reader:
    """Reads bounds on the difference between two streams' event times."""

    def __init__(self, base: Relation, right: SourceColumns, alias: str, text: str) -> None:
        self._base, self._right = base, right
        self._alias, self._text = alias, text
        self._row = base.translator(text, base.source.name)
        self._remedy = _EXAMPLE.format(alias, right.time, base.time or "the row's event time")

    def refuse(self, node: exp.Expr, reason: str, found: str | None = None) -> Exception:
        return refuse(node, self._text, reason, found=found, remedy=self._remedy)

    def bounds(self, node: exp.Expr) -> list[tuple[type[exp.Expr], int]]:
        """Return each comparison of a condition as (operator, microseconds) on other - row."""
        if isinstance(node, exp.Between):
            low, high = node.args["low"], node.args["high"]
            return [
                self._bound(node, exp.GTE, node.this, low),
                self._bound(node, exp.LTE, node.this, high),
            ]
        return [self._bound(node, type(node), node.this, node.expression)]

    def _bound(
        self, node: exp.Expr, operator: type[exp.Expr], one: exp.Expr, two: exp.Expr
    ) -> tuple[type[exp.Expr], int]:
        rows, others, us = _plus(self._sum(one), self._sum(two), -1)
        if (rows, others) == (-1, 1):
            return operator, -us
        if (rows, others) == (1, -1):
            return _FLIPPED[operator], us
        raise self.refuse(node, "A join's interval is between the event times of both streams.")

    def _sum(self, node: exp.Expr) -> _Sum:
        if isinstance(node, exp.Paren):
            return self._sum(node.this)
        if isinstance(node, exp.Interval):
            return 0, 0, interval_us(node, self._text)
        if isinstance(node, (exp.Add, exp.Sub)):
            sign = 1 if isinstance(node, exp.Add) else -1
            return _plus(self._sum(node.this), self._sum(node.expression), sign)
        if isinstance(node, exp.Neg):
            return _plus((0, 0, 0), self._sum(node.this), -1)
        if isinstance(node, exp.Column):
            return self._time(node)
        raise self.refuse(
            node, "This is no bound on the time between two events.",
            node.sql(dialect="duckdb"),
        )  # fmt: skip

    def _time(self, node: exp.Column) -> _Sum:
        bare = not node.table and node.name not in self._base.columns
        if node.table == self._alias or (bare and node.name in dict(self._right.columns)):
            if node.name == self._right.time:
                return 0, 1, 0
        elif self._base.is_time(self._row.column(node)):
            return 1, 0, 0
        raise self.refuse(
            node, "A join's interval is between the event times of both streams.",
            f"{node.sql()}, which is not the event time",
        )  # fmt: skip


def _plus(one: _Sum, two: _Sum, sign: int) -> _Sum:
    return one[0] + sign * two[0], one[1] + sign * two[1], one[2] + sign * two[2]


def interval_of(
    bounds: Sequence[exp.Expr],
    node: exp.Join,
    base: Relation,
    right: SourceColumns,
    alias: str,
    text: str,
) -> tuple[int, int]:
    """Return the least and the greatest microseconds from a row's event time to the other's.

    Parameters
    ----------
    bounds
        The conditions of the join's ON that are no equalities; there is at least one.

    Raises
    ------
    DefinitionError
        If they do not bound the time between the two events on both sides, or this join cannot
        be one over an interval; says where.
    """
    first = bounds[0]
    if right.time is None:
        raise refuse(
            first, text, f"{right.name!r} has no declared event time to join over an interval.",
            remedy="upload it with --time",
        )  # fmt: skip
    reader = _Reader(base, right, alias, text)
    if base.source.branches or base.joins:
        raise refuse(
            node, text, "A join over an interval is of two streams, and stands before other joins.",
            remedy="FROM one stream JOIN other ON … BETWEEN …, then the other joins",
        )  # fmt: skip
    if node.side == "LEFT":
        raise refuse(
            node, text, "A row without a partner may still get one: it cannot be folded as NULL.",
            remedy="JOIN; what both streams have by themselves into features of their own",
        )  # fmt: skip
    if version := node.this.args.get("version"):
        raise refuse(
            version, text, "A join is over an interval, or as of a moment: not both.",
            remedy="leave one of them out",
        )  # fmt: skip
    lower: list[int] = []
    upper: list[int] = []
    for bound in bounds:
        for operator, us in reader.bounds(bound):
            if operator in (exp.GTE, exp.GT):
                lower.append(us + (operator is exp.GT))
            else:
                upper.append(us - (operator is exp.LT))
    if not lower or not upper:
        raise reader.refuse(first, "A join over an interval is bounded on both sides.")
    low, high = max(lower), min(upper)
    if low > high:
        raise reader.refuse(first, "No two events are ever that far from each other: it is empty.")
    if max(abs(low), abs(high)) > REACH_MAX_US:
        raise reader.refuse(first, "The interval is too long.")
    return low, high


def moment_of(within: tuple[int, int], row: Expr, other: Expr) -> Expr:
    """Return the event time of a pair: the later of its events' times."""
    if within[1] <= 0:
        return row
    if within[0] >= 0:
        return other
    return Call("greatest", (row, other), Type.TIMESTAMP)
