"""What the server extension asks of the feature store, and how it finds the one to ask."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypedDict

SERVICE_VARIABLE = "FS_NOTEBOOK_SERVICE"
"""Tests set it to `module:factory` to put a service of theirs in place of the real session."""


class FeatureView(TypedDict):
    """One feature of a group."""

    name: str
    type: str


class GroupView(TypedDict):
    """A feature group as the sidebar shows it. Numbers are finite; None means not known.

    `version` serves, `latest` is the newest, `previous` is what a roll-back goes to. `progress` is
    the bootstrap's, from 0 to 1. `lag` counts events that are in the log and not yet folded.
    `definition` is SQL or Polars; `source` is the whole cell, where a cell defined the group.
    `status` is where the group is in its life; `deprecated` has `reason`, `instead`, `actor`, `at`.
    """

    name: str
    entity: list[str]
    features: list[FeatureView]
    state: Literal["draft", "bootstrapping", "live", "failing", "stopped"]
    version: int | None
    latest: int
    previous: int | None
    fingerprint: str
    progress: float | None
    lag: int | None
    events_per_second: float | None
    position: str | None
    error: str | None
    owner: str | None
    tags: list[str]
    description: str | None
    definition: str
    source: str | None
    updated_at: str
    actor: str | None
    status: Literal["draft", "promoted", "live", "deprecated", "retired"]
    deprecated: dict[str, str | None] | None
    created_by: str
    created_at: str
    depends_on: list[str]
    used_by: list[str]
    streams: list[str]


class Overview(TypedDict):
    """The whole catalog at one revision."""

    revision: str
    connection: dict[str, str | None]
    groups: list[GroupView]


class CatalogService(Protocol):
    """The feature store, as the server extension uses it.

    It is opened, read and closed on one thread, written (`promote_source`, `promote`, `rollback`)
    on another, and a `portrait` is made on a third, so that three may be inside it at once. Errors
    are `FeatureStoreError`s; every call has a time limit of its own.
    """

    def overview(self) -> Overview:
        """Return every group, with what its worker says of itself."""
        ...

    def revision(self) -> str:
        """Return a text that differs whenever the catalog does; cheap enough to poll."""
        ...

    def promote_source(self, source: str, *, actor: str) -> GroupView:
        """Define what the cell text defines, and promote that version."""
        ...

    def promote(self, name: str, *, actor: str) -> GroupView:
        """Promote the latest version of a group."""
        ...

    def rollback(self, name: str, *, actor: str) -> GroupView:
        """Serve the previous version of a group again."""
        ...

    def outlook(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Return what promoting a `source`, or a `name`'s latest version, would do."""
        ...

    def search(self, query: str, *, limit: int) -> dict[str, Any]:
        """Return `entries` that match, the best first, their `total`, and `notes` on typos."""
        ...

    def about(self, name: str, *, kind: str | None) -> dict[str, Any]:
        """Return versions, history, lineage and readers of one thing."""
        ...

    def portrait(self, name: str) -> dict[str, Any]:
        """Return a group's values now, in training and over time; it may replay history."""
        ...

    def diff(self, name: str, before: str | None, after: str | None) -> dict[str, Any]:
        """Return what changed between two versions, in `words` and as `lines` of a diff."""
        ...

    def edit(self, given: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
        """Change what is said of a thing; return `about` it."""
        ...

    def deprecate(self, given: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
        """Deprecate a thing, or take that back; return `about` it."""
        ...

    def retire(self, name: str, version: int | None, *, actor: str) -> dict[str, Any]:
        """Stop a version, or discard the draft; return what is left of the `group`, if anything."""
        ...

    def close(self) -> None:
        """Let go of connections; workers go on."""
        ...


def find_factory() -> Callable[[], CatalogService]:
    """Return what opens the service: the session's, or the one that a test named.

    The import is left to the first request: a Jupyter server that never opens the catalog does not
    pay for it.
    """
    module, _, name = os.environ.get(SERVICE_VARIABLE, "").partition(":")
    home = importlib.import_module(module or "fs_notebook.service")
    factory: Callable[[], CatalogService] = getattr(home, name or "open_service")
    return factory
