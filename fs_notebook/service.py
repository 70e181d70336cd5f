"""The session as the Jupyter server extension uses it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Progress
from fs_notebook.errors import CancelledError
from fs_notebook.glances import glance_at
from fs_notebook.language.cell import parse_source
from fs_notebook.portraits import PAST_EVENTS_MAX, history_events
from fs_notebook.session import Session
from fs_notebook.views import status_of
from fs_notebook.worker.connection import Connection, default_home

LOOK_S = 20.0
"""So long the server replays history for a card that is open in a browser."""
DRAWN_MAX = 6


class Service:
    """The session as the Jupyter server extension uses it; follows the home's connection."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._former: list[Session] = []
        self._lock = threading.Lock()

    def _follow(self) -> Session:
        """Return the session of the home's connection; the server's threads call this at once."""
        with self._lock:
            remembered = Connection.remembered(self.session.connection.home)
            if remembered != self.session.connection:
                # Another thread may be reading from the former one: it is closed with this.
                self._former.append(self.session)
                self.session = Session(remembered)
            return self.session

    def overview(self) -> dict[str, Any]:
        session = self._follow()
        return {
            "revision": self.revision(),
            "connection": {"log": session.log.url, "online": session.store.url},
            "groups": session.features(),
        }

    def revision(self) -> str:
        """Return text that changes whenever the overview does."""
        session = self._follow()
        state = session.catalog.refresh()
        store = glance_at(session.store, state.groups.values())
        running = [
            (s.name, s.version, s.state, s.serving, s.lag, s.error, round(s.progress or 0, 2))
            for g in state.groups.values()
            for s in (status_of(g, v, store) for v in g.running)
        ]
        return f"{session.connection.id}:{state.events}:{hash(tuple(running))}"

    def promote_source(self, source: str, *, actor: str) -> dict[str, Any]:
        session = self._follow()
        # What was previewed is promoted: statistics are measured anew where the cell runs.
        cell = replace(parse_source(source), refresh_statistics=False)
        definition = session.define_cell(cell, actor=actor)
        return self.promote(definition.name, actor=actor)

    def promote(self, name: str, *, actor: str) -> dict[str, Any]:
        session = self._follow()
        session.promote(name, wait=False, actor=actor)
        return session.view(name)

    def rollback(self, name: str, *, actor: str) -> dict[str, Any]:
        session = self._follow()
        session.rollback(name, actor=actor)
        return session.view(name)

    def outlook(self, given: Mapping[str, str]) -> dict[str, Any]:
        what = given["name"] if "name" in given else parse_source(given["source"])
        return self._follow().outlook(what).to_dict()

    def search(self, query: str, *, limit: int) -> dict[str, Any]:
        found = self._follow().search(query, limit=limit)
        return {"entries": found.to_dicts(), "total": found.total, "notes": list(found.notes)}

    def about(self, name: str, *, kind: str | None) -> dict[str, Any]:
        return self._follow().about(name, kind=kind).to_dict()

    def portrait(self, name: str) -> dict[str, Any]:
        """Return a group's values now and in training, and over time where that is soon known."""
        session = self._follow()
        report = _until(session.clock, LOOK_S)
        found = session.portrait(name, on_progress=report)
        events = history_events(session.log, session.catalog.refresh().group(found.name))
        is_soon = events is not None and events <= PAST_EVENTS_MAX
        past = session.past(found.name, on_progress=report) if is_soon else ()
        notes = [] if is_soon else [
            f"How it moved in time is drawn in a notebook, by a replay: fs.past({found.name!r})."
        ]  # fmt: skip
        told = found.to_dict()
        return {
            **told, "features": told["features"][:DRAWN_MAX],
            "more": max(len(told["features"]) - DRAWN_MAX, 0),
            "past": [p.to_dict() for p in past[:DRAWN_MAX]], "notes": [*told["notes"], *notes],
        }  # fmt: skip

    def diff(self, name: str, before: str | None, after: str | None) -> dict[str, Any]:
        return self._follow().diff(name, before, after).to_dict()

    def edit(self, given: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
        return self._follow().edit(**given, actor=actor).about.to_dict()

    def deprecate(self, given: Mapping[str, Any], *, actor: str) -> dict[str, Any]:
        return self._follow().deprecate(**given, actor=actor).about.to_dict()

    def retire(self, name: str, version: int | None, *, actor: str) -> dict[str, Any]:
        session = self._follow()
        name = session.catalog.refresh().group(name).name
        session.retire(name, version, actor=actor)
        left = name in session.catalog.refresh().groups
        return {"retired": name, "version": version, "group": session.view(name) if left else None}

    def close(self) -> None:
        for session in (*self._former, self.session):
            session.close()


def _until(clock: Clock, seconds: float) -> OnProgress:
    """Return a progress that ends what takes longer than so many seconds."""
    end_s = clock.monotonic_s() + seconds

    def report(now: Progress) -> None:
        if clock.monotonic_s() > end_s:
            raise CancelledError(
                f"Its values are not known within {seconds:g} seconds.",
                found=f"{now.events:,} events read by then",
                remedy="fs.portrait(name) in a notebook, which may take its time",
            )

    return report


def open_service() -> Service:
    """Return the service over what the home is connected to."""
    return Service(Session(Connection.remembered(default_home())))
