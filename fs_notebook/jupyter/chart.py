"""The distribution of one feature's values, as a Vega-Lite chart and as SVG.

The charts are plain Vega-Lite, which vl-convert draws without a browser and without the network;
`Distribution.chart` hands the same thing over as an Altair chart. Altair takes more than a second
to import, so that no preview waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.jupyter.values import clean, count, number, show
from fs_notebook.model.chart import drawable, svg_of
from fs_notebook.types import Type, type_of

BINS_MAX = 40
TOP = 10
LABEL_MAX = 15
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_BAR = "#3f87c9"
_GREY = "#767676"
_CLIP_ROWS_MIN = 200
_WHOLE_TICKS_MAX = 4
_TIME_STEPS_MS = (
    1, 10, 100, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 10_800_000,
    21_600_000, 43_200_000, 86_400_000, 172_800_000, 604_800_000, 1_209_600_000,
    2_592_000_000, 7_776_000_000, 31_536_000_000, 157_680_000_000, 315_360_000_000,
)  # fmt: skip
_DAY_MS = 86_400_000
# The format alone would call zero "0k" beside "1k".
_SHORT = {"labelExpr": "format(datum.value, '~s')"}
# The whole drawing has one name, given in its figure; its parts have none of their own.
_BARS = {"type": "bar", "aria": False}
_RECTS = {"type": "rect", "aria": False, "xOffset": 0.5, "x2Offset": -0.5}
_CONFIG = {
    "background": "transparent",
    "aria": False,
    "font": "sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": _GREY, "titleColor": _GREY, "domainColor": _GREY, "tickColor": _GREY,
        "labelFontSize": 10, "gridColor": _GREY, "gridOpacity": 0.25, "title": None,
        "tickSize": 3, "labelPadding": 3, "labelLimit": 0,
    },
    "bar": {"color": _BAR},
    "rect": {"color": _BAR},
}  # fmt: skip


@dataclass(frozen=True)
class Distribution:
    """How one feature's values are spread.

    Attributes
    ----------
    feature, type
        The feature's name and its SQL type.
    facts
        Short statements for the caption, in order: range and middle, nulls, what is not drawn.
    spec
        Vega-Lite with its data in it; None where there is nothing to draw.
    """

    feature: str
    type: str
    facts: tuple[str, ...]
    spec: Mapping[str, Any] | None = None

    @property
    def caption(self) -> str:
        return " · ".join(self.facts)

    def svg(self) -> str | None:
        """Return the chart as an `<svg>` element, transparent behind, or None."""
        return None if self.spec is None else svg_of(self.spec)

    def chart(self) -> Any:
        """Return the chart as an `altair.Chart`, to be changed and combined.

        Raises
        ------
        UsageError
            If there is nothing to draw.
        """
        if self.spec is None:
            raise UsageError(
                f"There is no chart of {self.feature!r}.", found=self.caption or "no values"
            )
        import altair

        return altair.Chart.from_dict(drawable(dict(self.spec)))


def distribution(values: pl.Series, *, feature: str | None = None) -> Distribution:
    """Describe a column of feature values and draw what can be drawn of it."""
    name = values.name if feature is None else feature
    try:
        kind = Type.VARCHAR if values.dtype == pl.Null else type_of(values.dtype, column=name)
    except UsageError:
        return Distribution(name, str(values.dtype), (f"{count(values.len())} values",))
    known = values.drop_nulls()
    if known.is_empty():
        fact = "every value is null" if values.len() else "no values"
        return Distribution(name, kind.value, (fact,))
    facts, spec = _drawn(known, kind)
    nulls = values.len() - known.len()
    share = f"{_percent(nulls, values.len())} null" if nulls else "no nulls"
    found = Distribution(name, kind.value, (*facts[:1], share, *facts[1:]))
    return replace(found, spec=spec)


_Drawn = tuple[list[str], dict[str, Any] | None]


def _drawn(known: pl.Series, kind: Type) -> _Drawn:
    if kind.element is not None:
        return _lists(known, kind.element)
    if kind.fields:
        return [f"structs of {', '.join(n for n, _ in kind.fields[:8])}"], None
    if kind.is_decimal:
        return _numbers(known.cast(pl.Float64))
    draw = {
        Type.BIGINT: _numbers,
        Type.DOUBLE: _numbers,
        Type.INTERVAL: _lengths,
        Type.TIMESTAMP: _times,
        Type.DATE: _times,
        Type.VARCHAR: _categories,
        Type.BOOLEAN: _categories,
    }[kind]
    return draw(known)


def _lists(known: pl.Series, element: Type) -> _Drawn:
    """Draw the distribution of what all the lists hold."""
    sizes = known.list.len()
    least, most = sizes.min(), sizes.max()
    assert isinstance(least, int)
    assert isinstance(most, int)
    size = f"{count(most)}" if least == most else f"{count(least)} to {count(most)}"
    held = known.explode().drop_nulls()
    if held.is_empty():
        return [f"lists of {size}", "nothing in them but nulls"], None
    facts, spec = _drawn(held, element)
    return [f"lists of {size}", f"in them: {facts[0]}", *facts[1:]], spec


@dataclass(frozen=True)
class _Bins:
    """Equal bins: the i-th is [start + i * step, start + (i + 1) * step), `counts[i]` in it."""

    start: float
    step: float
    counts: tuple[int, ...]
    below: int
    above: int

    @property
    def end(self) -> float:
        return self.start + self.step * len(self.counts)

    def rows(self) -> list[dict[str, float]]:
        return [
            {"a": self.start + i * self.step, "b": self.start + (i + 1) * self.step, "n": n}
            for i, n in enumerate(self.counts)
            if n
        ]


def _numbers(known: pl.Series) -> _Drawn:
    """Histogram of the finite values, without a tail that would squeeze the rest into one bar."""
    whole = known.dtype.is_integer()
    values = known.cast(pl.Float64)
    finite = values.filter(values.is_finite())
    odd = values.len() - finite.len()
    left_out = [f"{count(odd)} NaN or infinite, not drawn"] if odd else []
    if finite.is_empty():
        return ["no finite value", *left_out], None
    # min, max and median of the column itself keep integers exact.
    exact = known if whole else finite
    least, most = exact.min(), exact.max()
    if least == most:
        return [f"every value is {show(least)}", *left_out], None
    facts = [f"{show(least)} to {show(most)}, median {number(_median(finite))}", *left_out]
    low, high = _clip(finite)
    step = _nice((high - low) / _bins_wanted(finite.len()), whole=whole)
    if whole and high - low < BINS_MAX:
        step = 1.0
    # The bins' own arithmetic goes a little beyond the values on either side.
    widest = 4 * max(abs(low), abs(high), step)
    if not (0 < step < math.inf and widest < math.inf):
        return [*facts, "the range is too wide or too narrow to draw"], None
    bins = _binned(finite, low, high, step, shift=0.5 if whole and step == 1 else 0.0)
    for outside, side, edge in ((bins.below, "below", bins.start), (bins.above, "above", bins.end)):
        if outside:
            facts.append(f"{count(outside)} {side} {number(edge)}, not drawn")
    return facts, _histogram(bins, _axis_format(bins, whole=whole))


def _lengths(known: pl.Series) -> _Drawn:
    """Histogram of lengths of time, in the largest unit that most of them reach."""
    us = known.dt.total_microseconds()
    typical = abs(_median(us.cast(pl.Float64))) or float(us.abs().max())  # type: ignore[arg-type]
    names = {86_400_000_000: "days", 3_600_000_000: "hours", 60_000_000: "minutes"}
    unit = next((u for u in names if typical >= u), 1_000_000)
    facts, spec = _numbers(us / unit)
    return [f"in {names.get(unit, 'seconds')}: {facts[0]}", *facts[1:]], spec


def _times(known: pl.Series) -> _Drawn:
    day = known.dtype == pl.Date
    least, most = known.min(), known.max()
    assert isinstance(least, date)
    assert isinstance(most, date)
    if least == most:
        return [f"every value is {show(least)}"], None
    ms = known.cast(pl.Datetime("us")).dt.epoch("us") / 1_000
    low, high = float(ms.min()), float(ms.max())  # type: ignore[arg-type]
    wanted = max((high - low) / _bins_wanted(ms.len()), _DAY_MS if day else 0)
    step = float(next((s for s in _TIME_STEPS_MS if s >= wanted), wanted))
    bins = _binned(ms, low, high, step)
    spec = _histogram(bins, {"labelOverlap": True}, time=True)
    return [f"{show(least)} to {show(most)}{'' if day else ' UTC'}"], spec


def _categories(known: pl.Series) -> _Drawn:
    counts = (
        known.alias("value").to_frame().group_by("value").len("n")
        .sort(["n", "value"], descending=[True, False])
    )  # fmt: skip
    distinct = counts.height
    top = counts.head(TOP)
    if distinct == 1:
        return [f"every value is {show(top['value'][0])}"], None
    if top["n"][0] == 1:
        return [f"{count(distinct)} different values, each once"], None
    labels: list[str] = []
    for value in top["value"]:
        # Vega would shorten a label between the two halves of a character outside the basic plane,
        # and the renderer ends the whole process on such a half: labels come short enough.
        label = clean(show(value), length_max=LABEL_MAX) or '""'
        while label in labels:
            label += "'"
        labels.append(label)
    rows = [{"value": v, "n": n} for v, n in zip(labels, top["n"], strict=True)]
    drawn = f", the {TOP} most frequent drawn" if distinct > TOP else ""
    # A browser's letters may be wider than those that the drawing was laid out with.
    room = 6 + 6 * max(map(len, labels))
    y_axis = {"labelLimit": 0, "ticks": False, "domain": False, "grid": False, "minExtent": room}
    spec = _spec(
        rows,
        {
            "x": {"field": "n", "type": "quantitative", "axis": _count_axis(int(top["n"][0]))},
            "y": {"field": "value", "type": "nominal", "sort": None, "axis": y_axis},
        },
        height=max(84, 13 * len(rows)),
        width=150,
    )
    return [f"{count(distinct)} different values{drawn}"], spec


def _bins_wanted(values: int) -> int:
    """Return how many bins suit so many values, by Rice's rule, within bounds.

    One less than may be drawn, since the first bin begins before the least value.
    """
    return min(max(math.ceil(2 * math.cbrt(values)), 8), BINS_MAX - 1)


def _median(values: pl.Series) -> float:
    median = values.median()
    assert isinstance(median, float)
    return median


def _clip(finite: pl.Series) -> tuple[float, float]:
    """Return the range to draw: all, unless a tail beyond 0.5% or 99.5% is a third of it."""
    least, most = float(finite.min()), float(finite.max())  # type: ignore[arg-type]
    if finite.len() < _CLIP_ROWS_MIN:
        return least, most
    low, high = finite.quantile(0.005), finite.quantile(0.995)
    assert low is not None
    assert high is not None
    body = high - low
    if not (0 < body < math.inf):
        return least, most
    return (
        low if low - least > body / 2 else least,
        high if most - high > body / 2 else most,
    )


def _nice(step: float, *, whole: bool) -> float:
    """Return the next step up among 1, 2, 2.5 and 5 times a power of ten."""
    if not (0 < step < math.inf):
        return step
    power = 10.0 ** math.floor(math.log10(step))
    nice = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step), 10 * power)
    return max(math.ceil(nice), 1.0) if whole else nice


def _binned(
    values: pl.Series, low: float, high: float, step: float, *, shift: float = 0.0
) -> _Bins:
    """Count values in bins that begin at a multiple of `step`, less `shift` steps."""
    start = (math.floor(low / step) - shift) * step
    bins = math.floor((high - start) / step) + 1
    place = ((values - start) / step).floor()
    inside = place.filter(place.is_between(0, bins - 1)).cast(pl.Int64)
    found = dict(inside.value_counts().iter_rows())
    counts = tuple(int(found.get(i, 0)) for i in range(bins))
    return _Bins(start, step, counts, int((place < 0).sum()), int((place >= bins).sum()))


def _axis_format(bins: _Bins, *, whole: bool) -> dict[str, str]:
    top = max(abs(bins.start), abs(bins.end))
    if top >= 10_000:
        return _SHORT
    if top < 0.001:
        return {"format": "~e"}
    return {"format": ",d" if whole else ",~r"}


def _histogram(bins: _Bins, axis: dict[str, Any], *, time: bool = False) -> dict[str, Any]:
    x: dict[str, Any] = {
        "field": "a",
        "type": "temporal" if time else "quantitative",
        "scale": {"domain": [bins.start, bins.end], "nice": False, "zero": False},
        "axis": {
            "grid": False,
            "tickCount": 4,
            "labelFlush": True,
            "labelOverlap": True,
            "labelSeparation": 8,
            **axis,
        },
    }
    if time:
        x["scale"]["type"] = "utc"
    elif bins.step >= 1 and float(bins.step).is_integer():
        x["axis"]["tickMinStep"] = 1
        if bins.end - bins.start <= _WHOLE_TICKS_MAX:
            # So few would get ticks at halves, which read as whole numbers are wrong.
            first, end = math.ceil(bins.start), math.floor(bins.end)
            x["axis"]["values"] = list(range(first, end + 1))
    y: dict[str, Any] = {"field": "n", "type": "quantitative", "scale": {"zero": True}}
    y["axis"] = _count_axis(max(bins.counts))
    sides = {"x": x, "x2": {"field": "b"}, "y": y, "y2": {"datum": 0}}
    return _spec(bins.rows(), sides, mark=_RECTS)


def _count_axis(most: int) -> dict[str, Any]:
    # Left to itself the axis puts a tick at half an entity.
    ticks = {"values": list(range(most + 1))} if most <= 3 else {"tickCount": 3}
    return {**ticks, **_SHORT, "domain": False, "ticks": False}


def _spec(
    rows: list[dict[str, Any]],
    encoding: dict[str, Any],
    *,
    width: int = 210,
    height: int = 84,
    mark: Mapping[str, Any] = _BARS,
) -> dict[str, Any]:
    return {
        "$schema": _SCHEMA,
        "data": {"values": rows},
        "mark": dict(mark),
        "encoding": encoding,
        "width": width,
        "height": height,
        "config": _CONFIG,
    }


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "less than 0.1%"
    if 99.9 < share < 100:
        return "more than 99.9%"
    return f"{share:.1f}".removesuffix(".0") + "%"
