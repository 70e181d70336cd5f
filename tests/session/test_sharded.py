"""Key shards by the session: training sets to files, backfills, and both on a real Ray."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fs_notebook.compute.preview import Progress
from fs_notebook.errors import UsageError
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
FEATURES = ["reading", "recent", "by_number", "share", "worth"]
SECOND = timedelta(seconds=1)
ROOT = Path(__file__).parents[2]


def defined(session: Session) -> Session:
    """Return the session with two streams, and features of all kinds on them."""
    rng = random.Random(4)
    rows = [
        {"user": f"u{rng.randrange(40)}", "n": rng.randrange(9), "x": rng.uniform(-9, 9),
         "ts": BEGIN + rng.randrange(5_400) * SECOND}
        for _ in range(600)
    ]  # fmt: skip
    # First, so that they were known when the reads were published.
    rates = [{"n": n, "rate": n / 8, "at": BEGIN} for n in range(7)]
    session.upload(rates, "rates", time="at", key="n")
    session.upload(rows, "reads", time="ts")
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
            "at": [BEGIN + rng.randrange(6_000) * SECOND for _ in range(count)],
        }
    )  # fmt: skip


@pytest.fixture
def session(embedded_session: Session) -> Session:
    return defined(embedded_session)


def test_a_set_by_shards_is_the_set(session: Session, tmp_path: Path) -> None:
    given: dict[str, Any] = {"entity": {"n": "number"}, "lag": "1m"}
    whole = session.training_set(labels(), FEATURES, **given)
    parted = session.training_set(labels(), FEATURES, shards=7, name="parted", **given)
    assert_frame_equal(parted.frame, whole.frame, rel_tol=1e-9, abs_tol=0)
    assert parted.fingerprint == whole.fingerprint
    again = session.training_set_again("parted", labels())
    assert again.fingerprint == whole.fingerprint
    assert again.frame.equals(parted.frame)
    path, out = tmp_path / "labels.parquet", tmp_path / "train.parquet"
    labels().write_parquet(path)
    for given_labels in (path, str(path), labels()):
        made = session.training_set(given_labels, FEATURES, out=out, **given)
        assert_frame_equal(made.to_polars(), whole.frame, rel_tol=1e-9, abs_tol=0)
    assert made.versions == whole.versions
    for group in ("worth", "recent", "reading"):
        session.promote(group, wait=False)
    session.feature_set("mixed", ["worth", "mean", "top"])
    ordered = session.training_set(labels(), "set:mixed", out=out)
    columns = [*labels().columns, "worth@1", "mean@1", "top@1"]
    assert ordered.to_polars().columns == columns
    assert session.training_set(path, FEATURES, out=out, name="both", **given).name == "both"


@pytest.mark.parametrize("to", [None, "2024-01-01T00:40:00"])
@pytest.mark.parametrize("name", ["reading", "recent", "by_number", "worth"])
def test_a_backfill_is_the_preview_of_all_history(
    session: Session, tmp_path: Path, name: str, to: str | None
) -> None:
    preview = session.preview(name, to=to)
    told: list[Progress] = []
    filled = session.backfill(name, to=to, shards=5, on_progress=told.append)
    assert_frame_equal(filled.to_polars(), preview.frame, rel_tol=1e-9, abs_tol=0)
    assert (filled.at, filled.cut, filled.entities) == (preview.at, preview.cut, preview.entities)
    assert filled.events == preview.events
    assert told[-1].what == "folding key shards"
    written = session.backfill(name, to=to, out=tmp_path / "values.parquet")
    assert written.frame is None
    assert_frame_equal(written.to_polars(), preview.frame, rel_tol=1e-9, abs_tol=0)
    assert f"{preview.entities:,} entities" in repr(written)


def test_a_derived_group_has_no_history(session: Session) -> None:
    with pytest.raises(UsageError, match=r"(?s)derived.*recent.*fs\.backfill"):
        session.backfill("share")


@pytest.mark.timeout(300)
def test_ray_gives_the_same_frames_in_the_same_order(tmp_path: Path) -> None:
    # Ray's workers yield to every other process unless told not to: with a busy machine, for ever.
    there = os.environ | {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.session.on_ray", str(tmp_path)], cwd=ROOT, env=there,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "huge" in found.pop("error")
    workers = found.pop("workers")
    assert len(set(workers)) == 2
    assert found.pop("here") not in workers
    assert found.pop("backfills") == [True, True]
    assert found.pop("engine") == "ray"
    assert all(found.values()), found
