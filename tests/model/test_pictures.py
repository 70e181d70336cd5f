"""What a lift's pictures look like on any range: labels beside each other, figures told apart."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.model.chart import CHAR_PX, number_axis, number_format, svg_of
from fs_notebook.model.lift import Lift
from fs_notebook.model.pictures import lift_spec

_AXIS = re.compile(r'<g class="mark-text role-axis-label"[^>]*>(.*?)</g>')
_LABEL = re.compile(
    r'<text text-anchor="middle" transform="translate\(([^,]+),[^>]*>([^<]+)</text>'
)
# What the least of common fonts needs for a figure of 11 pixels.
FIGURE_PX = 6


def lift_of(without: float, with_: float, low: float, high: float) -> Lift:
    controls = [
        SimpleNamespace(name=name, difference=0.0, low=-high / 3, high=high / 3)
        for name in ("shuffled", "random")
    ]
    made = SimpleNamespace(
        name="reads", candidate=("reads",), difference=with_ - without, low=low, high=high,
        controls=controls, metric="AUC", without=without, with_=with_,
    )  # fmt: skip
    return cast("Lift", made)


@pytest.mark.parametrize(
    ("without", "with_", "low", "high"),
    [
        (0.55, 0.83, 0.2, 0.31),
        (0.7103, 0.7141, 0.0021, 0.0058),
        (0.80001, 0.80013, 0.00002, 0.00021),
        (0.8000001, 0.8000003, 1e-7, 4e-7),
        (0.7, 0.7, -0.001, 0.001),
        (123456.7, 123460.2, 1.1, 5.2),
        (1234567.7, 2323460.2, 900_000, 1_300_000),
        (9e-13, 8e-12, 1e-13, 1e-11),
    ],
)
def test_labels_of_an_axis_never_overlap(
    without: float, with_: float, low: float, high: float
) -> None:
    drawn = svg_of(lift_spec(lift_of(without, with_, low, high)))
    axes = [_LABEL.findall(axis) for axis in _AXIS.findall(drawn)]
    axes = [axis for axis in axes if axis]
    assert len(axes) == 2
    for axis in axes:
        places = [(float(at), FIGURE_PX * len(text) / 2) for at, text in axis]
        for (before, half), (after, other) in itertools.pairwise(places):
            assert before + half < after - other, axis
        assert len({text for _, text in axis}) == len(axis), "ticks are told apart"


def test_the_two_figures_are_told_apart() -> None:
    drawn = svg_of(lift_spec(lift_of(0.8000001, 0.8000003, 1e-7, 4e-7)))
    assert ">0.80000010<" in drawn
    assert ">0.80000030<" in drawn


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6), st.integers(50, 800),
    st.booleans(),
)  # fmt: skip
def test_as_many_labels_as_have_room(values: list[float], width: int, signed: bool) -> None:
    axis: dict[str, Any] = number_axis(values, width, signed=signed)
    assert 1 <= axis["tickCount"] <= 5
    shown = [format(v, axis["format"]) for v in values if abs(v) < 1e15]
    longest = max(map(len, shown), default=1)
    assert axis["tickCount"] == 1 or axis["tickCount"] * longest * CHAR_PX < width
    assert number_format(values) in axis["format"]
