"""What the catalog knows, and the fold that makes it of the catalog's events. No I/O.

Events are facts, never changed: a source was declared, a draft was written, a version was
promoted, it went live, it was rolled back or retired, a draft was discarded. The state is their
fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from fs_notebook.catalog.about import (
    DEPRECATED,
    GROUP,
    STREAM,
    VIEW,
    Deprecation,
    Notes,
    Words,
    noted,
    place_of,
)
from fs_notebook.catalog.definition import (
    AnyDefinition,
    Definition,
    DerivedDefinition,
    definition_of,
)
from fs_notebook.catalog.entries import Source, View, upload_of
from fs_notebook.catalog.recipes import SavedTrainingSet
from fs_notebook.catalog.sets import KEPT, FeatureSet, Kept, Model, keep
from fs_notebook.errors import NameTaken, UsageError, unknown_name
from fs_notebook.language.polars_rows import PolarsRows
from fs_notebook.log.protocol import Stream

DECLARED, UPLOADED, DRAFTED, DISCARDED, PROMOTED, LIVE, ROLLED_BACK, RETIRED, VALIDATED = (
    "declared", "uploaded", "drafted", "discarded", "promoted", "live", "rolled_back", "retired",
    "validated",
)  # fmt: skip
VIEWED = "viewed"

__all__ = [
    "AnyDefinition", "CatalogState", "Definition", "DerivedDefinition", "Group", "Source",
    "Version", "View", "definition_of", "fold",
]  # fmt: skip


@dataclass(frozen=True)
class Version:
    """A promoted definition. Immutable; numbered from 1 within its group."""

    number: int
    definition: AnyDefinition
    actor: str
    at: datetime
    retired: bool = False
    workers: int | None = None
    """How many workers share the stream's partitions, on each machine with a runner; None: one
    worker has them all."""

    @property
    def fingerprint(self) -> str:
        return self.definition.fingerprint


@dataclass(frozen=True)
class Group:
    """A feature group: its versions, which one serves, and a draft that is not promoted yet.

    `wanted` is the version last promoted or rolled back to; it serves as soon as it is
    bootstrapped. `served` are the versions that have served, in order, the present one last.
    """

    name: str
    versions: tuple[Version, ...] = ()
    draft: AnyDefinition | None = None
    wanted: int | None = None
    served: tuple[int, ...] = ()
    actor: str = ""
    at: datetime | None = None
    lifts: tuple[Mapping[str, Any], ...] = ()
    deprecated: Deprecation | None = None

    @property
    def status(self) -> str:
        """Where it is in its life, whatever its worker does just now.

        ``draft``, ``promoted`` (not live yet), ``live``, ``deprecated`` or ``retired``.
        """
        if self.versions and self.draft is None and all(v.retired for v in self.versions):
            return RETIRED
        if self.deprecated is not None:
            return DEPRECATED
        if self.wanted is None:
            return "draft"
        return PROMOTED if self.serving is None else LIVE

    @property
    def latest(self) -> AnyDefinition:
        """The draft, or else the version that is wanted (the last promoted or returned to)."""
        if self.draft is not None:
            return self.draft
        if self.wanted is not None:
            return self.version(self.wanted).definition
        return self.versions[-1].definition

    @property
    def features(self) -> set[str]:
        """The names that this group holds: of its draft, and of all that runs."""
        definitions = [self.latest, *(v.definition for v in self.running)]
        return {name for d in definitions for name in d.plan.features}

    @property
    def serving(self) -> Version | None:
        """The version that serves now, if one does."""
        return self.version(self.served[-1]) if self.served else None

    @property
    def previous(self) -> Version | None:
        """What a roll-back goes to: the newest version that served before and is not retired."""
        current = self.served[-1] if self.served else None
        for number in reversed(self.served[:-1]):
            version = self.version(number)
            if number != current and not version.retired:
                return version
        return None

    @property
    def running(self) -> tuple[Version, ...]:
        """The versions that a worker must keep current: wanted, serving, and the former one."""
        numbers = {n for n in (self.wanted, *self.served[-1:]) if n is not None}
        if self.previous is not None:
            numbers.add(self.previous.number)
        return tuple(v for v in self.versions if v.number in numbers and not v.retired)

    def version(self, number: int) -> Version:
        for version in self.versions:
            if version.number == number:
                return version
        raise unknown_name(
            f"version of {self.name!r}", str(number), [str(v.number) for v in self.versions]
        )

    def by_fingerprint(self, fingerprint: str) -> Version | None:
        return next((v for v in self.versions if v.fingerprint == fingerprint), None)


@dataclass(frozen=True)
class CatalogState:
    """All that the catalog knows after some number of events."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    events: int = 0
    views: Mapping[str, View] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    notes: Mapping[tuple[str, str], Notes] = field(default_factory=dict)
    """(Kind, name) → who made it, what was said of it since, and what became of it."""

    @property
    def training_sets(self) -> Mapping[str, SavedTrainingSet]:
        return self.kept.training_sets

    @property
    def feature_sets(self) -> Mapping[str, FeatureSet]:
        return self.kept.feature_sets

    @property
    def models(self) -> Mapping[str, Model]:
        return self.kept.models

    @cached_property
    def pinned(self) -> Mapping[tuple[str, int], Version]:
        """The versions that a kept version of some feature set pins, by group and number."""
        return {
            (m.group, m.version): version
            for one in self.feature_sets.values()
            for kept in one.kept
            for m in kept.members
            if m.group in self.groups
            for version in [self.groups[m.group].version(m.version)]
            if not version.retired
        }

    @cached_property
    def users(self) -> dict[str, tuple[str, ...]]:
        """Group → the groups whose definition, draft or running, is derived of it."""
        found: dict[str, set[str]] = {}
        for group in self.groups.values():
            for definition in (group.latest, *(v.definition for v in group.running)):
                if isinstance(definition, DerivedDefinition):
                    for name in {*definition.origins, *(i.name for i in definition.inputs)}:
                        found.setdefault(name, set()).add(group.name)
        return {name: tuple(sorted(users)) for name, users in found.items()}

    @cached_property
    def owners(self) -> dict[str, str]:
        """Feature name → the group that has it."""
        return {feature: group.name for group in self.groups.values() for feature in group.features}

    def source(self, name: str) -> Source:
        if name not in self.sources:
            raise unknown_name(
                "stream", name, self.sources, remedy=f"%feature upload … --stream {name}"
            )
        return self.sources[name]

    def view(self, name: str) -> View:
        """Return the view of this name."""
        if name not in self.views:
            raise unknown_name("view", name, self.views, remedy=f"%%view {name}, then a SELECT")
        return self.views[name]

    def group(self, name: str) -> Group:
        """Return the group of this name, or the one that has a feature of this name."""
        owner = name if name in self.groups else self.owners.get(name, name)
        if owner not in self.groups:
            raise unknown_name(
                "feature", name, {*self.groups, *self.owners}, remedy="define it with %%feature"
            )
        return self.groups[owner]

    def defined_by(self, name: str, cell: str) -> AnyDefinition:
        """Return the newest definition of group `name`, if it came from this very cell.

        Raises
        ------
        UsageError
            If it did not: the cell was edited, or never run.
        """
        group = self.groups.get(name)
        if group is None or (group.latest.cell or "").strip() != cell.strip():
            raise UsageError(
                f"The catalog has not seen this cell of {name!r} as it stands.",
                found="never run" if group is None else f"another one, by {group.actor}",
                remedy="run the cell first: a Polars cell is code of its own kernel",
            )
        return group.latest

    def check_names(self, definition: AnyDefinition, *, actor: str | None = None) -> None:
        """Raise `NameTaken` if a name of `definition` means something else already.

        A draft of `actor`'s own that nobody ever promoted may become anything.
        """
        known = self.groups.get(definition.name)
        own = known is not None and not known.versions and known.actor == actor
        if known is not None and known.latest.plan.entity != definition.plan.entity and not own:
            raise NameTaken(
                f"{definition.name!r} exists and is a feature of another entity.",
                found=f"{', '.join(known.latest.plan.entity)}, by {known.actor or 'somebody'}",
                remedy="another name for this one",
            )
        if definition.name in self.owners and self.owners[definition.name] != definition.name:
            raise NameTaken(
                f"{definition.name!r} is a feature of the group "
                f"{self.owners[definition.name]!r} already.",
                remedy="another name for this group",
            )
        for feature in definition.plan.features:
            owner = self.owners.get(feature)
            if owner is None and feature in self.groups:
                owner = feature
            if owner is not None and owner != definition.name:
                remedy = f"AS another_name, or reuse {feature!r} as it is"
                if not self.groups[owner].versions:
                    remedy += f", or %feature retire {owner} if that draft is done with"
                raise NameTaken(
                    f"The feature {feature!r} exists in the group {owner!r}.",
                    found=self.groups[owner].latest.text.strip(),
                    remedy=remedy,
                )


