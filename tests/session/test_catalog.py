"""The catalog itself: words that make no version, deprecation, search, differences, lineage."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest

from fs_notebook.errors import ConflictError, UnknownName, UsageError
from fs_notebook.session import Session
from tests.support.sessions import SUM_SQL, read_events, until

VIEW_SQL = "SELECT user, readtime, ts FROM read_events WHERE readtime >= 5"


@pytest.fixture
def known(embedded_session: Session) -> Session:
    """A session with a stream, a view, a group over each, and a derived group."""
    s = embedded_session
    s.upload(pl.DataFrame(read_events(0, 50)), "read_events", time="ts")
    s.create_view("long_reads", VIEW_SQL, description="Reads that last")
    s.define("reading_time", SUM_SQL, tags=["reading"], owner="ann",
             description="Total time spent reading")  # fmt: skip
    s.define("long_time", "SELECT user, COUNT(*) AS long_count FROM long_reads GROUP BY user")
    s.define("share", "SELECT user, long_count / total_readtime AS long_share "
                      "FROM reading_time JOIN long_time USING (user)", entity="user")  # fmt: skip
    return s


def test_words_are_edited_without_a_version(known: Session) -> None:
    before = known.catalog.refresh().group("reading_time").latest
    done = known.edit("total_readtime", owner="bob", add=["core", "core"], remove=["reading"])
    assert "no new version" in repr(done)
    group = known.catalog.refresh().group("reading_time")
    assert group.latest.fingerprint == before.fingerprint
    assert (group.latest.owner, group.latest.tags) == ("bob", ("core",))
    assert group.latest.description == "Total time spent reading"
    events = known.catalog.refresh().events
    assert "nothing to change" in repr(known.edit("reading_time", owner="bob"))
    assert known.catalog.refresh().events == events
    assert known.about("reading_time").history[0].text == "owner: bob; tags +core -reading"
    known.edit("reading_time", description="")
    assert known.view("reading_time")["description"] is None


def test_an_edit_stands_until_the_cell_says_something_else(known: Session) -> None:
    known.edit("reading_time", owner="bob", tags=["core"])
    said = {"tags": ["reading"], "owner": "ann", "description": "Total time spent reading"}
    events = known.catalog.refresh().events
    known.define("reading_time", SUM_SQL, **said)
    assert known.catalog.refresh().events == events, "the same cell records nothing"
    assert known.catalog.refresh().group("reading_time").latest.owner == "bob"
    known.define("reading_time", SUM_SQL, **(said | {"tags": ["time"]}))
    latest = known.catalog.refresh().group("reading_time").latest
    assert (latest.tags, latest.owner) == (("time",), "bob")


def test_views_and_streams_have_words_too(known: Session) -> None:
    known.edit("long_reads", owner="eve", tags="reads,long", description="Five and more")
    assert known.row_views()[0].description == "Five and more"
    known.create_view("long_reads", VIEW_SQL, description="Reads that last")
    assert known.row_views()[0].description == "Five and more"
    assert known.search("tag:long kind:view").names() == ["long_reads"]
    known.edit("read_events", description="What is read")
    assert known.catalog.refresh().sources["read_events"].description == "What is read"


@pytest.mark.parametrize(
    "said",
    [{"owner": "x" * 3_000}, {"add": ["a,b"]}, {"add": [""]}, {"add": ["a\nb"]},
     {"kind": "table"}, {"tags": [str(n) for n in range(60)]}],
)  # fmt: skip
def test_words_that_are_none(known: Session, said: dict[str, object]) -> None:
    events = known.catalog.refresh().events
    with pytest.raises(UsageError):
        known.edit("reading_time", **said)  # type: ignore[arg-type]
    assert known.catalog.refresh().events == events


# Two seconds are promised; a machine that also runs other tests gets some more.
SEEN_S_MAX = 2.0 * 3


@pytest.fixture
def other(known: Session) -> Iterator[Session]:
    """A second session on the same ledger, of somebody else."""
    session = Session(known.connection, actor="other")
    yield session
    session.close()


def test_of_two_who_edit_one_wins_and_the_other_is_told(
    known: Session, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known.catalog.record

    def late(*args: object, **options: object) -> object:
        # The other one lands between the look and the append.
        monkeypatch.setattr(known.catalog, "record", record)
        other.edit("reading_time", owner="eve")
        return record(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(known.catalog, "record", late)
    with pytest.raises(ConflictError, match="changed by somebody else") as refused:
        known.edit("reading_time", owner="bob")
    assert "other" in str(refused.value)
    assert "owner: eve" in str(refused.value)
    assert known.about("reading_time").entry.owner == "eve"
    seen = known.about("reading_time").history[0].at.isoformat()
    other.edit("reading_time", add=["new"])
    with pytest.raises(ConflictError):
        known.edit("reading_time", description="x", seen=seen)
    known.edit("reading_time", description="x")
    assert other.about("reading_time").entry.description == "x"


def test_two_notebooks_see_each_others_changes_within_two_seconds(session: Session) -> None:
    session.upload(pl.DataFrame(read_events(0, 20)), "read_events", time="ts")
    second = Session(session.connection, actor="second")
    try:
        session.define("reading_time", SUM_SQL)
        until(lambda: second.search("reading_time").total, seconds_max=SEEN_S_MAX)
        second.edit("reading_time", tags=["seen"])
        until(lambda: session.search("tag:seen").total, seconds_max=SEEN_S_MAX)
        session.deprecate("reading_time", reason="old")
        until(lambda: second.about("reading_time").entry.deprecated, seconds_max=SEEN_S_MAX)
    finally:
        second.close()


def test_a_deprecation_says_who_depends_and_is_seen_wherever_it_is_used(known: Session) -> None:
    known.promote("reading_time")
    known.serve(["total_readtime"], user=["u1"])
    done = known.deprecate("reading_time", reason="counts bots", instead="long_count")
    told = repr(done)
    assert "share (group)" in told
    assert "serving by tester" in told
    notice = "'reading_time' is deprecated: counts bots; use 'long_count' instead"
    served = known.serve(["total_readtime"], user=["u1"])
    assert served.notices[0].startswith(notice)
    assert notice in repr(served)
    assert any(n.startswith(notice) for n in known.preview("reading_time").notes)
    labels = pl.DataFrame(read_events(30, 5)).select("user", "ts")
    made = known.training_set(labels, ["total_readtime"])
    assert made.notes[0].startswith(notice)
    assert f"it reads {notice}" in " ".join(known.preview("share").notes)
    view = known.view("reading_time")
    assert (view["status"], view["deprecated"]["reason"]) == ("deprecated", "counts bots")
    assert known.search("status:deprecated").names() == ["reading_time"]
    # The runner publishes the same record: it does not take the notice away again.
    record = known.store.published()[1]["reading_time"]
    assert record["notice"].startswith(notice)
    known.deprecate("reading_time", undo=True)
    assert known.serve(["total_readtime"], user=["u1"]).notices == ()
    assert known.view("reading_time")["status"] == "live"
    assert {u.kind for u in known.uses("total_readtime")} == {"serving", "training"}
    with pytest.raises(UnknownName):
        known.deprecate("reading_time", instead="nothing_such")
    with pytest.raises(UsageError):
        known.deprecate("reading_time", instead="reading_time")


def test_what_changed_is_told_in_words_and_as_a_diff(known: Session) -> None:
    known.promote("reading_time")
    changed = SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 1)").replace(
        "FROM", ", COUNT(*) AS reads FROM"
    ).replace("GROUP", "WHERE readtime > 3 GROUP")  # fmt: skip
    known.define("reading_time", changed, owner="ann", tags=["reading", "v2"], ttl="30d")
    found = known.diff("reading_time")
    assert (found.before, found.after, found.same) == ("v1", "draft", False)
    assert set(found.words) == {
        "rows are filtered now", "time to live: for ever → 30d", "new feature: reads BIGINT",
        "total_readtime is computed otherwise",
    }  # fmt: skip
    assert any(line.startswith("-SELECT user, SUM(readtime) AS") for line in found.lines)
    assert any(line.startswith("+SELECT") for line in found.lines)
    with pytest.raises(UsageError, match="one definition only"):
        known.diff("long_time")
    with pytest.raises(UnknownName):
        known.diff("reading_time", 1, 7)


def test_comments_alone_are_no_change(known: Session) -> None:
    known.promote("reading_time")
    known.define("reading_time", f"-- all of it\n{SUM_SQL}")
    group = known.catalog.refresh().group("reading_time")
    assert len(group.versions) == 1


def test_lineage_runs_from_stream_over_view_to_features_and_training_sets(known: Session) -> None:
    labels = pl.DataFrame(read_events(30, 5)).select("user", "ts")
    known.training_set(labels, ["long_share"], name="spring")
    found = known.lineage("long_time")
    assert {(str(a), str(b)) for a, b in found.edges} == {
        ("read_events (stream)", "long_reads (view)"),
        ("long_reads (view)", "long_time (group)"),
        ("long_time (group)", "share (group)"),
        ("share (group)", "spring (training set)"),
    }
    assert [n.name for n in found.downstream()] == ["share", "spring"]
    whole = known.lineage("read_events")
    assert whole.nodes[0].name == "read_events"
    assert whole.nodes[-1].name == "spring"
    tree = repr(known.lineage("long_share"))
    assert "├─ long_time (group), draft" in tree
    assert "│  └─ long_reads (view)" in tree
    assert "read by:\n└─ spring (training set)" in tree
    with pytest.raises(UnknownName, match="no feature, view"):
        known.lineage("nothing")


def test_about_has_who_made_it_and_when(known: Session, other: Session) -> None:
    other.edit("reading_time", add=["x"])
    about = known.about("reading_time")
    assert about.created_by == "tester"
    assert about.entry.by == "other"
    assert [c.text for c in about.history] == ["tags +x", "defined"]
    assert about.text == SUM_SQL
    assert "nobody has read it so far" in repr(about)
    stream = known.about("read_events")
    assert stream.entry.kind == "stream"
    assert "ts TIMESTAMP" in repr(stream)


def test_a_lift_is_part_of_what_is_known(known: Session) -> None:
    body = {"target": "clicked", "metric": "roc auc", "difference": 0.021, "low": 0.01,
            "high": 0.03, "verdict": "helps"}  # fmt: skip
    known.catalog.record("validated", "reading_time", body)
    known.catalog.record("validated", "reading_time", {"verdict": "later versions say otherwise"})
    about = known.about("reading_time")
    assert about.to_dict()["lifts"][1] == body
    assert "lift: helps for clicked, roc auc +0.021 [+0.01, +0.03]" in repr(about)
    assert about.entry.by == "tester"
    assert "measured its lift: helps for clicked" in about.history[1].text
