"""A feature cell's Polars expressions, compiled to a plan.

The cell's last expression, or the argument of ``fs.feature``, is one of::

    pl.col("readtime").filter(pl.col("genre") == "news").sum()
    [pl.len().alias("reads"), pl.col("readtime").mean().alias("mean_readtime")]
    {"reads": pl.len(), "share": pl.col("ok").mean()}
    fs.stream("read_events").filter(pl.col("ok")).group_by("user").agg(reads=pl.len())

An aggregate's window is the cell's ``--window``, or its own:
``pl.col("x").sum().rolling("ts", period="7d")`` is SQL's ``OVER (… RANGE …)``. Which end it is
closed at is ``--closed``, since a feature is asked for at any time, not at an event's.

The catalog keeps the tree (`to_json`) and never runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.calls import parameters_of
from fs_notebook.language.expr import Aggregated, Call, Expr, columns_of, only_where
from fs_notebook.language.plan import Aggregation, Key, Output, Plan, Window, check_key_order
from fs_notebook.language.polars_aggregates import Called, called_by
from fs_notebook.language.polars_expr import AGGREGATE_KINDS, PolarsTranslator
from fs_notebook.language.polars_frame import Aggregates
from fs_notebook.language.polars_functions import HANDLERS
from fs_notebook.language.polars_text import named_text, render, shortened
from fs_notebook.language.polars_tree import Node, tree_of
from fs_notebook.language.relation import Relation, conjunction
from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.language.rules import not_a_key
from fs_notebook.language.unions import canonical
from fs_notebook.types import Type

FEATURES_MAX = 1_000
_EXAMPLE = 'pl.col("readtime").sum()'
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class PolarsDefinition:
    """What a cell or a call says, as trees.

    Attributes
    ----------
    features
        Each feature's name, where one is given, and its expression.
    stream
        The stream's name, where the expressions say it themselves.
    keys
        The keys' names and expressions, where they are said.
    where
        The conditions that every row must fulfil.
    rows
        What more is done to the stream's rows, with the conditions among it; None for nothing.
    """

    features: tuple[tuple[str | None, Node], ...]
    stream: str | None = None
    keys: tuple[tuple[str, Node], ...] = ()
    where: tuple[Node, ...] = ()
    rows: PolarsRows | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        return {
            "features": [[name, node.to_json()] for name, node in self.features],
            "stream": self.stream,
            "keys": [[name, node.to_json()] for name, node in self.keys],
            "where": [node.to_json() for node in self.where],
            **({} if self.rows is None else {"rows": self.rows.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolarsDefinition:
        """Return the definition that `to_json` wrote."""
        return cls(
            tuple((name, Node.from_json(node)) for name, node in data["features"]),
            data["stream"],
            tuple((name, Node.from_json(node)) for name, node in data["keys"]),
            tuple(Node.from_json(node) for node in data["where"]),
            PolarsRows.from_json(data["rows"]) if "rows" in data else None,
        )

    def __str__(self) -> str:
        """Return Python that says the same."""
        lines = [named_text(name, node) for name, node in self.features]
        if self.stream is not None:
            text = str(self.rows or PolarsRows(self.stream))
            text += "".join(f".filter({render(n)})" for n in self.where)
            text += f".group_by({', '.join(named_text(n, k) for n, k in self.keys)})"
            return f"{text}.agg({', '.join(lines)})"
        if len(lines) == 1:
            return lines[0]
        return "[\n" + "".join(f"    {line},\n" for line in lines) + "]"

    @property
    def columns(self) -> set[str]:
        """The names of the columns that the expressions read."""
        nodes = [n for _, n in self.features] + [n for _, n in self.keys] + list(self.where)
        return {str(n.option) for node in nodes for n in node.walk() if n.kind == "column"}


def read_polars(value: object) -> PolarsDefinition:
    """Return what an expression, a list or dict of some, or an aggregated stream says.

    Raises
    ------
    DefinitionError
        If it is something else, or holds what cannot be stored.
    """
    if isinstance(value, PolarsDefinition):
        return value
    if isinstance(value, Aggregates):
        rows = value.rows
        plain = all(step.kind == "filter" for step in rows.steps)
        return PolarsDefinition(
            _trees(value.features), rows.stream,
            tuple((_key_name(n, e), tree_of(e)) for n, e in value.keys),
            tuple(node for s in rows.steps for _, node in s.exprs) if plain else (),
            None if plain else rows,
        )  # fmt: skip
    if isinstance(value, pl.Expr):
        return PolarsDefinition(_trees([(None, value)]))
    if isinstance(value, Mapping):
        return PolarsDefinition(_trees(list(value.items())))
    if isinstance(value, (list, tuple)):
        return PolarsDefinition(_trees([(None, v) for v in value]))
    raise DefinitionError(
        "A feature is a Polars expression, or a list or dict of some.",
        found="nothing" if value is None else f"a {type(value).__name__}",
        remedy=_EXAMPLE,
    )


def _trees(values: Sequence[tuple[object, object]]) -> tuple[tuple[str | None, Node], ...]:
    if not 0 < len(values) <= FEATURES_MAX:
        if not values:
            return ()
        raise DefinitionError(
            f"A group has {FEATURES_MAX:,} features at most.", found=f"{len(values):,}",
            remedy="several groups",
        )  # fmt: skip
    found = []
    for name, value in values:
        if not isinstance(value, pl.Expr) or not (name is None or isinstance(name, str)):
            what = f"{type(value).__name__}" + ("" if name is None else f" for {name!r}"[:80])
            raise DefinitionError(
                "Each feature is a Polars expression under a name.", found=what, remedy=_EXAMPLE
            )
        found.append((name, tree_of(value)))
    return tuple(found)


def _key_name(name: str | None, expr: pl.Expr) -> str:
    if name is not None:
        return name
    node = tree_of(expr)
    if node.kind in ("column", "alias"):
        return str(node.option)
    raise DefinitionError(
        "A key that is an expression needs a name.", found=shortened(node),
        remedy='group_by(pl.col("user").str.to_lowercase().alias("user"))',
    )  # fmt: skip


def compile_polars(
    definition: PolarsDefinition,
    *,
    name: str,
    relation: Relation,
    stream: str | None = None,
    entity: Sequence[str] = (),
    window_us: int | None = None,
    closed: str = "left",
    resolution_us: int | None = None,
    text: str = "",
) -> Plan:
    """Compile Polars expressions to the plan of a feature group.

    Parameters
    ----------
    definition
        What `read_polars` read.
    name
        The feature group's name; a single feature without an alias takes it.
    relation
        The rows of the stream, or of a view over one.
    stream
        What the cell or the call says that the expressions read.
    entity
        The columns of the key; ``"who=user"`` calls the column user who. Where the definition has
        keys itself: what they are called.
    window_us, closed, resolution_us
        As for `compile_sql`.
    text
        What the user wrote, for errors that point into it.

    Raises
    ------
    DefinitionError
        If the expressions cannot be folded; says where, why, and what can.
    UsageError
        If the stream is said twice.
    """
    if stream and definition.stream and stream != definition.stream:
        raise UsageError(
            "The stream is given twice.", found=f"{stream} beside {definition.stream}",
            remedy="one of them",
        )  # fmt: skip
    window = Window(window_us, closed, resolution_us=resolution_us)
    row = PolarsTranslator(HANDLERS, relation.columns, relation.source.name, text)
    try:
        return _Compiler(name, relation, window, row).compile(definition, list(entity))
    except RecursionError:
        raise DefinitionError(
            "This expression is nested too deeply.", remedy="several features, or fewer steps"
        ) from None


@dataclass
class _Compiler:
    name: str
    relation: Relation
    window: Window
    row: PolarsTranslator
    aggregations: list[Aggregation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.over = replace(self.row, on_aggregate=self.aggregate)

    def compile(self, definition: PolarsDefinition, entity: list[str]) -> Plan:
        if not definition.features:
            raise DefinitionError("There is no feature.", remedy=_EXAMPLE)
        keys = self._keys(definition, entity)
        where = self.relation.where
        for node in definition.where:
            where = conjunction(where, self.row.condition(node))
        outputs = [self._output(n, node, definition) for n, node in definition.features]
        source = self.relation.source
        plan = Plan(
            source.name, source.time, keys, where, tuple(self.aggregations),
            tuple(outputs), self.relation.joins, source.branches,
        )  # fmt: skip
        for names, what in ((plan.features, "features"), (plan.entity, "keys")):
            if twice := {n for n in names if names.count(n) > 1}:
                raise DefinitionError(
                    f"Two {what} are called {min(twice)!r}.", remedy='another .alias("name")'
                )
        if clash := set(plan.entity) & set(plan.features):
            raise DefinitionError(
                f"The feature {min(clash)!r} is called as its key is.",
                remedy='another .alias("name")',
            )
        return canonical(plan)

    def _keys(self, definition: PolarsDefinition, entity: list[str]) -> tuple[Key, ...]:
        named = list(definition.keys)
        if named and entity:
            if len(entity) != len(named):
                raise DefinitionError(
                    "--entity names another number of keys than group_by.",
                    found=f"{', '.join(entity)} beside {len(named)} key(s)",
                    remedy="one name for each key, or leave --entity out",
                )
            check_key_order(entity, [called for called, _ in named])
            named = [(e, node) for e, (_, node) in zip(entity, named, strict=True)]
        for part in [] if named else entity:
            called, _, column = (p.strip() for p in part.partition("="))
            named.append((called, Node("column", (), column or called)))
        if not named:
            raise DefinitionError(
                "No key: nothing says whose feature this is.", remedy="--entity user"
            )
        keys = []
        for called, node in named:
            expr = self.row(node)
            if (reason := not_a_key(expr.type)) is not None:
                raise self.row.refuse(
                    node, reason,
                    remedy="cast it to pl.Int64 or pl.String",
                )  # fmt: skip
            keys.append(Key(called, expr))
        return tuple(keys)

    def _output(self, name: str | None, node: Node, definition: PolarsDefinition) -> Output:
        if not any(n.kind.startswith("agg.") or n.kind in AGGREGATE_KINDS for n in node.walk()):
            self.row(node)
            raise self.row.refuse(node, "No aggregate to fold.", remedy=_EXAMPLE)
        expr = self.over(node)
        name = name or _alias(node)
        if name is None and len(definition.features) == 1:
            name = self.name
        if name is None:
            name = self._default_name(expr, node)
        return Output(name, expr)

    def _default_name(self, expr: Expr, node: Node) -> str:
        """Return ``sum_readtime``, as SQL calls it, where it is as plain as that."""
        called = self._called(node)
        plain = called is not None and all(a.kind in ("column", "literal") for a in called.args)
        if called is None or not plain or not isinstance(expr, Aggregated):
            raise self.row.refuse(node, "This feature has no name.", remedy='.alias("name")')
        columns = [str(a.option) for a in called.args if a.kind == "column" and not called.rows]
        return "_".join([called.name, *columns])

    def _called(self, node: Node) -> Called | None:
        while node.kind in ("rolling", "alias"):
            node = node.inputs[0]
        called = called_by(self.row, node)
        if called is None:
            return None
        return replace(called, args=tuple(self._stripped(a)[0] for a in called.args))

    def aggregate(self, node: Node) -> Expr | None:
        """Register an aggregate; return the reference to its value, or None for what is none."""
        if node.kind == "rolling":
            return self._rolling(node)
        if node.kind in ("filter", "sort_by", "fn.DropNulls", "fn.DropNans", "fn.Unique"):
            raise self.row.refuse(
                node, "Rows are chosen before they are folded.",
                remedy='pl.col("x").filter(pl.col("genre") == "news").sum()',
            )  # fmt: skip
        called = called_by(self.row, node)
        if called is None:
            return None
        args, params = self._arguments(called, node)
        kind = AGGREGATES[called.name].result([a.type for a in args])
        if kind is None:
            raise self.row.refuse(
                node, f"The types do not fit {AGGREGATES[called.name].usage}.",
                found=f"{shortened(node)} of {', '.join(a.type.value for a in args)}",
                remedy='cast the argument: pl.col("x").cast(pl.Float64)',
            )  # fmt: skip
        window = self.window
        if window.length_us is None:
            # A lifetime has no tail that could be floored.
            window = replace(window, resolution_us=None)
        found = Aggregation(called.name, args, window, kind, params)
        if found not in self.aggregations:
            self.aggregations.append(found)
        return Aggregated(self.aggregations.index(found), found.type)

    def _arguments(
        self, called: Called, node: Node
    ) -> tuple[tuple[Expr, ...], tuple[int | float | str | bool | None, ...]]:
        stripped = [self._stripped(a) for a in called.args]
        conditions = [c for _, c, _ in stripped]
        if any(c != conditions[0] for c in conditions):
            raise self.row.refuse(
                node, "The arguments are not of the same rows.", remedy="the same filter on each"
            )
        try:
            params = parameters_of(called.name, [self.row(n) for n in called.constants])
        except DefinitionError as error:
            raise self.row.refuse(
                node, error.message, found=error.found, remedy=error.remedy or _EXAMPLE
            ) from None
        values = [self.row(inner) for inner, _, _ in stripped]
        if values and not any(map(columns_of, values)):
            # Polars takes it for a single value, whatever the number of rows.
            raise self.row.refuse(
                node, "An aggregate of a constant does not look at the rows.", remedy="pl.len()"
            )
        if called.rows and not any(dropped for _, _, dropped in stripped):
            values = []
        if called.name in ("sum", "avg") and values[0].type is Type.BOOLEAN:
            values[0] = Call("cast_BIGINT", (values[0],), Type.BIGINT)
        args = tuple(values)
        condition: Expr | None = None
        for by in conditions[0] if conditions else ():
            more = self.row.condition(by)
            condition = conjunction(condition, more)
        return (args if condition is None else only_where(condition, args)), params

    def _stripped(self, node: Node) -> tuple[Node, tuple[Node, ...], bool]:
        """Return what an aggregate folds, the conditions on its rows, and if nulls are dropped."""
        if node.kind == "alias":
            return self._stripped(node.inputs[0])
        if node.kind == "filter":
            inner, conditions, dropped = self._stripped(node.inputs[0])
            return inner, (*conditions, node.inputs[1]), dropped
        if node.kind == "fn.DropNulls":
            inner, conditions, _ = self._stripped(node.inputs[0])
            return inner, conditions, True
        if node.kind == "fn.DropNans":
            inner, conditions, dropped = self._stripped(node.inputs[0])
            # Nulls stay: they are rows still, where rows are counted.
            kinds = ("fn.Boolean.IsNull", "fn.Boolean.IsNotNan")
            there = Node("binary.Or", tuple(Node(k, (inner,)) for k in kinds))
            return inner, (*conditions, there), dropped
        if node.kind == "sort_by":
            value, *by = node.inputs
            if node.option or len(by) != 1 or not self._is_time(by[0]):
                raise self.row.refuse(
                    node, "Events come in the order of their time.",
                    remedy=f"leave sort_by out, or sort by {self.relation.time!r} alone, ascending",
                )  # fmt: skip
            return self._stripped(value)
        return node, (), False

    def _is_time(self, node: Node) -> bool:
        return self.relation.is_time(self.row(node))

    def _rolling(self, node: Node) -> Expr:
        inner, by = node.inputs
        option = node.option
        spans = [_span_us(option[k]) for k in ("period", "offset")]
        if not self._is_time(by):
            raise self.row.refuse(
                node, "A window is ordered by the stream's event time.",
                remedy=f'rolling("{self.relation.time}", period="7d")',
            )  # fmt: skip
        if spans[0] is None or spans[1] != -spans[0] or option["closed_window"] not in (
            "Left", "Right"
        ):  # fmt: skip
            raise self.row.refuse(
                node, "A window ends now and reaches back a fixed time.",
                remedy=f'rolling("{self.relation.time}", period="7d"); units: s, m, h, d, w',
            )  # fmt: skip
        if any(n.kind == "rolling" for n in inner.walk()):
            raise self.row.refuse(node, "A window stands in a window.", remedy="one of them")
        outer, self.window = self.window, replace(self.window, length_us=spans[0])
        try:
            return self.over(inner)
        finally:
            self.window = outer


def _span_us(span: Mapping[str, Any]) -> int | None:
    """Return the microseconds of Polars' duration, or None where it has no fixed length."""
    days, nanoseconds = 7 * int(span["weeks"]) + int(span["days"]), int(span["nsecs"])
    if span["months"] or nanoseconds % 1_000:
        return None
    us = days * _DAY_US + nanoseconds // 1_000
    return (-us if span["negative"] else us) or None


def _alias(node: Node) -> str | None:
    """Return the name that Polars would give: an alias, or that of what stands first."""
    while node.inputs and node.kind != "alias":
        node = node.inputs[1 if node.kind == "ternary" else 0]
    return str(node.option) if node.kind == "alias" else None


def sole_stream(definition: PolarsDefinition, known: Mapping[str, Sequence[str]]) -> str:
    """Return the only stream that there is, where nothing says which one is meant.

    Parameters
    ----------
    known
        The columns of each declared stream.

    Raises
    ------
    UsageError
        If there is not exactly one; those that have the columns are suggested.
    """
    if len(known) == 1:
        return next(iter(known))
    fits = [name for name, columns in known.items() if definition.columns <= set(columns)]
    raise UsageError(
        "Nothing says which stream this is a feature of.",
        found=", ".join(sorted(known)) or "there is none: upload one",
        remedy="--stream " + (" or --stream ".join(sorted(fits)[:3]) or "read_events"),
    )
