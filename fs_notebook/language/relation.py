"""What a SELECT reads: a stream, or row transforms over one, inlined.

A sub-query, a CTE or a view is a SELECT of row expressions with a WHERE, over a stream or over
another such SELECT. It is resolved by putting its expressions in the place of its names. So a
definition that uses one has the plan, and the fingerprint, of the one that is written out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from sqlglot import exp

from fs_notebook.errors import DefinitionError
from fs_notebook.language.calls import has_aggregate
from fs_notebook.language.expr import Call, Column, Expr, walk
from fs_notebook.language.expr import conjunction as conjunction
from fs_notebook.language.intervals import interval_of, is_bound, moment_of
from fs_notebook.language.operations import is_open
from fs_notebook.language.parse import check_clauses, parse_rows
from fs_notebook.language.plan import Branch, Join
from fs_notebook.language.rules import common
from fs_notebook.language.sources import BETWEEN
from fs_notebook.language.sql_expr import Translator, refuse
from fs_notebook.language.unions import by_place, selects_of, unite
from fs_notebook.types import Type

DEPTH_MAX = 20
_ROWS = (
    "A sub-query, a CTE and a view give a row for each row: row expressions and a WHERE. "
    "Aggregates belong into the feature's own SELECT."
)


@dataclass(frozen=True)
class SourceColumns:
    """What the compiler must know of a source: its name, its columns, its time column.

    `branches` are the streams that a union puts together; there are none for a stream.
    """

    name: str
    columns: tuple[tuple[str, Type], ...]
    time: str | None
    cut: str | None = None
    """Of a table, which has no event time: the position of its newest row, as text."""
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Relation:
    """Rows of a source, transformed.

    Attributes
    ----------
    source
        The stream that the rows come from.
    columns
        What each row has: a name, and the expression over the stream's columns that gives it.
    where
        Which of the stream's rows there are; None for all.
    """

    source: SourceColumns
    columns: Mapping[str, Expr]
    where: Expr | None = None
    joins: tuple[Join, ...] = ()
    qualified: Mapping[str, Expr] = field(default_factory=dict)
    """What ``alias.column`` stands for."""
    moment: Expr | None = None
    """The event time, where it is not the source's time column: that of pairs."""

    @property
    def types(self) -> tuple[tuple[str, Type], ...]:
        """The columns' names and types, in order."""
        return tuple((name, expr.type) for name, expr in self.columns.items())

    @property
    def time(self) -> str | None:
        """What the event time is called here; None where it has no name."""
        wanted = self._event_time()
        return next((n for n, e in self.columns.items() if e == wanted), None)

    def may_be_time(self, expr: Expr) -> bool:
        """Tell whether an expression is the event time, for all that is known of its stream."""
        unknown = self.source.time is None and not self.source.branches
        return unknown or self.is_time(expr)

    @property
    def order_remedy(self) -> str:
        """What an ORDER BY by something else is told."""
        if (time := self.time) is not None:
            return f"ORDER BY {time}"
        if self.source.branches:
            return "select the event time at the same place in each SELECT of the union"
        return "declare the stream's time column first"

    def is_time(self, expr: Expr) -> bool:
        """Tell whether an expression is the event time."""
        return expr == self._event_time()

    def _event_time(self) -> Expr | None:
        if self.moment is not None:
            return self.moment
        name = self.source.time
        return None if name is None else Column(name, Type.TIMESTAMP)

    def translator(self, text: str, name: str) -> Translator:
        """Return what translates expressions over these rows, called `name` in errors."""
        return Translator(text, self.types, name, bindings=self.columns, qualified=self.qualified)


def whole(source: SourceColumns) -> Relation:
    """Return a stream as it is."""
    return Relation(source, {name: Column(name, kind) for name, kind in source.columns})


def named(relation: Relation, node: exp.Expr) -> Relation:
    """Return a relation whose columns are known by the alias, or the name, that FROM gives it."""
    alias = node.alias_or_name
    return replace(relation, qualified={f"{alias}.{n}": e for n, e in relation.columns.items()})


