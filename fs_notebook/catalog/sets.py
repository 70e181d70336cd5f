"""Feature sets and models in the catalog: lists of pinned features, and who learnt of them. No I/O.

A set's version never changes: another list under the same name is the next version. A model is
metadata alone: a name, the set that it is served with, and the training set that it learnt of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fs_notebook.catalog.recipes import TRAINED, SavedTrainingSet, saved_of
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.online.board import SET

SET_DEFINED, SET_RETIRED = "set_defined", "set_retired"
MODEL_REGISTERED, MODEL_REMOVED = "model_registered", "model_removed"
TRAINING_RENAMED, TRAINING_DELETED = "training_set_renamed", "training_set_deleted"
KEPT = frozenset({
    TRAINED, TRAINING_RENAMED, TRAINING_DELETED, SET_DEFINED, SET_RETIRED, MODEL_REGISTERED,
    MODEL_REMOVED,
})  # fmt: skip

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Member:
    """A feature of a version, in a set.

    `column` is what it is called in training sets and where it is served: ``total_readtime@2``.
    """

    group: str
    version: int
    feature: str
    fingerprint: str

    @property
    def column(self) -> str:
        return f"{self.feature}@{self.version}"

    def to_dict(self) -> dict[str, Any]:
        return {"group": self.group, "version": self.version, "feature": self.feature,
                "fingerprint": self.fingerprint}  # fmt: skip


@dataclass(frozen=True)
class SetVersion:
    """A version of a feature set. Immutable, but for its retirement."""

    number: int
    members: tuple[Member, ...]
    description: str | None
    owner: str | None
    actor: str
    at: datetime
    retired: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What its features are called, in order."""
        return tuple(m.column for m in self.members)

    @property
    def says(self) -> tuple[object, ...]:
        """All that its author said: two versions that say the same are one."""
        return self.members, self.description, self.owner


@dataclass(frozen=True)
class FeatureSet:
    """A feature set: its versions, numbered from 1."""

    name: str
    versions: tuple[SetVersion, ...] = ()

    @property
    def kept(self) -> tuple[SetVersion, ...]:
        """The versions that are not retired."""
        return tuple(v for v in self.versions if not v.retired)

    def version(self, number: int | None = None) -> SetVersion:
        """Return a version that is not retired; the newest one, if none is said.

        Raises
        ------
        UnknownName
            If there is none of that number.
        UsageError
            If it is retired.
        """
        chosen = next((v for v in self.versions if v.number == number), None)
        if number is None:
            chosen = self.kept[-1] if self.kept else self.versions[-1]
        if chosen is None:
            numbers = [str(v.number) for v in self.versions]
            raise unknown_name(f"version of the set {self.name!r}", str(number), numbers)
        if chosen.retired:
            left = ", ".join(f"v{v.number}" for v in self.kept)
            raise UsageError(
                f"Version {chosen.number} of the set {self.name!r} is retired.",
                found=f"kept: {left}" if left else "none is kept",
                remedy=f"fs.feature_set({self.name!r}, […]) makes the next version",
            )
        return chosen


@dataclass(frozen=True)
class Model:
    """A model that somebody registered: what it is served with, and what it learnt of.

    Attributes
    ----------
    set, set_version
        Its feature set, if it has one.
    training_set
        The name of a saved training set, if it is known.
    """

    name: str
    set: str | None
    set_version: int | None
    training_set: str | None
    description: str | None
    owner: str | None
    actor: str
    at: datetime

    @property
    def says(self) -> tuple[object, ...]:
        """All that its author said."""
        return self.set, self.set_version, self.training_set, self.description, self.owner


@dataclass(frozen=True)
class Kept:
    """What people keep in the catalog beside features, each by name."""

    training_sets: Mapping[str, SavedTrainingSet] = field(default_factory=dict)
    feature_sets: Mapping[str, FeatureSet] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)


def keep(
    kept: Kept, kind: str, name: str, body: Mapping[str, Any], actor: str, at: datetime
) -> Kept:
    """Return what is kept after one event of the catalog."""
    trained, sets, models = dict(kept.training_sets), dict(kept.feature_sets), dict(kept.models)
    if kind == TRAINED:
        trained[name] = saved_of(body, actor, at)
    elif kind == TRAINING_DELETED:
        trained.pop(name, None)
    elif kind == TRAINING_RENAMED and name in trained:
        saved, to = trained.pop(name), str(body["to"])
        trained[to] = replace(saved, recipe=replace(saved.recipe, name=to))
        models = {
            n: replace(m, training_set=to) if m.training_set == name else m
            for n, m in models.items()
        }
    elif kind == SET_DEFINED:
        known = sets.get(name, FeatureSet(name))
        members = tuple(Member(**m) for m in body["members"])
        made = SetVersion(
            len(known.versions) + 1, members, body.get("description"), body.get("owner"), actor, at
        )
        sets[name] = replace(known, versions=(*known.versions, made))
    elif kind == SET_RETIRED and name in sets:
        number = body["version"]
        versions = tuple(
            replace(v, retired=True) if number in (None, v.number) else v
            for v in sets[name].versions
        )
        sets[name] = replace(sets[name], versions=versions)
    elif kind == MODEL_REGISTERED:
        models[name] = Model(
            name, body["set"], body["set_version"], body["training_set"], body.get("description"),
            body.get("owner"), actor, at,
        )  # fmt: skip
    elif kind == MODEL_REMOVED:
        models.pop(name, None)
    return Kept(trained, sets, models)


def parse_set(asked: str) -> tuple[str, int | None]:
    """Return a set's name and version of ``set:ranker@2``, ``ranker@2`` or ``ranker``."""
    name, pin, number = asked.removeprefix(SET).partition("@")
    if pin and not (number.isascii() and number.isdecimal()):
        raise UsageError("A version is a number.", found=asked, remedy=f"{SET}{name}@1")
    return name, int(number) if pin else None


def check_model_name(name: str) -> str:
    """Return `name` if a model can be called so."""
    if not isinstance(name, str) or not _MODEL.fullmatch(name):
        raise UsageError(
            "A model's name has letters, digits, '_', '-' and '.', at most 100 of them.",
            found=repr(name)[:120], remedy="ranker-2026",
        )  # fmt: skip
    return name


def difference(before: SetVersion, after: SetVersion) -> tuple[str, ...]:
    """Return what differs between two versions of a set, a line for each change."""
    old = {(m.group, m.feature): m for m in before.members}
    new = {(m.group, m.feature): m for m in after.members}
    lines = [f"- {m.column}" for k, m in old.items() if k not in new]
    lines += [f"+ {m.column}" for k, m in new.items() if k not in old]
    lines += [f"~ {old[k].column} → {m.column}" for k, m in new.items() if k in old and old[k] != m]
    left = [k for k in old if k in new]
    if left != [k for k in new if k in old]:
        lines.append(f"order: {', '.join(after.columns)}")
    for what, was, now in (
        ("description", before.description, after.description),
        ("owner", before.owner, after.owner),
    ):
        if was != now:
            lines.append(f"{what}: {was or 'none'} → {now or 'none'}")
    return tuple(lines)
