"""`verify`: every online value, recomputed from the ledger at the worker's own position."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl
import xxhash

from fs_notebook.catalog.model import Definition
from fs_notebook.compute.fold import NEWEST, Fold, State
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.merging import merge_states
from fs_notebook.compute.running import Running
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.log.parted import PartLog
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.codec import show_key
from fs_notebook.online.protocol import OnlineStore, part_shard
from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.position import START, Cut
from fs_notebook.worker.shared import partitions_of, shards_of, stored_shards

CHUNK = 1_000
SNAPSHOTS_MAX = 20
SHOWN_MAX = 20
SEEDS = 1_000_000
"""Of samples that nobody gave a seed."""


@dataclass(frozen=True)
class Mismatch:
    """One value that is not what the ledger says."""

    entity: str
    feature: str
    online: Any
    ledger: Any


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify`: how many entities and values were compared, what differed."""

    name: str
    version: int
    position: str
    entities: int
    values: int
    events: int
    mismatches: int
    examples: tuple[Mismatch, ...]
    sampled_from: int | None = None
    """How many entities there are, where only some of them were compared."""
    seed: int | None = None
    """What that sample was drawn by: the same seed compares the same entities."""

    @property
    def ok(self) -> bool:
        return self.mismatches == 0

    def __repr__(self) -> str:
        of = "" if self.sampled_from is None else f"of {self.sampled_from:,} "
        drawn = "" if self.sampled_from is None else f" (a sample, seed {self.seed})"
        head = (
            f"{self.name} v{self.version}: {self.mismatches} mismatches in {self.values:,} values "
            f"of {self.entities:,} {of}entities{drawn}, {self.events:,} events "
            f"replayed to {self.position}"
        )
        lines = [
            f"  {m.entity} {m.feature}: online {m.online!r}, ledger {m.ledger!r}"
            for m in self.examples
        ]
        return "\n".join([head, *lines])


