"""Feature sets, models and lineage: training and serving from one name, kept as they were."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fs_notebook.cli import main
from fs_notebook.errors import NameTaken, UnknownName, UsageError
from fs_notebook.jupyter.catalogued import about_html, lineage_html
from fs_notebook.model.encoder import FeatureEncoder
from fs_notebook.model.sets import PinnedSet
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.sessions import BEGIN, stop_all, until

GENRES = ["news", "sport", None]
LATER = BEGIN + timedelta(days=3_650)
VIEW = "SELECT user, readtime, genre, ts FROM read_events WHERE readtime > 3"
READING = "SELECT user, SUM(readtime) AS total, LAST(genre) AS genre FROM read_events GROUP BY user"
RECENT = """SELECT user, LAST_N(readtime, 3) AS last_3, AVG(readtime) AS mean, COUNT(*) AS reads,
    MAX(ts) AS newest FROM long_reads GROUP BY user"""
SHARE = "SELECT user, :k * mean / NULLIF(total, 0) AS share FROM recent JOIN reading USING (user)"
RANKER = ["reads", "share", "genre", "last_3", "newest", "total"]


def reads(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"user": f"u{n % 7}", "readtime": n, "genre": GENRES[n % 7 % 3],
         "ts": BEGIN + timedelta(minutes=n)}
        for n in range(first, first + count)
    ]  # fmt: skip


def labels(users: int = 9) -> pl.DataFrame:
    return pl.DataFrame({
        "user": [f"u{n}" for n in range(users)], "ts": [LATER] * users,
        "k": [float(n) for n in range(users)], "clicked": [n % 2 == 0 for n in range(users)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session with live features, shared by the tests that add names of their own."""
    place = Connection(tmp_path_factory.mktemp("sets") / "home")
    session = Session(place, actor="tester")
    begun(session)
    yield session
    session.close()
    stop_all(place)


def begun(session: Session) -> None:
    session.upload(reads(0, 70), "read_events", time="ts", key="user")
    session.create_view("long_reads", VIEW)
    session.define("reading", READING)
    session.define("recent", RECENT)
    session.define("shares", SHARE)
    session.promote("shares", with_inputs=True)


def test_training_and_serving_are_one_name_in_one_order(lasting: Session) -> None:
    made = lasting.feature_set("ranker", RANKER, description="Who reads what", owner="ranking")
    columns = tuple(f"{name}@1" for name in RANKER)
    assert made.features == columns
    assert made.entities == ("user",)
    training = lasting.training_set(labels(), "set:ranker", name="spring")
    assert (training.features, training.set) == (columns, "set:ranker@1")
    users, k = labels()["user"].to_list(), labels()["k"].to_list()
    for asked in ("set:ranker", "set:ranker@1", made, [made]):
        served = lasting.serve(asked, user=users, k=k)
        assert served.features == columns
        assert_frame_equal(served.to_polars().select(columns), training.frame.select(columns))
    # Applications have the store only.
    assert lasting.reader().read("set:ranker", user=users, k=k).features == columns

    async def read() -> tuple[str, ...]:
        async with lasting.async_reader() as reader:
            return (await reader.read("set:ranker@1", user=users, k=k)).features

    assert asyncio.run(read()) == columns
    # Beside others, what is named comes first, in its order, in both.
    more = ["mean", "set:ranker"]
    assert lasting.training_set(labels(), more).features == ("mean", *columns)
    assert lasting.serve(more, user=users, k=k).features == ("mean", *columns)
    again = lasting.training_set_again("spring", labels())
    assert again.features == columns
    assert_frame_equal(again.frame, training.frame)
    assert again.fingerprint == training.fingerprint


