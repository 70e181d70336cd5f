"""Reading features: one round trip, finished at t, each with its status.

Everything a reader needs lies in the store: which version serves, its plan, its values. So an
application reads features without the ledger and without a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, partial
from typing import Any

import polars as pl

from fs_notebook.clock import SYSTEM, Clock, from_us
from fs_notebook.compute.fold import Fold, State
from fs_notebook.compute.requests import check_known
from fs_notebook.errors import UnknownName, UsageError, unknown_name
from fs_notebook.language.derived import is_derived
from fs_notebook.language.plan import Plan
from fs_notebook.online.busy import BusyStates
from fs_notebook.online.codec import pack_key, unpack_value
from fs_notebook.online.derived import ReadyDerived, ServedDerived
from fs_notebook.online.protocol import OnlineStore, part_shard
from fs_notebook.online.states import StateCodec, storage
from fs_notebook.online.vector import FeatureVector
from fs_notebook.types import Type

_REFRESHES_MAX = 3
ENTITIES_MAX = 100_000
_REQUESTS_MAX = 256


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
        )

    def to_record(self) -> dict[str, Any]:
        record = {
            "version": self.version,
            "fingerprint": self.fingerprint,
            "shard": self.shard,
            "plan": self.plan.to_dict(),
            "columns": list(self.columns),
        }
        return record if self.partitions is None else record | {"partitions": self.partitions}


@dataclass(frozen=True, eq=False)
class _Ready:
    """A served group, compiled. Hashed by identity: comparing plans would cost a read its time."""

    served: Served
    fold: Fold
    codec: StateCodec
    types: Mapping[str, Type]

    @cached_property
    def empty(self) -> Mapping[str, Any]:
        """What an entity has that has no events; made when first asked for, since it may fail."""
        return self.fold.empty_values()

    @cached_property
    def packed(self) -> tuple[str, ...]:
        """The features that are stored otherwise than they are: times and decimals."""
        return tuple(n for n, t in self.types.items() if t.holds_temporal or t.holds_decimal)


@dataclass(frozen=True)
class _Read:
    """A group to be read. `entity` is what the request calls its key, None: as the key itself."""

    ready: _Ready
    entity: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What was asked for, looked up: features by group, and all of them in the order asked.

    Of groups that are read for a derived one only, no feature is shown.
    """

    groups: Mapping[_Read, Sequence[str]]
    derived: Mapping[ReadyDerived, Sequence[str]]
    inputs: Mapping[ReadyDerived, Sequence[_Read]]
    features: tuple[str, ...]
    owners: Mapping[str, str]
    schema: Mapping[str, pl.DataType]


