"""The routes that find, describe, edit and deprecate, on a real session; texts stay texts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from jupyter_server.auth.identity import IdentityProvider, User

from fs_notebook import service
from fs_notebook.catalog.catalog import STREAM
from fs_notebook.catalog.model import VALIDATED
from fs_notebook.language.cell import parse_source
from fs_notebook.position import START
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection, default_actor
from tests.support.sessions import SUM_SQL, read_events, stop_all

HOSTILE = "<script>alert(1)</script> **bold** [x](javascript:alert(1))"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    stop_all(Connection(tmp_path / "home"))


@pytest.fixture
def session(home: Path) -> Iterator[Session]:
    """A notebook's session on the ledger that the server reads."""
    session = Session(Connection(home), actor="notebook")
    session.upload(pl.DataFrame(read_events(0, 50)), "read_events", time="ts")
    session.define("reading_time", SUM_SQL, tags=["reading"], description="Time spent")
    yield session
    session.close()


@pytest.fixture
def jp_server_config(session: Session) -> dict[str, Any]:
    return {"ServerApp": {"jpserver_extensions": {"fs_notebook": True}}}


async def test_search_forgives_a_typo(ask):
    status, body = await ask("search", params={"q": "raeding entity:user"})
    assert status == 200
    assert [e["name"] for e in body["entries"]] == ["reading_time"]
    assert "read as reading" in body["notes"][0]
    assert body["entries"][0]["features"] == [{"name": "total_readtime", "type": "BIGINT"}]


async def test_an_edit_is_the_users_and_the_notebook_sees_it(ask, session):
    status, body = await ask("edit", body={"name": "reading_time", "tags": ["a", "b"]})
    assert (status, body["tags"], body["history"][0]["text"]) == (
        200, ["a", "b"], "tags +a +b -reading",
    )  # fmt: skip
    about = session.about("reading_time")
    assert about.entry.tags == ("a", "b")
    assert about.entry.by == body["actor"] != "notebook"
    assert about.created_by == "notebook"


async def test_an_edit_of_what_somebody_changed_meanwhile_is_refused(ask, session):
    _, catalog = await ask("catalog")
    (seen,) = [g["updated_at"] for g in catalog["groups"]]
    session.edit("reading_time", owner="eve")
    status, body = await ask("edit", body={"name": "reading_time", "owner": "bob", "seen": seen})
    assert (status, "notebook" in body["found"]) == (409, True)
    assert session.about("reading_time").entry.owner == "eve"


async def test_deprecate_then_retire_by_the_user(ask, session):
    status, body = await ask(
        "deprecate", body={"name": "reading_time", "reason": "old", "undo": False}
    )
    assert (status, body["deprecated"]["reason"], body["status"]) == (200, "old", "deprecated")
    assert session.view("reading_time")["deprecated"]["actor"] == body["actor"]
    status, body = await ask("retire", body={"name": "reading_time"})
    assert (status, body["group"]) == (200, None)
    assert "reading_time" not in session.catalog.refresh().groups


async def test_a_portrait_is_of_what_serves_in_training_and_over_time(ask, session):
    labels = pl.DataFrame(read_events(0, 50)).select("user", "ts")
    session.training_set(labels, ["reading_time"], name="spring")
    session.promote("reading_time")
    status, body = await ask("portrait", params={"name": "total_readtime"})
    assert (status, body["name"], body["what"]) == (
        200, "reading_time", "online values of all 7 entities",
    )  # fmt: skip
    (one,) = body["features"]
    assert (one["feature"], one["training"], one["values"]) == ("total_readtime", "spring", 7)
    assert one["psi"] > 0
    assert (sum(one["now"]["counts"]), sum(one["then"]["counts"])) == (7, 50 - one["then"]["nulls"])
    assert one["now"]["edges"] == one["then"]["edges"]
    (past,) = body["past"]
    assert len(past["at"]) == len(past["median"]) == 24
    assert past["median"][-1] == one["median"]


