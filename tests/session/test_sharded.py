"""Key shards by the session: training sets to files, backfills, and both on a real Ray."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fs_notebook.compute.preview import Progress
from fs_notebook.errors import OverflowInFold, UsageError
from fs_notebook.model.training import TrainingSet
from fs_notebook.session import Session
from tests.support.sessions import BEGIN

READING = """SELECT user, SUM(x) AS total, LAST(n) AS latest, TOP_K(n, 2) AS top,
    COUNT(*) FILTER (WHERE n > 3) AS many FROM reads GROUP BY user"""
RECENT = """SELECT user, AVG(x) OVER w AS mean, MAX(n) OVER w AS most FROM reads
    WINDOW w AS (PARTITION BY user ORDER BY ts
                 RANGE BETWEEN INTERVAL 20 MINUTE PRECEDING AND CURRENT ROW)"""
BY_NUMBER = "SELECT n, COUNT(*) AS reads_of_n, MAX(ts) AS last_of_n FROM reads GROUP BY n"
RATED = """SELECT r.user, SUM(r.x * p.rate) AS worth FROM reads r
    JOIN rates p ON r.n = p.n GROUP BY r.user"""
SHARE = "SELECT user, :k * mean / NULLIF(total, 0) AS share FROM recent JOIN reading USING (user)"
FEATURES = ["reading", "recent", "by_number", "share", "worth", "total@1"]


@pytest.fixture
def session(embedded_session: Session) -> Session:
    """A session with two streams, and features of all kinds on them."""
    session, rng = embedded_session, random.Random(4)
    rows = [
        {"user": f"u{rng.randrange(40)}", "n": rng.randrange(9), "x": rng.uniform(-9, 9),
         "ts": BEGIN + pl.Series([rng.randrange(5_400)]).cast(pl.Duration("ms"))[0] * 1_000}
        for _ in range(600)
    ]  # fmt: skip
    session.upload(rows, "reads", time="ts")
    rates = [{"n": n, "rate": n / 8, "at": BEGIN} for n in range(7)]
    session.upload(rates, "rates", time="at", key="n")
    for name, sql in {"reading": READING, "recent": RECENT, "by_number": BY_NUMBER,
                      "worth": RATED}.items():  # fmt: skip
        session.define(name, sql)
    session.define("share", SHARE)
    return session


def labels(count: int = 200) -> pl.DataFrame:
    rng = random.Random(6)
    return pl.DataFrame(
        {
            "user": [rng.choice([None, *(f"u{i}" for i in range(45))]) for _ in range(count)],
            "number": [rng.randrange(11) for _ in range(count)],
            "k": [rng.random() for _ in range(count)],
            "at": [BEGIN + rng.randrange(100) * (pl.Series([60_000]).cast(pl.Duration("ms"))[0])
                   for _ in range(count)],
        }
    )  # fmt: skip
