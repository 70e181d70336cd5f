"""A union of streams: one fold, whatever was read in whatever order, equal to the naive one."""

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
from fs_notebook.compute.composed import UnionStream, source_of
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.preview import preview
from fs_notebook.compute.unions import UnionLog
from fs_notebook.errors import OverflowInFold
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.training import build_training_set
from fs_notebook.position import START, Cut
from fs_notebook.types import Type

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
CLICKS = Stream(
    "clicks", (("user", Type.VARCHAR), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)), time="ts"
)
BUYS = Stream(
    "buys", (("at", Type.TIMESTAMP), ("who", Type.VARCHAR), ("price", Type.BIGINT)), time="at"
)
STREAMS = {s.name: s for s in (CLICKS, BUYS)}
SQL = """
WITH acts AS (
  SELECT user, n AS amount, 'click' AS kind, ts FROM clicks WHERE n <> 0
  UNION ALL SELECT who, -price, 'buy', at FROM buys
)
SELECT user, SUM(amount) AS total, COUNT(*) AS acts, LAST(kind) AS newest,
       COUNT(*) FILTER (WHERE kind = 'buy') AS buys
FROM acts WHERE amount < 6 OR amount IS NULL GROUP BY user
"""


def define(sql: str = SQL, streams: dict[str, Stream] | None = None, **options: Any) -> Definition:
    known = STREAMS if streams is None else streams

    def find(name: str) -> SourceColumns:
        return SourceColumns(known[name].name, known[name].columns, known[name].time)

    plan = compile_sql(sql, name="x", find_source=find, **options)
    by_name = {s.name: s for s in known.values()}
    return Definition("x", sql, plan, source_of(plan, by_name.__getitem__))


users = st.sampled_from(["ann", "bob", None])
amounts = st.one_of(st.none(), st.integers(-3, 8))
events = st.lists(
    st.tuples(st.sampled_from(["clicks", "buys"]), users, amounts, st.integers(0, 5)), max_size=25
)
Event = tuple[str, str | None, int | None, int]


def append(log: Any, event: Event) -> None:
    name, user, amount, second = event
    at = BEGIN + timedelta(seconds=second)
    row = {"user": user, "who": user, "n": amount, "price": amount, "ts": at, "at": at}
    stream = STREAMS[name]
    schema = {n: t.polars for n, t in stream.columns}
    log.append(stream, pl.DataFrame([{n: row[n] for n in schema}], schema=schema))


def naive(log: list[Event], t: int, length: int | None) -> dict[str, tuple[Any, ...]]:
    """Return each user's values at second t, by going through all that happened."""
    # Of equal times the clicks come first, since their stream does; then in their own order.
    happened = [e for e in log if e[0] == "clicks"] + [e for e in log if e[0] == "buys"]
    found: dict[str, list[tuple[int, int | None, str]]] = {}
    for name, user, amount, second in happened:
        if user is None or (name == "clicks" and (amount is None or amount == 0)):
            continue
        value = amount if name == "clicks" or amount is None else -amount
        if value is not None and value >= 6:
            continue
        mine = found.setdefault(user, [])
        if second < t and (length is None or second >= t - length):
            mine.append((second, value, "click" if name == "clicks" else "buy"))
    values: dict[str, tuple[Any, ...]] = {}
    for user, rows in found.items():
        summed = [v for _, v, _ in rows if v is not None]
        ordered = sorted(rows, key=lambda row: row[0])
        values[user] = (
            sum(summed) if summed else None, len(rows), ordered[-1][2] if rows else None,
            sum(kind == "buy" for _, _, kind in rows),
        )  # fmt: skip
    return values


def shown(frame: pl.DataFrame, key: str) -> dict[str, tuple[Any, ...]]:
    return {r[key]: (r["total"], r["acts"], r["newest"], r["buys"]) for r in frame.rows(named=True)}


