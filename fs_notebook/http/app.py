"""The feature server as an ASGI application: routes, limits, the token, errors as JSON."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Counted
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UnknownName, UnreachableError, UsageError
from fs_notebook.http.bodies import ARROW, JSON, arrow_answer, json_answer, parse, typed
from fs_notebook.http.openapi import document
from fs_notebook.language.derived import DerivedPlan
from fs_notebook.online.board import AnyServed
from fs_notebook.online.serve import AsyncFeatureReader

LOG = logging.getLogger("fs_notebook.http")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_DRAINED = 4
"""How many times the largest body is read before the connection is given up."""
OPEN = ("/health",)
"""What is answered without a token."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes
    ----------
    body_bytes_max
        The body's size.
    rows_max
        How many values of an entity.
    body_seconds_max
        How long the body may take to come.
    """

    body_bytes_max: int = 4 * 1024 * 1024
    rows_max: int = 10_000
    body_seconds_max: float = 10.0


class Refused(FeatureStoreError):
    """A request that is answered with a status of its own."""

    def __init__(self, status: int, message: str, **parts: Any) -> None:
        super().__init__(message, **parts)
        self.status = status


def status_of(error: FeatureStoreError) -> int:
    """Return the HTTP status that an error is answered with."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, UnknownName):
        return 404
    if isinstance(error, UsageError):
        return 400
    return 503 if isinstance(error, UnreachableError) else 500


