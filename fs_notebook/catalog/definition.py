"""What a feature group's author wrote, and what that means: the definitions. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self, cast

from fs_notebook.catalog.stored import Facts, Stored, deferred
from fs_notebook.language.derived import DerivedPlan, is_derived
from fs_notebook.language.pinning import Pin
from fs_notebook.language.plan import Plan
from fs_notebook.language.sources import streams_of
from fs_notebook.log.protocol import Stream


class _Stated:
    """What both kinds of definitions say of themselves without a look at their plan."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the plan says, 64 hexadecimal digits: the version's identity."""
        plan = vars(self)["plan"]
        return str(plan.fingerprint() if isinstance(plan, Stored) else plan.fingerprint)

    @property
    def facts(self) -> Facts:
        """What lists and searches read of it."""
        plan = vars(self)["plan"]
        return plan.facts if isinstance(plan, Stored) else self._facts(plan)

    def _facts(self, plan: Any) -> Facts:
        raise NotImplementedError

    def saying(self, words: Mapping[str, Any]) -> Self:
        """Return the same definition with other words; what was not decoded yet stays so."""
        given = {f.name: vars(self)[f.name] for f in fields(cast(Any, self))}
        return type(self)(**{**given, **words})


def _facts(plan: Plan | DerivedPlan, streams: Iterable[str], joined: Iterable[str]) -> Facts:
    types = tuple(o.type.value for o in plan.outputs)
    return Facts(plan.entity, plan.features, types, tuple(streams), tuple(joined))


@deferred("plan", "source", "joined")
@dataclass(frozen=True)
class Definition(_Stated):
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

    def _facts(self, plan: Any) -> Facts:
        streams = dict.fromkeys(streams_of(self.source.name))
        return _facts(plan, streams, [s.name for s in self.joined])

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


@deferred("plan")
@dataclass(frozen=True)
class DerivedDefinition(_Stated):
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

    def _facts(self, plan: Any) -> Facts:
        return _facts(plan, sorted({s for d in self.inputs for s in d.facts.streams}), ())

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


AnyDefinition = Definition | DerivedDefinition


def definition_of(
    data: Mapping[str, Any],
    *,
    body: str | Mapping[str, Any] | None = None,
    path: tuple[str | int, ...] = (),
) -> AnyDefinition:
    """Return the definition that `to_dict` of either kind wrote; its plan is decoded when read.

    Parameters
    ----------
    body, path
        What holds `data`, and the steps to it there; default: `data` itself. A text needs less
        memory until it is decoded.
    """
    body = data if body is None else body
    stored: Any = Stored(data["name"], body, path, Facts.of(data))
    said: dict[str, Any] = {
        "name": data["name"], "text": data["text"], "plan": stored, "language": data["language"],
        "options": data["options"], "owner": data["owner"], "description": data["description"],
        "tags": tuple(data["tags"]), "cell": data["cell"],
    }  # fmt: skip
    if not is_derived(data["plan"]):
        return Definition(**said, source=stored, joined=stored)
    inputs = [
        definition_of(one, body=body, path=(*path, "inputs", n))
        for n, one in enumerate(data["inputs"])
    ]
    return DerivedDefinition(
        **said, inputs=cast("tuple[Definition, ...]", tuple(inputs)), origins=tuple(data["origins"])
    )
