"""Training sets by the session: kept in the catalog, made again, labels of every kind."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fs_notebook.errors import (
    DefinitionError,
    HistoryLost,
    NameTaken,
    StreamChanged,
    UnknownName,
    UsageError,
)
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.model.digest import columns_digest, frame_digest, lazy_digest
from fs_notebook.model.training import TrainingSet
from fs_notebook.position import START
from fs_notebook.session import Session
from fs_notebook.shards.dealing import Limits
from fs_notebook.worker.connection import Connection
from tests.support.sessions import BEGIN, until

MINUTE = timedelta(minutes=1)
READING = """SELECT user, SUM(n) AS total, STDDEV(x) AS spread, TOP_K(article, 2) AS top,
    LAST(article) AS latest, DECAYED_SUM(x, INTERVAL 1 HOUR) AS decayed,
    COUNT(*) FILTER (WHERE n > 3) AS many FROM reads GROUP BY user"""
RECENT = """SELECT user, AVG(x) OVER w AS mean, MAX(n) OVER w AS most,
    QUANTILE_CONT(x, 0.5) OVER w AS middle FROM reads
    WINDOW w AS (PARTITION BY user ORDER BY ts
                 RANGE BETWEEN INTERVAL 20 MINUTE PRECEDING AND CURRENT ROW)"""
RATED = """SELECT r.user, SUM(r.x * p.rate) AS worth FROM reads r
    JOIN rates p ON r.article = p.article GROUP BY r.user"""
SHARE = "SELECT user, :k * mean / NULLIF(total, 0) AS share FROM recent JOIN reading USING (user)"
FEATURES = ["reading", "recent", "share", "worth"]
FEATURED = ["total", "spread", "top", "latest", "decayed", "many", "mean", "most", "middle",
            "share", "worth"]  # fmt: skip


def reads(seed: int, count: int = 120) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {"user": f"u{rng.randrange(5)}", "article": rng.randrange(4), "n": rng.randrange(9),
         "x": rng.uniform(-9, 9), "ts": BEGIN + rng.randrange(90) * MINUTE}
        for _ in range(count)
    ]  # fmt: skip


def rates(seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {"article": n % 4, "rate": rng.uniform(1, 2), "at": BEGIN + rng.randrange(90) * MINUTE}
        for n in range(12)
    ]


def clicks(seed: int, count: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {"user": f"u{rng.randrange(6)}", "k": rng.randrange(5), "clicked": rng.random() < 0.5,
         "shown": rng.random() < 0.8, "ts": BEGIN + rng.randrange(100) * MINUTE}
        for _ in range(count)
    ]  # fmt: skip


@pytest.fixture
def session(embedded_session: Session) -> Session:
    embedded_session.upload(rates(1), "rates", time="at", key="article")
    embedded_session.upload(reads(1), "reads", time="ts")
    embedded_session.upload(clicks(1), "clicks", time="ts")
    embedded_session.define("reading", READING)
    embedded_session.define("recent", RECENT)
    embedded_session.define("rated", RATED)
    embedded_session.define("shares", SHARE)
    return embedded_session


@pytest.fixture
def stage(connection: Connection) -> Iterator[Session]:
    """A session on each pair of ledger and store in turn."""
    session = Session(connection, actor="tester")
    yield session
    session.close()


def more(session: Session) -> None:
    """Let events arrive: late ones, of all streams, and change what a feature means."""
    session.upload(rates(2), "rates")
    session.upload(reads(2), "reads")
    session.upload(clicks(2), "clicks")
    session.define("reading", READING.replace("SUM(n)", "SUM(n + 1)"))


def ipc(training: TrainingSet) -> bytes:
    buffer = io.BytesIO()
    training.to_polars().write_ipc(buffer)
    return buffer.getvalue()


def test_asked_again_it_is_the_same_to_the_byte(session: Session) -> None:
    session.promote("reading", wait=False)
    session.define("reading", READING.replace("SUM(n)", "SUM(n + 2)"))
    labels = pl.DataFrame(clicks(3)).rename({"user": "who"})
    # All was published just now: by the end of the century it is known.
    future = labels.with_columns(pl.col("ts").dt.offset_by("90y"))
    cases: dict[str, tuple[pl.DataFrame, dict[str, Any]]] = {
        "plain": (labels, {}),
        "lagging": (labels, {"lag": "7m"}),
        "known": (future, {"lag": "3m", "as_of": "known"}),
    }
    features, entity = [*FEATURES, "total@1"], {"user": "who"}
    made = {
        name: session.training_set(table, features, entity=entity, name=name, **options)
        for name, (table, options) in cases.items()
    }
    more(session)
    other = Session(session.connection, actor="somebody")
    for name, (table, options) in cases.items():
        first = made[name]
        assert first.name == name
        assert set(first.cuts) == {"reads", "rates"}
        assert first.features[-1] == "total@1"
        assert first.to_polars().select(table.columns).equals(table)
        plain = session.training_set(table, features, entity=entity, **options)
        assert ipc(plain) != ipc(first)
        for asking in (session, other):
            again = asking.training_set_again(name, table)
            assert ipc(again) == ipc(first)
            assert again.fingerprint == first.fingerprint != plain.fingerprint
            assert again.versions == first.versions
            assert again.notes == first.notes
            assert again.as_of == first.as_of
            # What was made again may be saved again.
            assert asking.save_training_set(again, name).name == name
    saved = other.training_sets()
    other.close()
    assert [(s.name, s.actor, s.recipe.rows) for s in saved] == [
        (name, "tester", 40) for name in sorted(cases)
    ]
    assert "40 labels × 12 features" in repr(saved[0])


def test_on_every_ledger(stage: Session) -> None:
    """Late events of several partitions: they count by event time, and not as known."""
    stage.upload(reads(1), "reads", time="ts", key="user", partitions=3)
    stage.upload(clicks(1), "clicks", time="ts", partitions=2)
    stage.define("reading", READING)
    stage.define("recent", RECENT)
    stream = stage.source("reads")
    batches = stage.log.read(
        stream, start=START, end=stage.log.end("reads"), columns=[PUBLISHED, "n", "user"]
    )
    published = max(b.rows[PUBLISHED].max() for b in batches)
    at = published + timedelta(milliseconds=1)
    until(lambda: datetime.now(UTC) > at + timedelta(milliseconds=1))
    labels = pl.DataFrame({"user": ["u1", "u2"], "at": [at, at]})
    before = stage.training_set(labels, "reading", name="known", as_of="known")
    sql = "SELECT user, ts FROM clicks WHERE shown"
    of_sql = stage.training_set(sql, ["reading", "recent"], lag="2m", name="of_sql")
    stage.upload(reads(2), "reads")
    stage.upload(clicks(2), "clicks")
    known = stage.training_set(labels, "reading", as_of="known")
    # Floats are added in another order where hidden events lie among them.
    assert_frame_equal(known.frame, before.frame, rel_tol=1e-9)
    for name, seeds in (("known", (1,)), ("event", (1, 2))):
        counted = stage.training_set(labels, "total", as_of=name).to_dict()["total"]
        assert counted == [
            sum(r["n"] for seed in seeds for r in reads(seed) if r["user"] == user)
            for user in ("u1", "u2")
        ]
    assert ipc(stage.training_set_again("known", labels)) == ipc(before)
    assert ipc(stage.training_set_again("of_sql")) == ipc(of_sql)
    assert of_sql.rows == sum(r["shown"] for r in clicks(1))


def test_joined_streams_are_read_up_to_the_cut(session: Session) -> None:
    """An event of the joined stream that came later may have the very publish time of a fact."""
    labels = pl.DataFrame(clicks(3))
    made = session.training_set(labels, "worth", name="worth")
    session.upload(rates(2), "rates")
    assert session.training_set_again("worth", labels).to_polars().equals(made.to_polars())
    assert made.cuts["rates"] != session.log.end("rates")


@pytest.mark.parametrize(
    "labels",
    ["clicks", "SELECT user, ts, k, clicked FROM clicks WHERE shown AND user <> 'u3'", "shown"],
)
def test_labels_of_a_stream_are_read_again(session: Session, labels: str) -> None:
    session.create_view("shown", "SELECT user, ts, k * 2 AS k, clicked FROM clicks WHERE shown")
    made = session.training_set(labels, FEATURES, name="kept")
    rows = clicks(1)
    if labels != "clicks":
        rows = [r for r in rows if r["shown"] and (labels == "shown" or r["user"] != "u3")]
    columns = made.to_dict()
    assert [columns[c] for c in ("user", "clicked", "ts")] == [
        [r[c] for r in rows] for c in ("user", "clicked", "ts")
    ]
    assert columns["k"] == [r["k"] * (2 if labels == "shown" else 1) for r in rows]
    by_hand = session.training_set(made.frame.select(made.label_columns), FEATURES)
    assert by_hand.frame.equals(made.frame)
    more(session)
    assert ipc(session.training_set_again("kept")) == ipc(made)
    assert session.training_set(labels, "total").rows > made.rows


def test_labels_of_a_file_are_read_again(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pl.DataFrame(clicks(3)).write_parquet(path)
    made = session.training_set(str(path), ["total", "share"], name="of_file")
    more(session)
    assert ipc(session.training_set_again("of_file")) == ipc(made)
    pl.DataFrame(clicks(4)).write_parquet(path)
    with pytest.raises(UsageError, match="not the labels of the training set 'of_file'"):
        session.training_set_again("of_file")


def file_of(frame: pl.DataFrame, path: Path) -> str:
    """Write rows as a file of the kind that its name says."""
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".ndjson" | ".jsonl":
            lines = [json.dumps(row, default=datetime.isoformat) for row in frame.to_dicts()]
            path.write_text("\n".join(lines))
        case ".parquet":
            frame.write_parquet(path)
        case _:
            frame.write_ipc(path)
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "jsonl", "arrow", "feather"])
def test_labels_may_be_a_file_of_any_kind(session: Session, tmp_path: Path, kind: str) -> None:
    table = pl.DataFrame(clicks(3)).with_columns(pl.col("ts") + pl.duration(microseconds=1))
    by_hand = session.training_set(table, FEATURES)
    path = file_of(table, tmp_path / f"labels.{kind}")
    made = session.training_set(path, FEATURES, name="of_file")
    assert (made.time, made.rows, made.label_columns) == ("ts", 40, tuple(table.columns))
    # In JSON and CSV whole numbers, truths and times are what they were.
    assert made.frame.equals(by_hand.frame)
    assert made.first == by_hand.first
    more(session)
    assert ipc(session.training_set_again("of_file")) == ipc(made)
    out = tmp_path / "train.parquet"
    assert session.training_set_again("of_file", out=out).to_polars().equals(made.frame)


def test_times_in_json_are_told_from_other_texts(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "labels.ndjson"
    rows = [
        {"user": "u1", "day": "2024-01-01", "said": "2024-01-01 or so", "odd": "2024-13-45",
         "mixed": "2024-01-01T00:00:00Z", "none": None},
        {"user": "u2", "day": "2024-01-02", "said": "x", "odd": "2024-01-01",
         "mixed": "2024-01-01T00:00:00", "none": None},
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    made = session.training_set(path, "total")
    assert made.time == "day"
    kinds = {name: made.frame.schema[name] for name in ("day", "said", "odd", "mixed")}
    assert kinds == {"day": pl.Date, "said": pl.String, "odd": pl.String, "mixed": pl.String}
    assert made.first == BEGIN
    path.write_text('{"user": "u1", "at": "2024-01-01T01:00:00+01:00"}')
    assert session.training_set(path, "total").first == BEGIN
    path.write_text('{"user": "u1", "at": "noon"}')
    with pytest.raises(UsageError, match="no column that holds times"):
        session.training_set(path, "total")


def test_labels_may_be_an_uploaded_table_or_a_keyed_stream(session: Session) -> None:
    """A keyed stream has all of its rows as labels, not the newest of each key alone."""
    rows = pl.DataFrame(clicks(3))
    by_hand = session.training_set(rows, FEATURES)
    session.upload(rows, "keyed", time="ts", key="user")
    session.upload(rows.with_row_index("n"), "tabled", table=True, key="n")
    keyed = session.training_set("keyed", FEATURES, name="keyed")
    assert keyed.frame.select(by_hand.frame.columns).equals(by_hand.frame)
    tabled = session.training_set("tabled", FEATURES, name="tabled")
    assert tabled.frame.select(by_hand.frame.columns).equals(by_hand.frame)
    session.upload(rows, "keyed")
    more(session)
    for made in (keyed, tabled):
        assert ipc(session.training_set_again(made.name)) == ipc(made)


def sums(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_written_set_is_kept_and_made_again(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever arrived since, and however much memory there is by now."""
    labels = pl.DataFrame(clicks(3, 300)).rename({"user": "who"}).with_columns(
        pl.col("ts").dt.convert_time_zone("Europe/Madrid"),
        genre=pl.col("who").cast(pl.Categorical), list=pl.concat_list("k", "k"),
        blob=pl.lit(b"x"), kind=pl.col("who").cast(pl.Enum([f"u{n}" for n in range(6)])),
    )  # fmt: skip
    path, out, again = (tmp_path / f"{n}.parquet" for n in ("labels", "train", "again"))
    labels.write_parquet(path, row_group_size=70)
    given: dict[str, Any] = {"entity": {"user": "who"}, "lag": "3m"}
    whole = session.training_set(path, FEATURES, **given)
    made = session.training_set(path, FEATURES, out=out, name="large", **given)
    held = session.training_set(labels, FEATURES, shards=3, name="parted", **given)
    assert made.labels_fingerprint == whole.labels_fingerprint
    assert made.fingerprint == whole.fingerprint
    assert made.spreads.keys() == whole.spreads.keys()
    assert "large" in repr(made)
    assert made.fingerprint[:12] in made._repr_html_()
    saved = {s.name: s.recipe for s in session.training_sets()}
    assert saved["large"].rows == 300
    assert saved["large"].encoding is not None
    # 256 key shards were one task for each stored group.
    assert {sum(sizes) for sizes in saved["large"].tasks} == {256}
    before, first = sums(out), made.to_polars()
    more(session)
    assert sums(session.training_set(path, FEATURES, out=out, **given).path) != before
    small = Limits(buffer_bytes=500, task_bytes=300)
    monkeypatch.setattr(Limits, "here", lambda: small)
    other = Session(session.connection, actor="somebody")
    for asked_for in (None, str(path), labels, pl.scan_parquet(path)):
        made = other.training_set_again("large", asked_for, out=again)
        assert (made.name, sums(again)) == ("large", before)
        assert made.fingerprint == whole.fingerprint
        assert not [n for n in made.notes if "not the same" in n]
        assert other.save_training_set(made, "large").name == "large"
    # What was written may be held, and what was held may be written.
    kept = other.training_set_again("large")
    assert kept.to_polars().select(FEATURED).equals(first.select(FEATURED))
    assert kept.frame.select(labels.columns).equals(labels)
    assert ipc(other.training_set_again("parted", labels)) == ipc(held)
    written = other.training_set_again("parted", labels, out=again)
    assert written.to_polars().select(FEATURED).equals(held.frame.select(FEATURED))
    for wrong in (labels.reverse(), labels.reverse().lazy()):
        with pytest.raises(UsageError, match="not the labels of the training set 'large'"):
            other.training_set_again("large", wrong, out=again)
    other.close()


