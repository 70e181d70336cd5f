"""Feature operations, lists and structs: the same in preview, training row, worker and reader."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import NEWEST, Fold
from fs_notebook.compute.statistics import pinned_plan
from fs_notebook.embedders import HashingEmbedder
from fs_notebook.errors import DefinitionError
from fs_notebook.language.plan import Plan
from fs_notebook.language.sql import compile_sql
from fs_notebook.online.codec import pack_key
from fs_notebook.online.states import StateCodec
from fs_notebook.types import TIME
from tests.compute import cases, naive
from tests.compute.cases import SECOND, WINDOW_S, projected

Event = dict[str, Any]


def clip(x: Any, low: Any, high: Any) -> Any:
    if x is None:
        return None
    if isinstance(x, float) and math.isnan(x):
        return high
    return min(max(x, low), high)


def bin_of(x: Any, edges: list[float]) -> int | None:
    if x is None:
        return None
    return sum(math.isnan(x) or x >= e for e in edges)


def bucket(x: Any, count: int) -> int | None:
    if x is None:
        return None
    if isinstance(x, str):
        return xxhash.xxh64_intdigest(x.encode()) % count
    if isinstance(x, float):
        x = 0.0 if x == 0 else math.nan if math.isnan(x) else x
        return xxhash.xxh64_intdigest(struct.pack("<d", x)) % count
    return xxhash.xxh64_intdigest(struct.pack("<q", x)) % count


def one_hot(x: Any, options: list[Any]) -> list[int] | None:
    return None if x is None else [int(x == o) for o in options]


def embedded(text: str | None) -> list[float] | None:
    return None if text is None else list(map(float, HashingEmbedder().embed([text])[0]))


def scaled(x: float | None, low: float, width: float) -> float | None:
    return None if x is None else (x - low) / width


@dataclass(frozen=True)
class Case:
    """A feature, and what the reference makes of the entity's events that count, oldest first."""

    sql: str
    want: Callable[[list[Event]], Any]

    def __str__(self) -> str:
        return self.sql

    def fold(self, *, window_s: int | None) -> Fold:
        plan = compile_sql(
            f"SELECT user, {self.sql} AS x FROM events GROUP BY user", name="x",
            find_source=lambda name: cases.SOURCE,
            window_us=None if window_s is None else window_s * SECOND,
        )  # fmt: skip
        plan, _ = pinned_plan(plan, None, None, clock=None)  # type: ignore[arg-type]
        assert Plan.from_dict(plan.to_dict()) == plan
        return Fold(plan)


def known(events: list[Event], value: Callable[[Event], Any]) -> list[Any]:
    return [v for e in events if (v := value(e)) is not None]


def last(value: Callable[[Event], Any]) -> Callable[[list[Event]], Any]:
    return lambda events: (known(events, value) or [None])[-1]


def newest(events: list[Event], column: str, count: int) -> list[Any] | None:
    return known(events, lambda e: e[column])[-count:][::-1] or None


def total(events: list[Event]) -> int | None:
    values = known(events, lambda e: e["i"])
    return sum(values) if values else None


def element(values: list[Any] | None, place: int) -> Any:
    fits = values is not None and -len(values) <= place < len(values)
    return values[place] if fits and values is not None else None


def most_frequent(values: list[Any]) -> Any:
    return min(values, key=lambda v: (-values.count(v), v)) if values else None


