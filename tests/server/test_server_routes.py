"""The REST routes: what they answer, what they refuse, and how they say it."""

from __future__ import annotations

import pytest

from fs_notebook.errors import UnreachableError
from fs_notebook.server import handlers

CELL = "%%feature fresh --entity user\nSELECT user, COUNT(*) AS n FROM clicks GROUP BY user"


async def test_catalog_lists_every_group_with_its_revision(ask):
    status, body = await ask("catalog")
    assert status == 200
    assert {g["name"] for g in body["groups"]} >= {"reading_time", "article_ctr"}
    assert body["connection"] == {"log": "embedded", "online": "embedded"}
    assert body["revision"]


async def test_catalog_since_its_own_revision_says_unchanged(ask):
    _, body = await ask("catalog")
    status, again = await ask("catalog", params={"since": body["revision"]})
    assert (status, again) == (200, {"revision": body["revision"], "unchanged": True})


async def test_catalog_since_a_former_revision_is_whole(ask):
    _, body = await ask("catalog", params={"since": "long-ago"})
    assert body["groups"]


async def test_promote_takes_the_whole_cell_and_the_users_name(ask, service):
    status, body = await ask("promote", body={"source": CELL})
    assert status == 200
    assert (body["name"], body["state"], body["source"]) == ("fresh", "bootstrapping", CELL)
    assert service().sources == [CELL]
    assert service().actors == [body["actor"]]
    assert body["actor"].strip()


async def test_promote_and_roll_back_by_name(ask):
    status, body = await ask("promote", body={"name": "reading_time"})
    assert (status, body["previous"]) == (200, 2)
    status, body = await ask("rollback", body={"name": "reading_time"})
    assert (status, body["version"], body["state"]) == (200, 2, "live")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("promote", {"name": "raeding_time"}, 404),
        ("promote", {"source": "1 + 1"}, 400),
        ("promote", {}, 400),
        ("promote", {"source": CELL, "name": "fresh"}, 400),
        ("promote", {"source": 3}, 400),
        ("promote", {"name": "  "}, 400),
        ("promote", {"name": "x" * (handlers.NAME_CHARS_MAX + 1)}, 400),
        ("promote", {"source": "x" * handlers.BODY_BYTES_MAX}, 400),
        ("promote", [CELL], 400),
        ("rollback", {"source": CELL}, 400),
        ("rollback", {"name": "last_articles"}, 409),
    ],
)
async def test_refusals_explain_themselves(ask, path, body, status):
    code, answer = await ask(path, body=body)
    assert code == status
    assert answer.keys() == {"message", "found", "remedy"}
    assert answer["message"]


async def test_a_near_name_is_suggested(ask):
    _, answer = await ask("promote", body={"name": "raeding_time"})
    assert "reading_time" in answer["remedy"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe"])
async def test_a_body_that_is_no_json_is_refused(ask, raw):
    code, answer = await ask("promote", raw=raw)
    assert code == 400
    assert "JSON" in answer["message"]


async def test_a_store_that_does_not_answer_is_503(ask, service, monkeypatch):
    await ask("catalog")

    def overview(_: object) -> None:
        raise UnreachableError("The broker does not answer.", remedy="start it")

    monkeypatch.setattr(type(service()), "overview", overview)
    code, answer = await ask("catalog")
    assert code == 503
    assert answer == {
        "message": "The broker does not answer.",
        "found": None,
        "remedy": "start it",
    }


async def test_an_unforeseen_failure_shows_no_traceback(ask, service, monkeypatch):
    await ask("catalog")

    def promote(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(type(service()), "promote", promote)
    code, answer = await ask("promote", body={"name": "taste"})
    assert code == 500
    assert "secret" not in str(answer)
    assert answer["found"] == "RuntimeError"


async def test_a_service_that_cannot_be_opened_is_explained_and_tried_again(ask, monkeypatch):
    monkeypatch.setenv("FS_NOTEBOOK_SERVICE", "no_such_module_anywhere:open_service")
    code, answer = await ask("catalog")
    assert code == 500
    assert answer["found"] == "ModuleNotFoundError"
    monkeypatch.setenv("FS_NOTEBOOK_SERVICE", "fake_catalog_service:open_service")
    code, _ = await ask("catalog")
    assert code == 200


async def test_who_has_a_revision_is_told_what_changed_since(ask, service):
    _, whole = await ask("catalog")
    service().groups["taste"]["tags"] = ["new"]
    del service().groups["last_articles"]
    status, changes = await ask("catalog", params={"since": whole["revision"], "fresh": "1"})
    assert status == 200
    assert changes["since"] == whole["revision"] != changes["revision"]
    assert [g["name"] for g in changes["groups"]] == ["taste"]
    assert changes["gone"] == ["last_articles"]
    _, same = await ask("catalog", params={"since": changes["revision"], "fresh": "1"})
    assert same == {"revision": changes["revision"], "unchanged": True}
    # Of a revision that nobody remembers all is told.
    _, all_again = await ask("catalog", params={"since": "long ago"})
    assert len(all_again["groups"]) == 4
    assert "since" not in all_again
