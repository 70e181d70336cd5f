"""Busy entities' events lie in buckets of their own; values stay what the log says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fs_notebook.compute import buckets
from fs_notebook.compute.fold import Fold
from fs_notebook.errors import IntegrityError
from fs_notebook.online.asks import run
from fs_notebook.online.busy import BusyStates
from fs_notebook.online.protocol import Lease
from fs_notebook.online.states import StateCodec, entity_of, is_bucket
from fs_notebook.worker import held
from fs_notebook.worker.held import Held
from tests.compute import cases, naive
from tests.compute.cases import SECOND, WINDOW_S, Case, projected

SPAN = f"INTERVAL {WINDOW_S} SECOND"
GROUPS = {
    "window": ("", naive.When(WINDOW_S * SECOND)),
    "tumble": (f", TUMBLE(t, {SPAN})", naive.When(WINDOW_S * SECOND, slide=WINDOW_S * SECOND)),
    "hop": (
        f", HOP(t, INTERVAL 2 SECOND, {SPAN})",
        naive.When(WINDOW_S * SECOND, slide=2 * SECOND),
    ),
}
CASES = [
    Case("count", ()), Case("sum", ("f",)), Case("max", ("i",)), Case("last", ("s",)),
    Case("mode", ("s",)), Case("n_unique", ("i",)), Case("var_pop", ("i",)),
    Case("collect_list", ("s",)), Case("approx_n_unique", ("s",)),
]  # fmt: skip


def fold_of(kind: str, closed: str) -> tuple[Fold, naive.When]:
    group, when = GROUPS[kind]
    columns = ", ".join(f"{c.sql} AS x{n}" for n, c in enumerate(CASES))
    window_s = WINDOW_S if kind == "window" else None
    fold = cases.fold_of(columns, window_s=window_s, closed=closed, group=group)
    return fold, naive.When(when.window, closed, when.slide)


class Shelf:
    """A store that is a dict, and a worker's steps on it."""

    def __init__(self, fold: Fold, *, split_rows: int) -> None:
        self.fold = fold
        self.codec = StateCodec(fold)
        self.codec.split_rows = split_rows
        self.held: dict[bytes, bytes] = {}
        self.loaded: set[bytes] = set()

    def begun(self) -> Held:
        """Return what a worker holds that has just started."""
        return Held(self.fold, self.codec, Lease("s", 1, None, {}), is_all=not self.held)

    def load(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.loaded |= set(keys)
        return [self.held.get(k) for k in keys]

    def commit(self, worker: Held) -> set[bytes]:
        """Write what a worker holds; return what was put."""
        puts, deletes = worker.changes()
        assert not set(puts) & set(deletes)
        self.held |= puts
        for key in deletes:
            del self.held[key]
        worker.settle(puts)
        return set(puts)

    def step(self, frame: Any) -> tuple[set[bytes], set[bytes]]:
        """Fold projected rows in, as a live worker does; return what was loaded and put."""
        self.loaded = set()
        worker = self.begun()
        worker.add(frame, self.load)
        return self.loaded, self.commit(worker)

    def values(self, now: int | None) -> dict[Any, dict[str, Any]]:
        """Read every entity, as a reader does."""
        codec = self.codec
        keys = [k for k in self.held if not is_bucket(k)]
        blobs = [self.held[k] for k in keys]
        state = codec.decode(keys, blobs)
        needed = sorted(codec.needed_by(state, now))
        state = codec.with_buckets(state, needed, [self.held[k] for k in needed])
        frame = self.fold.values(state, now_us=now)
        assert_frame_equal(
            frame, pl.concat([frame.clear(), *self.each_alone(keys, now)]), check_row_order=False
        )
        columns = {n: cases.plain(frame[n]) for n in self.fold.plan.features}
        names = list(frame["__k0"])
        return {k: {n: v[i] for n, v in columns.items()} for i, k in enumerate(names)}

    def each_alone(self, keys: list[bytes], now: int | None) -> list[pl.DataFrame]:
        """Read entities one by one: a reader finishes one by other means than many."""
        found = []
        for key in keys:
            state = self.codec.decode([key], [self.held[key]])
            needed = sorted(self.codec.needed_by(state, now))
            state = self.codec.with_buckets(state, needed, [self.held[k] for k in needed])
            found.append(self.fold.values(state, now_us=now))
        return found


@settings(max_examples=60)
@given(
    log=cases.logs(max_size=40),
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    nows=st.lists(cases.times, min_size=1, max_size=3),
    split_rows=st.sampled_from([1, 3, 8]),
    count=st.sampled_from([1, 3, 16]),
    kind=st.sampled_from(sorted(GROUPS)),
    closed=st.sampled_from(["left", "right"]),
)
def test_values_of_split_entities_are_the_naive_fold(
    log: list[dict[str, Any]],
    chunks: list[int],
    nows: list[int],
    split_rows: int,
    count: int,
    kind: str,
    closed: str,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKETS", count)
        fold, when = fold_of(kind, closed)
        shelf = Shelf(fold, split_rows=split_rows)
        start = turn = 0
        while start < len(log):
            stop = min(start + chunks[turn % len(chunks)], len(log))
            shelf.step(projected(fold, log, start, stop))
            start, turn = stop, turn + 1
        assert_naive(shelf, log, nows, when)


def assert_naive(
    shelf: Shelf, log: list[dict[str, Any]], nows: list[int], when: naive.When
) -> None:
    scale = cases.scale(log)
    for now in [*nows, None]:
        rows = shelf.values(now)
        assert rows.keys() == {e["user"] for e in log} - {None}
        for user, row in rows.items():
            newest = max(e["t"] for e in log if e["user"] == user)
            t = newest + 1 if now is None else max(now, newest + 1)
            for n, case in enumerate(CASES):
                want = naive.value(log, entity=user, t=t, name=case.name, args=case.args,
                                   params=case.params, when=when)  # fmt: skip
                power = 2 if case.name == "var_pop" else 1
                got = row[f"x{n}"]
                assert naive.alike(got, want, scale=scale, power=power), (case, user, got, want)


@settings(max_examples=50)
@given(
    log=cases.logs(max_size=40),
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    turns=st.lists(st.sampled_from(["hold", "commit", "crash"]), min_size=1, max_size=8),
    rows_max=st.sampled_from([0, 4, 1_000]),
    split_rows=st.sampled_from([1, 3, 1_000]),
    kind=st.sampled_from(sorted(GROUPS)),
)
def test_what_is_held_over_several_batches_is_the_naive_fold(
    log: list[dict[str, Any]],
    chunks: list[int],
    turns: list[str],
    rows_max: int,
    split_rows: int,
    kind: str,
) -> None:
    """However often it is committed, forgotten for its size, or lost in a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKETS", 3)
        patch.setattr(held, "ROWS_MAX", rows_max)
        fold, when = fold_of(kind, "left")
        shelf = Shelf(fold, split_rows=split_rows)
        plain = Shelf(fold, split_rows=split_rows)
        worker = shelf.begun()
        start = committed = turn = 0
        crashes = 0
        while committed < len(log):
            stop = min(start + chunks[turn % len(chunks)], len(log))
            if stop > start:
                worker.add(projected(fold, log, start, stop), shelf.load)
            do = turns[turn % len(turns)]
            if do == "crash" and crashes < 3:
                start, crashes, worker = committed, crashes + 1, shelf.begun()
            else:
                start = stop
                if do == "commit" or worker.is_full or stop == len(log):
                    shelf.commit(worker)
                    committed = stop
            turn += 1
        for place in range(len(log)):
            plain.step(projected(fold, log, place, place + 1))
        if split_rows > len(log):
            assert shelf.held == plain.held
        assert_naive(shelf, log, [e["t"] for e in log[-1:]], when)


def busy_log(count: int) -> list[dict[str, Any]]:
    """Return events of one user, evenly over ten windows."""
    base = dict.fromkeys(("i", "f", "s", "b", "d"))
    span = 10 * WINDOW_S * SECOND
    return [{**base, "user": "a", "f": 1.0, "t": n * span // count} for n in range(count)]


def test_fault_38_a_busy_key_s_commit_touches_the_buckets_that_it_adds_to_and_old_ones_go() -> None:
    fold = cases.fold_of("COUNT(*) AS x, SUM(f) AS y", window_s=WINDOW_S)
    shelf = Shelf(fold, split_rows=50)
    log = busy_log(12_800)
    shelf.step(projected(fold, log, 0, 12_000))
    for start in range(12_000, 12_800, 10):
        loaded, put = shelf.step(projected(fold, log, start, start + 10))
    # The newest and the oldest bucket and the entity itself, of some 130 that there are.
    assert len(loaded) <= 6
    assert len(put) <= 6
    stored = [k for k in shelf.held if is_bucket(k)]
    assert buckets.BUCKETS // 2 < len(stored) <= buckets.BUCKETS + 2
    assert {entity_of(k) for k in stored} == {k for k in shelf.held if not is_bucket(k)}
    newest = log[-1]["t"]
    wanted = sum(e["t"] >= newest + 1 - WINDOW_S * SECOND for e in log)
    assert shelf.values(None)["a"] == {"x": wanted, "y": float(wanted)}
    # The value in front is small: no event lies in it.
    (main,) = (v for k, v in shelf.held.items() if not is_bucket(k))
    assert len(main) < 40 * (buckets.BUCKETS + 10)


def test_events_that_a_bucket_has_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Wide enough for the window's start to lie within one.
    monkeypatch.setattr(buckets, "BUCKETS", 16)
    fold = cases.fold_of("COUNT(*) AS x", window_s=WINDOW_S)
    shelf = Shelf(fold, split_rows=50)
    log = busy_log(4_000)
    shelf.step(projected(fold, log))
    codec = shelf.codec
    (key,) = (k for k in shelf.held if not is_bucket(k))
    state = codec.decode([key], [shelf.held[key]])
    assert codec.needed_by(state, log[-1]["t"] + 30_000)
    with pytest.raises(IntegrityError, match="0 events where"):
        fold.values(state, now_us=log[-1]["t"] + 30_000)


class Counting:
    """A store that serves a shelf and counts what is asked of it."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.reads = 0

    def read(self, generation: int, shards: Any) -> tuple[bool, list[list[bytes | None]]]:
        self.reads += 1
        return True, [[self.shelf.held.get(k) for k in keys] for _, keys in shards]


def test_a_reader_keeps_a_busy_entitys_buckets_until_the_worker_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(buckets, "BUCKETS", 16)
    fold = cases.fold_of("COUNT(*) AS x", window_s=WINDOW_S)
    shelf = Shelf(fold, split_rows=50)
    log = busy_log(4_000)
    shelf.step(projected(fold, log))
    store = Counting(shelf)
    busy = BusyStates()
    (key,) = (k for k in shelf.held if not is_bucket(k))

    def read(now: int) -> tuple[int, int]:
        before = store.reads
        blobs: list[list[bytes | None]] = [[shelf.held[key]]]
        steps = busy.at(shelf.codec, ["shard"], [key], blobs, now_us=now, generation=1)
        state = run(steps, store)  # type: ignore[arg-type]
        value = fold.values(state, now_us=now)["x"].item()
        expected = sum(now - WINDOW_S * SECOND <= e["t"] < now for e in log)
        assert value == expected
        return expected, store.reads - before

    now = log[-1]["t"] + 30_000
    first, asked = read(now)
    assert asked == 1
    assert read(now) == (first, 0)
    # Another bucket is cut through now: those that are kept do not do.
    later, asked = read(now + WINDOW_S * SECOND // 2 + 1_234)
    assert later < first
    assert asked == 1
    newer = {**log[-1], "t": now + 10}
    log.append(newer)
    shelf.step(projected(fold, [newer]))
    assert read(now + 20)[1] == 1
