"""Random definitions over random logs: several aggregates, windows, filters and keys at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.running import HELD_ROWS, Running
from fs_notebook.language.plan import Plan
from fs_notebook.language.sql import compile_sql
from fs_notebook.types import TIME
from tests.compute import cases, naive
from tests.compute.cases import SECOND, Case, projected

Event = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """A condition in SQL, and what it means: true, false, or unknown."""

    sql: str
    holds: Callable[[Event], bool | None]


def _known(column: str, test: Callable[[Any], bool]) -> Callable[[Event], bool | None]:
    return lambda e: None if e[column] is None else test(e[column])


CONDITIONS = [
    Condition("i > 0", _known("i", lambda v: v > 0)),
    Condition("s = 'x'", _known("s", lambda v: v == "x")),
    Condition("b", _known("b", bool)),
    Condition("NOT b", _known("b", lambda v: not v)),
    Condition("s IS NULL", lambda e: e["s"] is None),
    Condition("f >= 1.5", _known("f", lambda v: v >= 1.5 or v != v)),
    Condition("i BETWEEN -1 AND 2", _known("i", lambda v: -1 <= v <= 2)),
    Condition("m > CAST(0.5 AS DECIMAL(2,1))", _known("m", lambda v: v > Decimal("0.5"))),
    Condition("h * 2 <= i", lambda e: None if None in (e["h"], e["i"]) else 2 * e["h"] <= e["i"]),
    Condition("COALESCE(i, 0) % 2 = 0", lambda e: (e["i"] or 0) % 2 == 0),
    Condition("s IN ('x', 'y') OR i = 3",
              lambda e: _or(_known("s", lambda v: v in ("x", "y"))(e),
                            _known("i", lambda v: v == 3)(e))),
]  # fmt: skip


def _or(a: bool | None, b: bool | None) -> bool | None:
    if a or b:
        return True
    return None if a is None or b is None else False


AGGREGATES = [
    Case("count", ()), Case("sum", ("m",)), Case("sum", ("h",)), Case("max", ("h",)),
    Case("avg", ("h",)), Case("sum_distinct", ("m",)), Case("top_k", ("m",)),
    Case("sum", ("i",)), Case("avg", ("i",)), Case("max", ("f",)),
    Case("min", ("s",)), Case("last", ("s",)), Case("first", ("i",)), Case("n_unique", ("s",)),
    Case("mode", ("i",)), Case("quantile_disc", ("i",)), Case("bool_or", ("b",)),
    Case("collect_list", ("s",)), Case("arg_max", ("s", "f")), Case("histogram_bins", ("f",)),
    Case("time_since_last", ()), Case("rate", ()), Case("decayed_count", ()),
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    case: Case
    window_s: int | None
    filter: Condition | None

    def sql(self, keys: list[str]) -> str:
        filtered = f" FILTER (WHERE {self.filter.sql})" if self.filter else ""
        frame = ""
        if self.window_s is not None:
            frame = (
                f" ORDER BY t RANGE BETWEEN INTERVAL {self.window_s} SECOND PRECEDING "
                "AND CURRENT ROW"
            )
        return f"{self.case.sql}{filtered} OVER (PARTITION BY {', '.join(keys)}{frame})"


columns = st.builds(
    Column, st.sampled_from(AGGREGATES), st.sampled_from([None, 2, 5, 11]),
    st.one_of(st.none(), st.sampled_from(CONDITIONS)),
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A definition: its SQL, and all that the reference must know."""

    columns: list[Column]
    where: Condition | None
    keys: list[str]
    closed: str

    @property
    def sql(self) -> str:
        features = ", ".join(f"{c.sql(self.keys)} AS x{n}" for n, c in enumerate(self.columns))
        where = f" WHERE {self.where.sql}" if self.where else ""
        return f"SELECT {', '.join(self.keys)}, {features} FROM events{where}"

    def fold(self) -> Fold:
        plan = compile_sql(
            self.sql, name="x", find_source=lambda name: cases.SOURCE, closed=self.closed
        )
        assert Plan.from_dict(plan.to_dict()) == plan
        return Fold(plan)

    def value(self, log: list[Event], key: tuple[Any, ...], t: int, n: int) -> Any:
        column = self.columns[n]
        kept = [e for e in log if tuple(e[k] for k in self.keys) == key and None not in key]
        kept = [e for e in kept if self.where is None or self.where.holds(e)]
        window = None if column.window_s is None else column.window_s * SECOND
        inside = naive.When(window, self.closed).inside(kept, t)
        if column.filter is not None:
            inside = [e for e in inside if column.filter.holds(e)]
        reference = naive.Inside(inside, column.case.args, column.case.params, t, window)
        return naive.REFERENCES[column.case.name](reference)


