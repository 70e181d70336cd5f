"""A lineage as a drawing: inline SVG, from what is read at the left to what reads it."""

from __future__ import annotations

from fs_notebook.catalog.graph import Lineage, Node
from fs_notebook.jupyter.table import Markup, tag
from fs_notebook.jupyter.values import clean
from fs_notebook.model.card import SOFT

DRAWN_MAX = 60
_WIDTH, _HEIGHT = 168.0, 38.0
_GAP_X, _GAP_Y = 56.0, 14.0
_MARGIN = 6.0
_CHARS = 23
_COLOURS = {
    "stream": "#3f87c9", "view": "#7d6bb5", "group": "#2e9e4f", "training set": "#c98a1b",
    "feature set": "#b0567f", "model": "#d0563f",
}  # fmt: skip
_OTHER = "#8a8a8a"


def lineage_svg(lineage: Lineage) -> Markup | None:
    """Return the drawing; None where there is too much to be drawn, or nothing beside the node."""
    nodes = lineage.nodes
    if not 1 < len(nodes) <= DRAWN_MAX:
        return None
    places = _places(lineage)
    width = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    layers = lineage.layers
    # What passes by other columns runs below all boxes: it must not look as if it went into them.
    far = [(a, b) for a, b in lineage.edges if layers[b] - layers[a] > 1]
    parts = [_edge(places[a], places[b]) for a, b in lineage.edges if (a, b) not in far]
    parts += [_detour(places[a], places[b], height + 8 * n) for n, (a, b) in enumerate(far, 1)]
    height += 8 * len(far) + (_MARGIN if far else 0)
    parts += [_box(n, places[n], lineage) for n in nodes]
    said = ", ".join(f"{a} to {b}" for a, b in lineage.edges)
    return tag(
        "svg", *parts, xmlns="http://www.w3.org/2000/svg", role="img",
        viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}", height=f"{height:g}",
        aria_label=clean(f"Lineage of {lineage.node.name}: {said}", length_max=600),
        style="max-width:100%;height:auto;background:transparent",
    )  # fmt: skip


def _places(lineage: Lineage) -> dict[Node, tuple[float, float]]:
    """Return where each box stands: a column a layer, each as near its inputs as it can be."""
    layers = lineage.layers
    columns: list[list[Node]] = [[] for _ in range(max(layers.values()) + 1)]
    for node in lineage.nodes:
        columns[layers[node]].append(node)
    rows: dict[Node, float] = {}
    for column in columns:
        reads = {n: [rows[a] for a, b in lineage.edges if b == n and a in rows] for n in column}
        column.sort(key=lambda n: (sum(reads[n]) / len(reads[n]) if reads[n] else 0.0, n))
        rows |= {n: float(i) for i, n in enumerate(column)}
    tallest = max(map(len, columns))
    found = {}
    for number, column in enumerate(columns):
        top = (tallest - len(column)) / 2
        for row, node in enumerate(column):
            x = _MARGIN + number * (_WIDTH + _GAP_X)
            found[node] = (x, _MARGIN + (top + row) * (_HEIGHT + _GAP_Y))
    return found


def _detour(start: tuple[float, float], end: tuple[float, float], low: float) -> Markup:
    x0, y0 = start[0] + _WIDTH, start[1] + _HEIGHT / 2 + 8
    x1, y1 = end[0], end[1] + _HEIGHT / 2 + 8
    curve = (
        f"M{x0:g},{y0:g} C{x0 + 30:g},{y0:g} {x0 + 10:g},{low:g} {x0 + 45:g},{low:g} "
        f"L{x1 - 45:g},{low:g} C{x1 - 10:g},{low:g} {x1 - 30:g},{y1:g} {x1 - 5:g},{y1:g}"
    )
    return _line(curve, x1, y1)


def _edge(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    x0, y0 = start[0] + _WIDTH, start[1] + _HEIGHT / 2
    x1, y1 = end[0], end[1] + _HEIGHT / 2
    bend = max((x1 - x0) / 2, 20.0)
    curve = f"M{x0:g},{y0:g} C{x0 + bend:g},{y0:g} {x1 - bend:g},{y1:g} {x1 - 5:g},{y1:g}"
    return _line(curve, x1, y1)


def _line(curve: str, x: float, y: float) -> Markup:
    line = tag("path", d=curve, fill="none", stroke=_OTHER, stroke_width="1.3")
    head = f"M{x:g},{y:g} l-7,-4 l0,8 z"
    return Markup(line + tag("path", d=head, fill=_OTHER))


def _box(node: Node, place: tuple[float, float], lineage: Lineage) -> Markup:
    x, y = place
    colour = _COLOURS.get(node.kind, _OTHER)
    is_asked = node == lineage.node
    note = lineage.notes.get(node)
    rect = tag(
        "rect", x=f"{x:g}", y=f"{y:g}", width=f"{_WIDTH:g}", height=f"{_HEIGHT:g}", rx="5",
        fill=colour, fill_opacity="0.22" if is_asked else "0.08", stroke=colour,
        stroke_width="2.2" if is_asked else "1.1",
    )  # fmt: skip
    name = tag(
        "text", clean(node.name, length_max=_CHARS), x=f"{x + 9:g}", y=f"{y + 16:g}",
        font_size="12.5", font_weight="600" if is_asked else "400",
        style="fill:currentColor",
    )  # fmt: skip
    under = tag(
        "text", f"{node.kind}, {note}" if note else node.kind, x=f"{x + 9:g}", y=f"{y + 31:g}",
        font_size="10.5", style=f"fill:{SOFT}",
    )  # fmt: skip
    return tag("g", tag("title", clean(str(node), length_max=200)), rect, name, under)
