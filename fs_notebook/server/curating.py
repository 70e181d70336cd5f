"""The REST routes that find, describe, compare, edit, deprecate and retire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from fs_notebook.errors import UsageError
from fs_notebook.origins import Origin
from fs_notebook.server.handlers import (
    BODY_BYTES_MAX,
    NAME_CHARS_MAX,
    FeatureStoreHandler,
)

QUERY_CHARS_MAX = 1_000
RESULTS_MAX = 500
TEXT, NAME, LIST, FLAG, NUMBER = "a text", "a name", "a list of texts", "true or false", "a number"


class CurationHandler(FeatureStoreHandler):
    """What these routes share: bodies of several fields, each of its kind."""

    def fields(self, kinds: Mapping[str, str], *, required: str = "name") -> dict[str, Any]:
        """Return the body: a JSON object with some of these fields.

        Parameters
        ----------
        kinds
            Field → what it must be.
        required
            The field that must be there.

        Raises
        ------
        UsageError
            If the body is too large, no object, or has a field that is not of its kind.
        """
        if len(self.request.body) > BODY_BYTES_MAX:
            raise UsageError(f"The request is larger than {BODY_BYTES_MAX} bytes.")
        try:
            body = json.loads(self.request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UsageError("The request's body is not a JSON object.")
        if odd := sorted(map(str, body.keys() - set(kinds))):
            raise UsageError(
                "The request has a field that is not known.", found=odd[0][:NAME_CHARS_MAX],
                remedy=", ".join(kinds),
            )  # fmt: skip
        given = {name: value for name, value in body.items() if value is not None}
        if required not in given:
            raise UsageError(f"The request has no {required!r}.", remedy=", ".join(kinds))
        for name, value in given.items():
            if not _is(value, kinds[name]):
                raise UsageError(
                    f"The field {name!r} must be {kinds[name]}.", found=type(value).__name__
                )
        return given

    def asked_name(self, field: str = "name") -> str:
        """Return a name of the query."""
        name = self.get_query_argument(field, "")
        if not name or len(name) > NAME_CHARS_MAX:
            raise UsageError(
                f"The query must have a {field!r} of at most {NAME_CHARS_MAX} characters."
            )
        return name


def _is(value: object, kind: str) -> bool:
    match kind:
        case "a name":
            return isinstance(value, str) and 0 < len(value.strip()) <= NAME_CHARS_MAX
        case "a list of texts":
            return isinstance(value, list) and all(isinstance(v, str) for v in value)
        case "true or false":
            return isinstance(value, bool)
        case "a number":
            return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


class SearchHandler(CurationHandler):
    """`GET search?q=…&limit=…`: what in the catalog matches, the best first."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        query = self.get_query_argument("q", "")
        if len(query) > QUERY_CHARS_MAX:
            raise UsageError(f"The query is longer than {QUERY_CHARS_MAX} characters.")
        asked = self.get_query_argument("limit", "50")
        if not (asked.isascii() and asked.isdecimal() and 0 < int(asked[:6]) <= RESULTS_MAX):
            raise UsageError(f"The limit is a number from 1 to {RESULTS_MAX}.", found=asked[:20])
        self.reply(await self.hub.ask(lambda s: s.search(query, limit=int(asked))))


class AboutHandler(CurationHandler):
    """`GET about?name=…&kind=…`: versions, history, lineage and readers of one thing."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        name, kind = self.asked_name(), self.get_query_argument("kind", "") or None
        about = await self.hub.ask(lambda s: s.about(name, kind=kind))
        origin = Origin.read(about.get("notebook"))
        root = getattr(self.contents_manager, "root_dir", "")
        # The notebook may lie on another machine.
        served = None if origin is None or not root else origin.below(root)
        self.reply({**about, "notebook": served, "origin": origin and str(origin)})


class PortraitHandler(CurationHandler):
    """`GET portrait?name=…`: a group's values now, in training and over time."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        name = self.asked_name()
        self.reply(await self.hub.look(lambda s: s.portrait(name)))


class DiffHandler(CurationHandler):
    """`GET diff?name=…&before=1&after=draft`: what changed, in words and as a diff."""

    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        name = self.asked_name()
        pair = [self.get_query_argument(n, "")[:NAME_CHARS_MAX] or None
                for n in ("before", "after")]  # fmt: skip
        self.reply(await self.hub.ask(lambda s: s.diff(name, pair[0], pair[1])))


class EditHandler(CurationHandler):
    """`POST edit`: owner, description, tags; `seen` is `updated_at` as the browser knew it."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        given = self.fields({
            "name": NAME, "kind": NAME, "owner": TEXT, "description": TEXT, "tags": LIST,
            "seen": TEXT,
        })  # fmt: skip
        self.reply(await self.hub.change(lambda s: s.edit(given, actor=self.actor)))


class DeprecateHandler(CurationHandler):
    """`POST deprecate`: with a reason and what to use instead, or `undo`; says who depends."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        given = self.fields({
            "name": NAME, "kind": NAME, "reason": TEXT, "instead": NAME, "undo": FLAG,
        })  # fmt: skip
        self.reply(await self.hub.change(lambda s: s.deprecate(given, actor=self.actor)))


class RetireHandler(CurationHandler):
    """`POST retire`: of a version by its number, or of the draft."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        given = self.fields({"name": NAME, "version": NUMBER})
        name, version = given["name"], given.get("version")
        self.reply(await self.hub.change(lambda s: s.retire(name, version, actor=self.actor)))


ROUTES: list[tuple[str, type[FeatureStoreHandler]]] = [
    (r"/fs-notebook/search", SearchHandler),
    (r"/fs-notebook/about", AboutHandler),
    (r"/fs-notebook/portrait", PortraitHandler),
    (r"/fs-notebook/diff", DiffHandler),
    (r"/fs-notebook/edit", EditHandler),
    (r"/fs-notebook/deprecate", DeprecateHandler),
    (r"/fs-notebook/retire", RetireHandler),
]
