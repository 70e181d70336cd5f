"""The pictures of a lift as Vega-Lite: plain dictionaries, each fit for a notebook's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fs_notebook.model.chart import (
    CANDIDATE,
    CHAR_PX,
    CONFIG,
    CONTROL,
    LABEL_MARGIN_PX,
    PALETTE,
    SCHEMA,
    TEXT,
    number_axis,
    number_format,
)
from fs_notebook.model.verdict import HELPS, LEAK

if TYPE_CHECKING:
    from fs_notebook.model.drift import Drift
    from fs_notebook.model.lift import Lift
    from fs_notebook.model.shapes import Distribution

TITLES: Mapping[str, str] = {
    "folds": "Folds",
    "calibration": "Calibration",
    "importance": "Importance",
    "distribution": "Values by label",
    "drift": "Drift",
}
"""The names of the pictures beside the main one, and what they are called."""

Spec = dict[str, Any]
_ROW_PX = 28
METRIC_PX = 190
_LABEL_MAX = 22
_ZERO: Spec = {"strokeDash": [3, 3], "color": TEXT, "type": "rule"}
_PLAIN_ROWS: Spec = {"ticks": False, "domain": False, "labelPadding": 8}
_DOT: Spec = {"type": "point", "filled": True, "size": 75, "opacity": 1}


def _whole(**parts: Any) -> Spec:
    padding = {"left": LABEL_MARGIN_PX, "top": 5, "right": 5, "bottom": 5}
    return {"$schema": SCHEMA, **parts, "padding": padding, "config": dict(CONFIG)}


def _beside(panels: Sequence[Spec]) -> Spec:
    # Panels colour by the same field, each by its own rows.
    return _whole(
        hconcat=list(panels), spacing=28, resolve={"scale": {"color": "independent"}}
    )  # fmt: skip


def _grid(panels: Sequence[Spec]) -> Spec:
    return _whole(
        concat=list(panels), columns=2, spacing={"row": 18, "column": 40},
        resolve={"scale": {"color": "shared", "x": "independent", "y": "independent"}},
    )  # fmt: skip


def lift_specs(lift: Lift) -> dict[str, Spec]:
    """Return all pictures of a lift that have something to show."""
    found = {"lift": lift_spec(lift)}
    if len(lift.folds) > 1:
        found["folds"] = folds_spec(lift)
    if lift.calibration:
        found["calibration"] = calibration_spec(lift)
    if lift.importances:
        found["importance"] = importance_spec(lift)
    if lift.distributions:
        found["distribution"] = _grid([_distribution(d) for d in lift.distributions])
    if lift.drifts:
        found["drift"] = _grid([_drift(d) for d in lift.drifts])
    return found


def lift_spec(lift: Lift) -> Spec:
    """Return the difference beside its controls, and the metric itself."""
    label = lift.name if len(lift.name) <= _LABEL_MAX else "this feature"
    if len(lift.candidate) > 1:
        label = f"these {len(lift.candidate)} features"
    rows = [_row(label, lift.difference, lift.low, lift.high)]
    named = {"shuffled": "shuffled (control)", "random": "random (control)"}
    rows += [_row(named.get(c.name, c.name), c.difference, c.low, c.high) for c in lift.controls]
    colors = [CANDIDATE] + [CONTROL] * len(lift.controls)
    return _beside([_intervals(rows, colors, lift.metric, 320), _metric(lift)])


def ranked_spec(lifts: Sequence[Lift]) -> Spec:
    """Return each candidate's difference on its interval, best first."""
    rows = [_row(_short(o.name), o.difference, o.low, o.high) for o in lifts]
    found = {HELPS: CANDIDATE, LEAK: PALETTE[1]}
    colors = [found.get(o.verdict, CONTROL) for o in lifts]
    return _beside([_intervals(rows, colors, lifts[0].metric, 420)])


def _short(name: str) -> str:
    return name if len(name) <= 32 else name[:31] + "…"


