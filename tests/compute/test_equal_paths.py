"""Preview = training row = incremental state, and all of them = the naive fold."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute import asof, ranges
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import NEWEST, VALID_UNTIL, Fold
from fs_notebook.errors import OverflowInFold
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.plan import Window
from fs_notebook.types import TIME
from tests.compute import cases, naive
from tests.compute.cases import SECOND, WINDOW_S, Case, frame_of, projected

CASES = cases.chosen_cases()
SPAN = f"INTERVAL {WINDOW_S} SECOND"
WHENS = {
    "lifetime": ("", naive.When()),
    "window": ("", naive.When(WINDOW_S * SECOND)),
    "tumble": (f", TUMBLE(t, {SPAN})", naive.When(WINDOW_S * SECOND, slide=WINDOW_S * SECOND)),
    "hop": (
        f", HOP(t, INTERVAL 2 SECOND, {SPAN})",
        naive.When(WINDOW_S * SECOND, slide=2 * SECOND),
    ),
    "session": (", SESSION(t, INTERVAL 3 SECOND)", naive.When(gap=3 * SECOND)),
}
# Where the reference is exact and the value is only near it by promise.
NEAR = {"approx_n_unique": 0.05, "approx_quantile": 0.0101}
# Values whose rounding error is relative to the square of the arguments.
SQUARED = {"var_pop", "var_samp", "covar_pop", "covar_samp"}
# Ratios of such values: what they are is lost where the spread is lost in rounding.
SHAPES = {"skewness", "kurtosis", "corr"}


def fold_of(case: Case, kind: str, closed: str) -> tuple[Fold, naive.When]:
    group, when = WHENS[kind]
    window_s = WINDOW_S if kind == "window" else None
    fold = case.fold(window_s=window_s, closed=closed, over=group)
    return fold, naive.When(when.window, closed, when.slide, when.gap)


def expected(case: Case, log: list[dict[str, Any]], entity: Any, t: int, when: naive.When) -> Any:
    return naive.value(
        log, entity=entity, t=t, name=case.name, args=case.args, params=case.params, when=when
    )


def agree(case: Case, got: Any, want: Any, log: list[dict[str, Any]]) -> bool:
    scale = cases.scale(log)
    if case.name in NEAR and isinstance(got, (int, float)) and isinstance(want, (int, float)):
        return naive.near(got, want, NEAR[case.name])
    if case.name in SHAPES:
        return naive.shape_alike(got, want)
    power = 2 if case.name in SQUARED else 1
    if case.name.startswith("stddev") and isinstance(got, float) and isinstance(want, float):
        return naive.alike(got**2, want**2, scale=scale, power=2)
    return naive.alike(got, want, scale=scale, power=power) and type(got) is type(want)


def small_numbers(log: list[dict[str, Any]], case: Case) -> list[dict[str, Any]]:
    """For the shapes of distributions: without sizes beside which a spread is lost."""
    if case.name not in SHAPES | {"approx_quantile"}:
        return log
    return [
        {**e, "i": None if e["i"] is None else e["i"] % 97,
         "f": e["f"] if e["f"] is None or not abs(e["f"]) < 1e300 else e["f"] % 97,
         **{c: None if e[c] is None else e[c] % 97 for c in ("m", "h")}}
        for e in log
    ]  # fmt: skip


ways = {
    "closed": st.sampled_from(["left", "right"]),
    "kind": st.sampled_from(sorted(WHENS)),
}


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=10)
@given(
    log=cases.logs(max_size=24),
    chunks=st.lists(st.integers(1, 7), min_size=1, max_size=10),
    now=cases.times,
    **ways,
)
def test_incremental_fold_is_the_naive_fold(
    case: Case, log: list[dict[str, Any]], chunks: list[int], now: int, closed: str, kind: str
) -> None:
    fold, when = fold_of(case, kind, closed)
    log = small_numbers(log, case)
    state, start, turn = fold.empty, 0, 0
    while start < len(log):
        stop = min(start + chunks[turn % len(chunks)], len(log))
        state = fold.add_projected(state, projected(fold, log, start, stop)).state
        start, turn = stop, turn + 1
    values = fold.values(state, now_us=now)
    users = {e["user"] for e in log} - {None}
    assert set(values["__k0"]) == users
    found = dict(zip(values["__k0"], cases.plain(values["x"]), strict=True))
    for row in values.rows(named=True):
        entity, got = row["__k0"], found[row["__k0"]]
        newest = max(e["t"] for e in log if e["user"] == entity)
        assert row[NEWEST] == newest
        t = max(now, newest + 1)
        want = expected(case, log, entity, t, when)
        assert agree(case, got, want, log), (entity, t, got, want)
        # The promise that a value holds until VALID_UNTIL.
        until = row[VALID_UNTIL]
        if until is not None and until >= t:
            again = expected(case, log, entity, until, when)
            assert agree(case, got, again, log), (entity, until, got, again)
        later = (until if until is not None and until >= t else t) + 1
        if until is None and not fold.bound[0].timed:
            assert agree(case, got, expected(case, log, entity, later + 10**9, when), log)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=10)
@given(
    log=cases.logs(max_size=24),
    labels=st.lists(
        st.tuples(st.sampled_from(["a", "b", "ü\u2028", "zz", None]), cases.times), max_size=8
    ),
    spread=st.booleans(),
    block=st.sampled_from([1, 2, 64]),
    often=st.sampled_from([1, 6]),
    **ways,
)
def test_training_row_is_the_naive_fold(
    case: Case,
    log: list[dict[str, Any]],
    labels: list[tuple[Any, int]],
    spread: bool,
    block: int,
    often: int,
    closed: str,
    kind: str,
) -> None:
    fold, when = fold_of(case, kind, closed)
    log = small_numbers(log, case)
    if spread:
        # Two events centuries apart force the code that packs times by rank.
        far = {"i": 1, "f": 1.0, "s": "x", "b": True, "d": 0,
               "m": Decimal("0.1"), "h": Decimal(1)}  # fmt: skip
        log = [*log, {"user": "a", "t": -(2**60), **far}, {"user": "b", "t": 2**60, **far}]
    # Labels that outnumber the events are looked up in lots.
    asked = labels * often
    frame = pl.DataFrame(asked, schema={"__k0": pl.String, TIME: pl.Int64}, orient="row")
    with pytest.MonkeyPatch.context() as patch:
        # Small blocks and lots, so that a short log has long ranges and a few labels many lots.
        patch.setattr(ranges, "BLOCK", block)
        patch.setattr(asof, "LABELS_MIN", block)
        patch.setattr(asof, "TOGETHER", block)
        got = values_at(fold, projected(fold, log), frame)["x"]
    got = cases.plain(got)
    assert len(got) == len(asked)
    assert all(agree(case, value, got[i % len(labels)], log) for i, value in enumerate(got))
    for (user, t), value in zip(labels, got[: len(labels)], strict=True):
        want = expected(case, log, user, t, when)
        assert agree(case, value, want, log), (user, t, value, want)


GROUP = [c for c in CASES if c.name in {"count", "sum", "max", "last", "mode", "var_pop", "top_k"}]


@pytest.mark.parametrize("kind", sorted(WHENS))
@settings(max_examples=25)
@given(log=cases.logs(max_size=24), seed=st.randoms(use_true_random=False), t=cases.times)
def test_other_labels_and_later_events_change_nothing(
    kind: str, log: list[dict[str, Any]], seed: Any, t: int
) -> None:
    label = pl.DataFrame({"__k0": ["a"], TIME: [t]}, schema={"__k0": pl.String, TIME: pl.Int64})
    crowd = pl.concat([label, label.with_columns(pl.lit("b").alias("__k0")), label])
    # What comes at or after t may come at another time after it, and anything may arrive in
    # another order: the position of each event is its own.
    shifted = [dict(e, t=e["t"] + 7 * SECOND) if e["t"] >= t else e for e in log]
    places = list(range(len(log)))
    seed.shuffle(places)
    for case in GROUP:
        fold, _ = fold_of(case, kind, "left")
        alone = values_at(fold, projected(fold, log), label)["x"].to_list()
        mixed = projected(fold, shifted)
        if mixed.height == len(places):
            mixed = mixed[places]
        crowded = values_at(fold, mixed, crowd)["x"].to_list()
        for row in (0, 2):
            assert agree(case, crowded[row], alone[0], log)


@pytest.mark.parametrize("case", GROUP, ids=str)
@settings(max_examples=20)
@given(log=cases.logs(max_size=24), seed=st.randoms(use_true_random=False))
def test_arrival_decides_nothing_that_time_and_position_decide(
    case: Case, log: list[dict[str, Any]], seed: Any
) -> None:
    fold = case.fold(window_s=WINDOW_S)
    events = projected(fold, log)
    places = list(range(events.height))
    seed.shuffle(places)
    straight = fold.add_projected(fold.empty, events).state
    crooked = fold.empty
    for place in places:
        crooked = fold.add_projected(crooked, events[place : place + 1]).state
    now = 30 * SECOND
    one, other = (
        dict(zip(v["__k0"], v["x"].to_list(), strict=True))
        for v in (fold.values(straight, now_us=now), fold.values(crooked, now_us=now))
    )
    assert one.keys() == other.keys()
    assert all(agree(case, other[k], one[k], log) for k in one)


@pytest.mark.parametrize("resolution", [SECOND, 2 * SECOND, 7 * SECOND])
@settings(max_examples=30)
@given(log=cases.logs(max_size=24), now=cases.times, closed=st.sampled_from(["left", "right"]))
def test_a_resolution_floors_the_tail_in_every_path(
    resolution: int, log: list[dict[str, Any]], now: int, closed: str
) -> None:
    from dataclasses import replace

    plain = Case("count", ()).fold(window_s=WINDOW_S, closed=closed)
    (aggregation,) = plain.plan.aggregations
    window = Window(WINDOW_S * SECOND, closed, resolution_us=resolution)
    fold = Fold(replace(plain.plan, aggregations=(replace(aggregation, window=window),)))
    events = projected(fold, log)
    values = fold.values(fold.add_projected(fold.empty, events).state, now_us=now)
    for row in values.rows(named=True):
        t = max(now, row[NEWEST] + 1)
        low = (t - WINDOW_S * SECOND) // resolution * resolution
        mine = [e["t"] for e in log if e["user"] == row["__k0"]]
        inside = [x for x in mine if (low <= x < t if closed == "left" else low < x <= t)]
        assert row["x"] == len(inside)
        label = pl.DataFrame({"__k0": [row["__k0"]], TIME: [t]})
        assert values_at(fold, events, label)["x"].item() == len(inside)


@pytest.mark.parametrize("sql", ["SUM(i)", "SUM(i) + 1", "SUM(i * 4)", "SUM(DISTINCT i + t0)"])
def test_fault_26_integer_overflow_is_an_error_in_every_path(sql: str) -> None:
    fold = cases.fold_of(f"{sql.replace('t0', 'EPOCH(t)::BIGINT')} AS x")
    base = {"f": None, "s": None, "b": None, "d": None}
    log = [{"user": "a", "i": 2**62, "t": n * SECOND, **base} for n in range(3)]
    labels = pl.DataFrame({"__k0": ["a"], TIME: [10 * SECOND]})
    with pytest.raises(OverflowInFold, match="64 bits"):
        fold.values(fold.add(fold.empty, frame_of(log)).state, now_us=None)
    with pytest.raises(OverflowInFold, match="64 bits"):
        values_at(fold, fold.project(frame_of(log))[0], labels)


def test_every_aggregate_has_a_naive_reference() -> None:
    assert set(naive.REFERENCES) == set(AGGREGATES)


def test_an_unordered_merge_of_big_numbers_is_exact() -> None:
    fold = cases.fold_of("SUM(i) AS x, AVG(DISTINCT i) AS y")
    log = [{"user": "a", "i": n, "t": 0} for n in (2**62, -(2**62), 2**62, 5)]
    whole = [{**dict.fromkeys(cases.COLUMNS), **e} for e in log]
    values = fold.values(fold.add(fold.empty, frame_of(whole)).state, now_us=None)
    assert values["x"].item() == 2**62 + 5
