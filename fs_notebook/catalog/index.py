"""The index that searches of the catalog go through: quick with ten thousand features. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.catalog.about import (
    DEPRECATED,
    FEATURE_SET,
    GROUP,
    MODEL,
    STREAM,
    TRAINING_SET,
    VIEW,
    Notes,
)
from fs_notebook.catalog.graph import Ways, ways_of
from fs_notebook.catalog.model import RETIRED, CatalogState, Group
from fs_notebook.catalog.search import KNOWN, Entry, Found, Term, parse_query
from fs_notebook.catalog.stored import Facts, collector_at_rest

NEAR_MAX = 50
# Of shorter words everything looks like everything.
TYPO_CHARS_MIN = 3
_NO_NOTES = Notes()
_TYPES = {
    "float": "double", "int": "bigint", "integer": "bigint", "text": "varchar",
    "string": "varchar", "bool": "boolean",
}  # fmt: skip


def _group_entry(group: Group, notes: Notes) -> Entry:
    d = group.latest
    facts = d.facts
    return Entry(
        GROUP, group.name, group.status, facts.entity, facts.features, facts.types, d.tags,
        d.owner, d.description, facts.streams, group.actor, group.at, group.deprecated,
    )  # fmt: skip


def _view_entry(view: Any, notes: Notes) -> Entry:
    words = notes.words
    return Entry(
        VIEW, view.name, DEPRECATED if notes.deprecated else KNOWN, tags=words.tags,
        owner=words.owner, description=view.description, sources=(view.source,),
        by=notes.changed_by or view.actor, changed_at=notes.changed_at or view.at,
        deprecated=notes.deprecated,
    )  # fmt: skip


def _stream_entry(source: Any, notes: Notes) -> Entry:
    words, stream = notes.words, source.stream
    return Entry(
        STREAM, stream.name, DEPRECATED if notes.deprecated else KNOWN, stream.key,
        stream.names, tuple(t.value for _, t in stream.columns), words.tags, words.owner,
        source.description, (stream.name,), notes.changed_by or source.actor,
        notes.changed_at or source.at, notes.deprecated,
    )  # fmt: skip


def _trained_entry(saved: Any, notes: Notes) -> Entry:
    words, recipe = notes.words, saved.recipe
    named = [w["definition"] for w in recipe.wanted]
    return Entry(
        TRAINING_SET, saved.name, DEPRECATED if notes.deprecated else KNOWN,
        features=recipe.columns, tags=words.tags, owner=words.owner,
        description=words.description,
        sources=tuple(sorted({s for d in named for s in Facts.of(d).streams})),
        by=notes.changed_by or saved.actor, changed_at=notes.changed_at or saved.at,
        deprecated=notes.deprecated,
    )  # fmt: skip


def _set_entry(one: Any, notes: Notes) -> Entry:
    words, kept = notes.words, one.kept
    newest = (kept or one.versions)[-1]
    return Entry(
        FEATURE_SET, one.name, DEPRECATED if notes.deprecated else KNOWN if kept else RETIRED,
        features=newest.columns, tags=words.tags, owner=words.owner,
        description=words.description, by=notes.changed_by or newest.actor,
        changed_at=notes.changed_at or newest.at, deprecated=notes.deprecated,
    )  # fmt: skip


def _model_entry(model: Any, notes: Notes) -> Entry:
    words = notes.words
    return Entry(
        MODEL, model.name, DEPRECATED if notes.deprecated else KNOWN, tags=words.tags,
        owner=words.owner, description=words.description, by=notes.changed_by or model.actor,
        changed_at=notes.changed_at or model.at, deprecated=notes.deprecated,
    )  # fmt: skip


_MAKERS: Mapping[str, tuple[str, Callable[[Any, Notes], Entry]]] = {
    GROUP: ("groups", _group_entry), VIEW: ("views", _view_entry),
    STREAM: ("sources", _stream_entry), TRAINING_SET: ("training_sets", _trained_entry),
    FEATURE_SET: ("feature_sets", _set_entry), MODEL: ("models", _model_entry),
}  # fmt: skip
"""Kind → the state's mapping of those things, and what makes an entry of one."""

Known = tuple[object, Notes, Entry]


@dataclass
class _Tables:
    """What is looked up in one state's entries, by their places; made when first asked for."""

    entries: tuple[Entry, ...]
    texts: list[str]
    names: list[str]
    titles: list[str]
    """Names and features: what a word counts more in."""
    _values: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: tuple[Entry, ...]) -> _Tables:
        names = [e.values("name")[0] for e in entries]
        return cls(entries, [e.text for e in entries], names, [e.title for e in entries])

    def values(self, kind: str) -> dict[str, list[int]]:
        """Return value → the places that a filter finds by it."""
        known = self._values.get(kind)
        if known is None:
            known = self._values[kind] = {}
            for place, entry in enumerate(self.entries):
                for value in entry.values(kind):
                    known.setdefault(value, []).append(place)
        return known

    def having(self, term: Term, places: Sequence[int]) -> list[int]:
        """Return those of some places that have a term, in order."""
        if term.filter is None:
            word, texts = term.value, self.texts
            return [n for n in places if word in texts[n]]
        values, value = self.values(term.filter), term.value
        if term.filter == "type":
            # DECIMAL(12,2) is found by decimal, and FLOAT is what others call a DOUBLE.
            value = _TYPES.get(value, value)
            found = [v for v in values if v == value or v.startswith(f"{value}(")]
        elif term.filter in ("name", "feature"):
            found = [v for v in values if value in v]
        else:
            found = [value] if value in values else []
        hits = {n for v in found for n in values[v]}
        return [n for n in places if n in hits]

    def score(self, word: str, scores: dict[int, float]) -> None:
        """Add to the scores of places how well each has a word that it has."""
        best = dict.fromkeys(scores, 1.0)
        names, titles = self.names, self.titles
        best.update((n, 3.0) for n in scores if word in titles[n])
        best.update((n, 4.0) for n in scores if names[n].startswith(word))
        for kind, worth in (("feature", 5.0), ("tag", 5.0), ("name", 8.0)):
            best.update((n, worth) for n in self.values(kind).get(word, ()) if n in scores)
        for place, worth in best.items():
            scores[place] += worth