@pytest.mark.parametrize("rows", [0, 1, 6])
def test_a_digest_is_that_of_its_parts(rows: int) -> None:
    frame = pl.DataFrame(
        {
            "s": ["a", None, "", "ü", "b", None], "n": [1, None, 3, -4, 5, 6],
            "x": [0.5, float("nan"), None, -0.0, float("inf"), 1.0],
            "b": [True, None, False, True, True, False],
            "l": [[1], None, [], [2, None], [3], [4]], "d": [BEGIN + n * MINUTE for n in range(6)],
        }
    ).with_columns(c=pl.col("s").cast(pl.Categorical), t=pl.struct("s", "n"))[:rows]  # fmt: skip
    for size in (1, 2, 5):
        parts = list(frame.iter_slices(size))
        found = columns_digest(frame.schema, rows, lambda c, p=parts: [one[c] for one in p])
        assert found == frame_digest(frame)
    assert lazy_digest(frame.lazy()) == frame_digest(frame)
    assert frame_digest(frame.reverse()) != frame_digest(frame) or rows < 2


def test_other_labels_are_refused(session: Session) -> None:
    labels = pl.DataFrame(clicks(3))
    session.training_set(labels, "total", name="mine")
    for other in (
        labels.reverse(), labels[:-1], labels.drop("k"), labels.cast({"k": pl.Int32}),
        labels.with_columns(clicked=~pl.col("clicked")),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"not the labels .*\n.*rows of user String"):
            session.training_set_again("mine", other)
    with pytest.raises(UsageError, match=r"were a table.*\n.*again\('mine', labels\)"):
        session.training_set_again("mine")
    with pytest.raises(UnknownName, match="did you mean 'mine'"):
        session.training_set_again("mnie", labels)


