"""What a session does with the catalog itself: search, words, deprecation, history, lineage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.about import (
    ANNOTATED,
    DEPRECATED,
    FEATURE_SET,
    GROUP,
    MODEL,
    STREAM,
    TRAINING_SET,
    VIEW,
    WORDS,
    Change,
    Notes,
    lift_text,
)
from fs_notebook.catalog.definition import AnyDefinition
from fs_notebook.catalog.differences import Difference, difference
from fs_notebook.catalog.graph import Lineage, Node, lineage_of
from fs_notebook.catalog.index import Index
from fs_notebook.catalog.model import Group
from fs_notebook.catalog.search import Entry, Found
from fs_notebook.clock import Clock
from fs_notebook.errors import ConflictError, UsageError, plain, unknown_name
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.usage import TRAINING, Use, UseNotes, uses_of
from fs_notebook.origins import Origin
from fs_notebook.worker.records import published_record
from fs_notebook.worker.shared import partitions_of

TEXT_CHARS_MAX = 2_000
TAG_CHARS_MAX = 100
TAGS_MAX = 50
DRAFT = "draft"


@dataclass(frozen=True)
class VersionLine:
    """One version of a group, or its draft: what it is called, its place, by whom and when."""

    label: str
    state: str
    fingerprint: str
    actor: str
    at: datetime | None


@dataclass(frozen=True)
class About:
    """All that the catalog knows of one thing.

    Attributes
    ----------
    entry
        What it is, as a search finds it.
    text
        Its definition, where it has one.
    created_by, created_at
        Who made it, and when.
    history
        The changes since, the newest first.
    versions
        Of a group, the newest first.
    lineage
        What it is made of, and what is made of it.
    uses
        Who reads it, the last reader first.
    lifts
        What was measured of it, the newest first.
    cell, notebook
        The notebook cell that it came from, if it came from one, and where the notebook lay.
    """

    entry: Entry
    text: str | None
    created_by: str
    created_at: datetime | None
    history: tuple[Change, ...]
    versions: tuple[VersionLine, ...]
    lineage: Lineage
    uses: tuple[Use, ...]
    lifts: tuple[Mapping[str, Any], ...] = ()
    cell: str | None = None
    notebook: Origin | None = None

    @property
    def dependents(self) -> tuple[Node, ...]:
        """What is made of it, directly or not."""
        return self.lineage.downstream()

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            **self.entry.to_dict(),
            "text": self.text, "cell": self.cell,
            "notebook": None if self.notebook is None else self.notebook.to_dict(),
            "created_by": self.created_by,
            "created_at": "" if self.created_at is None else self.created_at.isoformat(),
            "history": [c.to_dict() for c in self.history],
            "versions": [
                {
                    "label": v.label, "state": v.state, "fingerprint": v.fingerprint,
                    "actor": v.actor, "at": "" if v.at is None else v.at.isoformat(),
                }
                for v in self.versions
            ],
            "lineage": self.lineage.to_dict(),
            "uses": [u.to_dict() for u in self.uses],
            "lifts": [dict(lift) for lift in self.lifts],
        }  # fmt: skip

    def __repr__(self) -> str:
        e = self.entry
        lines = [f"{e.kind} {e.name}, {e.status}"]
        if e.deprecated is not None:
            lines.append(e.deprecated.told(e.name))
        if e.description:
            lines.append(e.description)
        origin = [] if self.notebook is None else [plain(str(self.notebook))]
        pairs = [
            ("entity", e.entity),
            ("notebook", origin),
            ("tags", e.tags),
            ("owner", [e.owner] if e.owner else []),
        ]
        lines += [f"{name}: {', '.join(values)}" for name, values in pairs if values]
        columns = [f"{n} {t}" for n, t in zip(e.features, e.types, strict=False)] or e.features
        lines += [f"features: {', '.join(columns)}"] if columns else []
        for v in self.versions:
            at = "" if v.at is None else f", {v.at:%Y-%m-%d %H:%M}"
            lines.append(f"{v.label} {v.state}: {v.fingerprint[:12]} by {v.actor}{at}")
        lines += [f"lift: {lift_text(lift)}" for lift in self.lifts[:3]]
        lines += repr(self.lineage).split("\n")
        lines += [f"read: {use!r}" for use in self.uses] or ["nobody has read it so far"]
        lines += [f"{c.at:%Y-%m-%d %H:%M} {c.actor}: {c.text}" for c in self.history[:10]]
        return "\n".join(map(plain, lines))


@dataclass(frozen=True)
class Curated:
    """What an edit or a deprecation did, and whom it concerns."""

    about: About
    changed: bool

    def __repr__(self) -> str:
        entry = self.about.entry
        if not self.changed:
            return f"{entry.name}: nothing to change"
        last = self.about.history[0]
        lines = [f"{entry.name}: {last.text} (by {last.actor}; no new version)"]
        if entry.deprecated is not None:
            lines += [f"  depends on it: {node}" for node in self.about.dependents]
            lines += [f"  reads it: {use!r}" for use in self.about.uses]
            if not self.about.dependents and not self.about.uses:
                lines.append("  nothing depends on it, and nobody has read it so far")
        return "\n".join(map(plain, lines))


class CurationCalls:
    """The methods of a `Session` that find, describe and deprecate what is in the catalog."""

    catalog: Catalog
    clock: Clock
    store: OnlineStore
    _index: Index
    _index_lock: AbstractContextManager[Any]
    """Widgets look things up in threads of their own."""

    def search(
        self, query: str = "", *, kinds: Iterable[str] = (), limit: int | None = 50
    ) -> Found:
        """Return what in the catalog matches all words of a query, the best first.

        ``fs.search("tag:reading entity:user type:double owner:ann source:read_events clicks")``.
        Other filters are ``status:``, ``kind:``, ``feature:``, ``name:`` and ``by:``; ``-word`` and
        ``-tag:x`` leave out. A word that is nowhere stands for those that look like it.

        Parameters
        ----------
        kinds
            Of these kinds only: ``"group"``, ``"view"``, ``"stream"``, ``"training set"``.
        limit
            How many at most; None: all.

        Raises
        ------
        UsageError
            If there is no such filter.
        """
        state = self.catalog.refresh()
        with self._index_lock:
            return self._index.of(state).search(query, kinds=kinds, limit=limit)

    def about(self, name: str, *, kind: str | None = None) -> About:
        """Return all that the catalog knows of a feature, group, view, stream or training set."""
        state = self.catalog.refresh()
        kind, name = _place(state, name, kind)
        notes = state.notes.get((kind, name), Notes())
        with self._index_lock:
            index = self._index.of(state)
            entry, ways = index.entry(kind, name), index.ways
        group = state.groups[name] if kind == GROUP else None
        text, cell = None, None
        if group is not None:
            text, cell = group.latest.text, group.latest.cell
        elif kind == VIEW:
            text = state.views[name].text
        return About(
            entry=entry, text=text, cell=cell,
            notebook=notes.notebook, created_by=notes.created_by, created_at=notes.created_at,
            history=notes.history[::-1],
            versions=() if group is None else tuple(_version_lines(group)),
            lineage=lineage_of(state, name, kind=kind, ways=ways),
            uses=() if group is None else tuple(uses_of(self.store, name)),
            lifts=() if group is None else group.lifts[::-1],
        )  # fmt: skip

    def lineage(self, name: str) -> Lineage:
        """Return what a feature, view, stream or training set is made of, and what of it."""
        state = self.catalog.refresh()
        with self._index_lock:
            ways = self._index.of(state).ways
        return lineage_of(state, name, ways=ways)

    def uses(self, name: str) -> list[Use]:
        """Return who serves and trains with a feature, the last reader first."""
        return uses_of(self.store, self.catalog.refresh().group(name).name)

    def diff(
        self, name: str, before: int | str | None = None, after: int | str | None = None
    ) -> Difference:
        """Return what changed between two versions of a feature: in words, and as a text diff.

        Parameters
        ----------
        before, after
            Versions' numbers, or ``"draft"``; default: what serves and the draft, or else the
            two newest versions.
        """
        group = self.catalog.refresh().group(name)
        labels = [f"v{v.number}" for v in group.versions] + [DRAFT] * (group.draft is not None)
        if after is None:
            after = labels[-1]
        if before is None:
            serving = None if group.serving is None else f"v{group.serving.number}"
            others = [label for label in labels if label != _label(after)]
            if not others:
                raise UsageError(
                    f"{group.name!r} has one definition only.", found=", ".join(labels),
                    remedy="change its cell and run it, then compare",
                )  # fmt: skip
            before = serving if serving in others and serving is not None else others[-1]
        pair = (_label(before), _label(after))
        return difference(*(_labelled(group, label) for label in pair), labels=pair)

    def edit(
        self,
        name: str,
        *,
        owner: str | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        kind: str | None = None,
        seen: str | None = None,
        actor: str | None = None,
    ) -> Curated:
        """Change what is said of a thing in the catalog; that makes no version.

        An edit stands until the thing's own cell says something else than it did.

        Parameters
        ----------
        owner, description
            The new words; ``""`` for none.
        tags, add, remove
            All tags anew, or those that come and go.
        kind
            Which thing is meant, where a view or stream has the same name as a feature.
        seen
            When it was changed last as far as the editor saw (ISO 8601): if somebody changed it
            since, nothing is recorded.
        actor
            Who it is recorded as; default: the session's user.

        Raises
        ------
        ConflictError
            If somebody else changed the same at that time; says who and when.
        """
        state = self.catalog.refresh()
        kind, name = _place(state, name, kind)
        before = state.notes.get((kind, name), Notes()).words
        said: dict[str, Any] = {}
        if owner is not None:
            said["owner"] = _checked(owner, "An owner") or None
        if description is not None:
            said["description"] = _checked(description, "A description") or None
        if tags is not None or add or remove:
            kept = [*(before.tags if tags is None else _tags(tags)), *_tags(add)]
            gone = set(_tags(remove))
            said["tags"] = [t for t in dict.fromkeys(kept) if t not in gone]
            if len(said["tags"]) > TAGS_MAX:
                raise UsageError(f"A thing has at most {TAGS_MAX} tags.", remedy="fewer of them")
        new = {n: v for n, v in said.items() if _comparable(getattr(before, n)) != _comparable(v)}

        def check(now: CatalogState) -> bool:
            notes = now.notes.get((kind, name), Notes())
            lost = any(getattr(notes.words, n) != getattr(before, n) for n in WORDS if n in new)
            _check_seen(name, notes, seen, lost=lost)
            return bool(new)

        self.catalog.record(ANNOTATED, name, {"of": kind, **new}, check=check, actor=actor)
        return Curated(self.about(name, kind=kind), bool(new))

    def deprecate(
        self,
        name: str,
        *,
        reason: str | None = None,
        instead: str | None = None,
        undo: bool = False,
        kind: str | None = None,
        actor: str | None = None,
    ) -> Curated:
        """Say that a thing should not be used any more; it goes on working.

        A notice stands wherever it is used: in previews, training sets and what is served.

        Parameters
        ----------
        reason, instead
            Why, and what to use instead: a name in the catalog.
        undo
            Take it back.

        Returns
        -------
        Curated
            Says who depends on it, and who reads it.
        """
        state = self.catalog.refresh()
        kind, name = _place(state, name, kind)
        if instead is not None and not undo:
            # A notice that sends people to nothing would be worse than none.
            instead = _place(state, instead, None)[1] if instead not in state.owners else instead
            if instead == name:
                raise UsageError(f"{name!r} cannot stand in for itself.", remedy="another feature")
        told = None if reason is None else _checked(reason, "A reason")
        body = {"of": kind, "undo": True} if undo else {
            "of": kind, "reason": told or None, "instead": instead,
        }  # fmt: skip
        changed = False

        def check(now: CatalogState) -> bool:
            nonlocal changed
            known = now.notes.get((kind, name), Notes()).deprecated
            same = known is not None and (known.reason, known.instead) == (
                body.get("reason"), body.get("instead"),
            )  # fmt: skip
            changed = known is not None if undo else not same
            return changed

        now = self.catalog.record(DEPRECATED, name, body, check=check, actor=actor)
        if changed and kind == GROUP:
            # Readers see the notice at once; the runner would see to it a little later.
            self._republish(now.groups[name])
        return Curated(self.about(name, kind=kind), changed)

    def _republish(self, group: Group) -> None:
        """Publish the serving records of a group again, where they are published."""
        partitions = partial(partitions_of, self.store)
        published = self.store.published()[1]
        for name, record in published.items():
            if name.partition("@")[0] == group.name:
                now = published_record(group, record, partitions)
                if now != record:
                    self.store.publish(name, now)


def training_notices(
    names: Iterable[str], catalog: Catalog, store: OnlineStore, clock: Clock
) -> tuple[str, ...]:
    """Note that a training set reads groups; return the notices of deprecated ones."""
    groups = list(dict.fromkeys(names))
    notes = UseNotes(store, kind=TRAINING, actor=catalog.actor, clock=clock)
    notes.note(groups, clock.now_us())
    notes.flush()
    known = catalog.refresh().groups
    found = [known[n] for n in groups if n in known]
    return tuple(g.deprecated.told(g.name) for g in found if g.deprecated is not None)


def _place(state: CatalogState, name: str, kind: str | None) -> tuple[str, str]:
    """Return kind and name of what a name means: a group, or one of its features, first."""
    things: Mapping[str, Mapping[str, object]] = {
        GROUP: state.groups, VIEW: state.views, STREAM: state.sources,
        TRAINING_SET: state.training_sets, FEATURE_SET: state.feature_sets, MODEL: state.models,
    }  # fmt: skip
    if kind is not None and kind not in things:
        raise UsageError(
            "The catalog has no such kind.", found=repr(kind), remedy=", ".join(things)
        )
    owner = name if name in state.groups else state.owners.get(name)
    if owner is not None and kind in (None, GROUP):
        return GROUP, owner
    for other, known in things.items():
        if name in known and kind in (None, other):
            return other, name
    names = {*state.owners, *(n for k, t in things.items() if kind in (None, k) for n in t)}
    raise unknown_name(kind or "feature, view, stream or training set", name, names)


def _check_seen(name: str, notes: Notes, seen: str | None, *, lost: bool) -> None:
    now = "" if notes.changed_at is None else notes.changed_at.isoformat()
    if lost or (seen is not None and seen != now):
        raise ConflictError(
            f"{name!r} was changed by somebody else meanwhile.",
            found=f"{notes.changed_by}, {notes.changed_at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{notes.history[-1].text if notes.history else ''}",
            remedy="look at what they did, then edit again",
        )


def _checked(text: str, what: str) -> str:
    if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
        raise UsageError(
            f"{what} is a text of at most {TEXT_CHARS_MAX:,} characters.",
            found=f"{len(text):,}" if isinstance(text, str) else type(text).__name__,
            remedy="a sentence",
        )
    return text.strip()


def _tags(tags: Sequence[str]) -> list[str]:
    found = [t.strip() for t in (tags.split(",") if isinstance(tags, str) else tags)]
    for tag in found:
        if not tag or len(tag) > TAG_CHARS_MAX or "," in tag or not tag.isprintable():
            raise UsageError(
                f"A tag is a short text without commas, of at most {TAG_CHARS_MAX} characters.",
                found=repr(tag)[:120], remedy="reading",
            )  # fmt: skip
    return found


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _label(version: int | str) -> str:
    text = str(version).strip()
    return DRAFT if text == DRAFT else f"v{text.removeprefix('v')}"


def _labelled(group: Group, label: str) -> AnyDefinition:
    if label == DRAFT:
        if group.draft is None:
            raise UsageError(
                f"{group.name!r} has no draft.",
                found=", ".join(f"v{v.number}" for v in group.versions), remedy="two of them",
            )  # fmt: skip
        return group.draft
    number = label.removeprefix("v")
    if not (number.isascii() and number.isdecimal()):
        raise UsageError("A version is a number.", found=repr(label), remedy="1, 2 or draft")
    return group.version(int(number)).definition


def _version_lines(group: Group) -> Iterable[VersionLine]:
    if group.draft is not None:
        yield VersionLine(DRAFT, DRAFT, group.draft.fingerprint, group.actor, group.at)
    for v in reversed(group.versions):
        is_serving = group.serving is not None and group.serving.number == v.number
        state = "serves" if is_serving else "wanted" if v.number == group.wanted else "kept"
        state = "retired" if v.retired else state
        yield VersionLine(f"v{v.number}", state, v.fingerprint, v.actor, v.at)