def test_a_served_value_is_encoded_as_the_training_row_of_it(lasting: Session) -> None:
    """Of a row with nulls, of an entity that nobody knows, of one alone and of all at once."""
    lasting.feature_set("encoded", RANKER)
    training = lasting.training_set(labels(), "set:encoded", name="encoded_rows")
    model = make_pipeline(FeatureEncoder(list(training.features)), LogisticRegression())
    model.fit(training.frame, training.frame["clicked"])
    users, k = labels()["user"].to_list(), labels()["k"].to_list()
    served = lasting.serve("set:encoded", user=users, k=k)
    learnt = lasting.encoder("encoded_rows")
    names = list(learnt.get_feature_names_out())
    assert {"genre@1=news", "genre@1 is null", "len(last_3@1)", "newest@1", "total@1 is null"} <= {
        *names
    }
    rows = learnt.transform(training)
    for encoder in (learnt, training.encoder(), model[0]):
        assert list(encoder.get_feature_names_out()) == names
        for given in (training, training.to_pandas(), served, served.to_pandas()):
            np.testing.assert_array_equal(encoder.transform(given), rows)
    for n, user in enumerate(users):
        alone = lasting.serve("set:encoded", user=user, k=k[n])
        np.testing.assert_array_equal(learnt.transform(alone)[0], rows[n])
    assert model.predict(served).tolist() == model.predict(training.frame).tolist()


def test_a_set_saved_with_an_encoder_keeps_that_one(lasting: Session) -> None:
    training = lasting.training_set(labels(), ["reading", "recent"])
    early = FeatureEncoder(list(training.features), text="code").fit(training.frame.head(4))
    saved = lasting.save_training_set(training, "coded", encoder=early)
    assert saved.encoder().to_dict() == early.to_dict()
    again = lasting.training_set_again("coded", labels())
    assert again.encoder().to_dict() == early.to_dict() == lasting.encoder("coded").to_dict()
    assert again.encoder(text="one_hot").to_dict() != early.to_dict()
    with pytest.raises(NameTaken, match="'coded' already"):
        lasting.save_training_set(training, "coded", encoder=training.encoder())
    with pytest.raises(UnknownName, match="did you mean 'coded'"):
        lasting.encoder("codes")


def test_versions_of_a_set_never_change(lasting: Session) -> None:
    one = lasting.feature_set("base", ["total", "reads"], owner="ann")
    assert lasting.feature_set("base", ["total@1", "reads@1"]) == one
    two = lasting.feature_set("base", ["reads", "mean", "total"], description="More")
    assert (two.version, two.owner, two.versions) == (2, "ann", (1, 2))
    assert two.changes == (
        "+ mean@1",
        "order: reads@1, mean@1, total@1",
        "description: none → More",
    )
    assert lasting.feature_set("base@1").features == one.features
    whole = lasting.feature_set("whole", ["set:base@1", "shares", "genre"])
    assert whole.features == ("total@1", "reads@1", "share@1", "genre@1")
    lasting.retire_feature_set("base", 2)
    assert lasting.feature_set("base").version == 1
    with pytest.raises(UsageError, match=r"(?s)Version 2 of the set 'base' is retired.*kept: v1"):
        lasting.training_set(labels(), "set:base@2")
    with pytest.raises(UnknownName, match="feature set"):
        lasting.serve("set:base@2", user="u1")
    lasting.retire_feature_set("base")
    assert "base" not in {s.name for s in lasting.feature_sets()}
    # Numbers are not given twice.
    assert lasting.feature_set("base", ["total"]).version == 3


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (["total", "reading"], r"(?s)'total@1' twice.*'reading'"),
        ([], "at least one feature"),
        (["total@7"], r"(?s)no version of 'reading' named '7'"),
        (["totl"], "did you mean 'total'"),
        (["total@new"], "A version is a number"),
        (["set:nothing"], "no feature set named 'nothing'"),
        (["draft_only"], r"(?s)never promoted.*%feature promote drafts"),
        ([7], "Features are names"),
    ],
)
def test_lists_that_make_no_set_are_told(lasting: Session, features: list[Any], told: str) -> None:
    lasting.define(
        "drafts", "SELECT user, MIN(readtime) AS draft_only FROM read_events GROUP BY user"
    )
    with pytest.raises((UsageError, UnknownName), match=told):
        lasting.feature_set("odd", features)
    assert "odd" not in {s.name for s in lasting.feature_sets()}


