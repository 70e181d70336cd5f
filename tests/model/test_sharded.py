"""A training set by key shards is the one in one piece, whatever the log, labels and shards."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.asked import AsOf
from fs_notebook.model.derived import training_set_of
from fs_notebook.model.export import float32
from fs_notebook.model.measure import measure_lift
from fs_notebook.model.sharded import How, sharded_training_set, training_set_of_any_size
from fs_notebook.model.written import write_training_set
from fs_notebook.shards import spill
from fs_notebook.shards.dealing import MEMORY, Limits
from fs_notebook.shards.hashing import Asked, key_hashes, shards_of
from fs_notebook.testing import SimulatedLog
from tests.model.definitions import READS, SECOND, define, stream_of, windowed
from tests.model.test_as_known import CLOCK, World, asked, labels_of, rating, read
from tests.model.test_as_known import log as known_log

pytestmark = pytest.mark.timeout(120)

known = known_log
TINY = Limits(buffer_bytes=200, slice_rows=3, task_bytes=300)
SUMS = f"""SELECT user, SUM(x) OVER (PARTITION BY user) AS total,
    LAST(n) OVER (PARTITION BY user) AS newest,
    {windowed("AVG(x)", "mean", 50)}, {windowed("COUNT(DISTINCT n)", "kinds", 50)} FROM STREAM"""
ALL = ("total", "newest", "mean", "kinds")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "ledger")
    yield log
    log.close()


def reads(count: int = 400, users: int = 30) -> list[dict[str, Any]]:
    rng = random.Random(7)
    return [
        {"user": f"u{rng.randrange(users)}", "n": rng.randrange(9), "x": rng.randrange(80) / 8,
         "ts": rng.randrange(300) * SECOND}
        for _ in range(count)
    ]  # fmt: skip


def labels(count: int = 150, users: int = 35) -> pl.DataFrame:
    """Return labels in no order, with duplicates, keys without events, null keys and odd types."""
    rng = random.Random(8)
    frame = pl.DataFrame(
        {
            "who": [rng.choice([None, *(f"u{i}" for i in range(users))]) for _ in range(count)],
            "at": [rng.randrange(320) * SECOND for _ in range(count)],
            "clicked": [rng.random() < 0.5 for _ in range(count)],
        }
    )
    typed = frame.with_columns(
        pl.col("at").cast(pl.Datetime("us", "Europe/Madrid")),
        (pl.col("at") % 7).cast(pl.Int8).alias("small"),
        pl.col("who").cast(pl.Categorical).alias("again"),
        pl.Series("tags", [[i, None] for i in range(count)]),
    )
    return pl.concat([typed, typed.head(20)])


def same(mine: Any, whole: Any) -> None:
    assert mine.frame.columns == whole.frame.columns
    assert mine.frame.schema == whole.frame.schema
    assert_frame_equal(mine.frame, whole.frame, rel_tol=1e-9, abs_tol=0)
    assert mine.coverage == whole.coverage
    assert mine.fingerprint == whole.fingerprint
    assert (mine.leaks, mine.late, mine.same_time) == (whole.leaks, whole.late, whole.same_time)
    assert (mine.notes, mine.keys, mine.versions) == (whole.notes, whole.keys, whole.versions)
    assert (mine.first, mine.last) == (whole.first, whole.last)


@settings(max_examples=25)
@given(
    steps=st.lists(st.one_of(read, read, rating), max_size=14),
    rows=asked,
    shards=st.one_of(st.none(), st.integers(1, 9)),
    lag=st.sampled_from([None, "3s"]),
    as_of=st.sampled_from(["event", "known"]),
)
def test_any_number_of_shards_gives_the_same(
    known: EmbeddedLog, steps: list[dict[str, Any]], rows: list[tuple[Any, int, int]],
    shards: int | None, lag: str | None, as_of: str,
) -> None:  # fmt: skip
    # Joined with another stream, derived, expiring, of request values: all that the world has.
    world, given_labels = World(known, steps), labels_of(rows)
    options: dict[str, Any] = {"clock": SYSTEM, "as_of": AsOf.of(lag, as_of)}
    whole = training_set_of(given_labels, world.wanted, known, **options)
    how = How(shards, limits=TINY)
    same(sharded_training_set(given_labels, world.wanted, known, how=how, **options), whole)


def test_partitions_that_are_read_in_turns_keep_their_order() -> None:
    log: Any = SimulatedLog()
    rows = [{"user": f"u{i % 3}", "n": i, "x": 0.5, "ts": i % 4 * SECOND} for i in range(90)]
    frame = pl.DataFrame(rows).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    stream = Stream("parted", READS, "ts", key=("n",), partitions=3)
    log.create(stream)
    for start in range(0, 90, 9):
        log.append(stream, frame[start : start + 9])
    assert len(log.end("parted").positions) == 3
    definition = define(stream, SUMS)
    asked_for = pl.DataFrame({"user": ["u0", "u1", "u2"] * 3, "at": [1, 2, 3] * 3}).with_columns(
        (pl.col("at") * SECOND).cast(pl.Datetime("us"))
    )
    whole = training_set_of(asked_for, [(definition, ALL)], log, clock=SYSTEM)
    for shards in (1, 2, 5):
        how = How(shards, limits=TINY)
        mine = sharded_training_set(asked_for, [(definition, ALL)], log, how=how, clock=SYSTEM)
        same(mine, whole)


def test_what_is_written_is_what_would_have_been_returned(log: EmbeddedLog, tmp_path: Path) -> None:
    definition = define(stream_of(log, reads(), batches=5), SUMS)
    wanted, out = [(definition, ALL)], tmp_path / "train.parquet"
    options: dict[str, Any] = {"clock": SYSTEM, "entity": {"user": "who"}}
    whole = training_set_of(labels(), wanted, log, **options)
    path = tmp_path / "labels.parquet"
    labels().write_parquet(path, row_group_size=17)
    how = How(4, limits=Limits(buffer_bytes=500, slice_rows=31))
    for given_labels in (path, pl.scan_parquet(path), labels()):
        made = write_training_set(given_labels, wanted, log, out, how=how, **options)
        got = made.to_polars()
        assert_frame_equal(got, whole.frame, rel_tol=1e-9, abs_tol=0, categorical_as_str=True)
        assert pl.concat(made.batches(rows=40)).equals(got)
    assert (made.rows, made.features, made.keys) == (170, ALL, ("who",))
    assert made.coverage == whole.coverage
    assert made.nulls == whole.nulls
    assert (made.first, made.last, made.events) == (whole.first, whole.last, whole.events)
    assert "170 labels × 4 features" in repr(made)
    assert "train.parquet" in made._repr_html_()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "labels.parquet", "ledger", "train.parquet"
    ]  # fmt: skip


def test_a_written_set_goes_to_a_framework_a_batch_at_a_time(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_notebook.model.written.PIECE_ROWS", 64)
    definition = define(stream_of(log, reads(), batches=5), SUMS)
    made = write_training_set(
        labels(), [(definition, ALL)], log, tmp_path / "train.parquet",
        how=How(2, limits=TINY), clock=SYSTEM, entity={"user": "who"},
    )  # fmt: skip
    frame = made.to_polars().with_columns(clicked=pl.int_range(pl.len()) % 3 == 0)
    frame.write_parquet(made.path)
    assert [piece.rows for piece in made.pieces.pieces] == [64, 64, 42]
    encoder = made.encoder()
    values = encoder.transform(frame)
    stream = made.to_torch("clicked", encoder=encoder, batch_size=50)
    batches = list(stream.loader())
    assert [len(truth) for _, truth in batches] == [50, 14, 50, 14, 42]
    assert np.array_equal(np.concatenate([v.numpy() for v, _ in batches]), float32(values))
    truth = np.concatenate([t.numpy() for _, t in batches])
    assert np.array_equal(truth, frame["clicked"].to_numpy())
    shared = [list(made.pieces.arrays("clicked", place=k, count=2)) for k in range(2)]
    assert [sum(len(v) for v, _ in mine) for mine in shared] == [64 + 42, 64]
    elements = [(v.numpy(), t.numpy()) for v, t in made.to_tf("clicked", encoder=encoder)]
    assert np.array_equal(np.concatenate([v for v, _ in elements]), float32(values))


def test_a_leak_is_noted_though_no_slice_is_the_whole(log: EmbeddedLog, tmp_path: Path) -> None:
    definition = define(stream_of(log, reads()), SUMS)
    plain = training_set_of(
        labels().rename({"who": "user"}), [(definition, ALL)], log, clock=SYSTEM
    )
    leaking = plain.frame.select("user", "at", "small", (pl.col("total") + 0).alias("target"))
    how = How(2, limits=Limits(slice_rows=60))
    made = write_training_set(
        leaking, [(definition, ALL)], log, tmp_path / "a.parquet", how=how, clock=SYSTEM
    )
    assert [n for n in made.notes if "total is the labels' target in every row" in n]
    # One slice without it is enough to say nothing.
    odd = leaking.with_row_index("i").with_columns(
        pl.when(pl.col("i") > 160).then(-1.0).otherwise(pl.col("target")).alias("target")
    )
    made = write_training_set(
        odd.drop("i"), [(definition, ALL)], log, tmp_path / "b.parquet", how=how, clock=SYSTEM
    )
    assert not made.notes


def leaking_of(
    log: EmbeddedLog, *, delay_us: int = 0, at_s: int = 30, closed: str = "left"
) -> tuple[Definition, pl.DataFrame]:
    """Return a feature, and labels that it tells only by an event that was not known by then."""
    stream = Stream(f"told_{closed}_{delay_us}", READS, "ts")
    log.create(stream)
    rng = np.random.default_rng(4)
    count, begin = 400, 1_700_000_000 * SECOND
    told, users = rng.random(count) < 0.5, [f"u{n}" for n in rng.integers(0, 9, count)]
    times = [begin + n * 60 * SECOND for n in range(count)]
    events = pl.DataFrame({"user": users, "n": told.astype(int), "x": 0.5, "ts": times})
    for n in range(count):
        CLOCK.us = times[n] + delay_us
        log.append(stream, events[n].with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))))
    text = f"SELECT user, {windowed('SUM(n)', 'recent', 60)} FROM STREAM"
    asked_for = pl.DataFrame(
        {"user": users, "at": times, "clicked": told ^ (rng.random(count) < 0.2)}
    ).with_columns((pl.col("at") + at_s * SECOND).cast(pl.Datetime("us", "UTC")))
    return define(stream, text, closed=closed), asked_for


@pytest.mark.parametrize(
    ("leaking", "kind"),
    [({"delay_us": 3600 * SECOND}, "late"), ({"at_s": 0, "closed": "right"}, "same time")],
)
def test_a_leak_is_told_by_shards_as_by_the_whole(
    known: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    leaking: dict[str, Any], kind: str,
) -> None:  # fmt: skip
    definition, asked_for = leaking_of(known, **leaking)
    wanted, options = [(definition, ("recent",))], {"clock": SYSTEM}
    # Looked at as a whole, as some of many events, and as the labels of some entities.
    for most in ({}, {"LOOKED_AT_MAX": 150}, {"LABELS_MAX": 150}):
        for name, count in most.items():
            monkeypatch.setattr(f"fs_notebook.compute.delays.{name}", count)
        whole = training_set_of(asked_for, wanted, known, **options)
        assert [(leak.kind, leak.is_serious) for leak in whole.leaks] == [(kind, True)]
        (late,) = whole.late
        assert (late.labels > 300) == ("LABELS_MAX" not in most)
        for shards in (1, 3):
            how = How(shards, limits=TINY)
            same(sharded_training_set(asked_for, wanted, known, how=how, **options), whole)
        monkeypatch.undo()
    made = sharded_training_set(asked_for, wanted, known, how=How(3), **options)
    for training in (made, whole):
        lift = measure_lift(
            training, target="clicked", candidate=["recent"], baseline=[], clock=SYSTEM, folds=1,
            bootstraps=100,
        )  # fmt: skip
        assert (lift.verdict, lift.reason) == ("suspicious: leak", made.leaks[0].text)
    out, how = tmp_path / "train.parquet", How(3, limits=Limits(slice_rows=90))
    written = write_training_set(asked_for, wanted, known, out, how=how, **options)
    assert (written.leaks, written.late, written.notes) == (made.leaks, made.late, made.notes)
    # Sharded by itself, for want of memory.
    monkeypatch.setattr("fs_notebook.model.sharded.memory_bytes", lambda: 8 * 1_000)
    by_itself = training_set_of_any_size(asked_for, wanted, known, how=How(), **options)
    assert by_itself.leaks == made.leaks


def test_no_labels_and_no_events_are_no_special_case(log: EmbeddedLog, tmp_path: Path) -> None:
    empty = define(stream_of(log, []), SUMS)
    asked_for = labels().rename({"who": "user"})
    for rows in (asked_for, asked_for.head(0)):
        whole = training_set_of(rows, [(empty, ALL)], log, clock=SYSTEM)
        same(sharded_training_set(rows, [(empty, ALL)], log, how=How(3), clock=SYSTEM), whole)
        out = tmp_path / "none.parquet"
        made = write_training_set(rows, [(empty, ALL)], log, out, how=How(), clock=SYSTEM)
        assert made.rows == pl.read_parquet(out).height == rows.height
        assert "none.parquet" in repr(made)


def test_a_set_that_would_not_fit_is_made_out_of_core_and_says_so(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = define(stream_of(log, reads(), batches=40), SUMS)
    monkeypatch.setattr(log, "read", partial(log.read, rows_max=10))
    asked_for, told = labels().rename({"who": "user"}), list[Progress]()
    whole = training_set_of(asked_for, [(definition, ALL)], log, clock=SYSTEM)
    options: dict[str, Any] = {"how": How(), "clock": SYSTEM, "on_progress": told.append}
    fits = training_set_of_any_size(asked_for, [(definition, ALL)], log, **options)
    assert not any("out of core" in p.what for p in told)
    told.clear()
    monkeypatch.setattr("fs_notebook.model.sharded.memory_bytes", lambda: 8 * 4_000)
    made = training_set_of_any_size(asked_for, [(definition, ALL)], log, **options)
    same(made, whole)
    same(fits, whole)
    # From a first part of the stream, not when memory is full.
    decided = next(i for i, p in enumerate(told) if "do not fit" in p.what)
    assert all(p.events < 400 / 2 for p in told[:decided])
    assert any(p.what.startswith("joining 256 key shards") for p in told)


def test_an_interrupt_leaves_nothing_behind(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spills"))
    (tmp_path / "spills").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    definition = define(stream_of(log, reads(), batches=5), SUMS)
    seen: list[int] = []

    def interrupt(progress: Progress) -> None:
        if progress.what.startswith("writing"):
            seen.append(len(list((tmp_path / "spills").rglob("*"))))
            raise KeyboardInterrupt

    out = tmp_path / "train.parquet"
    out.write_text("of yesterday")
    with pytest.raises(KeyboardInterrupt):
        write_training_set(
            labels(), [(definition, ALL)], log, out, how=How(3), clock=SYSTEM,
            entity={"user": "who"}, on_progress=interrupt,
        )  # fmt: skip
    assert seen[0] > 0
    assert not list((tmp_path / "spills").iterdir())
    assert out.read_text() == "of yesterday"
    assert not list(tmp_path.glob(".*unfinished"))


def test_a_full_disk_is_named(
    log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = define(stream_of(log, reads()), SUMS)

    def full(self: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill.Spill, "flush", full)
    with pytest.raises(FeatureStoreError, match=r"(?s)put aside.*No space left.*TMPDIR="):
        sharded_training_set(
            labels().rename({"who": "user"}), [(definition, ALL)], log, how=How(2), clock=SYSTEM
        )


@pytest.mark.parametrize(
    ("how", "out", "says"),
    [
        ({"shards": 0}, "t.parquet", "shards is how many parts"),
        ({"engine": "dask"}, "t.parquet", "no such engine"),
        ({}, "t.csv", "Parquet file"),
        ({}, "nowhere/t.parquet", "no folder"),
        ({}, "labels.parquet", "its own labels"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    log: EmbeddedLog, tmp_path: Path, how: dict[str, Any], out: str, says: str
) -> None:
    definition = define(stream_of(log, reads(9)), SUMS)
    path = tmp_path / "labels.parquet"
    labels().rename({"who": "user"}).write_parquet(path)
    with pytest.raises(UsageError, match=says):
        write_training_set(
            path, [(definition, ALL)], log, tmp_path / out, how=How(**how), clock=SYSTEM
        )


def test_memory_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY, "1600")
    assert Limits.here().task_bytes == 100 * 10**6
    monkeypatch.setenv(MEMORY, "much")
    with pytest.raises(UsageError, match="number of megabytes"):
        Limits.here()


def test_a_key_has_its_shard_for_ever() -> None:
    frame = pl.DataFrame(
        {
            "text": ["a", "ü", "", None, "a"], "n": [1, -1, 0, None, 1],
            "day": pl.Series([0, 1, 2, None, 0], dtype=pl.Int32).cast(pl.Date),
            "ok": [True, False, True, None, True],
        }
    )  # fmt: skip
    texts, all_of_them = key_hashes(frame, ["text"]), key_hashes(frame, frame.columns)
    assert texts[:2].tolist() == [10650019052197556994, 8103967687131442463]
    assert all_of_them[0] == all_of_them[4]
    assert len(set(all_of_them.tolist())) == 4
    # The same alone as among others.
    assert key_hashes(frame[1:2], frame.columns)[0] == all_of_them[1]
    many = key_hashes(pl.DataFrame({"n": range(80_000)}), ["n"])
    sizes = pl.Series(shards_of(many, 8)).value_counts()["count"]
    assert sizes.len() == 8
    assert sizes.min() > 9_500
    there = Asked()
    there.add(many[:1_000])
    assert there.has(many[:1_000]).all()
    assert there.has(many[1_000:]).mean() < 0.001


ROOT = Path(__file__).parents[2]


def test_memory_is_bounded_whatever_the_events() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.large"], cwd=ROOT, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == 0
    assert found["rows"] == found["labels"]
    assert found["events_mb"] > 3 * found["grown_mb"], found
