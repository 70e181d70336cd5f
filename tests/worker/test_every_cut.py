"""History ends at every position in turn, and the stream goes on from the very next event.

What is left in the store must be what a fold in plain Python makes of all events: a doubled one
shows in the total, a lost one too, and in the counters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import polars as pl
import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.ingest import fit, to_frame
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.protocol import POSITION_COLUMNS, Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.codec import pack_key, unpack_value
from fs_notebook.online.memory import MemoryStore
from fs_notebook.position import START, Cut, Position
from fs_notebook.testing import SimulatedLog
from fs_notebook.types import Type
from fs_notebook.worker.loop import Worker
from tests.support.broker import Broker

PARTITIONS = 4
EVENTS = 1_000
WINDOW_S = 60
BEGIN_S = 1_700_000_000
STREAM = Stream(
    "reads",
    (("user", Type.VARCHAR), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)),
    "ts",
    partitions=PARTITIONS,
)
WINDOWED = f"""
SELECT user, SUM(n) OVER (PARTITION BY user) AS total, COUNT(*) OVER (PARTITION BY user) AS events,
       LAST(n) OVER (PARTITION BY user) AS latest, COUNT(*) OVER w AS recent
FROM reads
WINDOW w AS (PARTITION BY user ORDER BY ts
             RANGE BETWEEN INTERVAL {WINDOW_S} SECOND PRECEDING AND CURRENT ROW)
"""
PLAIN = "SELECT user, SUM(n) AS total, COUNT(*) AS events FROM reads GROUP BY user"


@dataclass(frozen=True)
class Event:
    number: int
    user: str
    partition: int
    second: int

    def payload(self) -> bytes:
        at = f"{pl.from_epoch(pl.Series([self.second + BEGIN_S]))[0]:%Y-%m-%dT%H:%M:%SZ}"
        return json.dumps({"user": self.user, "n": self.number, "ts": at}).encode()


@cache
def events(count: int) -> tuple[Event, ...]:
    """Return events in the order of sending; of many times, some equal, some late."""
    chance = random.Random(6)
    made = []
    for number in range(1, count + 1):
        user = chance.randrange(8)
        second = number // 3 + chance.randrange(-20, 20)
        made.append(Event(number, f"u{user}", user % PARTITIONS, second))
    return tuple(made)


def naive(seen: Sequence[tuple[Event, Position]]) -> dict[str, tuple[int, int, int, int]]:
    """Return each user's total, number of events, latest number, and events of the last minute."""
    values = {}
    for user in {e.user for e, _ in seen}:
        mine = [(e.second, place, e.number) for e, place in seen if e.user == user]
        newest, _, latest = max(mine)
        # The window ends just after the newest event: what is a minute older is out of it.
        recent = sum(newest - second < WINDOW_S for second, _, _ in mine)
        values[user] = (sum(number for *_, number in mine), len(mine), latest, recent)
    return values


@cache
def definition(sql: str) -> Definition:
    source = SourceColumns(STREAM.name, STREAM.columns, STREAM.time)
    plan = compile_sql(sql, name="reading", find_source=lambda name: source)
    return Definition("reading", sql, plan, STREAM)


