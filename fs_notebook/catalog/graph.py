"""Lineage: from stream through views to features, and on to what is made of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fs_notebook.catalog.about import FEATURE_SET, GROUP, MODEL, STREAM, TRAINING_SET, VIEW
from fs_notebook.catalog.definition import AnyDefinition, DerivedDefinition
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.catalog.model import CatalogState, Group
from fs_notebook.errors import UsageError, plain, unknown_name
from fs_notebook.language.sources import streams_of as parts_of
from fs_notebook.online.board import SET

NODES_MAX = 400
"""More cannot be drawn, nor looked at."""


class Node(NamedTuple):
    """A thing of the catalog in a lineage: its kind (see `about`) and its name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


Ways = Mapping[Node, set[Node]]
Edge = tuple[Node, Node]
"""What is read, and what reads it."""


@dataclass(frozen=True)
class Lineage:
    """What one thing is made of, and what is made of it.

    Attributes
    ----------
    node
        The thing.
    edges
        What is read and what reads it, for all that lies before or behind the thing.
    notes
        Node → a word on it: a group's status.
    cut
        How many more nodes there are than are told.
    """

    node: Node
    edges: tuple[Edge, ...]
    notes: Mapping[Node, str]
    cut: int = 0

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, those that are read before those that read them."""
        layers = self.layers
        return tuple(sorted(layers, key=lambda n: (layers[n], n)))

    @property
    def layers(self) -> dict[Node, int]:
        """Node → how many steps it is from what is read only, at most."""
        inputs: dict[Node, list[Node]] = {self.node: []}
        for before, after in self.edges:
            inputs.setdefault(before, [])
            inputs.setdefault(after, []).append(before)
        found: dict[Node, int] = {}

        def depth(node: Node, path: frozenset[Node]) -> int:
            if node not in found:
                # A circle, which no definition can make, must not hang a display.
                deeper = [depth(n, path | {node}) + 1 for n in inputs[node] if n not in path]
                found[node] = max(deeper, default=0)
            return found[node]

        for node in inputs:
            depth(node, frozenset({node}))
        return found

    def upstream(self) -> tuple[Node, ...]:
        """Return all that the thing is made of."""
        reads: dict[Node, set[Node]] = {}
        for before, after in self.edges:
            reads.setdefault(after, set()).add(before)
        return _reached(self.node, reads)

    def downstream(self) -> tuple[Node, ...]:
        """Return all that is made of the thing."""
        readers: dict[Node, set[Node]] = {}
        for before, after in self.edges:
            readers.setdefault(before, set()).add(after)
        return _reached(self.node, readers)

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""

        def shown(node: Node) -> dict[str, str]:
            return {"kind": node.kind, "name": node.name}

        layers = self.layers
        return {
            "node": shown(self.node),
            "nodes": [
                {**shown(n), "layer": layers[n], "note": self.notes.get(n)} for n in self.nodes
            ],
            "edges": [[shown(a), shown(b)] for a, b in self.edges],
            "cut": self.cut,
        }

    def __repr__(self) -> str:
        note = self.notes.get(self.node)
        lines = [f"{self.node}{f', {note}' if note else ''}"]
        before = {b: [x for x, y in self.edges if y == b] for b in self.nodes}
        after = {a: [y for x, y in self.edges if x == a] for a in self.nodes}
        for title, ways in (("made of", before), ("read by", after)):
            lines += [f"{title}:"] if ways[self.node] else [f"{title} nothing"]
            lines += self._tree(self.node, ways, "", {self.node})
        if self.cut:
            lines.append(f"and {self.cut:,} more")
        return "\n".join(map(plain, lines))

    def _tree(
        self, node: Node, ways: Mapping[Node, list[Node]], indent: str, seen: set[Node]
    ) -> Iterator[str]:
        inner = sorted(ways[node])
        for n, child in enumerate(inner):
            is_last = n == len(inner) - 1
            note = self.notes.get(child)
            again = ", see above" if child in seen and ways[child] else ""
            yield f"{indent}{'└─' if is_last else '├─'} {child}{f', {note}' if note else ''}{again}"
            if child not in seen:
                seen.add(child)
                yield from self._tree(child, ways, indent + ("   " if is_last else "│  "), seen)


def lineage_of(
    state: CatalogState,
    name: str,
    *,
    kind: str | None = None,
    ways: tuple[Ways, Ways] | None = None,
) -> Lineage:
    """Return the lineage of a feature, group, view, stream or training set.

    Parameters
    ----------
    kind
        What it is, where that is known; else a group is looked for first.
    ways
        `ways_of` the catalog, where it is asked more than once.

    Raises
    ------
    UnknownName
        If nothing of that name is in the catalog.
    """
    node = _named(state, name) if kind is None else Node(kind, name)
    reads, readers = ways_of(state) if ways is None else ways
    before = _reached(node, reads)
    kept = {node, *before[:NODES_MAX]}
    after = _reached(node, readers)
    kept.update(after[: max(NODES_MAX - len(kept), 0)])
    edges = tuple(sorted(
        (b, a) for a in kept for b in _without_shortcuts(reads.get(a, set()), reads) if b in kept
    ))  # fmt: skip
    notes = {n: note for n in kept if (note := _note(state, n))}
    return Lineage(node, edges, notes, 1 + len(before) + len(after) - len(kept))


def ways_of(state: CatalogState) -> tuple[Ways, Ways]:
    """Return what each node reads, and what reads it."""
    reads: dict[Node, set[Node]] = {}
    readers: dict[Node, set[Node]] = {}
    for before, after in edges_of(state):
        if before != after:
            reads.setdefault(after, set()).add(before)
            readers.setdefault(before, set()).add(after)
    return reads, readers


def _note(state: CatalogState, node: Node) -> str | None:
    """Return a word on a thing: a group's status, the versions that a set pins, a model's set."""
    if node.kind == GROUP and node.name in state.groups:
        return state.groups[node.name].status
    if node.kind == FEATURE_SET and state.feature_sets[node.name].kept:
        newest = state.feature_sets[node.name].kept[-1]
        return f"v{newest.number}: {', '.join(newest.columns)}"
    model = state.models.get(node.name) if node.kind == MODEL else None
    if model is not None and model.set is not None:
        return f"served with {SET}{model.set}@{model.set_version}"
    return None


def _named(state: CatalogState, asked: str) -> Node:
    """Return what a name means: ``reading_time``, ``view:shown``, ``model:ranker-2026``."""
    given, colon, name = asked.partition(":")
    kind = given.replace("_", " ") if colon else None
    if not colon:
        name = asked
    elif kind not in _PREFIXES:
        raise UsageError(
            "Lineage is of a feature, a group, a view, a stream, a set, a training set or a model.",
            found=asked,
            remedy=", ".join(f"{p.replace(' ', '_')}:NAME" for p in _PREFIXES),
        )
    wanted = None if kind is None else _PREFIXES[kind]
    base = name.partition("@")[0]
    if wanted in (None, GROUP) and (base in state.groups or base in state.owners):
        return Node(GROUP, base if base in state.groups else state.owners[base])
    things = {k: known(state) for k, known in _KINDS if wanted in (None, k)}
    for one, known in things.items():
        if (base if one == FEATURE_SET else name) in known:
            return Node(one, base if one == FEATURE_SET else name)
    names = {n for known in things.values() for n in known}
    if wanted in (None, GROUP):
        names |= {*state.groups, *state.owners}
    raise unknown_name(kind or "feature, view, stream, set or model", name, names)


_KINDS: tuple[tuple[str, Callable[[CatalogState], Mapping[str, object]]], ...] = (
    (VIEW, lambda state: state.views),
    (STREAM, lambda state: state.sources),
    (TRAINING_SET, lambda state: state.training_sets),
    (FEATURE_SET, lambda state: state.feature_sets),
    (MODEL, lambda state: state.models),
)
_PREFIXES = {
    "feature": GROUP, "group": GROUP, "view": VIEW, "stream": STREAM, "set": FEATURE_SET,
    "training set": TRAINING_SET, "model": MODEL,
}  # fmt: skip


def edges_of(state: CatalogState) -> Iterator[Edge]:
    """Yield what reads what in all of the catalog; a shortcut beside a longer way among it."""
    for group in state.groups.values():
        mine = Node(GROUP, group.name)
        for definition in {id(d): d for d in _current(group)}.values():
            yield from ((read, mine) for read in reads_of_definition(definition))
    for view in state.views.values():
        node = Node(VIEW, view.name)
        streams = view.streams or parts_of(view.source)
        yield from ((Node(STREAM, s), node) for s in streams)
        yield from ((Node(VIEW, v), node) for v in view.views if v != view.name)
    for saved in state.training_sets.values():
        node = Node(TRAINING_SET, saved.name)
        yield from ((Node(GROUP, w["definition"]["name"]), node) for w in saved.recipe.wanted)
        yield from ((Node(STREAM, s), node) for s in saved.recipe.labels.get("cuts", ()))
    for one in state.feature_sets.values():
        node = Node(FEATURE_SET, one.name)
        groups = dict.fromkeys(m.group for version in one.kept for m in version.members)
        yield from ((Node(GROUP, name), node) for name in groups)
    for model in state.models.values():
        node = Node(MODEL, model.name)
        if model.set is not None:
            yield Node(FEATURE_SET, model.set), node
        if model.training_set in state.training_sets:
            yield Node(TRAINING_SET, str(model.training_set)), node


def notices_of(state: CatalogState, definition: AnyDefinition) -> tuple[str, ...]:
    """Return the notices of what a definition reads and should not any more."""
    found = []
    for node in dict.fromkeys(reads_of_definition(definition)):
        notes = state.notes.get((node.kind, node.name))
        if notes is not None and notes.deprecated is not None:
            found.append(f"it reads {notes.deprecated.told(node.name)}")
    return tuple(found)


def _current(group: Group) -> Iterator[AnyDefinition]:
    yield group.latest
    yield from (v.definition for v in group.running)


def reads_of_definition(definition: AnyDefinition) -> Iterator[Node]:
    """Yield what a definition reads, directly or not: groups, views, streams."""
    if isinstance(definition, DerivedDefinition):
        origins = definition.origins or tuple(d.name for d in definition.inputs)
        yield from (Node(GROUP, name) for name in origins)
        return
    yield from (Node(VIEW, name) for name in definition.options.get("views", ()))
    yield from (Node(STREAM, name) for name in streams_of(definition))
    yield from (Node(STREAM, name) for name in definition.facts.joined)


def _without_shortcuts(inputs: set[Node], reads: Ways) -> set[Node]:
    """Return inputs without those that a way over one of the views among them says too."""
    beyond = {n for view in inputs if view.kind == VIEW for n in _reached(view, reads)}
    return inputs - beyond


def _reached(node: Node, ways: Ways) -> tuple[Node, ...]:
    """Return what is reached from a node, the nearest first."""
    found: dict[Node, None] = {}
    ahead = [node]
    for here in ahead:
        for there in sorted(ways.get(here, ())):
            if there not in found and there != node:
                found[there] = None
                ahead.append(there)
    return tuple(found)
