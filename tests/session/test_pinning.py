"""Statistics and embedders' versions: measured once, pinned in the version, shown, used again."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import EntryPoint, PackageNotFoundError
from typing import Any

import numpy as np
import polars as pl
import pytest

from fs_notebook import embedders
from fs_notebook.clock import to_us
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.preview import Preview
from fs_notebook.embedders import HashingEmbedder, MissingEmbedder, register_embedder
from fs_notebook.errors import DefinitionError, UnknownName, UsageError
from fs_notebook.language.cell import parse_source
from fs_notebook.language.plan import Plan
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.serve import FeatureReader, Served
from fs_notebook.online.states import StateCodec
from fs_notebook.position import Cut, Position
from fs_notebook.service import Service
from fs_notebook.session import Session
from fs_notebook.types import TIME
from tests.support.sessions import BEGIN, embedded_session

__all__ = ["embedded_session"]


def events(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "user": f"u{n % 4}", "n": n, "x": math.sqrt(n) if n % 5 else float("nan"),
            "text": ["a long read", "short news", "sport"][n % 3], "ok": n % 2 == 0,
            "ts": BEGIN + timedelta(minutes=n),
        }
        for n in range(first, first + count)
    ]  # fmt: skip


@pytest.fixture
def session(embedded_session: Session) -> Iterator[Session]:
    embedded_session.upload(events(0, 40), "reads", time="ts")
    return embedded_session


def sql(columns: str, *, where: str = "", key: str = "user") -> str:
    return f"SELECT user, {columns} FROM reads {where} GROUP BY {key}"


def values(preview: Preview, name: str) -> dict[Any, Any]:
    return dict(zip(preview.frame["user"], preview.frame[name].to_list(), strict=True))


def test_statistics_over_rows_are_those_of_the_rows_that_where_keeps(session: Session) -> None:
    preview = session.feature(
        "z", sql("LAST(Z_SCORE(x)) AS z, LAST(MIN_MAX_SCALE(n)) AS m", where="WHERE ok")
    )
    kept = [e for e in events(0, 40) if e["ok"]]
    finite = [e["x"] for e in kept if not math.isnan(e["x"])]
    mean, deviation = statistics.fmean(finite), statistics.pstdev(finite)
    for user, newest in {e["user"]: e for e in kept}.items():
        z, m = values(preview, "z")[user], values(preview, "m")[user]
        assert z == pytest.approx((newest["x"] - mean) / deviation, nan_ok=True)
        assert m == pytest.approx(newest["n"] / 38)
    pins = {p.function: p for p in session.define("z", session.catalog.refresh()
            .group("z").latest.text).pins}  # fmt: skip
    assert pins["z_score"].values == {
        "mean": pytest.approx(mean), "deviation": pytest.approx(deviation),
    }  # fmt: skip
    assert pins["min_max_scale"].values == {"low": 0.0, "high": 38.0}
    assert (pins["z_score"].count, pins["min_max_scale"].count) == (len(finite), 20)
    assert pins["z_score"].cut == str(session.log.end("reads"))
    assert any("Z_SCORE of x: mean" in note and "pinned" in note for note in preview.notes)


def test_statistics_over_aggregates_are_those_of_the_entities_values(session: Session) -> None:
    preview = session.feature(
        "z", sql("SUM(n) AS s, Z_SCORE(SUM(n)) AS z, QUANTILE_BIN(SUM(n), 2) AS q")
    )
    sums = values(preview, "s")
    mean, deviation = statistics.fmean(sums.values()), statistics.pstdev(sums.values())
    assert values(preview, "z") == {
        u: pytest.approx((s - mean) / deviation) for u, s in sums.items()
    }
    middle = sorted(sums.values())[1]
    assert values(preview, "q") == {u: int(s >= middle) for u, s in sums.items()}


def test_what_was_pinned_is_told_near_its_sql(session: Session) -> None:
    columns = (
        "LAST(Z_SCORE([n, 1][1])) AS a, Z_SCORE(SUM({'m': n * 2}.m)) AS b, "
        "Z_SCORE(LAST_N(CAST(n AS DOUBLE), 3)[-1]) AS c"
    )
    notes = session.feature("z", sql(columns)).notes
    assert [n.partition(":")[0] for n in notes] == [
        "Z_SCORE of [n, 1][1]",
        "Z_SCORE of SUM(STRUCT_PACK('m', (n * 2)).m)",
        "Z_SCORE of LAST_N(CAST(n AS DOUBLE), 3)[-1]",
    ]
    assert all("; pinned over" in n and "up to 0:0:39:0" in n for n in notes)


def test_a_feature_pins_and_a_view_does_not(session: Session) -> None:
    with pytest.raises(DefinitionError, match="pinned by the feature"):
        session.create_view("v", "SELECT user, ts, Z_SCORE(n) AS z FROM reads")
    session.create_view("v", "SELECT user, ts, n * 2 AS twice FROM reads WHERE ok")
    text = "SELECT user, LAST(MIN_MAX_SCALE(twice)) AS m FROM v GROUP BY user"
    assert session.define("m", text).pins[0].values == {"low": 0.0, "high": 76.0}


def test_a_derived_feature_pins_nothing_itself(session: Session) -> None:
    session.define("total", sql("SUM(n) AS total"))
    with pytest.raises(DefinitionError, match="'d' is derived") as caught:
        session.define("d", "SELECT user, Z_SCORE(total) AS d FROM total")
    assert "constants" in (caught.value.remedy or "")
    preview = session.feature("d", "SELECT user, Z_SCORE(total, 195, 10) AS d FROM total")
    assert values(preview, "d")["u0"] == pytest.approx((sum(range(0, 40, 4)) - 195) / 10)


def test_edges_are_the_discrete_quantiles(session: Session) -> None:
    definition = session.define("q", sql("SUM(QUANTILE_BIN(n, 4)) AS q"))
    (pin,) = definition.pins
    assert pin.values == {"edges": [9, 19, 29]}
    assert values(session.preview("q"), "q")["u0"] == sum(
        sum(n >= e for e in (9, 19, 29)) for n in range(0, 40, 4)
    )


def test_a_statistic_of_a_statistic(session: Session) -> None:
    preview = session.feature("z", sql("Z_SCORE(SUM(CLIP(MIN_MAX_SCALE(n), 0.25, 0.75))) AS z"))
    found = list(values(preview, "z").values())
    assert statistics.fmean(found) == pytest.approx(0, abs=1e-9)
    assert statistics.pstdev(found) == pytest.approx(1)


def test_what_stands_in_where_is_measured_over_all_rows(session: Session) -> None:
    definition = session.define(
        "w", sql("COUNT(*) AS c, LAST(MIN_MAX_SCALE(n)) AS m", where="WHERE Z_SCORE(n) > 0")
    )
    pins = {p.function: p for p in definition.pins}
    assert (pins["z_score"].over, pins["z_score"].count) == ("all rows", 40)
    assert (pins["min_max_scale"].over, pins["min_max_scale"].values) == (
        "rows", {"low": 20.0, "high": 39.0},
    )  # fmt: skip


def test_a_key_may_be_a_quantile(session: Session) -> None:
    preview = session.feature(
        "k", "SELECT QUANTILE_BIN(n, 4) AS quarter, COUNT(*) AS c FROM reads GROUP BY 1"
    )
    assert preview.frame.rows() == [(0, 9), (1, 10), (2, 10), (3, 11)]


def test_the_same_cell_makes_no_new_version_though_events_came(session: Session) -> None:
    text = sql("LAST(Z_SCORE(x)) AS z, Z_SCORE(SUM(n)) AS s")
    first = session.define("z", text)
    session.upload(events(40, 40), "reads")
    again = session.define("z", f"-- the same\n{text}")
    assert again.fingerprint == first.fingerprint
    assert again.pins == first.pins
    beside = session.define("z", text.replace("LAST(", "COUNT(*) AS c, LAST("))
    assert {p.key for p in beside.pins} == {p.key for p in first.pins}
    assert beside.pins[0].values == first.pins[0].values
    other = session.define("z", sql("LAST(Z_SCORE(x)) AS z", where="WHERE ok"))
    assert other.pins[0].key != first.pins[0].key
    fresh = session.define("z", text, refresh_statistics=True)
    assert fresh.fingerprint != first.fingerprint
    assert fresh.pins[1].values["mean"] > first.pins[1].values["mean"]


def test_the_option_of_the_cell(session: Session) -> None:
    body = sql("LAST(Z_SCORE(n)) AS z")
    first = session.define_cell(parse_source(f"%%feature z\n{body}"))
    session.upload(events(40, 40), "reads")
    assert session.define_cell(parse_source(f"%%feature z\n{body}")).pins == first.pins
    fresh = session.define_cell(parse_source(f"%%feature z --refresh-statistics\n{body}"))
    assert fresh.pins[0].values["mean"] == 39.5


def test_the_promote_button_promotes_what_was_previewed(session: Session) -> None:
    source = f"%%feature z --refresh-statistics\n{sql('LAST(Z_SCORE(n)) AS z')}"
    previewed = session.define_cell(parse_source(source))
    session.upload(events(40, 40), "reads")
    Service(session).promote_source(source, actor="somebody")
    assert session.catalog.refresh().group("z").latest.fingerprint == previewed.fingerprint


def test_without_values_there_is_no_statistic(session: Session) -> None:
    with pytest.raises(DefinitionError, match="no value of x") as caught:
        session.define("z", sql("LAST(Z_SCORE(x)) AS z", where="WHERE n < 0"))
    assert "write the statistics out" in (caught.value.remedy or "")
    with pytest.raises(DefinitionError, match=r"no value of SUM\(n\)"):
        session.define("z", sql("Z_SCORE(SUM(n)) AS z", where="WHERE n < 0"))


def test_one_value_only_scales_to_zero(session: Session) -> None:
    preview = session.feature(
        "z", sql("LAST(Z_SCORE(1)) AS z, LAST(MIN_MAX_SCALE(CLIP(n, 3, 3))) AS m")
    )
    assert set(values(preview, "z").values()) | set(values(preview, "m").values()) == {0.0}


def test_training_and_serving_compute_what_was_pinned(session: Session) -> None:
    text = sql(
        "Z_SCORE(SUM(n)) AS z, EMBED(LAST(text), 'hashing') AS e, "
        "LAST({'n': n, 'at': ts}) AS pair, LAST_N(ts, 2) AS times, "
        "LAST(ONE_HOT(text, ['sport'])) AS hot"
    )
    features = ["z", "e", "pair", "times", "hot"]
    preview = session.feature("ops", text)
    session.promote("ops")
    users = sorted(values(preview, "z"))
    vector = session.serve(["ops"], user=users)
    labels = [{"user": u, "ts": BEGIN + timedelta(minutes=40)} for u in users]
    trained = session.training_set(labels, ["ops"]).to_polars()
    served = vector.to_polars()
    for name in features:
        assert served.schema[name] == preview.frame.schema[name] == trained.schema[name]
        assert served[name].to_list() == preview.frame[name].to_list() == trained[name].to_list()
    assert vector.to_dict()["pair"][0] == {"n": 36, "at": BEGIN + timedelta(minutes=36)}
    assert vector.to_pandas()["times"][0] == [
        BEGIN + timedelta(minutes=36), BEGIN + timedelta(minutes=32),
    ]  # fmt: skip
    assert session.serve(["e"], user="nobody").to_polars()["e"].to_list() == [None]
    assert session.verify("ops").ok


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "_made", {})


class Lengths:
    """An embedder of our own: a text's length, and its words'."""

    dimensions = 2

    def __init__(self, version: str) -> None:
        self.version = version

    def embed(self, texts: Any) -> Any:
        return np.array([[len(t), len(t.split())] for t in texts], dtype=float)


@pytest.mark.usefixtures("own_registry")
def test_an_embedder_is_a_versioned_input(session: Session) -> None:
    register_embedder("lengths", Lengths("1"))
    text = sql("LAST(EMBED(text, 'lengths')) AS e")
    first = session.define("e", text)
    assert values(session.preview("e"), "e")["u0"] == [11.0, 3.0]
    assert first.pins[0].values == {"version": "1", "dimensions": 2}
    register_embedder("lengths", Lengths("2"))
    with pytest.raises(MissingEmbedder, match="another version") as caught:
        session.preview("e")
    assert "'2' here, '1' in the definition" in (caught.value.found or "")
    second = session.define("e", text)
    assert second.fingerprint != first.fingerprint
    embedders._made.clear()
    with pytest.raises(UnknownName, match="no embedder named 'lengths'"):
        session.preview("e")


@pytest.mark.usefixtures("own_registry")
def test_embedders_that_cannot_be_used(session: Session) -> None:
    with pytest.raises(UnknownName, match="hashign") as caught:
        session.define("e", sql("LAST(EMBED(text, 'hashign')) AS e"))
    assert "'hashing'" in (caught.value.remedy or "")
    with pytest.raises(UsageError, match="no embedder"):
        register_embedder("x", object())  # type: ignore[arg-type]

    class Wrong(Lengths):
        dimensions = 3

    register_embedder("wrong", Wrong("1"))
    with pytest.raises(MissingEmbedder, match="another shape"):
        session.feature("e", sql("LAST(EMBED(text, 'wrong')) AS e"))


@pytest.mark.usefixtures("own_registry")
def test_a_package_offers_an_embedder_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("lengths", f"{__name__}:first_lengths", embedders.ENTRY_POINTS)

    def points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == embedders.ENTRY_POINTS
        return [point] if name in (None, point.name) else []

    monkeypatch.setattr(embedders.importlib.metadata, "entry_points", points)
    assert "lengths" in embedders.embedder_names()
    assert embedders.embedder("lengths", version="1").dimensions == 2
    with pytest.raises(UnknownName, match="length"):
        embedders.embedder("length")


def first_lengths() -> Lengths:
    return Lengths("1")


@pytest.mark.usefixtures("own_registry")
def test_a_model_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedders.importlib.metadata, "version", missing)
    with pytest.raises(MissingEmbedder, match="needs its package") as caught:
        embedders.embedder(embedders.MINILM)
    assert "fs-notebook[embed]" in (caught.value.remedy or "")


class Moment:
    """A clock that stands so many minutes after the first event."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes

    def now_us(self) -> int:
        return to_us(BEGIN + timedelta(minutes=self.minutes))

    def monotonic_s(self) -> float:
        return float(self.minutes)

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def publish(store: MemoryStore, plan: Plan) -> None:
    """Fold the events and serve what comes out, as a worker and a runner do."""
    fold = Fold(plan)
    rows = pl.DataFrame(events(0, 40)).with_columns(pl.col("ts").alias(TIME))
    (name,) = plan.features
    lease = store.claim(name, fingerprint=plan.fingerprint)
    values = StateCodec(fold).encode(fold.add(fold.empty, rows).state)
    store.commit(lease, cut=Cut((Position(0, 0, 39, 0),)), puts=values, info={})
    store.publish(name, Served(name, 1, plan.fingerprint, name, plan, ("user",)).to_record())


