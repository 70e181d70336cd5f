"""Partitions of a stream shared among workers: each has a shard, and reads merge their states.

The oracle is a naive fold of all that was sent. Keys lie in one partition (the topic's key is the
feature's) or in all of them.
"""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from fs_notebook.catalog.model import Definition
from fs_notebook.log.protocol import Stream
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import part_shard
from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.position import START
from fs_notebook.testing import Fault, Simulation
from fs_notebook.testing.clock import BEGIN_US
from fs_notebook.types import Type
from fs_notebook.worker.records import record_built

SCHEDULES = int(os.environ.get("FS_NOTEBOOK_SCHEDULES", "16"))
PARTITIONS = 4
USERS = [f"u{n}" for n in range(9)]
PAGES = ["p0", "p1", "p2", "nowhere"]
STREAM = Stream(
    "reads",
    (("user", Type.VARCHAR), ("page", Type.VARCHAR), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)),
    "ts",
    partitions=PARTITIONS,
)
WINDOW_S = 60
SQL = f"""
SELECT KEY, SUM(n) OVER (PARTITION BY KEY) AS total, LAST(n) OVER (PARTITION BY KEY) AS latest,
       COUNT(DISTINCT user) OVER (PARTITION BY KEY) AS users, COUNT(*) OVER w AS recent,
       FIRST(n) OVER w AS first_recent, MAX(n) OVER w AS most_recent
FROM reads
WINDOW w AS (PARTITION BY KEY ORDER BY ts
             RANGE BETWEEN INTERVAL {WINDOW_S} SECOND PRECEDING AND CURRENT ROW)
"""
FAULTS = {
    Fault.KILLED: 0.004, Fault.COMMIT_LOST: 0.03, Fault.COMMIT_LATE: 0.03, Fault.REPLY_LOST: 0.03,
    Fault.TAKEN_OVER: 0.03, Fault.WENT_BACK: 0.01, Fault.FLUSHED: 0.003, Fault.BATCH_CUT: 0.03,
    Fault.REDELIVERY: 0.02,
}  # fmt: skip


class Room:
    """A simulation, what was sent to it, and what must follow."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.sim = Simulation(seed=seed, **options)
        self.chance = random.Random(f"shared {seed}")
        self.sent: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
        with self.sim.faults.calm():
            self.sim.log.create(STREAM)

    def define(self, key: str) -> Definition:
        made = self.sim.define(f"by_{key}", SQL.replace("KEY", key))
        assert isinstance(made, Definition)
        return made

    def send(self, count: int, partition: int | None = None) -> None:
        """Send events of some users, each user's to a partition of its own."""
        if partition is None:
            partition = self.chance.randrange(PARTITIONS)
        mine = [u for i, u in enumerate(USERS) if i % PARTITIONS == partition % PARTITIONS]
        payloads = []
        for _ in range(count):
            second = BEGIN_US // 1_000_000 + self.chance.randrange(-90, 30)
            event = {
                "user": self.chance.choice(mine), "page": self.chance.choice(PAGES[:3]),
                "n": self.chance.randrange(1_000), "second": second,
            }  # fmt: skip
            payloads.append(json.dumps({**event, "ts": iso(second)}).encode())
            self.sent.append(((second, partition, len(self.sent)), event))
        with self.sim.faults.calm():
            self.sim.log.send(
                "reads", payloads, partition=partition, batch=self.chance.randrange(4)
            )

    def expected(self, key: str, value: str) -> dict[str, Any]:
        mine = [(at, e) for at, e in self.sent if e[key] == value]
        if not mine:
            return {
                "total": None, "latest": None, "users": 0, "recent": 0, "first_recent": None,
                "most_recent": None,
            }  # fmt: skip
        now_us = max(self.sim.clock.now_us(), max(at[0] for at, _ in mine) * 1_000_000 + 1)
        recent = [
            (at, e) for at, e in mine
            if now_us - WINDOW_S * 1_000_000 <= at[0] * 1_000_000 < now_us
        ]  # fmt: skip
        return {
            "total": sum(e["n"] for _, e in mine),
            "latest": max(mine, key=lambda pair: pair[0])[1]["n"],
            "users": len({e["user"] for _, e in mine}),
            "recent": len(recent),
            "first_recent": min(recent, key=lambda pair: pair[0])[1]["n"] if recent else None,
            "most_recent": max((e["n"] for _, e in recent), default=None),
        }

    def compare(self, definition: Definition, key: str) -> None:
        values = USERS if key == "user" else PAGES
        got = self.sim.serve(definition, **{key: values})
        for row in got.rows:
            wanted = self.expected(key, row[key])
            assert {n: row[n] for n in wanted} == wanted, (row[key], self.sim)
        self.sim.check(definition)


