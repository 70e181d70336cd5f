"""What a read says of each value: of which version, whether it is there, and how fresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.errors import IntegrityError, UnknownName, UsageError
from fs_notebook.language.plan import Plan
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.redis_keys import GENERATION_ALONE
from fs_notebook.online.redis_reads import WARY_READS
from fs_notebook.online.serve import FeatureReader
from fs_notebook.types import TIME
from tests.online.conftest import BackDoor, RedisDoor
from tests.support.redis import RedisServer
from tests.support.served import Fixed, commit, event, frame_of, plan_of, publish

SECOND = 1_000_000
TOTAL = "SELECT user, SUM(readtime) AS total, COUNT(*) AS n FROM read_events GROUP BY user"
LONGEST = (
    "SELECT user, MAX(readtime) AS total, MIN(readtime) AS least FROM read_events GROUP BY user"
)
ARTICLES = "SELECT article, COUNT(*) AS readers FROM read_events GROUP BY article"
EVENTS = [
    event("a", 1, 30, 1 * SECOND),
    event("a", 2, 12, 4 * SECOND),
    event("b", 1, 5, 2 * SECOND),
]


def two_versions(store: OnlineStore) -> None:
    """Serve version 2 of a group, and keep version 1 of it."""
    publish(store, commit(store, "reading", plan_of(LONGEST, "reading"), EVENTS), serving=False)
    publish(store, commit(store, "reading", plan_of(TOTAL, "reading"), EVENTS), version=2)


def reader_at(store: OnlineStore, seconds: float, **options: Any) -> FeatureReader:
    return FeatureReader(store, clock=Fixed(round(seconds * SECOND)), **options)


def test_a_pinned_version_is_read_beside_the_one_that_serves(store: OnlineStore) -> None:
    two_versions(store)
    served = reader_at(store, 5).read(["total@1", "total", "total@2", "least@1"], user=["a", "b"])
    assert served.to_dict() == {
        "user": ["a", "b"], "total@1": [30, 5], "total": [42, 5], "total@2": [42, 5],
        "least@1": [12, 5],
    }  # fmt: skip
    assert served.versions == {"reading@1": 1, "reading": 2, "reading@2": 2}
    whole = reader_at(store, 5).read(["reading@1"], user="a")
    assert whole.to_dict() == {"user": ["a"], "total@1": [30], "least@1": [12]}
    assert whole.to_polars().schema["total@1"] == pl.Int64


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ("total@3", UnknownName, r"(?s)Version 3 of 'total' is not.*v1, v2 \(serving\).*total@1"),
        ("least@2", UnknownName, r"(?s)Version 2 of 'least' is not served.*v1"),
        ("totl@1", UnknownName, r"(?s)no served feature named 'totl'.*'total'"),
        ("least", UnknownName, "no served feature named 'least'"),
        ("total@", UsageError, r"(?s)A version is a number.*total@1"),
        ("total@one", UsageError, "A version is a number"),
        ("total@-1", UsageError, "A version is a number"),
    ],
)  # fmt: skip
def test_a_version_that_is_not_kept_is_named(asked: str, kind: Any, message: str) -> None:
    store = MemoryStore()
    two_versions(store)
    with pytest.raises(kind, match=message):
        reader_at(store, 5).read([asked], user="a")


def test_each_value_says_what_it_is(store: OnlineStore) -> None:
    plan = plan_of(
        "SELECT user, SUM(readtime) FILTER (WHERE article = 2) AS two, COUNT(*) AS n "
        "FROM read_events GROUP BY user",
        "reading", ttl_us=3 * SECOND,
    )  # fmt: skip
    publish(store, commit(store, "reading", plan, EVENTS))
    served = reader_at(store, 5).read("reading", user=["a", "b", "c", None])
    assert served.to_dict() == {
        "user": ["a", "b", "c", None], "two": [12, None, None, None], "n": [2, 1, 0, 0],
    }  # fmt: skip
    status = served.status()
    assert status.columns == ["user", "two", "n"]
    assert status["two"].to_list() == ["present", "null", "not found", "not found"]
    assert status["n"].to_list() == ["present", "present", "not found", "not found"]
    assert status.schema["n"] == pl.Enum(["present", "null", "not found", "expired"])
    fresh = served.freshness()
    assert fresh.schema["n"] == pl.Datetime("us", "UTC")
    assert fresh["n"].dt.epoch("us").to_list() == [4 * SECOND, 2 * SECOND, None, None]
    # At the age itself a value lives; a microsecond later it does not.
    later = reader_at(store, 5.000001).read("reading", user=["a", "b"])
    assert later.to_dict() == {"user": ["a", "b"], "two": [12, None], "n": [2, None]}
    assert later.status()["n"].to_list() == ["present", "expired"]
    assert later.freshness()["n"].dt.epoch("us").to_list() == [4 * SECOND, 2 * SECOND]
    assert "0 not found, 1 expired" in repr(later)


def test_an_entity_that_is_asked_for_twice_counts_its_events_once(store: OnlineStore) -> None:
    """Rows of the same entity are finished from one state: one reader, many candidates."""
    window = (
        "OVER (PARTITION BY user ORDER BY ts "
        "RANGE BETWEEN INTERVAL '4' SECOND PRECEDING AND CURRENT ROW)"
    )
    sql = f"SELECT user, COUNT(*) {window} AS n, SUM(readtime) {window} AS total FROM read_events"
    publish(store, commit(store, "reading", plan_of(sql, "reading"), EVENTS))
    # By then an event has left the window: what is stored does not hold any more.
    for seconds, user in ((5.5, "a"), (6.5, "b")):
        reader = reader_at(store, seconds, cache_s=60)
        once = reader.read("reading", user=user).to_polars()
        several = reader.read("reading", user=[user, "nobody", user, user]).to_polars()
        assert several.filter(user=user).equals(once[[0, 0, 0]])
    served = reader_at(store, 5.5).read("reading", user=["a", "b", "a"]).to_dict()
    assert served == {"user": ["a", "b", "a"], "n": [1, 1, 1], "total": [12, 5, 12]}


def test_fault_10_a_lost_value_is_no_unknown_entity(door: BackDoor) -> None:
    served = commit(door.store, "reading", plan_of(TOTAL, "reading"), EVENTS)
    publish(door.store, served)
    reader = reader_at(door.store, 5)
    (key,) = [k for k in door.store.entities(served.shard) if b"a" in k]
    assert reader.read("total", user=["a", "nobody"])["total"] == [42, None]
    door.evict(served.shard, key)
    with pytest.raises(IntegrityError, match=r"(?s)value of 'a'.*evicted or deleted.*promote"):
        reader.read("total", user=["b", "a"])
    assert reader.read("total", user=["b", "nobody"])["total"] == [5, None]
    door.evict_position(served.shard)
    with pytest.raises(IntegrityError, match=r"(?s)has nothing of 'reading@.*which is served"):
        reader.read("total", user="nobody")


def test_several_groups_and_entities_are_one_round_trip(system_redis: RedisServer) -> None:
    door = RedisDoor(system_redis, system_redis.url)
    door.client.flushall()
    store = door.store
    two_versions(store)
    publish(store, commit(store, "articles", plan_of(ARTICLES, "articles"), EVENTS))
    reader = reader_at(store, 5)
    asked = ["total", "least@1", "readers"]
    entities = {"user": ["a", "b", "a"], "article": [1, 2, 9]}
    reader.read(asked, **entities)
    # What a restarted Redis does not know any more is sent as text, once.
    door.client.script_flush()
    reader.read(asked, **entities)
    sent: list[int] = []
    wire: Any = store._wire
    begin = wire.begin

    def counted(commands: Sequence[Any], **options: Any) -> Any:
        sent.append(len(commands))
        return begin(commands, **options)

    wire.begin = counted
    before = commands_of(door)
    served = reader.read(asked, **entities)
    after = commands_of(door)
    assert served.to_dict() == {
        **entities, "total": [42, 5, 42], "least@1": [12, 5, 12], "readers": [2, 1, 0],
    }  # fmt: skip
    # One message out, with a command a shard, and one that says whether others serve by now.
    assert sent == [4]
    used = {n: after[n] - before.get(n, 0) for n in after if after[n] != before.get(n, 0)}
    assert used == {
        "cmdstat_evalsha": 3, "cmdstat_mget": 3, "cmdstat_hget": 1, "cmdstat_info": 1,
        # Of the entity that nobody has seen.
        "cmdstat_exists": 1, "cmdstat_sismember": 1,
    }  # fmt: skip
    store.close()


def test_only_a_read_that_meets_an_absent_value_looks_whether_it_was_lost(
    system_redis: RedisServer,
) -> None:
    """It takes a second round trip for that, once; those to come look at once, for a while."""
    door = RedisDoor(system_redis, system_redis.url)
    door.client.flushall()
    two_versions(door.store)
    door.client.script_flush()
    reader = reader_at(door.store, 5)
    reader.read("total", user="a")
    wire: Any = door.store._wire
    sent: list[str] = []
    begin = wire.begin

    def noted(commands: Sequence[Any], **options: Any) -> Any:
        sent.append(" ".join(c[0] for c in commands))
        return begin(commands, **options)

    def read(user: str) -> tuple[int | None, list[str]]:
        sent.clear()
        return reader.read("total", user=["b", user])["total"][1], list(sent)

    wire.begin = noted
    assert read("a") == (42, ["MGET"])
    assert read("nobody") == (None, ["MGET", "EVALSHA HGET", "EVAL HGET"])
    for _ in range(WARY_READS):
        assert read("a") == (42, ["EVALSHA HGET"])
    assert read("a") == (42, ["MGET"])
    # A roll-back is seen by either.
    versions = {v: s for _, v, s in reader.kept()}
    publish(door.store, versions[1])
    assert read("a")[0] == 30
    # Where the generation is not told beside the values, it is asked for.
    door.client.delete(GENERATION_ALONE)
    assert read("a") == (30, ["MGET", "EVALSHA HGET"])


def commands_of(door: RedisDoor) -> dict[str, int]:
    """Return how often each command was called."""
    return {n: int(v["calls"]) for n, v in door.client.info("commandstats").items()}  # type: ignore[union-attr]


users = st.sampled_from(["a", "b", "c"])
times = st.integers(0, 12)


@settings(max_examples=60)
@given(
    events=st.lists(st.tuples(users, st.integers(-3, 3), times), max_size=8),
    ttl=st.integers(1, 6),
    closed=st.sampled_from(["left", "right"]),
    window=st.sampled_from([None, 4]),
    ahead=st.integers(0, 8),
    asked_at=times,
)
def test_a_value_expires_in_training_preview_and_serving_alike(
    events: list[tuple[str, int, int]],
    ttl: int,
    closed: str,
    window: int | None,
    ahead: int,
    asked_at: int,
) -> None:
    plan = plan_of(TOTAL, "reading", ttl_us=ttl, closed=closed, window_us=window)
    log = [event(user, 1, value, t) for user, value, t in events]
    fold = Fold(plan)
    asked = ["a", "b", "c"]
    moments = {e["ts"] + ttl + more for e in log[:2] for more in (0, 1)} | {asked_at}
    for t in sorted(moments):
        labels = pl.DataFrame({fold.keys[0]: asked, TIME: [t] * 3})
        trained = values_at(fold, fold.project(frame_of(log))[0], labels)
        assert trained.rows() == [expected(log, user, t, plan) for user in asked]
        known = [e for e in log if e["ts"] < t]
        state = fold.add(fold.empty, frame_of(known)).state
        previewed = {r[0]: r[1:3] for r in fold.values(state, now_us=t).iter_rows()}
        assert previewed == {u: expected(known, u, t, plan) for u in {e["user"] for e in known}}
    # Online, at a time after all events: what was written earlier has to expire by itself.
    store = MemoryStore()
    publish(store, commit(store, "reading", plan, log))
    t = max((e["ts"] for e in log), default=0) + 1 + ahead
    served = FeatureReader(store, clock=Fixed(t)).read("reading", user=asked)
    rows = served.to_polars().select("total", "n").rows()
    assert rows == [expected(log, user, t, plan) for user in asked]
    newest = {u: max((e["ts"] for e in log if e["user"] == u), default=None) for u in asked}
    for user, status in zip(asked, served.status()["n"], strict=True):
        at = newest[user]
        gone = at is not None and t - at > ttl
        assert status == ("not found" if at is None else "expired" if gone else "present")


def expected(log: list[dict[str, Any]], user: str, t: int, plan: Plan) -> tuple[Any, Any]:
    """Return SUM and COUNT as the rule says, in plain Python."""
    window = plan.aggregations[0].window
    right = window.closed == "right"
    seen = [e for e in log if e["user"] == user and (e["ts"] <= t if right else e["ts"] < t)]
    if seen and t - max(e["ts"] for e in seen) > (plan.ttl_us or 0):
        return None, None
    if window.length_us is not None:
        start = t - window.length_us
        seen = [e for e in seen if (e["ts"] > start if right else e["ts"] >= start)]
    return sum(e["readtime"] for e in seen) if seen else None, len(seen)


def test_a_time_to_live_is_part_of_the_version() -> None:
    plain, short, long = (plan_of(TOTAL, "r", ttl_us=t) for t in (None, 1, 2))
    assert len({p.fingerprint for p in (plain, short, long)}) == 3
    assert Plan.from_dict(short.to_dict()) == short
    assert "ttl" not in plain.to_dict()


def test_a_state_in_several_shards_is_read_as_one(store: OnlineStore) -> None:
    plan = plan_of(TOTAL, "reading", ttl_us=3 * SECOND)
    whole = commit(MemoryStore(), "reading", plan, EVENTS)
    for part, mine in enumerate((EVENTS[:1], EVENTS[1:], [])):
        commit(store, "reading", plan, mine, part=part)
    publish(store, replace(whole, partitions=3))
    for cache_s in (0.0, 60.0):
        reader = reader_at(store, 5, cache_s=cache_s)
        for _ in range(2):
            served = reader.read("reading", user=["a", "b", "nobody"])
            assert served["total"] == [42, 5, None]
            assert served.freshness()["total"].dt.epoch("us").to_list() == [
                4 * SECOND, 2 * SECOND, None,
            ]  # fmt: skip
        later = reader_at(store, 8, cache_s=cache_s).read("n", user=["a", "b"])
        assert later.status()["n"].to_list() == ["expired", "expired"]
