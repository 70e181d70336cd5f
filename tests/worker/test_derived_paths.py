"""Derived features: training row = served value = preview = the expression, applied by hand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition, DerivedDefinition, Group, Version
from fs_notebook.clock import SYSTEM, from_us
from fs_notebook.compute.derived import preview_derived
from fs_notebook.compute.preview import Slice
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.language.derived import AnyPlan
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import compile_derived
from fs_notebook.language.plan import Output
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.derived import training_set_of
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.serve import FeatureReader
from fs_notebook.types import Type
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.records import served_record
from fs_notebook.worker.verify_derived import verify_derived
from tests.compute import naive

SECOND = 1_000_000
WINDOW_S = 5
COLUMNS = (
    ("user", Type.VARCHAR), ("shop", Type.BIGINT), ("n", Type.BIGINT), ("x", Type.DOUBLE),
    ("ts", Type.TIMESTAMP),
)  # fmt: skip
SUMS = "SELECT user, SUM(n) AS total, COUNT(*) AS seen FROM STREAM GROUP BY user"
MEANS = f"""
SELECT user, AVG(x) OVER w AS mean_x, MAX(n) OVER w AS most FROM STREAM
WINDOW w AS (PARTITION BY user ORDER BY ts
             RANGE BETWEEN INTERVAL {WINDOW_S} SECOND PRECEDING AND CURRENT ROW)
"""
SHOPS = "SELECT shop, SUM(x) AS shop_x FROM STREAM GROUP BY shop"
SHARE = "SELECT user, :amount / NULLIF(mean_x, 0) AS share FROM means"
DERIVED = """
SELECT user, shop,
       share - COALESCE(shop_x, 0.5) AS gap,
       COALESCE(total, -1) + CAST(:k AS BIGINT) * seen AS weighed,
       CASE WHEN most > :k THEN 'more' WHEN total IS NULL THEN user ELSE 'less' END AS word
