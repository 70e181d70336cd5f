"""Point-in-time values of many labels: `values_at` beside the best SQL that DuckDB has for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.model.labels import key_values, times_us
from fs_notebook.types import TIME
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run

THREADS = 2
CHOICES = 2
RELATIVE = 1e-9
_RUNNING = """
WITH running AS (
  SELECT "user", ts, SUM(v) OVER (PARTITION BY "user" ORDER BY ts{frame}) AS s FROM events
)
"""
_UNION = """
WITH mixed AS (
  SELECT "user", ts, v, NULL AS id FROM events
  UNION ALL SELECT "user", t, NULL, id FROM labels
), summed AS (
  SELECT id, SUM(v) OVER (PARTITION BY "user" ORDER BY ts RANGE BETWEEN {preceding} PRECEDING
                          AND INTERVAL 1 MICROSECOND PRECEDING) AS total FROM mixed
)
SELECT total FROM summed WHERE id IS NOT NULL ORDER BY id
"""
_AT = """SELECT {total} AS total FROM labels l
ASOF LEFT JOIN running a ON l."user" = a."user" AND l.t > a.ts {more}
ORDER BY l.id"""
_WEEK = f"INTERVAL {data.WINDOW_DAYS} DAY"
_BEFORE = f"""
ASOF LEFT JOIN running b ON l."user" = b."user" AND l.t - {_WEEK} > b.ts"""
_DIFFERENCE = "CASE WHEN a.n > coalesce(b.n, 0) THEN a.s - coalesce(b.s, 0) END"
_COUNTED = """
WITH running AS (
  SELECT "user", ts, SUM(v) OVER w AS s, COUNT(v) OVER w AS n FROM events
  WINDOW w AS (PARTITION BY "user" ORDER BY ts{frame})
)
"""
_JOIN = """
SELECT total FROM labels l LEFT JOIN (
  SELECT l.id, SUM(e.v) AS total FROM labels l
  JOIN events e ON l."user" = e."user" AND e.ts < l.t {more} GROUP BY l.id
) g ON l.id = g.id ORDER BY l.id
"""
_ROWS = " ROWS UNBOUNDED PRECEDING"
LIFETIME = {
    "ASOF over a running sum (range)": _RUNNING.format(frame="") + _AT.format(total="a.s", more=""),
    "ASOF over a running sum (rows)": _RUNNING.format(frame=_ROWS)
    + _AT.format(total="a.s", more=""),
    "one window over events and labels": _UNION.format(preceding="UNBOUNDED"),
}
WEEK = {
    "difference of two ASOF joins (range)": _COUNTED.format(frame="")
    + _AT.format(total=_DIFFERENCE, more=_BEFORE),
    "difference of two ASOF joins (rows)": _COUNTED.format(frame=_ROWS)
    + _AT.format(total=_DIFFERENCE, more=_BEFORE),
    "one window over events and labels": _UNION.format(preceding=_WEEK),
    "inequality join, grouped": _JOIN.format(more=f"AND e.ts >= l.t - {_WEEK}"),
}


def fill(config: Config) -> None:
    """Write events and labels where both sides find them."""
    folder = Path(config["folder"])
    data.events(config["events"], config["entities"]).write_parquet(folder / "events.parquet")
    data.labels(config["labels"], config["entities"]).write_parquet(folder / "labels.parquet")


def choose(config: Config) -> tuple[str, dict[str, float]]:
    """Return the name of DuckDB's fastest SQL, and the seconds of each that was tried.

    Every one of them must give what we give, or there is nothing to compare.
    """
    expected = _ours(config)().get_column("total")
    best: dict[str, float] = {}
    for name, sql in _candidates(config).items():
        query = _duck(config, sql)
        found = pl.Series("total", query().column("total"))
        same_values(expected, found, name)
        seconds = [_timed(query) for _ in range(CHOICES)]
        best[name] = min(seconds)
    return min(best, key=best.__getitem__), best


@contextmanager
def ours(config: Config) -> Iterator[Run]:
    """Project the events, then the value of each label, as `training_set` does."""
    values = _ours(config)
    yield lambda: _timed(values)


@contextmanager
def duck(config: Config) -> Iterator[Run]:
    query = _duck(config, _candidates(config)[config["choice"]])
    yield lambda: _timed(query)


def _candidates(config: Config) -> dict[str, str]:
    return WEEK if config["windowed"] else LIFETIME


def _frames(config: Config) -> tuple[pl.DataFrame, pl.DataFrame]:
    folder = Path(config["folder"])
    frames = [pl.read_parquet(folder / f"{n}.parquet") for n in ("events", "labels")]
    return frames[0].rechunk(), frames[1].rechunk()


def _ours(config: Config) -> Any:
    rows, labels = _frames(config)
    source = data.stream("read_events")
    sql = data.sum_sql(config["column"], windowed=config["windowed"])
    fold = Fold(data.define("bench", sql, source).plan)
    # A ledger gives the event time beside the asked columns.
    rows = rows.select(*fold.plan.columns, pl.col("ts").alias(TIME))

    def values() -> pl.DataFrame:
        keys = key_values(labels.get_column("user"), fold.plan.keys[0]).alias(fold.keys[0])
        moments = pl.DataFrame([keys, times_us(labels, "t").alias(TIME)])
        return values_at(fold, fold.project(rows)[0], moments)

    return values


def _duck(config: Config, sql: str) -> Any:
    """Return the query over the same frames; times without a zone, which it is faster with."""
    rows, labels = _frames(config)
    plain = pl.col(pl.Datetime).dt.replace_time_zone(None)
    column = config["column"]
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET enable_progress_bar = false")
    connection.register(
        "events",
        rows.select("user", "ts", pl.col(column).alias("v")).with_columns(plain).to_arrow(),
    )
    connection.register("labels", labels.with_row_index("id").with_columns(plain).to_arrow())
    return lambda: connection.sql(sql).to_arrow_table()


def _timed(work: Any) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def same_values(expected: pl.Series, found: pl.Series, name: str) -> None:
    found = found.cast(expected.dtype)
    assert found.len() == expected.len(), (name, found.len())
    assert (found.is_null() == expected.is_null()).all(), name
    if expected.dtype == pl.Int64:
        assert (found == expected).all(), name
        return
    # A difference of running totals has the totals' error, not its own result's.
    far = ((found - expected).abs() > RELATIVE * (1 + expected.abs())).sum()
    assert not far, (name, far)
