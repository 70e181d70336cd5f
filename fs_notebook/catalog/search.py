"""Finding things in the catalog: by words and by what they are, forgiving of typos. No I/O.

``tag:reading entity:user type:double owner:ann source:read_events click rate`` finds what has all
of that. Words are looked for in names, features, tags, descriptions, owners, entities and sources;
``-word`` and ``-tag:x`` leave out. A word that is nowhere stands for those that look like it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from fs_notebook.catalog.about import GROUP, STREAM, TRAINING_SET, VIEW, Deprecation, Notes
from fs_notebook.catalog.definition import definition_of
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.catalog.model import CatalogState, Group
from fs_notebook.errors import UsageError, near_names

DRAFT, LIVE, DEPRECATED, RETIRED, PROMOTED, LATENT = (
    "draft", "live", "deprecated", "retired", "promoted", "known",
)  # fmt: skip
FILTERS = ("tag", "entity", "owner", "source", "type", "status", "kind", "feature", "name", "by")
_ALIASES = {"stream": "source", "topic": "source", "state": "status", "actor": "by"}
_WORD = re.compile(r"[^\W_]+")
_NEAR_MAX = 5
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
    def filters(self) -> Mapping[str, tuple[str, ...]]:
        """Filter → the values that it can be asked for, folded."""
        given: dict[str, Sequence[str]] = {
            "tag": self.tags, "entity": self.entity, "source": self.sources, "type": self.types,
            "owner": [self.owner or ""], "status": [self.status], "kind": [self.kind],
            "feature": self.features, "name": [self.name], "by": [self.by],
        }  # fmt: skip
        return {name: tuple(v.casefold() for v in values) for name, values in given.items()}

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
        return "\n".join(lines) or "nothing matches"


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


def entries_of(state: CatalogState, former: Index | None = None) -> tuple[Entry, ...]:
    """Return an entry for each thing in the catalog, by name; unchanged ones as they were."""
    known = {} if former is None else former.known
    found: list[tuple[object, Entry]] = []

    def add(thing: object, kind: str, name: str, make: Any) -> None:
        notes = state.notes.get((kind, name), _NO_NOTES)
        before = known.get((kind, name))
        same = before is not None and before[0] is thing and before[1] is notes
        entry = before[2] if before is not None and same else make(thing, notes)
        known_now[kind, name] = (thing, notes, entry)
        found.append((thing, entry))

    known_now: dict[tuple[str, str], tuple[object, Notes, Entry]] = {}
    for name, group in state.groups.items():
        add(group, GROUP, name, _group_entry)
    for name, view in state.views.items():
        add(view, VIEW, name, _view_entry)
    for name, source in state.sources.items():
        add(source, STREAM, name, _stream_entry)
    for name, saved in state.training_sets.items():
        add(saved, TRAINING_SET, name, _trained_entry)
    if former is not None:
        former.known = known_now
    return tuple(sorted((e for _, e in found), key=lambda e: (e.name, e.kind)))


_NO_NOTES = Notes()


def status_of_group(group: Group) -> str:
    """Return a group's place in its life, whatever its worker does: see `Entry.status`."""
    if group.versions and all(v.retired for v in group.versions) and group.draft is None:
        return RETIRED
    if group.deprecated is not None:
        return DEPRECATED
    if group.serving is not None:
        return LIVE
    return PROMOTED if group.wanted is not None else DRAFT


def _group_entry(group: Group, notes: Notes) -> Entry:
    d = group.latest
    return Entry(
        GROUP, group.name, status_of_group(group), d.plan.entity, d.plan.features,
        tuple(o.type.value for o in d.plan.outputs), d.tags, d.owner, d.description,
        streams_of(d), group.actor, group.at, group.deprecated,
    )  # fmt: skip


def _view_entry(view: Any, notes: Notes) -> Entry:
    words = notes.words
    return Entry(
        VIEW, view.name, DEPRECATED if notes.deprecated else LATENT, tags=words.tags,
        owner=words.owner, description=view.description, sources=(view.source,),
        by=notes.changed_by or view.actor, changed_at=notes.changed_at or view.at,
        deprecated=notes.deprecated,
    )  # fmt: skip


def _stream_entry(source: Any, notes: Notes) -> Entry:
    words, stream = notes.words, source.stream
    return Entry(
        STREAM, stream.name, DEPRECATED if notes.deprecated else LATENT, stream.key,
        stream.names, tuple(t.value for _, t in stream.columns), words.tags, words.owner,
        source.description, (stream.name,), notes.changed_by or source.actor,
        notes.changed_at or source.at, notes.deprecated,
    )  # fmt: skip