class FeatureReader:
    """Reads features from a store.

    Parameters
    ----------
    store
        Where the values are.
    clock
        What time it is; windows end now.
    """

    def __init__(self, store: OnlineStore, *, clock: Clock = SYSTEM) -> None:
        self.store = store
        self.clock = clock
        self._generation = -1
        self._groups: dict[str, _Ready | ReadyDerived] = {}
        self._shards: dict[str, _Ready] = {}
        self._owners: dict[str, str] = {}
        self._busy = BusyStates(store)
        self._resolved: dict[tuple[str, ...], _Wanted] = {}

    def refresh(self) -> None:
        """Fetch what is served; a read does so by itself whenever it has changed."""
        self._generation, records = self.store.published()
        groups: dict[str, _Ready | ReadyDerived] = {}
        owners: dict[str, str] = {}
        former, self._shards = self._shards, {}
        derived: list[ServedDerived] = []
        for group, record in records.items():
            if is_derived(record["plan"]):
                derived.append(ServedDerived.from_record(group, record))
                continue
            groups[group] = ready = self._made_ready(Served.from_record(group, record), former)
            owners |= dict.fromkeys(ready.served.plan.features, group)
        for served in derived:
            for given, pinned in zip(served.plan.inputs, served.inputs, strict=True):
                self._made_ready(Served.from_record(given.group, pinned), former)
            known = self._groups.get(served.group)
            same = isinstance(known, ReadyDerived) and known.served == served
            groups[served.group] = known if known is not None and same else ReadyDerived(served)
            owners |= dict.fromkeys(served.plan.features, served.group)
        self._groups, self._owners, self._resolved = groups, owners, {}

    def _made_ready(self, served: Served, former: Mapping[str, _Ready]) -> _Ready:
        """Return a group's version ready to be read; one that is pinned and serves is one."""
        here = self._shards.get(served.shard)
        if here is not None:
            return here
        known = former.get(served.shard)
        if known is None or known.served != served:
            fold = Fold(served.plan)
            types = {o.name: o.type for o in served.plan.outputs}
            known = _Ready(served, fold, StateCodec(fold), types)
        self._shards[served.shard] = known
        return known

    def served(self) -> list[Served | ServedDerived]:
        """Return what is served now."""
        self.refresh()
        return [ready.served for ready in self._groups.values()]

    def read(
        self,
        features: Sequence[str] | str,
        *,
        request: Mapping[str, Any] | Any = None,
        **entities: Any,
    ) -> FeatureVector:
        """Return features of entities, in one round trip.

        Parameters
        ----------
        features
            Names of features, or of groups (all their features).
        request
            Values of the request that derived features read: name → one value an entity, or a
            single one for all. They may stand beside the entities, if no name is an entity's.
        **entities
            For each part of the key a list of values, all of one length (or a single value).

        Raises
        ------
        UnknownName
            If nothing serves a feature of that name.
        UsageError
            If an entity or a request value is missing, or lists differ in length.
        UnreachableError
            If the store does not answer.
        """
        asked = [features] if isinstance(features, str) else list(features)
        if request is not None and not isinstance(request, Mapping):
            # An entity that is called so.
            entities, request = entities | {"request": request}, None
        if self._generation < 0:
            self.refresh()
        for _ in range(_REFRESHES_MAX):
            try:
                wanted = self._resolve(asked)
            except UnknownName:
                # Perhaps it was promoted a moment ago: look again, once, before saying no.
                self.refresh()
                wanted = self._resolve(asked)
            columns, given = _told_apart(wanted, entities, request or {})
            keys, count = self._keys(wanted, columns)
            requests = [r.requested(n, given, count) for r, n in wanted.derived.items()]
            pairs = zip(wanted.groups, keys, strict=True)
            shards = [(shard, k) for r, k in pairs for shard in r.ready.served.shards]
            current, found = self.store.read(self._generation, shards)
            if current:
                rest = iter(found)
                blobs = [[next(rest) for _ in r.ready.served.shards] for r in wanted.groups]
                return self._finish(wanted, columns, count, keys, blobs, requests)
            self.refresh()
        raise UsageError(
            "What is served changes faster than it can be read.",
            remedy="read again once the promotions have settled",
        )

    def _resolve(self, asked: Sequence[str]) -> _Wanted:
        known = self._resolved.get(tuple(asked))
        if known is not None:
            return known
        groups: dict[_Read, list[str]] = {}
        derived: dict[ReadyDerived, list[str]] = {}
        if not asked:
            raise UsageError("No feature was asked for.", remedy="name at least one")
        for name in asked:
            group = self._owners.get(name, name)
            ready = self._groups.get(group)
            if ready is None:
                served = [*self._owners, *self._groups]
                remedy = f"%feature promote {name}"
                raise unknown_name("served feature", name, served, remedy=remedy)
            mine = [name] if name in self._owners else list(ready.served.plan.features)
            if isinstance(ready, ReadyDerived):
                names = derived.setdefault(ready, [])
            else:
                names = groups.setdefault(_Read(ready), [])
            names += [n for n in mine if n not in names]
        shown: list[tuple[_Ready | ReadyDerived, list[str]]] = [
            *((r.ready, n) for r, n in groups.items()), *derived.items()
        ]  # fmt: skip
        owners = {n: ready.served.group for ready, names in shown for n in names}
        ranked = {n: i for i, n in enumerate(asked)}
        order = sorted(owners, key=lambda n: ranked.get(n, len(ranked)))
        types = {n: ready.types[n].polars for ready, names in shown for n in names}
        inputs = {ready: self._inputs(ready) for ready in derived}
        for reads in inputs.values():
            for read in reads:
                groups.setdefault(read, [])
        schema = {n: types[n] for n in order}
        wanted = _Wanted(groups, derived, inputs, tuple(order), owners, schema)
        if len(self._resolved) >= _REQUESTS_MAX:
            self._resolved = {}
        self._resolved[tuple(asked)] = wanted
        return wanted

    def _inputs(self, derived: ReadyDerived) -> list[_Read]:
        """Return the pinned versions that a derived group reads, in the order of its inputs."""
        served = derived.served
        reads = []
        for given, record in zip(served.plan.inputs, served.inputs, strict=True):
            ready = self._shards[record["shard"]]
            own = ready.served.plan.entity == given.keys
            # Asked for beside the derived one and by the same names it is read once.
            reads.append(_Read(ready, None if own else given.keys))
        return reads

    def _keys(
        self, wanted: _Wanted, columns: Mapping[str, list[Any]]
    ) -> tuple[list[list[bytes]], int]:
        lengths = {len(v) for v in columns.values()}
        if len(lengths) > 1:
            shown = ", ".join(f"{n}: {len(v)}" for n, v in columns.items())
            raise UsageError(
                "The entity lists differ in length.",
                found=shown,
                remedy="one value of each entity for every row",
            )
        count = lengths.pop() if lengths else 0
        if count > ENTITIES_MAX:
            raise UsageError(
                f"At most {ENTITIES_MAX:,} entities a read.",
                found=f"{count:,}",
                remedy="read in slices",
            )
        used: set[str] = set()
        keys: list[list[bytes]] = []
        for derived in wanted.derived:
            for name in derived.served.plan.entity:
                if name not in columns:
                    raise _no_entity(derived.served, name, columns)
                used.add(name)
        for read in wanted.groups:
            served, parts = read.ready.served, []
            names = read.entity or served.plan.entity
            # A key that a derived feature calls otherwise is not looked for by its own name.
            others = served.columns if read.entity is None else names
            for key, name, column in zip(served.plan.keys, names, others, strict=True):
                name = name if name in columns else column
                if name not in columns:
                    raise _no_entity(served, key.name, columns)
                used.add(name)
                parts.append([coerced(v, key.expr.type, name) for v in columns[name]])
            keys.append([pack_key(k) if None not in k else b"" for k in zip(*parts, strict=True)])
        if unused := set(columns) - used:
            raise UsageError(
                f"No asked feature is of {', '.join(sorted(unused))}.",
                found=", ".join(columns),
                remedy="leave it out",
            )
        return keys, count

    def _finish(
        self,
        wanted: _Wanted,
        columns: Mapping[str, list[Any]],
        count: int,
        keys: Sequence[Sequence[bytes]],
        blobs: Sequence[Sequence[Sequence[bytes | None]]],
        requests: Sequence[Mapping[str, list[Any]]],
    ) -> FeatureVector:
        now_us = self.clock.now_us()
        rows: list[dict[str, Any]] = [{n: v[i] for n, v in columns.items()} for i in range(count)]
        newest: list[dict[str, Any]] = [{} for _ in range(count)]
        state_of = partial(self._busy.at, now_us=now_us, generation=self._generation)
        done: dict[_Read, list[tuple[Mapping[str, Any], int | None]]] = {}
        for (read, names), mine, found in zip(wanted.groups.items(), keys, blobs, strict=True):
            done[read] = finished = _values(read.ready, mine, found, now_us, state_of)
            if not names:
                continue
            group = read.ready.served.group
            for row, moments, (values, at) in zip(rows, newest, finished, strict=True):
                moments[group] = None if at is None else from_us(at)
                for name in names:
                    row[name] = values[name]
        for (ready, names), given in zip(wanted.derived.items(), requests, strict=True):
            inputs = [done[read] for read in wanted.inputs[ready]]
            entity = {n: columns[n] for n in ready.served.plan.entity}
            only = [[values for values, _ in rows_] for rows_ in inputs]
            derived = ready.values(names, entities=entity, requests=given, inputs=only, count=count)
            for i, values in enumerate(derived):
                rows[i] |= values
                ats = [at for _, at in (rows_[i] for rows_ in inputs) if at is not None]
                newest[i][ready.served.group] = from_us(max(ats)) if ats else None
        return FeatureVector(
            entities=tuple(columns), features=wanted.features, rows=tuple(rows),
            newest=tuple(newest), schema=wanted.schema, owners=wanted.owners,
        )  # fmt: skip


