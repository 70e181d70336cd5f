"""A Jupyter server in this process, with the extension on a service in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fake_catalog_service
import pytest

# Imported and not named in `pytest_plugins`, which only the topmost conftest may set.
from pytest_jupyter.jupyter_server import *  # noqa: F403


@pytest.fixture
def jp_server_config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("FS_NOTEBOOK_SERVICE", "fake_catalog_service:open_service")
    monkeypatch.setattr(fake_catalog_service, "current", None)
    return {"ServerApp": {"jpserver_extensions": {"fs_notebook": True}}}


@pytest.fixture
def jp_serverapp(
    jp_server_config: Any, jp_argv: Any, jp_configurable_serverapp: Any, jp_asyncio_loop: Any
) -> Iterator[Any]:
    """A server whose extension stops with it: its threads would outlive the test's own home."""
    app = jp_configurable_serverapp(config=jp_server_config, argv=jp_argv)
    yield app
    jp_asyncio_loop.run_until_complete(app.cleanup_extensions())


@pytest.fixture
def ask(jp_fetch):
    """Ask a route; return the status and the JSON body, of refusals too."""

    async def _ask(*path: str, body: object = None, raw: bytes | None = None, **options: Any):
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            options.setdefault("method", "POST")
        options["raise_error"] = False
        answer = await jp_fetch("fs-notebook", *path, body=raw, **options)
        return answer.code, json.loads(answer.body)

    return _ask


@pytest.fixture
def service() -> Any:
    """Return the service behind the server, once a request has opened it."""

    def _service() -> fake_catalog_service.FakeCatalogService:
        assert fake_catalog_service.current is not None
        return fake_catalog_service.current

    return _service
