"""What is compared: the values that two versions have online, entity by entity."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Protocol

import polars as pl
import xxhash

from fs_notebook.catalog import Definition, Version
from fs_notebook.catalog.model import DerivedDefinition
from fs_notebook.clock import from_us
from fs_notebook.comparison.outcome import Comparison, Difference, FeatureComparison
from fs_notebook.compute.fold import Fold, State
from fs_notebook.compute.merging import merge_states
from fs_notebook.compute.requests import some_value
from fs_notebook.online.codec import pack_key, show_key, unpack_key
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.position import START, Cut
from fs_notebook.types import Type
from fs_notebook.worker.shared import joined_cut, joined_info, stored_shards
from fs_notebook.worker.verify import same, states_of
from fs_notebook.worker.verify_derived import entities_of, values_at

SHOWN_MAX = 20
TRIES_MAX = 5
DERIVED_MAX = 10_000
"""Of the entities of each thing that a derived version reads."""

Pair = tuple[Any, Any]
At = Mapping[str, Cut]
"""Stream → the cut that values are of."""


class Side(Protocol):
    """A version whose values can be read."""

    name: str
    number: int
    now_us: int
    entity: tuple[str, ...]
    types: Mapping[str, Type]
    """Feature → its type."""
    key_types: Sequence[pl.DataType]

    @property
    def empty(self) -> Mapping[str, Any]:
        """The values of an entity that was never seen."""

    @property
    def at(self) -> At:
        """The position of the last commit."""

    @property
    def count(self) -> int:
        """How many entities there are."""

    def keys(self) -> Iterator[bytes]:
        """Yield the key of each entity, once."""

    def values(self, keys: list[bytes]) -> tuple[At, bool, dict[bytes, dict[str, Any]]]:
        """Return a cut, whether all values are of it, and those of the entities that are there."""


class Online:
    """A version's values in the store, finished at one moment."""

    def __init__(
        self, store: OnlineStore, version: Version, definition: Definition, now_us: int
    ) -> None:
        self.store, self.definition, self.number = store, definition, version.number
        self.now_us = now_us
        self.name = definition.name
        self.entity = definition.plan.entity
        self.types: Mapping[str, Type] = {o.name: o.type for o in definition.plan.outputs}
        self.fold = Fold(definition.plan)
        self.key_types: Sequence[pl.DataType] = list(self.fold.key_schema.values())
        self.codec = StateCodec(self.fold)

    @cached_property
    def empty(self) -> Mapping[str, Any]:
        return self.fold.empty_values()

    @property
    def parts(self) -> tuple[str, ...]:
        """The shards that hold the state: one, or one a partition where workers share them."""
        return stored_shards(self.store, self.definition.shard)

    @property
    def at(self) -> At:
        """The position of the last commit."""
        return self._of([joined_cut(self.store, self.definition.shard)])

    def _of(self, cuts: Iterable[Cut]) -> At:
        return {self.definition.source.name: _joined(cuts)}

    @property
    def count(self) -> int:
        """How many entities there are, as of the last commit; one in two partitions is two."""
        return int(joined_info(self.store, self.parts).get("entities", 0))

    def keys(self) -> Iterator[bytes]:
        """Yield the key of each entity, once."""
        parts = self.parts
        found = (k for part in parts for k in self.store.entities(part) if not is_bucket(k))
        return found if len(parts) == 1 else iter(dict.fromkeys(found))

    def values(self, keys: list[bytes]) -> tuple[At, bool, dict[bytes, dict[str, Any]]]:
        """Return a cut, whether all values are of it, and those of the entities that are there."""
        cuts: list[Cut] = []
        states: list[State] = []
        is_steady = True
        parts = self.parts
        for part in parts:
            known = self.store.state(part)
            if known is None or (known.cut is None and len(parts) > 1):
                # Nobody has come to this partition yet.
                continue
            read = list(states_of(self.store, part, keys, self.codec, self.now_us))
            is_steady &= all(cut == read[0][0] for cut, _, _ in read)
            cuts += [cut for cut, _, _ in read]
            states += [state for _, _, state in read if state.lifetime.height]
        if len(parts) > 1 and states:
            states = [merge_states(self.fold, states)]
        found: dict[bytes, dict[str, Any]] = {}
        for state in states:
            frame = self.fold.values(state, now_us=self.now_us)
            rows = frame.select(self.fold.plan.features).rows(named=True)
            found |= zip(self.codec.keys_of(frame), rows, strict=True)
        return self._of(cuts), is_steady, found


