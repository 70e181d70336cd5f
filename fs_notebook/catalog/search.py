"""Finding things in the catalog: by words and by what they are, forgiving of typos. No I/O.

``tag:reading entity:user type:double owner:ann source:read_events click rate`` finds what has all
of that. Words are looked for in names, features, tags, descriptions, owners, entities and sources;
``-word`` and ``-tag:x`` leave out. A word that is nowhere stands for those that look like it.
"""

from __future__ import annotations

import heapq
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from fs_notebook.catalog.about import (
    DEPRECATED,
    GROUP,
    STREAM,
    TRAINING_SET,
    VIEW,
    Deprecation,
    Notes,
    plain,
)
from fs_notebook.catalog.definition import definition_of
from fs_notebook.catalog.graph import Ways, ways_of
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.catalog.model import RETIRED, CatalogState, Group
from fs_notebook.errors import UsageError, near_names

KNOWN = "known"
FILTERS = ("tag", "entity", "owner", "source", "type", "status", "kind", "feature", "name", "by")
_ALIASES = {"stream": "source", "topic": "source", "state": "status", "actor": "by"}
_FIELDS = {
    "tag": "tags", "entity": "entity", "owner": "owner", "source": "sources", "type": "types",
    "status": "status", "kind": "kind", "feature": "features", "name": "name", "by": "by",
}  # fmt: skip
_SINGLE = frozenset({"owner", "status", "kind", "name", "by"})
_WORD = re.compile(r"[^\W_]+")
_NEAR_MAX = 50
# Of shorter words everything looks like everything.
_TYPO_CHARS_MIN = 3


