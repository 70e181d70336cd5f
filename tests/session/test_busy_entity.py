"""An entity with thousands of events in its window, through worker, store, readers and verify."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.session import Session
from tests.support.sessions import until

SQL = """
SELECT user, COUNT(*) AS reads, SUM(readtime) AS total, LAST(readtime) AS newest,
       COUNT(DISTINCT readtime) AS kinds
FROM read_events GROUP BY user
"""
COUNT = 6_000
DAY = timedelta(days=1)


def reads(user: str, times: list[datetime], first: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": [user] * len(times), "ts": times,
         "readtime": [(first + n) % 50 for n in range(len(times))]},
        schema={"user": pl.String, "ts": pl.Datetime("us", "UTC"), "readtime": pl.Int64},
    )  # fmt: skip


def test_a_busy_entity_is_served_exactly_while_its_window_moves(session: Session) -> None:
    assert StateCodec.split_rows < COUNT
    now = datetime.now(UTC)
    # The oldest events leave the window of a day one by one, from now on.
    leaving = [now - DAY + timedelta(milliseconds=200 * (n + 1)) for n in range(400)]
    steady = [now - timedelta(seconds=10 * n + 5) for n in range(COUNT - len(leaving), 0, -1)]
    session.upload(reads("busy", leaving + steady), "read_events", time="ts", key="user")
    session.append(reads("calm", steady[-3:]), "read_events")
    session.define("recent", SQL, window="1d")
    session.promote("recent")
    (shard,) = {s.definition.shard for s in session.catalog.refresh().group("recent").running}
    keys = list(session.store.entities(shard))
    assert sum(map(is_bucket, keys)) > 100
    assert sum(not is_bucket(k) for k in keys) == 2

    def inside(at: datetime) -> int:
        return sum(at - DAY <= t for t in leaving) + len(steady)

    def follows() -> bool:
        before = datetime.now(UTC)
        served = session.serve(["recent"], user=["busy", "calm"]).to_dict()
        after = datetime.now(UTC)
        assert inside(before) >= served["reads"][0] >= inside(after)
        assert (served["reads"][1], served["kinds"]) == (3, [50, 3])
        return served["reads"][0] <= COUNT - 15

    until(follows, what="some events to leave the window")
    outcome = session.verify("recent")
    assert outcome.ok, outcome
    assert outcome.entities == 2
    fresh = datetime.now(UTC)
    session.append(reads("busy", [fresh, fresh], first=7), "read_events")
    until(lambda: session.serve("newest", user="busy")["newest"] == [8], what="the newest events")
    # A late event goes into a bucket of its own time.
    session.append(reads("busy", [steady[100] + timedelta(milliseconds=1)]), "read_events")
    until(lambda: session.verify("recent").events == COUNT + 6, what="the late event")
    outcome = session.verify("recent")
    assert outcome.ok, outcome
