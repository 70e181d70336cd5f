"""What is said of a thing in the catalog beside what it means: words, history, deprecation.

The words (owner, description, tags) of a feature group are those that its cell says, until
somebody edits them; an edit stands until the cell itself says something else than before. None of
them makes a version. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fs_notebook.catalog.stored import changed
from fs_notebook.errors import plain
from fs_notebook.origins import Origin

ANNOTATED, DEPRECATED = "annotated", "deprecated"
GROUP, STREAM, VIEW, TRAINING_SET = "group", "stream", "view", "training set"
FEATURE_SET, MODEL = "feature set", "model"
HISTORY_MAX = 100
WORDS = ("owner", "description", "tags")

# What an event is about where it does not say so itself.
_KINDS = {
    "declared": STREAM, "uploaded": STREAM, "viewed": VIEW, "trained": TRAINING_SET,
    "training_set_renamed": TRAINING_SET, "training_set_deleted": TRAINING_SET,
    "set_defined": FEATURE_SET, "set_retired": FEATURE_SET, "model_registered": MODEL,
    "model_removed": MODEL,
}  # fmt: skip
# What the background processes and measurements note is no change by somebody.
_NOTED_ONLY = ("live", "validated")


@dataclass(frozen=True)
class Words:
    """Who answers for a thing, what it is in a sentence, and its tags."""

    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Any) -> Words:
        """Return the words of a definition, or of a mapping that has some of them."""
        if isinstance(said, Mapping):
            tags = tuple(map(str, said.get("tags") or ()))
            return cls(said.get("owner"), said.get("description"), tags)
        return cls(said.owner, said.description, tuple(said.tags))

    def to_dict(self) -> dict[str, Any]:
        """Return them by name, as arguments of `replace`."""
        return {name: getattr(self, name) for name in WORDS}


@dataclass(frozen=True)
class Deprecation:
    """That a thing should not be used any more: why, what instead, who said so and when."""

    reason: str | None
    instead: str | None
    actor: str
    at: datetime

    def told(self, name: str) -> str:
        """Return the notice that stands wherever the thing is used."""
        why = f": {self.reason}" if self.reason else ""
        use = f"; use {self.instead!r} instead" if self.instead else ""
        return plain(f"{name!r} is deprecated{why}{use} ({self.actor}, {self.at:%Y-%m-%d})")

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "reason": self.reason, "instead": self.instead, "actor": self.actor,
            "at": self.at.isoformat(),
        }  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One line of a thing's history, in plain words."""

    at: datetime
    actor: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """Return it fit for `json.dumps`."""
        return {"at": self.at.isoformat(), "actor": self.actor, "text": self.text}


@dataclass(frozen=True)
class Notes:
    """What the catalog knows of a thing beside what it means.

    Attributes
    ----------
    said
        The words that its definition said last.
    edits
        The words that were edited since: name → value.
    history
        The newest hundred changes, the oldest of them first.
    notebook
        Where the notebook lay whose cell defined it last.
    """

    created_by: str = ""
    created_at: datetime | None = None
    changed_by: str = ""
    changed_at: datetime | None = None
    said: Words | None = None
    edits: Mapping[str, Any] = field(default_factory=dict)
    deprecated: Deprecation | None = None
    history: tuple[Change, ...] = ()
    notebook: Origin | None = None

    @property
    def words(self) -> Words:
        """The words that hold now."""
        said = self.said or Words()
        return replace(said, **self.edits) if self.edits else said

    def repeats(self, words: Words) -> bool:
        """Tell whether a definition with these words says nothing new."""
        return self.said == words


