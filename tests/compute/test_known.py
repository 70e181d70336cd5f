"""As known: the naive fold of the events that were published before each label's time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute import ranges
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.known import Known
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.types import TIME
from tests.compute import cases
from tests.compute.cases import SECOND
from tests.compute.test_equal_paths import (
    CASES,
    WHENS,
    agree,
    expected,
    fold_of,
    small_numbers,
)

pytestmark = pytest.mark.timeout(120)

# Earlier or later than the event, by nothing, by what makes ties with labels, or by anything.
delays = st.one_of(
    st.just(0), st.integers(-3, 12).map(lambda n: n * SECOND), st.integers(-SECOND, 15 * SECOND)
)


def published(fold: Fold, log: list[dict[str, Any]]) -> pl.DataFrame:
    """Project a log whose events say when they were published, as `p`."""
    stamp = pl.Datetime("us", "UTC")
    times = pl.Series(PUBLISHED, [e["p"] for e in log], dtype=pl.Int64).cast(stamp)
    rows = cases.frame_of([{k: v for k, v in e.items() if k != "p"} for e in log])
    positions = cases.positions(0, len(log))
    return fold.project(rows.with_columns(times), lambda: positions, (PUBLISHED,))[0]


@settings(max_examples=150)
@given(
    case=st.sampled_from(CASES),
    kind=st.sampled_from(sorted(WHENS)),
    closed=st.sampled_from(["left", "right"]),
    log=cases.logs(max_size=24),
    late=st.lists(delays, min_size=24, max_size=24),
    labels=st.lists(
        st.tuples(st.sampled_from(["a", "b", "ü\u2028", "zz", None]), cases.times), max_size=8
    ),
    block=st.sampled_from([1, 2, 64]),
)
def test_a_row_is_the_naive_fold_of_what_was_published_before(
    case: Any,
    kind: str,
    closed: str,
    log: list[dict[str, Any]],
    late: list[int],
    labels: list[tuple[Any, int]],
    block: int,
) -> None:
    fold, when = fold_of(case, kind, closed)
    events = [e | {"p": e["t"] + d} for e, d in zip(small_numbers(log, case), late, strict=False)]
    frame = pl.DataFrame(labels, schema={"__k0": pl.String, TIME: pl.Int64}, orient="row")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "BLOCK", block)
        found = values_at(fold, published(fold, events), frame, known=True, covered="covered")
    got = cases.plain(found["x"])
    assert len(got) == len(labels)
    for (user, t), value, covered in zip(labels, got, found["covered"], strict=True):
        seen = [e for e in events if e["p"] < t]
        want = expected(case, seen, user, t, when)
        assert agree(case, value, want, events), (user, t, value, want)
        mine = [e for e in seen if e["user"] is not None and e["user"] == user]
        assert covered == bool(when.inside(mine, t))


@settings(max_examples=30)
@given(
    case=st.sampled_from(CASES),
    kind=st.sampled_from(sorted(WHENS)),
    log=cases.logs(max_size=24),
    times=st.lists(cases.times, min_size=1, max_size=8),
)
def test_what_was_published_early_is_as_ever(
    case: Any, kind: str, log: list[dict[str, Any]], times: list[int]
) -> None:
    fold, _ = fold_of(case, kind, "left")
    events = [e | {"p": -1} for e in small_numbers(log, case)]
    frame = pl.DataFrame(
        {"__k0": ["a"] * len(times), TIME: times}, schema={"__k0": pl.String, TIME: pl.Int64}
    )
    rows = published(fold, events)
    assert values_at(fold, rows, frame, known=True).equals(values_at(fold, rows, frame))


@settings(max_examples=100)
@given(
    publish=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=60),
    ranges_=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 60), st.integers(0, 10)),
        max_size=10,
    ),
)
def test_ranges_hold_each_event_that_may_be_seen_once(
    publish: list[tuple[int, int]], ranges_: list[tuple[int, int, int, int]]
) -> None:
    publish.sort(key=lambda one: one[0])
    codes = np.array([c for c, _ in publish], np.int64)
    times = np.array([p for _, p in publish], np.int64)
    first, end = np.searchsorted(codes, [0, 1, 2, 3][:3]), np.searchsorted(codes, [1, 2, 3])
    low = np.array([min(first[c] + a, end[c]) for c, a, _, _ in ranges_], np.int64)
    high = np.array([min(first[c] + b, end[c]) for c, _, b, _ in ranges_], np.int64)
    labels = np.array([c for c, _, _, _ in ranges_], np.int64)
    at = np.array([t for _, _, _, t in ranges_], np.int64)
    known = Known(times, codes, labels, at)
    middle, parts = known.split(low, high)
    last = known.last(low, high)
    for i in range(len(ranges_)):
        got = list(range(low[i], middle[i]))
        for part in parts:
            for place in np.flatnonzero(part.owners == i):
                got += part.order[part.low[place] : part.high[place]].tolist()
        want = [e for e in range(low[i], high[i]) if times[e] < at[i]]
        assert sorted(got) == want
        assert last[i] == (want[-1] if want else -1)
