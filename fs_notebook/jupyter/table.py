"""Small tables for notebook and terminal, and the look that every display shares.

All text is escaped here: `tag` takes text and markup that `tag` made, and nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from fs_notebook.jupyter.values import NULL, TEXT_MAX, clean, is_number, show, width
from fs_notebook.model.card import FONT, LINE, SOFT, TEXT

CELL_MAX = 60
_MONO = "var(--vscode-editor-font-family, var(--jp-code-font-family, ui-monospace, monospace))"

CSS = f"""
.fsn{{font:13px/1.45 {FONT};
color:{TEXT};max-width:1100px;
padding:2px 0 6px var(--jp-code-padding,5px)}}
.fsn p.fsn-title{{margin:0 0 6px;display:flex;flex-wrap:wrap;gap:4px 10px;align-items:baseline}}
.fsn p.fsn-title strong{{font-size:16px;overflow-wrap:anywhere}}
.fsn .fsn-soft{{color:{SOFT}}}
.fsn .fsn-code{{font-family:{_MONO};font-size:12px;overflow-wrap:break-word}}
.fsn .fsn-state{{border:1px solid {LINE};border-radius:10px;padding:0 8px;font-size:12px;
white-space:nowrap;align-self:center}}
.fsn .fsn-state::before{{content:"";display:inline-block;width:8px;height:8px;margin-right:6px;
border-radius:50%;background:#8a8a8a}}
.fsn .fsn-live::before{{background:#2e9e4f}}.fsn .fsn-failing::before{{background:#d63a30}}
.fsn .fsn-bootstrapping::before{{background:#3f87c9}}
.fsn .fsn-stopped::before{{background:#c98a1b}}
.fsn dl.fsn-figures{{display:flex;flex-wrap:wrap;gap:4px 26px;margin:0 0 8px;padding:0}}
.fsn dl.fsn-figures div{{margin:0;padding:0}}
.fsn dl.fsn-figures dt{{color:{SOFT};font-size:11px;font-weight:normal;margin:0;padding:0;
float:none;width:auto}}
.fsn dl.fsn-figures dd{{margin:0;padding:0;float:none;width:auto;font-variant-numeric:tabular-nums;
overflow-wrap:break-word}}
.fsn p.fsn-note{{margin:0 0 5px;padding:2px 0 2px 10px;border-left:3px solid #c98a1b}}
.fsn p.fsn-foot{{margin:2px 0 8px;color:{SOFT};font-size:12px}}
.fsn .fsn-scroll{{overflow-x:auto;margin:0 0 6px}}
.fsn .fsn-scroll table.fsn-table{{border-collapse:collapse;margin:0;width:auto;
table-layout:auto;font-size:12.5px;border:0}}
.fsn .fsn-scroll table.fsn-table caption{{text-align:left;caption-side:top;padding:0 0 2px;
color:{SOFT};font-size:12px;font-style:normal;white-space:nowrap}}
.fsn .fsn-scroll table.fsn-table th,.fsn .fsn-scroll table.fsn-table td{{border:0;
padding:3px 14px 3px 6px;text-align:left;vertical-align:top;max-width:420px;
overflow-wrap:break-word;white-space:normal;unicode-bidi:isolate}}
.fsn .fsn-scroll table.fsn-table thead th{{border-bottom:1px solid {LINE};font-weight:600;
vertical-align:bottom}}
.fsn .fsn-scroll table.fsn-table thead th small{{display:block;font-weight:normal;
font-size:10.5px;color:{SOFT}}}
.fsn .fsn-scroll table.fsn-table tbody th{{font-weight:600}}
.fsn .fsn-scroll table.fsn-table th.fsn-num,.fsn .fsn-scroll table.fsn-table td.fsn-num{{
text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
.fsn .fsn-charts{{display:grid;grid-template-columns:repeat(auto-fill,minmax(250px,1fr));
gap:12px 22px;margin:10px 0 0}}
.fsn .fsn-charts figure{{margin:0;padding:0;min-width:0}}
.fsn .fsn-charts figcaption{{font-size:11px;color:{SOFT};overflow-wrap:anywhere;margin:0 0 2px}}
.fsn .fsn-charts figcaption b{{font-size:12.5px;font-weight:600;
color:{TEXT}}}
.fsn .fsn-charts figcaption span{{display:block}}
.fsn .fsn-charts svg{{display:block;max-width:100%;height:auto;background:transparent;
overflow:visible}}
.fsn .fsn-charts svg text{{fill:{SOFT}}}
.fsn progress{{width:220px;vertical-align:middle;accent-color:#3f87c9}}
""".replace("\n", "")


class Markup(str):
    """Text that is HTML already and safe: `tag` makes it, and what draws SVG."""

    __slots__ = ()


def tag(name: str, *inside: str | None, **attributes: str | None) -> Markup:
    """Return an element: plain strings are escaped, `Markup` stays, None is left out.

    A trailing underscore in an attribute's name is dropped, another one becomes a hyphen.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value, quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(i if isinstance(i, Markup) else html.escape(i) for i in inside if i is not None)
    return Markup(f"<{name}{shown}>{body}</{name}>")


def card(label: str, *inside: str | None) -> str:
    """Return a whole display: its style, and what is in it, named `label` for screen readers."""
    style = Markup(f"<style>{CSS}</style>")
    return tag("div", style, *inside, class_="fsn", role="group", aria_label=label)


@dataclass(frozen=True)
class Column:
    """One column of a table: the rows' field, its heading, a line under the heading.

    `grouped` separates the thousands of its integers; `kind` is ``"state"`` for a coloured word,
    ``"code"`` for a fixed-width one, else empty; `right` puts it to the right side, None leaves
    that to the values. Texts are cut at `length_max` characters.
    """

    field: str
    title: str | None = None
    under: str | None = None
    kind: str = ""
    grouped: bool = True
    right: bool | None = None
    length_max: int = TEXT_MAX

    @property
    def heading(self) -> str:
        return clean(self.field if self.title is None else self.title)


class Table:
    """Rows that show well in a notebook and in a terminal.

    Parameters
    ----------
    rows
        Mappings or dataclasses; a field that one lacks shows as null.
    columns
        Which fields, in which order; default: all of them, as they first appear.
    title
        What the table is of; also its name for screen readers.
    empty
        The sentence that stands where there are no rows.
    key_columns
        How many of the first columns name the row.
    """

    def __init__(
        self,
        rows: Iterable[object],
        *,
        columns: Sequence[Column] | None = None,
        title: str = "",
        empty: str = "Nothing here yet.",
        key_columns: int = 1,
    ) -> None:
        self.rows: list[Mapping[str, Any]] = [fields(row) for row in rows]
        found = dict.fromkeys(key for row in self.rows for key in row)
        self.columns = list(columns) if columns is not None else [Column(f) for f in found]
        self.title = title
        self.empty = empty
        self.key_columns = key_columns

    def html(self) -> str:
        """Return the whole display as HTML."""
        return card(self.title or "table", self.markup())

    def markup(self) -> Markup:
        """Return the table alone, for use inside a larger display."""
        if not self.rows:
            return tag("p", tag("strong", self.title), " " * bool(self.title), self.empty)
        rights = [self._right(column) for column in self.columns]
        head = [
            tag(
                "th", c.heading, tag("small", c.under) if c.under else None,
                scope="col", class_="fsn-num" if right else None,
            )
            for c, right in zip(self.columns, rights, strict=True)
        ]  # fmt: skip
        body = [
            tag("tr", *(self._cell(row, n, right) for n, right in enumerate(rights)))
            for row in self.rows
        ]
        table = tag(
            "table",
            tag("caption", self.title) if self.title else None,
            tag("thead", tag("tr", *head)),
            tag("tbody", *body),
            class_="fsn-table",
        )
        label = self.title or "table"
        # A group, not a region: a notebook has many tables of one title, and landmarks are unique.
        return tag("div", table, class_="fsn-scroll", tabindex="0", role="group", aria_label=label)

    def _right(self, column: Column) -> bool:
        if column.right is not None:
            return column.right
        known = [v for v in (row.get(column.field) for row in self.rows) if v is not None]
        return bool(known) and all(is_number(v) for v in known)

    def _cell(self, row: Mapping[str, Any], index: int, right: bool) -> Markup:
        column = self.columns[index]
        value = row.get(column.field)
        text = show(value, grouped=column.grouped, length_max=column.length_max)
        inside: str = text
        if column.kind == "state" and text != NULL:
            inside = state(text)
        elif column.kind == "code":
            inside = tag("span", text, class_="fsn-code")
        shape = "fsn-num" if right else None
        if index < self.key_columns:
            return tag("th", inside, scope="row", class_=shape)
        return tag("td", inside, class_=shape)

    def __repr__(self) -> str:
        if not self.rows:
            return f"{self.title}: {self.empty}" if self.title else self.empty
        rights = [self._right(column) for column in self.columns]
        lines = [[c.heading for c in self.columns]]
        lines += [
            [clean(show(row.get(c.field), grouped=c.grouped), length_max=CELL_MAX)
             for c in self.columns]
            for row in self.rows
        ]  # fmt: skip
        widths = [max(width(cell) for cell in cells) for cells in zip(*lines, strict=True)]
        lines.insert(1, ["─" * w for w in widths])
        text = "\n".join(
            "  ".join(
                " " * (w - width(cell)) + cell if right else cell + " " * (w - width(cell))
                for cell, w, right in zip(line, widths, rights, strict=True)
            ).rstrip()
            for line in lines
        )
        return f"{self.title}\n{text}" if self.title else text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


def fields(row: Any) -> Mapping[str, Any]:
    """Return a row's fields, be it a mapping or a dataclass."""
    if isinstance(row, Mapping):
        return row
    if is_dataclass(row) and not isinstance(row, type):
        return asdict(row)
    raise TypeError(f"a row is a mapping or a dataclass, not {type(row).__name__}")


def state(text: str) -> Markup:
    """Return a state's word with its colour: the word's first part says which."""
    first = text.replace(",", " ").split(" ", 1)[0]
    kind = "bootstrapping" if first == "starting" else first
    known = kind if kind in ("live", "failing", "bootstrapping", "stopped") else "draft"
    return tag("span", text, class_=f"fsn-state fsn-{known}")
