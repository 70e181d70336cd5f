"""How a column was spread, kept in a few numbers and compared later."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert known.psi(known) == 0
    wider = known.wider(column)
    assert (wider.rows, wider.nulls) == (known.rows, known.nulls)
    assert len(wider.edges) == len(wider.counts) + 1
    assert Spread.from_dict(json.loads(json.dumps(known.to_dict()))) == known


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
