"""Lineage as a user sees it: a tree in a terminal, a drawing in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fs_notebook.catalog.graph import KINDS, Graph, Node
from fs_notebook.model.card import card, text

NODES_DRAWN_MAX = 120
_LABEL_MAX, _DETAIL_MAX = 26, 34
_WIDTH_PX, _HEIGHT_PX, _GAP_X_PX, _GAP_Y_PX, _MARGIN_PX = 196, 42, 56, 14, 6
# These keep a contrast of 3:1 or more on white and on JupyterLab's dark background alike.
_COLOURS = {
    "stream": "#7b7b7b", "view": "#8a6fb0", "feature": "#3f87c9", "set": "#2e9e4f",
    "training_set": "#c98a1b", "model": "#d0563f",
}  # fmt: skip


@dataclass(frozen=True)
class Lineage:
    """What something in the catalog comes from, down to the streams, and what comes from it.

    Attributes
    ----------
    of
        What it is of.
    graph
        All that is shown: of each thing what it is made of.
    """

    of: Node
    graph: Graph

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that it comes from."""
        return tuple(n.name for n in self._upstream if n.kind == "stream")

    @property
    def users(self) -> tuple[str, ...]:
        """What comes from it, directly or not."""
        above = set(self._upstream)
        return tuple(str(n) for n in self.graph.sources if n not in above)

    @cached_property
    def _upstream(self) -> tuple[Node, ...]:
        found: dict[Node, None] = {}

        def visit(node: Node) -> None:
            if node not in found:
                found[node] = None
                for source in self.graph.sources.get(node, ()):
                    visit(source)

        visit(self.of)
        return tuple(found)

    def __repr__(self) -> str:
        lines = [self._told(self.of)]
        lines += self._tree(self.of, self.graph.sources, "", set())
        if self.graph.users.get(self.of):
            lines += ["used by"]
            lines += self._tree(self.of, self.graph.users, "", set())
        return "\n".join(lines)

    def _told(self, node: Node) -> str:
        detail = self.graph.details.get(node)
        return f"{node} ({detail})" if detail else str(node)

    def _tree(
        self, node: Node, following: Mapping[Node, tuple[Node, ...]], indent: str, seen: set[Node]
    ) -> list[str]:
        lines: list[str] = []
        others = following.get(node, ())
        for other in others:
            last = other == others[-1]
            again = other in seen and bool(following.get(other))
            lines.append(
                f"{indent}{'└─' if last else '├─'} {self._told(other)}{', as above' * again}"
            )
            if other not in seen:
                seen.add(other)
                lines += self._tree(other, following, indent + ("   " if last else "│  "), seen)
        return lines

    def svg(self) -> str:
        """Return the drawing: streams to the left, models to the right. It needs nothing else."""
        places = self._places()
        width = max(x for x, _ in places.values()) + _WIDTH_PX + _MARGIN_PX
        height = max(y for _, y in places.values()) + _HEIGHT_PX + _MARGIN_PX
        lines = [
            _line(places[source], places[node])
            for node, sources in self.graph.sources.items()
            for source in sources
            if node in places and source in places
        ]
        boxes = [self._box(node, *place) for node, place in places.items()]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif">'
            f"{''.join(lines)}{''.join(boxes)}</svg>"
        )

    def _places(self) -> dict[Node, tuple[int, int]]:
        """Return where each thing's box is: a column further right than all it is made of."""
        shown = list(self.graph.sources)
        if len(shown) > NODES_DRAWN_MAX:
            shown = list(self._upstream)[:NODES_DRAWN_MAX]
        ranks: dict[Node, int] = {}

        def rank(node: Node) -> int:
            if node not in ranks:
                below = [rank(s) for s in self.graph.sources.get(node, ()) if s in shown]
                ranks[node] = 1 + max(below, default=-1)
            return ranks[node]

        columns: dict[int, list[Node]] = {}
        for node in sorted(shown, key=lambda n: (KINDS.index(n.kind), n.name, n.version or 0)):
            columns.setdefault(rank(node), []).append(node)
        rows = max(len(nodes) for nodes in columns.values())
        step = _HEIGHT_PX + _GAP_Y_PX
        return {
            node: (
                _MARGIN_PX + column * (_WIDTH_PX + _GAP_X_PX),
                _MARGIN_PX + row * step + (rows - len(nodes)) * step // 2,
            )
            for column, nodes in columns.items()
            for row, node in enumerate(nodes)
        }

    def _box(self, node: Node, x: int, y: int) -> str:
        colour = _COLOURS[node.kind]
        chosen = 2.5 if node == self.of else 1
        kind = node.kind.replace("_", " ")
        detail = self.graph.details.get(node, "")
        title = text(self._told(node))
        small = f"{kind}: {detail}" if detail else kind
        return (
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_WIDTH_PX}" '
            f'height="{_HEIGHT_PX}" rx="5" fill="{colour}" fill-opacity="0.12" stroke="{colour}" '
            f'stroke-width="{chosen}"/>'
            f'<text x="{x + 10}" y="{y + 18}" font-size="12.5" font-weight="600" '
            f'fill="currentColor">{text(_cut(node.label, _LABEL_MAX))}</text>'
            f'<text x="{x + 10}" y="{y + 33}" font-size="10" fill="{_SOFT}">'
            f"{text(_cut(small, _DETAIL_MAX))}</text></g>"
        )

    def _repr_html_(self) -> str:
        hidden = len(self.graph.sources) > NODES_DRAWN_MAX
        figures = [
            ("comes from", ", ".join(self.streams) or "no stream"),
            ("used by", ", ".join(self.users) or "nothing yet"),
        ]  # fmt: skip
        notes = ["not all of it is drawn"] if hidden else []
        return card("Lineage", figures, subtitle=str(self.of), svg=self.svg(), notes=notes)


_SOFT = "var(--jp-ui-font-color2, #767676)"


def _cut(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + _WIDTH_PX, start[1] + _HEIGHT_PX // 2
    to_x, to_y = end[0], end[1] + _HEIGHT_PX // 2
    bend = _GAP_X_PX // 2
    return (
        f'<path d="M{x} {y} C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}" fill="none" '
        f'stroke="#8a8a8a" stroke-opacity="0.7"/>'
    )
