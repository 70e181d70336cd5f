"""What the pictures of a lift show: calibration, and a feature's values by the label's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.model.estimate import Estimate
from fs_notebook.model.metrics import RANKING, REGRESSION
from fs_notebook.model.scores import Floats
from fs_notebook.model.target import Target

Ints = npt.NDArray[np.int64]

CALIBRATION_BINS = 10
HISTOGRAM_BINS = 24
CATEGORIES_MAX = 12
CLASSES_SHOWN_MAX = 5


@dataclass(frozen=True)
class Curve:
    """How far predictions come true, in tenths by what was predicted.

    Each point is (mean prediction, mean truth, rows). Of two classes the prediction is the
    probability of the second; of more that of the likeliest, and the truth whether it was that one
    (Guo and others 2017); of a regression they are values.
    """

    what: str
    points: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Distribution:
    """A column's values for each of the label's: shares of the label's rows that add up to 1.

    `edges` are those of a histogram's bins, in microseconds where it is of times; of texts there
    are `names` instead.
    """

    column: str
    edges: tuple[float, ...]
    names: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float, ...]], ...]


def curve_of(what: str, target: Target, fits: Sequence[tuple[Ints, Estimate]]) -> Curve | None:
    """Return the calibration of predictions of rows, pooled over folds; None of mere scores."""
    if target.task == RANKING or (target.is_class and not all(f.probabilities for _, f in fits)):
        return None
    predicted = np.concatenate([f.scores for _, f in fits])
    truth = np.concatenate([target.values[rows] for rows, _ in fits])
    if predicted.ndim == 2:
        truth = (predicted.argmax(axis=1) == truth).astype(np.float64)
        predicted = predicted.max(axis=1)
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, min(CALIBRATION_BINS, max(order.size // 20, 1)))
    return Curve(what, tuple(
        (float(predicted[p].mean()), float(truth[p].mean()), int(p.size)) for p in parts
    ))  # fmt: skip


def groups_of(target: Target) -> tuple[Ints, list[str]]:
    """Return each row's group by its label, and the groups' names: classes, or thirds."""
    if target.is_class and len(target.classes) <= CLASSES_SHOWN_MAX:
        return target.values.astype(np.int64), [f"{target.name} = {c}" for c in target.classes]
    if target.is_class:
        counts = np.bincount(target.values.astype(np.int64))
        shown = np.sort(np.argsort(-counts, kind="stable")[: CLASSES_SHOWN_MAX - 1])
        group = np.full(counts.size, shown.size)
        group[shown] = np.arange(shown.size)
        names = [f"{target.name} = {target.classes[c]}" for c in shown]
        return group[target.values.astype(np.int64)], [*names, "all others"]
    if target.task != REGRESSION and np.unique(target.values).size <= CLASSES_SHOWN_MAX:
        grades, group = np.unique(target.values, return_inverse=True)
        return group.reshape(-1), [f"{target.name} = {g:g}" for g in grades]
    edges = np.unique(np.quantile(target.values, [1 / 3, 2 / 3]))
    group = np.searchsorted(edges, target.values, side="left")
    names = ["lowest third", "middle third", "highest third"]
    if edges.size < 2:
        names = [f"{target.name} ≤ {edges[0]:g}", f"{target.name} > {edges[0]:g}"]
    return group, names


def distribution_of(column: pl.Series, target: Target, rows: Ints) -> Distribution | None:
    """Return the values of a column by the label's; None of what has no values to draw."""
    group, names = groups_of(target)
    group, column = group[rows], column.gather(rows)
    dtype = column.dtype
    if dtype.is_nested() or dtype == pl.Binary:
        return None
    if dtype == pl.Boolean or isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        text = column.cast(pl.String).fill_null("null")
        known = text.value_counts(sort=True, name="n").get_column(column.name)
        shown = known.head(CATEGORIES_MAX).to_list()
        codes = text.replace_strict(
            {n: i for i, n in enumerate(shown)}, default=len(shown), return_dtype=pl.Int64
        ).to_numpy()
        labels = [*shown, "others"] if known.len() > len(shown) else shown
        return Distribution(
            column.name, (), tuple(labels), _shares(codes, group, names, len(labels))
        )
    numbers: Any = column.to_physical().cast(pl.Float64).to_numpy()
    known_rows = np.isfinite(numbers)
    numbers, group = numbers[known_rows], group[known_rows]
    if not numbers.size:
        return None
    low, high = (float(v) for v in np.quantile(numbers, [0.005, 0.995]))
    if low == high:
        low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return None
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    # What lies beyond is in the outermost bins, so that the shares add up.
    codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, HISTOGRAM_BINS - 1)
    return Distribution(
        column.name, tuple(float(e) for e in edges), (),
        _shares(codes, group, names, HISTOGRAM_BINS),
    )  # fmt: skip


def _shares(
    codes: Any, group: Ints, names: Sequence[str], bins: int
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    found = []
    for number, name in enumerate(names):
        mine = codes[group == number]
        counts: Floats = np.bincount(mine, minlength=bins) / max(mine.size, 1)
        found.append((name, tuple(float(c) for c in counts)))
    return tuple(found)
