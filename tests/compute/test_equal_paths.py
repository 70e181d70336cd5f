"""Preview = training row = incremental state, and all of them = the naive fold."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import NEWEST, VALID_UNTIL, Fold
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.language.types import Type
from fs_notebook.log.protocol import TIME
from tests.compute import naive

SOURCE = SourceColumns(
    "events",
    (("user", Type.VARCHAR), ("i", Type.BIGINT), ("f", Type.DOUBLE), ("s", Type.VARCHAR)),
    "t",
)
SCHEMA = {"user": pl.String, "i": pl.Int64, "f": pl.Float64, "s": pl.String, "t": pl.Int64}
AGGREGATES = [
    ("COUNT(*)", "count_star", "i"),
    ("COUNT(f)", "count", "f"),
    ("SUM(i)", "sum", "i"),
    ("SUM(f)", "sum", "f"),
    ("AVG(i)", "avg", "i"),
    ("AVG(f)", "avg", "f"),
    ("MIN(f)", "min", "f"),
    ("MAX(f)", "max", "f"),
    ("MIN(s)", "min", "s"),
    ("MAX(i)", "max", "i"),
]
WINDOW_S = 5
SECOND = 1_000_000

floats = st.one_of(
    st.none(),
    st.just(float("nan")),
    st.just(float("inf")),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
)
# A third of the times lie on multiples of the window, so that boundaries are hit exactly.
times = st.one_of(
    st.integers(0, 4).map(lambda n: n * WINDOW_S * SECOND),
    st.integers(0, 20).map(lambda n: n * SECOND),
    st.integers(0, 20 * SECOND),
)
events = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", "ü\u2028", "", None]),
        "i": st.one_of(st.none(), st.integers(-(2**61), 2**61), st.integers(-3, 3)),
        "f": floats,
        "s": st.one_of(st.none(), st.text(max_size=2)),
        "t": times,
    }
)
logs = st.lists(events, max_size=30)


def plan_of(closed: str, window_s: int | None) -> Fold:
    frame = (
        f"RANGE BETWEEN INTERVAL {window_s} SECOND PRECEDING AND CURRENT ROW" if window_s else ""
    )
    columns = ", ".join(
        f"{sql} OVER (PARTITION BY user ORDER BY t {frame}) AS f{n}"
        for n, (sql, _, _) in enumerate(AGGREGATES)
    )
    columns += ", SUM(i) OVER (PARTITION BY user) AS total"
    source = SourceColumns(SOURCE.name, (*SOURCE.columns, ("t", Type.TIMESTAMP)), "t")
    return Fold(
        compile_sql(
            f"SELECT user, {columns} FROM events",
            name="x",
            find_source=lambda name: source,
            closed=closed,
        )
    )


def frame_of(log: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(log, schema=SCHEMA, orient="row")
    time = pl.col("t").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return frame.with_columns(time.alias(TIME), time.alias("t"))


def expected(
    log: list[dict[str, Any]], entity: Any, t: int, closed: str, window_s: int | None
) -> list[Any]:
    window = None if window_s is None else window_s * SECOND
    return [
        naive.value(log, entity=entity, t=t, function=f, column=c, window=window, closed=closed)
        for _, f, c in AGGREGATES
    ]


def fits(log: list[dict[str, Any]]) -> bool:
    """Sums of these logs stay within 64 bits, so that no path may report an overflow."""
    return sum(abs(e["i"] or 0) for e in log) < 2**63


@settings(max_examples=150, deadline=None)
@given(
    log=logs.filter(fits),
    chunks=st.lists(st.integers(1, 7), min_size=1, max_size=10),
    now=times,
    closed=st.sampled_from(["left", "right"]),
    window_s=st.sampled_from([None, WINDOW_S]),
)
def test_incremental_fold_is_the_naive_fold(
    log: list[dict[str, Any]], chunks: list[int], now: int, closed: str, window_s: int | None
) -> None:
    fold = plan_of(closed, window_s)
    state, start, turn = fold.empty, 0, 0
    while start < len(log):
        size = chunks[turn % len(chunks)]
        state = fold.add(state, frame_of(log[start : start + size])).state
        start, turn = start + size, turn + 1
    values = fold.values(state, now_us=now)
    users = {e["user"] for e in log} - {None}
    assert set(values["__k0"]) == users
    for row in values.rows(named=True):
        newest = max(e["t"] for e in log if e["user"] == row["__k0"])
        assert row[NEWEST] == newest
        t = max(now, newest + 1)
        wanted = expected(log, row["__k0"], t, closed, window_s)
        for n, want in enumerate(wanted):
            assert naive.same(row[f"f{n}"], want), (AGGREGATES[n], row[f"f{n}"], want)
        # The promise that a value holds until VALID_UNTIL, and not a microsecond longer.
        until = row[VALID_UNTIL]
        if until is not None and until >= t:
            again = expected(log, row["__k0"], until, closed, window_s)
            assert all(naive.same(a, b) for a, b in zip(again, wanted, strict=True))
            count_after = expected(log, row["__k0"], until + 1, closed, window_s)[0]
            assert count_after < wanted[0]


@settings(max_examples=150, deadline=None)
@given(
    log=logs.filter(fits),
    labels=st.lists(st.tuples(st.sampled_from(["a", "b", "ü\u2028", "zz", None]), times)),
    closed=st.sampled_from(["left", "right"]),
    window_s=st.sampled_from([None, WINDOW_S]),
    spread=st.booleans(),
)
def test_training_row_is_the_naive_fold(
    log: list[dict[str, Any]],
    labels: list[tuple[Any, int]],
    closed: str,
    window_s: int | None,
    spread: bool,
) -> None:
    fold = plan_of(closed, window_s)
    if spread:
        # Two events centuries apart force the code that packs times by rank.
        far = {"i": 1, "f": 1.0, "s": "x"}
        log = [
            *log,
            {"user": "a", "t": -(2**61), **far},
            {"user": "b", "t": 2**61, **far},
        ]
    projected, _ = fold.project(frame_of(log))
    frame = pl.DataFrame(labels, schema={"__k0": pl.String, TIME: pl.Int64}, orient="row")
    got = values_at(fold, projected, frame)
    assert got.height == len(labels)
    for (user, t), row in zip(labels, got.rows(named=True), strict=True):
        wanted = expected(log, user, t, closed, window_s)
        for n, want in enumerate(wanted):
            assert naive.same(row[f"f{n}"], want), (AGGREGATES[n], row[f"f{n}"], want)


@settings(max_examples=60, deadline=None)
@given(log=logs.filter(fits), seed=st.randoms(use_true_random=False), t=times)
def test_other_labels_and_later_events_change_nothing(
    log: list[dict[str, Any]], seed: Any, t: int
) -> None:
    fold = plan_of("left", WINDOW_S)
    label = pl.DataFrame({"__k0": ["a"], TIME: [t]}, schema={"__k0": pl.String, TIME: pl.Int64})
    alone = values_at(fold, fold.project(frame_of(log))[0], label)
    shuffled = [dict(e, t=e["t"] + 7 * SECOND) if e["t"] >= t else e for e in log]
    seed.shuffle(shuffled)
    crowd = pl.concat([label, label.with_columns(pl.lit("b").alias("__k0")), label])
    crowded = values_at(fold, fold.project(frame_of(shuffled))[0], crowd)
    for row in (0, 2):
        for a, b in zip(alone.row(0), crowded.row(row), strict=True):
            assert naive.same(a, b)


@pytest.mark.parametrize("sql", ["SUM(i)", "SUM(i) + 1", "SUM(i * 4)"])
def test_integer_overflow_is_an_error_in_every_path(sql: str) -> None:
    from fs_notebook.errors import OverflowInFold

    source = SourceColumns(SOURCE.name, SOURCE.columns, None)
    fold = Fold(
        compile_sql(
            f"SELECT user, {sql} AS x FROM events GROUP BY user",
            name="x",
            find_source=lambda name: source,
        )
    )
    log = [{"user": "a", "i": 2**62, "f": None, "s": None, "t": n} for n in range(3)]
    labels = pl.DataFrame({"__k0": ["a"], TIME: [10]})
    with pytest.raises(OverflowInFold, match="64 bits"):
        fold.values(fold.add(fold.empty, frame_of(log)).state, now_us=None)
    with pytest.raises(OverflowInFold, match="64 bits"):
        values_at(fold, fold.project(frame_of(log))[0], labels)
