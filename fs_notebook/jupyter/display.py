"""How previews, statuses and the catalog look in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from fs_notebook.catalog import View
from fs_notebook.clock import from_us
from fs_notebook.compute.preview import WHOLE, Preview
from fs_notebook.jupyter.chart import Distribution, distribution
from fs_notebook.jupyter.table import Column, Markup, Table, card, fields, state, tag
from fs_notebook.jupyter.values import clean, count, moment, number, short, span
from fs_notebook.language.derived import DerivedPlan
from fs_notebook.log.protocol import Stream
from fs_notebook.model.card import bytes_text
from fs_notebook.position import Cut
from fs_notebook.transforms import ViewRows

ROWS_SHOWN = 10
CHARTS_SHOWN = 6
_PARTITIONS_SHOWN = 3
_LISTED_MAX = 64
_ERROR_MAX = 400


class PreviewCard:
    """A preview as a card: its figures, its first rows, its distributions.

    Parameters
    ----------
    preview
        What to show.
    status
        What the catalog says of the group, as a row of `status_html` or a `GroupView`: `state`,
        `version` and `progress` are read. None is a draft that nobody knows of.
    """

    def __init__(self, preview: Preview, status: Mapping[str, Any] | None = None) -> None:
        self.preview = preview
        self.status = status

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """Feature name → how its values are spread, for the features that are drawn."""
        drawn = self.preview.plan.features[:CHARTS_SHOWN]
        return {name: distribution(self.preview.frame[name]) for name in drawn}

    def chart(self, feature: str) -> Any:
        """Return a feature's distribution as an `altair.Chart`, to be changed and combined."""
        known = self.distributions
        found = known[feature] if feature in known else distribution(self.preview.frame[feature])
        return found.chart()

    def html(self) -> str:
        """Return the card as HTML with inline SVG: it needs no script and no network."""
        p = self.preview
        return card(
            f"Preview of {clean(p.name)}",
            _title(p, self.status),
            figures(preview_figures(p)),
            *(tag("p", note, class_="fsn-note") for note in preview_notes(p)),
            _rows(p),
            self._charts(),
        )

    def _charts(self) -> Markup | None:
        p = self.preview
        if not p.entities:
            return None
        charts = tag(
            "div", *(figure_of(d) for d in self.distributions.values()), class_="fsn-charts"
        )
        rest = len(p.plan.features) - CHARTS_SHOWN
        if rest <= 0:
            return charts
        more = f"{rest} more features are not drawn: .chart(name) gives each as an Altair chart."
        return Markup(charts + tag("p", more, class_="fsn-foot"))

    def __repr__(self) -> str:
        return repr(self.preview)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


def preview_html(preview: Preview, status: Mapping[str, Any] | None = None) -> str:
    """Return a preview's card as HTML; see `PreviewCard`."""
    return PreviewCard(preview, status).html()


def state_text(status: Mapping[str, Any] | None) -> str:
    """Return what a group or a version is said to be: ``draft``, ``live v3``, ``starting v4``.

    A `GroupView` has a `latest`, and its `version` is the one that serves; in a worker's row
    `version` is the row's own.
    """
    if status is None:
        return "draft"
    name = str(status.get("state") or "draft")
    version, progress = status.get("version"), status.get("progress")
    is_group = "latest" in status
    text = name
    if version is not None and (name == "live" or not is_group):
        text += f" v{version}"
    if name in ("bootstrapping", "starting") and progress is not None:
        text += f" {_share(progress)}"
    if version is not None and is_group and name != "live":
        text += f", v{version} serves"
    return clean(text)


def _title(p: Preview, status: Mapping[str, Any] | None) -> Markup:
    return tag(
        "p",
        tag("strong", clean(p.name)),
        tag("span", "by " + ", ".join(clean(e) for e in p.plan.entity)),
        state(state_text(status)),
        tag("span", p.plan.fingerprint[:12], class_="fsn-code fsn-soft", title="fingerprint"),
        class_="fsn-title",
    )


