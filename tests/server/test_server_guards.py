"""Every route asks who it is and whether they may; a new route that forgets fails here."""

from __future__ import annotations

import json
from urllib.parse import urlparse

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.base.handlers import APIHandler
from tornado.httpclient import HTTPClientError

from fs_notebook.server import handlers

METHODS = ("get", "head", "post", "put", "patch", "delete")
ACTIONS = {"GET": "read", "HEAD": "read"}


def served(web_app) -> list[tuple[str, str]]:
    """Return method and path of everything that this extension's modules registered."""
    found = []
    for rule in web_app.wildcard_router.rules + web_app.default_router.rules:
        inner = getattr(rule.target, "rules", [rule])
        for one in inner:
            if str(getattr(one.target, "__module__", "")).startswith("fs_notebook."):
                path = one.matcher.regex.pattern.rstrip("$").replace("\\", "")
                found += [
                    (method.upper(), path)
                    for method in METHODS
                    if getattr(one.target, method) is not getattr(APIHandler, method)
                ]
    return sorted(set(found))


class Recorder(Authorizer):
    """Refuses everything to do with the feature store, and remembers what was asked."""

    asked: list[tuple[str, str]]

    def is_authorized(self, handler, user, action, resource) -> bool:
        self.asked.append((action, resource))
        return resource != handlers.AUTH_RESOURCE


class ReadOnly(Authorizer):
    def is_authorized(self, handler, user, action, resource) -> bool:
        return action == "read"


def below(base: str, path: str) -> str:
    prefix = urlparse(base).path
    assert path.startswith((prefix, prefix.replace("%40", "@")))
    return path[path.index("fs-notebook") :]


async def answer_of(fetch, method: str, path: str, **options) -> tuple[int, bytes]:
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    try:
        answer = await fetch(path, method=method, body=body, **options)
    except HTTPClientError as error:
        answer = error.response
    return answer.code, answer.body


@pytest.fixture
def routes(jp_web_app, jp_base_url):
    found = [(method, below(jp_base_url, path)) for method, path in served(jp_web_app)]
    assert found == [
        ("GET", "fs-notebook/about"),
        ("GET", "fs-notebook/catalog"),
        ("GET", "fs-notebook/diff"),
        ("GET", "fs-notebook/portrait"),
        ("GET", "fs-notebook/search"),
        ("POST", "fs-notebook/deprecate"),
        ("POST", "fs-notebook/edit"),
        ("POST", "fs-notebook/outlook"),
        ("POST", "fs-notebook/promote"),
        ("POST", "fs-notebook/retire"),
        ("POST", "fs-notebook/rollback"),
    ]
    return found


async def test_no_route_answers_without_a_token(jp_web_app, jp_fetch, routes, monkeypatch):
    """Fault 37."""
    # The XSRF check would refuse a POST before the guard is reached.
    monkeypatch.setitem(jp_web_app.settings, "disable_check_xsrf", True)
    for method, path in routes:
        code, body = await answer_of(jp_fetch, method, path, headers={"Authorization": ""})
        assert code == 403, f"{method} {path} answers anybody"
        # The authorizer's own refusal has other words: it must not be the first that is asked.
        assert json.loads(body)["message"] == "Forbidden", f"{method} {path} authorizes nobody"


async def test_no_route_answers_who_may_not(jp_serverapp, jp_fetch, routes, monkeypatch):
    recorder = Recorder(parent=jp_serverapp)
    monkeypatch.setitem(jp_serverapp.web_app.settings, "authorizer", recorder)
    for method, path in routes:
        recorder.asked = []
        code, _ = await answer_of(jp_fetch, method, path)
        assert code == 403, f"{method} {path} is not guarded"
        assert recorder.asked == [(ACTIONS.get(method, "write"), "fs-notebook")]


async def test_a_reader_browses_and_changes_nothing(jp_serverapp, ask, monkeypatch):
    monkeypatch.setitem(jp_serverapp.web_app.settings, "authorizer", ReadOnly(parent=jp_serverapp))
    assert (await ask("catalog"))[0] == 200
    status, body = await ask("promote", body={"name": "taste"})
    assert status == 403
    assert body.keys() == {"message", "found", "remedy"}
    assert (await ask("rollback", body={"name": "reading_time"}))[0] == 403


async def test_a_cookie_without_its_xsrf_token_is_refused(
    jp_serverapp, http_server_client, jp_base_url
):
    """Fault 37: a logged-in browser sends the cookie with what another site makes it ask for."""
    user = await _login_cookie(jp_serverapp, http_server_client, jp_base_url)
    url = f"{jp_base_url}fs-notebook/promote"
    with pytest.raises(HTTPClientError) as refused:
        await http_server_client.fetch(
            url, method="POST", body=b'{"name": "taste"}', headers={"Cookie": user}
        )
    assert refused.value.code == 403
    assert b"_xsrf" in refused.value.response.body


async def test_a_request_from_elsewhere_is_refused(jp_serverapp, http_server_client, jp_base_url):
    """Fault 37: a page of another site, asking with the browser's own cookie."""
    user = await _login_cookie(jp_serverapp, http_server_client, jp_base_url)
    headers = {"Cookie": user}
    url = f"{jp_base_url}fs-notebook/catalog"
    assert (await http_server_client.fetch(url, headers=headers)).code == 200
    for origin in ("https://elsewhere.example", "null"):
        with pytest.raises(HTTPClientError) as refused:
            await http_server_client.fetch(url, headers={**headers, "Origin": origin})
        assert refused.value.code in (403, 404)


async def _login_cookie(app, client, base: str) -> str:
    answer = await client.fetch(
        f"{base}api/status", headers={"Authorization": f"token {app.identity_provider.token}"}
    )
    cookies = [c.split(";")[0] for c in answer.headers.get_list("Set-Cookie")]
    logged_in = [c for c in cookies if c.startswith("username-")]
    if not logged_in:
        answer = await client.fetch(f"{base}lab?token={app.identity_provider.token}")
        cookies = [c.split(";")[0] for c in answer.headers.get_list("Set-Cookie")]
        logged_in = [c for c in cookies if c.startswith("username-")]
    assert logged_in, "the server sets a login cookie"
    return logged_in[0]
