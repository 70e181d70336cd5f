"""The data that the benchmarks run on, from one seed, and the definitions over it."""

from __future__ import annotations

import numpy as np
import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

SEED = 20240101
BEGIN_US = 1_704_067_200_000_000
DAYS = 90
DAY_US = 86_400_000_000
COLUMNS = (
    ("user", Type.VARCHAR),
    ("readtime", Type.BIGINT),
    ("amount", Type.DOUBLE),
    ("ts", Type.TIMESTAMP),
)
WORKER_SQL = """
SELECT user, COUNT(*) AS reads, SUM(readtime) AS total, AVG(amount) AS mean
FROM read_events GROUP BY user
"""
TEN_SQL = """
SELECT user, COUNT(*) AS f0, SUM(readtime) AS f1, AVG(readtime) AS f2, MIN(readtime) AS f3,
       MAX(readtime) AS f4, SUM(amount) AS f5, AVG(amount) AS f6, MIN(amount) AS f7,
       MAX(amount) AS f8, SUM(readtime * amount) AS f9
FROM read_events GROUP BY user
"""
TEN = tuple(f"f{i}" for i in range(10))
WINDOW_DAYS = 7


def stream(name: str, **types: Type) -> Stream:
    """Return the declaration of the data, some of its columns in other types."""
    return Stream(name, tuple((n, types.get(n, t)) for n, t in COLUMNS), time="ts")


def define(name: str, sql: str, source: Stream) -> Definition:
    """Compile `sql`, whose table is called ``read_events``, over `source`."""
    text = sql.replace("read_events", f'"{source.name}"')
    columns = SourceColumns(source.name, source.columns, source.time)
    plan = compile_sql(text, name=name, find_source=lambda _: columns)
    return Definition(name, text, plan, source)


def sum_sql(column: str, *, windowed: bool) -> str:
    """Return the SQL of a lifetime sum or of one over seven days."""
    if not windowed:
        return f"SELECT user, SUM({column}) AS total FROM read_events GROUP BY user"
    return (
        f"SELECT user, SUM({column}) OVER (PARTITION BY user ORDER BY ts RANGE BETWEEN "
        f"INTERVAL '{WINDOW_DAYS}' DAY PRECEDING AND CURRENT ROW) AS total FROM read_events"
    )


def events(count: int, entities: int) -> pl.DataFrame:
    """Return `count` events in the order of their times, of entities drawn evenly.

    No entity has two events at the same microsecond: so SQL that would count only some of
    several events at one time is right here too, and the rival may use it.
    """
    random = np.random.default_rng(SEED)
    gaps = random.integers(1, 2 * DAYS * DAY_US // count, count)
    return pl.DataFrame(
        {
            "user": random.integers(0, entities, count),
            "readtime": random.integers(0, 10_000, count),
            "amount": random.integers(0, 40_000, count) / 8,
            "ts": BEGIN_US + np.cumsum(gaps),
        }
    ).with_columns(
        ("u" + pl.col("user").cast(pl.String)).alias("user"),
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
    )


def labels(count: int, entities: int) -> pl.DataFrame:
    """Return `count` labels at random times of the same stretch, in random order."""
    random = np.random.default_rng(SEED + 1)
    return pl.DataFrame(
        {
            "user": random.integers(0, entities, count),
            "t": BEGIN_US + random.integers(0, DAYS * DAY_US, count),
        }
    ).with_columns(
        ("u" + pl.col("user").cast(pl.String)).alias("user"),
        pl.col("t").cast(pl.Datetime("us", "UTC")),
    )


def json_messages(frame: pl.DataFrame) -> list[bytes]:
    """Return one JSON object an event, some 80 bytes each."""
    text = frame.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    return text.write_ndjson().encode().splitlines()