class OnlineDerived:
    """A derived version's values, which follow from its inputs' at one moment.

    It has a value for any entity. The values of requests are made up, the same for every version.
    """

    def __init__(
        self, store: OnlineStore, version: Version, definition: DerivedDefinition, now_us: int
    ) -> None:
        plan = definition.plan
        self.store, self.definition, self.number = store, definition, version.number
        self.now_us = now_us
        self.name = definition.name
        self.entity = plan.entity
        self.types: Mapping[str, Type] = {o.name: o.type for o in plan.outputs}
        self.key_types: Sequence[pl.DataType] = [k.expr.type.polars for k in plan.keys]
        self._keys: list[bytes] | None = None

    @property
    def empty(self) -> Mapping[str, Any]:
        return dict.fromkeys(self.types)

    @property
    def at(self) -> At:
        found: dict[str, Cut] = {}
        for pinned in self.definition.inputs:
            name = pinned.source.name
            cut = joined_cut(self.store, pinned.shard)
            found[name] = _joined([found.get(name, START), cut])
        return found

    @property
    def count(self) -> int:
        return sum(1 for _ in self.keys())

    def keys(self) -> Iterator[bytes]:
        if self._keys is None:
            given = entities_of(self.definition, self.store, entities_max=DERIVED_MAX)
            rows = zip(*(given[name] for name in self.entity), strict=True)
            self._keys = list(dict.fromkeys(pack_key(row) for row in rows if None not in row))
        return iter(self._keys)

    def values(self, keys: list[bytes]) -> tuple[At, bool, dict[bytes, dict[str, Any]]]:
        before = self.at
        if not keys:
            return before, True, {}
        rows = zip(*map(unpack_key, keys), strict=True)
        entities = {name: list(column) for name, column in zip(self.entity, rows, strict=True)}
        requests = {
            name: [some_value(kind, i) for i in range(len(keys))]
            for name, kind in self.definition.plan.requests
        }
        found = values_at(self.definition, self.store, entities, requests, now_us=self.now_us)
        after = self.at
        return after, before == after, dict(zip(keys, found, strict=True))


def side_of(store: OnlineStore, version: Version, now_us: int) -> Side:
    """Return a version's values, to be read."""
    definition = version.definition
    if isinstance(definition, DerivedDefinition):
        return OnlineDerived(store, version, definition, now_us)
    return Online(store, version, definition, now_us)


def _text(at: At) -> str:
    if len(at) == 1:
        return str(next(iter(at.values())))
    return ", ".join(f"{stream} {cut}" for stream, cut in sorted(at.items()))


def _together(one: At, other: At) -> bool:
    """Tell whether two versions have read the streams that both read up to one position."""
    return all(other[stream] == cut for stream, cut in one.items() if stream in other)


def _joined(cuts: Iterable[Cut]) -> Cut:
    """Return one cut that is as far as the farthest, partition by partition."""
    joined = START
    for cut in cuts:
        joined = joined.advanced(cut)
    return joined