def _row(what: str, value: float, low: float, high: float) -> Spec:
    return {"what": what, "value": value, "low": low, "high": high}


def _intervals(rows: list[Spec], colors: list[str], metric: str, width: int) -> Spec:
    """Rows with a dot on its 95% interval, and a line at zero."""
    y = {"field": "what", "type": "nominal", "sort": None, "title": None, "axis": _PLAIN_ROWS}
    color = {
        "field": "what", "type": "nominal", "legend": None,
        "scale": {"domain": [r["what"] for r in rows], "range": colors},
    }  # fmt: skip
    ends = [0.0, *(r[e] for r in rows for e in ("low", "high"))]
    x = {"type": "quantitative", "axis": number_axis(ends, width, signed=True)}
    title = f"what it adds to {metric}, with its 95% interval"
    return {
        "width": width,
        "height": len(rows) * _ROW_PX,
        "data": {"values": rows},
        "layer": [
            {"mark": _ZERO, "encoding": {"x": {"datum": 0, "type": "quantitative"}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": {
                    "x": {"field": "low", "title": title, **x}, "x2": {"field": "high"},
                    "y": y, "color": color,
                },
            },
            {"mark": _DOT, "encoding": {"x": {"field": "value", **x}, "y": y, "color": color}},
        ],
    }  # fmt: skip


