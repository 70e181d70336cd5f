"""How searches of the catalog, what is known of one thing, differences and lineage look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fs_notebook.catalog.about import lift_text
from fs_notebook.catalog.differences import Difference
from fs_notebook.catalog.graph import Lineage
from fs_notebook.catalog.search import Entry, Found
from fs_notebook.curation import About, Curated
from fs_notebook.jupyter.display import CATALOG_COLUMNS, figures, group_row, used
from fs_notebook.jupyter.lineage_svg import DRAWN_MAX, lineage_svg
from fs_notebook.jupyter.table import Column, Markup, Table, card, state, tag
from fs_notebook.jupyter.values import clean, count, moment
from fs_notebook.model.card import SOFT
from fs_notebook.review.outcome import Imported, Step

TEXT_MAX = 4_000
HISTORY_SHOWN = 12
LINES_SHOWN = 200
STEPS_SHOWN = 100


class SearchTable(Table):
    """What a search of the catalog found.

    Parameters
    ----------
    found
        The search's outcome.
    groups
        The `GroupView`s of the groups among it, by name.
    """

    def __init__(self, found: Found, groups: Mapping[str, Mapping[str, Any]]) -> None:
        rows = [_search_row(e, groups.get(e.name, {})) for e in found.entries]
        kind = [Column("kind")] if any(e.kind != "group" for e in found.entries) else []
        shown = len(found.entries)
        of = "" if shown == found.total else f": {shown} of {count(found.total)}"
        super().__init__(
            rows, columns=[Column("name"), *kind, *used(rows, CATALOG_COLUMNS[1:])],
            title=f"Catalog{of}",
            empty="Nothing matches.",
        )  # fmt: skip
        self.notes = [clean(n, length_max=400) for n in found.notes]

    def html(self) -> str:
        """Return the table as HTML, and above it which words were read as others."""
        return card(self.title, *(tag("p", n, class_="fsn-note") for n in self.notes),
                    self.markup())  # fmt: skip

    def __repr__(self) -> str:
        return "\n".join([*self.notes, super().__repr__()])


def _search_row(entry: Entry, view: Mapping[str, Any]) -> dict[str, Any]:
    if entry.kind == "group":
        row = group_row({**entry.to_dict(), "state": entry.status, **view})
        row["state"] = f"{row['state']}, deprecated" if entry.deprecated else row["state"]
        return row | {"kind": "features"}
    known = entry.to_dict()
    if not entry.types:
        known["features"] = [{"name": f, "type": ""} for f in entry.features]
    row = group_row(known)
    return row | {"kind": entry.kind, "state": "deprecated" if entry.deprecated else None}


def found_html(found: Found) -> str:
    """Return what a search found as HTML, without the workers' states."""
    return SearchTable(found, {}).html()


def lineage_markup(lineage: Lineage) -> Markup:
    """Return a lineage as a drawing, or as a tree of text where it is too large to be drawn."""
    drawing = lineage_svg(lineage)
    if drawing is not None:
        return tag("div", drawing, class_="fsn-scroll", tabindex="0", role="group",
                   aria_label=f"Lineage of {clean(lineage.node.name)}")  # fmt: skip
    if len(lineage.nodes) > DRAWN_MAX:
        lines = [clean(line, length_max=200) for line in repr(lineage).splitlines()[:LINES_SHOWN]]
        return tag("pre", "\n".join(lines), class_="fsn-code")
    return tag("p", "Nothing is known that it is made of, or that reads it.", class_="fsn-foot")


def lineage_html(lineage: Lineage) -> str:
    """Return a lineage as HTML."""
    name = clean(lineage.node.name)
    title = tag("p", tag("strong", name), tag("span", f"{lineage.node.kind}, its lineage"),
                class_="fsn-title")  # fmt: skip
    return card(f"Lineage of {name}", title, lineage_markup(lineage))


