"""The catalog as a widget: search, filters, a list of any length, a card for each feature."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fs_notebook.catalog.search import Entry, Found, Term, parse_query
from fs_notebook.compute.preview import OnProgress
from fs_notebook.errors import FeatureStoreError, UnknownName
from fs_notebook.jupyter.widgets.figures import (
    Json,
    health_json,
    past_json,
    portrait_json,
    serving_snippet,
)
from fs_notebook.jupyter.widgets.panel import action, script, synced
from fs_notebook.jupyter.widgets.promoting import Promoting
from fs_notebook.portraits import PAST_EVENTS_MAX, history_events
from fs_notebook.views import views_of

if TYPE_CHECKING:
    from fs_notebook.session import Session

POLL_S = 1.0
WINDOW_MAX = 120
FACETS = ("tag", "entity", "owner", "source", "type", "status")
FACET_VALUES_MAX = 60
SHOWN_IN_TEXT = 20


class CatalogBrowser(Promoting):
    """The feature catalog. See `fs.browse`."""

    _esm = script("sql", "promotion", "card", "browser")

    query = synced("")
    total = synced(0)
    window = synced({})
    """Some of the rows: `search` tells one search from the next, `start`, `rows`."""
    notes = synced([])
    """Which words were read as others."""
    facets = synced([])
    """Of each filter the values that there are: `filter`, `values` of [value, how many, is on]."""
    card = synced(None)
    """All that is known of the feature that is open."""
    portrait = synced(None)
    """Its values now, beside those of training."""
    past = synced(None)
    """Its values over time: `name`, `features`; or `events` that would have to be read."""
    diff = synced(None)
    """What changed between two of its versions."""

    def __init__(self, query: str = "", *, session: Session | None = None) -> None:
        self._found = Found("", (), 0)
        self._searches = 0
        self._looked: str | None = None
        self._head: tuple[str, int] | None = None
        super().__init__(session, every_s=POLL_S)
        try:
            self._search(query)
        except FeatureStoreError:
            self.close()
            raise

    @action(query=str)
    def search(self, query: str) -> None:
        """Look for what matches all words of a query, as `fs.search` does."""
        self.show(query=query)
        self._search(query)

    def _search(self, query: str) -> None:
        session = self.session
        head = (session.connection.id, session.catalog.refresh().events)
        found = session.search(query, kinds=["group"], limit=None)
        self._found, self._searches, self._head = found, self._searches + 1, head
        self.show(
            query=query, total=found.total, notes=list(found.notes),
            facets=facets_of(found.entries, query), window=self._window(0, WINDOW_MAX),
        )  # fmt: skip

    @action(start=int, count=int)
    def rows(self, start: int, count: int) -> None:
        """Send some of the rows that were found."""
        self.show(window=self._window(max(start, 0), min(max(count, 1), WINDOW_MAX)))

    def _window(self, start: int, count: int) -> Json:
        session = self.session
        state = session.catalog.refresh()
        entries = [e for e in self._found.entries[start : start + count] if e.name in state.groups]
        views = views_of(state, session.store, [e.name for e in entries])
        rows = [_row(e, v) for e, v in zip(entries, views, strict=True)]
        return {"search": self._searches, "start": start, "rows": rows}

    @action(filter=str, value=str)
    def toggle(self, filter: str, value: str) -> None:
        """Ask for one more value of a filter, or no longer for it."""
        self._search(toggled(self.query, filter, value))

    @action(name=str)
    def open_card(self, name: str) -> None:
        """Open a feature's card, and draw its values once they are known."""
        self.show(portrait=None, past=None, diff=None, promotion=None, card=self._card(name))
        self._begin_look()

    def _begin_look(self) -> None:
        """Read the values of what the open card is of."""
        name, self._looked = self.card["name"], self.card["view"]["fingerprint"]
        self.begin("looking at values", lambda report: self._look(name, report))

    @action()
    def shut_card(self) -> None:
        """Close the card."""
        self.halt()
        self.show(card=None, portrait=None, past=None, diff=None, promotion=None)

    def _card(self, name: str) -> Json:
        session = self.session
        about = session.about(name, kind=None)
        name = about.entry.name
        view = session.view(name)
        known = about.to_dict()
        return {
            "name": name, "view": view, "snippet": serving_snippet(view),
            "health": [health_json(h) for h in session.health(name)],
            "at_us": session.clock.now_us(),
            **{k: known[k] for k in ("versions", "lineage", "uses", "history", "lifts")},
        }  # fmt: skip

    def _look(self, name: str, report: OnProgress) -> None:
        """Read the values of the card that is open; first what is quick."""
        found = portrait_json(self.session.portrait(name, on_progress=report))
        self._if_open(name, portrait=found)
        session = self.session
        events = history_events(session.log, session.catalog.refresh().group(name))
        if events is not None and events <= PAST_EVENTS_MAX:
            self._draw(name, report)
        else:
            self._if_open(name, past={"name": name, "events": events, "features": None})

    def _draw(self, name: str, report: OnProgress) -> None:
        drawn = past_json(self.session.past(name, on_progress=report))
        self._if_open(name, past={"name": name, "events": None, "features": drawn})

    def _if_open(self, name: str, **traits: Any) -> None:
        if (self.card or {}).get("name") == name:
            self.show(**traits)

    @action()
    def draw(self) -> None:
        """Draw how the open feature moved in time, however long its history is."""
        if self.card is not None:
            name = self.card["name"]
            self.begin("replaying", lambda report: self._draw(name, report))

    @action(before=str, after=str)
    def compare(self, before: str, after: str) -> None:
        """Show what changed between two versions of the open feature."""
        if self.card is not None:
            found = self.session.diff(self.card["name"], before, after)
            self.show(diff=found.to_dict())

    @action(name=str)
    def ask_promote(self, name: str) -> None:
        """Show in the card what promoting would do."""
        self.ask(name)

    @action()
    def dismiss(self) -> None:
        """Leave the promotion's question."""
        self.show(promotion=None)

    def tick(self) -> None:
        """Show what others changed, and how the workers are."""
        session = self.session
        if (session.connection.id, session.catalog.refresh().events) != self._head:
            start = int(self.window.get("start", 0))
            self._search(self.query)
            if start:
                self.show(window=self._window(start, WINDOW_MAX))
        elif self.window:
            self.show(window=self._window(int(self.window["start"]), len(self.window["rows"])))
        if self.card is not None:
            try:
                self.show(card=self._card(self.card["name"]))
                if self.card["view"]["fingerprint"] != self._looked:
                    # Another version serves by now: its values are others.
                    self._begin_look()
            except UnknownName:
                # Somebody took it out of the catalog.
                self.shut_card()
        self.follow()

    def __repr__(self) -> str:
        found = self._found
        shown = Found(found.query, found.entries[:SHOWN_IN_TEXT], found.total, found.notes)
        what = "feature" if found.total == 1 else "features"
        return f"{found.total:,} {what}\n{shown!r}"