def fold(state: CatalogState, events: Iterable[Mapping[str, Any]]) -> CatalogState:
    """Return `state` after `events`: dicts with kind, name, body, actor and at."""
    sources, groups, count = dict(state.sources), dict(state.groups), state.events
    views, kept = dict(state.views), state.kept
    notes = dict(state.notes)
    for event in events:
        count += 1
        kind, name, body = event["kind"], event["name"], event["body"]
        actor, at = event["actor"], event["at"]
        place = place_of(event)
        if kind == DECLARED:
            stream = Stream.from_dict(body["stream"])
            uploads = sources[name].uploads if name in sources else {}
            notes[place] = noted(notes.get(place, Notes()), event)
            described = notes[place].words.description
            sources[name] = Source(stream, actor, at, described, uploads)
            continue
        if kind == UPLOADED:
            known = {**sources[name].uploads, body["digest"]: upload_of(body, at)}
            sources[name] = replace(sources[name], uploads=known)
            continue
        if kind == VIEWED:
            number = views[name].version + 1 if name in views else 1
            polars = PolarsRows.from_json(body["polars"]) if "polars" in body else None
            notes[place] = noted(notes.get(place, Notes()), event)
            views[name] = View(
                name, body["text"], body["source"], number, actor, at,
                notes[place].words.description, polars, tuple(body.get("views", ())),
                tuple(body.get("streams", ())),
            )  # fmt: skip
            continue
        if kind in KEPT:
            kept = keep(kept, kind, name, body, actor, at)
        if place[0] != GROUP:
            notes[place] = told = noted(notes.get(place, Notes()), event)
            if place[0] == VIEW and name in views:
                views[name] = replace(views[name], description=told.words.description)
            if place[0] == STREAM and name in sources:
                sources[name] = replace(sources[name], description=told.words.description)
            continue
        group = groups.get(name, Group(name))
        group = _step(group, kind, body, actor, at)
        if group.draft is None and not group.versions:
            # Its draft was discarded before anything was promoted: its names are free again.
            groups.pop(name, None)
            notes.pop(place, None)
            continue
        notes[place] = told = noted(notes.get(place, Notes()), event, version=group.wanted)
        group = _described(group, told.words)
        # Who changed it last is a person; the runner's and the validator's notes are not changes.
        by = (group.actor, group.at) if kind in (LIVE, VALIDATED) else (actor, at)
        groups[name] = replace(group, deprecated=told.deprecated, actor=by[0], at=by[1])
    return CatalogState(sources, groups, count, views, kept, notes)