FROM sums JOIN middle USING (user) JOIN means USING (user) CROSS JOIN shops
"""


@dataclass(frozen=True)
class Stopped:
    """A clock that stands still."""

    us: int

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return SYSTEM.monotonic_s()

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLog]:
    path: Path = tmp_path_factory.mktemp("derived") / "ledger.db"
    with closing(EmbeddedLog(path)) as log:
        yield log


def stored(name: str, sql: str, stream: Stream) -> Definition:
    source = SourceColumns(stream.name, stream.columns, stream.time)
    text = sql.replace("STREAM", f'"{stream.name}"')
    return Definition(
        name, text, compile_sql(text, name=name, find_source=lambda _: source), stream
    )


def derived(text: str, inputs: list[Definition]) -> DerivedDefinition:
    known: dict[str, AnyPlan] = {d.name: d.plan for d in inputs}
    find = {n: Given(n, p) for n, p in known.items()}
    find["middle"] = Given("middle", compile_derived(SHARE, name="middle", find_group=find.get))  # type: ignore[arg-type]
    plan = compile_derived(
        text, name="derived", find_group=find.__getitem__, requests={"k": Type.BIGINT}
    )
    assert {i.group for i in plan.inputs} <= set(known)
    return DerivedDefinition("derived", text, plan, tuple(inputs))


def make_stream(log: EmbeddedLog, rows: list[dict[str, Any]], batch: int) -> Stream:
    stream = Stream(f"s_{uuid.uuid4().hex[:12]}", COLUMNS, "ts")
    log.create(stream)
    schema = {n: pl.Int64() if n == "ts" else t.polars for n, t in COLUMNS}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    frame = frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    for start in range(0, frame.height, batch):
        log.append(stream, frame.slice(start, batch))
    return stream


def work(definition: Definition, log: EmbeddedLog, store: MemoryStore) -> None:
    """Fold all there is into the store."""

    def is_live() -> bool:
        return (store.health(definition.shard) or {}).get("state") == "live"

    Worker(definition, log, store, should_stop=is_live).run()


def publish(definition: Definition | DerivedDefinition, store: MemoryStore) -> None:
    version = Version(1, definition, "me", datetime(2024, 1, 1, tzinfo=UTC))
    group = Group(definition.name, (version,), wanted=1, served=(1,))
    store.publish(definition.name, served_record(group, version).to_record())


def by_hand(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], request: dict[str, Any], t: int
) -> dict[str, Any]:
    """Return the derived features of one request, slowly and plainly."""

    def value(name: str, arg: str | None, *, by: str = "user", recent: bool = False) -> Any:
        log = rows if by == "user" else others
        return naive.value(
            [{**r, "user": r[by], "t": r["ts"]} for r in log],
            entity=request[by], t=t, name=name, args=(arg,) if arg else (), params=(),
            when=naive.When(WINDOW_S * SECOND) if recent else naive.When(),
        )  # fmt: skip

    total, seen, shop_x = value("sum", "n"), value("count", None), value("sum", "x", by="shop")
    mean, most = value("avg", "x", recent=True), value("max", "n", recent=True)
    amount, k = request["amount"], request["k"]
    gap = None
    if amount is not None and mean:
        gap = amount / mean - (0.5 if shop_x is None else shop_x)
    weighed = None if k is None else (-1 if total is None else total) + k * seen
    if most is not None and k is not None and most > k:
        word = "more"
    else:
        word = request["user"] if total is None else "less"
    return {"gap": gap, "weighed": weighed, "word": word}


times = st.one_of(
    st.integers(0, 4).map(lambda n: n * WINDOW_S * SECOND), st.integers(0, 20 * SECOND)
)
numbers = st.one_of(st.none(), st.integers(-8, 8).map(lambda n: n / 4))
events = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", "ü", None]),
        "shop": st.sampled_from([1, 2, None]),
        "n": st.one_of(st.none(), st.integers(-5, 9)),
        "x": numbers,
        "ts": times,
    }
)
requests = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", "ü", "nobody"]),
        "shop": st.sampled_from([1, 2, 3]),
        "at": times,
        "amount": numbers,
        "k": st.one_of(st.none(), st.integers(-3, 3)),
    }
)


def alike(got: dict[str, Any], want: dict[str, Any]) -> bool:
    return all(
        naive.alike(got[n], w, scale=10.0) and type(got[n]) is type(w) for n, w in want.items()
    )


@settings(max_examples=40)
@given(
    rows=st.lists(events, max_size=20),
    others=st.lists(events, max_size=12),
    asked=st.lists(requests, min_size=1, max_size=6),
    batch=st.integers(1, 9),
)
def test_every_path_is_the_expression_by_hand(
    log: EmbeddedLog,
    rows: list[dict[str, Any]],
    others: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    batch: int,
) -> None:
    one, two = make_stream(log, rows, batch), make_stream(log, others, batch)
    inputs = [stored("means", MEANS, one), stored("shops", SHOPS, two), stored("sums", SUMS, one)]
    definition = derived(DERIVED, inputs)
    names = definition.plan.features

    def want(request: dict[str, Any], t: int) -> dict[str, Any]:
        return by_hand(rows, others, request, t)

    labels = pl.DataFrame(
        asked,
        schema={"user": pl.String, "shop": pl.Int64, "at": pl.Int64, "amount": pl.Float64,
                "k": pl.Int64},
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))  # fmt: skip
    training = training_set_of(labels, [(definition, names)], log, clock=SYSTEM)
    assert training.frame.select(labels.columns).equals(labels)
    for request, row in zip(asked, training.frame.iter_rows(named=True), strict=True):
        assert alike({n: row[n] for n in names}, want(request, request["at"])), (request, row)

    t = 21 * SECOND
    store = MemoryStore()
    for stored_ in inputs:
        work(stored_, log, store)
    publish(definition, store)
    entities = {n: [r[n] for r in asked] for n in ("user", "shop")}
    values = {n: [r[n] for r in asked] for n in ("amount", "k")}
    served = FeatureReader(store, clock=Stopped(t)).read(["derived"], **entities, **values)
    for request, row in zip(asked, served.rows, strict=True):
        assert alike({n: row[n] for n in names}, want(request, t)), (request, row)
    last = training_set_of(
        labels.with_columns(pl.lit(from_us(t)).dt.cast_time_unit("us").alias("at")),
        [(definition, names)], log, clock=SYSTEM,
    )  # fmt: skip
    assert last.frame.select(names).rows() == served.to_polars().select(names).rows()

    first = asked[0]
    preview = preview_derived(
        "derived", definition.plan,
        {(d.name, d.fingerprint): (d.plan, d.source, d.joined) for d in inputs},
        log, clock=SYSTEM, given={n: first[n] for n in ("amount", "k")}, where=Slice(to_us=t),
    )  # fmt: skip
    known = {r["user"] for r in rows} - {None}, {r["shop"] for r in others} - {None}
    assert preview.entities == len(known[0]) * len(known[1])
    for row in preview.frame.iter_rows(named=True):
        assert alike({n: row[n] for n in names}, want({**first, **row}, t)), row
    outcome = verify_derived(definition, 1, log, store, now_us=t)
    assert outcome.ok, outcome


def test_verify_sees_what_does_not_follow(log: EmbeddedLog) -> None:
    rows = [{"user": "a", "shop": 1, "n": n, "x": 2.0, "ts": n * SECOND} for n in range(4)]
    stream = make_stream(log, rows, 9)
    inputs = [stored("sums", SUMS, stream)]
    text = "SELECT user, total * 2 AS twice FROM sums"
    plan = compile_derived(
        text, name="twice", find_group=lambda name: Given("sums", inputs[0].plan)
    )
    definition = DerivedDefinition("twice", text, plan, tuple(inputs))
    store = MemoryStore()
    work(inputs[0], log, store)
    publish(definition, store)
    assert verify_derived(definition, 1, log, store, now_us=9 * SECOND).ok
    # What is published is another expression than the catalog's.
    other = replace(plan, outputs=(Output("twice", plan.outputs[0].expr.args[0]),))  # type: ignore[union-attr]
    publish(replace(definition, plan=other), store)
    outcome = verify_derived(definition, 1, log, store, now_us=9 * SECOND)
    (found,) = outcome.examples
    assert (outcome.mismatches, found.feature) == (1, "twice")
    assert (found.online, found.ledger) == (6, 12)


def test_the_same_group_for_two_entities(log: EmbeddedLog) -> None:
    rows = [{"user": "a", "shop": n % 3, "n": n, "x": float(n), "ts": n * SECOND} for n in range(9)]
    stream = make_stream(log, rows, 4)
    shops = stored("shops", SHOPS, stream)
    text = "SELECT a.shop_x - b.shop_x AS gap FROM shops a CROSS JOIN shops b"
    plan = compile_derived(
        text, name="gap", find_group=lambda name: Given("shops", shops.plan),
        entity=["origin", "goal"],
    )  # fmt: skip
    definition = DerivedDefinition("gap", text, plan, (shops,))
    store = MemoryStore()
    work(shops, log, store)
    publish(definition, store)
    publish(shops, store)
    at = from_us(10 * SECOND)
    labels = pl.DataFrame({"origin": [0, 1, 2], "goal": [2, 2, 7], "at": [at] * 3})
    wanted = [9 - 15, 12 - 15, None]
    trained = training_set_of(labels, [(definition, ("gap",))], log, clock=SYSTEM)
    assert trained.to_dict()["gap"] == wanted
    reader = FeatureReader(store, clock=Stopped(10 * SECOND))
    pairs = {"origin": [0, 1, 2], "goal": [2, 2, 7]}
    assert reader.read("gap", **pairs)["gap"] == wanted
    # Beside the group itself, for a third shop.
    served = reader.read(["gap", "shop_x"], **pairs, shop=[1, 1, 1])
    assert (served["gap"], served["shop_x"]) == (wanted, [12.0] * 3)
    assert verify_derived(definition, 1, log, store, now_us=10 * SECOND).ok
    mapped = labels.rename({"origin": "from", "goal": "shop"})
    names = {"origin": "from", "goal": "shop"}
    again = training_set_of(mapped, [(definition, ("gap",))], log, clock=SYSTEM, entity=names)
    assert again.to_dict()["gap"] == wanted
    # The group's own key is called shop as well; that is neither of the two by itself.
    with pytest.raises(UsageError, match="no column for the entity 'goal'"):
        training_set_of(
            mapped, [(definition, ("gap",))], log, clock=SYSTEM, entity={"origin": "from"}
        )


def test_one_read_and_typed_requests(log: EmbeddedLog) -> None:
    rows = [{"user": "a", "shop": 1, "n": n, "x": 2.0, "ts": n * SECOND} for n in range(4)]
    stream = make_stream(log, rows, 9)
    inputs = [stored("sums", SUMS, stream), stored("means", MEANS, stream)]
    definition = derived(
        "SELECT user, share + total * :k AS y, DATE_TRUNC('day', CAST(:day AS TIMESTAMP)) AS d, "
        "seen AS s FROM sums JOIN middle USING (user)",
        inputs,
    )
    store = MemoryStore()
    for stored_ in inputs:
        work(stored_, log, store)
    publish(definition, store)
    publish(inputs[0], store)
    reader = FeatureReader(store, clock=Stopped(4 * SECOND))
    day = datetime(2024, 5, 6, 7, tzinfo=UTC)
    given_ = {"user": ["a", "b"], "amount": 3, "k": [1, 2], "day": day}
    reader.read(["y", "d", "total"], **given_)
    reads: list[int] = []
    inner = store.read

    def counted(generation: int, shards: Any) -> Any:
        reads.append(len(shards))
        return inner(generation, shards)

    store.read = counted  # type: ignore[method-assign]
    served = reader.read(["y", "d", "total"], **given_)
    assert reads == [2]
    assert served["y"] == [3 / 2 + 6, None]
    assert served["d"] == [day - timedelta(hours=7)] * 2
    assert served.to_polars().columns == ["user", "y", "d", "total"]
    assert served.status().select("y", "d", "total").rows() == [
        ("present",) * 3,
        ("not found",) * 3,
    ]
    # A feature asks for what it reads itself, and for nothing else.
    assert reader.read("s", user=["a"])["s"] == [4]
    assert reader.read("y", request={"amount": [3], "k": [1]}, user=["a"])["y"] == [7.5]
    assert "1 not found" in served._repr_html_()
    for bad, message in (
        ({"user": ["a"], "amount": [1.0]}, "request value 'k', a BIGINT"),
        ({"user": ["a"], "amount": [1.0], "kk": [1]}, "k instead of kk"),
        ({"user": ["a"], "amount": [1.0], "k": [1.5]}, "'k' is a BIGINT"),
        ({"user": ["a"], "amount": [1.0], "k": [True]}, "'k' is a BIGINT"),
        ({"user": ["a"], "amount": [1.0], "k": [2**63]}, "'k' is a BIGINT"),
        ({"user": ["a"], "amount": [1.0, 2.0], "k": [1]}, "differ in length"),
        ({"amount": [1.0], "k": [1]}, "'derived' is a feature of user"),
        ({"user": ["a"], "amount": 1.0, "k": 1, "request": {"z": 1}}, "named 'z'"),
        ({"user": ["a"], "amount": 1.0, "k": 1, "genre": ["x"]}, "No asked feature is of genre"),
    ):
        with pytest.raises(FeatureStoreError, match=message):
            reader.read("y", **bad)
