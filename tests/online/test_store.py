"""The commit rule, on every store. Numbers are those of FAULTS.md."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fs_notebook.errors import (
    FeatureStoreError,
    FencedError,
    IntegrityError,
    StalePosition,
    UsageError,
)
from fs_notebook.online.codec import pack_key, seal
from fs_notebook.online.protocol import Lease, OnlineStore
from fs_notebook.position import START, Cut, Position
from tests.online.conftest import BackDoor

pytestmark = pytest.mark.timeout(120)

SHARD = "reading_time@3f2a"
A, B, C = (pack_key((name,)) for name in "abc")


def cut(entry: int) -> Cut:
    return Cut((Position(0, 1, entry, 0),))


def begin(store: OnlineStore, puts: Mapping[bytes, bytes], *, shard: str = SHARD) -> Lease:
    lease = store.claim(shard, fingerprint="f1")
    return store.commit(lease, cut=cut(1), puts=puts, info={"events": len(puts)})


def contents(store: OnlineStore, shard: str = SHARD) -> dict[bytes, bytes | None]:
    keys = sorted(store.entities(shard))
    return dict(zip(keys, store.snapshot(shard, keys)[1], strict=True))


def test_a_new_shard_has_no_position(store: OnlineStore) -> None:
    assert store.state(SHARD) is None
    lease = store.claim(SHARD, fingerprint="f1")
    assert (lease.cut, lease.info) == (None, {})
    assert store.load(lease, [A, B]) == [None, None]
    assert store.load(lease, []) == []
    state = store.state(SHARD)
    assert state is not None
    assert (state.cut, state.fingerprint) == (None, "f1")


def test_a_commit_moves_values_and_position_together(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1", B: b"\0\xff"})
    assert lease.cut == cut(1)
    assert store.load(lease, [B, C, A]) == [b"\0\xff", None, b"1"]
    lease = store.commit(lease, cut=cut(2), puts={C: b""}, deletes=[A], info={"n": [1]})
    state, values = store.snapshot(SHARD, [A, B, C])
    assert state is not None
    assert (state.cut, state.info) == (cut(2), {"n": [1]})
    assert values == [None, b"\0\xff", b""]
    assert store.load(lease, [A]) == [None]
    again = store.claim(SHARD, fingerprint="f1")
    assert (again.cut, again.info) == (cut(2), {"n": [1]})
    assert again.epoch > lease.epoch


def test_fault_22_the_empty_cut_is_a_position_too(store: OnlineStore) -> None:
    lease = store.claim(SHARD, fingerprint="f1")
    store.commit(lease, cut=START, puts={}, info={})
    assert store.claim(SHARD, fingerprint="f1").cut == START


def test_fault_04_a_fenced_worker_writes_nothing(store: OnlineStore) -> None:
    old = begin(store, {A: b"1"})
    new = store.claim(SHARD, fingerprint="f1")
    with pytest.raises(FencedError, match=SHARD):
        store.commit(old, cut=cut(2), puts={A: b"2", B: b"2"}, deletes=[C], info={})
    with pytest.raises(FencedError):
        store.load(old, [A])
    state, values = store.snapshot(SHARD, [A, B])
    assert state is not None
    assert state.cut == cut(1)
    assert values == [b"1", None]
    assert store.commit(new, cut=cut(2), puts={A: b"2"}, info={}).cut == cut(2)


def test_fault_05_of_many_claims_only_the_newest_writes(store: OnlineStore) -> None:
    leases: list[Lease] = []
    threads = [
        threading.Thread(target=lambda: leases.append(store.claim(SHARD, fingerprint="f1")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({lease.epoch for lease in leases}) == 8
    done = 0
    for lease in leases:
        try:
            store.commit(lease, cut=cut(1), puts={A: b"1"}, info={})
            done += 1
            assert lease.epoch == max(x.epoch for x in leases)
        except FencedError:
            pass
    assert done == 1


def test_fault_06_a_stale_position_writes_nothing(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
    for call in (
        lambda: store.commit(lease, cut=cut(3), puts={A: b"3", B: b"3"}, deletes=[C], info={}),
        lambda: store.load(lease, [A]),
    ):
        with pytest.raises(StalePosition, match=SHARD):
            call()
    assert contents(store) == {A: b"2"}


def test_fault_09_a_flushed_store_is_stale_never_empty(door: BackDoor) -> None:
    store = door.store
    fresh = store.claim("other", fingerprint="f1")
    lease = begin(store, {A: b"1"})
    door.flush()
    for call in (
        lambda: store.commit(lease, cut=cut(2), puts={A: b"2"}, info={}),
        lambda: store.commit(fresh, cut=cut(2), puts={A: b"2"}, info={}),
        lambda: store.load(lease, [A]),
        lambda: store.load(lease, []),
    ):
        with pytest.raises(StalePosition):
            call()
    assert store.state(SHARD) is None
    again = store.claim(SHARD, fingerprint="f1")
    assert again.cut is None
    assert again.epoch > lease.epoch


def test_fault_10_an_evicted_value_is_an_integrity_error(door: BackDoor) -> None:
    lease = begin(door.store, {A: b"1", B: b"1"})
    door.evict(SHARD, A)
    assert door.store.load(lease, [B, C]) == [b"1", None]
    with pytest.raises(IntegrityError, match="'a'") as caught:
        door.store.load(lease, [B, A])
    assert "promote it again" in str(caught.value.remedy)


def test_fault_10_values_without_a_position_are_refused(door: BackDoor) -> None:
    store = door.store
    begin(store, {A: b"1"})
    door.evict_position(SHARD)
    with pytest.raises(IntegrityError, match="no position") as caught:
        store.claim(SHARD, fingerprint="f1")
    assert "promote it again" in str(caught.value.remedy)
    assert store.drop(SHARD) == 1
    lease = store.claim(SHARD, fingerprint="f1")
    assert store.load(lease, [A]) == [None]


def test_fault_30_a_corrupt_value_is_an_integrity_error(door: BackDoor) -> None:
    lease = begin(door.store, {A: b"111111"})
    sealed = door.sealed(SHARD, A)
    for damaged in (sealed[:-1], b"x" + sealed[1:], b"", seal(B, b"111111")):
        door.overwrite(SHARD, A, damaged)
        for call in (
            lambda: door.store.load(lease, [A]),
            lambda: door.store.snapshot(SHARD, [A]),
            lambda: door.store.read(0, [(SHARD, [A])]),
        ):
            with pytest.raises(IntegrityError, match="'a'") as caught:
                call()
            assert "promote it again" in str(caught.value.remedy)


def test_fault_29_another_definition_is_refused(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    with pytest.raises(IntegrityError, match=SHARD):
        store.claim(SHARD, fingerprint="f2")
    assert store.load(lease, [A]) == [b"1"]


def test_a_commit_never_goes_back(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    with pytest.raises(UsageError, match="back"):
        store.commit(lease, cut=cut(0), puts={}, info={})


def test_a_commit_that_contradicts_itself_is_refused(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    with pytest.raises(UsageError):
        store.commit(lease, cut=cut(2), puts={A: b"2"}, deletes=[A], info={})
    with pytest.raises(UsageError):
        store.commit(lease, cut=cut(2), puts={A: b"2"}, info={"bad": object()})
    assert contents(store) == {A: b"1"}


def test_deleting_what_is_not_there_is_no_error(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    lease = store.commit(lease, cut=cut(2), puts={}, deletes=[B, B, A], info={})
    assert contents(store) == {}
    assert store.load(lease, [A, B]) == [None, None]


@pytest.mark.parametrize(
    "shard", ["a*", "a?[b]", "{x}", "a}:e:{", "%7B", "a b\n", "\\", "ünï😀", "a:e:b", "'\";--"]
)
def test_fault_36_odd_shard_names_are_kept_apart(store: OnlineStore, shard: str) -> None:
    for number, name in enumerate([shard, "ab", "a", f"{shard}x", "a?[b]c", "{x", "x"]):
        lease = store.claim(name, fingerprint="f")
        store.commit(lease, cut=cut(1), puts={b"%d" % number: name.encode()}, info={})
    assert contents(store, shard) == {b"0": shard.encode()}
    assert store.drop(shard) == 1
    assert contents(store, f"{shard}x") == {b"3": f"{shard}x".encode()}
    assert contents(store, "ab") == {b"1": b"ab"}


@pytest.mark.parametrize("shard", ["", "\ud800"])
def test_a_shard_without_a_usable_name_is_refused(store: OnlineStore, shard: str) -> None:
    with pytest.raises(UsageError):
        store.claim(shard, fingerprint="f")


def test_fault_28_odd_entity_keys_are_kept_apart(store: OnlineStore) -> None:
    parts: list[Any] = [1, "1", True, 1.0, "", " ", "\0", "\r\n", "*", "{}", "x" * 5000, "é"]
    puts = {pack_key((part,)): repr(part).encode() for part in parts}
    lease = begin(store, puts)
    assert store.load(lease, list(puts)) == list(puts.values())
    assert contents(store) == puts


def test_many_values_in_one_commit(store: OnlineStore) -> None:
    puts = {pack_key((i,)): b"%d" % i for i in range(23_456)}
    lease = begin(store, puts)
    assert store.load(lease, list(puts)) == list(puts.values())
    assert set(store.entities(SHARD)) == set(puts)
    keys = list(puts)
    changed = dict.fromkeys(keys[::2], b"new")
    lease = store.commit(lease, cut=cut(2), puts=changed, deletes=keys[1::4], info={})
    expected = puts | changed
    for key in keys[1::4]:
        del expected[key]
    assert store.load(lease, keys) == [expected.get(k) for k in keys]
    assert store.drop(SHARD) == len(expected)
    assert store.state(SHARD) is None
    assert list(store.entities(SHARD)) == []


def test_dropping_fences_and_leaves_nothing(store: OnlineStore) -> None:
    lease = begin(store, {A: b"1"})
    store.heartbeat(SHARD, {"state": "live"}, ttl_seconds=60)
    assert store.drop(SHARD) == 1
    assert store.drop(SHARD) == 0
    assert store.health(SHARD) is None
    with pytest.raises(StalePosition):
        store.commit(lease, cut=cut(2), puts={A: b"2"}, info={})
    assert store.claim(SHARD, fingerprint="another").cut is None


def test_a_snapshot_is_bounded(store: OnlineStore) -> None:
    with pytest.raises(UsageError):
        store.snapshot(SHARD, [b"%d" % i for i in range(1001)])
    assert store.snapshot("never claimed", [A]) == (None, [None])


def test_a_report_lives_as_long_as_it_says(store: OnlineStore) -> None:
    assert store.health(SHARD) is None
    store.heartbeat(SHARD, {"state": "live", "lag": 1.5}, ttl_seconds=60)
    assert store.reports([SHARD, "nobody", SHARD]) == [
        store.health(SHARD),
        None,
        store.health(SHARD),
    ]
    assert store.health(SHARD) == {"state": "live", "lag": 1.5}
    store.heartbeat(SHARD, {"state": "old"}, ttl_seconds=0.001)
    waited = threading.Event()
    for _ in range(200):
        if store.health(SHARD) is None:
            break
        waited.wait(0.01)
    assert store.health(SHARD) is None


def test_readers_see_a_change_of_generation(store: OnlineStore) -> None:
    begin(store, {A: b"1", B: b"2"})
    begin(store, {A: b"3"}, shard="other")
    store.claim("nothing", fingerprint="f1")
    assert store.published() == (0, {})
    store.publish("generation", {"shards": [SHARD]})
    store.publish("g", {"n": 1})
    first, records = store.published()
    assert records == {"g": {"n": 1}, "generation": {"shards": [SHARD]}}
    wanted = [(SHARD, [B, C, A]), ("nothing", [A]), ("other", [A]), (SHARD, [])]
    values = [[b"2", None, b"1"], [None], [b"3"], []]
    assert store.read(first, wanted) == (True, values)
    store.publish("g", None)
    assert store.read(first, wanted) == (False, values)
    second, records = store.published()
    assert second > first
    assert "g" not in records
    assert store.read(second, []) == (True, [])


def test_a_generation_never_returns_after_a_flush(door: BackDoor) -> None:
    door.store.publish("g", {"n": 1})
    first, _ = door.store.published()
    door.flush()
    assert door.store.read(first, [])[0] is False
    door.store.publish("g", {"n": 2})
    assert door.store.published()[0] > first


ENTITIES = [pack_key((i,)) for i in range(6)]
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(ENTITIES), st.binary(max_size=6), max_size=6),
        st.lists(st.sampled_from(ENTITIES), max_size=3),
        st.sampled_from(["commit", "claim", "zombie", "stale"]),
    ),
    max_size=12,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_sequence_of_commits_equals_a_dict(
    store: OnlineStore, steps: list[tuple[dict[bytes, bytes], list[bytes], str]]
) -> None:
    shard = uuid.uuid4().hex
    model: dict[bytes, bytes] = {}
    lease = store.claim(shard, fingerprint="f")
    for entry, (puts, deletes, step) in enumerate(steps):
        deletes = [k for k in deletes if k not in puts]
        held = lease
        if step == "claim":
            lease = store.claim(shard, fingerprint="f")
        if step == "zombie":
            held, lease = lease, store.claim(shard, fingerprint="f")
        if step == "stale":
            lease = store.commit(lease, cut=cut(entry * 2), puts={}, info={})
        if step in ("zombie", "stale"):
            with pytest.raises(FeatureStoreError):
                store.commit(held, cut=cut(entry * 2 + 1), puts=puts, deletes=deletes, info={})
        else:
            lease = store.commit(
                lease, cut=cut(entry * 2 + 1), puts=puts, deletes=deletes, info={"n": entry}
            )
            model |= puts
            for key in deletes:
                model.pop(key, None)
        assert store.load(lease, ENTITIES) == [model.get(k) for k in ENTITIES]
        state = store.state(shard)
        assert state is not None
        assert state.cut == lease.cut
        assert state.epoch == lease.epoch
    assert contents(store, shard) == model