@pytest.mark.usefixtures("own_registry")
def test_a_reader_needs_an_embedder_only_to_finish_again(session: Session) -> None:
    register_embedder("lengths", Lengths("1"))
    text = "COALESCE(EMBED(LAST(text), 'lengths'), EMBED('nothing here', 'lengths')) AS e"
    store, clock = MemoryStore(), Moment(40)
    publish(store, session.define("e", sql(text), window="1h").plan)
    publish(store, session.define("o", sql("COUNT(*) AS o")).plan)
    reader = FeatureReader(store, clock=clock)
    clock.minutes = 400
    assert reader.read("e", user="u0")["e"] == [[12.0, 2.0]]
    embedders._made.clear()
    reader = FeatureReader(store, clock=clock)
    clock.minutes = 40
    assert reader.read(["e", "o"], user="u0").to_dict() == {
        "user": ["u0"], "e": [[11.0, 3.0]], "o": [10],
    }  # fmt: skip
    clock.minutes = 400
    assert reader.read("o", user="u0")["o"] == [10]
    with pytest.raises(UnknownName, match="no embedder named 'lengths'"):
        reader.read("e", user="u0")


def test_hashing_points_alike_texts_alike() -> None:
    one, near, far, nothing = HashingEmbedder().embed(
        ["Reading the news", "she reads news", "football", "… !"]
    )
    assert one @ near > one @ far
    assert np.linalg.norm(one) == pytest.approx(1)
    assert not nothing.any()
