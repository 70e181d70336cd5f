"""What is served at one generation, compiled, and what names asked for mean in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl

from fs_notebook.compute.fold import Fold
from fs_notebook.errors import UnknownName, UsageError, unknown_name
from fs_notebook.language.derived import is_derived
from fs_notebook.language.plan import Plan
from fs_notebook.online.derived import ReadyDerived, ServedDerived
from fs_notebook.online.protocol import part_shard
from fs_notebook.online.states import StateCodec
from fs_notebook.types import Type

SET = "set:"
"""What the name of a feature set begins with."""

_REQUESTS_MAX = 256
_AHEAD = 2
"""What stands in a value's head before its features: newest, valid until."""


@dataclass(frozen=True)
class Served:
    """A serving record: one group's version, as published in the store.

    `version` is None where it is read for a derived feature that pins it.
    """

    group: str
    version: int | None
    fingerprint: str
    shard: str
    plan: Plan
    columns: tuple[str, ...]
    """What the key's parts are called in the source; also understood as entity names."""
    partitions: int | None = None
    """How many shards hold the state, one a partition; None: it is in one."""
    notice: str | None = None
    """What whoever reads it should know: that it is deprecated."""

    @property
    def shards(self) -> tuple[str, ...]:
        """The shards that an entity's state may lie in."""
        if self.partitions is None:
            return (self.shard,)
        return tuple(part_shard(self.shard, n) for n in range(self.partitions))

    @classmethod
    def from_record(cls, group: str, record: Mapping[str, Any]) -> Served:
        return cls(
            group=group,
            version=None if record["version"] is None else int(record["version"]),
            fingerprint=record["fingerprint"],
            shard=record["shard"],
            plan=Plan.from_dict(record["plan"]),
            columns=tuple(record["columns"]),
            partitions=record.get("partitions"),
            notice=record.get("notice"),
        )

    def to_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "version": self.version,
            "fingerprint": self.fingerprint,
            "shard": self.shard,
            "plan": self.plan.to_dict(),
            "columns": list(self.columns),
        }
        record |= {} if self.partitions is None else {"partitions": self.partitions}
        return record if self.notice is None else record | {"notice": self.notice}


AnyServed = Served | ServedDerived


def _meaning(served: Served) -> tuple[object, ...]:
    return served.plan, served.columns, served.partitions


def pinned_name(group: str, version: int) -> str:
    """Return the name under which a version's own record is published, and may be asked for."""
    return f"{group}@{version}"


@dataclass(frozen=True, eq=False)
class Ready:
    """A served version, compiled. Hashed by identity: comparing plans would cost a read its time.

    The values of an entity are a list: the newest event's time, until when they hold, and one value
    a feature.
    """

    served: Served
    fold: Fold
    codec: StateCodec
    types: Mapping[str, Type]

    @classmethod
    def of(cls, served: Served) -> Ready:
        fold = Fold(served.plan)
        types = {o.name: o.type for o in served.plan.outputs}
        return cls(served, fold, StateCodec(fold), types)

    @cached_property
    def empty(self) -> list[Any]:
        """What an entity has that has no events; made when first asked for, since it may fail."""
        values = self.fold.empty_values()
        return [None, None, *(values[n] for n in self.served.plan.features)]

    @cached_property
    def packed(self) -> tuple[tuple[int, Type], ...]:
        """The places of features that are stored otherwise than they are: times and decimals."""
        types = self.types.values()
        return tuple(
            (i, t) for i, t in enumerate(types, _AHEAD) if t.holds_temporal or t.holds_decimal
        )

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """The shards that it is read from."""
        return self.served.shards

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Feature → its place in an entity's values."""
        return {n: i for i, n in enumerate(self.served.plan.features, _AHEAD)}


@dataclass(frozen=True)
class Read:
    """A version to be read. `entity` is what the request calls its key, None: as the key itself."""

    ready: Ready
    entity: tuple[str, ...] | None = None


class Stored(NamedTuple):
    """A version to be read: what is shown of it, each with its place in an entity's values.

    `owners` are the names that the version was asked for by.
    """

    read: Read
    shown: tuple[tuple[str, int], ...]
    owners: frozenset[str]