def cuts(count: int, chunks: list[int]) -> list[tuple[int, int]]:
    """Return [start, stop) of batches whose lengths are `chunks`, over and over."""
    found: list[tuple[int, int]] = []
    while (start := found[-1][1] if found else 0) < count:
        found.append((start, min(start + chunks[len(found) % len(chunks)], count)))
    return found


drawn = st.builds(
    Drawn,
    st.lists(columns, min_size=1, max_size=4),
    st.one_of(st.none(), st.sampled_from(CONDITIONS)),
    st.sampled_from([["user"], ["user", "s"], ["s"], ["b", "user"]]),
    st.sampled_from(["left", "right"]),
)


@settings(max_examples=200)
@given(
    definition=drawn,
    log=cases.logs(max_size=30),
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    now=cases.times,
    held_rows=st.sampled_from([1, 4, HELD_ROWS]),
    asked=st.booleans(),
)
def test_all_paths_are_the_naive_fold(
    definition: Drawn, log: list[Event], chunks: list[int], now: int, held_rows: int, asked: bool
) -> None:
    fold = definition.fold()
    state, running = fold.empty, Running(fold, held_rows=held_rows)
    for start, stop in cuts(len(log), chunks):
        state = fold.add_projected(state, projected(fold, log, start, stop)).state
        running.add_projected(projected(fold, log, start, stop))
        if asked:
            assert running.state.lifetime.height == state.lifetime.height
    values = fold.values(state, now_us=now)
    held = fold.values(running.state, now_us=now)
    held = values.select(fold.keys).join(held, on=fold.keys, how="left", maintain_order="left")
    for name in fold.plan.features:
        for one, other in zip(cases.plain(held[name]), cases.plain(values[name]), strict=True):
            assert naive.alike(one, other, scale=1.0), (definition.sql, name)
    found = [cases.plain(values[name]) for name in fold.plan.features]
    keys = values.select(fold.keys).rows()
    whole = projected(fold, log)
    moments: list[int] = []
    for row, key in enumerate(keys):
        mine = [e["t"] for e in log if tuple(e[k] for k in definition.keys) == key
                and (definition.where is None or definition.where.holds(e))]  # fmt: skip
        t = max(now, max(mine) + 1)
        moments.append(t)
        for n, column in enumerate(definition.columns):
            want = definition.value(log, key, t, n)
            assert naive.alike(found[n][row], want, scale=1.0), (definition.sql, column, key, t)
    labels = pl.DataFrame(keys, schema=fold.key_schema, orient="row").with_columns(
        pl.Series(TIME, moments, dtype=pl.Int64)
    )
    trained = values_at(fold, whole, labels)
    for n, name in enumerate(fold.plan.features):
        for one, other in zip(cases.plain(trained[name]), found[n], strict=True):
            assert naive.alike(one, other, scale=1.0), (definition.sql, n)


@settings(max_examples=200)
@given(
    log=cases.logs(max_size=30),
    chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    window_s=st.sampled_from([1, 2, 5]),
)
def test_late_events_are_those_that_no_window_can_hold_any_more(
    log: list[Event], chunks: list[int], window_s: int
) -> None:
    column = Column(Case("count", ()), window_s, None)
    fold = Drawn([column], None, ["user"], "left").fold()
    state, late = fold.empty, 0
    for start, stop in cuts(len(log), chunks):
        done = fold.add_projected(state, projected(fold, log, start, stop))
        state, late = done.state, late + done.late
    newest: dict[str, int] = {}
    want = 0
    for event in log:
        if event["user"] is not None:
            here = newest[event["user"]] = max(newest.get(event["user"], event["t"]), event["t"])
            want += event["t"] < here + 1 - window_s * SECOND
    assert late == want