def _metric(lift: Lift) -> Spec:
    """The metric without and with the candidate, each with its figure."""
    pair = (lift.without, lift.with_)
    # A figure says at least what the axis tells apart.
    form = number_format(pair, digits_min=4 if max(map(abs, pair)) < 10 else 1)
    shown = [format(value, form) for value in pair]
    rows = [
        {"what": what, "value": value, "shown": text}
        for what, value, text in zip(("without", "with"), pair, shown, strict=True)
    ]
    y = {"field": "what", "type": "nominal", "sort": None, "title": None, "axis": _PLAIN_ROWS}
    x = {
        "field": "value", "type": "quantitative", "title": lift.metric,
        "scale": {"zero": False, "padding": max(22, max(map(len, shown)) * CHAR_PX // 2)},
        "axis": number_axis(pair, METRIC_PX),
    }  # fmt: skip
    return {
        "width": METRIC_PX,
        "height": 2 * _ROW_PX,
        "data": {"values": rows},
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": _DOT, "encoding": {"color": _two_colors(legend=False)}},
            {
                "mark": {"type": "text", "dy": -11, "color": TEXT, "fontSize": 11},
                "encoding": {"text": {"field": "shown"}},
            },
        ],
    }


def _two_colors(*, legend: bool = True) -> Spec:
    return {
        "field": "what", "type": "nominal",
        "legend": {"orient": "top", "title": None} if legend else None,
        "scale": {"domain": ["without", "with"], "range": [CONTROL, CANDIDATE]},
    }  # fmt: skip


def folds_spec(lift: Lift) -> Spec:
    """Return the metric in each fold without and with, and each fold's own difference."""
    names = [f"{i + 1}" for i in range(len(lift.folds))]
    rows: list[Spec] = [
        {"fold": n, "what": what, "value": value}
        for n, f in zip(names, lift.folds, strict=True)
        for what, value in (("without", f.without), ("with", f.with_))
    ]
    x = {"field": "fold", "type": "ordinal", "sort": None, "axis": {"labelAngle": 0},
         "title": "fold, in the order of time"}  # fmt: skip
    values = [r["value"] for r in rows]
    metric: Spec = {
        "width": 240, "height": 130, "data": {"values": rows},
        "encoding": {
            "x": x, "color": _two_colors(),
            "y": {"field": "value", "type": "quantitative", "title": lift.metric,
                  "scale": {"zero": False, "padding": 8},
                  "axis": {"tickCount": 4, "format": number_format(values)}},
        },
        "layer": [{"mark": {"type": "line", "strokeWidth": 1.5}}, {"mark": _DOT}],
    }  # fmt: skip
    each: list[Spec] = [
        {"fold": n, "value": f.difference, "low": f.low, "high": f.high}
        for n, f in zip(names, lift.folds, strict=True)
    ]
    ends = [0.0, *(r[e] for r in each for e in ("low", "high"))]
    y = {"type": "quantitative", "axis": {"tickCount": 4, "format": f"+{number_format(ends)}"}}
    title = f"adds to {lift.metric}"
    difference: Spec = {
        "width": 240, "height": 130, "data": {"values": each},
        "layer": [
            {"mark": _ZERO, "encoding": {"y": {"datum": 0, "type": "quantitative"}}},
            {"mark": {"type": "rule", "strokeWidth": 2.5, "color": CANDIDATE},
             "encoding": {"x": x, "y": {"field": "low", "title": title, **y},
                          "y2": {"field": "high"}}},
            {"mark": {**_DOT, "color": CANDIDATE},
             "encoding": {"x": x, "y": {"field": "value", **y}}},
        ],
    }  # fmt: skip
    return _beside([metric, difference])


def calibration_spec(lift: Lift) -> Spec:
    """Return what was predicted against what came true, in tenths."""
    rows: list[Spec] = [
        {"what": c.what, "predicted": p, "true": t, "rows": n}
        for c in lift.calibration
        for p, t, n in c.points
    ]
    ends = [r[e] for r in rows for e in ("predicted", "true")]
    line = [{"at": min(ends)}, {"at": max(ends)}]
    titles = ("predicted", f"{lift.target}, on average")
    if len(lift.classes) == 2:
        titles = (f"predicted chance of {lift.classes[1]}", f"share of {lift.classes[1]}")
    elif lift.classes:
        titles = ("chance of the likeliest class", "share for which it was that one")
    axis = {"tickCount": 5, "format": number_format(ends)}
    scale = {"zero": False, "nice": False, "padding": 8}

    def channel(field: str, title: str) -> Spec:
        return {"field": field, "type": "quantitative", "title": title, "axis": axis,
                "scale": scale}  # fmt: skip

    x, y = channel("predicted", titles[0]), channel("true", titles[1])
    return _whole(
        width=300, height=210,
        layer=[
            {"data": {"values": line},
             "mark": {"type": "line", "strokeDash": [3, 3], "color": TEXT, "strokeWidth": 1},
             "encoding": {"x": {**x, "field": "at"}, "y": {**y, "field": "at"}}},
            {"data": {"values": rows}, "mark": {"type": "line", "strokeWidth": 1.5},
             "encoding": {"x": x, "y": y, "color": _two_colors()}},
            {"data": {"values": rows}, "mark": _DOT,
             "encoding": {"x": x, "y": y, "color": _two_colors()}},
        ],
    )  # fmt: skip


def importance_spec(lift: Lift) -> Spec:
    """Return what the metric loses when one column is shuffled: bars, the candidate's in colour."""
    rows: list[Spec] = [
        {"column": _short(name), "lost": lost, "what": name in lift.candidate}
        for name, lost in lift.importances
    ]
    ends = [0.0, *(r["lost"] for r in rows)]
    return _whole(
        width=380, height=max(len(rows) * 20, 40), data={"values": rows},
        mark={"type": "bar", "height": 11},
        encoding={
            "y": {"field": "column", "type": "nominal", "sort": None, "title": None,
                  "axis": _PLAIN_ROWS},
            "x": {"field": "lost", "type": "quantitative",
                  "title": f"{lift.metric} lost when it is shuffled",
                  "axis": number_axis(ends, 380)},
            "color": {"field": "what", "type": "nominal", "legend": None,
                      "scale": {"domain": [True, False], "range": [CANDIDATE, CONTROL]}},
        },
    )  # fmt: skip


def _distribution(shape: Distribution) -> Spec:
    """A histogram for each of the label's values, over each other; of texts, bars beside."""
    names = [name for name, _ in shape.groups]
    rows: list[Spec]
    x: Spec
    color = {
        "field": "label", "type": "nominal",
        "legend": {"orient": "top", "title": None, "columns": 2, "symbolOpacity": 1},
        "scale": {"domain": names, "range": list(PALETTE[: len(names)])},
    }  # fmt: skip
    y = {"field": "share", "type": "quantitative", "title": "share of the label's rows",
         "axis": {"tickCount": 4, "format": "%"}, "stack": None}  # fmt: skip
    if shape.names:
        rows = [
            {"value": _short(v), "label": label, "share": s}
            for label, shares in shape.groups
            for v, s in zip(shape.names, shares, strict=True)
        ]
        x = {"field": "value", "type": "nominal", "sort": None, "title": shape.column,
             "axis": {"labelAngle": -30, "labelLimit": 90}}  # fmt: skip
        encoding = {"x": x, "y": y, "color": color, "xOffset": {"field": "label", "sort": names}}
        return {"width": 240, "height": 130, "data": {"values": rows}, "mark": {"type": "bar"},
                "encoding": encoding}  # fmt: skip
    rows = []
    for label, shares in shape.groups:
        steps = [*shares, shares[-1]]
        rows += [
            {"value": e, "label": label, "share": s}
            for e, s in zip(shape.edges, steps, strict=True)
        ]
    x = {
        "field": "value", "type": "quantitative", "title": shape.column,
        "scale": {"zero": False, "nice": False}, "axis": {"tickCount": 5, "format": "~s"},
    }  # fmt: skip
    area: Spec = {
        "type": "area",
        "interpolate": "step-after",
        "opacity": 0.25,
        "line": {"strokeWidth": 1.5},
    }
    return {"width": 240, "height": 130, "data": {"values": rows}, "mark": area,
            "encoding": {"x": x, "y": y, "color": color}}  # fmt: skip


def _drift(drift: Drift) -> Spec:
    """Median and quartiles over time where there are numbers; below, the PSI of each slice."""
    rows = [
        {"at": _utc(s.at), "low": s.low, "median": s.median, "high": s.high, "psi": s.psi}
        for s in drift.slices
    ]
    days = (drift.slices[-1].at - drift.slices[0].at).days if drift.slices else 0
    shown = "%d %H:%M" if days < 3 else "%b %d" if days < 300 else "%b %Y"
    x: Spec = {
        "field": "at", "type": "temporal", "scale": {"type": "utc"}, "title": None,
        "axis": {"tickCount": 4, "format": shown, "labelOverlap": True, "labelSeparation": 8},
    }  # fmt: skip
    y = {"type": "quantitative", "scale": {"zero": False}, "axis": {"tickCount": 3, "format": "~s"}}
    bars: Spec = {
        "width": 240, "height": 45,
        "mark": {"type": "line", "point": {"color": TEXT}, "color": TEXT},
        "encoding": {"x": {**x, "title": f"{_short(drift.column)}, time (UTC)"},
                     "y": {"field": "psi", "type": "quantitative", "title": "PSI",
                           "axis": {"tickCount": 2, "format": ".2~f"}}},
    }  # fmt: skip
    if all(s.median is None for s in drift.slices):
        return {"data": {"values": rows}, **bars}
    values: Spec = {
        "width": 240, "height": 100,
        "layer": [
            {"mark": {"type": "area", "color": CANDIDATE, "opacity": 0.25},
             "encoding": {"x": x, "y": {"field": "low", "title": "quartiles, median", **y},
                          "y2": {"field": "high"}}},
            {"mark": {"type": "line", "color": CANDIDATE},
             "encoding": {"x": x, "y": {"field": "median", **y}}},
        ],
    }  # fmt: skip
    return {"data": {"values": rows}, "vconcat": [values, bars], "spacing": 8}


def _utc(at: datetime) -> str:
    return at.isoformat()