def about_html(about: About) -> str:
    """Return all that the catalog knows of one thing as HTML."""
    e = about.entry
    name = clean(e.name)
    kind = "feature group" if e.kind == "group" else e.kind
    title = tag(
        "p", tag("strong", name), tag("span", kind),
        state(e.status) if e.status != "known" else None, class_="fsn-title",
    )  # fmt: skip
    shown = [
        ("entity", ", ".join(map(clean, e.entity))),
        ("tags", ", ".join(clean(t) for t in e.tags)),
        ("owner", clean(e.owner) if e.owner else ""),
        ("made by", f"{clean(about.created_by)}, {_when(about.created_at)}"),
        ("notebook", clean(str(about.notebook), length_max=300) if about.notebook else ""),
        ("changed by", f"{clean(e.by)}, {_when(e.changed_at)}"),
    ]
    columns = [
        {"name": n, "type": t} for n, t in zip(e.features, e.types or [""] * len(e.features),
                                               strict=False)
    ]  # fmt: skip
    what = "Features" if e.kind in ("group", "training set") else "Columns"
    return card(
        f"{kind} {name}", title,
        tag("p", clean(e.deprecated.told(e.name), length_max=600), class_="fsn-note")
        if e.deprecated else None,
        tag("p", clean(e.description, length_max=2_000)) if e.description else None,
        figures((n, v) for n, v in shown if v),
        tag("pre", _text(about.text), class_="fsn-code") if about.text else None,
        Table(columns, title=what).markup() if columns else None,
        Table(_versions(about), title="Versions").markup() if about.versions else None,
        *(tag("p", f"Lift: {clean(lift_text(lift), length_max=300)}") for lift in about.lifts[:3]),
        lineage_markup(about.lineage),
        Table(_uses(about), title="Read by").markup() if about.uses else None,
        Table(_history(about), title="History").markup(),
    )  # fmt: skip


def _versions(about: About) -> list[dict[str, Any]]:
    return [
        {"version": v.label, "state": v.state, "fingerprint": v.fingerprint[:12], "by": v.actor,
         "at, UTC": _when(v.at)}
        for v in about.versions
    ]  # fmt: skip


def _uses(about: About) -> list[dict[str, Any]]:
    return [
        {"who": u.who, "how": u.kind, "host": u.host, "reads": u.reads,
         "last, UTC": _when(u.last_at)}
        for u in about.uses
    ]  # fmt: skip


def _history(about: About) -> list[dict[str, Any]]:
    return [
        {"at, UTC": _when(c.at), "by": c.actor, "what": c.text}
        for c in about.history[:HISTORY_SHOWN]
    ]


def _when(at: Any) -> str:
    return "" if at is None else moment(at, seconds=False)


def _text(text: str) -> str:
    """Return a definition's text, its lines kept and its control characters told."""
    lines = text.strip()[:TEXT_MAX].splitlines()
    return "\n".join(clean(line, length_max=500) for line in lines)


def curated_html(curated: Curated) -> str:
    """Return what an edit or a deprecation did as HTML."""
    name = clean(curated.about.entry.name)
    lines = [clean(line, length_max=600) for line in repr(curated).splitlines()]
    rest = [tag("li", line.strip()) for line in lines[1:]]
    return card(f"Change of {name}", tag("p", lines[0]), tag("ul", *rest) if rest else None)


def difference_html(found: Difference) -> str:
    """Return what changed between two versions as HTML."""
    name = clean(found.name)
    meaning = "the same meaning" if found.same else "another meaning"
    title = tag(
        "p", tag("strong", name), tag("span", f"{clean(found.before)} → {clean(found.after)}"),
        tag("span", meaning), class_="fsn-title",
    )  # fmt: skip
    return card(f"Difference of {name}", title, _words(found.words), diff_markup(found.lines))


def _words(words: Iterable[str]) -> Markup:
    said = [tag("li", clean(w, length_max=400)) for w in words]
    return tag("ul", *said) if said else tag("p", "Nothing changed.", class_="fsn-foot")


_LINE_STYLES = {
    "+": "background:rgba(46,158,79,.16)", "-": "background:rgba(214,58,48,.16)",
    "@": f"color:{SOFT}",
}  # fmt: skip


def diff_markup(lines: tuple[str, ...]) -> Markup | None:
    """Return a unified diff with its lines coloured; signs say the same without colour."""
    if not lines:
        return None
    shown = [
        tag("span", clean(line, length_max=500) or " ",
            style=f"display:block;{_LINE_STYLES.get(line[:1], '')}")
        for line in lines[:LINES_SHOWN]
    ]  # fmt: skip
    if len(lines) > LINES_SHOWN:
        shown.append(tag("span", f"… and {len(lines) - LINES_SHOWN:,} lines more"))
    return tag("pre", *shown, class_="fsn-code")


def imported_html(done: Imported) -> str:
    """Return what an import would change, or has changed, as HTML."""
    steps = [s for s in done.steps if s.action != "same"]
    last = repr(done).splitlines()[-1]
    more = len(steps) - STEPS_SHOWN
    return card(
        "Import of a catalog", tag("p", clean(last, length_max=600)),
        *map(_step, steps[:STEPS_SHOWN]),
        tag("p", f"and {more:,} more") if more > 0 else None,
    )  # fmt: skip


def _step(step: Step) -> Markup:
    title = tag("p", tag("strong", clean(step.name)), tag("span", step.kind), state(step.action),
                class_="fsn-title")  # fmt: skip
    return Markup(title + _words(step.words) + (diff_markup(step.lines) or ""))
