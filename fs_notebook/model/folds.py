"""Which labels a model learns from and which it is tested on: the later ones, once or in folds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fs_notebook.clock import from_us
from fs_notebook.errors import UsageError
from fs_notebook.model.card import moment

Ints = npt.NDArray[np.int64]

ROWS_MIN = 100
TRAIN_ROWS_MIN, TEST_ROWS_MIN = 40, 15
TRAIN_ROWS_MAX = 300_000
TEST_ROWS_MAX = 100_000
FOLDS_MAX = 20
GROUPS_MIN = 10
TESTED_OF_GROUPS = 3
"""Of entities with labels on both sides of a boundary, every third is tested, the others learnt."""


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of earlier and of later labels, each in the order of time.

    Attributes
    ----------
    at, until
        The times of the first and the last label to test, UTC.
    thinned
        How many labels were left out at random, for speed.
    parted
        How many were left out so that no group is on both sides.
    """

    train: Ints
    test: Ints
    at: datetime
    until: datetime
    thinned: int = 0
    parted: int = 0


def splits_of(
    times: Ints,
    *,
    folds: int,
    test_share: float | None,
    groups: Ints | None = None,
    queries: Ints | None = None,
    group_name: str = "",
    seed: int = 0,
) -> list[Split]:
    """Return walk-forward folds: slices of the latest labels, each with all that came before it.

    Parameters
    ----------
    times
        Of each label, in microseconds.
    folds
        How many slices; 1 is a single split.
    test_share
        The share of labels, the latest ones, that the slices make up. Default: a quarter, or a
        half where there are several folds. Labels of one time are never parted.
    groups
        Of each label a number, if none of its group may be both learnt from and tested on.
    queries
        Of each label a number: a query's labels stay together, at the time of its first one.

    Raises
    ------
    UsageError
        If there are too few labels, times or groups.
    """
    share = _checked(times.size, folds, test_share)
    if queries is not None:
        firsts = np.full(int(queries.max()) + 1, np.iinfo(np.int64).max)
        np.minimum.at(firsts, queries, times)
        times = firsts[queries]
        order = np.lexsort((queries, times))
    else:
        order = np.argsort(times, kind="stable")
    ordered = times[order]
    begins = _boundaries(ordered, folds, share)
    ends = [*begins[1:], times.size]
    rng = np.random.default_rng(seed)
    bucket = None
    if groups is not None:
        bucket = rng.permutation(int(groups.max()) + 1) % TESTED_OF_GROUPS
    found = []
    for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        train, test = order[:begin], order[begin:end]
        at, until = from_us(int(ordered[begin])), from_us(int(ordered[end - 1]))
        if groups is not None and bucket is not None:
            tested = (bucket + place) % TESTED_OF_GROUPS == 0
            train, test = _parted(train, test, groups, tested)
        parted = end - train.size - test.size
        _check(train, test, at, place, folds, groups, group_name)
        kept = [
            _thinned(train, TRAIN_ROWS_MAX, rng, None),
            _thinned(test, TEST_ROWS_MAX // folds, rng, queries),
        ]
        thinned = train.size + test.size - kept[0].size - kept[1].size
        found.append(Split(kept[0], kept[1], at, until, thinned, parted))
    return found


def _checked(rows: int, folds: int, test_share: float | None) -> float:
    if not 1 <= folds <= FOLDS_MAX:
        raise UsageError(
            f"A lift is measured in 1 to {FOLDS_MAX} folds.", found=str(folds), remedy="folds=5"
        )
    share = (0.25 if folds == 1 else 0.5) if test_share is None else test_share
    if not 0 < share < 1:
        raise UsageError(
            "The share of labels to test on lies between 0 and 1.",
            found=str(test_share),
            remedy="test_share=0.25",
        )
    if rows < ROWS_MIN:
        raise UsageError(
            f"{rows} labels are too few to measure a lift.",
            remedy=f"{ROWS_MIN} or more; thousands for a small lift",
        )
    return share


def _boundaries(ordered: Ints, folds: int, share: float) -> list[int]:
    """Return where each slice begins, at the first label of its first time."""
    rows = ordered.size
    first = min(max(int(rows * (1 - share)), 0), rows - 1)
    wanted = first + (np.arange(folds) * (rows - first)) // folds
    times = ordered[wanted]
    begins: list[int] = np.searchsorted(ordered, times, side="left").tolist()
    if begins[0] == 0:
        earliest = int((ordered == ordered[0]).sum())
        raise UsageError(
            "No label is earlier than the test labels, so that there is nothing to learn from.",
            found=f"{earliest:,} of {rows:,} labels at {moment(from_us(int(ordered[0])))} UTC, "
            "the earliest time",
            remedy="labels of more than one time, or a smaller test_share",
        )
    if len(set(begins)) < folds:
        raise UsageError(
            f"The later labels have too few times for {folds} folds.",
            found=f"{np.unique(ordered[first:]).size:,} times among {rows - first:,} labels",
            remedy=f"folds={len(set(begins))}, or a larger test_share",
        )
    return begins


def _parted(train: Ints, test: Ints, groups: Ints, tested: Any) -> tuple[Ints, Ints]:
    """Give each group that is on both sides to one of them."""
    both = np.intersect1d(groups[train], groups[test])
    torn = np.zeros(tested.size, bool)
    torn[both] = True
    mine, theirs = groups[train], groups[test]
    return train[~(torn[mine] & tested[mine])], test[~(torn[theirs] & ~tested[theirs])]


def _check(
    train: Ints, test: Ints, at: datetime, place: int, folds: int, groups: Ints | None, name: str
) -> None:
    where = f"fold {place + 1} of {folds}" if folds > 1 else "the split"
    if groups is not None:
        count = np.unique(groups[test]).size
        if count < GROUPS_MIN:
            raise UsageError(
                f"Too few values of {name!r} to keep each on one side of {where}.",
                found=f"{count:,} to test from {moment(at)} UTC on, {GROUPS_MIN} at least",
                remedy="fewer folds, a larger test_share, or no group",
            )
    for rows, least, what in ((train, TRAIN_ROWS_MIN, "learn from"), (test, TEST_ROWS_MIN, "test")):
        if rows.size < least:
            raise UsageError(
                f"There are too few labels to {what} in {where}.",
                found=f"{rows.size:,} labels, {least} at least",
                remedy="more labels, fewer folds, or another test_share",
            )


def _thinned(rows: Ints, rows_max: int, rng: np.random.Generator, units: Ints | None) -> Ints:
    """Return at most so many of the rows, chosen at random; a unit's stay together."""
    if rows.size <= rows_max:
        return rows
    if units is None:
        return rows[np.sort(rng.choice(rows.size, rows_max, replace=False))]
    distinct, numbers = np.unique(units[rows], return_inverse=True)
    kept = rng.random(distinct.size) < rows_max / rows.size
    return rows[kept[numbers.reshape(-1)]]


def run_numbers(units: Ints) -> Ints:
    """Return the number of each row's unit, from 0 in the order in which units first come."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    ranks = np.empty(first.size, np.int64)
    ranks[np.argsort(first)] = np.arange(first.size)
    found: Ints = ranks[inverse.reshape(-1)]
    return found
