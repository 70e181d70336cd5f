"""Interval joins: the pairs of two streams, in every path those of the naive double loop."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition, definition_of
from fs_notebook.clock import SYSTEM
from fs_notebook.compute import pairs as pairs_module
from fs_notebook.compute.composed import PairStream, source_of
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import preview
from fs_notebook.compute.unions import UnionLog
from fs_notebook.errors import FeatureStoreError
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.training import build_training_set
from fs_notebook.position import START, Cut
from fs_notebook.types import Type

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
CLICKS = Stream(
    "clicks", (("user", Type.VARCHAR), ("x", Type.BIGINT), ("ts", Type.TIMESTAMP)), time="ts"
)
VIEWS = Stream(
    "views", (("at", Type.TIMESTAMP), ("who", Type.VARCHAR), ("y", Type.BIGINT)), time="at"
)
STREAMS = {s.name: s for s in (CLICKS, VIEWS)}
SQL = """
SELECT c.user, COUNT(*) AS n, SUM(x * y) AS total, LAST(y) AS newest, MIN(x) AS least
FROM clicks c JOIN views v ON c.user = v.who
  AND v.at BETWEEN c.ts + INTERVAL '{low}' SECOND AND c.ts + INTERVAL '{high}' SECOND
WHERE {where} GROUP BY c.user
"""
WHERES: dict[str, Any] = {
    "TRUE": lambda x, y: True,
    "x <> 1": lambda x, y: x is not None and x != 1,
    "y > 0": lambda x, y: y is not None and y > 0,
    "x < 3 AND y < 3 AND x <= y": lambda x, y: None not in (x, y) and x < 3 and y < 3 and x <= y,
}
NAMES = ("n", "total", "newest", "least")


def define(sql: str, **options: Any) -> Definition:
    def find(name: str) -> SourceColumns:
        return SourceColumns(STREAMS[name].name, STREAMS[name].columns, STREAMS[name].time)

    plan = compile_sql(sql, name="x", find_source=find, **options)
    joined = tuple(STREAMS[j.source] for j in plan.joins)
    return Definition("x", sql, plan, source_of(plan, STREAMS.__getitem__), joined=joined)


users = st.sampled_from(["ann", "bob", None])
numbers = st.one_of(st.none(), st.integers(0, 3))
events = st.lists(
    st.tuples(st.sampled_from(["clicks", "views"]), users, numbers, st.integers(0, 5)), max_size=25
)
Event = tuple[str, str | None, int | None, int]


def append(log: Any, event: Event) -> None:
    name, user, number, second = event
    at = BEGIN + timedelta(seconds=second)
    row = {"user": user, "who": user, "x": number, "y": number, "ts": at, "at": at}
    schema = {n: t.polars for n, t in STREAMS[name].columns}
    log.append(STREAMS[name], pl.DataFrame([{n: row[n] for n in schema}], schema=schema))


def naive(
    log: list[Event], t: int, length: int | None, within: tuple[int, int], where: str
) -> dict[str, list[tuple[int, int, int | None, int | None]]]:
    """Return each user's pairs at second t: (later, earlier second, x, y)."""
    found: dict[str, list[tuple[int, int, int | None, int | None]]] = {}
    for kind, user, x, clicked in log:
        if kind != "clicks" or user is None:
            continue
        for other, who, y, seen in log:
            if other != "views" or who != user or not within[0] <= seen - clicked <= within[1]:
                continue
            if not WHERES[where](x, y):
                continue
            mine, later = found.setdefault(user, []), max(clicked, seen)
            if later < t and (length is None or later >= t - length):
                mine.append((later, min(clicked, seen), x, y))
    return found


def check(rows: dict[str, tuple[Any, ...]], wanted: dict[str, list[Any]]) -> None:
    """Hold values to the naive pairs; of pairs that tie in both times any may be the newest."""
    assert rows.keys() == wanted.keys()
    for user, pairs in wanted.items():
        n, total, newest, least = rows[user]
        assert n == len(pairs)
        products = [x * y for _, _, x, y in pairs if x is not None and y is not None]
        assert total == (sum(products) if products else None)
        assert least == min((x for _, _, x, _ in pairs if x is not None), default=None)
        valued = [(later, earlier, y) for later, earlier, _, y in pairs if y is not None]
        last = max((v[:2] for v in valued), default=None)
        assert newest in ({y for *both, y in valued if tuple(both) == last} or {None})


