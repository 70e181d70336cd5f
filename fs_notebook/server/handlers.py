"""The REST routes under `/fs-notebook/`: read the catalog, promote, roll back."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from fs_notebook.errors import (
    DefinitionError,
    FeatureStoreError,
    UnknownName,
    UnreachableError,
    UsageError,
)
from fs_notebook.server.hub import CatalogHub

AUTH_RESOURCE = "fs-notebook"
BODY_BYTES_MAX = 256 * 1024
NAME_CHARS_MAX = 200

_STATUSES: list[tuple[type[FeatureStoreError], int]] = [
    (UnknownName, 404),
    (UsageError, 400),
    (DefinitionError, 400),
    (UnreachableError, 503),
]


def status_of(error: FeatureStoreError) -> int:
    """Return the HTTP status that says what kind of refusal this is."""
    # What is not listed is a request that makes sense and does not fit the state of the store.
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 409)


class FeatureStoreHandler(APIHandler):
    """What the routes share: the hub, the actor, bodies that are checked, errors that explain."""

    auth_resource = AUTH_RESOURCE

    def initialize(self, hub: CatalogHub) -> None:
        self.hub = hub

    @property
    def actor(self) -> str:
        """The Jupyter user's name, as the catalog records who did what."""
        user = self.current_user
        return str(user.display_name or user.name or user.username)

    def texts(self, *allowed: str) -> dict[str, str]:
        """Return the body: a JSON object with some of the allowed fields, each a text."""
        if len(self.request.body) > BODY_BYTES_MAX:
            raise UsageError(
                f"The request is larger than {BODY_BYTES_MAX} bytes.",
                found=f"{len(self.request.body)} bytes",
                remedy="send the text of one cell",
            )
        try:
            body = json.loads(self.request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UsageError("The request's body is not a JSON object.")
        fields = " or ".join(repr(name) for name in allowed)
        if len(body) != 1 or not body.keys() <= set(allowed):
            raise UsageError(
                f"The request must hold one field: {fields}.",
                found=", ".join(sorted(map(str, body)))[:NAME_CHARS_MAX] or "no field",
            )
        for field, value in body.items():
            if not isinstance(value, str) or not value.strip():
                raise UsageError(
                    f"The field {field!r} must be a text that is not empty.",
                    found=type(value).__name__,
                )
            if field == "name" and len(value) > NAME_CHARS_MAX:
                raise UsageError(f"The name is longer than {NAME_CHARS_MAX} characters.")
        return body

    def reply(self, value: object) -> None:
        self.finish(json.dumps(value, allow_nan=False))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        # A refusal is an answer; only what nobody foresaw belongs in the log with its traceback.
        if not isinstance(value, FeatureStoreError):
            super().log_exception(typ, value, tb)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer every failure with the three parts of an explained error, as JSON."""
        error = kwargs.get("exc_info", (None, None))[1]
        found: str | None = None
        remedy: str | None = None
        if isinstance(error, FeatureStoreError):
            status_code = status_of(error)
            message, found, remedy = error.message, error.found, error.remedy
        elif isinstance(error, web.HTTPError):
            message = error.log_message or error.reason or HTTPStatus(status_code).phrase
        else:
            message = "The feature store failed in a way that nobody foresaw."
            found = type(error).__name__
            remedy = "the Jupyter server's log has the details"
        self.set_status(status_code)
        self.finish(json.dumps({"message": message, "found": found, "remedy": remedy}))


class CatalogHandler(FeatureStoreHandler):
    """`GET catalog`: the whole catalog, or what changed after `?since=revision`, if anything did.

    `fresh=1` asks for the catalog as it is now; else it may have been read a moment ago.
    """

    # A browser that only listens must not keep an idle server from being culled.
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        since = self.get_query_argument("since", "")
        is_fresh = not since or self.get_query_argument("fresh", "") == "1"
        overview = await (self.hub.overview() if is_fresh else self.hub.latest())
        if since == overview["revision"]:
            self.reply({"revision": since, "unchanged": True})
        else:
            self.reply(self.hub.since(since, overview) or overview)


class PromoteHandler(FeatureStoreHandler):
    """`POST promote`: of `{"source": the whole cell}`, or of `{"name": a group}`."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.texts("source", "name")
        if "source" in body:
            group = await self.hub.promote_source(body["source"], actor=self.actor)
        else:
            group = await self.hub.promote(body["name"], actor=self.actor)
        self.reply(group)


class OutlookHandler(FeatureStoreHandler):
    """`POST outlook`: what `promote` would do with the same body; changes nothing."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.texts("source", "name")
        self.reply(await self.hub.ask(lambda service: service.outlook(body)))


class RollbackHandler(FeatureStoreHandler):
    """`POST rollback`: of `{"name": a group}`."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.texts("name")
        self.reply(await self.hub.rollback(body["name"], actor=self.actor))


ROUTES: list[tuple[str, type[FeatureStoreHandler]]] = [
    (r"/fs-notebook/catalog", CatalogHandler),
    (r"/fs-notebook/outlook", OutlookHandler),
    (r"/fs-notebook/promote", PromoteHandler),
    (r"/fs-notebook/rollback", RollbackHandler),
]
