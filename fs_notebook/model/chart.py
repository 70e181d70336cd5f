"""Charts that need no network and no script: Vega-Lite, drawn to SVG here.

The specifications are plain dictionaries, since importing Altair takes more than a second;
`altair.Chart.from_dict` makes an Altair chart of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fs_notebook.errors import UsageError

if TYPE_CHECKING:
    from fs_notebook.model.lift import Lift

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
# These keep a contrast of 3:1 or more on white and on JupyterLab's dark background alike.
_TEXT, _CANDIDATE, _CONTROL = "#7b7b7b", "#3f87c9", "#8a8a8a"
CONFIG: Mapping[str, Any] = {
    # The drawing has one name as a whole; its marks would be read out one by one.
    "aria": False,
    "mark": {"aria": False},
    "background": "transparent",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _TEXT, "titleColor": _TEXT, "domainColor": _TEXT, "tickColor": _TEXT,
        "gridColor": _TEXT, "gridOpacity": 0.2, "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "labelLimit": 0, "labelFlush": False,
    },
    "title": {"color": _TEXT, "fontSize": 11, "fontWeight": "normal", "anchor": "start"},
}  # fmt: skip
_ROW_PX = 28
_LABEL_MAX = 22
_LABEL_MARGIN_PX = 20
"""The reader's font may be wider than the one that the drawing was measured with."""


def svg_of(spec_or_chart: Any) -> str:
    """Return the SVG of a Vega-Lite specification or of an Altair chart, drawn offline.

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
        svg: str = vl_convert.vegalite_to_svg(dict(spec), allowed_base_urls=[])
    except ValueError as error:
        raise UsageError(
            "The chart could not be drawn.",
            found=str(error).strip().splitlines()[0],
            remedy="data in the chart itself, and valid Vega-Lite",
        ) from None
    return svg


def lift_spec(lift: Lift) -> dict[str, Any]:
    """Return a lift as Vega-Lite: the difference beside its control, and the metric itself."""
    return {
        "$schema": SCHEMA,
        "hconcat": [_difference(lift), _metric(lift)],
        "spacing": 28,
        "padding": {"left": _LABEL_MARGIN_PX, "top": 5, "right": 5, "bottom": 5},
        # Both panels colour by `what`, each by its own rows.
        "resolve": {"scale": {"color": "independent"}},
        "config": dict(CONFIG),
    }


def lift_chart(lift: Lift) -> Any:
    """Return the same as an Altair chart, to be changed and combined."""
    import altair

    return altair.HConcatChart.from_dict(lift_spec(lift))


def _label(lift: Lift) -> str:
    """Return what the candidate's row is called: the card's title has all of its names."""
    if len(lift.candidate) > 1:
        return f"these {len(lift.candidate)} features"
    return lift.name if len(lift.name) <= _LABEL_MAX else "this feature"


def _difference(lift: Lift) -> dict[str, Any]:
    """Two rows, candidate and control: a dot on its 95% interval, and a line at zero."""
    candidate, control = _label(lift), "shuffled (control)"
    rows = [
        _row(candidate, lift.difference, lift.low, lift.high),
        _row(control, lift.noise_difference, lift.noise_low, lift.noise_high),
    ]
    y = {
        "field": "what", "type": "nominal", "sort": None, "title": None,
        "axis": {"ticks": False, "domain": False, "labelPadding": 8},
    }  # fmt: skip
    color = {
        "field": "what", "type": "nominal", "legend": None,
        "scale": {"domain": [candidate, control], "range": [_CANDIDATE, _CONTROL]},
    }  # fmt: skip
    ends = (0.0, lift.low, lift.high, lift.noise_low, lift.noise_high)
    x = {"type": "quantitative", "axis": {"tickCount": 5, "format": f"+{_format(ends)}"}}
    title = f"what it adds to {lift.metric}, with its 95% interval"
    zero = {"strokeDash": [3, 3], "color": _TEXT, "type": "rule"}
    interval = {"type": "rule", "strokeWidth": 2.5}
    return {
        "width": 320,
        "height": 2 * _ROW_PX,
        "data": {"values": rows},
        "layer": [
            {"mark": zero, "encoding": {"x": {"datum": 0, "type": "quantitative"}}},
            {
                "mark": interval,
                "encoding": {
                    "x": {"field": "low", "title": title, **x}, "x2": {"field": "high"},
                    "y": y, "color": color,
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
                "encoding": {"x": {"field": "value", **x}, "y": y, "color": color},
            },
        ],
    }  # fmt: skip


def _format(values: Sequence[float]) -> str:
    """Return the number format by which ticks between `values` are told apart."""
    spread = max(values) - min(values)
    digits = 2 - math.floor(math.log10(spread)) if spread > 0 else 2
    return f".{min(max(digits - 1, 1), 12)}f"


def _row(what: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {"what": what, "value": value, "low": low, "high": high}


def _metric(lift: Lift) -> dict[str, Any]:
    """The metric without and with the candidate, each with its figure."""
    rows = [
        {"what": "without", "value": lift.without, "shown": f"{lift.without:.4f}"},
        {"what": "with", "value": lift.with_, "shown": f"{lift.with_:.4f}"},
    ]
    y = {
        "field": "what", "type": "nominal", "sort": None, "title": None,
        "axis": {"ticks": False, "domain": False, "labelPadding": 8},
    }  # fmt: skip
    x = {
        "field": "value", "type": "quantitative", "title": lift.metric,
        "scale": {"zero": False, "padding": 22},
        "axis": {"tickCount": 4, "format": _format((lift.without, lift.with_))},
    }  # fmt: skip
    return {
        "width": 170,
        "height": 2 * _ROW_PX,
        "data": {"values": rows},
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
                "encoding": {
                    "color": {
                        "field": "what", "type": "nominal", "legend": None,
                        "scale": {
                            "domain": ["without", "with"], "range": [_CONTROL, _CANDIDATE],
                        },
                    },
                },
            },
            {
                "mark": {"type": "text", "dy": -11, "color": _TEXT, "fontSize": 11},
                "encoding": {"text": {"field": "shown"}},
            },
        ],
    }  # fmt: skip