class Reading:
    """What was read of two versions, and what follows from it."""

    def __init__(self, first: Side, second: Side) -> None:
        self.sides = first, second
        self.found: tuple[dict[bytes, dict[str, Any]], dict[bytes, dict[str, Any]]] = ({}, {})
        self.cuts = [first.at, second.at]
        self.apart = 0

    def read(self, keys: list[bytes]) -> None:
        """Read some entities of both, at one position if that can be had."""
        for _ in range(TRIES_MAX):
            read = [side.values(keys) for side in self.sides]
            (one, steady, _), (other, is_steady, _) = read
            if steady and is_steady and _together(one, other):
                break
        else:
            self.apart += len(keys)
        for index, (at, _, values) in enumerate(read):
            self.found[index].update(values)
            self.cuts[index] = at

    def outcome(
        self, keys: list[bytes], known: tuple[int, int], sampled: bool, serving: int | None
    ) -> Comparison:
        first, second = self.sides
        # What was deleted since it was listed is in neither.
        keys = [k for k in keys if k in self.found[0] or k in self.found[1]]
        rows = [
            (self.found[0].get(k) or first.empty, self.found[1].get(k) or second.empty)
            for k in keys
        ]
        mine, theirs = first.types, second.types
        common = [f for f in mine if f in theirs]
        equal = {f: [same(a[f], b[f]) for a, b in rows] for f in common}
        only = (
            sum(k not in self.found[1] for k in keys), sum(k not in self.found[0] for k in keys)
        )  # fmt: skip
        return Comparison(
            name=first.name, versions=(first.number, second.number), serving=serving,
            at=from_us(first.now_us), positions=(_text(self.cuts[0]), _text(self.cuts[1])),
            apart=self.apart, entities=len(keys), known=known, sampled=sampled,
            differing=sum(not all(f) for f in zip(*equal.values(), strict=True)), only=only,
            features=tuple(
                _feature(
                    f, (str(mine[f]), str(theirs[f])), [(a[f], b[f]) for a, b in rows], equal[f]
                )
                for f in common
            ),
            lacking=(
                tuple(f for f in mine if f not in common),
                tuple(f for f in theirs if f not in common),
            ),
            largest=tuple(self._largest(keys, rows, equal)),
            frame=self._frame(keys, rows, common),
        )  # fmt: skip

    def _largest(
        self, keys: list[bytes], rows: list[Pair], equal: Mapping[str, list[bool]]
    ) -> Iterator[Difference]:
        """Yield the largest differences of each feature, as many as can be shown of all."""
        differing = [f for f, flags in equal.items() if not all(flags)]
        for feature in differing[:SHOWN_MAX]:
            places = [i for i, flag in enumerate(equal[feature]) if not flag]
            gaps = {i: _gap(rows[i][0][feature], rows[i][1][feature]) for i in places}
            # What is a number in one version only comes after what can be measured.
            most = heapq.nsmallest(
                max(SHOWN_MAX // len(differing), 1), places,
                key=lambda i, gaps=gaps: (  # type: ignore[misc]
                    gaps[i] is None, -abs(gaps[i] or 0.0), keys[i]
                ),
            )  # fmt: skip
            for i in most:
                lacks = [s.number for s, f in zip(self.sides, self.found, strict=True)
                         if keys[i] not in f]  # fmt: skip
                yield Difference(
                    show_key(keys[i]), feature, rows[i][0][feature], rows[i][1][feature], gaps[i],
                    f"no events in v{lacks[0]}" if lacks else "",
                )  # fmt: skip

    def _frame(self, keys: list[bytes], rows: list[Pair], common: list[str]) -> pl.DataFrame:
        """Return the values as columns, the key first, sorted by it."""
        first = self.sides[0]
        parts = list(zip(*map(unpack_key, keys), strict=True)) or [()] * len(first.entity)
        columns = [
            pl.Series(name, part, kind)
            for name, part, kind in zip(first.entity, parts, first.key_types, strict=True)
        ]
        for feature in common:
            for index, side in enumerate(self.sides):
                kind = side.types[feature]
                name = f"{feature}_v{side.number}"
                while name in [c.name for c in columns]:
                    # An entity may be called so.
                    name += "'"
                columns.append(pl.Series(name, [r[index][feature] for r in rows], kind.polars))
        names = [c.name for c in columns[: len(first.entity)]]
        return pl.DataFrame(columns).sort(names)


def _feature(
    name: str, types: tuple[str, str], pairs: list[Pair], equal: list[bool]
) -> FeatureComparison:
    numbers = [[_number(v) for v in side] for side in zip(*pairs, strict=True)] or [[], []]
    gaps = [abs(g) for a, b in pairs if (g := _gap(a, b)) is not None]
    return FeatureComparison(
        feature=name, types=types, entities=len(pairs), equal=sum(equal),
        only=(
            sum(b is None and a is not None for a, b in pairs),
            sum(a is None and b is not None for a, b in pairs),
        ),
        means=(_mean(numbers[0]), _mean(numbers[1])), numbers=len(gaps),
        mean_difference=_mean(gaps), greatest=max(gaps, default=None),
    )  # fmt: skip


def _number(value: Any) -> float | None:
    """Return a finite number as a float, None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _gap(a: Any, b: Any) -> float | None:
    """Return how far the second number is above the first, None where one is none."""
    one, other = _number(a), _number(b)
    if one is None or other is None:
        return None
    if same(a, b):
        return 0.0
    # Between integers the difference is exact, however large they are.
    exact = isinstance(a, int | Decimal) and isinstance(b, int | Decimal)
    return float(b - a) if exact else other - one


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    # Divided first: a sum of large ones may not be finite.
    return math.fsum(v / len(known) for v in known) if known else None


def least(keys: Iterable[bytes], count: int) -> tuple[list[bytes], int]:
    """Return the `count` keys with the least hashes, and how many there were."""
    known = 0

    def hashed() -> Iterator[tuple[bytes, bytes]]:
        nonlocal known
        for key in keys:
            known += 1
            yield xxhash.xxh3_64_digest(key), key

    return [key for _, key in heapq.nsmallest(count, hashed())], known


def sample(
    first: Iterable[bytes], second: Iterable[bytes], count: int
) -> tuple[list[bytes], tuple[int, int], bool]:
    """Return up to `count` keys of either, how many each has, and whether there are more."""
    (mine, many), (others, more) = least(first, count), least(second, count)
    both = {*mine, *others}
    chosen, _ = least(both, count)
    return sorted(chosen), (many, more), len(both) > count or max(many, more) > count
