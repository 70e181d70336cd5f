"""Sources read side by side: their order, their bound, their errors and their end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.clock import SYSTEM
from fs_notebook.log.lanes import Stopped, in_lanes


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fs-notebook-read"]


def count(name: int, upto: int, stopped: Stopped) -> Iterator[tuple[int, int]]:
    for number in range(upto):
        yield name, number


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 4), st.integers(1, 3))
def test_each_source_in_order_and_the_same_order_each_time(
    sizes: list[int], at_once: int, ahead: int
) -> None:
    makes = [partial(count, i, size) for i, size in enumerate(sizes)]
    first = list(in_lanes(makes, at_once_max=at_once, ahead_max=ahead))
    again = list(in_lanes(makes, at_once_max=at_once, ahead_max=ahead))
    assert first == again
    for i, size in enumerate(sizes):
        assert [n for name, n in first if name == i] == list(range(size))
    if at_once >= len(sizes) and sizes and min(sizes) > 0:
        assert [name for name, _ in first[: len(sizes)]] == list(range(len(sizes)))
    assert not readers()


def test_what_is_held_does_not_grow_with_sources_or_their_length() -> None:
    lock = threading.Lock()
    made = taken = most = open_now = open_most = 0

    def source(stopped: Stopped) -> Iterator[int]:
        nonlocal made, most, open_now, open_most
        with lock:
            open_now += 1
            open_most = max(open_most, open_now)
        for number in range(50):
            with lock:
                made += 1
                most = max(most, made - taken)
            yield number
        with lock:
            open_now -= 1

    for _ in in_lanes([source] * 20, at_once_max=3, ahead_max=2):
        with lock:
            taken += 1
    assert taken == made == 20 * 50
    assert open_most <= 3
    # Each of three sources: two ahead, one being made; and one in the hands of who takes.
    assert most <= 3 * (2 + 1) + 1


def test_sources_run_at_the_same_time() -> None:
    met = threading.Barrier(3, timeout=20)

    def source(stopped: Stopped) -> Iterator[bool]:
        met.wait()
        yield True

    assert list(in_lanes([source] * 3, at_once_max=3, ahead_max=1)) == [True] * 3


def waiting(stopped: Stopped) -> Iterator[int]:
    """A source that nothing comes from, as of a partition whose broker is silent."""
    pause = threading.Event()
    while not stopped():
        pause.wait(0.05)
    yield from ()


def test_an_error_of_any_source_ends_all() -> None:
    def failing(stopped: Stopped) -> Iterator[int]:
        yield 1
        raise LookupError("the second event is missing")

    begun_s = SYSTEM.monotonic_s()
    with pytest.raises(LookupError, match="second event"):
        list(in_lanes([waiting, failing, waiting], at_once_max=3, ahead_max=1))
    assert SYSTEM.monotonic_s() - begun_s < 2
    assert not readers()


def test_fault_35_closing_ends_all_threads_within_a_second() -> None:

    def endless(stopped: Stopped) -> Iterator[int]:
        yield from range(10**9)

    with closing(in_lanes([endless, endless, waiting], at_once_max=3, ahead_max=2)) as items:
        assert [next(items), next(items)] == [0, 0]
        begun_s = SYSTEM.monotonic_s()
    assert SYSTEM.monotonic_s() - begun_s < 1
    assert not readers()
