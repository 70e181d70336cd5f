"""Which features read a column, and what it means to them that events are written without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fs_notebook.catalog.model import AnyDefinition, CatalogState, Definition, DerivedDefinition
from fs_notebook.compute.composed import UnionStream
from fs_notebook.errors import DefinitionError
from fs_notebook.language import expr as ex
from fs_notebook.language.plan import Plan
from fs_notebook.log.facts import Drift
from fs_notebook.log.protocol import EventLog, Stream

Reads = tuple[Stream, str, tuple[str, ...]]
"""A stream, one of its columns, and the features that cannot be told without it."""


def reads_of(definition: Definition) -> Iterator[Reads]:
    """Yield every column of every stream that a definition reads."""
    plan, source = definition.plan, definition.source
    joined = {name: (j, column) for j in plan.joins for name, column, _ in j.columns}
    streams = {s.name: s for s in definition.joined}
    for name in {*plan.columns, *joined}:
        features = _features(plan, name)
        if name in joined:
            join, column = joined[name]
            if join.source in streams:
                yield streams[join.source], column, features
        elif isinstance(source, UnionStream):
            for branch, stream in zip(source.branches, source.parts, strict=True):
                made = dict(branch.columns).get(name)
                for inner in () if made is None else ex.columns_of(made):
                    yield stream, inner, features
        else:
            yield source, name, features
    for join in plan.joins:
        if join.source in streams:
            for _, column in join.keys:
                yield streams[join.source], column, plan.features
    if isinstance(source, UnionStream):
        for branch, stream in zip(source.branches, source.parts, strict=True):
            for inner in () if branch.where is None else ex.columns_of(branch.where):
                yield stream, inner, plan.features
    for stream in source.parts if isinstance(source, UnionStream) else (source,):
        if stream.time is not None:
            yield stream, stream.time, plan.features


def _features(plan: Plan, column: str) -> tuple[str, ...]:
    """Return the features that are not what they were without a column of the folded rows."""
    everywhere = [k.expr for k in plan.keys] + [e for join in plan.joins for e, _ in join.keys]
    everywhere += [plan.where] if plan.where is not None else []
    if any(column in ex.columns_of(e) for e in everywhere):
        return plan.features
    within = {
        index
        for index, one in enumerate(plan.aggregations)
        if any(column in ex.columns_of(a) for a in one.args)
    }
    return tuple(
        o.name
        for o in plan.outputs
        if any(isinstance(e, ex.Aggregated) and e.index in within for e in ex.walk(o.expr))
    )


def drift_of(log: EventLog, stream: Stream) -> Drift | None:
    """Return how a stream's newest schema differs from its declaration; None if not at all."""
    ask: Callable[[Stream], Drift | None] | None = getattr(log, "drift", None)
    return None if ask is None else ask(stream)


def check_columns(definition: AnyDefinition, log: EventLog) -> None:
    """Make sure that what a definition reads is still written.

    Raises
    ------
    DefinitionError
        If the newest schema of one of its streams has lost a column that it reads: folded on, it
        would be null without a word.
    """
    if isinstance(definition, DerivedDefinition):
        for pinned in definition.inputs:
            check_columns(pinned, log)
        return
    reads = list(reads_of(definition))
    for stream in {s.name: s for s, _, _ in reads}.values():
        drift = drift_of(log, stream)
        removed = set(drift.removed) if drift is not None else set()
        if not removed:
            continue
        needed: dict[str, set[str]] = {}
        for one, column, features in reads:
            if one.name == stream.name and column in removed:
                needed.setdefault(column, set()).update(features)
        if needed:
            columns = ", ".join(map(repr, sorted(needed)))
            who = ", ".join(f"{definition.name}.{f}" for f in sorted(set().union(*needed.values())))
            raise DefinitionError(
                f"The newest schema of stream {stream.name!r} has no {columns} any more: {who} "
                "cannot be told of what is written by it.",
                found="removed in the topic's schema registry",
                remedy=f"write {columns} again, or define {definition.name!r} without it",
            )


def readers_of(state: CatalogState, stream: str, column: str) -> list[str]:
    """Return the features of groups' latest definitions that read a column of a stream, sorted."""
    found: set[str] = set()
    for group in state.groups.values():
        definition = group.latest
        facts = definition.facts
        reads_it = stream in (*facts.streams, *facts.joined)
        if reads_it and isinstance(definition, Definition):
            found |= set(_readers(definition.name, reads_of(definition), stream, column))
    return sorted(found)


def _readers(name: str, reads: Iterable[Reads], stream: str, column: str) -> Iterator[str]:
    for one, read, features in reads:
        if (one.name, read) == (stream, column):
            yield from (f"{name}.{feature}" for feature in features)