def test_what_a_set_pins_goes_on(embedded_session: Session) -> None:
    """Two versions later the pinned one is neither wanted nor former, and still current."""
    session = embedded_session
    session.upload(reads(0, 70), "read_events", time="ts", key="user")
    session.define("reading", READING)
    session.promote("reading")
    session.feature_set("ranker", ["total"])
    for times in (2, 3):
        session.define("reading", READING.replace("SUM(readtime)", f"SUM({times} * readtime)"))
        session.promote("reading")
    first = session.serve("set:ranker", user="u3")["total@1"]
    assert first == [sum(r["readtime"] for r in reads(0, 70) if r["user"] == "u3")]
    assert session.serve("total", user="u3")["total"] == [3 * first[0]]
    session.append(reads(73, 1), "read_events")
    until(lambda: session.serve("set:ranker", user="u3")["total@1"] == [first[0] + 73])
    with pytest.raises(UsageError, match=r"(?s)pinned by feature sets.*set:ranker@1"):
        session.retire("reading", 1)
    model = session.register_model("net", set="ranker")
    assert model.set == "set:ranker@1"
    with pytest.raises(UsageError, match=r"(?s)'ranker' v1 is a model's.*model:net"):
        session.retire_feature_set("ranker", 1)
    session.remove_model("net")
    session.retire_feature_set("ranker@1")
    session.retire("reading", 1)
    with pytest.raises(UnknownName, match="no feature set"):
        session.serve("set:ranker", user="u3")
    again = session.feature_set("ranker", ["total"])
    assert (again.version, again.features) == (2, ("total@3",))
    assert session.serve("set:ranker", user="u3")["total@3"] == [3 * (first[0] + 73)]