@settings(max_examples=60, deadline=None)
@given(
    log=events, t=st.integers(0, 10), length=st.sampled_from([None, 3]),
    rows_max=st.integers(1, 6), split=st.integers(0, 25), data=st.data(),
)  # fmt: skip
def test_every_path_gives_the_naive_fold(
    tmp_path_factory: pytest.TempPathFactory,
    log: list[Event],
    t: int,
    length: int | None,
    rows_max: int,
    split: int,
    data: st.DataObject,
) -> None:
    inner = EmbeddedLog(tmp_path_factory.mktemp("ledger"))
    ledger = UnionLog(inner)
    for stream in STREAMS.values():
        inner.create(stream)
    definition = define(window_us=None if length is None else length * 1_000_000)
    for event in log[:split]:
        append(inner, event)
    middle = ledger.end(definition.source.name)
    for event in log[split:]:
        append(inner, event)
    end = ledger.end(definition.source.name)
    wanted = naive(log, t, length)

    at = BEGIN + timedelta(seconds=t)
    labels = pl.DataFrame({"user": ["ann", "bob"], "asked": [at, at]})
    features = definition.plan.features
    trained = build_training_set(labels, [(definition, features)], ledger, clock=SYSTEM)
    nothing = (None, 0, None, 0)
    rows = shown(trained.to_polars(), "user")
    assert rows == {u: wanted.get(u, nothing) for u in ("ann", "bob")}
    assert trained.cuts == {"clicks + buys": end}

    fold = Fold(definition.plan)
    batches = []
    for start, stop in ((START, middle), (middle, end)):
        with closing(
            ledger.read(
                definition.source, start=start, end=stop, columns=fold.plan.columns,
                rows_max=rows_max,
            )
        ) as part:  # fmt: skip
            batches += list(part)
    state = fold.empty
    # A worker may meet the streams in any order: what it keeps does not depend on it.
    for batch in data.draw(st.permutations(batches)):
        state = fold.add(state, batch.rows, batch.positions).state
    latest = 10 if length is None else max([t, *(e[3] + 1 for e in log)])
    now_us = int((BEGIN + timedelta(seconds=latest)).timestamp()) * 1_000_000
    values = fold.values(state, now_us=now_us).rename({fold.keys[0]: "user"})
    assert shown(values, "user") == naive(log, latest, length)
    seen = preview("x", definition.plan, definition.source, ledger, clock=SYSTEM)
    if wanted:
        newest = max(int((seen.last - BEGIN).total_seconds()) + 1, 0) if seen.last else 0
        assert shown(seen.frame, "user") == naive(log, newest, length)
    inner.close()


@pytest.mark.parametrize("names", [("clicks", "buys"), ("buys", "clicks")])
def test_of_equal_times_the_first_select_is_the_first(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    inner = EmbeddedLog(tmp_path / "ledger")
    for stream in STREAMS.values():
        inner.create(stream)
    # What was appended first decides nothing between streams: their order in the text does.
    for name in ("buys", "clicks", "buys"):
        append(inner, (name, "ann", 1, 3))
    selects = {"clicks": "SELECT user, 'clicks' AS kind FROM clicks",
               "buys": "SELECT who AS user, 'buys' AS kind FROM buys"}  # fmt: skip
    definition = define(
        "SELECT user, FIRST(kind) AS first, LAST(kind) AS last FROM "
        f"({selects[names[0]]} UNION ALL {selects[names[1]]}) GROUP BY user"
    )
    ledger = UnionLog(inner)
    seen = preview("x", definition.plan, definition.source, ledger, clock=SYSTEM)
    assert seen.frame.rows() == [("ann", *names)]
    labels = pl.DataFrame({"user": ["ann"], "asked": [BEGIN + timedelta(days=1)]})
    trained = build_training_set(labels, [(definition, ("first", "last"))], ledger, clock=SYSTEM)
    assert trained.to_polars().select("first", "last").rows() == [names]
    inner.close()


@settings(max_examples=40, deadline=None)
@given(log=events, rows_max=st.integers(1, 4), split=st.integers(0, 25))
def test_a_cut_of_a_union_is_a_cut_of_each_stream(
    tmp_path_factory: pytest.TempPathFactory, log: list[Event], rows_max: int, split: int
) -> None:
    inner = EmbeddedLog(tmp_path_factory.mktemp("ledger"))
    ledger = UnionLog(inner)
    for stream in STREAMS.values():
        inner.create(stream)
    source = define().source
    for event in log:
        append(inner, event)
    end = ledger.end(source.name)
    batches = list(ledger.read(source, start=START, end=end, rows_max=rows_max))
    reached = START
    for batch in batches[:split]:
        reached = reached.advanced([batch.end])
    # Read again from where any reader may have stopped, it is the rest and nothing else.
    rest = list(ledger.read(source, start=reached, end=end, rows_max=rows_max))
    positions = [p for b in batches for p in b.positions().rows()]
    assert len(set(positions)) == len(positions)
    assert [p for b in rest for p in b.positions().rows()] == [
        p for b in batches[split:] for p in b.positions().rows()
    ]
    assert START.advanced([b.end for b in batches]) == end
    assert Cut.from_json(end.to_json()) == end
    inner.close()


def test_a_definition_of_a_union_comes_back_from_the_catalog() -> None:
    definition = define()
    again = definition_of(definition.to_dict())
    assert again == definition
    assert isinstance(again.source, UnionStream)
    assert again.source.parts == (CLICKS, BUYS)


def test_what_does_not_fit_names_the_union(tmp_path: Path) -> None:
    inner = EmbeddedLog(tmp_path / "ledger")
    for stream in STREAMS.values():
        inner.create(stream)
    append(inner, ("clicks", "ann", 2**62, 0))
    definition = define("SELECT user, SUM(n * 4) AS s FROM (SELECT user, n FROM clicks UNION ALL "
                        "SELECT who, price FROM buys) GROUP BY user")  # fmt: skip
    with pytest.raises(OverflowInFold, match=r"clicks \+ buys"):
        preview("x", definition.plan, definition.source, UnionLog(inner), clock=SYSTEM)
    inner.close()