@dataclass
class Index:
    """The catalog as searches see it; of a newer state only what changed is looked at again."""

    state: CatalogState | None = None
    entries: tuple[Entry, ...] = ()
    _known: dict[tuple[str, str], Known] = field(default_factory=dict)
    _vocabulary: dict[str | None, set[str]] = field(default_factory=dict)
    _ways: tuple[Ways, Ways] | None = None
    _tables: _Tables = field(default_factory=lambda: _Tables((), [], [], []))

    def of(self, state: CatalogState) -> Index:
        """Return this index, brought up to a state."""
        if state is self.state:
            return self
        with collector_at_rest():
            self._update(state)
        return self

    def _update(self, state: CatalogState) -> None:
        before, now, new = self._known, dict[tuple[str, str], Known](), list[Entry]()
        for kind, (things, make) in _MAKERS.items():
            for name, thing in getattr(state, things).items():
                notes = state.notes.get((kind, name), _NO_NOTES)
                known = before.get((kind, name))
                if known is None or known[0] is not thing or known[1] is not notes:
                    known = (thing, notes, make(thing, notes))
                    new.append(known[2])
                now[kind, name] = known
        self.entries = tuple([k[2] for _, k in sorted(now.items(), key=lambda i: i[0][::-1])])
        self._known, self._ways, self.state = now, None, state
        self._tables = _Tables.of(self.entries)
        for kind_of, words in self._vocabulary.items():
            # Words that are gone stay: they find nothing.
            words.update(*(_words(entry, kind_of) for entry in new))

    @property
    def ways(self) -> tuple[Ways, Ways]:
        """What each thing of the catalog reads, and what reads it."""
        if self._ways is None:
            assert self.state is not None
            self._ways = ways_of(self.state)
        return self._ways

    def entry(self, kind: str, name: str) -> Entry:
        """Return the entry of one thing that is there."""
        return self._known[kind, name][2]

    def search(self, query: str, *, kinds: Iterable[str] = (), limit: int | None = 50) -> Found:
        """Return what matches all terms of a query, the best first.

        Parameters
        ----------
        kinds
            Of these kinds only; default: of all.
        limit
            How many entries at most; None: all.
        """
        wanted, tables = set(kinds), self._tables
        places = [n for n, e in enumerate(self.entries) if not wanted or e.kind in wanted]
        notes: list[str] = []
        words: list[str] = []
        # What a filter leaves is quicker to look through for words.
        for term in sorted(parse_query(query), key=lambda t: t.filter is None):
            hits = tables.having(term, places)
            if term.negative:
                gone = set(hits)
                places = [n for n in places if n not in gone]
                continue
            read = [term]
            if not hits and not self._is_anywhere(term, places):
                hits, read = self._near_hits(places, term)
                if read:
                    said = " or ".join(map(str, read))
                    notes.append(f"nothing has {str(term)!r}: read as {said}")
            words += [one.value for one in read if one.filter is None]
            places = hits
        scores = dict.fromkeys(places, 0.0)
        for word in words:
            tables.score(word, scores)
        for place in places:
            if self.entries[place].status in (DEPRECATED, RETIRED):
                scores[place] -= 1.0
        ranked = heapq.nsmallest(
            len(places) if limit is None else limit, places, key=lambda n: (-scores[n], n)
        )
        best = tuple([self.entries[n] for n in ranked])
        return Found(query, best, len(places), tuple(notes))

    def _is_anywhere(self, term: Term, places: Sequence[int]) -> bool:
        """Tell whether something beyond these places has a term: then it is meant as it stands."""
        everywhere = range(len(self.entries))
        return len(places) < len(everywhere) and bool(self._tables.having(term, everywhere))

    def _near_hits(self, places: Sequence[int], term: Term) -> tuple[list[int], list[Term]]:
        """Return the places that have the words that look most like a term, and those words."""
        for words in self.near(term):
            read = [Term(word, term.filter) for word in words]
            found = [self._tables.having(one, places) for one in read]
            read = [one for one, hits in zip(read, found, strict=True) if hits]
            if read:
                return sorted(set().union(*found)), read
        return [], []

    def near(self, term: Term) -> list[list[str]]:
        """Return the words, or the filter's values, that look like a term's; the nearest first.

        Those that look alike go together.
        """
        from rapidfuzz import fuzz, process
        from rapidfuzz.distance import OSA

        if len(term.value) < TYPO_CHARS_MIN:
            return []
        # One slip in a short word, two in a longer one.
        most = 1 if len(term.value) < 6 else 2
        words = self._vocabulary.get(term.filter)
        if words is None:
            words = self._vocabulary[term.filter] = set()
            words.update(*(_words(entry, term.filter) for entry in self.entries))
        found = process.extract(
            term.value, words, scorer=OSA.distance, score_cutoff=most, limit=NEAR_MAX
        )
        ranked: dict[tuple[float, float], list[str]] = {}
        for word, distance, _ in sorted(found):
            place = (distance, -fuzz.ratio(term.value, word))
            ranked.setdefault(place, []).append(word)
        return [ranked[place] for place in sorted(ranked)]


def _words(entry: Entry, kind: str | None) -> Iterable[str]:
    return entry.words if kind is None else entry.values(kind)
