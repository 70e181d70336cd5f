"""A `CatalogService` in memory, for tests of the server extension and of the browser.

Nothing here takes time: a bootstrap moves one step each time the overview is read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.errors import ConflictError, DefinitionError, unknown_name
from fs_notebook.server.service import GroupView, Overview

STEPS = 3
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">"


def group(name: str, **fields: object) -> GroupView:
    """Return a live group of the entity `user`, with `fields` put over what is usual."""
    usual = {
        "name": name,
        "entity": ["user"],
        "features": [{"name": f"total_{name}", "type": "float64"}],
        "state": "live",
        "version": 1,
        "latest": 1,
        "previous": None,
        "fingerprint": "f00d",
        "progress": None,
        "lag": 0,
        "events_per_second": 12.5,
        "position": "0:3:141:0",
        "error": None,
        "owner": "ada",
        "tags": ["reading"],
        "description": f"What {name} tells",
        "definition": f"SELECT user, SUM(t) AS total_{name}\nFROM read_events\nGROUP BY user",
        "source": None,
        "updated_at": "2026-01-02T03:04:05+00:00",
        "actor": "ada",
        "status": "live",
        "deprecated": None,
        "created_by": "ada",
        "created_at": "2026-01-02T03:04:05+00:00",
        "depends_on": [],
        "used_by": [],
        "streams": ["read_events"],
    }
    return {**usual, **fields}  # type: ignore[typeddict-item,return-value]


def seeds() -> list[GroupView]:
    """Return a catalog with a group in every state, and one whose texts are hostile."""
    return [
        group("reading_time", version=2, latest=2, previous=1),
        # A draft of it waits to be the second version.
        group("last_articles", tags=["history"], lag=1204, latest=2),
        group(
            "article_ctr",
            entity=["article"],
            state="failing",
            tags=["ctr"],
            error="column 'clicked' is not in stream 'clicks'",
        ),
        group("taste", state="draft", version=None, position=None, lag=None),
        group("pair_affinity", entity=["user", "article"], state="stopped", description=HOSTILE),
    ]


@dataclass
class FakeCatalogService:
    """See `CatalogService`; `actors` and `sources` record what was asked of it."""

    groups: dict[str, GroupView] = field(default_factory=lambda: {g["name"]: g for g in seeds()})
    actors: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    closed: bool = False
    steps: int = STEPS
    _revision: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def overview(self) -> Overview:
        with self._lock:
            shown = [GroupView(**one) for one in self.groups.values()]
            for one in self.groups.values():
                self._step(one)
            return {
                "revision": str(self._revision),
                "connection": {"log": "embedded", "online": "embedded"},
                "groups": shown,
            }

    def revision(self) -> str:
        return str(self._revision)

    def promote_source(self, source: str, *, actor: str) -> GroupView:
        with self._lock:
            self.sources.append(source)
            found = re.match(r"\s*%%feature\s+(\w+)(.*)\n([\s\S]+)", source)
            if found is None:
                raise DefinitionError(
                    "The cell holds no definition.",
                    found=source[:40],
                    remedy="begin it with %%feature and a name",
                )
            name = found[1]
            if name not in self.groups:
                self.groups[name] = group(name, state="draft", version=None, latest=0)
            self.groups[name]["latest"] += 1
            self.groups[name]["source"] = source
            self.groups[name]["definition"] = found[3].strip()
            return self.promote(name, actor=actor)

    def promote(self, name: str, *, actor: str) -> GroupView:
        with self._lock:
            one = self._known(name)
            one.update(state="bootstrapping", progress=0.0, previous=one["version"], error=None)
            return self._changed(one, actor)

    def rollback(self, name: str, *, actor: str) -> GroupView:
        with self._lock:
            one = self._known(name)
            if one["previous"] is None:
                raise ConflictError(
                    f"{name!r} has no previous version.", remedy="promote another version first"
                )
            one.update(state="live", version=one["previous"], previous=None, progress=None)
            return self._changed(one, actor)

    def outlook(self, given: Mapping[str, str]) -> dict[str, Any]:
        name = given.get("name") or given["source"].split()[1]
        known = self.groups.get(name)
        return {
            "name": name, "version": 1 if known is None else _next(known),
            "serving": None if known is None else known["version"], "work": "fold",
            "streams": ["read_events"], "depends_on": [], "events": 1204, "seconds": 3.0,
            "changes": [], "used_by": [], "readers": [], "notes": [],
        }  # fmt: skip

    def about(self, name: str, *, kind: str | None) -> dict[str, Any]:
        node = {"kind": "group", "name": self._known(name)["name"]}
        lineage = {"node": node, "nodes": [{**node, "layer": 0, "note": None}], "edges": [],
                   "cut": 0}  # fmt: skip
        return {**node, "updated_at": "", "versions": [], "history": [], "lineage": lineage,
                "uses": [], "lifts": []}  # fmt: skip

    def portrait(self, name: str) -> dict[str, Any]:
        return {"name": self._known(name)["name"], "what": "no values", "notes": [],
                "features": [], "more": 0, "past": []}  # fmt: skip

    def search(self, query: str, *, limit: int) -> dict[str, Any]:
        return {"entries": [], "total": 0, "notes": []}

    def close(self) -> None:
        self.closed = True

    def _known(self, name: str) -> GroupView:
        if name not in self.groups:
            raise unknown_name("feature group", name, self.groups)
        return self.groups[name]

    def _changed(self, one: GroupView, actor: str) -> GroupView:
        one["actor"] = actor
        self.actors.append(actor)
        self._revision += 1
        return GroupView(**one)

    def _step(self, one: GroupView) -> None:
        if one["state"] != "bootstrapping":
            return
        progress = (one["progress"] or 0.0) + 1 / self.steps
        one["progress"] = progress
        if progress >= 1:
            one.update(state="live", progress=None, version=one["latest"], lag=0)


def _next(known: GroupView) -> int:
    has_draft = known["latest"] != known["version"]
    return known["latest"] if has_draft and known["version"] else known["latest"] + 1


current: FakeCatalogService | None = None
"""The service that was opened last in this process."""


def open_service() -> FakeCatalogService:
    global current
    current = FakeCatalogService()
    return current


def open_slow_service() -> FakeCatalogService:
    """Open a service whose only bootstrap stands at two fifths for as long as a test looks."""
    moving = group("backfill", state="bootstrapping", progress=0.42, latest=2, lag=81_000)
    return FakeCatalogService(groups={"backfill": moving}, steps=10**6)