def _told_apart(
    wanted: _Wanted, given: Mapping[str, Any], request: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return entities' values, and the request's own: those that no entity is called as.

    A list of the request's stays one, a single value is for all entities.
    """
    if not wanted.derived and not request:
        return {n: _as_list(v) for n, v in given.items()}, {}
    # What other features of the group read may be given as well.
    known = {n for ready in wanted.derived for n, _ in ready.served.plan.requests}
    entities = {n for ready in wanted.derived for n in ready.served.plan.entity}
    for read in wanted.groups:
        entities |= {*(read.entity or read.ready.served.plan.entity), *read.ready.served.columns}
    check_known(request, known)
    beside = {n: v for n, v in given.items() if n in known and n not in entities}
    others = [n for n in given if n not in known and n not in entities]
    for ready, names in wanted.derived.items():
        ready.check_requested(names, {**beside, **request}, others)
    values = {n: v if _is_one(v) else _as_list(v) for n, v in {**beside, **request}.items()}
    return {n: _as_list(v) for n, v in given.items() if n not in beside}, values


def _no_entity(served: Served | ServedDerived, name: str, columns: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f"{served.group!r} is a feature of {' and '.join(served.plan.entity)}.",
        found=", ".join(columns) or "no entity",
        remedy=f"serve([…], {name}=[…])",
    )


def _values(
    ready: _Ready,
    keys: Sequence[bytes],
    blobs: Sequence[Sequence[bytes | None]],
    now_us: int,
    state_of: Callable[[StateCodec, Sequence[str], list[bytes], list[list[bytes | None]]], State],
) -> list[tuple[Mapping[str, Any], int | None]]:
    """Return each entity's values at t = max(now, newest + 1), and its newest event's time.

    `blobs` are those of each shard. `state_of` gives the states behind values that no longer hold,
    or that lie in several shards.
    """
    names = ready.served.plan.features
    result: list[tuple[Mapping[str, Any], int | None]] = []
    unfinished: dict[tuple[int, ...], list[int]] = {}
    for i, found in enumerate(zip(*blobs, strict=True)):
        places = tuple(n for n, blob in enumerate(found) if blob is not None)
        if not places:
            result.append((ready.empty, None))
            continue
        if len(places) > 1:
            result.append(({}, max(unpack_value(found[n] or b"").newest_us for n in places)))
            unfinished.setdefault(places, []).append(i)
            continue
        newest, until, values, _ = unpack_value(found[places[0]] or b"")
        if until is not None and now_us > until:
            unfinished.setdefault(places, []).append(i)
        row = dict(zip(names, values, strict=True))
        for name in ready.packed:
            row[name] = _logical(row[name], ready.types[name])
        result.append((row, newest))
    for places, which in unfinished.items():
        # Something left a window since the worker wrote, or the value is of several states: finish
        # those anew.
        asked = [keys[i] for i in which]
        behind = [[blobs[n][i] for i in which] for n in places]
        shards = [ready.served.shards[n] for n in places]
        frame = ready.fold.values(state_of(ready.codec, shards, asked, behind), now_us=now_us)
        keyed = len(ready.fold.keys)
        by_key = {
            pack_key(row[:keyed]): dict(zip(names, row[keyed:-2], strict=True))
            for row in frame.iter_rows()
        }
        for i in which:
            result[i] = (by_key[keys[i]], result[i][1])
    return result


def _logical(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    if kind.is_decimal:
        return Decimal(value)
    restored = pl.Series([value], dtype=storage(kind.polars)).cast(kind.polars)
    return restored.to_list()[0]


def _is_one(value: Any) -> bool:
    return isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")


def _as_list(value: Any) -> list[Any]:
    if _is_one(value):
        return [value]
    return list(value.to_list()) if hasattr(value, "to_list") else list(value)


_EXPECTED: Mapping[Type, tuple[type, str]] = {
    Type.VARCHAR: (str, "str(…)"),
    Type.BOOLEAN: (bool, "bool(…)"),
    Type.BIGINT: (int, "int(…)"),
    Type.TIMESTAMP: (datetime, "datetime(…, tzinfo=UTC)"),
    Type.DATE: (date, "date(…)"),
    Type.INTERVAL: (timedelta, "timedelta(…)"),
}


def coerced(value: Any, kind: Type, entity: str) -> Any:
    """Bring an entity's value to its key's type: the string '7' and the number 7 differ."""
    if value is None:
        return None
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    expected, remedy = _EXPECTED[kind]
    is_bool, is_moment = isinstance(value, bool), isinstance(value, datetime)
    fits = isinstance(value, expected)
    if kind is Type.BIGINT:
        fits = fits and not is_bool
    if kind is Type.DATE:
        fits = fits and not is_moment
    if not fits:
        raise UsageError(
            f"{entity!r} is a {kind}.",
            found=f"{value!r}, of type {type(value).__name__}",
            remedy=f"convert it with {remedy}",
        )
    return value
