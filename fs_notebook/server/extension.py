"""The extension as the Jupyter server loads it: it wires the routes, the hub and the event."""

from __future__ import annotations

import os

from jupyter_events import EventLogger
from jupyter_server.extension.application import ExtensionApp

from fs_notebook.origins import ROOT_VARIABLE
from fs_notebook.server import curating, handlers
from fs_notebook.server.hub import CatalogHub
from fs_notebook.server.service import CatalogService, find_factory

ROUTES = [*handlers.ROUTES, *curating.ROUTES]
EVENT_SCHEMA_ID = "https://fs-notebook.dev/events/catalog/v1"
EVENT_SCHEMA = {
    "$id": EVENT_SCHEMA_ID,
    "version": "1",
    "title": "The feature catalog changed",
    "description": "Emitted when the catalog or the state of a feature group changes.",
    "personal-data": False,
    "type": "object",
    "properties": {
        "revision": {"type": "string", "description": "The revision that the catalog has now."},
        "changed": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The names of the groups that came, went or changed.",
        },
    },
    "required": ["revision", "changed"],
}


def _open_service() -> CatalogService:
    return find_factory()()


class FeatureStoreExtension(ExtensionApp):
    """The feature store inside a Jupyter server."""

    name = "fs_notebook"
    app_name = "Feature store"
    description = "The feature catalog over REST, with an event at every change."

    def initialize_settings(self) -> None:
        self._events.register_event_schema(EVENT_SCHEMA)
        # Kernels have their server's environment.
        self._root_before = os.environ.get(ROOT_VARIABLE)
        os.environ[ROOT_VARIABLE] = str(getattr(self.serverapp, "root_dir", ""))
        self.hub = CatalogHub(factory=_open_service, emit=self._emit, log=self.log)

    def initialize_handlers(self) -> None:
        self.handlers.extend((path, handler, {"hub": self.hub}) for path, handler in ROUTES)

    async def stop_extension(self) -> None:
        if self._root_before is None:
            os.environ.pop(ROOT_VARIABLE, None)
        else:
            os.environ[ROOT_VARIABLE] = self._root_before
        await self.hub.close()

    @property
    def _events(self) -> EventLogger:
        # The server makes its logger before it loads any extension.
        assert self.serverapp is not None
        assert self.serverapp.event_logger is not None
        return self.serverapp.event_logger

    def _emit(self, revision: str, changed: list[str]) -> None:
        self._events.emit(
            schema_id=EVENT_SCHEMA_ID, data={"revision": revision, "changed": changed}
        )
