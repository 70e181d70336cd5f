"""What a feature group's author wrote, and what that means: the definitions. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.compute.composed import stream_from_dict
from fs_notebook.language.derived import DerivedPlan, is_derived
from fs_notebook.language.pinning import Pin
from fs_notebook.language.plan import Plan
from fs_notebook.log.protocol import Stream


@dataclass(frozen=True)
class Definition:
    """A feature group as its author wrote it, and what that means.

    `text` is the definition, kept as text; `source` is the stream's declaration that it was
    compiled against; `plan` is what it means and `plan.fingerprint` its identity; `cell` is the
    whole notebook cell it came from, if it came from one.
    """

    name: str
    text: str
    plan: Plan
    source: Stream
    language: str = "sql"
    options: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    cell: str | None = None
    joined: tuple[Stream, ...] = ()
    """The declarations of the streams that `plan.joins` names."""

    def __repr__(self) -> str:
        features = ", ".join(f"{o.name} {o.type}" for o in self.plan.outputs)
        return f"{self.name} by {', '.join(self.plan.entity)}: {features} ({self.fingerprint[:12]})"

    @property
    def fingerprint(self) -> str:
        return self.plan.fingerprint

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The statistics and embedders' versions that its plan was given as constants."""
        return tuple(Pin.from_dict(p) for p in self.options.get("pinned", ()))

    @property
    def shard(self) -> str:
        """The name of its state in the online store."""
        return f"{self.name}@{self.fingerprint[:16]}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "text": self.text,
            "plan": self.plan.to_dict(),
            "source": self.source.to_dict(),
            "language": self.language,
            "options": dict(self.options),
            "owner": self.owner,
            "description": self.description,
            "tags": list(self.tags),
            "cell": self.cell,
            "joined": [s.to_dict() for s in self.joined],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Definition:
        return cls(
            name=data["name"],
            text=data["text"],
            plan=Plan.from_dict(data["plan"]),
            source=stream_from_dict(data["source"]),
            language=data["language"],
            options=data["options"],
            owner=data["owner"],
            description=data["description"],
            tags=tuple(data["tags"]),
            cell=data["cell"],
            joined=tuple(Stream.from_dict(s) for s in data.get("joined", ())),
        )


@dataclass(frozen=True)
class DerivedDefinition:
    """A derived feature group as its author wrote it, and what that means.

    `inputs` are the very definitions that its plan pins, one for each group and fingerprint: what
    a derived version means does not change with what becomes of those groups.
    """

    name: str
    text: str
    plan: DerivedPlan
    inputs: tuple[Definition, ...]
    language: str = "sql"
    options: Mapping[str, Any] = field(default_factory=dict)
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    cell: str | None = None
    origins: tuple[str, ...] = ()
    """The groups that FROM names: derived ones are flattened in the plan."""

    def __repr__(self) -> str:
        features = ", ".join(f"{o.name} {o.type}" for o in self.plan.outputs)
        return f"{self.name} by {', '.join(self.plan.entity)}: {features} ({self.fingerprint[:12]})"

    @property
    def fingerprint(self) -> str:
        return self.plan.fingerprint

    @property
    def shard(self) -> str:
        """Its name beside the shards of stored versions; nothing is stored under it."""
        return f"{self.name}@{self.fingerprint[:16]}"

    def input(self, group: str, fingerprint: str) -> Definition:
        """Return the pinned definition that one of the plan's inputs means."""
        return next(d for d in self.inputs if (d.name, d.fingerprint) == (group, fingerprint))

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "text": self.text,
            "plan": self.plan.to_dict(),
            "inputs": [d.to_dict() for d in self.inputs],
            "language": self.language,
            "options": dict(self.options),
            "owner": self.owner,
            "description": self.description,
            "tags": list(self.tags),
            "cell": self.cell,
            "origins": list(self.origins),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DerivedDefinition:
        return cls(
            name=data["name"],
            text=data["text"],
            plan=DerivedPlan.from_dict(data["plan"]),
            inputs=tuple(Definition.from_dict(d) for d in data["inputs"]),
            language=data["language"],
            options=data["options"],
            owner=data["owner"],
            description=data["description"],
            tags=tuple(data["tags"]),
            cell=data["cell"],
            origins=tuple(data["origins"]),
        )


AnyDefinition = Definition | DerivedDefinition


def definition_of(data: Mapping[str, Any]) -> AnyDefinition:
    """Return the definition that `to_dict` of either kind wrote."""
    kind = DerivedDefinition if is_derived(data["plan"]) else Definition
    return kind.from_dict(data)