def joined(
    base: Relation, node: exp.Join, text: str, find_source: Callable[[str], SourceColumns]
) -> Relation:
    """Return a relation with the columns of another stream beside each row.

    Raises
    ------
    DefinitionError
        If it is no equality join with a stream, over an interval or not; says where.
    """
    _check_kind(node, text)
    table = node.this
    name = ".".join(part.name for part in table.parts)
    right = find_source(name)
    alias = table.alias_or_name
    types = dict(right.columns)
    other = Translator(text, right.columns, right.name)
    keys, shared = _keys(base, node, text, alias, other)
    bounds = [p for p in _conjuncts(node.args["on"]) if is_bound(p)] if node.args.get("on") else []
    within = interval_of(bounds, node, base, right, alias, text) if bounds else None
    if not keys:
        raise refuse(
            node, text, "A join has equal columns too, not an interval alone.",
            remedy=f"… ON {alias}.column = an expression over the row AND …",
        )  # fmt: skip
    for expr, column in keys:
        if different := mismatch(expr, types[column]):
            raise refuse(
                node, text, "The two sides of a join have different types.", found=different,
                remedy="CAST one of them",
            )  # fmt: skip
    temporal = right.time is not None or bool(table.args.get("version"))
    if not temporal and right.cut is None:
        raise refuse(node, text, f"The table {name!r} has no row.", remedy="upload it first")
    _check_version(base, table, text)
    beside, columns = with_join(
        base, right, keys, outer=node.side == "LEFT", cut=None if temporal else right.cut,
        within=within,
    )  # fmt: skip
    moment = base.moment
    if within is not None:
        row, later = base._event_time(), columns[str(right.time)]
        assert row is not None
        moment = moment_of(within, row, later)
    plain: dict[str, Expr] = dict(base.columns)
    for column, expr in columns.items():
        if column in shared:
            continue
        if column in plain:
            # Of two of one name neither is meant by the bare name.
            del plain[column]
        else:
            plain[column] = expr
    qualified = {**base.qualified, **{f"{alias}.{c}": e for c, e in columns.items()}}
    return replace(beside, columns=plain, qualified=qualified, moment=moment)


def mismatch(key: Expr, column: Type) -> str | None:
    """Return both types of a join's key, where it cannot be equal to the other's; else None."""
    return None if common([key.type, column]) is column else f"{key.type} and {column}"


def with_join(
    base: Relation,
    right: SourceColumns,
    keys: Sequence[tuple[Expr, str]],
    *,
    outer: bool,
    cut: str | None,
    within: tuple[int, int] | None = None,
) -> tuple[Relation, dict[str, Column]]:
    """Return the relation with one more join, and what that calls the other's columns.

    The arguments are those of `Join`.
    """
    number = len(base.joins)
    columns = {c: Column(f"__j{number}.{c}", t) for c, t in right.columns}
    put = tuple((e.name, c, e.type) for c, e in columns.items())
    join = Join(right.name, tuple(keys), put, outer, cut, within)
    return replace(base, joins=(*base.joins, join)), columns


def _check_kind(node: exp.Join, text: str) -> None:
    table = node.this
    plain = isinstance(table, exp.Table) and isinstance(table.this, exp.Identifier)
    kind = node.side in ("", "LEFT") and node.kind in ("", "INNER", "OUTER") and not node.method
    if not plain or not kind or not (node.args.get("on") or node.args.get("using")):
        raise refuse(
            node, text, "This join cannot be folded.",
            remedy="JOIN or LEFT JOIN a stream on equal columns: … JOIN articles a ON "
            "r.article = a.article",
        )  # fmt: skip


def _check_version(base: Relation, table: exp.Table, text: str) -> None:
    version = table.args.get("version")
    if version is None:
        return
    moment = version.args.get("expression")
    row = base.translator(text, base.source.name)
    known = isinstance(moment, exp.Column) and base.may_be_time(row.column(moment))
    if not known or version.args.get("kind") != "AS OF":
        raise refuse(
            table, text, "A temporal join is as of the row's event time.",
            remedy=f"FOR SYSTEM_TIME AS OF {base.time or 'the time column'}",
        )  # fmt: skip


def _keys(
    base: Relation, node: exp.Join, text: str, alias: str, other: Translator
) -> tuple[list[tuple[Expr, str]], set[str]]:
    """Return what is equal on both sides, and the names that USING makes common."""
    row = base.translator(text, base.source.name)
    if using := node.args.get("using"):
        names = [other.name_of(exp.column(c.name)) for c in using]
        return [(row.column(exp.column(c.name)), n) for c, n in zip(using, names, strict=True)], {
            *names
        }
    keys: list[tuple[Expr, str]] = []
    for part in _conjuncts(node.args["on"]):
        if is_bound(part):
            continue
        sides = [part.this, part.expression] if isinstance(part, exp.EQ) else []
        theirs = [s for s in sides if isinstance(s, exp.Column) and s.table == alias]
        if len(theirs) != 1:
            raise refuse(
                part, text, "A join is on equal columns.",
                remedy=f"{alias}.column = an expression over the row; other conditions into WHERE",
            )  # fmt: skip
        (mine,) = [s for s in sides if s is not theirs[0]]
        keys.append((row(mine), other.name_of(exp.column(theirs[0].name))))
    return keys, set()


