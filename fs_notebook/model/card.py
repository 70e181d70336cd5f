"""A small card of figures and tables as HTML: no script, no network, all text escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

# VS Code's own, JupyterLab's own, or what the page writes in, a little fainter, dark or light.
# VS Code comes first: its Jupyter extension sets JupyterLab's light colours in every theme.
TEXT = "var(--vscode-foreground, var(--jp-ui-font-color1, inherit))"
SOFT = (
    "var(--vscode-descriptionForeground, var(--jp-ui-font-color2, "
    "color-mix(in srgb, currentColor 80%, transparent)))"
)
LINE = "var(--vscode-panel-border, var(--jp-border-color2, rgba(128, 128, 128, 0.4)))"
FONT = "var(--vscode-font-family, var(--jp-ui-font-family, system-ui, sans-serif))"
_BOX = (
    f"font:13px/1.45 {FONT};color:{TEXT};max-width:1000px;"
    "padding:2px 0 6px var(--jp-code-padding, 5px)"
)
_CELL = "border:0;padding:2px 14px 2px 0;text-align:left;overflow-wrap:break-word"
_SHORT = 26
"""A cell of no more characters stays on one line: figures are not broken."""

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# A notebook's own style sheet floats the parts of a list beside each other, at fixed widths.
_PLAIN = "float:none;width:auto;margin:0;padding:0"
TEXT_MAX, SENTENCE_MAX = 120, 500

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Section:
    """A picture that is folded away under its title, with what it says in words beside it."""

    title: str
    told: str
    svg: str
    table: Table | None = None


def text(value: str, length_max: int = TEXT_MAX) -> str:
    """Return any text as safe HTML on one line, of bounded length, with nothing that steers it."""
    cut = value if len(value) <= length_max else value[: length_max - 1] + "…"
    return html.escape("".join("\ufffd" if steers(c) else c for c in cut))


def steers(char: str) -> bool:
    """Tell whether a character is not to be seen, but ends lines or turns what follows."""
    return char in _TURNING or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def count(number: float) -> str:
    """Return a count with thousands separated."""
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage that is 0% or 100% only if it is."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def bytes_text(count: int) -> str:
    """Return a number of bytes as a reader takes it in: ``12.3 kB``."""
    size, units = float(count), ["bytes", "kB", "MB", "GB"]
    while size >= 1_000 and len(units) > 1:
        size /= 1_000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def moment(value: datetime) -> str:
    """Return a time as ``2013-01-31 12:00``, seconds only where there are some."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if value.second else f"{value:%Y-%m-%d %H:%M}"


def card(
    title: str,
    figures: Sequence[tuple[str, str]],
    *,
    subtitle: str = "",
    notes: Sequence[str] = (),
    svg: str = "",
    sections: Sequence[Section] = (),
    tables: Sequence[Table] = (),
) -> str:
    """Return a card.

    Parameters
    ----------
    title, subtitle, figures, notes, tables
        Plain text, escaped here. Figures are pairs of a name and a value; a table is its
        headings and its rows.
    svg
        A drawing of our own, put in as it is, named by the title and the subtitle.
    sections
        More of them, each folded away.
    """
    head = f'<strong style="font-size:16px;overflow-wrap:anywhere">{text(title)}</strong>'
    beside = f'<span style="color:{SOFT}">{text(subtitle, SENTENCE_MAX)}</span>'
    parts = [f'<p style="margin:0 0 6px">{head} {beside}</p>']
    shown = "".join(
        f'<div style="margin:0"><dt style="{_PLAIN};color:{SOFT};font-size:11px;'
        f'font-weight:normal">{text(name)}</dt>'
        f'<dd style="{_PLAIN};font-variant-numeric:tabular-nums">'
        f"{text(value)}</dd></div>"
        for name, value in figures
    )
    style = "display:flex;flex-wrap:wrap;gap:4px 26px;margin:0 0 8px"
    parts.append(f'<dl style="{style}">{shown}</dl>')
    parts += [
        f'<p style="margin:0 0 8px;padding:2px 0 2px 10px;border-left:3px solid #c98a1b">'
        f"{text(note, SENTENCE_MAX)}</p>"
        for note in notes
    ]
    if svg:
        parts.append(_drawing(svg, f"Chart: {title} {subtitle}".strip()))
    parts += [
        f'<details style="margin:0 0 4px"><summary style="cursor:pointer">{text(one.title)} '
        f'<span style="color:{SOFT}">{text(one.told, SENTENCE_MAX)}</span></summary>'
        f"{_drawing(one.svg, f'Chart: {one.title} of {title}')}"
        f"{_tables([] if one.table is None else [one.table])}</details>"
        for one in sections
    ]
    parts.append(_tables(tables))
    return f'<div class="fsn" style="{_BOX}">{"".join(parts)}</div>'


def _cell(value: str) -> str:
    return f"{_CELL};white-space:nowrap" if len(value) <= _SHORT else _CELL


def _drawing(svg: str, label: str) -> str:
    named = svg.replace("<svg ", f'<svg role="img" aria-label="{text(label, SENTENCE_MAX)}" ', 1)
    return f'<div style="overflow-x:auto;margin:0 0 6px;color:{SOFT}">{named}</div>'


def _tables(tables: Sequence[Table]) -> str:
    wrapped = "".join(_table(headings, rows) for headings, rows in tables if rows)
    style = "display:flex;flex-wrap:wrap;align-items:flex-start;gap:6px 34px;overflow-x:auto"
    return f'<div style="{style}">{wrapped}</div>' if wrapped else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(
        f'<th scope="col" style="{_CELL};border-bottom:1px solid {LINE}">{text(h)}</th>'
        for h in headings
    )
    body = "".join(
        "<tr>" + "".join(f'<td style="{_cell(c)}">{text(c)}</td>' for c in row) + "</tr>"
        for row in rows
    )
    return (
        '<table style="border-collapse:collapse;margin:0;font-size:12.5px">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