def shown(frame: pl.DataFrame, key: str) -> dict[str, tuple[Any, ...]]:
    return {r[key]: tuple(r[n] for n in NAMES) for r in frame.rows(named=True)}


@settings(max_examples=80, deadline=None)
@given(
    log=events, t=st.integers(0, 10), length=st.sampled_from([None, 3]),
    within=st.tuples(st.integers(-3, 3), st.integers(0, 4)), where=st.sampled_from(sorted(WHERES)),
    rows_max=st.integers(1, 6), split=st.integers(0, 25), held=st.booleans(), data=st.data(),
)  # fmt: skip
def test_every_path_gives_the_naive_pairs(
    tmp_path_factory: pytest.TempPathFactory,
    log: list[Event],
    t: int,
    length: int | None,
    within: tuple[int, int],
    where: str,
    rows_max: int,
    split: int,
    held: bool,
    data: st.DataObject,
) -> None:
    within = (within[0], within[0] + within[1])
    sql = SQL.format(low=within[0], high=within[1], where=where)
    definition = define(sql, window_us=None if length is None else length * 1_000_000)
    inner = EmbeddedLog(tmp_path_factory.mktemp("ledger"))
    ledger = UnionLog(inner)
    for stream in STREAMS.values():
        inner.create(stream)
    name = definition.source.name
    for event in log[:split]:
        append(inner, event)
    middle = ledger.end(name)
    for event in log[split:]:
        append(inner, event)
    end = ledger.end(name)
    wanted = naive(log, t, length, within, where)
    either = dict.fromkeys(("ann", "bob"), ())

    at = BEGIN + timedelta(seconds=t)
    labels = pl.DataFrame({"user": ["ann", "bob"], "asked": [at, at]})
    trained = build_training_set(labels, [(definition, NAMES)], ledger, clock=SYSTEM)
    rows = shown(trained.to_polars(), "user")
    check(rows, {**{u: [] for u in either}, **wanted})

    # A worker reads on from where it stopped: with what it holds, or anew after a crash.
    fold, state = Fold(definition.plan), None
    seen = joined_log(definition.plan, definition.joined, ledger, filtered=True)
    batches = []
    for start, stop in ((START, middle), (middle, end)):
        if not held:
            seen = joined_log(definition.plan, definition.joined, ledger, filtered=True)
        with closing(
            seen.read(
                definition.source, start=start, end=stop, columns=fold.plan.columns,
                rows_max=rows_max,
            )  # type: ignore[type-var]
        ) as part:  # fmt: skip
            batches += list(part)
    state = fold.empty
    for batch in data.draw(st.permutations(batches)):
        state = fold.add(state, batch.rows, batch.positions).state
    latest = 20 if length is None else max([t, *(e[3] + 1 for e in log)])
    now_us = int((BEGIN + timedelta(seconds=latest)).timestamp()) * 1_000_000
    values = shown(fold.values(state, now_us=now_us).rename({fold.keys[0]: "user"}), "user")
    check(values, naive(log, latest, length, within, where))

    # Also where ties are broken by nothing that can be seen, all paths break them alike.
    late = [BEGIN + timedelta(seconds=latest)] * len(values)
    schema = {"user": pl.String(), "asked": labels["asked"].dtype}
    moments = pl.DataFrame({"user": sorted(values), "asked": late}, schema=schema)
    again = build_training_set(moments, [(definition, NAMES)], ledger, clock=SYSTEM)
    assert shown(again.to_polars(), "user") == values
    whole = joined_log(definition.plan, definition.joined, ledger)
    previewed = preview("x", definition.plan, definition.source, whole, clock=SYSTEM)
    if length is None:
        assert shown(previewed.frame, "user") == values
    inner.close()