async def test_a_portrait_that_takes_too_long_is_given_up_and_says_so(ask, session, monkeypatch):
    monkeypatch.setattr(service, "LOOK_S", -1.0)
    status, body = await ask("portrait", params={"name": "reading_time"})
    assert (status, "fs.portrait" in body["remedy"]) == (409, True)
    # A longer history is drawn in time where somebody can wait for it.
    monkeypatch.setattr(service, "LOOK_S", 60.0)
    monkeypatch.setattr(service, "PAST_EVENTS_MAX", 49)
    status, body = await ask("portrait", params={"name": "reading_time"})
    assert (status, body["past"], "fs.past" in body["notes"][-1]) == (200, [], True)
    assert body["what"] == "previewed values of 7 entities"


async def test_the_card_knows_the_lifts(ask, session):
    told = {"target": "bought", "metric": "ROC AUC", "difference": 0.05, "low": 0.02,
            "high": 0.08, "verdict": "helps", "fingerprint": "x"}  # fmt: skip
    session.catalog.record(VALIDATED, "reading_time", told)
    status, body = await ask("about", params={"name": "reading_time"})
    assert (status, body["lifts"]) == (200, [told])


async def test_who_promotes_rolls_back_and_retires_is_who_asked(ask, session, monkeypatch):
    """Two people on one server: each change is of the one who made it, and the notebook of none."""
    session.promote("reading_time")
    session.define("reading_time", SUM_SQL.replace("SUM", "MAX"))

    async def changes(person: str, path: str, **body: object) -> None:
        monkeypatch.setattr(IdentityProvider, "get_user", _as(person))
        status, answer = await ask(path, body={"name": "reading_time", **body})
        assert status == 200, answer

    await changes("ann", "promote")
    until = time.monotonic() + 30
    while session.view("reading_time")["version"] != 2:
        assert time.monotonic() < until, "v2 is not live"
    await changes("ben", "rollback")
    assert session.view("reading_time")["actor"] == "ben"
    await changes("ann", "retire", version=2)
    told = {change.text: change.actor for change in session.about("reading_time").history}
    assert told["promoted v2"] == "ann"
    assert told["rolled back to v1"] == "ben"
    assert told["retired v2"] == "ann"
    # The catalog's own events say it, not only what the session makes of them.
    read = session.log.read(STREAM, start=START, end=session.log.end(STREAM.name))
    rows = [row for batch in read for row in batch.rows.iter_rows(named=True)]
    actors = {row["kind"]: row["actor"] for row in rows}
    assert (actors["rolled_back"], actors["retired"]) == ("ben", "ann")


GET_USER = IdentityProvider.get_user


def _as(person: str) -> Callable[..., Awaitable[User]]:
    """Return how a server that knows its people by more than a token would name this one."""

    async def get_user(self: IdentityProvider, handler: Any) -> User:
        found = GET_USER(self, handler)
        assert (await found if isawaitable(found) else found) is not None
        return User(username=person, name=person, display_name=person)

    return get_user


async def test_a_diff_of_two_versions(ask, session):
    session.promote("reading_time")
    session.define("reading_time", SUM_SQL.replace("SUM", "MAX"))
    status, body = await ask("diff", params={"name": "reading_time"})
    assert (status, body["before"], body["after"]) == (200, "v1", "draft")
    assert body["words"] == ["total_readtime is computed otherwise"]
    assert any(line.startswith("+SELECT user, MAX") for line in body["lines"])
    status, body = await ask("about", params={"name": "total_readtime"})
    assert [v["label"] for v in body["versions"]] == ["draft", "v1"]
    assert body["lineage"]["node"] == {"kind": "group", "name": "reading_time"}


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("search", {"params": {"q": "x" * 2_000}}, 400),
        ("search", {"params": {"q": "x", "limit": "0"}}, 400),
        ("search", {"params": {"q": "x", "limit": "1e3"}}, 400),
        ("search", {"params": {"q": "colour:red"}}, 400),
        ("about", {}, 400),
        ("about", {"params": {"name": "raeding_time"}}, 404),
        ("portrait", {}, 400),
        ("portrait", {"params": {"name": "raeding_time"}}, 404),
        ("diff", {"params": {"name": "reading_time", "before": "x"}}, 400),
        ("edit", {"body": {"owner": "x"}}, 400),
        ("edit", {"body": {"name": "reading_time", "actor": "somebody"}}, 400),
        ("edit", {"body": {"name": "reading_time", "tags": "x"}}, 400),
        ("edit", {"body": {"name": "reading_time", "tags": [1]}}, 400),
        ("edit", {"body": {"name": "reading_time", "owner": "x" * 3_000}}, 400),
        ("edit", {"body": {"name": "nothing_such", "owner": "x"}}, 404),
        ("edit", {"body": [1]}, 400),
        ("edit", {"raw": b"{" + b" " * 300_000}, 400),
        ("deprecate", {"body": {"name": "reading_time", "undo": "yes"}}, 400),
        ("deprecate", {"body": {"name": "reading_time", "instead": "nothing_such"}}, 404),
        ("retire", {"body": {"name": "reading_time", "version": True}}, 400),
        ("retire", {"body": {"name": "reading_time", "version": 7}}, 404),
    ],
)  # fmt: skip
async def test_what_is_refused_is_explained(ask, path, options, status):
    code, body = await ask(path, **options)
    assert code == status, body
    assert body["message"]