def preview_figures(p: Preview) -> list[tuple[str, str]]:
    folded = count(p.folded) if p.folded == p.events else f"{count(p.folded)} of {count(p.events)}"
    figures = [("entities", count(p.entities)), ("events folded", folded)]
    if p.first is not None and p.last is not None:
        first, last = moment(p.first, seconds=False), moment(p.last, seconds=False)
        figures.append(("time range, UTC", f"{first} – {last}"))
    figures += [
        ("values as of, UTC", _as_of(p)),
        *([("cut", _cut(p.cut))] if p.cut.positions or not p.events else []),
        ("time taken", _taken(p.events, p.seconds)),
    ]
    if p.null_keys:
        figures.append(("null keys", f"{count(p.null_keys)} dropped"))
    if p.dead:
        figures.append(("malformed", f"{count(p.dead)} dead letters"))
    return figures


def _as_of(p: Preview) -> str:
    if p.last is not None and p.at - p.last == timedelta(microseconds=1):
        return f"just after {moment(p.last)}"
    return moment(p.at)


def _taken(events: int, seconds: float) -> str:
    if not events or seconds < 0.01:
        return f"{seconds:.2f} s"
    return f"{seconds:.2f} s ({short(events / seconds)} events/s)"


def _cut(cut: Cut) -> str:
    shown = [str(p) for p in cut.positions[:_PARTITIONS_SHOWN]]
    more = len(cut.positions) - len(shown)
    return ", ".join(shown) + (f" and {more} more partitions" if more else "") or "start"


def figures(shown: Iterable[tuple[str, str]]) -> Markup:
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in shown),
        class_="fsn-figures",
    )


def preview_notes(p: Preview) -> list[str]:
    """Say what makes these values others than those that would be served now."""
    notes = []
    where = p.slice
    if where != WHOLE:
        if where.last_us is not None:
            length = span(from_us(where.last_us) - from_us(0))
            notes.append(f"A slice: only the newest {length} of the stream were folded.")
        elif where.from_us is not None or where.to_us is not None:
            start = "the start" if where.from_us is None else moment(from_us(where.from_us))
            end = "the end" if where.to_us is None else moment(from_us(where.to_us))
            notes.append(f"A slice: only events from {start} to before {end} were folded.")
    if p.sampled:
        sample = where.sample or 0.0
        asked = f"{number(100 * sample)}% of" if sample < 1 else f"at most {count(sample)}"
        notes.append(
            f"A sample: {asked} entities, chosen by a hash of their key; what is there is exact."
        )
    return notes + [clean(n, length_max=400) for n in p.notes]


def _rows(p: Preview) -> Markup:
    if not p.entities:
        return tag("p", tag("strong", "No entities yet. "), _why_none(p))
    head = p.frame.head(ROWS_SHOWN)
    # Cells are found by place: a feature may be called as a key is.
    names = list(head.columns)
    keys = len(names) - len(p.plan.features)
    columns = [
        Column(
            str(n),
            title=name,
            under="key" if n < keys else p.types.get(name),
            grouped=n >= keys,
            right=n >= keys and head.dtypes[n].is_numeric(),
        )
        for n, name in enumerate(names)
    ]
    rows = [{str(n): v for n, v in enumerate(row)} for row in head.iter_rows()]
    table = Table(rows, columns=columns, key_columns=keys, title=_first_rows(p)).markup()
    return table


def _why_none(p: Preview) -> str:
    if isinstance(p.plan, DerivedPlan):
        return "There is no entity that has what this is derived from."
    if p.events:
        return f"None of the {count(p.events)} events passed WHERE with a key that is not null."
    if p.plan.joins:
        return "No row of this slice came out of the joins."
    return "The stream has no events in this slice."


def _first_rows(p: Preview) -> str:
    if p.entities <= ROWS_SHOWN:
        return f"{count(p.entities)} " + ("entity" if p.entities == 1 else "entities")
    return f"first {ROWS_SHOWN} of {count(p.entities)} entities"