def _trained_entry(saved: Any, notes: Notes) -> Entry:
    words, recipe = notes.words, saved.recipe
    named = [w["definition"] for w in recipe.wanted]
    return Entry(
        TRAINING_SET, saved.name, DEPRECATED if notes.deprecated else LATENT,
        features=recipe.columns, tags=words.tags, owner=words.owner,
        description=words.description,
        sources=tuple(sorted({s for d in named for s in streams_of(definition_of(d))})),
        by=notes.changed_by or saved.actor, changed_at=notes.changed_at or saved.at,
        deprecated=notes.deprecated,
    )  # fmt: skip


@dataclass
class Index:
    """The catalog as searches see it; of a newer state only what changed is looked at again."""

    state: CatalogState | None = None
    entries: tuple[Entry, ...] = ()
    known: dict[tuple[str, str], tuple[object, Notes, Entry]] = field(default_factory=dict)
    _vocabulary: dict[str | None, tuple[str, ...]] = field(default_factory=dict)

    def of(self, state: CatalogState) -> Index:
        """Return this index, brought up to a state."""
        if state is not self.state:
            self.entries = entries_of(state, self)
            self._vocabulary = {}
            self.state = state
        return self

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
            if not term.negative and not any(hits):
                near = self.near(term)
                read = [Term(n, term.filter) for n in near]
                if read:
                    notes.append(
                        f"nothing has {str(term)!r}: read as {' or '.join(map(str, read))}"
                    )
                found = [_hits(entries, t) for t in read]
                hits = [max(scored, default=0.0) for scored in zip(*found, strict=True)] or hits
            kept = [n for n, hit in enumerate(hits) if bool(hit) is not term.negative]
            entries = [entries[n] for n in kept]
            scores = [scores[n] + hits[n] for n in kept]
        ranked = sorted(
            range(len(entries)),
            key=lambda n: (-scores[n] + (entries[n].status in (DEPRECATED, RETIRED)), n),
        )
        best = tuple(entries[n] for n in ranked[:limit])
        return Found(query, best, len(entries), tuple(notes))

    def near(self, term: Term) -> list[str]:
        """Return the words, or the filter's values, that look most like a term's."""
        from rapidfuzz import process
        from rapidfuzz.distance import OSA

        if len(term.value) < _TYPO_CHARS_MIN:
            return []
        # One slip in a short word, two in a longer one.
        most = 1 if len(term.value) < 6 else 2
        found = process.extract(
            term.value, self._words(term.filter), scorer=OSA.distance, score_cutoff=most,
            limit=_NEAR_MAX,
        )  # fmt: skip
        least = min((distance for _, distance, _ in found), default=0)
        return [word for word, distance, _ in found if distance == least]

    def _words(self, kind: str | None) -> tuple[str, ...]:
        """Return all words that are anywhere, or all values of a filter."""
        known = self._vocabulary.get(kind)
        if known is None:
            words: set[str] = set()
            for entry in self.entries:
                if kind is not None:
                    words.update(entry.filters[kind])
                else:
                    # A name can be mistaken as a whole, and in one of its parts.
                    words.update(_WORD.findall(entry.text), entry.filters["name"],
                                 entry.filters["feature"], entry.filters["tag"])  # fmt: skip
            known = self._vocabulary[kind] = tuple(sorted(words))
        return known


def _hits(entries: Sequence[Entry], term: Term) -> list[float]:
    """Return how well each entry has a term; 0 where it has not."""
    if term.filter is not None:
        return [_filter_hit(e, term.filter, term.value) for e in entries]
    word = term.value
    return [_word_hit(e, word) if word in e.text else 0.0 for e in entries]


def _filter_hit(entry: Entry, kind: str, value: str) -> float:
    values = entry.filters[kind]
    if kind == "type":
        # DECIMAL(12,2) is found by decimal, and FLOAT is what others call a DOUBLE.
        value = {"float": "double", "int": "bigint", "integer": "bigint", "text": "varchar",
                 "string": "varchar", "bool": "boolean"}.get(value, value)  # fmt: skip
        return float(any(v == value or v.startswith(f"{value}(") for v in values))
    if kind in ("name", "feature"):
        return float(any(value in v for v in values))
    return float(value in values)


def _word_hit(entry: Entry, word: str) -> float:
    name, features = entry.filters["name"][0], entry.filters["feature"]
    if word == name:
        return 8.0
    if word in features or word in entry.filters["tag"]:
        return 5.0
    if name.startswith(word):
        return 4.0
    return 3.0 if word in name or any(word in f for f in features) else 1.0
