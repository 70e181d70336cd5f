"""From a feature's text to its definition: what names in FROM mean, streams or features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fs_notebook.catalog import Catalog, CatalogState, Definition
from fs_notebook.catalog.model import AnyDefinition, DerivedDefinition
from fs_notebook.clock import Clock
from fs_notebook.compute.composed import UnionStream, source_of, union_of
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import parse_span
from fs_notebook.compute.statistics import pinned_plan
from fs_notebook.errors import DefinitionError, UsageError, unknown_name
from fs_notebook.language.cell import check_name
from fs_notebook.language.definition import compile_definition
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import (
    compile_derived,
    parse_requests,
    shape_of,
)
from fs_notebook.language.expr import Call, walk
from fs_notebook.language.operations import is_open
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.unions import canonical
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.sources import Sources
from fs_notebook.transforms import Transforms


class Derivation:
    """What a cell's FROM means: streams to fold, or features to derive others from.

    A stream's name means the stream wherever rows are folded; where nothing is folded and the
    name is a feature as well, it is refused.

    Parameters
    ----------
    state
        The catalog.
    is_stream
        Tells whether a name is a stream or another source of rows.
    """

    def __init__(self, state: CatalogState, is_stream: Callable[[str], bool]) -> None:
        self.state = state
        self.is_stream = is_stream
        self._found: dict[str, AnyDefinition] = {}

    def is_derived(self, name: str, text: str, *, request: str | None) -> bool:
        """Tell whether `text` derives features from features.

        Raises
        ------
        UsageError
            If a name in FROM could mean two things, or FROM mixes streams and features.
        """
        shape = shape_of(text)
        features = [t for t in shape.tables if self._is_feature(t)]
        streams = [t for t in shape.tables if "@" not in t and self.is_stream(t)]
        both = [t for t in features if t in streams]
        if shape.folds or not shape.tables:
            chosen = bool(features) and not streams
        elif both:
            raise UsageError(
                f"{both[0]!r} is a stream and a feature group, and nothing here says which.",
                remedy=f"name one of the group's features in FROM instead of {both[0]!r}",
            )
        else:
            # Nothing is folded and no name is a stream: it is meant to be derived.
            chosen = bool(features) or not streams
        if chosen and streams:
            raise UsageError(
                "FROM mixes streams and features.",
                found=f"{streams[0]!r} is a stream, {features[0]!r} a feature",
                remedy="fold the stream in a feature of its own, then derive from both",
            )
        if request is not None and not chosen:
            raise UsageError(
                f"{name!r} folds a stream: a request has no values for it.",
                found=f"--request {request!r}",
                remedy="derive a feature from it that reads the request value",
            )
        return chosen

    def _is_feature(self, name: str) -> bool:
        base = name.partition("@")[0]
        return base in self.state.groups or base in self.state.owners

    def _definition(self, name: str) -> AnyDefinition:
        base, _, number = name.partition("@")
        if not self._is_feature(name):
            state = self.state
            known = {*state.groups, *state.owners, *state.sources, *state.views}
            raise unknown_name(
                "feature, group, stream or view", name, known, remedy="define it with %%feature"
            )
        group = self.state.group(base)
        if not number:
            return group.latest
        if not number.isdecimal():
            raise UsageError("A version is a number.", found=name, remedy=f'"{base}@1"')
        return group.version(int(number)).definition

    def compile(
        self,
        name: str,
        text: str,
        *,
        entity: Sequence[str],
        request: str | None,
        windows: Mapping[str, str | None],
    ) -> DerivedDefinition:
        """Return the definition of a derived feature group, with what it pins.

        `windows` are the options that only what is folded can have.
        """
        if odd := [f"--{n} {v}" for n, v in windows.items() if v not in (None, "left")]:
            raise UsageError(
                f"{name!r} is derived: it has no window and no time to live of its own.",
                found=", ".join(odd),
                remedy="leave it out; they are those of the features that it reads",
            )

        def find(asked: str) -> Given:
            definition = self._definition(asked)
            if definition.name == name:
                raise DefinitionError(
                    f"{name!r} would be derived from itself.",
                    remedy="another name for what is derived",
                )
            self._found[definition.name] = definition
            base = asked.partition("@")[0]
            only = base if base != definition.name else None
            return Given(definition.name, definition.plan, only)

        plan = compile_derived(
            text, name=name, find_group=find, entity=entity, requests=parse_requests(request)
        )
        for part in (p for o in plan.outputs for p in walk(o.expr)):
            if isinstance(part, Call) and is_open(part):
                raise DefinitionError(
                    f"{part.function.upper()} is pinned where events are folded, and {name!r} "
                    "is derived.", found=f"{part.function.upper()} over a feature",
                    remedy="use it in the feature that is read, or write its constants out",
                )  # fmt: skip
        pinned: dict[tuple[str, str], Definition] = {}
        for definition in self._found.values():
            inner = (
                definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)
            )
            pinned |= {(d.name, d.fingerprint): d for d in inner}
        needed = sorted({(i.group, i.fingerprint) for i in plan.inputs})
        return DerivedDefinition(
            name=name, text=text, plan=plan, inputs=tuple(pinned[n] for n in needed),
            options={"entity": list(entity), "request": request},
            origins=tuple(sorted(self._found)),
        )  # fmt: skip


class Definitions:
    """Compiles feature groups against what the catalog knows. `Session` documents the options."""

    def __init__(
        self,
        catalog: Catalog,
        log: EventLog,
        sources: Sources,
        transforms: Transforms,
        *,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.catalog = catalog
        self.log = log
        self.sources = sources
        self.transforms = transforms

    def compile(
        self,
        name: str,
        text: object,
        *,
        entity: str | Sequence[str],
        stream: str | None,
        window: str | None,
        closed: str,
        resolution: str | None,
        ttl: str | None = None,
        request: str | None,
        tags: str | Sequence[str],
        written: str | None,
        refresh_statistics: bool,
        **said: str | None,
    ) -> AnyDefinition:
        """Return what a text or Polars expressions mean; nothing is recorded.

        `said` are the owner, the description and the cell, which change no meaning.
        """
        check_name(name)
        if closed not in ("left", "right"):
            raise UsageError("closed is 'left' or 'right'.", found=repr(closed), remedy="'left'")
        if isinstance(tags, str):
            tags = [t.strip() for t in tags.split(",") if t.strip()]
        entities = [entity] if isinstance(entity, str) else list(entity)
        windows = {"window": window, "closed": closed, "resolution": resolution, "ttl": ttl}
        derivation = Derivation(self.catalog.refresh(), self._is_source)
        definition: AnyDefinition
        if not isinstance(text, str) and request is not None:
            raise UsageError(
                f"{name!r} folds a stream: a request has no values for it.",
                found=f"--request {request!r}", remedy="derive a feature from it in SQL",
            )  # fmt: skip
        if isinstance(text, str) and derivation.is_derived(name, text, request=request):
            definition = derivation.compile(
                name, text, entity=entities, request=request, windows=windows
            )
        else:
            folded = self._folded(name, text, entities, windows, stream=stream, written=written)
            definition = self._pinned(folded, refresh=refresh_statistics)
        for feature in definition.plan.features:
            check_name(feature)
            if feature.startswith("__"):
                raise UsageError(
                    "Names that begin with two underscores are ours.", found=feature,
                    remedy=feature.strip("_"),
                )  # fmt: skip
        about: dict[str, Any] = {**said, "tags": tuple(tags)}
        return replace(definition, **about)

    def _folded(
        self,
        name: str,
        given: object,
        entities: list[str],
        windows: Mapping[str, str | None],
        *,
        stream: str | None,
        written: str | None,
    ) -> Definition:
        sources: dict[str, Stream] = {}
        views: dict[str, None] = {}

        def find(source: str) -> SourceColumns:
            stream = sources[source] = self.sources.find(source)
            return self.transforms.columns_of(stream)

        def length_us(option: str) -> int | None:
            given = windows[option]
            return None if given is None else parse_span(given, option=f"--{option}")

        compiled = compile_definition(
            given, name=name, find_source=find, find_view=self.transforms.finding_views(views),
            columns_of_streams=self._columns, stream=stream, written=written, entity=entities,
            window_us=length_us("window"), closed=windows["closed"] or "left",
            resolution_us=length_us("resolution"),
        )  # fmt: skip
        plan = replace(compiled.plan, ttl_us=length_us("ttl"))
        noted = {"views": list(views)} if views else {}
        return Definition(
            name, compiled.text, plan, source_of(plan, sources.__getitem__), compiled.language,
            {**windows, "entity": entities, **compiled.options, **noted},
            joined=tuple(sources[j.source] for j in plan.joins),
        )  # fmt: skip

    def _pinned(self, definition: Definition, *, refresh: bool) -> Definition:
        """Return the definition with the statistics that it asks for in its plan."""
        group = None if refresh else self.catalog.refresh().groups.get(definition.name)
        former = None if group is None else group.latest
        log = joined_log(definition.plan, definition.joined, self.log)
        plan, pins = pinned_plan(
            definition.plan, definition.source, log, clock=self.clock,
            former=former.pins if isinstance(former, Definition) else (),
        )  # fmt: skip
        noted = {"pinned": [pin.to_dict() for pin in pins]} if pins else {}
        plan = canonical(plan)
        source = definition.source
        if isinstance(source, UnionStream):
            # What was left open kept the branches from being the whole of what is done to a row.
            source = union_of(plan.branches, source.parts)
        options = {**definition.options, **noted}
        return replace(definition, plan=plan, source=source, options=options)

    def _columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of each declared stream."""
        known = self.catalog.refresh().sources.items()
        return {name: tuple(s.stream.names) for name, s in known}

    def _is_source(self, name: str) -> bool:
        state = self.catalog.refresh()
        return name in state.sources or name in state.views or self.log.exists(name)


def _noted(views: set[str]) -> dict[str, list[str]]:
    """Return the views that a definition was compiled with, for its lineage."""
    return {"views": sorted(views)} if views else {}
