"""What names of features mean to a set, and who uses what: sets, models, versions. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fs_notebook.catalog.model import CatalogState, Group, Version
from fs_notebook.catalog.sets import FeatureSet, Member, SetVersion, parse_set
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.online.board import SET


def set_of(state: CatalogState, asked: str) -> tuple[FeatureSet, SetVersion]:
    """Return the set and the version that ``set:ranker`` or ``set:ranker@2`` means.

    Raises
    ------
    UnknownName, UsageError
        If there is no such set or version, or it is retired.
    """
    name, number = parse_set(asked)
    if name not in state.feature_sets:
        raise unknown_name(
            "feature set", name, state.feature_sets,
            remedy=f"fs.feature_set({name!r}, ['feature@1', …]) makes one",
        )  # fmt: skip
    found = state.feature_sets[name]
    return found, found.version(number)


def members_of(state: CatalogState, names: Sequence[str]) -> tuple[Member, ...]:
    """Return the pinned features that names of features, groups, versions and sets mean.

    A name without a version means the one that serves, or else was promoted last.

    Raises
    ------
    UsageError
        If one is named twice, was never promoted, or is retired.
    """
    found: dict[str, Member] = {}
    for asked in names:
        for member in _meant(state, asked):
            if member.column in found:
                raise UsageError(
                    f"The set has {member.column!r} twice.",
                    found=f"of {found[member.column].group!r} and {member.group!r}",
                    remedy="name it once",
                )
            found[member.column] = member
    if not found:
        raise UsageError("A feature set has at least one feature.", remedy="name one")
    return tuple(found.values())


def _meant(state: CatalogState, asked: str) -> Iterator[Member]:
    if asked.startswith(SET):
        yield from set_of(state, asked)[1].members
        return
    name, pin, number = asked.partition("@")
    group = state.group(name)
    if pin:
        if not (number.isascii() and number.isdecimal()):
            raise UsageError("A version is a number.", found=asked, remedy=f"{name}@1")
        version = group.version(int(number))
    else:
        version = _current(group)
    if version.retired:
        kept = ", ".join(f"v{v.number}" for v in group.versions if not v.retired)
        raise UsageError(
            f"Version {version.number} of {group.name!r} is retired.", found=f"kept: {kept}",
            remedy="pin another one, or promote that definition again",
        )  # fmt: skip
    known = version.definition.plan.features
    if name not in known and name != group.name:
        raise unknown_name(f"feature of {group.name}@{version.number}", name, known)
    for feature in [name] if name in known else known:
        yield Member(group.name, version.number, feature, version.fingerprint)


def _current(group: Group) -> Version:
    if group.serving is not None:
        return group.serving
    if group.wanted is None:
        raise UsageError(
            f"{group.name!r} was never promoted, and a set pins versions.", found="a draft",
            remedy=f"%feature promote {group.name}",
        )  # fmt: skip
    return group.version(group.wanted)


def sets_with(state: CatalogState, group: str, number: int | None = None) -> tuple[str, ...]:
    """Return the kept versions of sets that pin a group's version (default: any), as text."""
    return tuple(
        f"set:{one.name}@{version.number}"
        for _, one in sorted(state.feature_sets.items())
        for version in one.kept
        if any(m.group == group and number in (None, m.version) for m in version.members)
    )


def models_with(
    state: CatalogState, *, set: str | None = None, number: int | None = None,
    training_set: str | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Return the models of a set's version (default: any), or of a training set, as text."""
    return tuple(
        f"model:{name}"
        for name, model in sorted(state.models.items())
        if (training_set is not None and model.training_set == training_set)
        or (set is not None and model.set == set and number in (None, model.set_version))
    )
