"""What names mean in a derived feature's SQL: features, keys, and the request's own values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from fs_notebook.errors import DefinitionError, UnknownName, unknown_name
from fs_notebook.language.derived import (
    AnyPlan,
    DerivedPlan,
    entity_column,
    feature_column,
    replaced,
)
from fs_notebook.language.expr import Column, Expr
from fs_notebook.language.plan import Output, Plan, check_key_order
from fs_notebook.language.sql_expr import place, refuse
from fs_notebook.types import Type

REQUEST_TYPES: Mapping[str, Type] = {
    "BIGINT": Type.BIGINT, "INT": Type.BIGINT, "INTEGER": Type.BIGINT,
    "DOUBLE": Type.DOUBLE, "FLOAT": Type.DOUBLE, "REAL": Type.DOUBLE,
    "VARCHAR": Type.VARCHAR, "TEXT": Type.VARCHAR, "STRING": Type.VARCHAR,
    "BOOLEAN": Type.BOOLEAN, "BOOL": Type.BOOLEAN,
    "TIMESTAMP": Type.TIMESTAMP, "TIMESTAMPTZ": Type.TIMESTAMP, "DATE": Type.DATE,
}  # fmt: skip


def request_type(name: str) -> Type | None:
    """Return the type of a request value, by one of its names; None where there is none."""
    known = REQUEST_TYPES.get(name.upper())
    if known is None and name.upper().startswith("DECIMAL("):
        try:
            return Type(name.upper())
        except ValueError:
            return None
    return known


@dataclass(frozen=True)
class Given:
    """A feature group, or one feature of it, that FROM may name."""

    group: str
    plan: AnyPlan
    only: str | None = None

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(o for o in self.plan.outputs if self.only in (None, o.name))


def from_items(select: exp.Select) -> list[tuple[exp.Expr, exp.Join | None]]:
    """Return what FROM lists, each with the join that brings it."""
    from_ = select.args.get("from_")
    if from_ is None:
        return []
    return [(from_.this, None), *((j.this, j) for j in select.args.get("joins") or [])]


def is_name(node: exp.Expr) -> bool:
    return isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier)


def name_of(table: exp.Expr) -> str:
    assert isinstance(table, exp.Table)
    return ".".join(part.name for part in table.parts)


def mark_placeholders(select: exp.Select, text: str) -> None:
    """Note where each request value stands in the text: the parser keeps no place of them."""
    for node in _placeholders(select):
        found = re.search(rf"[:$]\s*{re.escape(node.name)}\b", text)
        if found is not None:
            node.meta["start"] = found.start()


def _placeholders(node: exp.Expr) -> list[exp.Expr]:
    return [n for n in node.find_all(exp.Placeholder, exp.Parameter) if n.name]


@dataclass(frozen=True)
class _Table:
    """What one item of FROM brings."""

    alias: str
    given: Given
    node: exp.Expr

    @property
    def keys(self) -> dict[str, Type]:
        return {k.name: k.expr.type for k in self.given.plan.keys}


@dataclass
class Scope:
    """What names mean in one SELECT."""

    text: str
    tables: list[_Table] = field(default_factory=list)
    entities: list[tuple[str, Type]] = field(default_factory=list)
    entity_of: dict[tuple[int, str], int] = field(default_factory=dict)
    requests: dict[str, Type] = field(default_factory=dict)
    leaves: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def read_from(self, select: exp.Select, find_group: Callable[[str], Given]) -> None:
        """Read FROM and its joins: which groups, and which of their keys are the same."""
        for node, join in from_items(select):
            if not is_name(node):
                raise refuse(
                    node, self.text, "FROM takes the names of features or groups.",
                    remedy="FROM spending JOIN reading_time USING (user)",
                )  # fmt: skip
            try:
                given = find_group(name_of(node))
            except UnknownName as error:
                raise _placed(error, node, self.text) from None
            table = _Table(node.alias or node.name, given, node)
            if table.alias in {t.alias for t in self.tables}:
                raise refuse(
                    node, self.text, f"{table.alias!r} stands in FROM twice.",
                    remedy=f"another name for one of them: {node.name} AS b",
                )  # fmt: skip
            index = len(self.tables)
            self.tables.append(table)
            if join is not None:
                self._join(join, index)
            for name, kind in table.keys.items():
                if (index, name) not in self.entity_of:
                    self.entity_of[index, name] = len(self.entities)
                    self.entities.append((name, kind))

    def _join(self, join: exp.Join, index: int) -> None:
        table = self.tables[index]
        kind = str(join.args.get("kind") or "").upper()
        method = str(join.args.get("method") or "").upper()
        if kind not in ("", "INNER", "OUTER", "CROSS") or method not in ("", "NATURAL"):
            raise refuse(
                join, self.text, f"{kind or method} JOIN has no meaning between features.",
                remedy="JOIN … USING (the key)",
            )  # fmt: skip
        for column in join.args.get("using") or []:
            self._unify(index, column.name, self._earlier(column.name, index, column), column)
        if method == "NATURAL":
            for name in table.keys:
                known = [e for (t, n), e in self.entity_of.items() if t < index and n == name]
                if known:
                    self._unify(index, name, known[0], table.node)
        if (on := join.args.get("on")) is not None:
            for part in on.flatten() if isinstance(on, exp.And) else [on]:
                self._on(part, index)

    def _earlier(self, name: str, index: int, node: exp.Expr) -> int:
        found = {e for (t, n), e in self.entity_of.items() if t < index and n == name}
        if len(found) != 1:
            known = sorted({n for t, n in self.entity_of if t < index})
            raise refuse(
                node, self.text, f"USING names {name!r}, which is no key of what stands before.",
                found=", ".join(known), remedy="the key that both have, or ON a.key = b.other_key",
            )  # fmt: skip
        return found.pop()

    def _on(self, node: exp.Expr, index: int) -> None:
        pair = [node.this, node.expression] if isinstance(node, exp.EQ) else []
        ends = [self._key(n, index) for n in pair if isinstance(n, exp.Column)]
        mine = [e for e in ends if e is not None and e[0] == index]
        others = [e for e in ends if e is not None and e[0] != index]
        if len(mine) != 1 or len(others) != 1:
            raise refuse(
                node, self.text, "Features are joined on their keys.",
                remedy="ON a.user = b.user, or USING (user)",
            )  # fmt: skip
        self._unify(index, mine[0][1], self.entity_of[others[0]], node)

    def _key(self, node: exp.Column, newest: int) -> tuple[int, str] | None:
        found = [
            (t, node.name)
            for t, table in enumerate(self.tables[: newest + 1])
            if node.table in ("", table.alias) and node.name in table.keys
        ]
        return found[0] if len(found) == 1 else None

    def _unify(self, index: int, name: str, entity: int, node: exp.Expr) -> None:
        table = self.tables[index]
        if name not in table.keys:
            raise refuse(
                node, self.text, f"{name!r} is no key of {table.alias!r}.",
                found=", ".join(table.keys), remedy="the key that both have",
            )  # fmt: skip
        kind = self.entities[entity][1]
        if table.keys[name] is not kind:
            raise refuse(
                node, self.text, f"The key {name!r} has another type in {table.alias!r}.",
                found=f"{table.keys[name]} beside {kind}", remedy="keys of one type",
            )  # fmt: skip
        taken = any(
            t == index and e == entity and n != name for (t, n), e in self.entity_of.items()
        )
        if taken or self.entity_of.get((index, name), entity) != entity:
            raise refuse(
                node, self.text, f"{name!r} is joined twice, or with another's partner.",
                remedy="join each key once, each with another one",
            )  # fmt: skip
        self.entity_of[index, name] = entity

    def name_entities(self, select: exp.Select, names: list[str]) -> None:
        """Give the entity's parts their names: those asked for, else the groups' own."""
        own = [name for name, _ in self.entities]
        if not names and len(set(own)) != len(own):
            twice = next(n for n in own if own.count(n) > 1)
            raise refuse(
                self.tables[-1].node, self.text, f"The key {twice!r} is there twice.",
                remedy=f"JOIN … USING ({twice}) if they are the same one; else --entity with "
                f"{len(own)} names",
            )  # fmt: skip
        if names and (len(names) != len(own) or len(set(names)) != len(names)):
            raise DefinitionError(
                "--entity names the parts of the key that FROM brings, each once.",
                found=f"--entity {','.join(names)} beside {', '.join(own)}",
                remedy="JOIN … USING (key) makes the same key of two; then one name for each",
            )
        check_key_order(names, own)
        self.entities = [
            (name, kind) for name, (_, kind) in zip(names or own, self.entities, strict=True)
        ]

    def type_requests(self, select: exp.Select, declared: dict[str, Type]) -> None:
        """Decide the types of the request's values."""
        for table in self.tables:
            plan = table.given.plan
            for name, kind in plan.requests if isinstance(plan, DerivedPlan) else ():
                if declared.setdefault(name, kind) is not kind:
                    raise refuse(
                        table.node, self.text, f"{table.alias!r} reads :{name} as {kind}.",
                        found=f"{declared[name]} here", remedy=f'--request "{name} {kind}"',
                    )  # fmt: skip
        casts: dict[str, set[Type | None]] = {}
        for node in _placeholders(select):
            casts.setdefault(node.name, set()).add(_cast_to(node))
        for name, kinds in casts.items():
            cast = next(iter(kinds)) if len(kinds) == 1 else None
            declared.setdefault(name, cast or Type.DOUBLE)
        self.requests = declared

    def column(self, node: exp.Column) -> Expr:
        """Resolve a column: a part of the entity's key, or a feature."""
        aliases = [t.alias for t in self.tables]
        if node.table and node.table not in aliases:
            error = unknown_name("feature group in FROM", node.table, aliases)
            raise _placed(error, node, self.text)
        found: list[Expr] = []
        names = self._names(node.table)
        name = node.name
        if name not in names and not node.this.args.get("quoted"):
            alike = [n for n in dict.fromkeys(names) if n.casefold() == name.casefold()]
            name = alike[0] if len(alike) == 1 else name
        for index, table in enumerate(self.tables):
            if node.table not in ("", table.alias):
                continue
            for output in table.given.outputs:
                if output.name == name:
                    self.used.add(index)
                    found.append(self._feature(index, output))
            if name in table.keys:
                found.append(self._entity(index, name))
        for label, kind in self.entities:
            # What --entity calls a key is understood as well.
            if not found and not node.table and label == name:
                found.append(Column(entity_column(label), kind))
        if not found:
            known = [*names, *(label for label, _ in self.entities)]
            shown = node.table or " and ".join(aliases)
            raise _placed(unknown_name(f"feature in {shown}", name, known), node, self.text)
        if any(other != found[0] for other in found):
            tables = [t.alias for t in self.tables if name in self._names(t.alias)]
            raise refuse(
                node, self.text, f"{name!r} is ambiguous.", found=f"in {' and '.join(tables)}",
                remedy=f"{tables[0]}.{name}",
            )  # fmt: skip
        return found[0]

    def _names(self, alias: str) -> list[str]:
        chosen = [t for t in self.tables if alias in ("", t.alias)]
        return [n for t in chosen for n in (*(o.name for o in t.given.outputs), *t.keys)]

    def _entity(self, index: int, key: str) -> Column:
        name, kind = self.entities[self.entity_of[index, key]]
        return Column(entity_column(name), kind)

    def _feature(self, index: int, output: Output) -> Expr:
        """Return a feature as an expression over stored ones."""
        given = self.tables[index].given
        plan = given.plan
        if isinstance(plan, Plan):
            keys = tuple(self._key_name(index, k.name) for k in plan.keys)
            return self._leaf(given.group, plan.fingerprint, keys, output.name, output.type)

        def outer(column: Column) -> Expr:
            kind, _, rest = column.name.partition(":")
            if kind == "entity":
                return self._entity(index, rest)
            if kind == "request":
                return column
            number, _, feature = rest.partition(":")
            inner = plan.inputs[int(number)]
            keys = tuple(self._key_name(index, k) for k in inner.keys)
            return self._leaf(inner.group, inner.fingerprint, keys, feature, column.type)

        return replaced(output.expr, outer)

    def _key_name(self, index: int, key: str) -> str:
        return self.entities[self.entity_of[index, key]][0]

    def _leaf(
        self, group: str, fingerprint: str, keys: tuple[str, ...], feature: str, kind: Type
    ) -> Column:
        leaf = (group, fingerprint, keys)
        if leaf not in self.leaves:
            self.leaves.append(leaf)
        return Column(feature_column(self.leaves.index(leaf), feature), kind)


def _cast_to(node: exp.Expr) -> Type | None:
    """Return the type that a request value is cast to on the spot, if it is."""
    parent = node.parent
    if isinstance(parent, (exp.Cast, exp.TryCast)):
        return request_type(parent.args["to"].sql(dialect="duckdb"))
    return None


def _placed(error: UnknownName, node: exp.Expr, text: str) -> DefinitionError:
    line, column = place(node, text)
    return DefinitionError(
        error.message, found=error.found, remedy=error.remedy or "one of those names",
        line=line, column=column, text=text,
    )  # fmt: skip