def _conjuncts(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Paren):
        return _conjuncts(node.this)
    if isinstance(node, exp.And):
        return [*_conjuncts(node.this), *_conjuncts(node.expression)]
    return [node]


class RowTransform(Protocol):
    """A view that is no SQL text: it gives its rows itself."""

    def relation(self, resolver: Resolver) -> Relation:
        """Return the rows."""
        ...


@dataclass(frozen=True)
class Resolver:
    """Finds what stands in FROM.

    Attributes
    ----------
    find_source
        Gives a stream's columns by name; raises `UnknownName` for one that is not there.
    find_view
        Gives a view by name, its SQL text or what stands for it, None where there is none.
    """

    find_source: Callable[[str], SourceColumns]
    find_view: Callable[[str], str | RowTransform | None] = field(default=lambda name: None)
    _ctes: Mapping[str, tuple[exp.Query, str, Resolver]] = field(default_factory=dict)
    _depth: int = 0

    def resolve(self, select: exp.Select, text: str) -> Relation:
        """Return the relation that a SELECT reads.

        Raises
        ------
        DefinitionError
            If FROM holds something that is no row transform; says where.
        UnknownName
            If nothing has the name that stands there.
        """
        if self._depth > DEPTH_MAX:
            raise refuse(
                select, text, "Views and sub-queries are nested too deeply.",
                found=f"more than {DEPTH_MAX} levels", remedy="fewer of them inside each other",
            )  # fmt: skip
        scope = self._with_ctes(select, text)
        from_ = select.args.get("from_")
        if from_ is None:
            raise refuse(select, text, "The SELECT names no stream.", remedy="… FROM stream …")
        base = named(scope._item(from_.this, text), from_.this)
        for join in select.args.get("joins") or []:
            base = joined(base, join, text, self.find_source)
        return base

    def _with_ctes(self, select: exp.Query, text: str) -> Resolver:
        with_ = select.args.get("with_")
        if with_ is None:
            return self
        if with_.args.get("recursive"):
            raise refuse(with_, text, "A recursive WITH cannot be folded.", remedy=_ROWS)
        scope = self
        for cte in with_.expressions:
            inner = cte.this
            rows = isinstance(inner, (exp.Select, exp.SetOperation))
            if not rows or cte.args["alias"].columns:
                raise refuse(
                    cte, text, "A CTE is a SELECT of row expressions.",
                    remedy="WITH f AS (SELECT user, x + 1 AS y FROM stream) …",
                )  # fmt: skip
            # A CTE sees those before it, not itself.
            known = {**scope._ctes, cte.alias: (inner, text, scope)}
            scope = replace(scope, _ctes=known)
        return scope

    def _item(self, node: exp.Expr, text: str) -> Relation:
        if isinstance(node, exp.Subquery) and isinstance(node.this, (exp.Select, exp.SetOperation)):
            return self._deeper().transform(node.this, text)
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise refuse(
                node, text, "FROM takes a stream, a view or a sub-query.",
                remedy="FROM read_events",
            )  # fmt: skip
        name = ".".join(part.name for part in node.parts)
        if name in self._ctes:
            inner, its_text, scope = self._ctes[name]
            return replace(scope, _depth=self._depth + 1).transform(inner, its_text)
        return self.named(name)

    def named(self, name: str) -> Relation:
        """Return the rows of the stream or the view of this name."""
        view = self.find_view(name)
        if view is not None:
            # What a view says does not see the CTEs around it.
            plain = Resolver(self.find_source, self.find_view, {}, self._depth + 1)
            if isinstance(view, str):
                return plain.transform(parse_rows(view), view)
            if self._depth > DEPTH_MAX:
                raise DefinitionError(
                    "Views are nested too deeply.", found=f"more than {DEPTH_MAX} levels",
                    remedy="fewer of them inside each other",
                )  # fmt: skip
            return view.relation(plain)
        return whole(self.find_source(name))

    def _deeper(self) -> Resolver:
        return replace(self, _depth=self._depth + 1)

    def _union(self, node: exp.SetOperation, text: str) -> Relation:
        """Return the rows of several SELECTs, as if they were those of one stream."""
        scope = self._with_ctes(node, text)
        selects = selects_of(node, text)
        first, *others = selects
        rows = [scope.transform(s, text) for s in (first, *map(by_place, others))]
        columns, time, branches = unite(rows, selects, text)
        name = BETWEEN.join(b.source for b in branches)
        return whole(SourceColumns(name, columns, time, branches=branches))

    def transform(self, select: exp.Query, text: str) -> Relation:
        """Return the rows that a SELECT of row expressions, or a union of such, gives.

        Raises
        ------
        DefinitionError
            If it is no row transform, or two of its columns have one name.
        """
        if isinstance(select, exp.SetOperation):
            return self._union(select, text)
        assert isinstance(select, exp.Select)
        check_clauses(select, text)
        for clause in ("group", "windows"):
            if node := select.args.get(clause):
                first = node[0] if isinstance(node, list) else node
                raise refuse(first, text, "A row transform makes no groups.", remedy=_ROWS)
        base = self.resolve(select, text)
        row = base.translator(text, base.source.name)
        columns: dict[str, Expr] = {}
        for item in select.expressions:
            for name, expr in self._columns(item, base, row, text):
                if name in columns:
                    raise refuse(
                        item, text, f"Two columns are called {name!r}.",
                        remedy="another name after AS",
                    )  # fmt: skip
                columns[name] = expr
        where = select.args.get("where")
        condition = None if where is None else condition_of(row, where.this, text)
        kept = conjunction(base.where, condition)
        return Relation(base.source, columns, kept, base.joins, moment=base.moment)

    def _columns(
        self, item: exp.Expr, base: Relation, row: Translator, text: str
    ) -> list[tuple[str, Expr]]:
        if isinstance(item, exp.Star):
            return self._star(item, base, row, text)
        if isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            return self._star(item.this, base, row, text)
        node = item.this if isinstance(item, exp.Alias) else item
        if has_aggregate(node):
            raise refuse(node, text, "An aggregate stands in a row transform.", remedy=_ROWS)
        name = item.alias_or_name if isinstance(item, (exp.Alias, exp.Column)) else ""
        if isinstance(item, exp.Column):
            name = row.label(item)
        if not name:
            raise refuse(item, text, "This column has no name.", remedy="… AS name")
        return [(name, row(node))]

    @staticmethod
    def _star(star: exp.Star, base: Relation, row: Translator, text: str) -> list[tuple[str, Expr]]:
        """Expand ``*``, with DuckDB's EXCLUDE and REPLACE."""
        left_out = {row.name_of(exp.column(c.name)) for c in star.args.get("except_") or []}
        changed = {e.alias: row(e.this) for e in star.args.get("replace") or []}
        for name in changed:
            row.column(exp.column(name))
        if star.args.get("rename"):
            raise refuse(star, text, "RENAME is not in the language.", remedy="x AS y")
        return [(n, changed.get(n, e)) for n, e in base.columns.items() if n not in left_out]