@dataclass(frozen=True)
class Entry:
    """One thing of the catalog, as a search sees it.

    Attributes
    ----------
    kind
        ``"group"`` (of features), ``"view"``, ``"stream"`` or ``"training set"``.
    status
        Of a group: ``draft``, ``promoted`` (not live yet), ``live``, ``deprecated`` or ``retired``.
    sources
        The streams that its values come from.
    """

    kind: str
    name: str
    status: str
    entity: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    owner: str | None = None
    description: str | None = None
    sources: tuple[str, ...] = ()
    by: str = ""
    changed_at: datetime | None = None
    deprecated: Deprecation | None = None

    @cached_property
    def text(self) -> str:
        """All that words are looked for in, folded; a line for each, the name first."""
        parts = [self.name, *self.features, *self.tags, *self.entity, *self.sources,
                 self.owner or "", self.description or ""]  # fmt: skip
        return "\n".join(parts).casefold()

    @cached_property
    def words(self) -> frozenset[str]:
        """What a mistyped word can be meant for: names as a whole, and the words in all texts."""
        whole = (*self.values("name"), *self.values("feature"), *self.values("tag"))
        return frozenset((*_WORD.findall(self.text), *whole))

    def values(self, name: str) -> tuple[str, ...]:
        """Return what a filter can be asked for to find this, folded."""
        given = getattr(self, _FIELDS[name])
        values = (given or "",) if name in _SINGLE else given
        return tuple([v.casefold() for v in values])

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        pairs = zip(self.features, self.types, strict=False)
        return {
            "kind": self.kind, "name": self.name, "status": self.status,
            "entity": list(self.entity),
            "features": [{"name": n, "type": t} for n, t in pairs],
            "tags": list(self.tags), "owner": self.owner, "description": self.description,
            "sources": list(self.sources), "actor": self.by,
            "updated_at": "" if self.changed_at is None else self.changed_at.isoformat(),
            "deprecated": None if self.deprecated is None else self.deprecated.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One part of a query: a word, or a filter's value; `negative` ones leave out."""

    value: str
    filter: str | None = None
    negative: bool = False

    def __str__(self) -> str:
        named = self.value if self.filter is None else f"{self.filter}:{self.value}"
        return f"-{named}" if self.negative else named


@dataclass(frozen=True)
class Found:
    """What a search found, the best first.

    Attributes
    ----------
    query
        What was asked.
    entries
        At most as many as were asked for.
    total
        How many there are.
    notes
        Which words were read as others.
    """

    query: str
    entries: tuple[Entry, ...]
    total: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def names(self) -> list[str]:
        """Return the names, the best first."""
        return [e.name for e in self.entries]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return an entry a dict, fit for `json.dumps`."""
        return [e.to_dict() for e in self.entries]

    def __repr__(self) -> str:
        lines = [*self.notes]
        for e in self.entries:
            what = ", ".join(f"{n} {t}" for n, t in zip(e.features, e.types, strict=False))
            of = f" by {', '.join(e.entity)}" if e.entity else ""
            tags = "".join(f" #{t}" for t in e.tags)
            lines.append(f"{e.kind} {e.name}{of}, {e.status}: {what or e.description or ''}{tags}")
        if self.total > len(self.entries):
            lines.append(f"and {self.total - len(self.entries):,} more: say more words")
        return "\n".join(map(plain, lines)) or "nothing matches"


def parse_query(text: str) -> list[Term]:
    """Return the terms of a query.

    Raises
    ------
    UsageError
        If a filter is not one of `FILTERS`.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        # Half a query, as it is while somebody types: an open quote is a character.
        words = text.split()
    terms = []
    for word in words:
        negative = len(word) > 1 and word.startswith("-")
        name, colon, value = word.removeprefix("-" * negative).partition(":")
        kind = _ALIASES.get(name.casefold(), name.casefold())
        if colon and kind in FILTERS:
            if value:
                terms += [Term(v.casefold(), kind, negative) for v in value.split(",") if v]
            continue
        if colon and name.isidentifier() and value:
            near = near_names(name, [*FILTERS, *_ALIASES])
            raise UsageError(
                f"A search has no filter {name!r}.", found=", ".join(f"{f}:" for f in FILTERS),
                remedy=f"{near[0]}:{value}" if near else f"the word {value} alone",
            )  # fmt: skip
        terms.append(Term(word.removeprefix("-" * negative).casefold(), None, negative))
    return terms


_NO_NOTES = Notes()


def _group_entry(group: Group, notes: Notes) -> Entry:
    d = group.latest
    return Entry(
        GROUP, group.name, group.status, d.plan.entity, d.plan.features,
        tuple(o.type.value for o in d.plan.outputs), d.tags, d.owner, d.description,
        streams_of(d), group.actor, group.at, group.deprecated,
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
        sources=tuple(sorted({s for d in named for s in streams_of(definition_of(d))})),
        by=notes.changed_by or saved.actor, changed_at=notes.changed_at or saved.at,
        deprecated=notes.deprecated,
    )  # fmt: skip


Known = tuple[object, Notes, Entry]


_MAKERS: Mapping[str, tuple[str, Callable[[Any, Notes], Entry]]] = {
    GROUP: ("groups", _group_entry), VIEW: ("views", _view_entry),
    STREAM: ("sources", _stream_entry), TRAINING_SET: ("training_sets", _trained_entry),
}  # fmt: skip
"""Kind → the state's mapping of those things, and what makes an entry of one."""


@dataclass
class Index:
    """The catalog as searches see it; of a newer state only what changed is looked at again."""

    state: CatalogState | None = None
    entries: tuple[Entry, ...] = ()
    _known: dict[tuple[str, str], Known] = field(default_factory=dict)
    _vocabulary: dict[str | None, set[str]] = field(default_factory=dict)
    _ways: tuple[Ways, Ways] | None = None

    def of(self, state: CatalogState) -> Index:
        """Return this index, brought up to a state."""
        if state is self.state:
            return self
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
        for kind_of, words in self._vocabulary.items():
            # Words that are gone stay: they find nothing.
            words.update(*(_words(entry, kind_of) for entry in new))
        return self

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
        terms = parse_query(query)
        wanted = set(kinds)
        entries = [e for e in self.entries if not wanted or e.kind in wanted]
        notes: list[str] = []
        scores = [0.0] * len(entries)
        for term in terms:
            hits = _hits(entries, term)
            if not term.negative and not any(hits) and not self._has(term):
                hits, read = self._near_hits(entries, term)
                if read:
                    said = " or ".join(map(str, read))
                    notes.append(f"nothing has {str(term)!r}: read as {said}")
            kept = [n for n, hit in enumerate(hits) if bool(hit) is not term.negative]
            entries = [entries[n] for n in kept]
            scores = [scores[n] + hits[n] for n in kept]
        ranked = heapq.nsmallest(
            len(entries) if limit is None else limit,
            range(len(entries)),
            key=lambda n: (-scores[n] + (entries[n].status in (DEPRECATED, RETIRED)), n),
        )
        best = tuple([entries[n] for n in ranked])
        return Found(query, best, len(entries), tuple(notes))

    def _has(self, term: Term) -> bool:
        """Tell whether a term is anywhere at all: then it was meant as it stands."""
        return any(_hits(self.entries, term))

    def _near_hits(self, entries: Sequence[Entry], term: Term) -> tuple[list[float], list[Term]]:
        """Return how well entries have the words that look most like a term, and those words."""
        for words in self.near(term):
            read = [Term(word, term.filter) for word in words]
            found = [_hits(entries, one) for one in read]
            read = [one for one, hits in zip(read, found, strict=True) if any(hits)]
            if read:
                return [max(scored) for scored in zip(*found, strict=True)], read
        return [0.0] * len(entries), []

    def near(self, term: Term) -> list[list[str]]:
        """Return the words, or the filter's values, that look like a term's; the nearest first.

        Those that look alike go together.
        """
        from rapidfuzz import fuzz, process
        from rapidfuzz.distance import OSA

        if len(term.value) < _TYPO_CHARS_MIN:
            return []
        # One slip in a short word, two in a longer one.
        most = 1 if len(term.value) < 6 else 2
        words = self._vocabulary.get(term.filter)
        if words is None:
            words = self._vocabulary[term.filter] = set()
            words.update(*(_words(entry, term.filter) for entry in self.entries))
        found = process.extract(
            term.value, words, scorer=OSA.distance, score_cutoff=most, limit=_NEAR_MAX
        )
        ranked: dict[tuple[float, float], list[str]] = {}
        for word, distance, _ in sorted(found):
            place = (distance, -fuzz.ratio(term.value, word))
            ranked.setdefault(place, []).append(word)
        return [ranked[place] for place in sorted(ranked)]


def _words(entry: Entry, kind: str | None) -> Iterable[str]:
    return entry.words if kind is None else entry.values(kind)


def _hits(entries: Sequence[Entry], term: Term) -> list[float]:
    """Return how well each entry has a term; 0 where it has not."""
    if term.filter is not None:
        return [_filter_hit(e, term.filter, term.value) for e in entries]
    word = term.value
    return [_word_hit(e, word) if word in e.text else 0.0 for e in entries]


def _filter_hit(entry: Entry, kind: str, value: str) -> float:
    values = entry.values(kind)
    if kind == "type":
        # DECIMAL(12,2) is found by decimal, and FLOAT is what others call a DOUBLE.
        value = _TYPES.get(value, value)
        return float(any(v == value or v.startswith(f"{value}(") for v in values))
    if kind in ("name", "feature"):
        return float(any(value in v for v in values))
    return float(value in values)


_TYPES = {
    "float": "double", "int": "bigint", "integer": "bigint", "text": "varchar",
    "string": "varchar", "bool": "boolean",
}  # fmt: skip


def _word_hit(entry: Entry, word: str) -> float:
    (name,), features = entry.values("name"), entry.values("feature")
    if word == name:
        return 8.0
    if word in features or word in entry.values("tag"):
        return 5.0
    if name.startswith(word):
        return 4.0
    return 3.0 if word in name or any(word in f for f in features) else 1.0
