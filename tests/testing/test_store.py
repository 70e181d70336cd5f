"""What goes wrong with the simulated store; what every store promises is asked of it elsewhere."""

from __future__ import annotations

from contextlib import suppress

import pytest

from fs_notebook.errors import (
    FencedError,
    IntegrityError,
    StalePosition,
    UnreachableError,
)
from fs_notebook.online.codec import pack_key
from fs_notebook.online.protocol import Lease
from fs_notebook.position import Cut, Position
from fs_notebook.testing import Fault, Faults, Killed, SimulatedClock, SimulatedStore

SHARD = "total@1"
A, B = pack_key(("a",)), pack_key(("b",))


def cut(entry: int) -> Cut:
    return Cut((Position(0, 1, entry, 0),))


def begun(*kinds: Fault, at: int = 1) -> tuple[SimulatedStore, Lease]:
    """Return a store with one commit, whose second one meets faults, and the lease at it."""
    store = SimulatedStore(faults=Faults(at={kind: [at] for kind in kinds}))
    lease = store.claim(SHARD, fingerprint="f")
    return store, store.commit(lease, cut=cut(1), puts={A: b"1"}, info={})


def again(store: SimulatedStore, lease: Lease) -> Lease:
    return store.commit(lease, cut=cut(2), puts={A: b"2", B: b"2"}, info={})


def held(store: SimulatedStore) -> tuple[Cut | None, list[bytes | None]]:
    state, values = store.memory.snapshot(SHARD, [A, B])
    return (None if state is None else state.cut), values


BEFORE, AFTER = (cut(1), [b"1", None]), (cut(2), [b"2", b"2"])


@pytest.mark.parametrize("kind", [Fault.COMMIT_LOST, Fault.OUT_OF_MEMORY])
def test_fault_03_11_a_commit_that_is_lost_or_refused_writes_nothing(kind: Fault) -> None:
    store, lease = begun(kind)
    with pytest.raises(UnreachableError):
        again(store, lease)
    assert held(store) == BEFORE
    again(store, lease)
    assert held(store) == AFTER


def test_fault_02_a_commit_whose_reply_is_lost_took_effect() -> None:
    store, lease = begun(Fault.REPLY_LOST)
    with pytest.raises(UnreachableError):
        again(store, lease)
    assert held(store) == AFTER
    with pytest.raises(StalePosition):
        again(store, lease)


def test_fault_03_a_commit_that_is_late_arrives_unless_the_shard_was_claimed() -> None:
    for claimed in (False, True):
        store, lease = begun(Fault.COMMIT_LATE)
        with pytest.raises(UnreachableError):
            again(store, lease)
        assert held(store) == BEFORE
        if claimed:
            store.memory.claim(SHARD, fingerprint="f")
        for _ in range(10):
            store.ping()
        assert held(store) == (BEFORE if claimed else AFTER)
    store, lease = begun(Fault.COMMIT_LATE)
    with pytest.raises(UnreachableError):
        again(store, lease)
    store.settle()
    assert held(store) == AFTER


def test_fault_01_a_kill_comes_before_a_commit_or_after_it() -> None:
    # The steps: the claim, the first commit twice, then the second one.
    for place, left in ((3, BEFORE), (4, AFTER)):
        store, lease = begun(Fault.KILLED, at=place)
        with pytest.raises(Killed):
            again(store, lease)
        assert held(store) == left


def test_fault_04_09_10_damage_is_what_the_store_says_it_is() -> None:
    store, lease = begun(Fault.TAKEN_OVER)
    with pytest.raises(FencedError):
        again(store, lease)
    store, lease = begun(Fault.FLUSHED)
    with pytest.raises(StalePosition):
        again(store, lease)
    assert held(store) == (None, [None, None])
    store, lease = begun(Fault.EVICTED, at=0)
    with pytest.raises(IntegrityError, match="evicted"):
        store.load(lease, [A])


def test_fault_07_a_restart_takes_values_and_position_back_together() -> None:
    found = []
    for seed in range(30):
        store = SimulatedStore(faults=Faults(seed, at={Fault.WENT_BACK: [2]}))
        lease = store.claim(SHARD, fingerprint="f")
        lease = again(store, store.commit(lease, cut=cut(1), puts={A: b"1"}, info={}))
        with suppress(StalePosition, FencedError):
            store.load(lease, [A])
        found.append(held(store))
    empty = (None, [None, None])
    assert all(one in (AFTER, BEFORE, empty) for one in found)
    assert BEFORE in found
    assert empty in found


def test_silence_and_delays() -> None:
    clock = SimulatedClock()
    faults = Faults(at={Fault.STORE_SILENT: [0], Fault.DELAY: range(1, 40)})
    store = SimulatedStore(clock=clock, faults=faults)
    with pytest.raises(UnreachableError, match="answer"):
        store.ping()
    for _ in range(30):
        store.ping()
    assert clock.monotonic_s() > 3
    assert faults.steps == 31
    with faults.calm():
        store.ping()
    assert faults.steps == 31