def test_a_model_knows_its_set_and_its_training_set(lasting: Session) -> None:
    lasting.feature_set("clicks", ["total", "share"])
    lasting.training_set(labels(), "set:clicks", name="autumn")
    model = lasting.register_model("clicks-2026", training_set="autumn", description="Trees")
    assert (model.set, model.training_set) == ("set:clicks@1", "autumn")
    assert (
        lasting.register_model("clicks-2026", training_set="autumn", description="Trees") == model
    )
    with pytest.raises(NameTaken, match="'clicks-2026' already"):
        lasting.register_model("clicks-2026", training_set="autumn")
    lasting.feature_set("other", ["total", "genre"])
    with pytest.raises(UsageError, match=r"(?s)not made of what.*lacks genre@1"):
        lasting.register_model("other", set="other", training_set="autumn")
    with pytest.raises(UsageError, match=r"(?s)Models learnt of.*model:clicks-2026"):
        lasting.delete_training_set("autumn")
    lasting.rename_training_set("autumn", "fall")
    assert lasting.registered_model("clicks-2026").training_set == "fall"
    assert lasting.training_set_again("fall", labels()).name == "fall"
    assert list(lasting.encoder("model:clicks-2026").feature_names_in_) == ["total@1", "share@1"]
    lasting.training_set(labels(), "total", name="winter")
    with pytest.raises(NameTaken, match="'fall' already"):
        lasting.rename_training_set("winter", "fall")
    lasting.delete_training_set("winter")
    assert "winter" not in {s.name for s in lasting.training_sets()}
    for call in (
        lambda: lasting.register_model("none"), lambda: lasting.register_model("a b", set="clicks"),
        lambda: lasting.register_model("x", set="clicks@x"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UnknownName, match="did you mean 'clicks-2026'"):
        lasting.remove_model("clicks-2025")


TREE = """lin-1 (model), served with set:lin@1
made of:
├─ lin (feature set), v1: share@1, total@1
│  ├─ reading (group), live
│  │  └─ read_events (stream)
│  └─ shares (group), live
│     ├─ reading (group), live, see above
│     └─ recent (group), live
│        └─ long_reads (view)
│           └─ read_events (stream)
└─ lineage (training set)
   ├─ reading (group), live, see above
   └─ shares (group), live, see above
read by nothing"""


def test_lineage_goes_from_a_model_to_the_streams(lasting: Session) -> None:
    lasting.feature_set("lin", ["share", "total"])
    lasting.training_set(labels(), "set:lin", name="lineage")
    lasting.register_model("lin-1", training_set="lineage")
    found = lasting.lineage("model:lin-1")
    assert repr(found) == TREE
    assert [n.name for n in found.upstream() if n.kind == "stream"] == ["read_events"]
    view = lasting.lineage("view:long_reads")
    assert [n.name for n in view.upstream()] == ["read_events"]
    assert ("model", "lin-1") in view.downstream()
    assert ("group", "reading") in lasting.lineage("stream:read_events").downstream()
    assert repr(lasting.lineage("feature:total")).startswith("reading (group)")
    assert repr(lasting.lineage("set:lin@1")).startswith("lin (feature set)")
    with pytest.raises(UnknownName, match="did you mean 'lin-1'"):
        lasting.lineage("model:lin-2")
    with pytest.raises(UsageError, match=r"(?s)Lineage is of.*model:NAME"):
        lasting.lineage("modle:lin-1")


def test_sets_and_models_are_found_and_shown_as_text(lasting: Session) -> None:
    lasting.feature_set("drawn", ["share", "total"], description="<script>alert(1)</script>")
    lasting.register_model("drawn-1", set="drawn", description="</svg><script>alert(1)</script>")
    assert {e.name for e in lasting.search("drawn").entries} == {"drawn", "drawn-1"}
    assert [e.name for e in lasting.search("kind:model drawn").entries] == ["drawn-1"]
    drawing = lineage_html(lasting.lineage("model:drawn-1"))
    kept = (lasting.feature_set("drawn"), lasting.registered_model("drawn-1"))
    shown = [one._repr_html_() for one in kept]
    for html in (about_html(lasting.about("drawn")), drawing, *shown):
        assert "<script" not in html
        assert not re.search(r"(?:src|href)=", html)
    assert "<svg" in drawing


def test_the_command_line_and_the_sidebar_s_route_list_them(lasting: Session) -> None:
    lasting.feature_set("listed", ["share", "total"])
    lasting.training_set(labels(), "set:listed", name="listed_rows")
    lasting.register_model("listed-1", training_set="listed_rows")

    def run(*arguments: str) -> str:
        home = str(lasting.connection.home)
        done = CliRunner().invoke(main, ["--home", home, *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert "listed_rows" in run("training-sets")
    assert "model:listed-1" in run("feature-sets")
    assert run("feature-sets", "listed@1").startswith("feature set listed v1 by user")
    assert "set:listed@1" in run("models")
    assert run("lineage", "model:listed-1").startswith("listed-1 (model), served with set:listed@1")
    assert "listed_later" in run("training-sets", "--rename", "listed_rows", "listed_later")
    # All of them are JSON, for whoever lists them elsewhere.
    model, made, trained = (
        {one["name"]: one for one in json.loads(json.dumps([k.to_dict() for k in kept]))}
        for kept in (lasting.models(), lasting.feature_sets(), lasting.training_sets())
    )
    assert model["listed-1"]["training_set"] == "listed_later"
    assert [f["column"] for f in made["listed"]["features"]] == ["share@1", "total@1"]
    assert "listed_later" in trained


def test_lift_takes_sets_for_what_is_in_them(lasting: Session) -> None:
    lasting.feature_set("had", ["reads"])
    lasting.feature_set("brought", ["total", "genre"])
    many = pl.concat([labels(7)] * 60).with_columns(
        ts=pl.lit(LATER) + pl.duration(minutes=pl.int_range(420))
    )
    lift = lasting.lift("set:brought", many, "clicked", base=["set:had"], baseline=[])
    assert set(lift.candidate) >= {"total@1", "genre@1"}
    assert "reads@1" in lift.baseline


def test_two_who_make_a_set_at_once_get_two_versions(lasting: Session) -> None:
    other = Session(lasting.connection, actor="other")
    one = lasting.feature_set("shared", ["total"])
    two = other.feature_set("shared", ["reads"])
    other.close()
    assert isinstance(two, PinnedSet)
    assert ((one.version, one.actor), (two.version, two.actor)) == ((1, "tester"), (2, "other"))
    assert two.changes == ("- total@1", "+ reads@1")
