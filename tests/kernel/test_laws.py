"""The laws that every aggregate keeps, whichever it is; a new class is picked up by itself.

A naive value for each is in `tests.compute.naive`; here no value is known, only that folding and
merging are one thing however a log is cut, and that a state survives being stored.
"""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold, State
from fs_notebook.kernel import AGGREGATES, Fieldwise, Framewise, Grouped
from fs_notebook.online.states import StateCodec
from fs_notebook.types import Type
from tests.compute import cases, naive

CASES = cases.all_cases()


@pytest.mark.parametrize("name", AGGREGATES)
def test_it_says_how_it_is_called_and_what_it_keeps(name: str) -> None:
    kind = AGGREGATES[name]
    assert kind.usage
    assert kind.__doc__
    assert kind.mergeable
    assert issubclass(kind, (Grouped, Framewise))
    assert any(case.name == name for case in CASES), "no types fit it"
    assert len({case.name for case in CASES}) == len(AGGREGATES)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=12)
@given(log=cases.logs(max_size=24), data=st.data())
def test_any_cut_and_any_order_of_merging_give_one_value(
    case: cases.Case, log: list[dict[str, Any]], data: st.DataObject
) -> None:
    fold = case.fold()
    whole = fold.partial(cases.projected(fold, log))
    places = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=6)))
    edges = list(itertools.pairwise([0, *places, len(log)]))
    parts = [fold.partial(cases.projected(fold, log, a, b)) for a, b in edges]
    parts = data.draw(st.permutations(parts))
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [fold.merge(parts[at : at + 2])]
    merged = parts[0] if parts else fold.empty.lifetime
    assert merged.schema == whole.schema == pl.Schema(fold.lifetime_schema)
    expected, got = cases.values_of(fold, whole), cases.values_of(fold, merged)
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        assert naive.alike(got[key], value, scale=cases.scale(log)), (key, got[key], value)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=8)
@given(log=cases.logs(max_size=16))
def test_a_stored_state_comes_back_as_it_was(case: cases.Case, log: list[dict[str, Any]]) -> None:
    for fold in (case.fold(), case.fold(window_s=cases.WINDOW_S)):
        state = fold.add_projected(fold.empty, cases.projected(fold, log)).state
        codec = StateCodec(fold)
        stored = codec.encode(state)
        again = codec.decode(list(stored), list(stored.values()))
        assert again.lifetime.schema == state.lifetime.schema
        assert again.recent.schema == state.recent.schema
        assert codec.encode(again) == stored
        assert len(stored) == state.lifetime.height


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_empty_state_is_the_identity(case: cases.Case) -> None:
    fold = case.fold()
    log = cases.plain_log(12)
    state = fold.partial(cases.projected(fold, log))
    empty = fold.partial(cases.projected(fold, []))
    assert empty.height == 0
    nothing = cases.plain_log(12, nulls=True)
    nulls = fold.partial(cases.projected(fold, nothing))
    scale = cases.scale(log)
    for merged in (fold.merge([state, empty]), fold.merge([empty, state])):
        for key, value in cases.values_of(fold, state).items():
            assert naive.alike(cases.values_of(fold, merged)[key], value, scale=scale)
    if case.args:
        # Nulls are passed over: a state of nothing else changes no value.
        both = cases.values_of(fold, fold.merge([state, nulls]))
        for key, value in cases.values_of(fold, state).items():
            assert naive.alike(both[key], value, scale=scale)


@pytest.mark.parametrize("case", [c for c in CASES if AGGREGATES[c.name].bounded], ids=str)
def test_a_bounded_state_stops_growing(case: cases.Case) -> None:
    fold = case.fold()
    codec = StateCodec(fold)
    sizes = []
    for count in (4_000, 8_000):
        frame = cases.projected(fold, cases.plain_log(count, users=1))
        state = State(fold.partial(frame), fold.empty.recent)
        (stored,) = codec.encode(state).values()
        sizes.append(len(stored))
    # A HyperLogLog still fills its registers; nothing grows with the events.
    limit = 4_096 * 8 if case.name == "approx_n_unique" else max(1.2 * sizes[0], sizes[0] + 64)
    assert sizes[1] <= limit, sizes


@pytest.mark.parametrize(
    "case", [c for c in CASES if issubclass(AGGREGATES[c.name], Fieldwise)], ids=str
)
def test_a_fieldwise_state_says_its_monoids(case: cases.Case) -> None:
    bound = case.fold().bound[0]
    assert all(f.monoid in ("sum", "min", "max") for f in bound.fields)


def test_types_of_cases_cover_the_language() -> None:
    used = {kind for case in CASES for kind in case.types}
    assert used >= {Type.BIGINT, Type.DOUBLE, Type.VARCHAR, Type.BOOLEAN, Type.TIMESTAMP}
    assert Fold
