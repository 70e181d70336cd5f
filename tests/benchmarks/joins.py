"""Point-in-time joins of several shapes: beside hand-written Polars, DuckDB, and each other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.model.labels import key_values, times_us
from fs_notebook.types import TIME
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run, memory_mb
from tests.benchmarks.training import THREADS, same_values

LAST_SQL = "SELECT user, LAST(readtime) AS newest FROM read_events GROUP BY user"
STRICTLY: dict[str, Any] = {"allow_exact_matches": False, "check_sortedness": False}
TABLES = ("user", "article")
ENTITIES = {"user": 50_000, "article": 5_000}


def _fold(sql: str) -> Fold:
    return Fold(data.define("bench", sql, data.stream("read_events")).plan)


def _values(fold: Fold, rows: pl.DataFrame, labels: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """Project the events, then the value of each label, as `training_set` does."""
    keys = key_values(labels.get_column("user"), fold.plan.keys[0]).alias(fold.keys[0])
    moments = pl.DataFrame([keys, times_us(labels, "t").alias(TIME)])
    stamps = (PUBLISHED,) if options.get("known") else ()
    return values_at(fold, fold.project(rows, stamps=stamps)[0], moments, **options)


def _frames(config: Config) -> tuple[pl.DataFrame, pl.DataFrame]:
    folder, case = Path(config["folder"]), config.get("case", "")
    found = [pl.read_parquet(folder / f"{n}{case}.parquet") for n in ("events", "labels")]
    return found[0].rechunk(), found[1].rechunk()


def _logged(rows: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Return rows as a ledger gives them, published a minute to an hour after they happened."""
    random = np.random.default_rng(data.SEED)
    late = pl.Series(random.integers(60_000_000, 3_600_000_000, rows.height)).cast(
        pl.Duration("us")
    )
    ts = pl.col("ts")
    return rows.select(*fold.plan.columns, ts.alias(TIME), (ts + late).alias(PUBLISHED))


def _timed(work: Any) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


@contextmanager
def by_hand(config: Config) -> Iterator[Run]:
    """Running sums and `join_asof`, twice for a window: as one writes it by hand."""
    rows, labels = _frames(config)
    column, windowed = config["column"], config["windowed"]
    work = lambda: _sums_by_hand(rows, labels, column, windowed=windowed)  # noqa: E731
    fold = _fold(data.sum_sql(column, windowed=windowed))
    expected = _values(fold, _logged(rows, fold), labels).get_column("total")
    same_values(expected, work(), "by hand")
    yield lambda: _timed(work)