def figure_of(found: Distribution, *, what: str = "Distribution") -> Markup:
    """Return a drawing with its caption; what cannot be drawn has the caption alone."""
    svg = found.svg()
    name = clean(found.feature)
    caption = tag("figcaption", tag("b", name), " ", found.type, tag("span", found.caption))
    if svg is None:
        return tag("figure", caption, aria_label=name)
    label = tag("svg", role="img", aria_label=f"{what} of {name}: {found.caption}")
    # The drawing's own text is escaped by its maker; its attributes are joined to ours.
    drawing = Markup(svg.replace("<svg ", str(label).removesuffix("></svg>") + " ", 1))
    return tag("figure", caption, drawing, aria_label=name)


def _share(progress: float) -> str:
    return f"{100 * min(max(progress, 0.0), 1.0):.0f}%"


STATUS_COLUMNS = (
    Column("name", "feature group"),
    Column("state", kind="state"),
    Column("serves"),
    # A table that is too wide is cut off at its right: not where the trouble is told.
    Column("error", "last error", length_max=_ERROR_MAX),
    Column("tries"),
    Column("depends_on", "computed from"),
    Column("lag", "lag, events", right=True),
    Column("rate", "events/s", right=True),
    Column("events", "events folded", right=True),
    Column("null_keys", "null keys", right=True),
    Column("late", "late", right=True),
    Column("dead", "dead letters", right=True),
    Column("state_bytes", "state size", right=True),
    Column("verified"),
    Column("position", kind="code"),
)

CATALOG_COLUMNS = (
    Column("name", "feature group"),
    Column("entity"),
    Column("features"),
    Column("state", kind="state"),
    Column("depends_on", "derived from"),
    Column("latest", "newest", right=True),
    Column("owner"),
    Column("tags"),
    Column("description"),
    Column("updated", "changed, UTC"),
)

STREAM_COLUMNS = (
    Column("name", "stream"),
    Column("time", "event time"),
    Column("key"),
    Column("partitions", right=True),
    Column("columns"),
)


VIEW_COLUMNS = (
    Column("name", "view"),
    Column("source", "stream"),
    Column("version"),
    Column("text", "rows", kind="code"),
    Column("description"),
    Column("actor", "by"),
)

FUNCTION_COLUMNS = (
    Column("name", "function"),
    Column("usage", "what it is"),
    Column("state"),
    Column("merges"),
    Column("invertible"),
    Column("error"),
)


class StatusTable(Table):
    """The workers' table.

    Parameters
    ----------
    rows
        Mappings or dataclasses with `name`, `version`, `state`, `position`, `lag` (events in the
        log and not yet folded), `rate` (events/s), `events`, `error` and `progress` (0 to 1), and,
        where known, `serving`, `null_keys`, `late`, `dead`.
    """

    def __init__(self, rows: Iterable[object], *, title: str = "Workers") -> None:
        shown = [_status_row(fields(row)) for row in rows]
        super().__init__(
            shown, columns=used(shown, STATUS_COLUMNS), title=title,
            empty="No feature group has a worker yet.",
        )  # fmt: skip
        self.notes = [str(row["compared"]) for row in shown if row.get("compared")]

    def html(self) -> str:
        """Return the table as HTML, and under it how far what was promoted differs."""
        notes = (tag("p", clean(n, length_max=400), class_="fsn-note") for n in self.notes)
        return card(self.title, self.markup(), *notes)

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *self.notes])


class CatalogTable(Table):
    """The catalog's groups, given as `GroupView`s."""

    def __init__(self, groups: Iterable[object], *, title: str = "Catalog") -> None:
        shown = [group_row(fields(group)) for group in groups]
        super().__init__(
            shown, columns=used(shown, CATALOG_COLUMNS), title=title,
            empty="No feature group matches.",
        )  # fmt: skip


class StreamTable(Table):
    """The ledger's streams, as they were declared."""

    def __init__(self, streams: Iterable[Stream], *, title: str = "Streams") -> None:
        shown = [
            {
                "name": s.name,
                "time": s.time or "publish time",
                "key": ", ".join(s.key) or None,
                "partitions": s.partitions,
                "columns": _listed(f"{name} {kind}" for name, kind in s.columns),
            }
            for s in streams
        ]
        super().__init__(
            shown, columns=used(shown, STREAM_COLUMNS), title=title,
            empty="No stream yet: %feature upload makes one.",
        )  # fmt: skip


