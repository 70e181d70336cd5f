"""Lineage as a user sees it: a tree in a terminal, a drawing in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from fs_notebook.catalog.graph import KINDS, Graph, Node
from fs_notebook.model.card import card, text

NODES_DRAWN_MAX = 120
_LABEL_MAX, _DETAIL_MAX = 18, 24
_WIDTH_PX, _HEIGHT_PX, _GAP_X_PX, _GAP_Y_PX, _LANE_PX, _MARGIN_PX = 138, 42, 30, 14, 6, 6
_Slot = tuple[Node, int | None]
"""A thing's box; or, with a column, where a line from it passes by."""

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
        layers = self._layers()
        places = _places(layers)
        width = _MARGIN_PX * 2 + len(layers) * (_WIDTH_PX + _GAP_X_PX) - _GAP_X_PX
        height = max(y + (_HEIGHT_PX if at is None else 0) for (_, at), (_, y) in places.items())
        lines = [
            _line(places, source, node)
            for node, sources in self.graph.sources.items()
            for source in sources
            if (node, None) in places and (source, None) in places
        ]
        boxes = [self._box(node, *xy) for (node, at), xy in places.items() if at is None]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + _MARGIN_PX}" '
            f'width="{width}" height="{height + _MARGIN_PX}" font-family="sans-serif">'
            f"{''.join(dict.fromkeys(lines))}{''.join(boxes)}</svg>"
        )

    def _layers(self) -> list[list[_Slot]]:
        """Return what stands in each column: each thing further right than all it is made of.

        A line to a thing some columns further on goes by a slot of its own in each between, one
        for all lines from the same thing, so that none runs across a box.
        """
        shown = list(self.graph.sources)
        if len(shown) > NODES_DRAWN_MAX:
            shown = list(self._upstream)[:NODES_DRAWN_MAX]
        ranks: dict[Node, int] = {}

        def rank(node: Node) -> int:
            if node not in ranks:
                below = [rank(s) for s in self.graph.sources.get(node, ()) if s in shown]
                ranks[node] = 1 + max(below, default=-1)
            return ranks[node]

        for node in sorted(shown, key=lambda n: (KINDS.index(n.kind), n.name, n.version or 0)):
            rank(node)
        layers: list[list[_Slot]] = [[] for _ in range(1 + max(ranks.values()))]
        for node, place in ranks.items():
            layers[place].append((node, None))
        before: dict[_Slot, list[_Slot]] = {}
        for node, place in ranks.items():
            for source in (s for s in self.graph.sources.get(node, ()) if s in ranks):
                way: list[_Slot] = [(source, at) for at in range(ranks[source] + 1, place)]
                for slot in way:
                    if slot not in layers[slot[1] or 0]:
                        layers[slot[1] or 0].append(slot)
                for former, slot in zip([(source, None), *way], [*way, (node, None)], strict=True):
                    before.setdefault(slot, []).append(former)
        for left, layer in pairwise(layers):
            layer.sort(key=lambda slot: _middle(before.get(slot, []), left))
        return layers

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
            f'<text x="{x + 10}" y="{y + 18}" font-size="12" font-weight="600" '
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


def _middle(slots: Sequence[_Slot], layer: Sequence[_Slot]) -> float:
    """Return the mean place of slots among those of a layer."""
    return sum(layer.index(slot) for slot in slots) / max(len(slots), 1)


def _places(layers: Sequence[Sequence[_Slot]]) -> dict[_Slot, tuple[int, int]]:
    """Return where each slot is: a box by its upper left corner, a line's by its left end."""
    heights = [
        sum((_HEIGHT_PX if at is None else _LANE_PX) + _GAP_Y_PX for _, at in layer) - _GAP_Y_PX
        for layer in layers
    ]
    places: dict[_Slot, tuple[int, int]] = {}
    for column, layer in enumerate(layers):
        y = _MARGIN_PX + (max(heights) - heights[column]) // 2
        for slot in layer:
            tall = _HEIGHT_PX if slot[1] is None else _LANE_PX
            places[slot] = (
                _MARGIN_PX + column * (_WIDTH_PX + _GAP_X_PX),
                y if slot[1] is None else y + tall // 2,
            )
            y += tall + _GAP_Y_PX
    return places


def _line(places: Mapping[_Slot, tuple[int, int]], source: Node, node: Node) -> str:
    """Return the line from a thing to what is made of it, by way of the slots between."""
    x, y = places[source, None]
    y += _HEIGHT_PX // 2
    path = f"M{x + _WIDTH_PX} {y}"
    to_x, to_y = places[node, None]
    lanes = sorted(xy for (n, at), xy in places.items() if n == source and at is not None)
    for end_x, end_y in [*(xy for xy in lanes if xy[0] < to_x), (to_x, to_y + _HEIGHT_PX // 2)]:
        bend = _GAP_X_PX // 2
        path += f" C{end_x - bend} {y} {end_x - bend} {end_y} {end_x} {end_y}"
        y = end_y
        if end_x != to_x:
            path += f" H{end_x + _WIDTH_PX}"
    return f'<path d="{path}" fill="none" stroke="#8a8a8a" stroke-opacity="0.7"/>'
