"""How good predictions are, and how sure that is: metrics over weighted rows, and bootstraps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Metric = Callable[[Floats], float]
"""A metric of fixed predictions, as a function of the rows' weights."""

BLOCKS_MAX = 200
_TINY = 1e-15


def auc(target: Floats, scores: Floats) -> Metric:
    """Return the area under the ROC curve of `scores` for a 0/1 `target`.

    It is the share of (positive, negative) pairs that are ordered rightly, ties counting half.
    The rows are sorted once, so that each weighting afterwards takes linear time.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    positive = target[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))

    def weighted(weights: Floats) -> float:
        mine = weights[order]
        hits = mine * positive
        ups = np.add.reduceat(hits, starts)
        downs = np.add.reduceat(mine - hits, starts)
        below = np.cumsum(downs) - downs
        pairs = ups.sum() * downs.sum()
        return float(ups @ (below + downs / 2) / pairs) if pairs else float("nan")

    return weighted


def auc_one_vs_rest(target: Floats, scores: Floats) -> Metric:
    """Return the mean over classes of each class's area under the ROC curve against the rest.

    `scores` has a column a class; a class that no weighted row has is left out.
    """
    each = [auc((target == c).astype(np.float64), scores[:, c]) for c in range(scores.shape[1])]

    def weighted(weights: Floats) -> float:
        found = [v for v in (one(weights) for one in each) if not np.isnan(v)]
        return float(np.mean(found)) if found else float("nan")

    return weighted


def average_precision(target: Floats, scores: Floats) -> Metric:
    """Return the mean of the precisions at each threshold, weighted by the recall it adds.

    Equal scores are one threshold, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], target[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))

    def weighted(weights: Floats) -> float:
        mine = weights[order]
        hits = np.add.reduceat(mine * positive, starts)
        seen = np.cumsum(np.add.reduceat(mine, starts))
        total = hits.sum()
        if not total or total == seen[-1]:
            return float("nan")
        # Rows before the first weighted one have seen nothing yet, and hit nothing.
        return float(hits @ (np.cumsum(hits) / np.where(seen > 0, seen, 1.0)) / total)

    return weighted


def mean_of(values: Floats) -> Metric:
    """Return the weighted mean of one value a row."""

    def weighted(weights: Floats) -> float:
        total = weights.sum()
        return float(weights @ values / total) if total else float("nan")

    return weighted


def root_mean_of(values: Floats, sign: float) -> Metric:
    """Return `sign` times the root of the weighted mean of one value a row."""
    mean = mean_of(values)
    return lambda weights: sign * float(np.sqrt(mean(weights)))


def balanced_accuracy(target: Floats, classes: Floats) -> Metric:
    """Return the mean over the target's classes of the share that was told rightly."""
    hit = (target == classes).astype(np.float64)
    numbers = target.astype(np.int64)

    def weighted(weights: Floats) -> float:
        whole = np.bincount(numbers, weights)
        some = whole > 0
        return float(np.mean(np.bincount(numbers, weights * hit)[some] / whole[some]))

    return weighted


def f1(target: Floats, classes: Floats, of: Sequence[int]) -> Metric:
    """Return the mean over the classes `of` of 2 TP / (2 TP + FP + FN); 0 where it is 0 / 0."""

    def weighted(weights: Floats) -> float:
        found = []
        for c in of:
            is_c, told = target == c, classes == c
            both = float(weights @ (is_c & told))
            either = float(weights @ is_c) + float(weights @ told)
            found.append(2 * both / either if either else 0.0)
        return float(np.mean(found))

    return weighted


def r_squared(target: Floats, predicted: Floats) -> Metric:
    """Return the share of the target's variance that `predicted` explains; below 0 is worse
    than the mean."""
    errors = (target - predicted) ** 2

    def weighted(weights: Floats) -> float:
        total = weights.sum()
        if not total:
            return float("nan")
        mean = weights @ target / total
        spread = float(weights @ (target - mean) ** 2)
        return 1.0 - float(weights @ errors) / spread if spread else float("nan")

    return weighted


def log_losses(target: Floats, probability: Floats) -> Floats:
    """Return each row's negative log-likelihood, in nats.

    `probability` is of the second class, or has a column a class.
    """
    if probability.ndim == 2:
        of_truth = probability[np.arange(target.size), target.astype(np.int64)]
        return -np.log(np.clip(of_truth, _TINY, 1))
    p = np.clip(probability, _TINY, 1 - _TINY)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def log_loss(target: Floats, probability: Floats) -> float:
    """Return the mean negative log-likelihood, in nats; less is better."""
    return float(np.mean(log_losses(target, probability)))