def condition_of(row: Translator, node: exp.Expr, text: str) -> Expr:
    """Translate a condition.

    Raises
    ------
    DefinitionError
        If it is neither true nor false.
    """
    condition = row(node)
    if condition.type is not Type.BOOLEAN:
        raise refuse(
            node, text, "A condition is true or false.",
            found=f"{node.sql(dialect='duckdb')}, which is {condition.type}",
            remedy="a comparison, e.g. x > 0",
        )  # fmt: skip
    return condition


def view_relation(view: str | RowTransform, resolver: Resolver) -> Relation:
    """Return the rows that a view gives.

    Raises
    ------
    DefinitionError
        If the text is no SELECT of row expressions.
    """
    if isinstance(view, str):
        text, relation = view, resolver.transform(parse_rows(view), view)
    else:
        text, relation = "", view.relation(resolver)
    if not relation.columns:
        raise DefinitionError("The view has no column.", remedy="SELECT … FROM stream", text=text)
    where = [] if relation.where is None else [relation.where]
    for part in (p for e in (*relation.columns.values(), *where) for p in walk(e)):
        if isinstance(part, Call) and is_open(part):
            raise DefinitionError(
                f"{part.function.upper()} is pinned by the feature that uses it, not by a view.",
                remedy="use it in a feature over the view, or write its constants out", text=text,
            )  # fmt: skip
    return relation
