"""How a column was spread, kept in a few numbers and compared later."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.model.drift import Drift, drift_of
from fs_notebook.model.spread import NAMES_MAX, OTHERS, Spread, spread_of, spreads_of

NUMBERS = st.lists(
    st.one_of(st.none(), st.floats(-1e9, 1e9), st.just(float("nan")), st.just(float("inf"))),
    max_size=60,
)


@given(NUMBERS, NUMBERS)
def test_no_value_is_lost_in_any_bins(then: list[float | None], now: list[float | None]) -> None:
    known = spread_of(pl.Series("x", then, dtype=pl.Float64))
    finite = [v for v in then if v is not None and abs(v) < float("inf")]
    if known is None:
        assert not finite
        return
    assert known.rows == len(then)
    assert known.nulls == len(then) - len(finite)
    assert sum(known.shares) == pytest.approx(1.0)
    assert list(known.edges) == sorted(known.edges)
    column = pl.Series("x", now, dtype=pl.Float64)
    again = known.again(column)
    assert (again.edges, again.rows) == (known.edges, len(now))
    assert known.psi(again) >= 0
    assert known.psi(known) == known.ks(known) == known.js(known) == 0
    assert 0 <= known.ks(again) <= 1
    assert 0 <= known.js(again) <= 1
    wider = known.wider(column)
    assert (wider.rows, wider.nulls) == (known.rows, known.nulls)
    assert len(wider.edges) == len(wider.counts) + 1
    assert Spread.from_dict(json.loads(json.dumps(known.to_dict()))) == known


def raw_of(then: pl.Series, now: pl.Series) -> Drift:
    """Return the drift of the values themselves."""
    first, second = np.arange(then.len()), np.arange(then.len(), then.len() + now.len())
    both = pl.concat([then, now])
    return drift_of(both, np.arange(both.len()), first, second)


@given(st.integers(0, 2**32 - 1), st.floats(-2, 2), st.floats(0.3, 3), st.integers(1, 400))
def test_what_bins_tell_is_what_the_values_tell_but_for_a_bin(
    seed: int, moved: float, wider: float, count: int
) -> None:
    rng = np.random.default_rng(seed)
    then = pl.Series("x", rng.normal(size=300))
    now = pl.Series("x", rng.normal(moved, wider, count))
    known = spread_of(then)
    assert known is not None
    again, raw = known.again(now), raw_of(then, now)
    coarsest = max(*known.shares, *again.shares)
    # Between two edges either distribution function grows by its bin's share and no more.
    assert known.ks(again) <= raw.ks + 1e-12
    assert raw.ks <= known.ks(again) + coarsest + 1e-12


def test_drift_over_bins_agrees_with_drift_of_the_values() -> None:
    rng = np.random.default_rng(3)
    for moved, nulls in ((0.0, 0), (0.5, 200), (1.5, 0)):
        then = pl.Series("x", rng.normal(size=4000))
        values = [*rng.normal(moved, 1, 4000 - nulls), *[None] * nulls]
        known, now = spread_of(then), pl.Series("x", values, dtype=pl.Float64)
        assert known is not None
        raw, again = raw_of(then, now), known.again(now)
        assert known.ks(again) == pytest.approx(raw.ks, abs=0.03)
        assert known.js(again) == pytest.approx(raw.js, abs=0.05)
    # A bin each, and texts by name: nothing is lost.
    few = [pl.Series("n", rng.integers(0, 6 - k, 900)) for k in (0, 2)]
    texts = [pl.Series("t", [f"t{n}" for n in one]) for one in few]
    for then, now in (few, texts):
        known = spread_of(then)
        assert known is not None
        raw, again = raw_of(then, now), known.again(now)
        assert known.ks(again) == pytest.approx(raw.ks)
        assert known.js(again) == pytest.approx(raw.js, abs=0.01)
    gone = known.again(pl.Series("t", [None, None], dtype=pl.String))
    assert (known.ks(gone), known.js(gone)) == (1.0, 1.0)
    none = spread_of(pl.Series("x", [1.0, 2.0]))
    assert none is not None
    assert none.ks(none.again(pl.Series("x", [None], dtype=pl.Float64))) == 1.0


def test_few_whole_numbers_have_a_bin_each() -> None:
    known = spread_of(pl.Series("n", [1, 1, 2, 4]))
    assert known is not None
    assert known.edges == (0.5, 1.5, 2.5, 3.5, 4.5)
    assert known.counts == (2, 1, 0, 1)


def test_wider_bins_hold_what_lies_far_away() -> None:
    known = spread_of(pl.Series("x", [float(n) for n in range(200)]))
    assert known is not None
    far = pl.Series("x", [float(n) for n in range(1_000, 1_400)])
    assert known.beyond(far) == 1.0
    assert known.again(far).counts[-1] == 400
    wider = known.wider(far)
    assert len(wider.counts) <= 40
    assert max(wider.again(far).counts) < 100
    assert sum(wider.counts) == 200


def test_texts_are_told_by_name_and_the_rest_together() -> None:
    texts = [f"t{n:02d}" for n in range(20) for _ in range(20 - n)]
    known = spread_of(pl.Series("x", [*texts, None]))
    assert known is not None
    assert len(known.names) == NAMES_MAX + 1
    assert known.names[-1] == OTHERS
    assert (known.counts[0], known.nulls) == (20, 1)
    again = known.again(pl.Series("x", ["t00", "new", None]))
    assert (again.counts[0], again.counts[-1], again.nulls) == (1, 1, 1)
    assert known.beyond(pl.Series("x", ["new"])) == 0.0
    flags = spread_of(pl.Series("x", [True, False, True]))
    assert flags is not None
    assert dict(zip(flags.names, flags.counts, strict=True)) == {"true": 2, "false": 1, OTHERS: 0}


def test_times_are_numbers_and_lists_have_no_bins() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.Series("at", [start + timedelta(hours=n) for n in range(50)])
    known = spread_of(times)
    assert known is not None
    assert known.edges[0] >= start.timestamp() * 1e6
    frame = pl.DataFrame({"at": times, "list": [[n] for n in range(50)], "none": [None] * 50})
    assert list(spreads_of(frame, frame.columns)) == ["at"]
    assert known.again(pl.Series("at", ["text"])).nulls == 1
