"""lag and as_of="known": each row is the naive fold of what was there, and known, by then."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition, DerivedDefinition
from fs_notebook.clock import SYSTEM
from fs_notebook.errors import UsageError
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import compile_derived
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.asked import PLAIN, AsOf
from fs_notebook.model.derived import training_set_of
from fs_notebook.types import Type
from tests.compute import naive
from tests.model.definitions import READS, SECOND, windowed

pytestmark = pytest.mark.timeout(120)

TTL = 4 * SECOND
RATES = (("user", Type.VARCHAR), ("rate", Type.BIGINT), ("ts", Type.TIMESTAMP))
SUMS = f"""SELECT user, SUM(n) OVER (PARTITION BY user) AS total,
    COUNT(*) OVER (PARTITION BY user) AS seen, {windowed("AVG(x)", "mean", 5)} FROM READS"""
LIVING = "SELECT user, LAST(n) AS newest, COUNT(*) AS living FROM READS GROUP BY user"
RATED = """SELECT r.user, SUM(r.n * p.rate) AS worth, LAST(p.rate) AS rate
    FROM READS r LEFT JOIN RATES p ON r.user = p.user GROUP BY r.user"""
DERIVED = (
    "SELECT user, :k * COALESCE(total, 0) + living AS mixed FROM sums JOIN living USING (user)"
)


class Settable:
    """A clock that is told what time it is."""

    us = 0

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return SYSTEM.monotonic_s()

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


CLOCK = Settable()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLog]:
    path: Path = tmp_path_factory.mktemp("known") / "ledger"
    log = EmbeddedLog(path, clock=CLOCK)
    yield log
    log.close()


class World:
    """Two streams of events with publish times, and features of all kinds on them."""

    def __init__(self, log: EmbeddedLog, steps: list[dict[str, Any]]) -> None:
        self.events: dict[str, list[dict[str, Any]]] = {"READS": [], "RATES": []}
        self.streams = {
            name: Stream(f"{name.lower()}_{uuid.uuid4().hex[:10]}", columns, "ts")
            for name, columns in (("READS", READS), ("RATES", RATES))
        }
        for stream in self.streams.values():
            log.create(stream)
        CLOCK.us = 0
        for step in steps:
            self.append(log, step)
        sums, living = self.stored("sums", SUMS), self.stored("living", LIVING)
        living = replace(living, plan=replace(living.plan, ttl_us=TTL))
        rated = self.stored("rated", RATED)
        found = {d.name: Given(d.name, d.plan) for d in (sums, living)}
        plan = compile_derived(
            DERIVED, name="derived", find_group=found.__getitem__, requests={"k": Type.BIGINT}
        )
        derived = DerivedDefinition("derived", DERIVED, plan, (living, sums))
        self.wanted = [(d, d.plan.features) for d in (sums, living, rated, derived)]

    def append(self, log: EmbeddedLog, step: dict[str, Any]) -> None:
        """Append one event; it is published `after` the one before."""
        CLOCK.us += step["after"]
        event = {k: v for k, v in step.items() if k not in ("into", "after")}
        name = step["into"]
        columns = READS if name == "READS" else RATES
        row = {n: event.get(n) for n, _ in columns}
        schema = {n: pl.Int64() if n == "ts" else t.polars for n, t in columns}
        frame = pl.DataFrame([row], schema=schema, orient="row")
        frame = frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
        log.append(self.streams[name], frame)
        self.events[name].append(event | {"t": event["ts"], "p": CLOCK.us})

    def stored(self, name: str, sql: str) -> Definition:
        sources = {s.name: SourceColumns(s.name, s.columns, s.time) for s in self.streams.values()}
        for word, stream in self.streams.items():
            sql = sql.replace(word, f'"{stream.name}"')
        plan = compile_sql(sql, name=name, find_source=sources.__getitem__)
        joined = (self.streams["RATES"],) * len(plan.joins)
        return Definition(name, sql, plan, self.streams["READS"], joined=joined)

    def rate(self, event: dict[str, Any]) -> int | None:
        """Return the rate that an event is joined with: the newest that was known then."""
        seen = [
            r for r in self.events["RATES"]
            if r["user"] == event["user"] and r["t"] <= event["t"] and r["p"] <= event["p"]
        ]  # fmt: skip
        best = max(enumerate(seen), key=lambda one: (one[1]["t"], one[0]), default=None)
        return None if best is None else best[1]["rate"]

    def by_hand(self, user: str | None, at: int, k: int, as_of: AsOf) -> dict[str, Any]:
        t = at - as_of.lag_us
        log = [e for e in self.events["READS"] if not as_of.known or e["p"] < t]
        log = [e | {"rate": self.rate(e)} for e in log]
        log = [
            e | {"worth": None if None in (e["n"], e["rate"]) else e["n"] * e["rate"]} for e in log
        ]

        def value(name: str, *args: str, window: int | None = None) -> Any:
            return naive.value(log, entity=user, t=t, name=name, args=args, when=naive.When(window))

        mine = [e["t"] for e in log if user is not None and e["user"] == user and e["t"] < t]
        alive = not mine or t - max(mine) <= TTL
        total, living = value("sum", "n"), value("count") if alive else None
        return {
            "total": total, "seen": value("count"), "mean": value("avg", "x", window=5 * SECOND),
            "newest": value("last", "n") if alive else None, "living": living,
            "worth": value("sum", "worth"), "rate": value("last", "rate"),
            "mixed": None if living is None else k * (total or 0) + living,
        }  # fmt: skip


moments = st.one_of(st.integers(0, 20).map(lambda n: n * SECOND), st.integers(0, 20 * SECOND))
users = st.sampled_from(["a", "b", None])
after = st.one_of(st.just(0), st.integers(0, 4).map(lambda n: n * SECOND))
read = st.fixed_dictionaries(
    {
        "into": st.just("READS"), "user": users, "ts": moments, "after": after,
        "n": st.one_of(st.none(), st.integers(-9, 9)),
        "x": st.one_of(st.none(), st.integers(-9, 9).map(float)),
    }
)  # fmt: skip
rating = st.fixed_dictionaries(
    {"into": st.just("RATES"), "user": users, "ts": moments, "after": after,
     "rate": st.one_of(st.none(), st.integers(1, 5))}
)  # fmt: skip
asked = st.lists(st.tuples(users, moments, st.integers(-3, 3)), max_size=8)


def labels_of(rows: list[tuple[Any, int, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        rows, schema={"user": pl.String, "at": pl.Int64, "k": pl.Int64}, orient="row"
    )
    return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


@settings(max_examples=40)
@given(
    steps=st.lists(st.one_of(read, read, rating), max_size=14),
    rows=asked,
    lag=st.sampled_from([None, "1s", "3s"]),
    as_of=st.sampled_from(["event", "known"]),
)
def test_every_row_is_the_naive_fold_of_what_was_known(
    log: EmbeddedLog,
    steps: list[dict[str, Any]],
    rows: list[tuple[Any, int, int]],
    lag: str | None,
    as_of: str,
) -> None:
    world, asked_for, labels = World(log, steps), AsOf.of(lag, as_of), labels_of(rows)
    got = training_set_of(labels, world.wanted, log, clock=SYSTEM, as_of=asked_for)
    assert got.frame.select(labels.columns).equals(labels)
    for (user, at, k), row in zip(rows, got.frame.iter_rows(named=True), strict=True):
        want = world.by_hand(user, at, k, asked_for)
        for name, value in want.items():
            assert naive.same(row[name], value), (name, user, at, row[name], value)
    # Other labels change nothing.
    for i in range(len(rows)):
        alone = training_set_of(labels[i : i + 1], world.wanted, log, clock=SYSTEM, as_of=asked_for)
        assert alone.frame.equals(got.frame[i : i + 1])


@settings(max_examples=15)
@given(steps=st.lists(st.one_of(read, rating), max_size=14), rows=asked)
def test_what_was_published_early_gives_the_plain_set(
    log: EmbeddedLog, steps: list[dict[str, Any]], rows: list[tuple[Any, int, int]]
) -> None:
    world = World(log, [s | {"after": 0} for s in steps])
    labels = labels_of([(u, at + 1, k) for u, at, k in rows])
    plain = training_set_of(labels, world.wanted, log, clock=SYSTEM)
    known = training_set_of(
        labels, world.wanted, log, clock=SYSTEM, as_of=replace(PLAIN, known=True)
    )
    assert known.frame.equals(plain.frame)
    assert known.coverage == plain.coverage
    assert known.fingerprint != plain.fingerprint


def test_coverage_counts_the_labels_that_saw_an_event(log: EmbeddedLog) -> None:
    event = {"into": "READS", "user": "a", "ts": 0, "after": 0, "n": None, "x": None}
    world = World(log, [event])
    labels = labels_of([("a", 1, 0), ("a", 9 * SECOND, 0), ("a", 0, 0), ("b", 1, 0)])
    got = training_set_of(labels, world.wanted, log, clock=SYSTEM)
    # The mean's window has passed at nine seconds; its lifetime neighbours have not.
    assert got.coverage["total"] == got.coverage["living"] == got.coverage["mixed"] == 0.5
    assert got.nulls["total"] == 1.0


@pytest.mark.parametrize(
    ("lag", "as_of", "says"),
    [("5", "event", "lag is not a length"), (None, "published", "as_of says"),
     ("-5m", "known", "lag is not a length")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(lag: str | None, as_of: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        AsOf.of(lag, as_of)
