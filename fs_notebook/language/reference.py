"""What can be written: every aggregate and row function, with what it promises."""

from __future__ import annotations

from typing import Any

from fs_notebook.errors import near_names, unknown_name
from fs_notebook.kernel import AGGREGATES, Aggregate
from fs_notebook.language.functions import FUNCTIONS


def functions(words: str = "") -> list[dict[str, Any]]:
    """Return the aggregates and row functions whose name, usage or text has all `words`.

    Returns
    -------
    list of dict
        ``name``; ``kind``, which is "aggregate" or "row"; ``usage``, how it is called;
        ``about``, one sentence; and of aggregates ``state``: whether its size has a bound,
        ``invertible``: whether an event can be taken out again, ``merges``: whether states of
        parts can be joined, ``error``: how far the value may be from the exact one.

    Raises
    ------
    UnknownName
        If nothing fits; near names are suggested.
    """
    rows = [_aggregate(k) for _, k in sorted(AGGREGATES.items())]
    rows += [
        {"name": f.name, "kind": "row", "usage": f.usage, "about": None, "state": None,
         "merges": None, "invertible": None, "error": None}
        for _, f in sorted(FUNCTIONS.items())
    ]  # fmt: skip
    asked = words.casefold().split()
    found = [r for r in rows if all(w in _text(r) for w in asked)]
    if not found:
        names = [r["name"] for r in rows]
        near = near_names(words, names)
        raise unknown_name("function", words, near or names, remedy="%feature functions")
    return found


def _text(row: dict[str, Any]) -> str:
    return " ".join(str(row[k] or "") for k in ("name", "kind", "usage", "about")).casefold()


def _aggregate(kind: type[Aggregate]) -> dict[str, Any]:
    return {
        "name": kind.name,
        "kind": "aggregate",
        "usage": kind.usage,
        "about": about(kind),
        "state": "bounded" if kind.bounded else "grows with distinct values or sessions",
        "merges": kind.mergeable,
        "invertible": kind.invertible,
        "error": kind.error or "exact",
    }


def about(kind: type[Aggregate]) -> str:
    """Return the first paragraph of an aggregate's docstring, on one line."""
    paragraph = (kind.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split())