def verify(
    definition: Definition,
    version: int,
    log: EventLog,
    store: OnlineStore,
    *,
    now_us: int,
    partitions: int | None = None,
    entities_max: int | None = None,
    seed: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Replay the ledger to the worker's position and compare every online value.

    The worker may go on meanwhile. Values are fetched in chunks, each together with the
    position it was committed at, and each chunk is compared with the fold up to its own
    position: one replay, stopped here and there.

    Parameters
    ----------
    now_us
        The t at which windows are finished, in microseconds since the epoch.
    partitions
        How many shards there are, one a partition, where workers share them; each is compared
        with the replay of its own partition. By default as the store has it.
    entities_max
        Compare and hold no more entities than that: a sample, chosen by the entities' hashes.
        Which entities the store lacks is then not told. All of the stream is read all the same.
    seed
        What the sample is drawn by; default: another one at each `now_us`.
    progress
        Called with the share done, from 0 to 1.
    """
    seen = joined_log(definition.plan, definition.joined, log, filtered=True)
    if partitions is None:
        partitions = partitions_of(store, definition.shard)
    seed = now_us % SEEDS if seed is None else seed
    check_sample(entities_max)
    known, chosen = None, None
    if entities_max is not None:
        there = {
            key for part in shards_of(definition.shard, partitions) for key in _keys(store, part)
        }
        if len(there) > entities_max:
            known, chosen = len(there), frozenset(drawn(there, entities_max, seed))
    if partitions is None:
        outcome, _ = _verified(
            definition, version, seen, store, definition.shard, now_us, chosen, progress
        )
        return outcome if known is None else replace(outcome, sampled_from=known, seed=seed)
    outcomes: list[Verification] = []
    compared: set[bytes] = set()
    for number in range(partitions):

        def part(share: float, number: int = number) -> None:
            progress((number + share) / partitions)

        mine, keys = _verified(
            definition, version, cast(EventLog, PartLog(seen, number)), store,
            part_shard(definition.shard, number), now_us, chosen, part,
        )  # fmt: skip
        outcomes.append(mine)
        compared |= keys
    return Verification(
        name=definition.name, version=version,
        position=", ".join(o.position for o in outcomes if o.position != str(START)) or str(START),
        entities=len(compared), values=sum(o.values for o in outcomes),
        events=sum(o.events for o in outcomes), mismatches=sum(o.mismatches for o in outcomes),
        examples=tuple(e for o in outcomes for e in o.examples)[:SHOWN_MAX],
        sampled_from=known, seed=None if known is None else seed,
    )  # fmt: skip


def verify_part(
    definition: Definition, log: EventLog, store: OnlineStore, partition: int, *, now_us: int
) -> Verification:
    """Compare the shard of one partition with the replay of that partition."""
    seen = joined_log(definition.plan, definition.joined, log, filtered=True)
    outcome, _ = _verified(
        definition, 0, cast(EventLog, PartLog(seen, partition)), store,
        part_shard(definition.shard, partition), now_us, None, lambda share: None,
    )  # fmt: skip
    return outcome


def _verified(
    definition: Definition, version: int, log: EventLog, store: OnlineStore, shard: str,
    now_us: int, chosen: Collection[bytes] | None, progress: Callable[[float], None],
) -> tuple[Verification, set[bytes]]:  # fmt: skip
    """Compare one shard, or the `chosen` entities of it, with what a log has for it.

    Returns the entities as well.
    """
    fold = Fold(definition.plan)
    codec = StateCodec(fold)
    first = store.state(shard)
    if first is None or first.cut is None:
        raise FeatureStoreError(
            f"{definition.name!r} has no online values yet.", remedy="%feature status"
        )
    keys = sorted(k for k in _keys(store, shard) if chosen is None or k in chosen)
    chunks = states_of(store, shard, keys, codec, now_us)
    only = None if chosen is None else codec.frame_of(keys)
    oracle = _Oracle(definition, fold, log, START, only=only)
    oracle.advance(first.cut)
    checker = _Checker(codec, now_us)
    checker.missing(oracle.state, set(keys))
    done = 0
    for cut, chunk, online in chunks:
        oracle.advance(cut)
        checker.compare(oracle.state, chunk, online)
        done += len(chunk)
        progress(done / max(len(keys), 1))
    outcome = Verification(
        name=definition.name, version=version, position=str(oracle.cut), entities=len(keys),
        values=checker.values, events=oracle.events, mismatches=checker.mismatches,
        examples=tuple(checker.examples),
    )  # fmt: skip
    return outcome, set(keys)


def _keys(store: OnlineStore, shard: str) -> set[bytes]:
    return {k for k in store.entities(shard) if not is_bucket(k)}


def check_sample(entities_max: int | None) -> None:
    """Raise `UsageError` if that is no number of entities to compare."""
    if entities_max is not None and entities_max < 1:
        raise UsageError(
            "A sample is a number of entities to compare.", found=str(entities_max),
            remedy="--sample 1000; without it, all of them",
        )  # fmt: skip


def drawn(keys: Iterable[bytes], count: int, seed: int) -> list[bytes]:
    """Return `count` of the keys, spread over all of them: those whose hashes are smallest."""
    return heapq.nsmallest(count, keys, key=lambda k: (xxhash.xxh3_64_intdigest(k, seed), k))


def states_of(
    store: OnlineStore, shard: str, keys: list[bytes], codec: StateCodec, now_us: int
) -> Iterator[tuple[Cut, list[bytes], State]]:
    """Yield stored states of some entities at a time, each with the position it is of."""
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        cut, blobs = _snapshot(store, shard, chunk)
        online = codec.decode(chunk, blobs)
        if online.buckets is None:
            yield cut, chunk, online
            continue
        split = set(codec.keys_of(online.buckets))
        plain = {k: b for k, b in zip(chunk, blobs, strict=True) if k not in split}
        yield cut, list(plain), codec.decode(list(plain), list(plain.values()))
        for key in sorted(split):
            yield _whole_snapshot(store, shard, key, codec, now_us)


def merged_of(
    store: OnlineStore, shard: str, keys: list[bytes], codec: StateCodec, now_us: int
) -> tuple[Cut, State]:
    """Return the stored states of entities, those of shared partitions merged, and their cut."""
    cut, states = START, []
    for part in stored_shards(store, shard):
        known = store.state(part)
        if known is None or known.cut is None:
            continue
        cut = cut.advanced(known.cut)
        for at, _, state in states_of(store, part, keys, codec, now_us):
            cut = cut.advanced(at)
            states.append(state)
    return cut, merge_states(codec.fold, states or [codec.fold.empty])


def _whole_snapshot(
    store: OnlineStore, shard: str, key: bytes, codec: StateCodec, now_us: int
) -> tuple[Cut, list[bytes], State]:
    """Return a split entity's state together with the buckets that its values need."""
    needed: list[bytes] = []
    for _ in range(SNAPSHOTS_MAX):
        cut, (blob, *more) = _snapshot(store, shard, [key, *needed])
        online = codec.decode([key], [blob])
        wanted = codec.needed_by(online, None) | codec.needed_by(online, now_us)
        if wanted <= set(needed):
            return cut, [key], codec.with_buckets(online, needed, more)
        needed = sorted(wanted)
    raise FeatureStoreError(
        f"{show_key(key)} changes faster than it can be read.", remedy="verify again"
    )


def _snapshot(store: OnlineStore, shard: str, keys: list[bytes]) -> tuple[Cut, list[bytes | None]]:
    state, blobs = store.snapshot(shard, keys)
    if state is None or state.cut is None:
        raise FeatureStoreError(
            "The online values went away while they were compared.", remedy="verify again"
        )
    return state.cut, blobs


@dataclass
class _Oracle:
    """The fold of the ledger, up to a cut that only moves forward."""

    definition: Definition
    fold: Fold
    log: EventLog
    cut: Cut
    events: int = 0
    only: pl.DataFrame | None = None
    """The entities that are folded; None: all."""

    def __post_init__(self) -> None:
        self._running = Running(self.fold)

    @property
    def state(self) -> State:
        return self._running.state

    def advance(self, cut: Cut) -> None:
        if cut == self.cut:
            return
        if not cut.contains(self.cut):
            raise FeatureStoreError(
                "The worker's position went back while its values were compared.",
                found=f"{cut} after {self.cut}",
                remedy="the store was restored or flushed: verify again when it is live",
            )
        columns = self.fold.plan.columns
        source = self.definition.source
        for batch in self.log.read(source, start=self.cut, end=cut, columns=columns):
            frame, _ = self.fold.project(batch.rows, batch.positions)
            if self.only is not None:
                frame = frame.join(self.only, on=self.fold.keys, how="semi", maintain_order="left")
            self._running.add_projected(frame)
            self.events += batch.rows.height
        self.cut = cut


class _Checker:
    def __init__(self, codec: StateCodec, now_us: int) -> None:
        self.codec = codec
        self.now_us = now_us
        self.values = 0
        self.mismatches = 0
        self.examples: list[Mismatch] = []

    def missing(self, state: State, stored: set[bytes]) -> None:
        """Count entities that the ledger has and the store has not."""
        for key in self.codec.keys_of(state.lifetime):
            if key not in stored:
                self._differ(key, "(the entity)", "not there", "there")

    def compare(self, state: State, keys: list[bytes], online: State) -> None:
        """Compare stored values with `state`, both at newest + 1 and now."""
        fold = self.codec.fold
        wanted = pl.DataFrame(online.lifetime.select(fold.keys))
        ledger = State(
            state.lifetime.join(wanted, on=fold.keys, how="semi"),
            state.recent.join(wanted, on=fold.keys, how="semi"),
        )
        moments = (None, self.now_us) if fold.windows else (None,)
        for moment in moments:
            mine = self._table(online, moment)
            theirs = self._table(ledger, moment)
            for key in keys:
                self._row(key, mine.get(key), theirs.get(key))

    def _table(self, state: State, moment: int | None) -> dict[bytes, dict[str, Any]]:
        fold = self.codec.fold
        frame = fold.values(state, now_us=moment)
        rows = frame.select(*fold.plan.features, NEWEST).rows(named=True)
        return dict(zip(self.codec.keys_of(frame), rows, strict=True))

    def _row(self, key: bytes, mine: dict[str, Any] | None, theirs: dict[str, Any] | None) -> None:
        if mine is None or theirs is None:
            self._differ(key, "(the entity)", _there(mine), _there(theirs))
            return
        for name, value in theirs.items():
            self.values += name != NEWEST
            if not same(mine[name], value):
                self._differ(key, name, mine[name], value)

    def _differ(self, key: bytes, feature: str, online: Any, ledger: Any) -> None:
        self.mismatches += 1
        if len(self.examples) < SHOWN_MAX:
            self.examples.append(Mismatch(show_key(key), feature, online, ledger))


def _there(row: dict[str, Any] | None) -> str:
    return "not there" if row is None else "there"


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal: floats within 1e-9 relative, all else exactly."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        return (a != a and b != b) or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)
