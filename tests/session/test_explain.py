"""`explain`: the events behind one value, against the events that were sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.catalog.model import Definition
from fs_notebook.cli import main
from fs_notebook.compute.fold import Fold
from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.explanation import Explanation
from fs_notebook.jupyter.explained import explanation_html
from fs_notebook.online.codec import pack_key
from fs_notebook.online.states import StateCodec
from fs_notebook.session import Session
from fs_notebook.types import TIME
from fs_notebook.worker.connection import Connection
from tests.support.sessions import BEGIN, SUM_SQL, read_events, stop_all

WINDOWED = """
SELECT user, SUM(readtime) OVER w AS read_2h, COUNT(*) OVER (PARTITION BY user) AS reads,
       LAST(readtime) OVER (PARTITION BY user) AS latest
FROM read_events WHERE readtime <> 30
WINDOW w AS (PARTITION BY user ORDER BY ts
             RANGE BETWEEN INTERVAL '2' HOUR PRECEDING AND CURRENT ROW)
"""
HOURS = timedelta(hours=2)


@pytest.fixture
def ready(embedded_session: Session) -> Session:
    embedded_session.upload(read_events(0, 400), "read_events", time="ts")
    embedded_session.define("recent", WINDOWED)
    embedded_session.define("reading_time", SUM_SQL)
    return embedded_session


def mine(user: str) -> list[dict[str, Any]]:
    return [e for e in read_events(0, 400) if e["user"] == user and e["readtime"] != 30]


def test_the_events_behind_a_served_value(ready: Session) -> None:
    ready.promote("reading_time")
    found = ready.explain("total_readtime", user="u3", n=5)
    sent = [e for e in read_events(0, 400) if e["user"] == "u3"]
    assert (found.name, found.version, found.entity) == ("reading_time", 1, "user=u3")
    assert found.values == {"total_readtime": sum(e["readtime"] for e in sent)}
    assert found.online == found.values
    assert found.ok
    assert (found.total, found.held) == (len(sent), {"lifetime": len(sent)})
    assert found.position == "0:0:399:0"
    newest = list(reversed(sent))[:5]
    assert found.events["readtime"].to_list() == [e["readtime"] for e in newest]
    assert found.events["time"].to_list() == [e["ts"] for e in newest]
    # The ledger's entries are numbered as they were appended.
    assert found.events["position"].to_list() == [f"0:0:{e['readtime']}:0" for e in newest]
    assert found.events["published"].null_count() == 0
    assert f"the newest 5 of {len(sent)}" in repr(found)
    assert "equal" in repr(found)


def test_which_events_a_window_holds_and_which_left_it(ready: Session) -> None:
    at = BEGIN + timedelta(minutes=300)
    found = ready.explain("recent", user="u2", at=at, n=1000)
    sent = list(reversed(mine("u2")))
    held = [at - HOURS <= e["ts"] < at for e in sent]
    window = "in 2h"
    assert found.events[window].to_list() == held
    assert found.events["in lifetime"].to_list() == [e["ts"] < at for e in sent]
    inside = [e for e, there in zip(sent, held, strict=True) if there]
    assert found.held == {"2h": len(inside), "lifetime": sum(e["ts"] < at for e in sent)}
    assert found.values == {
        "read_2h": sum(e["readtime"] for e in inside),
        "reads": sum(e["ts"] < at for e in sent),
        "latest": inside[0]["readtime"],
    }
    assert found.online is None
    assert "not compared" in repr(found)
    labels = pl.DataFrame({"user": ["u2"], "at": [at]})
    row = ready.training_set(labels, ["recent"]).to_polars().row(0, named=True)
    assert {n: row[n] for n in found.values} == found.values


def test_now_all_of_it_has_left_the_window(ready: Session) -> None:
    ready.promote("recent")
    found = ready.explain("recent", user="u2")
    served = ready.serve(["recent"], user="u2").to_dict()
    assert found.held == {"2h": 0, "lifetime": len(mine("u2"))}
    assert found.values == {n: served[n][0] for n in found.values}
    assert found.online == found.values


def test_a_difference_is_told(ready: Session) -> None:
    ready.promote("reading_time")
    definition = ready.catalog.refresh().group("reading_time").latest
    ready.stop()
    assert isinstance(definition, Definition)
    fold = Fold(definition.plan)
    codec = StateCodec(fold)
    wrong = pl.DataFrame({"user": ["u1"], "readtime": [7], TIME: [BEGIN]})
    state = fold.add(fold.empty, wrong).state
    lease = ready.store.claim(definition.shard, fingerprint=definition.fingerprint)
    assert lease.cut is not None
    puts = codec.encode(state)
    assert list(puts) == [pack_key(("u1",))]
    ready.store.commit(lease, cut=lease.cut, puts=puts, info=lease.info)
    found = ready.explain("reading_time", user="u1")
    assert not found.ok
    assert found.online == {"total_readtime": 7}
    assert ready.explain("reading_time", user="u2").ok


def test_a_draft_is_explained_from_the_ledger_alone(ready: Session) -> None:
    found = ready.explain("total_readtime", user="u1")
    assert (found.version, found.online, found.total) == (None, None, 57)
    assert found.values == {"total_readtime": sum(range(1, 400, 7))}


def test_an_entity_that_was_never_seen(ready: Session) -> None:
    ready.promote("recent")
    found = ready.explain("recent", user="nobody")
    assert found.values == {"read_2h": None, "reads": 0, "latest": None}
    assert found.online == found.values
    assert (found.total, found.events.height) == (0, 0)
    assert "never seen" in repr(found)
    assert "No event of it is there" in explanation_html(found)
    assert ready.explain("recent", user="nobody", at=BEGIN).values == found.values


def test_a_derived_feature_is_explained_by_its_inputs(ready: Session) -> None:
    ready.define("ratio", "SELECT user, total_readtime / (reads + 1) AS mean "
                          "FROM reading_time JOIN recent USING (user)")  # fmt: skip
    ready.promote("ratio", with_inputs=True)
    found = ready.explain("mean", user="u4")
    assert [part.name for part in found.inputs] == ["reading_time", "recent"]
    assert all(part.version == 1 and part.online == part.values for part in found.inputs)
    assert {part.entity for part in found.inputs} == {"user=u4"}
    assert "reading_time of user=u4" in repr(found)
    assert explanation_html(found).count("Explanation of") == 3


def test_what_cannot_be_explained(ready: Session) -> None:
    with pytest.raises(UsageError, match="whole key: user"):
        ready.explain("reading_time")
    with pytest.raises(UsageError, match="no part 'country'"):
        ready.explain("reading_time", user="u1", country="fr")
    with pytest.raises(UsageError, match="VARCHAR"):
        ready.explain("reading_time", user=7)
    with pytest.raises(UnknownName, match="did you mean"):
        ready.explain("total_readtim", user="u1")
    with pytest.raises(UsageError, match="not a time"):
        ready.explain("reading_time", user="u1", at="soon")
    for n in (-1, 10_001):
        with pytest.raises(UsageError, match="10,000"):
            ready.explain("reading_time", user="u1", n=n)
    with pytest.raises(UsageError, match="one value for each part"):
        ready.explain_texts("reading_time", ["u1"])


def test_the_command_line_explains(ready: Session) -> None:
    home = ["--home", str(ready.connection.home)]
    done = CliRunner().invoke(main, [*home, "explain", "recent", "user=u2", "-n", "3",
                                     "--at", "2024-01-01T05:00"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "the newest 3 of" in done.output
    done = CliRunner().invoke(main, [*home, "explain", "recent", "user"])
    assert done.exit_code == 1
    assert "user=…" in done.output


def test_keys_that_are_numbers_and_names_that_are_ours(embedded_session: Session) -> None:
    rows = [{"name": n % 2, "position": n, "ts": BEGIN + timedelta(minutes=n)} for n in range(6)]
    embedded_session.upload(rows, "rows", time="ts")
    embedded_session.define("sums", "SELECT name, SUM(position) AS total FROM rows GROUP BY name")
    found = embedded_session.explain_texts("sums", ["name=1"])
    assert found.values == {"total": 1 + 3 + 5}
    assert found.events["position'"].to_list() == [5, 3, 1]
    assert embedded_session.explain("sums", {"name": 1}).values == found.values
    with pytest.raises(UsageError, match="BIGINT"):
        embedded_session.explain_texts("sums", ["name=one"])


def test_what_a_user_writes_is_escaped(embedded_session: Session) -> None:
    rows = [{"user": "<b>x</b>\x1b[2J", "note": "<script>", "ts": BEGIN}]
    embedded_session.upload(rows, "rows", time="ts")
    embedded_session.define("last_note", "SELECT user, LAST(note) AS note FROM rows GROUP BY user")
    found = embedded_session.explain("last_note", user=rows[0]["user"])
    html = explanation_html(found)
    assert "<script>" not in html
    assert "<b>x" not in html
    assert "\x1b" not in html
    assert "\x1b" not in repr(found)


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    place = Connection(tmp_path_factory.mktemp("explain") / "home")
    session = Session(place, actor="tester")
    session.upload(read_events(0, 120, users=3), "read_events", time="ts")
    for name, options in {
        "left": {"window": "10m"},
        "right": {"window": "10m", "closed": "right"},
        "floored": {"window": "10m", "resolution": "4m"},
        "life": {"closed": "right"},
    }.items():
        session.define(
            name, f"SELECT user, COUNT(*) AS {name}_n, SUM(readtime) AS {name}_s, "
            f"LAST(readtime) AS {name}_l FROM read_events GROUP BY user", **options,
        )  # fmt: skip
    yield session
    session.close()
    stop_all(place)


@settings(max_examples=40)
@given(
    name=st.sampled_from(["left", "right", "floored", "life"]),
    seconds=st.one_of(st.integers(-60, 140 * 60), st.integers(-1, 140).map(lambda m: 60 * m)),
    user=st.integers(0, 3),
)
def test_a_moment_is_what_a_training_row_has(
    drafts: Session, name: str, seconds: int, user: int
) -> None:
    """The events that the windows are said to hold make up the value, at any moment."""
    at = BEGIN + timedelta(seconds=seconds)
    labels = pl.DataFrame({"user": [f"u{user}"], "at": [at]})
    row = drafts.training_set(labels, [name]).to_polars().row(0, named=True)
    found = drafts.explain(name, user=f"u{user}", at=at, n=1000)
    assert isinstance(found, Explanation)
    assert {n: row[n] for n in found.values} == found.values
    assert found.at == at
    (window,) = found.held
    inside = found.events.filter(pl.col(f"in {window}"))
    assert inside.height == found.held[window] == found.values[f"{name}_n"]
    assert (inside["readtime"].sum() or None) == (found.values[f"{name}_s"] or None)