@dataclass(frozen=True)
class Part:
    """One part of a key: the entity that gives it, and its type."""

    column: str
    type: Type


@dataclass(frozen=True, eq=False)
class Wanted:
    """What was asked for, looked up: features by version, and all of them in the order asked.

    Attributes
    ----------
    reads
        What is read, and which of its features are shown: (shown as, feature). Of what is read
        for a derived feature only, none is.
    derived, inputs
        The same for derived versions, and what each of them reads.
    features, schema
        All that is shown, and its types in Polars.
    owners
        What is shown → the name of its version among those that were asked for.
    versions
        That name → the version's number.
    notices
        What whoever reads these should know.
    """

    reads: Mapping[Read, Sequence[tuple[str, str]]]
    derived: Mapping[ReadyDerived, Sequence[tuple[str, str]]]
    inputs: Mapping[ReadyDerived, Sequence[Read]]
    features: tuple[str, ...]
    schema: Mapping[str, pl.DataType]
    owners: Mapping[str, str]
    versions: Mapping[str, int]
    notices: tuple[str, ...] = ()
    _parts: dict[tuple[str, ...], tuple[tuple[Part, ...], ...]] = field(default_factory=dict)

    @cached_property
    def owners_of(self) -> Mapping[Read | ReadyDerived, frozenset[str]]:
        """What is read or derived → the names that it was asked for by."""
        found: dict[Read | ReadyDerived, frozenset[str]] = {}
        for read, shown in self.reads.items():
            found[read] = frozenset(self.owners[column] for column, _ in shown)
        for ready, shown in self.derived.items():
            found[ready] = frozenset(self.owners[column] for column, _ in shown)
        return found

    @cached_property
    def stored(self) -> tuple[Stored, ...]:
        """What is read, in order."""
        return tuple(
            Stored(read, tuple((c, read.ready.places[f]) for c, f in shown), self.owners_of[read])
            for read, shown in self.reads.items()
        )

    @cached_property
    def in_order(self) -> bool:
        """Whether what is shown is read in the order that it was asked for."""
        return self.features == tuple(column for one in self.stored for column, _ in one.shown)

    def parts(self, columns: tuple[str, ...]) -> tuple[tuple[Part, ...], ...]:
        """Return the parts of each read's key, where these entities are given.

        Raises
        ------
        UsageError
            If an entity is missing, or one is of nothing that was asked for.
        """
        known = self._parts.get(columns)
        if known is None:
            if len(self._parts) >= _REQUESTS_MAX:
                self._parts.clear()
            known = self._parts[columns] = self._matched(columns)
        return known

    def _matched(self, columns: tuple[str, ...]) -> tuple[tuple[Part, ...], ...]:
        used: set[str] = set()
        for derived in self.derived:
            for name in derived.served.plan.entity:
                if name not in columns:
                    raise _no_entity(derived.served, name, columns)
                used.add(name)
        found = []
        for read in self.reads:
            served, parts = read.ready.served, []
            names = read.entity or served.plan.entity
            # A key that a derived feature calls otherwise is not looked for by its own name.
            others = served.columns if read.entity is None else names
            for key, name, column in zip(served.plan.keys, names, others, strict=True):
                name = name if name in columns else column
                if name not in columns:
                    raise _no_entity(served, key.name, columns)
                used.add(name)
                parts.append(Part(name, key.expr.type))
            found.append(tuple(parts))
        if unused := set(columns) - used:
            raise UsageError(
                f"No asked feature is of {', '.join(sorted(unused))}.",
                found=", ".join(columns),
                remedy="leave it out",
            )
        return tuple(found)


def _no_entity(served: AnyServed, name: str, columns: Sequence[str]) -> UsageError:
    return UsageError(
        f"{served.group!r} is a feature of {' and '.join(served.plan.entity)}.",
        found=", ".join(columns) or "no entity",
        remedy=f"serve([…], {name}=[…])",
    )


