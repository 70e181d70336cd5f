"""Finding things in the catalog: by words and by what they are, forgiving of typos. No I/O.

``tag:reading entity:user type:double owner:ann source:read_events click rate`` finds what has all
of that. Words are looked for in names, features, tags, descriptions, owners, entities and sources;
``-word`` and ``-tag:x`` leave out. A word that is nowhere stands for those that look like it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fs_notebook.catalog.about import (
    Deprecation,
)
from fs_notebook.errors import UsageError, near_names, plain

KNOWN = "known"
FILTERS = ("tag", "entity", "owner", "source", "type", "status", "kind", "feature", "name", "by")
_ALIASES = {"stream": "source", "topic": "source", "state": "status", "actor": "by"}
_FIELDS = {
    "tag": "tags", "entity": "entity", "owner": "owner", "source": "sources", "type": "types",
    "status": "status", "kind": "kind", "feature": "features", "name": "name", "by": "by",
}  # fmt: skip
_SINGLE = frozenset({"owner", "status", "kind", "name", "by"})
_WORD = re.compile(r"[^\W_]+")


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
    _folded: dict[str, tuple[str, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def text(self) -> str:
        """All that words are looked for in, folded; a line for each, the name first."""
        parts = [self.name, *self.features, *self.tags, *self.entity, *self.sources,
                 self.owner or "", self.description or ""]  # fmt: skip
        return "\n".join(parts).casefold()

    @property
    def title(self) -> str:
        """Its name and its features' names, folded."""
        return "\n".join((*self.values("name"), *self.values("feature")))

    @property
    def words(self) -> frozenset[str]:
        """What a mistyped word can be meant for: names as a whole, and the words in all texts."""
        whole = (*self.values("name"), *self.values("feature"), *self.values("tag"))
        return frozenset((*_WORD.findall(self.text), *whole))

    def values(self, name: str) -> tuple[str, ...]:
        """Return what a filter can be asked for to find this, folded."""
        known = self._folded.get(name)
        if known is None:
            given = getattr(self, _FIELDS[name])
            values = (given or "",) if name in _SINGLE else given
            known = self._folded[name] = tuple([v.casefold() for v in values])
        return known

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