def iso(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("key", ["user", "page"])
@pytest.mark.parametrize("block", range(4))
@pytest.mark.timeout(3600)
def test_shares_change_hands_under_any_faults_and_nothing_is_lost_or_doubled(
    key: str, block: int
) -> None:
    struck = 0
    for seed in range(block, SCHEDULES, 4):
        room = Room(seed, rates=FAULTS)
        made = room.define(key)
        for _ in range(3):
            room.send(room.chance.randrange(1, 9))
        for _ in range(6):
            room.sim.meanwhile(partial(room.send, room.chance.randrange(1, 9)))
        room.sim.run(made, workers=1 + seed % 2, shared=True)
        room.compare(made, key)
        struck += len(room.sim.faults.struck)
    assert struck > SCHEDULES // 4


@pytest.mark.parametrize("key", ["user", "page"])
@pytest.mark.timeout(3600)
def test_fault_18_partitions_that_are_added_are_shared_as_well(key: str) -> None:
    for seed in range(SCHEDULES // 4):
        room = Room(seed, rates=FAULTS)
        made = room.define(key)
        room.send(5)

        def grow(room: Room = room) -> None:
            with room.sim.faults.calm():
                room.sim.log.add_partitions(STREAM.name, PARTITIONS + 2)
            for partition in (PARTITIONS, 0, PARTITIONS + 1, PARTITIONS):
                # Users of the first partition: their events, and states, lie in several now.
                room.send(room.chance.randrange(1, 5), partition)

        room.sim.meanwhile(partial(room.send, 3), grow, partial(room.send, 3))
        room.sim.run(made, workers=1 + seed % 2, shared=True)
        room.compare(made, key)
        parts = [room.sim.store.memory.state(part_shard(made.shard, n)) for n in range(6)]
        assert all(part is not None for part in parts)
        room.send(4, PARTITIONS + 1)
        room.sim.run(made, shared=True)
        room.compare(made, key)


def test_fault_18_what_served_serves_on_until_the_added_partitions_are_built() -> None:
    store = MemoryStore()

    def record(partitions: int) -> dict[str, Any]:
        return {"shard": "s", "partitions": partitions}

    def build(partition: int) -> None:
        lease = store.claim(part_shard("s", partition), fingerprint="f")
        store.commit(lease, cut=START, puts={}, info={"built": True})

    build(0)
    # Before anything served, a part of the state is not served.
    assert record_built(record(2), None, store) is None
    build(1)
    assert record_built(record(2), None, store) == record(2)
    assert record_built(record(3), record(2), store) == record(2)
    build(2)
    assert record_built(record(3), record(2), store) == record(3)
    store.drop(part_shard("s", 0))
    assert record_built(record(3), record(2), store) is None


def test_values_of_several_shards_expire_with_no_event() -> None:
    room = Room(3)
    made = room.define("page")
    for _ in range(30):
        room.send(4)
    room.sim.run(made, shared=True)
    seen = set()
    for _ in range(12):
        room.compare(made, "page")
        seen.add(room.sim.serve(made, page=["p1"]).rows[0]["recent"])
        room.sim.clock.sleep_s(10)
    assert len(seen) > 3
    assert 0 in seen


def test_busy_entities_that_are_split_in_some_shards_only_are_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(StateCodec, "split_rows", 25)
    kinds = set()
    for seed in range(4):
        room = Room(seed)
        made = room.define("page")
        # Of one partition many, of others few: some are split.
        for _ in range(14):
            room.send(room.chance.choice([2, 2, 40]))
        room.sim.run(made, shared=True)
        for part in range(PARTITIONS):
            stored = room.sim.store.memory.entities(part_shard(made.shard, part))
            kinds.add(any(is_bucket(k) for k in stored))
        for _ in range(5):
            room.compare(made, "page")
            room.sim.clock.sleep_s(15)
            room.send(2)
            room.sim.run(made, shared=True)
    assert kinds == {True, False}
