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
from fs_notebook.catalog.recipes import TRAINED, SavedTrainingSet
from fs_notebook.catalog.sets import (
    KEPT,
    MODEL_REGISTERED,
    SET_DEFINED,
    FeatureSet,
    Kept,
    Model,
    keep,
)
from fs_notebook.catalog.stored import WRONG, changed, collector_at_rest, told, unreadable
from fs_notebook.errors import NameTaken, UsageError, unknown_name
from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.log.protocol import Stream

DECLARED, UPLOADED, DRAFTED, DISCARDED, PROMOTED, LIVE, ROLLED_BACK, RETIRED, VALIDATED = (
    "declared", "uploaded", "drafted", "discarded", "promoted", "live", "rolled_back", "retired",
    "validated",
)  # fmt: skip
VIEWED = "viewed"
# What says anew all that a thing is: what was unreadable before is of no account then.
_ANEW = frozenset({DECLARED, DRAFTED, PROMOTED, VIEWED, SET_DEFINED, MODEL_REGISTERED, TRAINED})

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
        return {name for d in definitions for name in d.facts.features}

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
    unreadable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(Kind, name) → what is wrong with an entry of it that was passed over."""

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

    def check_readable(self, kind: str, name: str) -> None:
        """Raise `UnreadableEntry` if a thing's last entry was passed over: it is not as it was."""
        if (kind, name) in self.unreadable:
            raise unreadable(name, self.unreadable[kind, name], kind=f"entry of the {kind}")

    def source(self, name: str) -> Source:
        self.check_readable(STREAM, name)
        if name not in self.sources:
            raise unknown_name(
                "stream", name, self.sources, remedy=f"%feature upload … --stream {name}"
            )
        return self.sources[name]

    def view(self, name: str) -> View:
        """Return the view of this name."""
        self.check_readable(VIEW, name)
        if name not in self.views:
            raise unknown_name("view", name, self.views, remedy=f"%%view {name}, then a SELECT")
        return self.views[name]

    def group(self, name: str) -> Group:
        """Return the group of this name, or the one that has a feature of this name."""
        owner = name if name in self.groups else self.owners.get(name, name)
        self.check_readable(GROUP, owner)
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
        self.check_readable(GROUP, definition.name)
        known = self.groups.get(definition.name)
        own = known is not None and not known.versions and known.actor == actor
        if known is not None and known.latest.facts.entity != definition.facts.entity and not own:
            raise NameTaken(
                f"{definition.name!r} exists and is a feature of another entity.",
                found=f"{', '.join(known.latest.facts.entity)}, by {known.actor or 'somebody'}",
                remedy="another name for this one",
            )
        if definition.name in self.owners and self.owners[definition.name] != definition.name:
            raise NameTaken(
                f"{definition.name!r} is a feature of the group "
                f"{self.owners[definition.name]!r} already.",
                remedy="another name for this group",
            )
        for feature in definition.facts.features:
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
    """Return `state` after `events`: dicts with kind, name, body, actor and at.

    Where `text` is the body as text too, plans are decoded of that when they are asked for. An
    event that cannot be read is passed over and hits those who ask for what it is about.
    """
    folding = Folding(state)
    folding.take(events)
    return folding.state()