class Metrics:
    """What was asked and answered, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counted(
            "fs_notebook_http_requests", "Requests answered.", ["path", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "fs_notebook_http_read_seconds", "How long reads took, in seconds.",
            registry=self.registry, buckets=(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5),
        )  # fmt: skip
        self.values = Counted(
            "fs_notebook_http_values", "Values served, by feature and status.",
            ["feature", "status"], registry=self.registry,
        )  # fmt: skip


class FeatureServer:
    """The routes.

    Parameters
    ----------
    reader
        Reads the features; closed when the server ends.
    token
        What requests must bear, None for no token.
    """

    def __init__(
        self,
        reader: AsyncFeatureReader,
        *,
        token: str | None = None,
        limits: Limits | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.reader = reader
        self.token = token
        self.limits = limits or Limits()
        self.clock = clock
        self.metrics = Metrics()

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [
            Route("/v1/features", self._answered(self.read), methods=["POST"]),
            Route("/v1/features", self._answered(self.features), methods=["GET"]),
            Route("/health", self._answered(self.health), methods=["GET"]),
            Route("/metrics", self._answered(self.exposed), methods=["GET"]),
            Route("/openapi.json", self._answered(self.openapi), methods=["GET"]),
        ]
        inner = Starlette(
            routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _of_http}
        )
        return _Guard(inner, self)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.reader.close()

    def _answered(
        self, route: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return a route whose errors are answers, and that is counted."""

        async def call(request: Request) -> Response:
            try:
                response = await route(request)
            except FeatureStoreError as error:
                response = error_answer(error)
            except ClientDisconnect:
                # Nobody is there to read it; it is counted all the same.
                response = error_answer(Refused(400, "The request was not sent to its end."))
            except Exception as error:
                LOG.exception("a request failed")
                response = _unforeseen(error)
            self.metrics.requests.labels(request.url.path, str(response.status_code)).inc()
            return response

        return call

    async def read(self, request: Request) -> Response:
        """Answer `POST /v1/features`."""
        begun_s = self.clock.monotonic_s()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise Refused(
                415, "The body is JSON.", found=kind or "no content type",
                remedy=f"Content-Type: {JSON}",
            )  # fmt: skip
        question = parse(await self._body(request), rows_max=self.limits.rows_max)
        question = typed(question, await self.reader.resolve(question.features))
        answer = await self.reader.read_all(
            question.features, question.entities, request=question.request
        )
        if len(answer) > self.limits.rows_max:
            raise UsageError(f"A request is for at most {self.limits.rows_max:,} rows.")
        for name in answer.features:
            for status, count in Counter(answer.status_of(name)).items():
                self.metrics.values.labels(name, status).inc(count)
        is_arrow = ARROW in request.headers.get("accept", "").lower()
        body = arrow_answer(answer) if is_arrow else json_answer(answer)
        self.metrics.seconds.observe(self.clock.monotonic_s() - begun_s)
        return Response(body, media_type=ARROW if is_arrow else JSON)

    async def _body(self, request: Request) -> bytes:
        most = self.limits.body_bytes_max
        size, body = int(request.headers.get("content-length", "0")), bytearray()
        if size > most and "expect" in request.headers:
            # Who asks before sending need not send it.
            raise self._too_large()
        came = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds_max):
                async for chunk in request.stream():
                    came += len(chunk)
                    if came > most * _DRAINED:
                        break
                    # What is too much is taken in and dropped, for most clients send all of a
                    # body before they look for an answer.
                    if came <= most:
                        body += chunk
        except TimeoutError:
            raise Refused(408, "The body did not come in time.") from None
        if came > most:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Refused:
        most = self.limits.body_bytes_max
        return Refused(413, f"The body is larger than {most:,} bytes.", remedy="ask in slices")

    async def features(self, request: Request) -> Response:
        """Answer `GET /v1/features`."""
        board = await self.reader.board()
        versions = [
            _listed(group, number, served, serving=board.serving.get(group) == number)
            for group, number, served in board.kept()
        ]
        return _json({"versions": versions})

    async def health(self, request: Request) -> Response:
        """Answer `GET /health`."""
        await self.reader.store.ping()
        return _json({"status": "ok"})

    async def exposed(self, request: Request) -> Response:
        """Answer `GET /metrics`."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """Answer `GET /openapi.json`."""
        return _json(document(secured=self.token is not None))


class _Guard:
    """Turns away who does not bear the token; without one, who is asked for under another name.

    The latter keeps a page in a browser of this machine from reading features, by a name of its
    own that leads here.
    """

    def __init__(self, inner: ASGIApp, server: FeatureServer) -> None:
        self._inner = inner
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._inner(scope, receive, send)
            return
        self._server.metrics.requests.labels("refused", str(refusal.status)).inc()
        await error_answer(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = dict(scope["headers"])
        token = self._server.token
        if token is None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
            if name in LOOPBACK:
                return None
            return Refused(
                403, "Without a token only this machine is answered.", found=host[:100],
                remedy="set FS_NOTEBOOK_SERVE_TOKEN on the server",
            )  # fmt: skip
        if scope["path"] in OPEN:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(given.strip(), token.encode())
        if right and scheme.lower() == b"bearer":
            return None
        return Refused(
            401, "The token is missing or another one.",
            remedy="Authorization: Bearer TOKEN, as in FS_NOTEBOOK_SERVE_TOKEN on the server",
        )  # fmt: skip


def error_answer(error: FeatureStoreError) -> Response:
    """Return an error as this project's errors are: what is wrong, what was found, what to do."""
    status = status_of(error)
    kind = "Refused" if isinstance(error, Refused) else type(error).__name__
    response = _json(
        {"kind": kind, "message": error.message, "found": error.found, "remedy": error.remedy},
        status,
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _unforeseen(error: Exception) -> Response:
    return error_answer(
        Refused(
            500, "The feature server failed in a way that nobody foresaw.",
            found=type(error).__name__, remedy="its log has the details",
        )
    )  # fmt: skip


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = error_answer(
        Refused(
            error.status_code, f"{error.detail}: {request.method} {request.url.path}"[:200],
            remedy="GET /openapi.json says what there is",
        )
    )  # fmt: skip
    response.headers.update(error.headers or {})
    return response


def _json(value: object, status: int = 200) -> Response:
    return Response(json.dumps(value, allow_nan=False), status, media_type=JSON)


def _listed(group: str, number: int, served: AnyServed, *, serving: bool) -> dict[str, Any]:
    plan = served.plan
    ttl_us = None if isinstance(plan, DerivedPlan) else plan.ttl_us
    requests = plan.requests if isinstance(plan, DerivedPlan) else ()
    return {
        "group": group,
        "version": number,
        "serving": serving,
        "features": [{"name": o.name, "type": o.type.value} for o in plan.outputs],
        "entity": [{"name": k.name, "type": k.expr.type.value} for k in plan.keys],
        "request": [{"name": n, "type": t.value} for n, t in requests],
        "ttl_seconds": None if ttl_us is None else ttl_us / 1_000_000,
    }