def _described(group: Group, words: Words) -> Group:
    """Return a group whose definitions all say these words: they are no version's own."""

    definitions = [v.definition for v in group.versions]
    definitions += [group.draft] if group.draft is not None else []
    if all(Words.of(d) == words for d in definitions):
        return group

    def described(definition: AnyDefinition) -> AnyDefinition:
        return replace(definition, **words.to_dict())

    versions = tuple(replace(v, definition=described(v.definition)) for v in group.versions)
    draft = None if group.draft is None else described(group.draft)
    return replace(group, versions=versions, draft=draft)


def _step(group: Group, kind: str, body: Mapping[str, Any], actor: str, at: datetime) -> Group:
    match kind:
        case "drafted":
            draft = definition_of(body["definition"])
            known = group.by_fingerprint(draft.fingerprint)
            if known is None:
                return replace(group, draft=draft)
            # The same meaning: only what is said about it (description, tags, owner) is new.
            versions = tuple(
                replace(v, definition=draft) if v.number == known.number else v
                for v in group.versions
            )
            same = known.number == group.wanted
            return replace(group, versions=versions, draft=None if same else draft)
        case "discarded":
            return replace(group, draft=None)
        case "promoted":
            definition = definition_of(body["definition"])
            version = group.by_fingerprint(definition.fingerprint)
            versions = group.versions
            if version is None:
                workers = body.get("workers")
                version = Version(len(versions) + 1, definition, actor, at, workers=workers)
                versions = (*versions, version)
            elif version.retired or body.get("workers"):
                workers = body.get("workers") or (None if version.retired else version.workers)
                version = replace(version, retired=False, workers=workers)
                versions = tuple(version if v.number == version.number else v for v in versions)
            return replace(group, versions=versions, draft=None, wanted=version.number)
        case "live":
            number = int(body["version"])
            if group.wanted != number or group.served[-1:] == (number,):
                return group
            return replace(group, served=(*group.served, number))
        case "rolled_back":
            number = int(body["version"])
            # What served before the one we return to stays reachable; the one we leave too.
            return replace(group, wanted=number, served=(*group.served, number))
        case "retired":
            versions = tuple(
                replace(v, retired=True) if v.number == body["version"] else v
                for v in group.versions
            )
            return replace(group, versions=versions)
        case "validated":
            return replace(group, lifts=(*group.lifts, body)[-20:])
    return group
