"""Running the feature server: where it listens, with which token, until it is told to stop."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from fs_notebook.environment import secret
from fs_notebook.errors import UsageError
from fs_notebook.processes import stops_heard

if TYPE_CHECKING:
    from fs_notebook.worker.connection import Connection

TOKEN_VARIABLE = "FS_NOTEBOOK_SERVE_TOKEN"
STOP_SECONDS_MAX = 10
_BACKLOG = 1_024


def serve_http(
    connection: Connection,
    *,
    host: str = "127.0.0.1",
    port: int = 8265,
    cache_s: float = 0.0,
    rows_max: int = 10_000,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve features over HTTP until SIGTERM or SIGINT; requests under way are answered first.

    Needs the online store only, neither the ledger nor the catalog.

    Parameters
    ----------
    connection
        Where the store is.
    host, port
        Where to listen; port 0 takes a free one. Beyond this machine only with a token in the
        environment's FS_NOTEBOOK_SERVE_TOKEN.
    cache_s
        As for `FeatureReader`.
    rows_max
        How many entities a request may ask for.
    on_listening
        Called with the server's URL once it listens.

    Raises
    ------
    UsageError
        If it must not or cannot listen there, or what it needs is not installed.
    UnreachableError
        If the store does not answer.
    """
    token = (secret(TOKEN_VARIABLE) or "").strip() or None
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"Without a token the feature server listens on this machine only, not on {host}.",
            found=f"no {TOKEN_VARIABLE} in the environment",
            remedy=f"set {TOKEN_VARIABLE} to a long random text, or leave --host out",
        )
    try:
        import uvicorn

        from fs_notebook.http.app import FeatureServer, Limits
    except ModuleNotFoundError as error:
        raise UsageError(
            "The feature server needs packages that are not installed.",
            found=f"no module {error.name!r}",
            remedy="pip install 'fs-notebook[serve]'",
        ) from None
    from fs_notebook.online.async_store import reads_of
    from fs_notebook.online.serve import AsyncFeatureReader
    from fs_notebook.online.usage import HTTP, UseNotes
    from fs_notebook.worker.connection import default_actor

    # Who reads what is noted through a connection of its own, beside the reads.
    with closing(connection.open_store()) as store:
        uses = UseNotes(store, kind=HTTP, actor=default_actor())
        reader = AsyncFeatureReader(reads_of(store), cache_s=cache_s, uses=uses)
        app = FeatureServer(reader, token=token, limits=Limits(rows_max=rows_max)).app()
        listener = _listener(host, port)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="on",
            timeout_graceful_shutdown=STOP_SECONDS_MAX,
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        on_listening(f"http://{shown}:{listener.getsockname()[1]}")
        # uvicorn raises the signal that ended it once more; here that has been dealt with by then.
        with closing(listener), stops_heard(lambda: None):
            uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The feature server cannot listen at {host}, port {port}.",
            found=getattr(error, "strerror", None) or str(error),
            remedy="another --port; 0 takes a free one",
        ) from None
