"""Feature sets and models as a user holds them: what they are, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from fs_notebook.catalog.model import CatalogState
from fs_notebook.catalog.sets import FeatureSet, Member, Model, SetVersion, difference
from fs_notebook.catalog.usage import models_with
from fs_notebook.errors import UsageError, plain
from fs_notebook.model.card import Table, card, moment
from fs_notebook.online.board import SET


@dataclass(frozen=True)
class PinnedSet:
    """A version of a feature set: pinned features in an order, for training and serving alike.

    Give it where features are asked for, ``fs.training_set(labels, ranker)`` and
    ``fs.serve(ranker, user=…)``, or its name: ``"set:ranker@2"``, ``"set:ranker"`` for the newest.

    Attributes
    ----------
    name, version
        Which it is.
    members, types
        Its features, each of a version, and their types.
    entities
        The entities that its features are of.
    description, owner, actor, at
        What was said of it, by whom and when.
    versions
        The numbers of all versions that are kept.
    changes
        What differs from the version before it, a line for each change.
    models
        The registered models that have this version.
    """

    name: str
    version: int
    members: tuple[Member, ...]
    types: tuple[str, ...]
    entities: tuple[str, ...]
    description: str | None
    owner: str | None
    actor: str
    at: datetime
    versions: tuple[int, ...]
    changes: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """Its features' columns, in order: the same in training and in serving."""
        return tuple(m.column for m in self.members)

    @property
    def reference(self) -> str:
        """The name that means this very version: ``set:ranker@2``."""
        return f"{SET}{self.name}@{self.version}"

    def __len__(self) -> int:
        return len(self.members)

    def to_dict(self) -> dict[str, Any]:
        """Return it, fit for `json.dumps`."""
        return {
            "name": self.name, "version": self.version, "versions": list(self.versions),
            "features": [m.to_dict() | {"type": t, "column": m.column}
                         for m, t in zip(self.members, self.types, strict=True)],
            "entity": list(self.entities), "description": self.description, "owner": self.owner,
            "models": list(self.models), "changes": list(self.changes), "actor": self.actor,
            "at": self.at.isoformat(),
        }  # fmt: skip

    def __repr__(self) -> str:
        said = f": {self.description}" if self.description else ""
        owned = f"owned by {self.owner}, " if self.owner else ""
        lines = [
            f"feature set {self.name} v{self.version} by {', '.join(self.entities)}{said}",
            f"{owned}made by {self.actor} at {moment(self.at)} UTC",
        ]
        width = max(len(f) for f in self.features)
        lines += [
            f"  {m.column:<{width}}  {kind:<10}  {m.group} v{m.version} {m.fingerprint[:12]}"
            for m, kind in zip(self.members, self.types, strict=True)
        ]
        if self.changes:
            lines += [f"since v{self.version - 1}:", *(f"  {line}" for line in self.changes)]
        lines.append(f"models: {', '.join(self.models) or 'none yet'}")
        return "\n".join(map(plain, lines))

    def _repr_html_(self) -> str:
        figures = [
            ("version", f"v{self.version}"), ("features", str(len(self))),
            ("entities", ", ".join(self.entities)), ("owner", self.owner or "none"),
            ("made", f"{moment(self.at)} UTC by {self.actor}"),
            ("kept versions", ", ".join(f"v{n}" for n in self.versions)),
            ("models", ", ".join(self.models) or "none yet"),
        ]  # fmt: skip
        rows = [
            (m.column, kind, f"{m.group} v{m.version}", m.fingerprint[:12])
            for m, kind in zip(self.members, self.types, strict=True)
        ]
        tables: list[Table] = [(("feature", "type", "of", "fingerprint"), rows)]
        if self.changes:
            tables.append(
                ((f"changes since v{self.version - 1}",), [(line,) for line in self.changes])
            )
        return card(
            f"Feature set {self.name}", figures, subtitle=self.description or "", tables=tables
        )


@dataclass(frozen=True)
class RegisteredModel:
    """A model in the catalog: metadata alone.

    Attributes
    ----------
    name
        What it is registered as.
    set
        The version of the feature set that it is served with, ``"set:ranker@2"``, if it has one.
    training_set
        The saved training set that it learnt of, if it is known.
    description, owner, actor, at
        What was said of it, by whom and when.
    """

    name: str
    set: str | None
    training_set: str | None
    description: str | None
    owner: str | None
    actor: str
    at: datetime

    @classmethod
    def of(cls, model: Model) -> RegisteredModel:
        """Return the catalog's record as a user sees it."""
        set_ = None if model.set is None else f"{SET}{model.set}@{model.set_version}"
        return cls(
            model.name, set_, model.training_set, model.description, model.owner, model.actor,
            model.at,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return it, fit for `json.dumps`."""
        return asdict(self) | {"at": self.at.isoformat()}

    def __repr__(self) -> str:
        said = f": {self.description}" if self.description else ""
        owned = f", owned by {self.owner}" if self.owner else ""
        lines = [
            f"model {self.name}{said}",
            f"  features: {self.set or 'not said'}",
            f"  training set: {self.training_set or 'not said'}",
            f"  registered by {self.actor} at {moment(self.at)} UTC{owned}",
        ]
        return "\n".join(map(plain, lines))

    def _repr_html_(self) -> str:
        figures = [
            ("features", self.set or "not said"),
            ("training set", self.training_set or "not said"), ("owner", self.owner or "none"),
            ("registered", f"{moment(self.at)} UTC by {self.actor}"),
        ]  # fmt: skip
        return card(f"Model {self.name}", figures, subtitle=self.description or "")


def pinned_set(state: CatalogState, one: FeatureSet, version: SetVersion) -> PinnedSet:
    """Return a set's version as a user sees it."""
    types, entities = [], []
    for member in version.members:
        plan = state.groups[member.group].version(member.version).definition.plan
        types.append(next(o.type.value for o in plan.outputs if o.name == member.feature))
        entities += [e for e in plan.entity if e not in entities]
    former = next((v for v in one.versions if v.number == version.number - 1), None)
    return PinnedSet(
        name=one.name, version=version.number, members=version.members, types=tuple(types),
        entities=tuple(entities), description=version.description, owner=version.owner,
        actor=version.actor, at=version.at, versions=tuple(v.number for v in one.kept),
        changes=() if former is None else difference(former, version),
        models=models_with(state, set=one.name, number=version.number),
    )  # fmt: skip


def names_of(features: str | PinnedSet | Sequence[str | PinnedSet]) -> list[str]:
    """Return the names of features that a user gave, as names or as sets.

    Raises
    ------
    UsageError
        If something else was given.
    """
    given = [features] if isinstance(features, (str, PinnedSet)) else list(features)
    names = [one.reference if isinstance(one, PinnedSet) else one for one in given]
    if odd := [n for n in names if not isinstance(n, str)]:
        raise UsageError(
            "Features are names, or feature sets.", found=type(odd[0]).__name__,
            remedy="'total_readtime', 'total_readtime@2', 'set:ranker'",
        )  # fmt: skip
    return names