def mean_absolute_error(target: Floats, predicted: Floats) -> float:
    """Return the mean absolute error, in the target's own unit; less is better."""
    return float(np.mean(np.abs(target - predicted)))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which rows are drawn together, in a bootstrap.

    Attributes
    ----------
    of_row
        Of each row the number of its block.
    strata
        Numbers of blocks from each of which as many are drawn as there are: [0, 200), ….
    """

    of_row: npt.NDArray[np.int64]
    strata: tuple[tuple[int, int], ...]

    @classmethod
    def in_time(cls, sizes: Sequence[int], units: Sequence[Any] | None = None) -> Blocks:
        """Return blocks of consecutive rows, none across two slices of `sizes` rows.

        `units` has for each slice the number of each row's unit, from 0 in the order of time:
        rows of one unit stay together.
        """
        found, strata, first = [], [], 0
        most = max(BLOCKS_MAX // max(len(sizes), 1), 20)
        for place, size in enumerate(sizes):
            unit = np.arange(size) if units is None else units[place]
            count = int(unit.max()) + 1 if size else 0
            blocks = min(count, most)
            found.append(first + unit * blocks // max(count, 1))
            strata.append((first, first + blocks))
            first += blocks
        return cls(np.concatenate(found).astype(np.int64), tuple(strata))

    @classmethod
    def of_groups(cls, codes: Any) -> Blocks:
        """Return a block a group: all of its rows are drawn, or none."""
        distinct, numbers = np.unique(codes, return_inverse=True)
        return cls(numbers.reshape(-1).astype(np.int64), ((0, distinct.size),))

    def draw(self, rng: np.random.Generator) -> Floats:
        """Return how often each row is drawn."""
        counts = [
            np.bincount(rng.integers(high - low, size=high - low), minlength=high - low)
            for low, high in self.strata
        ]
        return np.concatenate(counts).astype(np.float64)[self.of_row]


def draws_of(
    metrics: Sequence[Metric], blocks: Blocks, *, draws: int, rng: np.random.Generator
) -> Iterator[list[float]]:
    """Yield the metrics over resampled rows, every metric on the same draw.

    Blocks of rows are drawn, not single rows: rows near in time share their circumstances, and
    single ones would promise a precision that is not there (Künsch 1989, with blocks that do not
    overlap; for groups the cluster bootstrap of Field and Welsh 2007).
    """
    for _ in range(draws):
        weights = blocks.draw(rng)
        yield [metric(weights) for metric in metrics]


def bootstrap(
    metrics: Sequence[Metric], rows: int, *, draws: int, rng: np.random.Generator
) -> Floats:
    """Return the metrics over resampled blocks of consecutive rows, at most `BLOCKS_MAX`.

    Returns
    -------
    array
        Of shape (draws, metrics). NaN where a draw held only one class.
    """
    blocks = Blocks.in_time([rows])
    return np.array(list(draws_of(metrics, blocks, draws=draws, rng=rng)), dtype=np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles, NaN left out."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def intervals_together(draws: Floats, points: Sequence[float]) -> list[tuple[float, float]]:
    """Return intervals of several differences that hold all at once with 95%.

    Of one difference it is `interval`. Of more, each is its value ± c standard errors, where c is
    the 95% quantile of the largest deviation among all, in standard errors, over the draws: the
    single-step maximum-t method (Romano and Wolf 2005).

    Parameters
    ----------
    draws
        Of shape (draws, differences).
    points
        The differences themselves.
    """
    if draws.shape[1] == 1:
        return [interval(draws[:, 0])]
    kept = draws[~np.isnan(draws).any(axis=1)]
    if len(kept) < 2:
        return [(float("nan"), float("nan"))] * len(points)
    values = np.asarray(points, dtype=np.float64)
    errors = kept.std(axis=0, ddof=1)
    varied = errors > 0
    deviations = np.abs(kept - values)[:, varied] / errors[varied]
    c = float(np.quantile(deviations.max(axis=1), 0.95)) if varied.any() else 0.0
    return [(float(v - c * e), float(v + c * e)) for v, e in zip(values, errors, strict=True)]