async def test_hostile_texts_stay_texts_on_every_route(ask, session, jp_fetch):
    body = {"name": "reading_time", "owner": HOSTILE, "description": HOSTILE, "tags": [HOSTILE]}
    status, body = await ask("edit", body=body)
    assert (status, body["description"]) == (200, HOSTILE)
    await ask("deprecate", body={"name": "reading_time", "reason": HOSTILE})
    for path in ("catalog", "search", "about"):
        params = {"name": "reading_time", "q": "reading_time"}
        answer = await jp_fetch("fs-notebook", path, params=params)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert HOSTILE in answer.body.decode()


async def test_an_outlook_of_a_cell_and_of_a_name(ask, session):
    cell = f"%%feature fresh --entity user\n{SUM_SQL.replace('total_readtime', 'fresh')}"
    status, body = await ask("outlook", body={"source": cell})
    assert (status, body["version"], body["events"], body["work"]) == (200, 1, 50, "fold")
    assert "fresh" not in session.catalog.refresh().groups
    status, body = await ask("outlook", body={"name": "reading_time"})
    assert (status, body["streams"], body["used_by"]) == (200, ["read_events"], [])
    status, body = await ask("outlook", body={"source": "no feature"})
    assert (status, "%%feature" in f"{body['message']}{body['remedy']}") == (400, True)


async def test_a_notebook_is_told_of_where_this_server_has_it(ask, session, jp_root_dir):
    async def told(path: Path) -> object:
        cell = f"%%feature at_{path.parent.name} --entity user\n{SUM_SQL}"
        cell = cell.replace("total_readtime", f"v_{path.parent.name}")
        session.define_cell(parse_source(cell), notebook=str(path))
        return (await ask("about", params={"name": f"at_{path.parent.name}"}))[1]["notebook"]

    inside, outside = jp_root_dir / "deep" / "book.ipynb", jp_root_dir.parent / "far" / "b.ipynb"
    for path in (inside, outside):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert await told(inside) == "deep/book.ipynb"
    assert await told(outside) is None
    assert await told(jp_root_dir / "gone" / "book.ipynb") is None
    read = session.log.read(STREAM, start=START, end=session.log.end(STREAM.name))
    told_of = [text for batch in read for text in batch.rows["body"]]
    assert not any(str(jp_root_dir.parent) in text for text in told_of)
    # Entries of before, which hold a whole path.
    definition = session.catalog.refresh().groups["at_deep"].latest.to_dict() | {"name": "old"}
    body = {"definition": definition, "notebook": str(inside)}
    session.catalog.record("drafted", "old", body)
    about = (await ask("about", params={"name": "old"}))[1]
    assert (about["notebook"], about["origin"]) == ("deep/book.ipynb", "book.ipynb")


async def test_what_the_promote_bar_defines_is_the_users_from_the_first(ask, session):
    cell = (
        "%%feature fresh --entity user\nSELECT user, COUNT(*) AS n FROM read_events GROUP BY user"
    )
    status, body = await ask("promote", body={"source": cell})
    assert status == 200
    about = session.about("fresh")
    people = {c.actor for c in about.history if not c.text.endswith("is live")}
    assert people == {about.created_by} == {body["actor"]}
    assert about.created_by not in ("notebook", default_actor())