@settings(max_examples=60, deadline=None)
@given(log=events, rows_max=st.integers(1, 4), split=st.integers(0, 25))
def test_a_reader_stops_anywhere_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, log: list[Event], rows_max: int, split: int
) -> None:
    inner = EmbeddedLog(tmp_path_factory.mktemp("ledger"))
    ledger = UnionLog(inner)
    for stream in STREAMS.values():
        inner.create(stream)
    for event in log:
        append(inner, event)
    definition = define(SQL.format(low=-2, high=2, where="TRUE"))
    columns = definition.plan.columns

    def read(log: Any, start: Cut) -> Any:
        end = ledger.end(definition.source.name)
        return log.read(definition.source, start=start, end=end, columns=columns,
                        rows_max=rows_max)  # fmt: skip

    def joined() -> Any:
        return joined_log(definition.plan, definition.joined, ledger)

    batches = list(read(joined(), START))
    reached = START
    for batch in batches[:split]:
        reached = reached.advanced([batch.end])
    # One that stops in the middle holds what it read; one that is new reads it again.
    stopped = joined()
    with closing(read(stopped, START)) as part:
        for _ in zip(range(split), part, strict=False):
            pass
    for log_ in (joined(), stopped):
        rest = list(read(log_, reached))
        assert [r for b in rest for r in b.rows.rows()] == [
            r for b in batches[split:] for r in b.rows.rows()
        ]
        assert [p for b in rest for p in b.positions().rows()] == [
            p for b in batches[split:] for p in b.positions().rows()
        ]
    assert START.advanced([b.end for b in batches]) == ledger.end(definition.source.name)
    inner.close()


def test_an_event_with_many_partners_comes_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs_module, "PAIRS_MAX", 4)
    inner = EmbeddedLog(tmp_path / "ledger")
    ledger = UnionLog(inner)
    for stream in STREAMS.values():
        inner.create(stream)
    for kind in ("clicks", "views"):
        for second in range(5):
            append(inner, (kind, "ann", second, second))
    definition = define(SQL.format(low=-9, high=9, where="TRUE"))
    log = joined_log(definition.plan, definition.joined, ledger)
    end = ledger.end(definition.source.name)
    columns = definition.plan.columns
    batches = list(log.read(definition.source, start=START, end=end, columns=columns))
    assert [b.rows.height for b in batches] == [0, 5, 5, 5, 5, 5]
    assert [str(b.end) for b in batches[1:]] == [f"1:0:{n}:0" for n in range(5)]
    # Whoever stopped between two parts gets the others.
    start = START.advanced([b.end for b in batches[:3]])
    fresh = joined_log(definition.plan, definition.joined, ledger)
    rest = list(fresh.read(definition.source, start=start, end=end, columns=columns))
    assert [b.rows.rows() for b in rest] == [b.rows.rows() for b in batches[3:]]
    inner.close()


def test_too_much_to_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "HELD_ROWS_MAX", 3)
    inner = EmbeddedLog(tmp_path / "ledger")
    for stream in STREAMS.values():
        inner.create(stream)
    for second in range(4):
        append(inner, ("clicks", "ann", second, second))
    definition = define(SQL.format(low=-9, high=9, where="TRUE"))
    log = joined_log(definition.plan, definition.joined, UnionLog(inner))
    with pytest.raises(FeatureStoreError, match="too long to be held"):
        preview("x", definition.plan, definition.source, log, clock=SYSTEM)
    inner.close()


def test_a_stream_may_be_paired_with_itself(tmp_path: Path) -> None:
    inner = EmbeddedLog(tmp_path / "ledger")
    inner.create(CLICKS)
    for second in (0, 1, 3):
        append(inner, ("clicks", "ann", second, second))
    definition = define(
        "SELECT a.user, COUNT(*) AS n, SUM(b.x) AS total FROM clicks a JOIN clicks b "
        "ON a.user = b.user AND b.ts > a.ts - INTERVAL '3' SECOND AND b.ts < a.ts GROUP BY a.user"
    )
    assert definition.source.name == "clicks + clicks"
    log = joined_log(definition.plan, definition.joined, UnionLog(inner))
    seen = preview("x", definition.plan, definition.source, log, clock=SYSTEM)
    # (1, 0), (3, 1): three seconds are no longer within the interval.
    assert seen.frame.rows() == [("ann", 2, 1)]
    inner.close()


def test_a_definition_of_pairs_comes_back_from_the_catalog() -> None:
    definition = define(SQL.format(low=-1, high=0, where="TRUE"))
    again = definition_of(definition.to_dict())
    assert again == definition
    assert isinstance(again.source, PairStream)
    assert again.source.parts == (CLICKS, VIEWS)
