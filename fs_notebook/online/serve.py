"""Reading features: one round trip, finished at t, each with its status.

Everything a reader needs lies in the store: which version serves, its plan, its values. So an
application reads features without the ledger and without a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.clock import SYSTEM, Clock, from_us
from fs_notebook.compute.fold import Fold, State
from fs_notebook.errors import UnknownName, UsageError, unknown_name
from fs_notebook.language.plan import Plan
from fs_notebook.online.codec import pack_key, unpack_value
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.states import StateCodec, storage
from fs_notebook.types import Type

if TYPE_CHECKING:
    import pandas as pd

PRESENT, NULL, NOT_FOUND = "present", "null", "not found"
_REFRESHES_MAX = 3
ENTITIES_MAX = 100_000
_REQUESTS_MAX = 256


@dataclass(frozen=True)
class Served:
    """A serving record: one group's version, as published in the store."""

    group: str
    version: int
    fingerprint: str
    shard: str
    plan: Plan
    columns: tuple[str, ...]
    """What the key's parts are called in the source; also understood as entity names."""

    @classmethod
    def from_record(cls, group: str, record: Mapping[str, Any]) -> Served:
        return cls(
            group=group,
            version=int(record["version"]),
            fingerprint=record["fingerprint"],
            shard=record["shard"],
            plan=Plan.from_dict(record["plan"]),
            columns=tuple(record["columns"]),
        )

    def to_record(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "fingerprint": self.fingerprint,
            "shard": self.shard,
            "plan": self.plan.to_dict(),
            "columns": list(self.columns),
        }


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
    def temporal(self) -> tuple[str, ...]:
        """The features that are stored as integers but are times."""
        return tuple(n for n, t in self.types.items() if t.holds_temporal)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What was asked for, looked up: features by group, and all of them in the order asked."""

    groups: Mapping[_Ready, Sequence[str]]
    features: tuple[str, ...]
    owners: Mapping[str, str]
    schema: Mapping[str, pl.DataType]


@dataclass(frozen=True)
class FeatureVector:
    """The features of some entities, as they stood when they were read.

    `rows` has one dict an entity, in the order asked: the entity's own columns, then one for
    each feature. `status` says of each value whether it is present, null, or of an entity that
    was not found (its value is then the empty fold's: COUNT 0, SUM null). `newest` is the event
    time, UTC, of the newest event behind each group's value: how fresh it is.
    """

    entities: tuple[str, ...]
    features: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    newest: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, pl.DataType]
    """The features' types in Polars."""
    owners: Mapping[str, str]
    """Feature → its group."""

    @cached_property
    def status(self) -> tuple[Mapping[str, str], ...]:
        # Most readers never ask, and a read of many entities would pay for it.
        return tuple(
            {n: _status(row[n], newest[self.owners[n]]) for n in self.features}
            for row, newest in zip(self.rows, self.newest, strict=True)
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return column → values, one value an entity."""
        names = (*self.entities, *self.features)
        return {n: [row[n] for row in self.rows] for n in names}

    def to_polars(self) -> pl.DataFrame:
        """Return a frame: the entity's columns, then one column a feature."""
        return pl.DataFrame(self.to_dict(), schema_overrides=dict(self.schema))

    def to_pandas(self) -> pd.DataFrame:
        """Return the same as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.to_dict())

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, feature: str) -> list[Any]:
        if feature not in (*self.entities, *self.features):
            raise unknown_name("feature", feature, self.features)
        return [row[feature] for row in self.rows]

    def __repr__(self) -> str:
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            table = str(self.to_polars())
        missing = sum(NOT_FOUND in s.values() for s in self.status)
        return f"{len(self)} served ({missing} not found)\n{table}"

    def _repr_html_(self) -> str:
        missing = sum(NOT_FOUND in s.values() for s in self.status)
        html: str = self.to_polars()._repr_html_()
        entities = "1 entity" if len(self) == 1 else f"{len(self):,} entities"
        return f"{html}<small>{entities}, {missing} not found</small>"


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
        self._groups: dict[str, _Ready] = {}
        self._owners: dict[str, str] = {}
        self._resolved: dict[tuple[str, ...], _Wanted] = {}

    def refresh(self) -> None:
        """Fetch what is served; a read does so by itself whenever it has changed."""
        self._generation, records = self.store.published()
        groups: dict[str, _Ready] = {}
        owners: dict[str, str] = {}
        for group, record in records.items():
            served = Served.from_record(group, record)
            known = self._groups.get(group)
            if known is not None and known.served == served:
                groups[group] = known
            else:
                fold = Fold(served.plan)
                types = {o.name: o.type for o in served.plan.outputs}
                groups[group] = _Ready(served, fold, StateCodec(fold), types)
            owners |= dict.fromkeys(served.plan.features, group)
        self._groups, self._owners, self._resolved = groups, owners, {}

    def served(self) -> list[Served]:
        """Return what is served now."""
        self.refresh()
        return [ready.served for ready in self._groups.values()]

    def read(self, features: Sequence[str] | str, **entities: Any) -> FeatureVector:
        """Return features of entities, in one round trip.

        Parameters
        ----------
        features
            Names of features, or of groups (all their features).
        **entities
            For each part of the key a list of values, all of one length (or a single value).

        Raises
        ------
        UnknownName
            If nothing serves a feature of that name.
        UsageError
            If an entity is missing, or lists differ in length.
        UnreachableError
            If the store does not answer.
        """
        asked = [features] if isinstance(features, str) else list(features)
        columns = {n: _as_list(v) for n, v in entities.items()}
        if self._generation < 0:
            self.refresh()
        for _ in range(_REFRESHES_MAX):
            try:
                wanted = self._resolve(asked)
            except UnknownName:
                # Perhaps it was promoted a moment ago: look again, once, before saying no.
                self.refresh()
                wanted = self._resolve(asked)
            keys, count = self._keys(wanted.groups, columns)
            shards = [(r.served.shard, k) for r, k in zip(wanted.groups, keys, strict=True)]
            current, blobs = self.store.read(self._generation, shards)
            if current:
                return self._finish(wanted, columns, count, keys, blobs)
            self.refresh()
        raise UsageError(
            "What is served changes faster than it can be read.",
            remedy="read again once the promotions have settled",
        )

    def _resolve(self, asked: Sequence[str]) -> _Wanted:
        known = self._resolved.get(tuple(asked))
        if known is not None:
            return known
        groups: dict[_Ready, list[str]] = {}
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
            names = groups.setdefault(ready, [])
            names += [n for n in mine if n not in names]
        owners = {n: ready.served.group for ready, names in groups.items() for n in names}
        ranked = {n: i for i, n in enumerate(asked)}
        order = sorted(owners, key=lambda n: ranked.get(n, len(ranked)))
        types = {n: ready.types[n].polars for ready, names in groups.items() for n in names}
        wanted = _Wanted(groups, tuple(order), owners, {n: types[n] for n in order})
        if len(self._resolved) >= _REQUESTS_MAX:
            self._resolved = {}
        self._resolved[tuple(asked)] = wanted
        return wanted

    def _keys(
        self, wanted: Mapping[_Ready, Sequence[str]], columns: Mapping[str, list[Any]]
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
        for ready in wanted:
            served, parts = ready.served, []
            for key, column in zip(served.plan.keys, served.columns, strict=True):
                name = key.name if key.name in columns else column
                if name not in columns:
                    raise UsageError(
                        f"{served.group!r} is a feature of {' and '.join(served.plan.entity)}.",
                        found=", ".join(columns) or "no entity",
                        remedy=f"serve([…], {key.name}=[…])",
                    )
                used.add(name)
                parts.append([_coerced(v, key.expr.type, name) for v in columns[name]])
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
        blobs: Sequence[Sequence[bytes | None]],
    ) -> FeatureVector:
        now_us = self.clock.now_us()
        rows: list[dict[str, Any]] = [{n: v[i] for n, v in columns.items()} for i in range(count)]
        newest: list[dict[str, Any]] = [{} for _ in range(count)]
        for (ready, names), mine, found in zip(wanted.groups.items(), keys, blobs, strict=True):
            group = ready.served.group
            finished = _values(ready, mine, found, now_us, self._state_of)
            for row, moments, (values, at) in zip(rows, newest, finished, strict=True):
                moments[group] = None if at is None else from_us(at)
                for name in names:
                    row[name] = values[name]
        return FeatureVector(
            entities=tuple(columns), features=wanted.features, rows=tuple(rows),
            newest=tuple(newest), schema=wanted.schema, owners=wanted.owners,
        )  # fmt: skip

    def _state_of(
        self, ready: _Ready, keys: list[bytes], blobs: list[bytes | None], now_us: int
    ) -> State:
        """Return entities' states, with the buckets of busy ones that values at `now_us` need.

        A bucket is only of use beside the very state that it belongs to, so both are read
        again together.
        """
        codec = ready.codec
        needed: list[bytes] = []
        more: list[bytes | None] = []
        for _ in range(_REFRESHES_MAX):
            wanted = codec.needed_at(keys, blobs, now_us)
            if set(wanted) <= set(needed):
                state = codec.decode(keys, blobs)
                return codec.with_buckets(state, needed, more) if needed else state
            needed = wanted
            shard = (ready.served.shard, [*keys, *needed])
            _, (found,) = self.store.read(self._generation, [shard])
            blobs, more = found[: len(keys)], found[len(keys) :]
        raise UsageError("These entities change faster than they can be read.", remedy="read again")


def _status(value: Any, newest: Any) -> str:
    if newest is None:
        return NOT_FOUND
    return NULL if value is None else PRESENT


def _values(
    ready: _Ready,
    keys: Sequence[bytes],
    blobs: Sequence[bytes | None],
    now_us: int,
    state_of: Callable[[_Ready, list[bytes], list[bytes | None], int], State],
) -> list[tuple[Mapping[str, Any], int | None]]:
    """Return each entity's values at t = max(now, newest + 1), and its newest event's time.

    `state_of` gives the states behind values that no longer hold.
    """
    names = ready.served.plan.features
    result: list[tuple[Mapping[str, Any], int | None]] = []
    expired: list[int] = []
    for i, blob in enumerate(blobs):
        if blob is None:
            result.append((ready.empty, None))
            continue
        newest, until, values, _ = unpack_value(blob)
        if until is not None and now_us > until:
            expired.append(i)
        row = dict(zip(names, values, strict=True))
        for name in ready.temporal:
            row[name] = _logical(row[name], ready.types[name])
        result.append((row, newest))
    if expired:
        # Something left a window since the worker wrote: finish those again from their states.
        state = state_of(ready, [keys[i] for i in expired], [blobs[i] for i in expired], now_us)
        frame = ready.fold.values(state, now_us=now_us).select(*ready.fold.keys, *names)
        by_key = dict(
            zip(ready.codec.keys_of(frame), frame.select(names).rows(named=True), strict=True)
        )
        for i in expired:
            result[i] = (by_key[keys[i]], result[i][1])
    return result


def _logical(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    restored = pl.Series([value], dtype=storage(kind.polars)).cast(kind.polars)
    return restored.to_list()[0]


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
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


def _coerced(value: Any, kind: Type, entity: str) -> Any:
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
