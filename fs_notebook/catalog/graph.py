"""The graph of what comes from what: streams, views, features, sets, training sets, models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from fs_notebook.catalog.lineage import inputs_of, streams_of
from fs_notebook.catalog.model import AnyDefinition, CatalogState, DerivedDefinition, definition_of
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.language.unions import streams_of as parts_of

STREAM, VIEW, FEATURE, FEATURE_SET, TRAINING_SET, MODEL = KINDS = (
    "stream", "view", "feature", "set", "training_set", "model",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Node:
    """A thing in the catalog: what kind it is, its name, its version if it has any."""

    kind: str
    name: str
    version: int | None = None

    @property
    def label(self) -> str:
        """What it is called: ``set:ranker@2``, ``reading_time v3``."""
        return self.name if self.version is None else f"{self.name} v{self.version}"

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.label}"


@dataclass(frozen=True)
class Graph:
    """Who is made of whom.

    `sources` says of each thing what it is made of; `details` what else there is to say of it.
    """

    sources: Mapping[Node, tuple[Node, ...]]
    details: Mapping[Node, str]

    @cached_property
    def users(self) -> Mapping[Node, tuple[Node, ...]]:
        """What is made of each thing."""
        found: dict[Node, list[Node]] = {}
        for node, sources in self.sources.items():
            for source in sources:
                found.setdefault(source, []).append(node)
        return {node: tuple(sorted(users)) for node, users in found.items()}

    def around(self, node: Node) -> Graph:
        """Return what a thing comes from and what comes from it, at any distance."""
        kept = {*_reached(node, self.sources), *_reached(node, self.users)}
        return Graph(
            {n: tuple(s for s in self.sources.get(n, ()) if s in kept) for n in sorted(kept)},
            {n: d for n, d in self.details.items() if n in kept},
        )


def _reached(node: Node, following: Mapping[Node, tuple[Node, ...]]) -> set[Node]:
    seen, left = {node}, [node]
    while left:
        for other in following.get(left.pop(), ()):
            if other not in seen:
                seen.add(other)
                left.append(other)
    return seen


def graph_of(state: CatalogState) -> Graph:
    """Return the graph of all that the catalog knows."""
    made = _Maker(state)
    for group in state.groups.values():
        for version in group.versions:
            if not version.retired:
                made.feature(version.definition, version.number)
        if group.draft is not None and group.by_fingerprint(group.draft.fingerprint) is None:
            made.feature(group.draft, None)
    for name in state.views:
        made.view(name)
    for one in state.feature_sets.values():
        for set_version in one.kept:
            node = Node(FEATURE_SET, one.name, set_version.number)
            members = dict.fromkeys((m.group, m.version) for m in set_version.members)
            made.add(
                node, [Node(FEATURE, g, n) for g, n in members], ", ".join(set_version.columns)
            )
    for name, saved in state.training_sets.items():
        recipe = saved.recipe
        found = [
            made.feature(definition_of(w["definition"]), _number(state, w)) for w in recipe.wanted
        ]
        made.add(Node(TRAINING_SET, name), found, f"{recipe.rows:,} labels")
    for name, model in state.models.items():
        found = []
        if model.set is not None:
            found.append(Node(FEATURE_SET, model.set, model.set_version))
        if model.training_set in state.training_sets:
            found.append(Node(TRAINING_SET, str(model.training_set)))
        made.add(Node(MODEL, name), found, model.description or "")
    return Graph(made.sources, made.details)


def _number(state: CatalogState, wanted: Mapping[str, object]) -> int | None:
    """Return the number of the version that a training set was made of; None for a draft."""
    definition = definition_of(wanted["definition"])  # type: ignore[arg-type]
    group = state.groups.get(definition.name)
    version = None if group is None else group.by_fingerprint(definition.fingerprint)
    return None if version is None else version.number


class _Maker:
    """Adds things to a graph, each once."""

    def __init__(self, state: CatalogState) -> None:
        self.state = state
        self.sources: dict[Node, tuple[Node, ...]] = {}
        self.details: dict[Node, str] = {}

    def add(self, node: Node, sources: Iterable[Node], detail: str = "") -> Node:
        self.sources[node] = tuple(dict.fromkeys(sources))
        for source in self.sources[node]:
            self.sources.setdefault(source, ())
        if detail:
            self.details[node] = detail
        return node

    def feature(self, definition: AnyDefinition, number: int | None) -> Node:
        node = Node(FEATURE, definition.name, number)
        if node in self.sources and node in self.details:
            return node
        if isinstance(definition, DerivedDefinition):
            sources = [
                self.feature(p.definition, None if p.version is None else p.version.number)
                for p in inputs_of(self.state, definition)
            ]
        else:
            sources = self._rows(definition)
        return self.add(node, sources, ", ".join(definition.plan.features))

    def _rows(self, definition: AnyDefinition) -> list[Node]:
        """Return the views and streams that a definition reads itself, not by way of a view."""
        views = [v for v in definition.options.get("views", ()) if v in self.state.views]
        nested = {inner for v in views for inner in self.state.views[v].views}
        direct = [self.view(v) for v in views if v not in nested]
        seen = {n.name for node in direct for n in _reached(node, self.sources)}
        joined = [s.name for s in getattr(definition, "joined", ())]
        streams = dict.fromkeys(
            [*streams_of(definition), *(p for j in joined for p in parts_of(j))]
        )
        return direct + [Node(STREAM, s) for s in streams if s not in seen]

    def view(self, name: str) -> Node:
        node, view = Node(VIEW, name), self.state.views[name]
        if node in self.sources:
            return node
        self.add(node, ())
        inner = [v for v in view.views if v in self.state.views and v != name]
        nested = {i for v in inner for i in self.state.views[v].views}
        direct = [self.view(v) for v in inner if v not in nested]
        seen = {n.name for d in direct for n in _reached(d, self.sources)}
        streams = [
            Node(STREAM, s) for s in (view.streams or parts_of(view.source)) if s not in seen
        ]
        return self.add(node, [*direct, *streams], view.description or "")


def node_of(state: CatalogState, asked: str) -> Node:
    """Return what a name means: ``model:…``, ``training_set:…``, ``set:ranker@2``, a feature or
    group with or without a version, ``view:…`` or ``stream:…``; or the bare name of any of these.

    Raises
    ------
    UnknownName
        If nothing has that name.
    """
    kind, colon, name = asked.partition(":")
    if not colon:
        kind, name = "", asked
    elif kind not in KINDS:
        raise UsageError(
            "Lineage is of a model, a training set, a set, a feature, a view or a stream.",
            found=asked, remedy=", ".join(f"{k}:NAME" for k in reversed(KINDS)),
        )  # fmt: skip
    base, pin, number = name.partition("@")
    if pin and not (number.isascii() and number.isdecimal()):
        raise UsageError("A version is a number.", found=asked, remedy=f"{base}@1")
    version = int(number) if pin else None
    if kind in ("", FEATURE) and (base in state.groups or base in state.owners):
        group = state.group(base)
        if version is not None:
            group.version(version)
        current = group.serving or (group.version(group.wanted) if group.wanted else None)
        return Node(FEATURE, group.name, version or (current.number if current else None))
    if kind in ("", FEATURE_SET) and base in state.feature_sets:
        return Node(FEATURE_SET, base, state.feature_sets[base].version(version).number)
    plain = {
        MODEL: state.models, TRAINING_SET: state.training_sets, VIEW: state.views,
        STREAM: state.sources,
    }  # fmt: skip
    for one, known in plain.items():
        if kind in ("", one) and name in known:
            return Node(one, name)
    everything: dict[str, Iterable[str]] = {
        **plain, FEATURE: {*state.groups, *state.owners}, FEATURE_SET: state.feature_sets
    }  # fmt: skip
    names = everything[kind] if kind else {n for names in everything.values() for n in names}
    raise unknown_name(kind.replace("_", " ") or "name", base, names)
