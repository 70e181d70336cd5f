"""What depends on what: derived features on stored versions, those on streams. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from fs_notebook.catalog.model import (
    AnyDefinition,
    CatalogState,
    Definition,
    DerivedDefinition,
    Group,
    Version,
)
from fs_notebook.errors import UsageError


@dataclass(frozen=True)
class Pinned:
    """An input of a derived definition, and the version that it is in the catalog, if any."""

    definition: Definition
    version: Version | None

    def __str__(self) -> str:
        name = self.definition.name
        return f"{name} v{self.version.number}" if self.version is not None else f"{name} (draft)"


def inputs_of(state: CatalogState, definition: AnyDefinition) -> tuple[Pinned, ...]:
    """Return what a definition pins; nothing for one that folds a stream."""
    if not isinstance(definition, DerivedDefinition):
        return ()
    found = []
    for pinned in definition.inputs:
        group = state.groups.get(pinned.name)
        version = None if group is None else group.by_fingerprint(pinned.fingerprint)
        found.append(Pinned(pinned, version))
    return tuple(found)


def streams_of(definition: AnyDefinition) -> tuple[str, ...]:
    """Return the streams that a definition's values come from, directly or not."""
    return definition.facts.streams


def workers(state: CatalogState) -> dict[str, Version]:
    """Return the versions that need a worker, by shard.

    Those are the stored ones that run or that a feature set pins, and those that such a derived
    version pins, whatever became of their groups since.
    """
    needed: dict[str, Version] = {}
    wanted = [v for group in state.groups.values() for v in group.running]
    wanted += state.pinned.values()
    for version in wanted:
        if isinstance(version.definition, Definition):
            needed[version.definition.shard] = version
        for pinned in inputs_of(state, version.definition):
            if pinned.version is not None and not pinned.version.retired:
                needed[pinned.definition.shard] = pinned.version
    return needed


def running_of(state: CatalogState, group: Group) -> tuple[Version, ...]:
    """Return a group's versions that run: its own wish, and what sets and derived ones need."""
    numbers = {v.number for v in group.running}
    numbers |= {v.number for v in group.versions if (group.name, v.number) in state.pinned}
    numbers |= {v.number for v in workers(state).values() if v.definition.name == group.name}
    return tuple(v for v in group.versions if v.number in numbers)


def dependents_of(state: CatalogState, name: str, number: int | None = None) -> tuple[str, ...]:
    """Return the running derived versions that pin a group's version (default: any), as text."""
    running = {(g.name, v.number): v for g in state.groups.values() for v in g.running}
    running |= state.pinned
    return tuple(
        f"{group} v{version.number}"
        for (group, _), version in sorted(running.items())
        for pinned in inputs_of(state, version.definition)
        if pinned.definition.name == name
        and pinned.version is not None
        and number in (None, pinned.version.number)
    )


def missing_inputs(state: CatalogState, definition: AnyDefinition) -> tuple[Pinned, ...]:
    """Return the pinned inputs that were not promoted, or are retired."""
    return tuple(p for p in inputs_of(state, definition) if p.version is None or p.version.retired)


def check_inputs(state: CatalogState, definition: AnyDefinition) -> None:
    """Raise `UsageError` unless all that a definition pins is promoted; says what is missing."""
    missing = missing_inputs(state, definition)
    if not missing:
        return
    remedies, found = [], []
    for pinned in missing:
        name = pinned.definition.name
        found.append(f"{name} {pinned.definition.fingerprint[:12]} is " + (
            "not promoted" if pinned.version is None else f"retired (v{pinned.version.number})"
        ))  # fmt: skip
        if not is_latest(state, pinned.definition):
            raise UsageError(
                f"{definition.name!r} was derived from a definition of {name!r} that was changed "
                "since and does not run.",
                found="; ".join(found),
                remedy=f"run the cell of {definition.name!r} again: it then means the present "
                f"{name!r}",
            )
        remedies.append(f"%feature promote {name}")
    raise UsageError(
        f"{definition.name!r} is derived from features that are not promoted.",
        found="; ".join(found),
        remedy=f"{', '.join(remedies)} first, or %feature promote {definition.name} --with-inputs",
    )


def is_latest(state: CatalogState, definition: Definition) -> bool:
    """Tell whether a promotion of the group's name would promote this very definition."""
    group = state.groups.get(definition.name)
    return group is not None and group.latest.fingerprint == definition.fingerprint


def changed_since(state: CatalogState, definition: DerivedDefinition) -> list[str]:
    """Return a note for each input that means something else by now than when it was pinned."""
    return [
        f"means the {d.name} of {d.fingerprint[:12]}, which was changed since: run this cell "
        "again to take it up"
        for d in definition.inputs
        if not is_latest(state, d)
    ]