CASES = [
    Case("LAST(CLIP(f, -2, 3))", last(lambda e: clip(e["f"], -2.0, 3.0))),
    Case("CLIP(SUM(i), 0, 5)", lambda es: clip(total(es), 0, 5)),
    Case("FILL(SUM(i), -1)", lambda es: -1 if total(es) is None else total(es)),
    Case("SUM(BIN(f, [-1, 0, 2.5]))", lambda es: (
        sum(b) if (b := known(es, lambda e: bin_of(e["f"], [-1, 0, 2.5]))) else None)),
    Case("BIN(COUNT(*), [1, 3])", lambda es: bin_of(len(es), [1, 3])),
    Case("LAST(ONE_HOT(s, ['x', 'y']))", last(lambda e: one_hot(e["s"], ["x", "y"]))),
    Case("ONE_HOT(LAST(i), [0, 1, 2])", lambda es: one_hot(
        last(lambda e: e["i"])(es), [0, 1, 2])),
    Case("LAST(HASH_BUCKET(s, 7))", last(lambda e: bucket(e["s"], 7))),
    Case("LAST(HASH_BUCKET(f, 1000))", last(lambda e: bucket(e["f"], 1000))),
    Case("HASH_BUCKET(LAST(i), 16)", lambda es: bucket(last(lambda e: e["i"])(es), 16)),
    Case("LAST(HASH_BUCKET(d, 16))", last(lambda e: bucket(e["d"], 16))),
    Case("LAST(MIN_MAX_SCALE(f, 1, 5))", last(lambda e: scaled(e["f"], 1, 4))),
    Case("Z_SCORE(SUM(i), 10, 0)", lambda es: scaled(total(es), 10, 1)),
    Case("LAST(EMBED(s, 'hashing'))", last(lambda e: embedded(e["s"]))),
    Case("EMBED(LAST(s), 'hashing')", lambda es: embedded(last(lambda e: e["s"])(es))),
    Case("LAST_N(i, 3)[1]", lambda es: element(newest(es, "i", 3), 0)),
    Case("LAST_N(i, 3)[-1]", lambda es: element(newest(es, "i", 3), -1)),
    Case("LAST_N(s, 3)[2:3]", lambda es: None if (v := newest(es, "s", 3)) is None else v[1:3]),
    Case("LEN(COLLECT_SET(i, 100))", lambda es: (
        len(set(newest(es, "i", 10**6) or [])) or None)),
    Case("LIST_MAX(LAST_N(d, 2))", lambda es: max(newest(es, "d", 2) or [None])),
    Case("LAST([i, 1])", last(lambda e: [e["i"], 1])),
    Case("LAST({'a': s, 'b': d})", last(lambda e: {"a": e["s"], "b": e["d"]})),
    Case("LAST({'a': s, 'b': f}).b", lambda es: element(es, -1)["f"] if es else None),
    Case("LAST_N({'a': i}, 2)", lambda es: [{"a": e["i"]} for e in es[-2:][::-1]] or None),
    Case("{'n': COUNT(*), 'last': LAST(d)}", lambda es: {
        "n": len(es), "last": last(lambda e: e["d"])(es)}),
    Case("[COUNT(*), SUM(i)]", lambda es: [len(es), total(es)]),
    Case("ARRAY_TO_STRING(LAST_N(s, 2), '|')", lambda es: (
        None if (v := newest(es, "s", 2)) is None else "|".join(v))),
    Case("TOP_K_COUNTS(s, 2)[1].value", lambda es: most_frequent(known(es, lambda e: e["s"]))),
    Case("ARG_MAX([i], t)", lambda es: (
        None if not es else [next(e["i"] for e in es if e["t"] == es[-1]["t"])])),
]  # fmt: skip


def alike(got: Any, want: Any) -> bool:
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(alike(got[k], want[k]) for k in want)
    if isinstance(want, list) and isinstance(got, list):
        return len(got) == len(want) and all(map(alike, got, want))
    if isinstance(want, float) and isinstance(got, float):
        return naive.alike(got, want, scale=1.0)
    return got == want and type(got) is type(want)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=25)
