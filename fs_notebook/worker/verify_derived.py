"""`verify` for derived features: their inputs against the ledger, then what follows from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from fs_notebook.catalog.model import DerivedDefinition
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.derived import Derived
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.requests import some_value
from fs_notebook.errors import FeatureStoreError
from fs_notebook.language.derived import entity_column, feature_column, request_column
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.codec import pack_key, unpack_key
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.serve import FeatureReader
from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.position import Cut
from fs_notebook.worker.shared import stored_shards
from fs_notebook.worker.verify import (
    SEEDS,
    SHOWN_MAX,
    SNAPSHOTS_MAX,
    Mismatch,
    Verification,
    drawn,
    merged_of,
    same,
    verify,
)

ENTITIES_MAX = 1_000


@dataclass(frozen=True)
class _Fixed:
    """A clock that stands still, so that two ways of reading finish windows at one t."""

    us: int

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return SYSTEM.monotonic_s()

    def sleep_s(self, seconds: float) -> None:
        SYSTEM.sleep_s(seconds)


def verify_derived(
    definition: DerivedDefinition,
    version: int,
    log: EventLog,
    store: OnlineStore,
    *,
    now_us: int,
    entities_max: int | None = None,
    seed: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Verify every input at its worker's own position, and that the derived values follow.

    The first compares every stored value with the ledger. The second serves up to 1,000 entities
    with made-up request values, and compares them with the expressions over the inputs' stored
    states, read at the same positions.

    Parameters
    ----------
    now_us
        The t at which windows are finished, in microseconds since the epoch.
    entities_max, seed
        How many entities of each input to compare, and what they are drawn by; see `verify`.
    """
    seed = now_us % SEEDS if seed is None else seed
    parts = []
    for done, pinned in enumerate(definition.inputs):

        def part(share: float, done: int = done) -> None:
            progress((done + share) / (len(definition.inputs) + 1))

        outcome = verify(
            pinned, 0, log, store, now_us=now_us, entities_max=entities_max, seed=seed,
            progress=part,
        )  # fmt: skip
        parts.append((pinned, outcome))
    entities, values, differences = _compare(definition, store, now_us, entities_max, seed)
    progress(1.0)
    examples = [
        Mismatch(m.entity, f"{pinned.name}.{m.feature}", m.online, m.ledger)
        for pinned, outcome in parts
        for m in outcome.examples
    ]
    known = [o.entities if o.sampled_from is None else o.sampled_from for _, o in parts]
    is_sample = any(o.sampled_from is not None for _, o in parts)
    return Verification(
        name=definition.name, version=version,
        position=", ".join(f"{p.name} {outcome.position}" for p, outcome in parts),
        entities=max([entities, *(o.entities for _, o in parts)]),
        values=values + sum(o.values for _, o in parts),
        events=sum(o.events for _, o in parts),
        mismatches=len(differences) + sum(o.mismatches for _, o in parts),
        examples=(*examples, *differences)[:SHOWN_MAX],
        sampled_from=max(known) if is_sample else None, seed=seed if is_sample else None,
    )  # fmt: skip


def _compare(
    definition: DerivedDefinition, store: OnlineStore, now_us: int, entities_max: int | None,
    seed: int,
) -> tuple[int, int, list[Mismatch]]:  # fmt: skip
    """Compare what is served with the expressions over the stored states of some entities."""
    plan = definition.plan
    some = ENTITIES_MAX if entities_max is None else min(entities_max, ENTITIES_MAX)
    entities = entities_of(definition, store, entities_max=some, seed=seed)
    count = max(len(v) for v in entities.values())
    if not count:
        return 0, 0, []
    requests = {n: [some_value(t, i) for i in range(count)] for n, t in plan.requests}
    reader = FeatureReader(store, clock=_Fixed(now_us))
    for _ in range(SNAPSHOTS_MAX):
        cuts = _cuts(definition, store)
        expected = values_at(definition, store, entities, requests, now_us=now_us)
        served = reader.read(list(plan.features), request=requests, **entities)
        if _cuts(definition, store) == cuts:
            break
    else:
        raise FeatureStoreError(
            f"What {definition.name!r} is derived from changes faster than it can be read.",
            remedy="verify again",
        )
    differences = [
        Mismatch(", ".join(str(v[i]) for v in entities.values()), name, row[name], want[name])
        for i, (row, want) in enumerate(zip(served.rows, expected, strict=True))
        for name in plan.features
        if not same(row[name], want[name])
    ]
    return count, count * len(plan.features), differences


