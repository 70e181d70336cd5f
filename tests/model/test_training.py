"""A training set is the labels, untouched, with the naive fold at each label's time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import UnknownName, UnknownPosition, UsageError
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Batch
from fs_notebook.model.training import TrainingSet, build_training_set
from fs_notebook.position import Cut, Position
from fs_notebook.types import Type
from tests.compute import naive
from tests.model.definitions import READS, SECOND, define, stream_of, windowed

pytestmark = pytest.mark.timeout(60)

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
BEGIN_US = int(BEGIN.timestamp()) * SECOND
TOTALS = f"""SELECT user, SUM(n) OVER (PARTITION BY user) AS total,
    COUNT(*) OVER (PARTITION BY user) AS events,
    {windowed("AVG(x)", "mean_5s", 5)}, {windowed("MAX(n)", "most_5s", 5)} FROM STREAM"""
ALL = ("total", "events", "mean_5s", "most_5s")
NAIVE = (
    ("sum", "n", None),
    ("count", "", None),
    ("avg", "x", 5 * SECOND),
    ("max", "n", 5 * SECOND),
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "ledger")
    yield log
    log.close()


def reads(count: int = 60, users: int = 3) -> list[dict[str, Any]]:
    """Return reads a second apart; the n-th is worth n."""
    return [
        {"user": f"u{i % users}", "n": i, "x": i / 2, "ts": BEGIN_US + i * SECOND}
        for i in range(count)
    ]


def build(labels: Any, wanted: Any, log: Any, **options: Any) -> TrainingSet:
    return build_training_set(labels, wanted, log, clock=SYSTEM, **options)


def total_before(user: str, t: datetime, events: list[dict[str, Any]]) -> int | None:
    us = (t - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    found = [e["n"] for e in events if e["user"] == user and e["ts"] < us]
    return sum(found) if found else None


moments = st.one_of(st.integers(0, 4).map(lambda n: n * 5 * SECOND), st.integers(0, 20 * SECOND))
users = st.sampled_from(["a", "b", "ü\u2028", "", None])


@settings(max_examples=60)
@given(
    events=st.lists(
        st.fixed_dictionaries(
            {
                "user": users,
                "n": st.one_of(st.none(), st.integers(-(2**50), 2**50)),
                "x": st.one_of(st.none(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3))),
                "ts": moments,
            }
        ),
        max_size=25,
    ),
    labels=st.lists(st.tuples(users, moments), max_size=12),
    closed=st.sampled_from(["left", "right"]),
    batches=st.integers(1, 4),
)
def test_every_row_is_the_naive_fold(
    log: EmbeddedLog,
    events: list[dict[str, Any]],
    labels: list[tuple[Any, int]],
    closed: str,
    batches: int,
) -> None:
    stream = stream_of(log, events, batches=batches)
    definition = define(stream, TOTALS, closed=closed)
    frame = pl.DataFrame(labels, schema={"user": pl.String, "at": pl.Int64}, orient="row")
    frame = frame.with_columns(pl.col("at").cast(pl.Datetime("us")))
    got = build(frame, [(definition, ALL)], log).to_polars()
    assert got.columns == ["user", "at", *ALL]
    assert got.select("user", "at").equals(frame)
    for (user, t), row in zip(labels, got.rows(named=True), strict=True):
        for feature, (function, column, window) in zip(ALL, NAIVE, strict=True):
            want = naive.value(
                [e | {"t": e["ts"]} for e in events],
                entity=user, t=t, name=function, args=(column,) if column else (),
                when=naive.When(window, closed),
            )  # fmt: skip
            assert naive.same(row[feature], want), (feature, row, want)


def test_labels_come_back_in_order_with_duplicates_and_their_own_types(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    rng = random.Random(3)
    picks = [(f"u{rng.randrange(4)}", rng.randrange(70)) for _ in range(80)]
    picks += picks[:20]
    labels = pl.DataFrame(
        {
            "user": pl.Series([u for u, _ in picks], dtype=pl.Categorical),
            "clicked": pl.Series([n % 2 for _, n in picks], dtype=pl.Int8),
            "weight": pl.Series([n / 3 for _, n in picks], dtype=pl.Float32),
            "tags": [[u, u] for u, _ in picks],
            "at": pl.Series(
                [BEGIN + timedelta(seconds=n) for _, n in picks],
                dtype=pl.Datetime("ms", "Europe/Madrid"),
            ),
            "__time": list(range(100)),
            "__k0": ["x"] * 100,
        }
    )
    training = build(labels, [(definition, ("total",))], log)
    assert training.to_polars().drop("total").equals(labels)
    assert training.to_polars().drop("total").schema == labels.schema
    wanted = [total_before(u, BEGIN + timedelta(seconds=n), reads()) for u, n in picks]
    assert training.to_polars()["total"].to_list() == wanted
    assert training.rows == len(training) == 100
    assert training.label_columns == tuple(labels.columns)


def test_other_labels_change_no_row(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    crowd = pl.DataFrame(
        {
            "user": ["u0", "u1", "u2", "nobody", None] * 8,
            "at": [BEGIN + timedelta(seconds=2 * n) for n in range(40)],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    together = build(crowd, [(definition, ALL)], log).to_polars()
    alone = [build(crowd[row : row + 1], [(definition, ALL)], log).to_polars() for row in range(40)]
    assert together.equals(pl.concat(alone))


def test_several_groups_of_several_streams_are_read_once_each(log: EmbeddedLog) -> None:
    first = stream_of(log, reads(), name="first")
    columns = (("page", Type.BIGINT), ("ms", Type.DOUBLE), ("ts", Type.TIMESTAMP))
    views = [{"page": i % 4, "ms": float(i), "ts": BEGIN_US + i * SECOND} for i in range(40)]
    second = stream_of(log, views, columns=columns, name="second")
    groups = [
        (define(first, "SELECT user, SUM(n) AS total FROM STREAM GROUP BY user", name="a"),
         ("total",)),
        (define(second, "SELECT page, MAX(ms) AS slowest FROM STREAM GROUP BY page", name="b"),
         ("slowest",)),
        (define(first, f"SELECT user, {windowed('COUNT(*)', 'recent', 9)} FROM STREAM", name="c"),
         ("recent",)),
    ]  # fmt: skip
    asked: list[tuple[str, tuple[str, ...]]] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        def read(self, stream: Any, **options: Any) -> Iterator[Batch]:
            asked.append((stream.name, tuple(options["columns"])))
            return log.read(stream, **options)

    labels = [
        {"user": f"u{i % 3}", "page": i % 5, "at": BEGIN + timedelta(seconds=i)} for i in range(30)
    ]
    training = build(labels, groups, Counting())
    assert asked == [
        ("first", ("n", "user", "__published")), ("second", ("ms", "page", "__published")),
    ]  # fmt: skip
    assert training.features == ("total", "slowest", "recent")
    assert list(training.versions) == ["a", "b", "c"]
    assert training.cuts == {"first": log.end("first"), "second": log.end("second")}
    for i, row in enumerate(training.to_polars().rows(named=True)):
        before = [v["ms"] for v in views if v["page"] == i % 5 and v["ts"] < BEGIN_US + i * SECOND]
        assert row["slowest"] == (max(before) if before else None)
        assert row["total"] == total_before(f"u{i % 3}", BEGIN + timedelta(seconds=i), reads())
        assert row["recent"] == len([j for j in range(max(i - 9, 0), i) if j % 3 == i % 3])


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        (pl.Series([BEGIN.replace(tzinfo=None) + timedelta(seconds=9)]), 0 + 3 + 6),
        (pl.Series([BEGIN + timedelta(seconds=9)]), 9),
        # One hour east of UTC: the same moment.
        (pl.Series([BEGIN + timedelta(seconds=9)]).dt.convert_time_zone("Europe/Madrid"), 9),
        (pl.Series([date(2024, 1, 1)]), None),
        (pl.Series([date(2024, 1, 2)]), sum(range(0, 60, 3))),
        (pl.Series([BEGIN_US + 9 * SECOND]).cast(pl.Datetime("us")).cast(pl.Datetime("ms")), 9),
        # Half a microsecond after the event at 9 s is no whole microsecond after it.
        (pl.Series([(BEGIN_US + 9 * SECOND) * 1000 + 500]).cast(pl.Datetime("ns")), 9),
        (pl.Series([(BEGIN_US + 9 * SECOND) * 1000 + 1000]).cast(pl.Datetime("ns")), 18),
    ],
)
def test_times_of_every_kind(log: EmbeddedLog, time: pl.Series, wanted: int | None) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    labels = pl.DataFrame({"user": ["u0"], "at": time})
    training = build(labels, [(definition, ("total",))], log)
    assert training.to_polars()["total"].to_list() == [wanted]
    assert training.time == "at"


def test_tables_of_every_kind_give_the_same(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    labels = pl.DataFrame(
        {"user": ["u1", "u0", "u9"], "at": [BEGIN + timedelta(seconds=n) for n in (5, 9, 9)]}
    )
    kinds = [
        labels, labels.lazy(), labels.to_arrow(), labels.to_pandas(), labels.to_dicts(),
        labels.to_dict(as_series=False), pa.Table.from_pandas(labels.to_pandas()),
    ]  # fmt: skip
    for kind in kinds:
        training = build(kind, [(definition, ("total", "mean_5s"))], log)
        assert training.to_dict()["total"] == [1 + 4, 9, None], type(kind)
        assert list(training.to_pandas().columns) == ["user", "at", "total", "mean_5s"]


def test_pandas_labels_keep_index_and_dtypes(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    labels = pd.DataFrame(
        {
            "user": pd.Categorical(["u0", "u1", "u0"]),
            "score": pd.array([1, None, 3], dtype="Int64"),
            "at": pd.to_datetime([BEGIN + timedelta(seconds=n) for n in (9, 5, 3)]),
        },
        index=pd.Index([7, 7, 3], name="id"),
    )
    training = build(labels, [(definition, ("total",))], log)
    labels.loc[:, "score"] = 0
    got = training.to_pandas()
    assert got.index.equals(labels.index)
    assert got["score"].isna().tolist() == [False, True, False]
    assert got.dtypes[["user", "score", "at"]].equals(labels.dtypes)
    assert got["total"].tolist() == [9, 5, 0]


def test_keys_by_mapping_by_source_column_and_by_whole_floats(log: EmbeddedLog) -> None:
    columns = (("customer", Type.BIGINT), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP))
    rows = [{"customer": i % 2, "n": i, "ts": BEGIN_US + i} for i in range(10)]
    stream = stream_of(log, rows, columns=columns)
    sql = "SELECT customer AS buyer, SUM(n) AS total FROM STREAM GROUP BY customer"
    definition = define(stream, sql)
    at = [BEGIN + timedelta(days=1)] * 3
    totals = [sum(range(0, 10, 2)), None, sum(range(1, 10, 2))]
    wanted = [(definition, ("total",))]
    for name in ("buyer", "customer"):
        labels = pl.DataFrame({name: [0, None, 1], "at": at})
        assert build(labels, wanted, log).to_dict()["total"] == totals
    # What pandas makes of integers with a null among them.
    labels = pl.DataFrame({"who": [0.0, float("nan"), 1.0], "at": at})
    training = build(labels, wanted, log, entity={"buyer": "who"})
    assert training.to_dict()["total"] == totals
    assert training.keys == ("who",)
    with pytest.raises(UsageError, match="'who' cannot be the entity 'buyer'"):
        build(labels.with_columns(who=0.5), wanted, log, entity={"buyer": "who"})


def test_no_labels_and_no_events(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, []), TOTALS)
    labels = pl.DataFrame(
        {"user": ["a"], "at": [BEGIN]}, schema={"user": pl.String, "at": pl.Datetime("us")}
    )
    got = build(labels, [(definition, ALL)], log)
    assert got.to_polars().row(0)[2:] == (None, 0, None, None)
    none = build(labels.clear(), [(definition, ALL)], log)
    assert none.rows == 0
    assert none.to_polars().schema == got.to_polars().schema
    assert "no labels" in repr(none)
    assert "no labels" in none._repr_html_()


def test_same_cuts_give_the_same_set_again(log: EmbeddedLog) -> None:
    stream = stream_of(log, reads(), name="reads")
    definition = define(stream, TOTALS)
    labels = pl.DataFrame({"user": ["u0", "u1"], "at": [BEGIN + timedelta(days=1)] * 2})
    wanted = [(definition, ("total",))]
    before = build(labels, wanted, log)
    more = pl.DataFrame({"user": ["u0"], "n": [1000], "x": [0.0], "ts": [BEGIN]})
    log.append(stream, more)
    after = build(labels, wanted, log)
    again = build(labels, wanted, log, cuts=before.cuts)
    assert after.to_dict()["total"] == [before.to_dict()["total"][0] + 1000, *before.to_dict()[
        "total"][1:]]  # fmt: skip
    assert again.to_polars().equals(before.to_polars())
    assert again.fingerprint == before.fingerprint != after.fingerprint
    other = build(labels.reverse(), wanted, log, cuts=before.cuts)
    assert other.fingerprint != before.fingerprint
    with pytest.raises(UnknownName, match="no stream"):
        build(labels, wanted, log, cuts={"raeds": Cut()})
    with pytest.raises(UnknownPosition):
        build(labels, wanted, log, cuts={"reads": Cut((Position(0, 0, 999, 0),))})


def test_fingerprint_is_of_values_not_of_memory(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    labels = pl.DataFrame(
        {"user": ["u0", None, "u1"], "at": [BEGIN] * 3, "y": [1.5, None, 2.0], "b": [True, None, 1]}
        , strict=False
    )  # fmt: skip
    labels = labels.with_columns(many=pl.lit(pl.Series([list(range(40))])).first())
    chunked = pl.concat([labels[:1], labels[1:]], rechunk=False)
    wanted = [(definition, ("total",))]
    one, two = build(labels, wanted, log), build(chunked, wanted, log)
    assert one.fingerprint == two.fingerprint
    other = pl.lit(pl.Series("many", [[*range(20), 0, *range(21, 40)]])).first().alias("many")
    for change in (other, pl.col("y").fill_null(0.0), pl.lit("u0").alias("user"), ~pl.col("b")):
        assert build(labels.with_columns(change), wanted, log).fingerprint != one.fingerprint


def test_equal_times_are_decided_by_partition_then_position(log: EmbeddedLog) -> None:
    """Batches of partitions that interleave give what partition after partition gives."""
    stream = stream_of(log, reads(40))
    definition = define(stream, TOTALS)
    labels = pl.DataFrame({"user": ["u0", "u1"], "at": [BEGIN + timedelta(seconds=30)] * 2})

    class Interleaved:
        def end(self, name: str) -> Cut:
            return Cut((Position(0, 0, 9, 0), Position(1, 0, 9, 0)))

        def read(self, stream: Any, **options: Any) -> Iterator[Batch]:
            whole = log.read(stream, **{**options, "end": log.end(stream.name), "rows_max": 5})
            for i, batch in enumerate(whole):
                yield replace(batch, partition=i % 2)

    got = build(labels, [(definition, ALL)], Interleaved()).to_polars()
    assert got.equals(build(labels, [(definition, ALL)], log).to_polars())


def test_progress_is_told_and_an_interrupt_closes_the_reading(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads(), name="reads"), TOTALS)
    labels = pl.DataFrame({"user": ["u0"], "at": [BEGIN + timedelta(days=1)]})
    told: list[Progress] = []
    build(labels, [(definition, ALL)], log, on_progress=told.append)
    assert told[0].what == "replaying reads"
    assert (told[0].share, told[0].events) == (1.0, 60)
    closed: list[bool] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        def read(self, stream: Any, **options: Any) -> Iterator[Batch]:
            try:
                yield from log.read(stream, **options)
            finally:
                closed.append(True)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(labels, [(definition, ALL)], Watched(), on_progress=interrupt)
    assert closed == [True]


AT = pl.Series([BEGIN])


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (pl.DataFrame({"user": ["a"], "when": ["2024-01-01"]}), {}, "no column that holds times"),
        (pl.DataFrame({"user": ["a"], "p": AT, "q": AT}), {}, "several columns .*\n.*p, q"),
        (pl.DataFrame({"user": ["a"], "p": AT}), {"time": "user"}, "'user' does not hold times"),
        (
            pl.DataFrame({"user": ["a", "b", "c"], "p": [BEGIN, None, None]}),
            {},
            "2 of 3 labels have no time",
        ),
        (
            pl.DataFrame({"who": ["a"], "p": AT}),
            {},
            r"no column for the entity 'user'\.\n.*who, p\n.*entity=\{'user'",
        ),
        (pl.DataFrame({"user": [1], "p": AT}), {}, "'user' cannot be the entity .*\n.*Int64.*VARC"),
        (pl.DataFrame({"user": ["a"], "p": AT, "total": [1]}), {}, "column 'total' already"),
        ("labels.csv", {}, "no table"),
        (7, {}, "no table"),
        ([1, 2], {}, "not of dicts"),
        ({"user": ["a"], "p": [BEGIN, BEGIN]}, {}, "do not make a table"),
        (pd.DataFrame({0: ["a"]}), {}, "names are not text"),
        ([], {}, "no column that holds times"),
    ],
)
def test_labels_that_cannot_be_used(
    log: EmbeddedLog, labels: Any, options: dict[str, Any], says: str
) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    with pytest.raises(UsageError, match=says):
        build(labels, [(definition, ("total",))], log, **options)


def test_names_that_are_not_there_are_suggested(log: EmbeddedLog) -> None:
    definition = define(stream_of(log, reads()), TOTALS)
    labels = pl.DataFrame({"user": ["a"], "clicked_at": AT})
    wanted = [(definition, ("total",))]
    with pytest.raises(UnknownName, match="did you mean 'clicked_at'"):
        build(labels, wanted, log, time="cliked_at")
    with pytest.raises(UnknownName, match="did you mean 'user'"):
        build(labels, wanted, log, entity={"usr": "user"})
    with pytest.raises(UnknownName, match="did you mean 'user'"):
        build(labels, wanted, log, entity={"user": "usr"})
    with pytest.raises(UnknownName, match="did you mean 'total'"):
        build(labels, [(definition, ("totl",))], log)


def test_features_that_cannot_be_together(log: EmbeddedLog) -> None:
    stream = stream_of(log, reads())
    definition = define(stream, TOTALS)
    labels = pl.DataFrame({"user": ["a"], "at": AT})
    with pytest.raises(UsageError, match="wanted twice"):
        build(labels, [(definition, ("total", "total"))], log)
    other = define(stream, "SELECT user, SUM(n) AS other FROM STREAM GROUP BY user")
    with pytest.raises(UsageError, match="Two versions"):
        build(labels, [(definition, ("total",)), (other, ("other",))], log)
    with pytest.raises(UsageError, match="at least one feature"):
        build(labels, [], log)


def test_displays_escape_every_name(log: EmbeddedLog) -> None:
    columns = tuple(("<b>user" if n == "user" else n, t) for n, t in READS)
    rows = [{"<b>user": "u", "n": 1, "x": 1.0, "ts": BEGIN_US}]
    definition = define(
        stream_of(log, rows, columns=columns),
        'SELECT "<b>user", SUM(n) AS "<script>x" FROM STREAM GROUP BY "<b>user"',
    )
    labels = pl.DataFrame({"<b>user": ["u"], "<i>at": [BEGIN + timedelta(days=1)]})
    training = build(labels, [(definition, ("<script>x",))], log)
    shown = training._repr_html_()
    assert training.to_dict()["<script>x"] == [1]
    assert "&lt;script&gt;x" in shown
    assert "&lt;i&gt;at" in shown
    for bad in ("<script", "<b>", "<i>"):
        assert bad not in shown
    assert "1 labels × 1 features" in repr(training)
    assert "group" in repr(training)