class Folding:
    """A state that takes events: its mappings are copied once, not for each of them."""

    def __init__(self, state: CatalogState) -> None:
        self.sources, self.groups = dict(state.sources), dict(state.groups)
        self.views, self.notes = dict(state.views), dict(state.notes)
        self.unreadable = dict(state.unreadable)
        self.kept, self.count = state.kept, state.events

    def state(self) -> CatalogState:
        return CatalogState(
            self.sources, self.groups, self.count, self.views, self.kept, self.notes,
            self.unreadable,
        )  # fmt: skip

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        with collector_at_rest():
            for event in events:
                self.count += 1
                place = place_of(event)
                try:
                    self._take(event, place)
                except WRONG as error:
                    self.unreadable[place] = told(error)
                else:
                    if event["kind"] in _ANEW:
                        self.unreadable.pop(place, None)

    def _take(self, event: Mapping[str, Any], place: tuple[str, str]) -> None:
        kind, name, body = event["kind"], event["name"], event["body"]
        actor, at = event["actor"], event["at"]
        if kind == DECLARED:
            stream = Stream.from_dict(body["stream"])
            uploads = self.sources[name].uploads if name in self.sources else {}
            described = self._note(place, event).words.description
            self.sources[name] = Source(stream, actor, at, described, uploads)
        elif kind == UPLOADED:
            known = {**self.sources[name].uploads, body["digest"]: upload_of(body, at)}
            self.sources[name] = replace(self.sources[name], uploads=known)
        elif kind == VIEWED:
            number = self.views[name].version + 1 if name in self.views else 1
            polars = PolarsRows.from_json(body["polars"]) if "polars" in body else None
            self.views[name] = View(
                name, body["text"], body["source"], number, actor, at,
                self._note(place, event).words.description, polars,
                tuple(body.get("views", ())), tuple(body.get("streams", ())),
            )  # fmt: skip
        elif kind in KEPT or place[0] != GROUP:
            if kind in KEPT:
                self.kept = keep(self.kept, kind, name, body, actor, at)
            described = self._note(place, event).words.description
            if place[0] == VIEW and name in self.views:
                self.views[name] = replace(self.views[name], description=described)
            if place[0] == STREAM and name in self.sources:
                self.sources[name] = replace(self.sources[name], description=described)
        else:
            self._take_of_group(event, place)

    def _take_of_group(self, event: Mapping[str, Any], place: tuple[str, str]) -> None:
        name = event["name"]
        group = _step(self.groups.get(name, Group(name)), event)
        if group.draft is None and not group.versions:
            # Its draft was discarded before anything was promoted: its names are free again.
            self.groups.pop(name, None)
            self.notes.pop(place, None)
            return
        notes = self._note(place, event, version=group.wanted)
        group = _described(group, notes.words)
        # Who changed it last is a person; the runner's and the validator's notes are not changes.
        is_noted_only = event["kind"] in (LIVE, VALIDATED)
        by = (group.actor, group.at) if is_noted_only else (event["actor"], event["at"])
        self.groups[name] = changed(group, deprecated=notes.deprecated, actor=by[0], at=by[1])

    def _note(
        self, place: tuple[str, str], event: Mapping[str, Any], *, version: int | None = None
    ) -> Notes:
        self.notes[place] = now = noted(self.notes.get(place, Notes()), event, version=version)
        return now


def _described(group: Group, words: Words) -> Group:
    """Return a group whose definitions all say these words: they are no version's own."""
    definitions = [v.definition for v in group.versions]
    definitions += [group.draft] if group.draft is not None else []
    wanted = (words.owner, words.description, words.tags)
    if all((d.owner, d.description, d.tags) == wanted for d in definitions):
        return group
    said = words.to_dict()
    versions = tuple(replace(v, definition=v.definition.saying(said)) for v in group.versions)
    draft = None if group.draft is None else group.draft.saying(said)
    return changed(group, versions=versions, draft=draft)


def _defined(event: Mapping[str, Any]) -> AnyDefinition:
    body = event["body"]
    return definition_of(body["definition"], body=event.get("text", body), path=("definition",))


def _step(group: Group, event: Mapping[str, Any]) -> Group:
    body, actor, at = event["body"], event["actor"], event["at"]
    match event["kind"]:
        case "drafted":
            draft = _defined(event)
            known = group.by_fingerprint(draft.fingerprint) if group.versions else None
            if known is None:
                return changed(group, draft=draft)
            # The same meaning: only what is said about it (description, tags, owner) is new.
            versions = tuple(
                replace(v, definition=draft) if v.number == known.number else v
                for v in group.versions
            )
            same = known.number == group.wanted
            return changed(group, versions=versions, draft=None if same else draft)
        case "discarded":
            return changed(group, draft=None)
        case "promoted":
            definition, versions = _defined(event), group.versions
            version = group.by_fingerprint(definition.fingerprint) if versions else None
            if version is None:
                workers = body.get("workers")
                version = Version(len(versions) + 1, definition, actor, at, workers=workers)
                versions = (*versions, version)
            elif version.retired or body.get("workers"):
                workers = body.get("workers") or (None if version.retired else version.workers)
                version = replace(version, retired=False, workers=workers)
                versions = tuple(version if v.number == version.number else v for v in versions)
            return changed(group, versions=versions, draft=None, wanted=version.number)
        case "live":
            number = int(body["version"])
            if group.wanted != number or group.served[-1:] == (number,):
                return group
            return changed(group, served=(*group.served, number))
        case "rolled_back":
            number = int(body["version"])
            # What served before the one we return to stays reachable; the one we leave too.
            return changed(group, wanted=number, served=(*group.served, number))
        case "retired":
            versions = tuple(
                replace(v, retired=True) if v.number == body["version"] else v
                for v in group.versions
            )
            return changed(group, versions=versions)
        case "validated":
            return changed(group, lifts=(*group.lifts, body)[-20:])
    return group
