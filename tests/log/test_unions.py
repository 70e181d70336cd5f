"""A union of streams on every ledger: its tail follows the end of each."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import polars as pl

from fs_notebook.compute.unions import UnionLog
from fs_notebook.log.protocol import PUBLISHED, Stream
from fs_notebook.position import START
from fs_notebook.types import TIME
from tests.compute.test_unions import BEGIN, BUYS, CLICKS, define
from tests.support.logs import Ledger


def test_the_end_of_every_stream_is_followed(ledger: Ledger) -> None:
    log = UnionLog(ledger.log)
    partitions = min(ledger.partitions_max, 2)
    clicks = ledger.stream(columns=CLICKS.columns, time="ts", key=("user",), partitions=partitions)
    buys = ledger.stream(columns=BUYS.columns, time="at")
    definition = define(streams={"clicks": clicks, "buys": buys})
    source = definition.source
    assert source.name == f"{clicks.name} + {buys.name}"
    assert log.identity(source.name) != log.identity(clicks.name)

    def rows(stream: Stream, user: str, amount: int) -> pl.DataFrame:
        row = {"user": user, "who": user, "n": amount, "price": amount, "ts": BEGIN, "at": BEGIN}
        schema = {n: t.polars for n, t in stream.columns}
        return pl.DataFrame([{n: row[n] for n in schema}], schema=schema)

    log.append(clicks, rows(clicks, "ann", 1))
    start = log.end(source.name)
    found: list[tuple[Any, ...]] = []
    asked = [*definition.plan.columns, PUBLISHED]
    with closing(log.tail(source, start=start, columns=asked, idle_seconds=0.05)) as tail:
        assert next(b for b in tail if b is None) is None
        for stream, user in ((buys, "bob"), (clicks, "cat"), (clicks, "dan"), (buys, "eve")):
            log.append(stream, rows(stream, user, 2))
            batch = next(b for b in tail if b is not None)
            assert batch.rows.columns == [*asked, TIME]
            assert batch.positions().height == batch.rows.height == 1
            found += batch.rows.select("c0", "c1").rows()
    assert found == [("bob", -2), ("cat", 2), ("dan", 2), ("eve", -2)]
    end = log.end(source.name)
    names = [r for b in log.read(source, start=START, end=end) for r in b.rows["c0"]]
    assert sorted(names) == ["ann", "bob", "cat", "dan", "eve"]
