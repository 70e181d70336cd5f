"""A feature cell's SQL, compiled to a plan.

Two forms are understood. Grouped: one value for an entity, folded over all its history::

    SELECT user, SUM(readtime) AS total FROM read_events GROUP BY user

Windowed: each aggregate over the entity's recent past, by the standard's own words::

    SELECT user, AVG(x) OVER (PARTITION BY user ORDER BY ts
                              RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW) AS x_7d
    FROM read_events
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from fs_notebook.errors import DefinitionError
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.calls import (
    call_of,
    has_aggregate,
    is_aggregate,
    parameters_of,
    result_of,
    usages,
)
from fs_notebook.language.expr import Aggregated, Call, Column, Expr, Literal, only_where
from fs_notebook.language.group_windows import group_window, window_name
from fs_notebook.language.parse import parse_select
from fs_notebook.language.plan import (
    Aggregation,
    Key,
    Output,
    Plan,
    Scalar,
    Window,
    check_key_order,
)
from fs_notebook.language.relation import (
    Relation,
    Resolver,
    RowTransform,
    SourceColumns,
    condition_of,
    conjunction,
)
from fs_notebook.language.rules import not_a_key
from fs_notebook.language.sql_expr import Translator, interval_us, refuse
from fs_notebook.language.unions import canonical
from fs_notebook.types import Type


def compile_sql(
    text: str,
    *,
    name: str,
    find_source: Callable[[str], SourceColumns],
    entity: Sequence[str] = (),
    window_us: int | None = None,
    closed: str = "left",
    resolution_us: int | None = None,
    find_view: Callable[[str], str | RowTransform | None] = lambda name: None,
) -> Plan:
    """Compile a feature cell's SQL.

    Parameters
    ----------
    text
        One SELECT.
    name
        The feature group's name; a single feature without an alias takes it.
    find_source
        Gives a source's columns by name; raises `UnknownName` for one that is not there.
    entity
        What the key's columns are called, in the order of the keys; default: their own names.
    window_us
        The window, in microseconds, of aggregates that say none themselves.
    closed
        ``"left"``: windows are [t - length, t). ``"right"``: (t - length, t].
    resolution_us
        Floors the tail of windows that slide to a multiple of this, in microseconds.
    find_view
        Gives the text of a view by name, None where there is none.

    Raises
    ------
    DefinitionError
        If the text is no SQL or cannot be folded; says where, why, and what can.
    """
    select = parse_select(text)
    relation = Resolver(find_source, find_view).resolve(select, text)
    window = Window(window_us, closed, resolution_us=resolution_us)
    return _Compiler(text, name, relation, window).compile(select, list(entity))


@dataclass
class _Compiler:
    text: str
    name: str
    relation: Relation
    window: Window
    aggregations: list[Aggregation] = field(default_factory=list)
    partitions: list[tuple[Expr, ...]] = field(default_factory=list)
    named: dict[str, exp.Expr] = field(default_factory=dict)
    key_names: dict[Expr, str] = field(default_factory=dict)
    grouped: bool = False

    def __post_init__(self) -> None:
        self.source = self.relation.source
        self.row: Translator = self.relation.translator(self.text, self.source.name)
        self.over = replace(self.row, on_aggregate=self.aggregate)

    def compile(self, select: exp.Select, entity: list[str]) -> Plan:
        group = select.args.get("group")
        self.grouped = group is not None
        self.named = {w.this.name: w for w in select.args.get("windows") or []}
        keys = self._group_keys(group, select) if group is not None else []
        where = select.args.get("where")
        condition = None if where is None else self._condition(where.this)

        outputs: list[tuple[str, Expr, exp.Expr]] = []
        plain: list[tuple[str, Expr, exp.Expr]] = []
        for item in select.expressions:
            alias = item.alias if isinstance(item, exp.Alias) else ""
            node = item.this if isinstance(item, exp.Alias) else item
            if isinstance(node, exp.Star):
                raise refuse(
                    node, self.text, "SELECT * names no feature.",
                    remedy="the key's columns and aggregates with aliases",
                )  # fmt: skip
            if has_aggregate(node):
                outputs.append((alias, self._output(node), node))
            else:
                plain.append((alias, self.row(node), node))
        if not outputs:
            raise refuse(
                select, self.text, "No aggregate to fold.",
                remedy="SUM, COUNT, AVG, MIN or MAX of something, with an alias",
            )  # fmt: skip
        keys = keys or self._partition_keys(select)
        self._check_plain(plain, keys)
        for key in keys:
            if not key.type.is_scalar:
                raise refuse(
                    select,
                    self.text,
                    f"A key is one value, not {key.type}.",
                    found=key.name if isinstance(key, Column) else "an expression",
                    remedy="a list's element or a struct's field: list[1], struct.field",
                )
            if (reason := not_a_key(key.type)) is not None:
                raise refuse(
                    select,
                    self.text,
                    reason,
                    found=key.name if isinstance(key, Column) else "an expression",
                    remedy="GROUP BY CAST(key AS BIGINT), or AS VARCHAR",
                )
        plan = Plan(
            source=self.source.name,
            time=self.source.time,
            keys=self._named_keys(keys, plain, entity),
            where=conjunction(self.relation.where, condition),
            aggregations=tuple(self.aggregations),
            outputs=self._named_outputs(outputs),
            joins=self.relation.joins,
            branches=self.source.branches,
        )
        if clash := set(plan.entity) & set(plan.features):
            raise refuse(
                select,
                self.text,
                f"The feature {clash.pop()!r} is called as its key is.",
                remedy="another name after AS",
            )
        return canonical(plan)

    def _condition(self, node: exp.Expr) -> Expr:
        return condition_of(self.row, node, self.text)

    def _group_keys(self, group: exp.Group, select: exp.Select) -> list[Expr]:
        if group.args.get("all"):
            bare = [i.this if isinstance(i, exp.Alias) else i for i in select.expressions]
            nodes = [n for n in bare if not has_aggregate(n)]
        else:
            nodes = [self._by_position_or_alias(n, select) for n in group.expressions]
        timed = [n for n in nodes if window_name(n)]
        nodes = [n for n in nodes if not window_name(n)]
        if len(timed) > 1:
            raise refuse(
                timed[1],
                self.text,
                "A feature has one window.",
                remedy="one of TUMBLE, HOP, SESSION",
            )
        if timed:
            self._check_no_other_window(timed[0])
            self.window = group_window(timed[0], self.row, self.relation, self.window.closed)
        if not nodes or any(group.args.get(k) for k in ("cube", "rollup", "grouping_sets")):
            raise refuse(
                group,
                self.text,
                "The key must be columns or row expressions.",
                remedy="GROUP BY user, or GROUP BY user, genre",
            )
        return [self._key(n) for n in nodes]

    def _key(self, node: exp.Expr) -> Expr:
        """Translate a part of the key, and remember what it is called if it is a column."""
        key = self.row(node)
        if isinstance(node, exp.Column):
            self.key_names.setdefault(key, self.row.label(node))
        return key

    def _check_no_other_window(self, node: exp.Expr) -> None:
        if self.window.length_us is not None:
            raise refuse(
                node,
                self.text,
                "The window is given twice.",
                found=f"--window {self.window} beside {window_name(node)}",
                remedy="leave one of them out",
            )

    def _by_position_or_alias(self, node: exp.Expr, select: exp.Select) -> exp.Expr:
        items = select.expressions
        if isinstance(node, exp.Literal) and not node.args.get("is_string"):
            index = int(node.name) - 1
            if not 0 <= index < len(items):
                raise refuse(
                    node,
                    self.text,
                    "GROUP BY names a column that is not selected.",
                    remedy=f"a number from 1 to {len(items)}",
                )
            chosen: exp.Expr = items[index]
            return _bare(chosen)
        if isinstance(node, exp.Column) and node.name not in dict(self.relation.types):
            for item in items:
                if isinstance(item, exp.Alias) and item.alias == node.name:
                    return _bare(item)
        return node

    def _partition_keys(self, select: exp.Select) -> list[Expr]:
        if not self.partitions:
            raise refuse(
                select,
                self.text,
                "No key: nothing says whose feature this is.",
                remedy="GROUP BY user, or OVER (PARTITION BY user …)",
            )
        first = self.partitions[0]
        if any(set(p) != set(first) for p in self.partitions):
            raise refuse(
                select,
                self.text,
                "The windows have different keys.",
                remedy="the same PARTITION BY in every OVER, one cell for each entity",
            )
        return list(first)

    def _check_plain(self, plain: list[tuple[str, Expr, exp.Expr]], keys: list[Expr]) -> None:
        for _, expr, node in plain:
            if expr not in keys:
                raise refuse(
                    node,
                    self.text,
                    "A selected column is neither a key nor inside an aggregate.",
                    remedy="add it to GROUP BY, or wrap it: MAX(x)",
                )

    def _named_keys(
        self, keys: list[Expr], plain: list[tuple[str, Expr, exp.Expr]], entity: list[str]
    ) -> tuple[Key, ...]:
        if entity and len(entity) != len(keys):
            raise DefinitionError(
                "--entity names another number of keys than the SQL groups by.",
                found=f"--entity {','.join(entity)} beside {len(keys)} key(s)",
                remedy="one name for each key, e.g. --entity user,article",
            )
        check_key_order(entity, [self.key_names.get(k, "") for k in keys])
        names = list(entity)
        for key in keys[len(names) :]:
            aliases = [a for a, expr, _ in plain if a and expr == key]
            if aliases:
                names.append(aliases[0])
            elif key in self.key_names:
                names.append(self.key_names[key])
            else:
                raise DefinitionError(
                    "A key that is an expression needs a name.",
                    remedy="SELECT LOWER(user) AS user, … or --entity user",
                )
        if len(set(names)) != len(names):
            raise DefinitionError(
                "Two keys have the same name.",
                found=", ".join(names),
                remedy="different names after --entity",
            )
        return tuple(Key(n, k) for n, k in zip(names, keys, strict=True))

    def _named_outputs(self, outputs: list[tuple[str, Expr, exp.Expr]]) -> tuple[Output, ...]:
        named: list[Output] = []
        for alias, expr, node in outputs:
            if not alias and len(outputs) == 1:
                alias = self.name
            elif not alias:
                alias = self._default_name(node)
            if alias in {o.name for o in named}:
                raise refuse(
                    node,
                    self.text,
                    f"Two features are called {alias!r}.",
                    remedy="another name after AS",
                )
            named.append(Output(alias, expr))
        return tuple(named)

    def _default_name(self, node: exp.Expr) -> str:
        inner = node
        while isinstance(inner, (exp.Window, exp.Filter)):
            inner = inner.this
        called = call_of(inner) if is_aggregate(inner) else None
        if called is not None and all(
            isinstance(a, (exp.Column, exp.Literal)) for a in called.args
        ):
            columns = [a.name for a in called.args if isinstance(a, exp.Column)]
            return "_".join([called.name, *columns])
        raise refuse(node, self.text, "This feature has no name.", remedy="… AS name")

    def _output(self, node: exp.Expr) -> Expr:
        """Translate an expression over aggregates; bare columns cannot stand beside them."""
        for column in node.find_all(exp.Column):
            if not any(
                is_aggregate(p) or isinstance(p, (exp.Filter, exp.Window))
                for p in [column, *_parents(column, node)]
            ):
                raise refuse(
                    column,
                    self.text,
                    "A column stands beside an aggregate, outside of it.",
                    remedy="wrap it: MAX(x)",
                )
        return self.over(node)

    def aggregate(self, node: exp.Expr) -> Expr:
        """Register an aggregate of the statement; return the reference to its value."""
        window, condition, call = self.window, None, node
        if isinstance(call, exp.Window):
            window, call = self._window(call), call.this
        elif not self.grouped:
            raise refuse(
                node,
                self.text,
                "No key: nothing says whose feature this is.",
                remedy="GROUP BY user, or OVER (PARTITION BY user …)",
            )
        if isinstance(call, exp.Filter):
            condition = self._condition(call.expression.this)
            call = call.this
        called = call_of(call)
        if called is None:
            raise refuse(
                call,
                self.text,
                "This aggregate is not in the feature language.",
                remedy=usages(call.name or type(call).__name__),
            )
        for node_ in called.conditions:
            more = self._condition(node_)
            condition = more if condition is None else self.row.call("and", condition, more)
        args, params = self._arguments(called.name, called.args, call)
        if condition is not None:
            args = only_where(condition, args)
        if window.length_us is None:
            # A lifetime has no tail that could be floored.
            window = replace(window, resolution_us=None)
        found = Aggregation(
            called.name, args, window, result_of(called.name, [a.type for a in args]), params
        )
        if found not in self.aggregations:
            self.aggregations.append(found)
        return Aggregated(self.aggregations.index(found), found.type)

    def _arguments(
        self, name: str, nodes: tuple[exp.Expr, ...], call: exp.Expr
    ) -> tuple[tuple[Expr, ...], tuple[Scalar, ...]]:
        """Return what an aggregate folds, and the constants beside that."""
        kind = AGGREGATES[name]
        for node in nodes:
            if isinstance(node, (exp.Distinct, exp.Order, exp.Limit)):
                raise refuse(
                    call,
                    self.text,
                    f"This form of {name.upper()} is not in the feature language.",
                    remedy=usages(name),
                )
        asked = len(kind.parameters)
        optional = sum(p.default is not None for p in kind.parameters)
        translated = [self.row(n) for n in nodes]
        given = 0
        for value in reversed(translated):
            if given == asked or not isinstance(value, Literal):
                break
            given += 1
        args, constants = translated[: len(nodes) - given], translated[len(nodes) - given :]
        if given < asked - optional and len(args) > 1:
            # What stands where a constant is due is an expression.
            args, constants = args[:-1], [args[-1], *constants]
        params = parameters_of(name, constants)
        if name in ("sum", "avg") and args and args[0].type is Type.BOOLEAN:
            args = [Call("cast_BIGINT", (args[0],), Type.BIGINT), *args[1:]]
        if name == "count" and len(args) == 1:
            (arg,) = args
            if isinstance(arg, Literal) and arg.value is not None:
                args = []
        return tuple(args), params

    def _window(self, node: exp.Window) -> Window:
        alias = node.args.get("alias")
        if alias is not None:
            if alias.name not in self.named:
                raise refuse(
                    node,
                    self.text,
                    f"There is no WINDOW {alias.name}.",
                    remedy="WINDOW w AS (PARTITION BY user …) after FROM",
                )
            return self._framed(self.named[alias.name])
        return self._framed(node)

    def _framed(self, node: exp.Expr) -> Window:
        keys = tuple(self._key(n) for n in node.args.get("partition_by") or [])
        if not keys:
            raise refuse(
                node,
                self.text,
                "The window has no key.",
                remedy="OVER (PARTITION BY user ORDER BY ts RANGE BETWEEN …)",
            )
        if self.grouped:
            raise refuse(
                node,
                self.text,
                "OVER and GROUP BY do not mix.",
                remedy="leave out GROUP BY; OVER (PARTITION BY key) is a lifetime",
            )
        self.partitions.append(keys)
        self._check_order(node)
        spec = node.args.get("spec")
        if spec is None:
            return self.window
        return replace(self.window, length_us=self._frame(spec, node))

    def _check_order(self, node: exp.Expr) -> None:
        order = node.args.get("order")
        if order is None:
            return
        ordered = order.expressions
        by = ordered[0].this if len(ordered) == 1 else None
        fits = isinstance(by, exp.Column) and self.relation.may_be_time(self.row.column(by))
        if not fits or ordered[0].args.get("desc"):
            raise refuse(
                node,
                self.text,
                "A window is ordered by the stream's event time.",
                found=order.sql(dialect="duckdb"),
                remedy=self.relation.order_remedy,
            )

    def _frame(self, spec: exp.Expr, node: exp.Expr) -> int | None:
        args = spec.args
        example = "RANGE BETWEEN INTERVAL '7' DAY PRECEDING AND CURRENT ROW"
        if args.get("kind") != "RANGE":
            raise refuse(
                node,
                self.text,
                f"A {args.get('kind')} frame counts rows, not time.",
                remedy=example,
            )
        if args.get("end") not in (None, "CURRENT ROW") or args.get("start_side") != "PRECEDING":
            raise refuse(
                node,
                self.text,
                "A window ends now: nothing of the future.",
                remedy=example,
            )
        if args.get("exclude"):
            raise refuse(node, self.text, "EXCLUDE cannot be folded.", remedy=example)
        if args["start"] == "UNBOUNDED":
            return None
        length = interval_us(args["start"], self.text)
        if length <= 0:
            raise refuse(node, self.text, "A window has a length above zero.", remedy=example)
        if self.source.time is None and node.args.get("order") is None:
            raise refuse(
                node,
                self.text,
                "The window has no time to be ordered by.",
                remedy="ORDER BY the stream's time column",
            )
        return length


def _bare(item: exp.Expr) -> exp.Expr:
    """Return a selected item without its alias."""
    inner: exp.Expr = item.this if isinstance(item, exp.Alias) else item
    return inner


def _parents(node: exp.Expr, top: exp.Expr) -> list[exp.Expr]:
    found: list[exp.Expr] = []
    while node is not top and node.parent is not None:
        node = node.parent
        found.append(node)
    return found