def place_of(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return kind and name of what an event is about."""
    kind = event["body"].get("of") or _KINDS.get(event["kind"], GROUP)
    return kind, event["name"]


def noted(notes: Notes, event: Mapping[str, Any], *, version: int | None = None) -> Notes:
    """Return `notes` after an event.

    Parameters
    ----------
    version
        The number of the group's version that is wanted after it.
    """
    kind, body, actor, at = (event[k] for k in ("kind", "body", "actor", "at"))
    if kind == "uploaded":
        return notes
    line = Change(at, actor, _told(kind, body, version, notes))
    new: dict[str, Any] = {"history": (*notes.history, line)[-HISTORY_MAX:]}
    if notes.created_at is None:
        new |= {"created_by": actor, "created_at": at}
    if kind not in _NOTED_ONLY:
        new |= {"changed_by": actor, "changed_at": at}
    # What is promoted carries the words that hold already.
    if kind == "drafted" or (kind == "promoted" and notes.said is None):
        new |= _said(notes, Words.of(body["definition"]))
        new["notebook"] = Origin.read(body.get("notebook")) or notes.notebook
    elif kind in ("declared", "viewed"):
        new |= _said(notes, Words(description=body.get("description")))
    elif kind in ("set_defined", "model_registered"):
        new |= _said(notes, Words(body.get("owner"), body.get("description")))
    elif kind == ANNOTATED:
        edits = {n: tuple(body[n]) if n == "tags" else body[n] for n in WORDS if n in body}
        new["edits"] = {**notes.edits, **edits}
    elif kind == DEPRECATED:
        undone = bool(body.get("undo"))
        why = None if undone else Deprecation(body.get("reason"), body.get("instead"), actor, at)
        new["deprecated"] = why
    return changed(notes, **new)


def _said(notes: Notes, said: Words) -> dict[str, Any]:
    """Return what is new after a definition said these words: where they differ, edits end."""
    before = notes.said or Words()
    edits = {n: v for n, v in notes.edits.items() if getattr(before, n) == getattr(said, n)}
    return {"said": said, "edits": edits}


def _told(kind: str, body: Mapping[str, Any], version: int | None, before: Notes) -> str:
    match kind:
        case "drafted":
            return "defined" if before.created_at is None else "changed the draft"
        case "promoted" | "live":
            return f"promoted v{version}" if kind == "promoted" else f"v{body['version']} is live"
        case "rolled_back":
            return f"rolled back to v{body['version']}"
        case "retired":
            return f"retired v{body['version']}"
        case "discarded":
            return "discarded the draft"
        case "validated":
            return f"measured its lift: {lift_text(body)}"
        case "annotated":
            return "; ".join(_edited(n, body[n], before.words) for n in WORDS if n in body)
        case "deprecated" if body.get("undo"):
            return "took the deprecation back"
        case "deprecated":
            return f"deprecated: {body.get('reason') or 'no reason given'}"
        case "training_set_renamed":
            return f"renamed it to {body.get('to')}"
        case "set_defined":
            return "made the set" if before.created_at is None else "made its next version"
        case "set_retired":
            number = body.get("version")
            return "retired the set" if number is None else f"retired v{number}"
        case "training_set_deleted" | "model_registered" | "model_removed":
            return kind.rpartition("_")[2]
    return {"trained": "saved"}.get(kind, kind if before.created_at is None else f"{kind} anew")


def lift_text(lift: Mapping[str, Any]) -> str:
    """Return what a recorded lift says: the verdict, the target, and by how much."""
    told = f"{lift.get('verdict', 'no verdict')} for {lift.get('target', 'something')}"
    found = [lift.get(n) for n in ("difference", "low", "high")]
    numbers = [f"{n:+.3g}" for n in found if isinstance(n, (int, float))]
    if len(numbers) == len(found):
        told += f", {lift.get('metric', '')} {numbers[0]} [{numbers[1]}, {numbers[2]}]"
    return told


def _edited(name: str, value: Any, before: Words) -> str:
    if name != "tags":
        return f"{name}: {value}" if value else f"no {name}"
    gone = [f"-{t}" for t in before.tags if t not in value]
    return f"tags {' '.join([*(f'+{t}' for t in value if t not in before.tags), *gone])}"