@dataclass
class Trial:
    """A log of known events, and what workers make of it in stores of their own."""

    log: Any
    sent: Sequence[Event]
    made: Definition
    clock: Clock

    @cached_property
    def places(self) -> list[Position]:
        """The position of each event, in the order of sending."""
        found: dict[int, Position] = {}
        end = self.log.end(STREAM.name)
        for batch in self.log.read(STREAM, start=START, end=end, columns=["n"]):
            rows = batch.positions().select(POSITION_COLUMNS).rows()
            found |= zip(batch.rows["n"], (Position(*row) for row in rows), strict=True)
        assert sorted(found) == [e.number for e in self.sent]
        return [found[e.number] for e in self.sent]

    @cached_property
    def cuts(self) -> list[Cut]:
        """The cut after each event, in the order of sending; the first is before all."""
        found = [START]
        for place in self.places:
            found.append(found[-1].advanced([place]))
        return found

    def begun(self) -> MemoryStore:
        store = MemoryStore()
        lease = store.claim(self.made.shard, fingerprint=self.made.fingerprint)
        info = {"identity": self.log.identity(STREAM.name)}
        store.commit(lease, cut=START, puts={}, info=info)
        return store

    def hand_over(self, store: MemoryStore, target: Cut, *, until: Cut | None) -> object:
        """Bootstrap to `target`, compare, follow `until` there (None: one batch), and compare.

        Returns a copy of the store as it was in between.
        """
        shard = self.made.shard
        lease = store.claim(shard, fingerprint=self.made.fingerprint)
        info = {**lease.info, "phase": "bootstrapping", "target": target.to_json()}
        store.commit(lease, cut=lease.cut or START, puts={}, info=info)
        handed_over: list[object] = []

        def stop() -> bool:
            state = store.state(shard)
            assert state is not None
            if state.info["phase"] == "live" and not handed_over:
                assert state.cut == target
                self.compare(store)
                handed_over.append(store.copy())
            at = state.cut
            return bool(handed_over) and (at == until or (until is None and at != target))

        Worker(self.made, self.log, store, clock=self.clock, beside=False, should_stop=stop).run()
        self.compare(store)
        return handed_over[0]

    def compare(self, store: MemoryStore) -> None:
        """Fail unless what is stored is the naive fold of the events up to the stored cut."""
        state, _ = store.snapshot(self.made.shard, [])
        assert state is not None
        cut = state.cut or START
        covered = zip(self.sent, self.places, strict=True)
        seen = [(event, place) for event, place in covered if cut.covers(place)]
        wanted = {pack_key((user,)): values for user, values in naive(seen).items()}
        _, blobs = store.snapshot(self.made.shard, list(wanted))
        width = len(self.made.plan.features)
        got = {k: unpack_value(b or b"").values for k, b in zip(wanted, blobs, strict=True)}
        assert got == {k: values[:width] for k, values in wanted.items()}
        assert set(store.entities(self.made.shard)) == wanted.keys()
        assert (state.info.get("events", 0), state.info.get("dead", 0)) == (len(seen), 0)


def simulated(sql: str) -> Trial:
    """A log with messages alone, in batches, and Arrow batches in turn."""
    log = SimulatedLog(seed=6)
    log.create(STREAM)
    sent = events(EVENTS)
    for number, start in enumerate(range(0, EVENTS, 50)):
        send(log, sent[start : start + 50], kind=number % 3)
    return Trial(log, sent, definition(sql), log.clock)


def send(log: SimulatedLog, sent: Sequence[Event], *, kind: int) -> None:
    for partition in range(PARTITIONS):
        mine = [e for e in sent if e.partition == partition]
        if kind == 2:
            rows = [json.loads(e.payload()) for e in mine]
            log.append(replace(STREAM, key=("user",)), fit(to_frame(rows), STREAM))
        else:
            payloads = [e.payload() for e in mine]
            log.send(STREAM.name, payloads, partition=partition, batch=5 * kind)


def test_fault_21_every_position_ends_a_bootstrap_and_the_next_event_is_the_next() -> None:
    """Each bootstrap goes on from the one before, which was cut off there: 1,001 hand-overs."""
    trial = simulated(PLAIN)
    store = trial.begun()
    for target in trial.cuts:
        whole = target == trial.cuts[-1]
        # What was followed is forgotten: the next one goes on from here.
        store.restore(trial.hand_over(store, target, until=target if whole else None))


def test_fault_21_from_the_start_to_cuts_in_every_kind_of_batch_and_on_to_the_end() -> None:
    trial = simulated(WINDOWED)
    end = trial.cuts[-1]
    assert end == trial.log.end(STREAM.name)
    for number in (0, *range(3, EVENTS, 61), EVENTS - 1, EVENTS):
        trial.hand_over(trial.begun(), trial.cuts[number], until=end)


@pytest.mark.pulsar
def test_fault_21_sampled_positions_on_a_real_broker(broker: Broker) -> None:
    """Messages in batches and alone, Arrow batches: cuts before, in and after each."""
    namespace = broker.namespace()
    log = PulsarLog(f"{broker.url}/{namespace}", admin_url=broker.admin_url)
    stream = replace(STREAM, key=("user",))
    log.create(stream)
    sent: list[Event] = []
    for number, start in enumerate(range(0, EVENTS, 100)):
        some = events(EVENTS)[start : start + 100]
        rows = fit(to_frame([json.loads(e.payload()) for e in some]), stream)
        log.append(replace(stream, json_only=number % 2 == 0), rows)
        sent += some
    trial = Trial(log, sent, definition(WINDOWED), SYSTEM)
    inside = [n for n, place in enumerate(trial.places, 1) if place.batch > 0]
    assert len(inside) > EVENTS // 2
    chance = random.Random(21)
    for number in (0, EVENTS, *chance.sample(inside, 8), *chance.sample(range(EVENTS), 4)):
        trial.hand_over(trial.begun(), trial.cuts[number], until=trial.cuts[-1])
    log.close()
