"""The benchmarks run: every row is there, every ratio is a number. How fast is not asserted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.benchmarks.harness import quick_starts
from tests.benchmarks.sizes import QUICK
from tests.benchmarks.suite import report, run
from tests.support.broker import Broker

ROWS = [
    "replay, decoded",
    "replay, cached",
    "replay, four partitions, decoded",
    "replay, Avro, decoded",
    "replay, Arrow batches",
    "upload, as JSON",
    "upload, as Arrow",
    "worker, Pulsar to Redis",
    "worker, embedded to Redis",
    "read 1 × 10 features, p50",
    "read 20 × 10 features, p50",
    "training set, lifetime SUM of BIGINT",
    "training set, lifetime SUM of BIGINT, again",
    "training set, 7-day SUM of BIGINT",
    "training set, 7-day SUM of BIGINT, again",
    "training set, lifetime SUM of DOUBLE",
    "training set, lifetime SUM of DOUBLE, again",
    "training set, 7-day SUM of DOUBLE",
    "training set, 7-day SUM of DOUBLE, again",
    "training set, 7-day SUM of BIGINT, as known",
    "training set, newest event, 200 entities",
    "training set, newest event, 20 entities",
    "training set, Parquet, two tables",
    "fold, 3 aggregates, batches of 10k, one core",
    "the same, with the state of all after each batch",
    "fold, exact 7-day SUM, batches of 10k, one core",
    "preview, 3 aggregates",
    "read of an entity with 5,000 events in its window",
    "roll-back to a warm version",
    "catalog of 300 features, opened and searched",
    "event sent to value served, p99",
]
FIGURES = [
    "replay, Arrow batches",
    "newest event, 200 entities: time",
    "newest event, 20 entities: memory",
    "Parquet, two tables, 4,000 labels",
    "2,200 to 8,800 events and labels",
    "roll-back, call to value",
    "event sent to value served, p99",
    "replay of 40,000 events: memory",
    "worker, Arrow batches, 20,000 events",
    "promote on 20,000 events, to live",
    "preview of a slice of JSON on Pulsar",
    "worker with 1,000 entities",
    "catalog of 300 features: after a change",
    "%load_ext fs_notebook",
]


@pytest.mark.slow
@pytest.mark.pulsar
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_every_figure_is_measured(broker: Broker, tmp_path: Path) -> None:
    with quick_starts():
        rows, figures, notes = run(QUICK, say=lambda text: None, broker=broker, pictures=tmp_path)
    assert [row.name for row in rows] == ROWS
    for row in rows:
        assert math.isfinite(row.ratio)
        assert row.ratio > 0
        assert row.spread[0] <= row.spread[1]
        assert min(row.duel.ours.peak_mb, row.duel.rival.peak_mb) > 0
    text = report(rows, figures, notes)
    assert all(name in text for name in ROWS)
    assert all(math.isfinite(figure.value) for figure in figures)
    named = [figure.name for figure in figures]
    assert all(any(part in name for name in named) for part in FIGURES)
    assert (tmp_path / "training_growth.svg").read_text().startswith("<svg")
