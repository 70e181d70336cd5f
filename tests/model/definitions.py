"""Streams on an embedded ledger, and definitions over them."""

from __future__ import annotations

import uuid
from typing import Any

import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

READS = (
    ("user", Type.VARCHAR),
    ("n", Type.BIGINT),
    ("x", Type.DOUBLE),
    ("ts", Type.TIMESTAMP),
)
SECOND = 1_000_000


def define(stream: Stream, sql: str, *, name: str = "group", closed: str = "left") -> Definition:
    source = SourceColumns(stream.name, stream.columns, stream.time)
    text = sql.replace("STREAM", f'"{stream.name}"')
    plan = compile_sql(text, name=name, find_source=lambda _: source, closed=closed)
    return Definition(name, text, plan, stream)


def windowed(aggregate: str, name: str, seconds: int, *, by: str = "user") -> str:
    return (
        f"{aggregate} OVER (PARTITION BY {by} ORDER BY ts RANGE BETWEEN "
        f"INTERVAL {seconds} SECOND PRECEDING AND CURRENT ROW) AS {name}"
    )


def stream_of(
    log: EmbeddedLog,
    rows: list[dict[str, Any]],
    *,
    columns: tuple[tuple[str, Type], ...] = READS,
    name: str | None = None,
    batches: int = 1,
) -> Stream:
    """Make a stream of `rows`, whose `ts` is in microseconds, appended in so many batches."""
    stream = Stream(name or f"s_{uuid.uuid4().hex[:10]}", columns, "ts")
    log.create(stream)
    schema = {n: pl.Int64() if n == "ts" else t.polars for n, t in columns}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    frame = frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    size = max(-(-frame.height // batches), 1)
    for start in range(0, frame.height, size):
        log.append(stream, frame.slice(start, size))
    return stream