def _sums_by_hand(
    rows: pl.DataFrame, labels: pl.DataFrame, column: str, *, windowed: bool
) -> pl.Series:
    running = (
        rows.lazy()
        .select("user", "ts", v=pl.col(column))
        .sort("ts")
        .with_columns(s=pl.col("v").cum_sum().over("user"), n=pl.col("v").cum_count().over("user"))
        .select("user", "ts", "s", "n")
    )
    asked = labels.lazy().with_row_index("id").sort("t")
    joined = asked.join_asof(
        running,
        left_on="t",
        right_on="ts",
        by="user",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    if not windowed:
        return joined.sort("id").collect().get_column("s")
    before = asked.with_columns(pl.col("t") - pl.duration(days=data.WINDOW_DAYS)).join_asof(
        running,
        left_on="t",
        right_on="ts",
        by="user",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    both = joined.join(before.select("id", s0="s", n0="n"), on="id", how="left")
    some = pl.col("n") > pl.col("n0").fill_null(0)
    total = pl.when(some).then(pl.col("s") - pl.col("s0").fill_null(0))
    return both.select("id", total=total).sort("id").collect().get_column("total")


def fill_last(config: Config) -> None:
    """Write events and labels of few entities, and of many."""
    for entities in config["last_entities"]:
        folder, case = Path(config["folder"]), f"-{entities}"
        data.events(config["last_events"], entities).write_parquet(folder / f"events{case}.parquet")
        data.labels(config["last_labels"], entities).write_parquet(folder / f"labels{case}.parquet")


@contextmanager
def newest(config: Config) -> Iterator[Run]:
    """Join each label with the newest event of its entity."""
    rows, labels = _frames(config)
    fold = _fold(LAST_SQL)
    logged = _logged(rows, fold)
    yield lambda: _timed(lambda: _values(fold, logged, labels))


@contextmanager
def newest_by_hand(config: Config) -> Iterator[Run]:
    rows, labels = _frames(config)

    def work() -> pl.DataFrame:
        asked = labels.lazy().with_row_index("id").sort("t")
        joined = asked.join_asof(
            rows.lazy().select("user", "ts", "readtime").sort("ts"), left_on="t", right_on="ts",
            by="user", **STRICTLY,
        )  # fmt: skip
        return joined.sort("id").collect()

    fold = _fold(LAST_SQL)
    expected = _values(fold, _logged(rows, fold), labels).get_column("newest")
    same_values(expected, work().get_column("readtime"), "join_asof")
    yield lambda: _timed(work)


def agreeing(config: Config) -> float:
    """Return the share of Feast's rows whose value is ours.

    It keeps one of several labels of the same user and time, and lets an event count at a label's
    very time.
    """
    rows, labels = _frames(config)
    fold = _fold(LAST_SQL)
    mine = labels.with_columns(_values(fold, _logged(rows, fold), labels)["newest"])
    theirs = pl.read_parquet(config["out"]).select(
        "user", pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")).alias("t"), "readtime"
    )
    both = theirs.join(mine.unique(["user", "t"]), on=["user", "t"], how="left")
    same = both.get_column("readtime").cast(pl.Int64).eq_missing(both.get_column("newest"))
    return float(same.mean() or 0.0)  # type: ignore[arg-type]


def fill_wide(config: Config) -> None:
    """Write labels of two keys, and a table of changes of each key, as Parquet files."""
    folder, count = Path(config["folder"]), config["wide_labels"]
    random = np.random.default_rng(data.SEED)
    for name in TABLES:
        rows = data.events(config["wide_events"], ENTITIES[name]).select(
            pl.col("user").str.slice(1).cast(pl.Int64).alias("user"), "readtime", "ts"
        )
        rows.write_parquet(folder / f"{name}.parquet")
    times = pl.Series(data.BEGIN_US + random.integers(0, data.DAYS * data.DAY_US, count))
    frame = pl.DataFrame({n: random.integers(0, ENTITIES[n], count) for n in TABLES}).with_columns(
        times.cast(pl.Datetime("us", "UTC")).alias("t")
    )
    frame.with_row_index("id").write_parquet(folder / "wide.parquet")


def _wide(folder: Path) -> pl.DataFrame:
    labels = pl.read_parquet(folder / "wide.parquet")
    found = []
    for name in TABLES:
        sql = f"SELECT user, LAST(readtime) AS {name}_newest FROM read_events GROUP BY user"
        source = data.stream("read_events", user=data.Type.BIGINT)
        fold = Fold(data.define("bench", sql, source).plan)
        rows = pl.read_parquet(folder / f"{name}.parquet").with_columns(pl.col("ts").alias(TIME))
        asked = labels.select(pl.col(name).alias("user"), "t")
        found.append(_values(fold, rows, asked))
    return pl.concat([labels, *found], how="horizontal")


_WIDE_SQL = """
SELECT l.*, u.readtime AS user_newest, a.readtime AS article_newest
FROM '{folder}/wide.parquet' l
ASOF LEFT JOIN '{folder}/user.parquet' u ON l."user" = u."user" AND l.t > u.ts
ASOF LEFT JOIN '{folder}/article.parquet' a ON l.article = a."user" AND l.t > a.ts
"""


@contextmanager
def wide(config: Config) -> Iterator[Run]:
    """Join labels with two tables, from Parquet files to a frame."""
    folder = Path(config["folder"])
    yield lambda: _timed(lambda: _wide(folder))


@contextmanager
def wide_duck(config: Config) -> Iterator[Run]:
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET preserve_insertion_order = false")
    sql = _WIDE_SQL.format(folder=config["folder"])
    # It returns its rows in no order, unless it is asked to.
    mine, theirs = _wide(Path(config["folder"])), connection.sql(f"{sql} ORDER BY id").pl()
    for column in (f"{name}_newest" for name in TABLES):
        same_values(mine.get_column(column), theirs.get_column(column), "DuckDB's ASOF join")
    del mine, theirs
    yield lambda: _timed(lambda: connection.sql(sql).to_arrow_table())


@contextmanager
def known(config: Config) -> Iterator[Run]:
    """Seven-day sums of what was published before each label's time."""
    yield _as_of(config, known=True)


@contextmanager
def plain(config: Config) -> Iterator[Run]:
    """The same of what had happened."""
    yield _as_of(config, known=False)


def _as_of(config: Config, *, known: bool) -> Run:
    rows, labels = _frames(config)
    fold = _fold(data.sum_sql("readtime", windowed=True))
    logged = _logged(rows, fold)
    return lambda: _timed(lambda: _values(fold, logged, labels, known=known))


def growth(config: Config) -> list[dict[str, float]]:
    """Return the seconds and the peak of the seven-day sum over ever more events and labels."""
    fold = _fold(data.sum_sql("amount", windowed=True))
    found = []
    for events in config["growing"]:
        labels = max(events // 10, 1)
        rows = _logged(data.events(events, config["entities"]), fold)
        asked = data.labels(labels, config["entities"])
        _values(fold, rows, asked)
        seconds = [_timed(lambda r=rows, a=asked: _values(fold, r, a)) for _ in range(3)]
        found.append(
            {"rows": events + labels, "seconds": min(seconds), "peak_mb": memory_mb("VmHWM")}
        )
    return found


def slope(points: list[dict[str, float]]) -> float:
    """Return the exponent that the seconds grow by: 1 is linear."""
    x, y = (np.log([p[n] for p in points]) for n in ("rows", "seconds"))
    return float(np.polyfit(x, y, 1)[0])


def picture(points: list[dict[str, float]], path: Path) -> None:
    """Draw seconds over rows, with the line that is as fast as the largest, to an SVG file."""
    import altair as alt
    import vl_convert

    last = points[-1]
    line = [
        {"rows": p["rows"], "linear": p["rows"] * last["seconds"] / last["rows"]} for p in points
    ]
    x = alt.X("rows:Q", title="events + labels", scale=alt.Scale(type="log"))
    y = {"scale": alt.Scale(type="log"), "title": "seconds"}
    measured = alt.Chart(alt.Data(values=points)).mark_line(point=True, color="#4c78a8")
    linear = alt.Chart(alt.Data(values=line)).mark_line(strokeDash=[4, 4], color="#999999")
    chart = alt.layer(
        linear.encode(x=x, y=alt.Y("linear:Q", **y)),
        measured.encode(x=x, y=alt.Y("seconds:Q", **y)),
    ).properties(
        width=420, height=280, title=f"Seven-day sum: time ∝ size^{slope(points):.2f} (dashed: 1)"
    )  # fmt: skip
    path.write_text(vl_convert.vegalite_to_svg(chart.to_dict()))