class ViewTable(Table):
    """The catalog's views."""

    def __init__(self, views: Iterable[View], *, title: str = "Views") -> None:
        shown = [
            {"name": v.name, "source": v.source, "version": f"v{v.version}", "text": v.text.strip(),
             "description": v.description, "actor": v.actor}
            for v in views
        ]  # fmt: skip
        super().__init__(
            shown, columns=used(shown, VIEW_COLUMNS), title=title,
            empty="No view yet: %%view NAME, then a SELECT, makes one.",
        )  # fmt: skip


class ViewCard(Table):
    """A view, and the first of its rows."""

    def __init__(self, rows: ViewRows) -> None:
        view = rows.view
        columns = [
            Column(n, n, f"{t}, event time" if n == rows.time else str(t)) for n, t in rows.types
        ]
        super().__init__(
            rows.frame.rows(named=True), columns=columns, key_columns=0,
            title=f"{view.name} v{view.version}, rows of {view.source}",
            empty="; ".join(("No row", *rows.notes)) + "."
            if rows.notes
            else f"No row: {rows.read:,} events were read.",
        )  # fmt: skip


class FunctionTable(Table):
    """What can be written, and what each aggregate promises."""

    def __init__(self, rows: Iterable[dict[str, Any]], *, title: str = "Functions") -> None:
        shown = [
            {
                **row,
                "usage": row["about"] or row["usage"],
                "merges": _yes_no(row["merges"]),
                "invertible": _yes_no(row["invertible"]),
            }
            for row in rows
        ]
        super().__init__(
            shown, columns=used(shown, FUNCTION_COLUMNS), title=title, empty="No such function."
        )


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")


def status_html(rows: Iterable[object]) -> str:
    """Return the workers' table as HTML; see `StatusTable`."""
    return StatusTable(rows).html()


def one_status_html(status: Any) -> str:
    """Return one worker's report as HTML."""
    return StatusTable([status]).html()


def catalog_html(groups: Iterable[object]) -> str:
    """Return the catalog's table as HTML; see `CatalogTable`."""
    return CatalogTable(groups).html()


def _status_row(row: Mapping[str, Any]) -> dict[str, Any]:
    rate, serving, size = row.get("rate"), row.get("serving"), row.get("state_bytes")
    return {
        **row,
        "state": state_text(row),
        "error": row.get("error") or row.get("failure"),
        "serves": None if serving is None else ("yes" if serving else "no"),
        "rate": None if rate is None else round(rate, 0 if rate >= 10 else 1),
        "state_bytes": None if size is None else bytes_text(size),
        **{name: row.get(name) or None for name in ("null_keys", "late", "dead")},
    }


def group_row(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `GroupView`'s cells in the catalog's table."""
    return {
        **group,
        "state": state_text(group),
        "entity": ", ".join(map(str, group.get("entity") or ())),
        "features": _listed(
            f"{f['name']} {f['type']}".strip() for f in group.get("features") or ()
        ),
        "latest": f"v{group['latest']}" if group.get("latest") else None,
        "depends_on": ", ".join(map(str, group.get("depends_on") or ())) or None,
        "tags": ", ".join(map(str, group.get("tags") or ())) or None,
        "updated": str(group.get("updated_at") or "")[:16].replace("T", " ") or None,
    }


def _listed(names: Iterable[str]) -> str:
    """Return names as one text, as many as a cell can hold; it says how many more there are."""
    shown, all_ = "", list(names)
    for n, name in enumerate(all_):
        longer = f"{shown}, {name}" if shown else name
        if n and len(longer) > _LISTED_MAX:
            return f"{shown} and {len(all_) - n} more"
        shown = longer
    return shown


def used(rows: list[dict[str, Any]], columns: Iterable[Column]) -> list[Column]:
    """Return the columns that some row has something in."""
    return [c for c in columns if any(row.get(c.field) is not None for row in rows)]