class Board:
    """All that is served at one generation.

    Parameters
    ----------
    generation
        The store's serving generation.
    records
        Published name → record: of each group the version that serves, and under `pinned_name`
        each version that is kept current.
    former
        What was served before; what of it is the same is taken over, compiled.
    """

    def __init__(
        self,
        generation: int,
        records: Mapping[str, Mapping[str, Any]],
        former: Board | None = None,
    ) -> None:
        self.generation = generation
        self._former = {} if former is None else former._ready
        self._former_derived = {} if former is None else former._ready_derived
        self._ready: dict[str, Ready] = {}
        self._ready_derived: dict[tuple[str, int], ReadyDerived] = {}
        self._wanted: dict[tuple[str, ...], Wanted] = {}
        self.versions: dict[str, dict[int, Mapping[str, Any]]] = {}
        """Group → number → the record of a version that can be read."""
        self.groups: dict[str, Ready | ReadyDerived] = {}
        """Group → the version of it that serves."""
        self.serving: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.notices: dict[str, str] = {}
        """Group → what whoever reads it should know; compiled versions may be of before it."""
        self.sets: dict[str, Sequence[Sequence[str]]] = {}
        """Feature set, of a version or the newest → the version and the name of each feature."""
        for name, record in records.items():
            if name.startswith(SET):
                self.sets[name] = record["members"]
                continue
            group, pin, _ = name.partition("@")
            self.versions.setdefault(group, {})[int(record["version"])] = record
            if record.get("notice"):
                self.notices[group] = str(record["notice"])
            if not pin:
                self.groups[group] = ready = self._made_ready(group, record)
                self.serving[group] = int(record["version"])
                self.owners |= dict.fromkeys(ready.served.plan.features, group)

    def _made_ready(self, group: str, record: Mapping[str, Any]) -> Ready | ReadyDerived:
        """Return a version compiled; one that is both pinned and serving is compiled once."""
        if is_derived(record["plan"]):
            served = ServedDerived.from_record(group, record)
            place = (group, served.version)
            known = self._ready_derived.get(place) or self._former_derived.get(place)
            if known is None or known.served != served:
                known = ReadyDerived(served)
            self._ready_derived[place] = known
            return known
        return self._stored(Served.from_record(group, record))

    def _stored(self, served: Served) -> Ready:
        here = self._ready.get(served.shard)
        if here is not None:
            return here
        known = self._former.get(served.shard)
        if known is None or _meaning(known.served) != _meaning(served):
            known = Ready.of(served)
        self._ready[served.shard] = known
        return known

    def resolve(self, asked: Sequence[str]) -> Wanted:
        """Return what names of features, groups and versions (``reading@2``) mean.

        Raises
        ------
        UnknownName
            If nothing of that name is served, or not that version.
        """
        names = tuple(asked)
        known = self._wanted.get(names)
        if known is None:
            if not names:
                raise UsageError("No feature was asked for.", remedy="name at least one")
            if len(self._wanted) >= _REQUESTS_MAX:
                self._wanted.clear()
            known = self._wanted[names] = self._looked_up(names)
        return known

    def _looked_up(self, asked: tuple[str, ...]) -> Wanted:
        reads: dict[Read, list[tuple[str, str]]] = {}
        derived: dict[ReadyDerived, list[tuple[str, str]]] = {}
        owners: dict[str, str] = {}
        types: dict[str, pl.DataType] = {}
        versions: dict[str, int] = {}
        ranked: dict[str, int] = {}
        for rank, (name, (owner, ready, features)) in enumerate(self._all_meant(asked)):
            group, pin, number = owner.partition("@")
            suffix = pin + number
            versions[owner] = int(number) if pin else self.serving[group]
            if isinstance(ready, ReadyDerived):
                shown = derived.setdefault(ready, [])
            else:
                shown = reads.setdefault(Read(ready), [])
            for feature in features:
                column = feature + suffix
                if name == column:
                    ranked[column] = min(rank, ranked.get(column, rank))
                if column not in owners:
                    shown.append((column, feature))
                    owners[column], types[column] = owner, ready.types[feature].polars
        last = len(ranked) + rank + 1
        order = sorted(owners, key=lambda n: ranked.get(n, last))
        inputs = {ready: self._inputs(ready) for ready in derived}
        for needed in inputs.values():
            for read in needed:
                reads.setdefault(read, [])
        schema = {n: types[n] for n in order}
        groups = dict.fromkeys(owner.partition("@")[0] for owner in versions)
        notices = tuple(self.notices[g] for g in groups if g in self.notices)
        return Wanted(reads, derived, inputs, tuple(order), schema, owners, versions, notices)

    def _all_meant(
        self, asked: Sequence[str]
    ) -> Iterator[tuple[str, tuple[str, Ready | ReadyDerived, Sequence[str]]]]:
        """Yield what each name means; the features of a set one after the other."""
        for name in asked:
            if not name.startswith(SET):
                yield name, self._meant(name)
                continue
            if name not in self.sets:
                raise unknown_name(
                    "feature set", name.removeprefix(SET),
                    [n.removeprefix(SET) for n in self.sets],
                )  # fmt: skip
            for owner, feature in self.sets[name]:
                group, _, number = owner.partition("@")
                record = self.versions.get(group, {}).get(int(number))
                if record is None:
                    raise UnknownName(
                        f"Version {number} of {group!r}, which {name!r} pins, is not served.",
                        remedy=f"%feature status {group} tells whether its worker has caught up",
                    )
                ready = self._made_ready(group, record)
                yield f"{feature}@{number}", (owner, ready, [feature])

    def _meant(self, name: str) -> tuple[str, Ready | ReadyDerived, Sequence[str]]:
        """Return the published name of a version, the version, and which features are meant."""
        base, pin, number = name.partition("@")
        if pin:
            return self._pinned(base, number, name)
        group = self.owners.get(name, name)
        ready = self.groups.get(group)
        if ready is None:
            served = [*self.owners, *self.groups]
            raise unknown_name("served feature", name, served, remedy=f"%feature promote {name}")
        mine = [name] if name in self.owners else list(ready.served.plan.features)
        return group, ready, mine

    def _pinned(
        self, base: str, number: str, asked: str
    ) -> tuple[str, Ready | ReadyDerived, Sequence[str]]:
        if not (number.isascii() and number.isdecimal()):
            raise UsageError("A version is a number.", found=repr(asked), remedy=f"{base}@1")
        kept: list[int] = []
        for group, records in self.versions.items():
            for version, record in sorted(records.items()):
                features = [str(o[0]) for o in record["plan"]["outputs"]]
                if base != group and base not in features:
                    continue
                if version == int(number):
                    ready = self._made_ready(group, record)
                    mine = [base] if base in features else features
                    return pinned_name(group, version), ready, mine
                kept.append(version)
        if not kept:
            known = [*self.owners, *self.groups]
            raise unknown_name("served feature", base, known, remedy=f"%feature promote {base}")
        now = self.serving.get(self.owners.get(base, base))
        shown = [f"v{n}{' (serving)' * (n == now)}" for n in sorted(kept)]
        raise UnknownName(
            f"Version {number} of {base!r} is not served.",
            found=f"served: {', '.join(shown)}",
            remedy=f"ask for {' or '.join(pinned_name(base, n) for n in sorted(kept))}, "
            f"or promote that version again",
        )

    def _inputs(self, derived: ReadyDerived) -> list[Read]:
        """Return the pinned versions that a derived version reads, in the order of its inputs."""
        served = derived.served
        reads = []
        for given, record in zip(served.plan.inputs, served.inputs, strict=True):
            ready = self._stored(Served.from_record(given.group, record))
            own = ready.served.plan.entity == given.keys
            # Asked for beside the derived one and by the same names it is read once.
            reads.append(Read(ready, None if own else given.keys))
        return reads

    def kept(self) -> Iterator[tuple[str, int, AnyServed]]:
        """Yield group, number and record of each version that can be read."""
        for group, records in sorted(self.versions.items()):
            for number, record in sorted(records.items()):
                yield group, number, self._made_ready(group, record).served
