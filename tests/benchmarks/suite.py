"""All duels in order, on a broker and a Redis of their own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import psutil

from tests.benchmarks import (
    catalog,
    feast_store,
    figures,
    folding,
    freshness,
    joins,
    ledger,
    reads,
    replay,
    training,
    versions,
    work,
)
from tests.benchmarks.figures import LONG_S_MAX, Say
from tests.benchmarks.harness import Duel, Side, ask, duel
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.table import AT_LEAST, AT_MOST, Figure, Row, markdown
from tests.support import broker as brokers
from tests.support.redis import RedisServer, make_server, remove_server, system_server

Config = dict[str, Any]


def run(
    sizes: Sizes,
    *,
    say: Say,
    broker: brokers.Broker | None = None,
    pictures: Path | None = None,
    feast: bool = False,
) -> tuple[list[Row], list[Figure], list[str]]:
    """Return the rows of the table, the figures that stand alone, and the notes under them.

    Parameters
    ----------
    say
        Told what goes on.
    broker
        A broker that runs already; by default one is started, and ended with the run.
    pictures
        The folder to draw the plot over sizes into.
    feast
        Measure Feast as well, which is installed where it is not.
    """
    begun_s = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="fsn-bench-") as folder:
        rows = _training(sizes, Path(folder), say)
        joined, alone = _joins(sizes, Path(folder), say, pictures)
        rows += joined + _fold(sizes, Path(folder), say)
        told: list[str] = []
        with _redis() as redis:
            config = asdict(sizes) | {"folder": folder, "redis": redis.url}
            rows = _reads(sizes, config, say) + rows
            if feast:
                told.append(_feast(sizes, config, rows, say))
            rows.append(_hot(sizes, config, say))
            say("roll-back")
            found = _duel(versions.rollback, versions.backfill, config, sizes.repeats)
            rows.append(Row("roll-back to a warm version", "folding anew", AT_MOST, None, found))
            alone.append(Figure("roll-back, call to value", found.ours.median, "s", aim=1.0))
            say("opening the catalog")
            found = _duel(catalog.opened, catalog.parsed, config, sizes.repeats)
            name = f"catalog of {sizes.features:,} features, opened and searched"
            rows.append(Row(name, "json.loads of it", AT_MOST, None, found))
            with _broker(broker, Path(folder)) as there:
                config |= {"url": there.url, "admin_url": there.admin_url}
                config["topic"] = there.fresh("bench")
                rows = _streams(sizes, config, say) + rows
                say("freshness")
                found = _duel(freshness.served, freshness.received, config, sizes.repeats)
                name = "event sent to value served, p99"
                rows.append(Row(name, "bare client", AT_MOST, None, found))
                alone.append(Figure(name, 1000 * found.ours.median, "ms", aim=100.0))
                alone += figures.on_pulsar(sizes, config, say)
            alone += figures.elsewhere(sizes, config, say)
    arrow = next(r for r in rows if r.name == "replay, Arrow batches")
    speed = sizes.messages / arrow.duel.ours.median / 1e6
    alone.insert(0, Figure(arrow.name, speed, "M rows/s", AT_LEAST, 4.0))
    return rows, alone, [*_notes(sizes, rows, load, time.monotonic() - begun_s), *told]


def _notes(sizes: Sizes, rows: list[Row], load: float, seconds: float) -> list[str]:
    busy = [row.duel.busy for row in rows]
    machine = (
        f"{psutil.cpu_count()} cores; others used {min(busy):.0%} to {max(busy):.0%} of them just "
        f"before a duel (load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end). "
        f"The run took {seconds:.0f} s."
    )
    work_done = (
        f"{sizes.messages:,} JSON messages in one partition, {sizes.entities:,} entities; training "
        f"set of {sizes.labels:,} labels × {sizes.events:,} events; polars {pl.__version__}, "
        f"DuckDB {duckdb.__version__} with {training.THREADS} threads."
    )
    ratios = (
        "Ratios are of the medians of runs taken in turns; 'of pairs' is the least and the most of "
        "neighbouring runs. A '≥' ratio is of speeds, a '≤' ratio of times."
    )
    memory = (
        "Memory is a process's peak while it worked, and in brackets what it grew by: before, it "
        "held interpreter, libraries and the data it was given."
    )
    rivals = (
        "The bare client only receives: its loop decodes nothing. redis-py returns bytes. Of the "
        "SQL that was tried in DuckDB the fastest is shown; all of it gave our very results."
    )
    return [machine, work_done, ratios, memory, rivals]


def report(rows: list[Row], figures_: list[Figure], notes: list[str]) -> str:
    """Return the tables as Markdown."""
    return markdown(rows, figures_, notes=notes)


def _streams(sizes: Sizes, config: Config, say: Say) -> list[Row]:
    say("filling the topic")
    size = ask(replay.fill, config)
    say(f"replay: messages of {size:.0f} bytes")
    read = partial(Row, rival="bare client", sense=AT_LEAST, count=sizes.messages)
    rows = [
        read(
            name="replay, decoded", aim=0.8,
            duel=_duel(replay.ours, replay.bare, config, sizes.repeats),
        )
    ]  # fmt: skip
    say("replay from the cache")
    cached = _duel(replay.warm, replay.cold, config, sizes.repeats)
    rows.append(Row("replay, cached", "first read", AT_LEAST, 20.0, cached, sizes.messages))
    rows += _ledger(sizes, config, say)
    say("worker on Pulsar")
    rows.append(
        read(
            name="worker, Pulsar to Redis", aim=0.6,
            duel=_duel(work.on_pulsar, replay.bare, config, sizes.repeats),
        )
    )  # fmt: skip
    say("worker on the embedded ledger")
    rows.append(
        read(
            name="worker, embedded to Redis", aim=None,
            duel=_duel(work.on_embedded, replay.bare, config, sizes.repeats),
        )
    )  # fmt: skip
    return rows


def _ledger(sizes: Sizes, config: Config, say: Say) -> list[Row]:
    rows = []
    kinds: list[tuple[str, str, Side, Callable[[Config], None], float | None]] = [
        ("parted", "four partitions, decoded", ledger.partitions, ledger.fill_partitions, 1.5),
        ("avro", "Avro, decoded", ledger.avro, ledger.fill_avro, None),
        ("arrow", "Arrow batches", ledger.arrow, ledger.fill_arrow, 10.0),
    ]
    for kind, name, side, fill, aim in kinds:
        say(f"replay of {name}")
        topic = f"{config['topic']}-{kind}"
        ask(fill, config | {"topic": topic})
        found = _duel(side, replay.bare, config | {kind: topic}, sizes.repeats)
        rows.append(
            Row(f"replay, {name}", "bare client", AT_LEAST, aim, found, sizes.messages)
        )  # fmt: skip
    for name, side, aim in (
        ("upload, as JSON", ledger.upload_json, 0.8),
        ("upload, as Arrow", ledger.upload_arrow, 10.0),
    ):
        say(name)
        found = _duel(side, ledger.send_loop, config, sizes.repeats)
        rows.append(Row(name, "send_async", AT_LEAST, aim, found, sizes.sent))
    return rows


def _reads(sizes: Sizes, config: Config, say: Say) -> list[Row]:
    ask(reads.fill, config)
    rows = []
    for size in sizes.read_entities:
        say(f"read of {size:,} entities")
        found = _duel(reads.ours, reads.raw, config | {"size": size}, sizes.repeats_many)
        name = f"read {size:,} × 10 features, p50"
        rows.append(Row(name, "redis-py HMGET", AT_MOST, 1.2, found))
    return rows


def _training(sizes: Sizes, folder: Path, say: Say) -> list[Row]:
    config: Config = asdict(sizes) | {"folder": str(folder)}
    ask(training.fill, config)
    rows = []
    for column, kind in (("readtime", "BIGINT"), ("amount", "DOUBLE")):
        for windowed in (False, True):
            name = f"training set, {'7-day' if windowed else 'lifetime'} SUM of {kind}"
            say(name)
            case = config | {"column": column, "windowed": windowed}
            choice, tried = ask(training.choose, case)
            say("  DuckDB: " + "; ".join(f"{n} {s:.3f} s" for n, s in tried.items()))
            found = _duel(training.ours, training.duck, case | {"choice": choice}, sizes.repeats)
            rows.append(Row(name, f"DuckDB, {choice}", AT_MOST, 1.0, found))
            found = _duel(training.ours, joins.by_hand, case, sizes.repeats)
            rows.append(Row(f"{name}, again", "Polars by hand", AT_MOST, 1.0, found))
    found = _duel(joins.known, joins.plain, config, sizes.repeats)
    name = "training set, 7-day SUM of BIGINT, as known"
    rows.append(Row(name, "by event time", AT_MOST, None, found))
    return rows


def _joins(
    sizes: Sizes, folder: Path, say: Say, pictures: Path | None
) -> tuple[list[Row], list[Figure]]:
    config: Config = asdict(sizes) | {"folder": str(folder)}
    ask(joins.fill_last, config)
    rows = []
    for entities in sizes.last_entities:
        name = f"training set, newest event, {entities:,} entities"
        say(name)
        case = config | {"case": f"-{entities}"}
        found = _duel(joins.newest, joins.newest_by_hand, case, sizes.repeats)
        rows.append(Row(name, "Polars join_asof", AT_MOST, None, found))
    say("labels and two tables from Parquet")
    ask(joins.fill_wide, config)
    found = _duel(joins.wide, joins.wide_duck, config, sizes.repeats)
    count = sizes.wide_labels
    rows.append(Row("training set, Parquet, two tables", "DuckDB", AT_LEAST, None, found, count))
    alone = [
        Figure(f"{row.name}: {what}", value, unit, aim=aim)
        for row in rows[:-1]
        for what, value, unit, aim in (
            ("time", row.duel.ours.median, "s", 0.5),
            ("memory", row.duel.ours.peak_mb, "MB", 1000.0),
        )
    ]
    speed = count / found.ours.median / 1e6
    alone.append(Figure(f"{rows[-1].name}, {count:,} labels", speed, "M rows/s", AT_LEAST, 3.0))
    say("growth over sizes")
    points = ask(joins.growth, config, seconds_max=LONG_S_MAX)
    least, most = points[0], points[-1]
    name = (
        f"7-day sum of {least['rows']:,} to {most['rows']:,} events and labels, "
        f"{least['seconds']:.2f} to {most['seconds']:.2f} s: power of the size"
    )
    alone.append(Figure(name, joins.slope(points), "(1 is linear)", aim=1.1))
    if pictures is not None:
        joins.picture(points, pictures / "training_growth.svg")
    return rows, alone


def _feast(sizes: Sizes, config: Config, rows: list[Row], say: Say) -> str:
    """Return a note of what Feast takes for the same joins and reads."""
    feast_store.install(say)
    folder = Path(config["folder"])
    ours = {r.name: r.duel.ours.median for r in rows}
    base = {
        "folder": config["folder"],
        "redis": config["redis"].removeprefix("redis://").partition("/")[0],
        "entities": sizes.entities,
        "read_entities": list(sizes.read_entities),
    }
    version, told = "", []
    for n in sizes.last_entities:
        say(f"Feast, newest event, {n:,} entities")
        case = {
            "name": str(n),
            "events": str(folder / f"events-{n}.parquet"),
            "labels": str(folder / f"labels-{n}.parquet"),
            "out": str(folder / f"feast-{n}.parquet"),
        }
        answer = feast_store.asked(base | {"case": case})
        mine = f"(ours {ours[f'training set, newest event, {n:,} entities']:.2f} s)"
        if answer is None:
            told.append(f"{n:,} entities not done in {feast_store.RUN_S_MAX} s {mine}")
            continue
        version, f = answer["version"], answer["found"]
        alike = ask(joins.agreeing, config | {"case": f"-{n}", "out": case["out"]})
        told.append(
            f"{n:,} entities {f['seconds']:.2f} s and {f['peak_mb']:,.0f} MB, {f['rows']:,} rows "
            f"of {sizes.last_labels:,} labels, {alike:.2%} of them as ours {mine}"
        )
    say("Feast, reads")
    answer = feast_store.asked(base)
    read = "not done"
    if answer is not None:
        version = answer["version"]
        read = "; ".join(
            f"{int(n):,} entities {s * 1000:.2f} ms (ours "
            f"{ours[f'read {int(n):,} × 10 features, p50'] * 1000:.2f} ms)"
            for n, s in answer["found"].items()
        )
    return (
        f"Feast {version}, file offline store and Redis, same events and labels: "
        f"get_historical_features of the newest event, {'; '.join(told)}; get_online_features of "
        f"ten features, p50, {read}."
    )


def _fold(sizes: Sizes, folder: Path, say: Say) -> list[Row]:
    config: Config = asdict(sizes) | {"folder": str(folder)}
    count = sizes.messages
    with folding.one_thread():
        say("fold, micro-batches")
        found = _duel(folding.lifetime, folding.by_hand, config, sizes.repeats)
        name = "fold, 3 aggregates, batches of 10k, one core"
        rows = [Row(name, "all at once by hand", AT_LEAST, 0.5, found, count)]
        found = _duel(folding.lifetime_each, folding.by_hand_each, config, sizes.repeats)
        name = "the same, with the state of all after each batch"
        rows.append(Row(name, "Polars by hand", AT_LEAST, 0.5, found, count))
        say("fold, 7-day windows")
        found = _duel(folding.week, folding.by_hand, config, sizes.repeats)
        name = "fold, exact 7-day SUM, batches of 10k, one core"
        rows.append(Row(name, "lifetimes, all at once by hand", AT_LEAST, 0.1, found, count))
    say("preview")
    found = _duel(folding.preview_cell, folding.query_by_hand, config, sizes.repeats)
    rows.append(Row("preview, 3 aggregates", "Polars by hand", AT_MOST, 1.5, found))
    return rows


def _hot(sizes: Sizes, config: Config, say: Say) -> Row:
    say("read of a busy entity")
    ask(folding.fill_hot, config)
    found = _duel(folding.hot_read, folding.cold_read, config, sizes.repeats_many)
    name = f"read of an entity with {sizes.hot_events:,} events in its window"
    return Row(name, f"one with {folding.COLD_EVENTS}", AT_MOST, 2.0, found)


def _duel(ours: Side, rival: Side, config: Config, repeats: int) -> Duel:
    return duel(ours, rival, config, repeats=repeats)


@contextmanager
def _redis() -> Iterator[RedisServer]:
    server = make_server(system_server())
    try:
        server.start()
        yield server
    finally:
        remove_server(server)


@contextmanager
def _broker(given: brokers.Broker | None, folder: Path) -> Iterator[brokers.Broker]:
    if given is not None:
        yield given
        return
    process, broker = brokers.start(folder / "broker", timed=True)
    try:
        yield broker
    finally:
        brokers.stop(process)