@given(
    log=cases.logs(max_size=16),
    chunks=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    now=cases.times,
    windowed=st.booleans(),
)
def test_every_path_is_the_reference(
    case: Case, log: list[Event], chunks: list[int], now: int, windowed: bool
) -> None:
    fold = case.fold(window_s=WINDOW_S if windowed else None)
    log = [e if e["i"] is None else {**e, "i": e["i"] % 2**20} for e in log]
    codec = StateCodec(fold)
    stored: dict[bytes, bytes] = {}
    start, turn = 0, 0
    while start < len(log):
        # A worker's batch: the touched states come out of the store and go back into it.
        stop = min(start + chunks[turn % len(chunks)], len(log))
        rows = projected(fold, log, start, stop)
        keys = [pack_key((k,)) for k in rows["__k0"].unique()]
        state = codec.decode(keys, [stored.get(k) for k in keys])
        stored |= codec.encode(fold.add_projected(state, rows).state)
        start, turn = stop, turn + 1
    values = fold.values(codec.decode(list(stored), list(stored.values())), now_us=now)
    preview = fold.values(fold.add_projected(fold.empty, projected(fold, log)).state, now_us=now)
    previewed = dict(zip(preview["__k0"], cases.plain(preview["x"]), strict=True))
    moments = [max(now, t + 1) for t in values[NEWEST]]
    labels = values.select("__k0").with_columns(pl.Series(TIME, moments, dtype=pl.Int64))
    trained = cases.plain(values_at(fold, projected(fold, log), labels)["x"])
    served = cases.plain(values["x"])
    assert set(values["__k0"]) == {e["user"] for e in log} - {None}
    for row, (user, t) in enumerate(zip(values["__k0"], moments, strict=True)):
        when = naive.When(WINDOW_S * SECOND if windowed else None, "left")
        want = case.want(when.inside([e for e in log if e["user"] == user], t))
        for got in (served[row], trained[row], previewed[user]):
            assert alike(got, want), (user, t, got, want)
    empty = fold.empty_values()["x"]
    assert alike(empty, case.want([])), empty


def test_a_hash_is_the_same_on_every_machine() -> None:
    """These numbers may never change: states and models were made with them."""
    buckets = [f"LAST(HASH_BUCKET({c}, 1000)) AS x{c}" for c in "sif"]
    fold = cases.fold_of(", ".join(buckets))
    log = [{"user": "a", "i": -5, "f": 2.5, "s": "news", "b": None, "d": None, "t": 0}]
    values = fold.values(fold.add_projected(fold.empty, projected(fold, log)).state, now_us=None)
    assert values.select("xs", "xi", "xf").row(0) == HASHES


HASHES = (518, 51, 904)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SUM(CLIP(f, 3, 1))", "low end above"),
        ("SUM(CLIP(s, 'a', 'b'))", "types do not fit"),
        ("SUM(BIN(f, [1, 1]))", "above the one before"),
        ("SUM(BIN(f, [i]))", "constants"),
        ("SUM(BIN(f, 3))", "a value and a list"),
        ("SUM(BIN(f, []))", "types do not fit"),
        ("LAST(ONE_HOT(s, ['a', 'a']))", "each once"),
        ("LAST(ONE_HOT(s, [1]))", "types do not fit"),
        ("SUM(HASH_BUCKET(s, 0))", "from 1 to"),
        ("SUM(HASH_BUCKET(s, i))", "constants"),
        ("SUM(QUANTILE_BIN(f, 1))", "from 2 to"),
        ("SUM(Z_SCORE(s))", "types do not fit"),
        ("SUM(Z_SCORE(f, i, 2))", "constants"),
        ("LAST(EMBED(s, s))", "constants"),
        ("LAST(EMBED(i, 'hashing'))", "types do not fit"),
    ],
)
def test_wrong_constants_are_refused(sql: str, says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        cases.fold_of(f"{sql} AS x")
    assert caught.value.remedy


@pytest.mark.parametrize("sql", ["SUM(Z_SCORE(f))", "SUM(QUANTILE_BIN(f, 4))"])
def test_what_is_open_cannot_be_folded(sql: str) -> None:
    with pytest.raises(DefinitionError, match="before what it depends on is pinned"):
        cases.fold_of(f"{sql} AS x")