def values_at(
    definition: DerivedDefinition,
    store: OnlineStore,
    entities: Mapping[str, list[Any]],
    requests: Mapping[str, list[Any]],
    *,
    now_us: int,
) -> list[dict[str, Any]]:
    """Return a derived group's values, one row an entity, from its inputs' stored states.

    Parameters
    ----------
    entities, requests
        Name → values, one an entity.
    now_us
        The t at which windows are finished, in microseconds since the epoch.
    """
    plan = definition.plan
    stored = []
    for given in plan.inputs:
        pinned = definition.input(given.group, given.fingerprint)
        keys = [_packed(k) for k in zip(*(entities[n] for n in given.keys), strict=True)]
        stored.append(_stored(store, pinned.shard, keys, StateCodec(Fold(pinned.plan)), now_us))
    columns: dict[str, list[Any]] = {entity_column(n): v for n, v in entities.items()}
    columns |= {request_column(n): v for n, v in requests.items()}
    for index, given in enumerate(plan.inputs):
        for feature, _ in given.features:
            columns[feature_column(index, feature)] = [row[feature] for row in stored[index]]
    frame = pl.DataFrame([pl.Series(n, v, dtype=plan.schema[n].polars) for n, v in columns.items()])
    return Derived(plan).values(frame).to_dicts()


def _stored(
    store: OnlineStore, shard: str, keys: list[bytes], codec: StateCodec, now_us: int
) -> list[Mapping[str, Any]]:
    """Return the values of each key, finished from its stored state at `now_us`."""
    fold = codec.fold
    _, state = merged_of(store, shard, sorted({*keys} - {b""}), codec, now_us)
    frame = fold.values(state, now_us=now_us)
    rows = frame.select(fold.plan.features).rows(named=True)
    found: dict[bytes, Mapping[str, Any]] = dict(zip(codec.keys_of(frame), rows, strict=True))
    empty = fold.empty_values()
    return [found.get(key, empty) for key in keys]


def _packed(key: tuple[Any, ...]) -> bytes:
    return b"" if None in key else pack_key(key)


def _cuts(definition: DerivedDefinition, store: OnlineStore) -> dict[str, Cut | None]:
    shards = [part for d in definition.inputs for part in stored_shards(store, d.shard)]
    states = {shard: store.state(shard) for shard in shards}
    return {shard: None if s is None else s.cut for shard, s in states.items()}


def entities_of(
    definition: DerivedDefinition,
    store: OnlineStore,
    *,
    entities_max: int = ENTITIES_MAX,
    seed: int | None = None,
) -> dict[str, list[Any]]:
    """Return entities to read, each part of the key from the first input that has it.

    With a seed they are drawn from all that there are, without they are the first that are met.
    What another input has of such an entity may be nothing: it is then the empty fold there.
    """
    plan = definition.plan
    known = []
    for given in plan.inputs:
        shard = definition.input(given.group, given.fingerprint).shard
        parts = stored_shards(store, shard)
        keys = (k for part in parts for k in store.entities(part) if not is_bucket(k))
        # A key may be in several of them.
        some = (
            dict.fromkeys(itertools.islice(keys, entities_max)) if seed is None
            else drawn(set(keys), entities_max, seed)
        )  # fmt: skip
        known.append([unpack_key(k) for k in some])
    count = max(map(len, known))
    entities: dict[str, list[Any]] = {}
    for given, keys_ in zip(plan.inputs, known, strict=True):
        for place, name in enumerate(given.keys):
            if name not in entities and keys_:
                entities[name] = [keys_[i % len(keys_)][place] for i in range(count)]
    for key in plan.keys:
        entities.setdefault(key.name, [None] * count)
    return entities
