"""How a comparison of two versions looks in a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from fs_notebook.comparison import Comparison, FeatureComparison
from fs_notebook.jupyter.chart import Distribution
from fs_notebook.jupyter.display import CHARTS_SHOWN, figure_of, figures
from fs_notebook.jupyter.table import Column, Markup, Table, card, tag
from fs_notebook.jupyter.values import clean, count, number
from fs_notebook.model.chart import CONFIG, SCHEMA

POINTS_MAX = 400
_GREY, _BLUE = "#8a8a8a", "#3f87c9"
_SIZE_PX = 190


def comparison_html(found: Comparison) -> str:
    """Return a comparison as HTML: figures, features side by side, differences, scatter plots."""
    name = clean(found.name)
    serves = None if found.serving is None else tag("span", f"v{found.serving} serves")
    title = tag("p", tag("strong", name), tag("span", clean(found.line)), serves,
                class_="fsn-title")  # fmt: skip
    shown = [(clean(n), clean(text, length_max=200)) for n, text in found.figures()]
    notes = [tag("p", clean(n, length_max=400), class_="fsn-note") for n in found.notes()]
    features = Table(
        found.rows(), columns=_feature_columns(found), title="Features in both versions",
        empty="No feature is in both versions.",
    ).markup()  # fmt: skip
    largest = None
    if found.largest:
        table = Table(found.examples(), title="Largest differences").markup()
        largest = tag("div", table, style="margin-top:12px")
    return card(
        f"Comparison of {name}", title, figures(shown), *notes, features, _charts(found), largest
    )


def _feature_columns(found: Comparison) -> list[Column]:
    names = list(found.rows()[0]) if found.rows() else []
    return [Column(n, n, right=i > 1) for i, n in enumerate(names)]


def _charts(found: Comparison) -> Markup | None:
    drawn = [f for f in found.features if f.numbers][:CHARTS_SHOWN]
    if not drawn:
        return None
    return tag(
        "div",
        *(figure_of(scatter(found, f), what="Scatter plot") for f in drawn),
        class_="fsn-charts",
    )


def scatter(found: Comparison, feature: FeatureComparison) -> Distribution:
    """Draw one feature's values in the second version against those in the first.

    Of many entities the farthest from the diagonal are drawn, and some of the others.
    """
    first, second = found.versions
    frame = pl.DataFrame(
        {
            "a": found.column(feature.feature, 0).cast(pl.Float64),
            "b": found.column(feature.feature, 1).cast(pl.Float64),
        }
    ).filter(pl.col("a").is_finite() & pl.col("b").is_finite())
    total = frame.height
    gap = (pl.col("b") - pl.col("a")).abs()
    equal = gap <= 1e-9 * pl.max_horizontal(pl.col("a").abs(), pl.col("b").abs()) + 1e-12
    frame = frame.with_columns(what=pl.when(equal).then(pl.lit("=")).otherwise(pl.lit("≠")))
    if total > POINTS_MAX:
        far = frame.sort(gap, descending=True).head(POINTS_MAX // 2)
        others = frame.sort(gap, descending=True).slice(POINTS_MAX // 2)
        frame = pl.concat([others.gather_every(-(-others.height // (POINTS_MAX // 2))), far])
    facts = [f"{feature.percent_equal} equal"]
    if feature.greatest:
        facts.append(f"mean difference {number(feature.mean_difference or 0.0)}")
        facts.append(f"greatest {number(feature.greatest)}")
    if total > frame.height:
        facts.append(f"{count(frame.height)} of {count(total)} entities drawn")
    kind = " → ".join(dict.fromkeys(feature.types))
    return Distribution(
        feature.feature, kind, tuple(facts), _spec(frame, f"v{first}", f"v{second}")
    )


def _spec(frame: pl.DataFrame, first: str, second: str) -> dict[str, Any] | None:
    least, most = _ends([*frame["a"], *frame["b"]])
    if not (math.isfinite(least) and math.isfinite(most) and least < most < math.inf):
        return None
    scale = {"domain": [least, most], "nice": False, "zero": False}
    axis = {"tickCount": 4, "format": "~s"}
    x = {"field": "a", "type": "quantitative", "title": first, "scale": scale, "axis": axis}
    y = {"field": "b", "type": "quantitative", "title": second, "scale": scale, "axis": axis}
    color = {
        "field": "what", "type": "nominal", "legend": None,
        "scale": {"domain": ["=", "≠"], "range": [_GREY, _BLUE]},
    }  # fmt: skip
    corners = [{"a": least, "b": least}, {"a": most, "b": most}]
    return {
        "$schema": SCHEMA,
        "width": _SIZE_PX,
        "height": _SIZE_PX,
        "layer": [
            {
                "data": {"values": corners},
                "mark": {"type": "line", "strokeDash": [4, 3], "color": _GREY, "strokeWidth": 1},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": frame.to_dicts()},
                "mark": {"type": "point", "filled": True, "size": 22, "opacity": 0.7},
                "encoding": {"x": x, "y": y, "color": color},
            },
        ],
        "config": dict(CONFIG),
    }  # fmt: skip


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return a range that holds all values, and some room around them."""
    least, most = min(values), max(values)
    room = (most - least) / 25 or abs(least) / 10 or 1.0
    return least - room, most + room
