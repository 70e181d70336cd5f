"""What an Avro schema says, with every reference followed and every rare form told apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from fs_notebook.errors import DefinitionError

Form = Literal[
    "null", "boolean", "int", "long", "float", "double", "bytes", "string", "fixed", "enum",
    "record", "array", "map", "union",
]  # fmt: skip

_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_LOGICAL = {
    "int": ("date", "time-millis"),
    "long": (
        "time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos",
        "local-timestamp-millis", "local-timestamp-micros",
    ),
    "string": ("uuid",),
    "bytes": ("decimal",),
    "fixed": ("decimal",),
}  # fmt: skip
"""The logical types that mean something here; others are what they are made of."""

NODES_MAX = 5_000


@dataclass(frozen=True)
class Node:
    """One place of a schema. `inner` has a record's fields, a union's branches, or the element."""

    form: Form
    logical: str | None = None
    inner: tuple[Node, ...] = ()
    names: tuple[str, ...] = ()
    """A record's field names, or an enum's symbols."""
    size: int = 0
    """Of a fixed, in bytes."""
    digits: tuple[int, int] = (0, 0)
    """Of a decimal: precision and scale."""

    @property
    def optional(self) -> Node | None:
        """What a union of null and one other form holds; None for whatever is no such union."""
        if self.form != "union" or len(self.inner) != 2:
            return None
        real = [n for n in self.inner if n.form != "null"]
        return real[0] if len(real) == 1 else None

    @property
    def is_plain(self) -> bool:
        """Whether all of it can be read in bulk: no null by itself, no choice of several forms."""
        if self.form == "union":
            return self.optional is not None and self.optional.is_plain
        if self.form == "null" or (self.form == "record" and not self.inner):
            return False
        return all(n.is_plain for n in self.inner)


def parse(text: str) -> Node:
    """Return the schema that `text` is, a record at its top.

    Raises
    ------
    DefinitionError
        If it is none, or holds itself, which no columns can.
    """
    try:
        node = _Reader().read(json.loads(text), "", ())
    except RecursionError:
        found = "it is nested too deeply"
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
    else:
        if node.form == "record":
            return node
        found = f"a {node.form}, not a record"
    raise DefinitionError(
        "This is no Avro schema of events.",
        found=found,
        remedy="a record, as JSON, as the topic's schema registry has it",
    )


class _Reader:
    def __init__(self) -> None:
        self._known: dict[str, Node] = {}
        self._count = 0

    def read(self, schema: Any, space: str, above: tuple[str, ...]) -> Node:
        self._count += 1
        if self._count > NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} places")
        if isinstance(schema, list):
            return Node("union", inner=tuple(self.read(s, space, above) for s in schema))
        if isinstance(schema, str):
            return self._named(schema, space, above)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.read(kind, space, above)
        match kind:
            case "array":
                return Node("array", inner=(self.read(schema["items"], space, above),))
            case "map":
                return Node("map", inner=(self.read(schema["values"], space, above),))
            case "record" | "error" | "enum" | "fixed":
                return self._defined(kind, schema, space, above)
        node = self._named(kind, space, above)
        return _logical(node, schema) if kind in _PRIMITIVES else node

    def _named(self, name: str, space: str, above: tuple[str, ...]) -> Node:
        match name:
            case "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string":
                return Node(name)
        local = f"{space}.{name}" if space and "." not in name else name
        for full in (local, name):
            if full in above:
                raise ValueError(f"{full} holds itself, so that its events have no columns")
            if full in self._known:
                return self._known[full]
        raise ValueError(f"nothing is called {name!r}")

    def _defined(
        self, kind: str, schema: dict[str, Any], space: str, above: tuple[str, ...]
    ) -> Node:
        name = schema["name"]
        space = schema.get("namespace") or name.rpartition(".")[0] or space
        full = f"{space}.{name}" if space and "." not in name else name
        if kind == "enum":
            node = Node("enum", names=tuple(map(str, schema["symbols"])))
        elif kind == "fixed":
            node = _logical(Node("fixed", size=int(schema["size"])), schema)
        else:
            fields = [
                (str(f["name"]), self.read(f["type"], space, (*above, full)))
                for f in schema["fields"]
            ]
            node = Node(
                "record", names=tuple(n for n, _ in fields), inner=tuple(n for _, n in fields)
            )
        self._known[full] = node
        return node


def _logical(node: Node, schema: dict[str, Any]) -> Node:
    logical = schema.get("logicalType")
    if logical not in _LOGICAL.get(node.form, ()):
        return node
    digits = (0, 0)
    if logical == "decimal":
        digits = (int(schema["precision"]), int(schema.get("scale", 0)))
        fits = node.form == "bytes" or 0 < node.size <= 16
        if not fits or not 0 < digits[0] <= 38 or not 0 <= digits[1] <= digits[0]:
            return node
    return Node(node.form, logical, size=node.size, digits=digits)