def test_a_name_means_one_training_set(session: Session) -> None:
    labels = pl.DataFrame(clicks(3))
    session.training_set(labels, "total", name="mine")
    session.training_set(labels, "total", name="mine")
    with pytest.raises(NameTaken, match="'mine' already"):
        session.training_set(labels, "mean", name="mine")
    with pytest.raises(NameTaken):
        session.training_set(labels, "total", lag="1m", name="mine")
    with pytest.raises(UsageError, match="A training set's name"):
        session.training_set(labels, "total", name="my set")
    assert [s.name for s in session.training_sets()] == ["mine"]


def test_streams_that_are_others_by_now_are_told(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = pl.DataFrame(clicks(3))
    session.training_set(labels, "total", name="mine")
    with monkeypatch.context() as patch:
        patch.setattr(type(session.log), "identity", lambda log, name: "another")
        with pytest.raises(StreamChanged, match="'reads' is not the one"):
            session.training_set_again("mine", labels)
    with monkeypatch.context() as patch:
        end = session.log.end("reads")
        patch.setattr(type(session.log), "beginning", lambda log, name, only=None: end)
        with pytest.raises(HistoryLost, match="no longer in 'reads'"):
            session.training_set_again("mine", labels)
    assert session.training_set_again("mine", labels).rows == 40


@pytest.mark.parametrize(
    ("labels", "error", "says"),
    [
        ("SELECT user, COUNT(*) AS n FROM clicks GROUP BY user", DefinitionError, "COUNT"),
        ("SELECT user, tss FROM clicks", DefinitionError, "did you mean 'ts'"),
        ("select user, k from clicks", UsageError, "no column that holds times"),
        ("SELECT ts, k FROM clicks", UsageError, "no column for the entity 'user'"),
        ("SELECT user, ts FROM click", UnknownName, "did you mean 'clicks'"),
        ("nothing", UnknownName, "no stream of labels"),
    ],
)
def test_sql_that_gives_no_labels_is_explained(
    session: Session, labels: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        session.training_set(labels, "total")


def test_what_looks_like_a_leak_is_told(session: Session) -> None:
    session.upload([{"article": n, "genre": "news"} for n in range(4)], "articles", table=True,
                   key="article")  # fmt: skip
    session.define("closed", READING.replace("AS ", "AS c_"), closed="right")
    session.define("scaled", "SELECT user, LAST(Z_SCORE(x)) AS scaled FROM reads GROUP BY user")
    session.define(
        "genres",
        "SELECT r.user, LAST(a.genre) AS genre FROM reads r JOIN articles a "
        "ON r.article = a.article GROUP BY r.user",
    )
    labels = pl.DataFrame(clicks(3))
    known = session.training_set(labels, "total").frame["total"]
    target = labels.with_columns(target=known, other=known + 1)
    made = session.training_set(target, ["total", "c_total", "scaled", "genre"])
    told = "\n".join(made.notes)
    assert "total is the labels' target in every row" in told
    assert "closed counts events at the very time of a label" in told
    assert "scaled has a statistic of all events up to" in told
    assert "genres reads the table articles as it was" in told
    assert "other" not in told
    assert len(made.notes) == 4
    shown = made._repr_html_()
    assert "every row that has both" in shown
    assert "coverage" in shown
    assert session.training_set(labels, ["total", "mean", "share"]).notes == ()


@pytest.mark.parametrize("written", [False, True])
def test_the_card_tells_nulls_coverage_and_from_when_to_when(
    session: Session, tmp_path: Path, written: bool
) -> None:
    labels = [{"user": u, "ts": BEGIN + n * MINUTE} for u in ("u1", "nobody") for n in (0, 300)]
    # At the beginning nothing was read, and nobody never reads: u1's last row alone has values.
    session.define("few", "SELECT user, MAX(n) FILTER (WHERE n > 90) AS huge, COUNT(*) AS reads "
                   "FROM reads GROUP BY user")  # fmt: skip
    out = tmp_path / "train.parquet" if written else None
    made = session.training_set(labels, ["total", "few"], out=out)
    assert made.nulls == {"total": 0.75, "huge": 1.0, "reads": 0.0}
    assert made.coverage == {"total": 0.25, "huge": 0.25, "reads": 0.25}
    told, shown = repr(made), unescape(re.sub("<[^>]*>", "|", made._repr_html_()))
    assert "4 labels × 3 features" in told
    assert "nulls: total 75%, huge 100%, reads 0%" in told
    assert "coverage: total 25%, huge 25%, reads 25%" in told
    span = f"{BEGIN:%Y-%m-%d %H:%M} to {BEGIN + 300 * MINUTE:%Y-%m-%d %H:%M} UTC"
    assert span in told
    cells = [c for c in re.split(r"[|\s]*[|][|\s]*", shown) if c]
    assert cells[cells.index("time (ts)") + 1] == span
    place = cells.index("coverage")
    assert cells[place - 2 : place + 2] == ["feature", "type", "coverage", "nulls"]
    assert [cells[n : n + 4] for n in range(place + 2, place + 14, 4)] == [
        ["total", "BIGINT", "25%", "75%"],
        ["huge", "BIGINT", "25%", "100%"],
        ["reads", "BIGINT", "25%", "0%"],
    ]


def test_as_known_leaves_out_what_was_not_published(session: Session) -> None:
    """All events were published just now, years after they happened."""
    labels = [
        {"user": "u1", "at": BEGIN + 200 * MINUTE},
        {"user": "u1", "at": datetime(2100, 1, 1, tzinfo=UTC)},
    ]
    made = session.training_set(labels, "total", as_of="known")
    total = sum(r["n"] for r in reads(1) if r["user"] == "u1")
    assert made.to_dict()["total"] == [None, total]
    assert made.coverage == {"total": 0.5}
    assert session.training_set(labels, "total").to_dict()["total"] == [total, total]
    assert "as known before each label's time" in repr(made)
