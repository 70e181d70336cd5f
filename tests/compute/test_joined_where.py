"""A condition that is told before the join changes no value, and spares the rows it drops."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import preview
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.frames import position_frame
from fs_notebook.log.protocol import PUBLISHED, Batch
from fs_notebook.model.training import build_training_set
from fs_notebook.position import START, Position
from fs_notebook.types import TIME
from tests.session.test_joins import ARTICLES, READS, Ticking, rows
from tests.support.sessions import BEGIN

NOW_US = int((BEGIN + timedelta(hours=1)).timestamp() * 1_000_000)
# What holds of each row: none, one side, the other, both, and both at once in one condition.
WHERES: dict[str, Any] = {
    "TRUE": lambda user, article, genre: True,
    "r.user = 'ann'": lambda user, article, genre: user == "ann",
    "a.genre = 'news'": lambda user, article, genre: genre == "news",
    "r.article > 0 AND (a.genre IS NULL OR a.genre <> 'arts')": lambda user, article, genre: (
        article is not None and article > 0 and genre != "arts"
    ),
    "r.user = 'bob' OR a.genre = 'sport'": lambda user, article, genre: (
        user == "bob" or genre == "sport"
    ),
}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from(["ann", "bob"]),
                  st.one_of(st.none(), st.integers(0, 2)), st.integers(0, 6)),
        st.tuples(st.just("article"), st.integers(0, 2),
                  st.sampled_from(["news", "sport", "arts", None]), st.integers(0, 6)),
    ),
    max_size=18,
)  # fmt: skip


def define(where: str, how: str) -> Definition:
    streams = {s.name: s for s in (READS, ARTICLES)}
    sql = (
        "SELECT user, COUNT(*) AS n, LAST(a.genre) AS newest, SUM(r.article) AS total "
        f"FROM reads r {how} articles a ON r.article = a.article WHERE {where} GROUP BY user"
    )
    plan = compile_sql(
        sql, name="x",
        find_source=lambda n: SourceColumns(n, streams[n].columns, streams[n].time),
    )  # fmt: skip
    return Definition("x", sql, plan, READS, joined=(ARTICLES,))


def naive(log: list[tuple[Any, ...]], where: str, *, outer: bool) -> dict[str, list[Any]]:
    known: list[tuple[Any, ...]] = []
    kept: dict[str, list[tuple[Any, ...]]] = {}
    for step in log:
        if step[0] == "article":
            known.append(step)
            continue
        _, user, article, at = step
        seen = [k for k in known if k[1] == article and k[3] <= at]
        genre = max(enumerate(seen), key=lambda p: (p[1][3], p[0]))[1][2] if seen else None
        if (seen or outer) and WHERES[where](user, article, genre):
            kept.setdefault(user, []).append((at, genre, article))
    found: dict[str, list[Any]] = {}
    for user, mine in kept.items():
        genres = [g for _, g, _ in sorted(mine, key=lambda m: m[0]) if g is not None]
        articles = [a for *_, a in mine if a is not None]
        newest, total = genres[-1] if genres else None, sum(articles) if articles else None
        found[user] = [len(mine), newest, total]
    return found


@settings(max_examples=80, deadline=None)
@given(
    log=steps, where=st.sampled_from(sorted(WHERES)), outer=st.booleans(),
    rows_max=st.integers(1, 5), data=st.data(),
)  # fmt: skip
def test_filtered_or_not_every_path_is_the_naive_join(
    tmp_path_factory: pytest.TempPathFactory,
    log: list[tuple[Any, ...]],
    where: str,
    outer: bool,
    rows_max: int,
    data: st.DataObject,
) -> None:
    ledger = EmbeddedLog(tmp_path_factory.mktemp("ledger"), clock=Ticking())
    for stream in (READS, ARTICLES):
        ledger.create(stream)
    for kind, *values, second in log:
        stream = READS if kind == "read" else ARTICLES
        ledger.append(stream, rows(stream, [(*values, second)]))
    definition = define(where, "LEFT JOIN" if outer else "JOIN")
    plan = definition.plan
    wanted = naive(log, where, outer=outer)

    def filtered() -> Any:
        return joined_log(plan, definition.joined, ledger, filtered=True)

    seen = preview("x", plan, READS, filtered(), clock=SYSTEM)
    names = ("n", "newest", "total")
    assert {r["user"]: [r[n] for n in names] for r in seen.frame.rows(named=True)} == wanted

    fold = Fold(plan)
    state = fold.empty
    batches = list(
        filtered().read(
            READS, start=START, end=ledger.end("reads"), columns=plan.columns, rows_max=rows_max
        )
    )
    for batch in data.draw(st.permutations(batches)):
        state = fold.add(state, batch.rows, batch.positions).state
    values = fold.values(state, now_us=NOW_US).select(*fold.keys, *names).rows()
    assert {user: rest for user, *rest in values} == wanted

    users = ["ann", "bob"]
    labels = pl.DataFrame({"user": users, "asked": [BEGIN + timedelta(hours=1)] * 2})
    trained = build_training_set(labels, [(definition, names)], ledger, clock=SYSTEM)
    nothing = [0, None, None]
    assert [list(r) for r in trained.to_polars().select(names).rows()] == [
        wanted.get(user, nothing) for user in users
    ]
    ledger.close()


def test_rows_that_where_drops_are_not_joined() -> None:
    """What is dropped is not looked up: a reader gets the rows that may stay, no others."""
    plan = define("r.user = 'ann' AND a.genre = 'news'", "LEFT JOIN").plan
    log: Any = _Given()
    joined = joined_log(plan, [ARTICLES], log, filtered=True)
    (batch,) = joined.read(READS, columns=plan.columns)
    assert batch.rows["user"].to_list() == ["ann", "ann"]
    assert batch.positions()["__entry"].to_list() == [0, 3]
    (whole,) = joined_log(plan, [ARTICLES], log).read(READS, columns=plan.columns)
    assert whole.rows.height == 4


class _Given:
    """A ledger with four reads, and with no article."""

    url = "given:"

    def end(self, name: str) -> Any:
        return START

    def read(self, stream: Any, **options: Any) -> Any:
        if stream is ARTICLES:
            return iter(())
        return iter([_four_reads()])


def _four_reads() -> Any:
    users = ["ann", "bob", None, "ann"]
    time = pl.Series([BEGIN] * 4, dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"user": users, "article": [1, 1, 2, 3]}).with_columns(
        time.alias(TIME), time.alias(PUBLISHED)
    )
    zeros = pl.zeros(4, dtype=pl.Int64, eager=True)
    entry = pl.Series(range(4), dtype=pl.Int64)
    return Batch(
        0, frame, Position(0, 0, 3, 0), (),
        lambda: position_frame(partition=0, ledger=zeros, entry=entry, batch=zeros),
    )  # fmt: skip
