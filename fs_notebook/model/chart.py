"""Charts that need no network and no script: Vega-Lite, drawn to SVG here.

The specifications are plain dictionaries, since importing Altair takes more than a second;
`altair.Chart.from_dict` makes an Altair chart of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fs_notebook.errors import UsageError
from fs_notebook.model.card import steers

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# These keep a contrast of 3:1 or more on white and on JupyterLab's dark background alike.
TEXT, CANDIDATE, CONTROL = "#7b7b7b", "#3f87c9", "#8a8a8a"
PALETTE = ("#3f87c9", "#c97a1b", "#3f9a5c", "#b05fb0", "#8a8a8a")
CONFIG: Mapping[str, Any] = {
    # The drawing has one name as a whole; its marks would be read out one by one.
    "aria": False,
    "mark": {"aria": False},
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": TEXT, "titleColor": TEXT, "domainColor": TEXT, "tickColor": TEXT,
        "gridColor": TEXT, "gridOpacity": 0.2, "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "titlePadding": 8, "labelLimit": 0, "labelFlush": False,
    },
    "title": {"color": TEXT, "fontSize": 11, "fontWeight": "normal", "anchor": "start"},
    "legend": {"labelColor": TEXT, "titleColor": TEXT, "labelFontSize": 11, "labelLimit": 150},
}  # fmt: skip
CHAR_PX, LABEL_GAP_PX = 7, 12
"""How wide a figure of a label is at most, in most fonts, and the least gap between labels."""
_WHOLE_FROM = 100
LABEL_MARGIN_PX = 20
"""The reader's font may be wider than the one that the drawing was measured with."""


def svg_of(spec_or_chart: Any) -> str:
    """Return the SVG of a Vega-Lite specification or of an Altair chart, drawn offline.

    What it says in words has the colour of the text around it.

    Nothing is fetched: a chart whose data lie elsewhere is an error, not a request.

    Raises
    ------
    UsageError
        If it cannot be drawn.
    """
    # Loading the renderer takes a moment that only who looks at a chart should spend.
    import vl_convert

    spec = spec_or_chart if isinstance(spec_or_chart, Mapping) else spec_or_chart.to_dict()
    try:
        svg: str = vl_convert.vegalite_to_svg(drawable(dict(spec)), allowed_base_urls=[])
    except ValueError as error:
        raise UsageError(
            "The chart could not be drawn.",
            found=str(error).strip().splitlines()[0],
            remedy="data in the chart itself, and valid Vega-Lite",
        ) from None
    return svg.replace(f'fill="{TEXT}"', 'fill="currentColor"')


def altair_of(spec: Mapping[str, Any]) -> Any:
    """Return a specification as an Altair chart, to be changed and combined."""
    import altair

    kinds: dict[str, Any] = {"hconcat": altair.HConcatChart, "concat": altair.ConcatChart,
             "layer": altair.LayerChart}  # fmt: skip
    kind = next((k for name, k in kinds.items() if name in spec), altair.Chart)
    return kind.from_dict(drawable(dict(spec)))


def drawable(part: Any) -> Any:
    """Return a specification whose texts can be drawn.

    A control character in one, a value of somebody's data, say, ends the renderer, and the kernel
    with it; a new line is none that it takes.
    """
    if isinstance(part, str):
        told = part.replace("\r\n", " ").replace("\n", " ")
        return "".join("\ufffd" if steers(c) else c for c in told)
    if isinstance(part, Mapping):
        return {name: drawable(value) for name, value in part.items()}
    return [drawable(value) for value in part] if isinstance(part, (list, tuple)) else part


def number_format(values: Sequence[float], *, digits_min: int = 1) -> str:
    """Return the number format by which ticks between `values` are told apart."""
    known = [v for v in values if math.isfinite(v)] or [0.0]
    spread = max(known) - min(known)
    if spread >= _WHOLE_FROM:
        return ",.0f"
    digits = 2 - math.floor(math.log10(spread)) if spread > 0 else 2
    return f".{min(max(digits - 1, digits_min), 12)}f"


def number_axis(values: Sequence[float], width: int, *, signed: bool = False) -> dict[str, Any]:
    """Return an axis for numbers along a width in pixels, with no more labels than fit beside
    each other."""
    form = ("+" if signed else "") + number_format(values)
    known = [v for v in values if math.isfinite(v)] or [0.0]
    label_px = max(len(format(v, form)) for v in known) * CHAR_PX + LABEL_GAP_PX
    # Ticks are at round numbers: there may be one more than was asked for.
    count = min(max(int(width // label_px) - 1, 1), 5)
    return {"tickCount": count, "format": form, "labelSeparation": LABEL_GAP_PX // 2}