def _row(entry: Entry, view: Json) -> Json:
    return {
        "name": entry.name, "entity": list(entry.entity), "tags": list(entry.tags),
        "features": view["features"], "description": entry.description, "owner": entry.owner,
        "deprecated": entry.deprecated is not None,
        **{k: view[k] for k in ("state", "version", "latest", "progress", "lag", "error")},
    }  # fmt: skip


def facets_of(entries: Sequence[Entry], query: str) -> list[Json]:
    """Return of each filter the values among entries, the most common first, and which are on."""
    terms = {(t.filter, t.value) for t in parse_query(query) if not t.negative}
    found = []
    for name in FACETS:
        counts = Counter(value for e in entries for value in dict.fromkeys(_values(e, name)))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:FACET_VALUES_MAX]
        values: list[Any] = [[v, n, (name, v.casefold()) in terms] for v, n in ranked]
        # What is asked for and has nothing any more must still be there to be taken back.
        values += [
            [v, 0, True] for f, v in sorted(terms, key=str)
            if f == name and v not in {known.casefold() for known, _, _ in values}
        ]  # fmt: skip
        found.append({"filter": name, "values": values})
    return found


def _values(entry: Entry, name: str) -> Iterable[str]:
    return (v for v in entry.values(name) if v)


def toggled(query: str, name: str, value: str) -> str:
    """Return a query that asks for a filter's value, or, if it did, no longer does."""
    wanted = Term(value.casefold(), name)
    try:
        words = shlex.split(query)
    except ValueError:
        words = query.split()
    kept, was_on = [], False
    for word in words:
        terms = parse_query(shlex.quote(word))
        if wanted in terms:
            was_on = True
            rest = ",".join(t.value for t in terms if t != wanted)
            kept += [f"{name}:{rest}"] if rest else []
        else:
            kept.append(word)
    return shlex.join([*kept, *([] if was_on else [f"{name}:{value}"])])
