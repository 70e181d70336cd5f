"""Positions and cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.position import START, Cut, Position, Way

positions = st.builds(
    Position, st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 3)
)
cuts = st.lists(positions, max_size=4, unique_by=lambda p: p.partition).map(
    lambda ps: Cut(tuple(ps))
)


@given(cuts)
def test_json_keeps_a_cut_and_is_canonical(cut: Cut) -> None:
    assert Cut.from_json(cut.to_json()) == cut
    assert Cut(tuple(reversed(cut.positions))).to_json() == cut.to_json()


@given(cuts, st.lists(positions, max_size=5))
def test_cuts_only_move_forward(cut: Cut, more: list[Position]) -> None:
    later = cut.advanced(more)
    assert later.contains(cut)
    assert all(later.covers(p) for p in more)
    assert later.advanced(more) == later


def test_one_position_a_partition() -> None:
    with pytest.raises(ValueError, match="one position a partition"):
        Cut((Position(0, 0, 1, 0), Position(0, 0, 2, 0)))


def test_how_far_apart() -> None:
    end = Cut((Position(0, 0, 9, 0),))
    assert START.entries_to(end) == 10
    assert Cut((Position(0, 0, 4, 0),)).entries_to(end) == 5
    assert end.entries_to(end) == 0
    # How many entries earlier ledgers have is not in a position.
    assert START.entries_to(Cut((Position(0, 7, 9, 0),))) is None
    assert Cut((Position(0, 6, 4, 0),)).entries_to(Cut((Position(0, 7, 9, 0),))) is None


def test_the_share_done() -> None:
    way = Way(Cut((Position(0, 7, 99, 0),)))
    assert way.share(START) is None
    assert way.share(Cut((Position(0, 7, 19, 0),))) == 0.0
    assert way.share(Cut((Position(0, 7, 59, 0),))) == 0.5
    assert way.share(Cut((Position(0, 7, 99, 0),))) == 1.0
    assert Way(START).share(START) == 1.0
