"""How served features look in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from fs_notebook.jupyter.display import figures
from fs_notebook.jupyter.table import Column, Markup, Table, card, tag
from fs_notebook.jupyter.values import clean, count, moment, span
from fs_notebook.online.vector import EXPIRED, NOT_FOUND, PRESENT, FeatureVector

ROWS_SHOWN = 20


def vector_html(vector: FeatureVector) -> str:
    """Return what a read of features returned as a card: values, statuses, freshness."""
    return card(
        "Served features",
        tag(
            "p",
            tag("strong", "Served"),
            tag("span", ", ".join(_version(vector, owner) for owner in vector.versions)),
            class_="fsn-title",
        ),
        figures(_figures(vector)),
        *(tag("p", clean(note, length_max=400), class_="fsn-note") for note in vector.notices),
        _table(vector),
    )


def _version(vector: FeatureVector, owner: str) -> str:
    return f"{clean(owner.partition('@')[0])} v{vector.versions[owner]}"


def _figures(vector: FeatureVector) -> list[tuple[str, str]]:
    known = vector.known()
    shown = [("entities", count(len(vector))), ("found", count(len(vector) - known[NOT_FOUND]))]
    if known[EXPIRED]:
        shown.append(("expired", count(known[EXPIRED])))
    shown.append(("values as of, UTC", moment(vector.at)))
    if vector.fetched_us < vector.at_us:
        age = timedelta(microseconds=vector.at_us - vector.fetched_us)
        shown.append(("from the local cache", f"{span(age)} old at most"))
    return shown


def _table(vector: FeatureVector) -> Markup:
    """Return the first rows; cells are found by place, as several columns may be called alike."""
    shown = min(len(vector), ROWS_SHOWN)
    statuses = {f: vector.status_of(f)[:shown] for f in vector.features}
    cells: list[Sequence[object]] = [vector.columns[n] for n in vector.entities]
    columns = [Column(str(n), title=name, under="entity", grouped=False)
               for n, name in enumerate(vector.entities)]  # fmt: skip
    for name in vector.features:
        columns.append(Column(str(len(cells)), title=name, under=_owner(vector, name)))
        cells.append(vector.columns[name])
    columns.append(Column(str(len(cells)), title="status"))
    cells.append([_status([(f, statuses[f][row]) for f in statuses]) for row in range(shown)])
    several = len(vector.newest_us) > 1
    for owner, newest in vector.newest_us.items():
        under = _version(vector, owner) if several else None
        columns.append(Column(str(len(cells)), title="newest event", under=under, right=True))
        cells.append([_age(vector, us) for us in newest[:shown]])
    rows = [{str(n): column[row] for n, column in enumerate(cells)} for row in range(shown)]
    more = len(vector) - shown
    title = f"first {shown} of {count(len(vector))} entities" if more else ""
    empty = "No entity was asked for."
    return Table(
        rows, columns=columns, key_columns=len(vector.entities), title=title, empty=empty
    ).markup()


def _owner(vector: FeatureVector, feature: str) -> str:
    """Return a feature's version where there are several, else its type."""
    if len(vector.versions) > 1:
        return _version(vector, vector.owners[feature])
    return str(vector.schema[feature])


def _status(of: Sequence[tuple[str, str]]) -> str:
    """Return the status of a row's values: one word where all have the same."""
    words: dict[str, list[str]] = {}
    for feature, status in of:
        words.setdefault(status, []).append(feature)
    if len(words) == 1:
        return next(iter(words))
    return "; ".join(f"{w}: {', '.join(names)}" for w, names in words.items() if w != PRESENT)


def _age(vector: FeatureVector, newest_us: int | None) -> str | None:
    if newest_us is None:
        return None
    age = timedelta(microseconds=vector.at_us - newest_us)
    return f"{span(age)} ago" if age >= timedelta(0) else f"in {span(-age)}"
