"""How good predictions are, and how sure that is: metrics over weighted rows, and bootstraps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Metric = Callable[[Floats], float]
"""A metric of fixed predictions, as a function of the rows' weights."""

BLOCKS_MAX = 200


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


def r_squared(target: Floats, predicted: Floats) -> Metric:
    """Return the share of the target's variance that `predicted` explains; below 0 is worse
    than the mean."""
    errors = (target - predicted) ** 2

    def weighted(weights: Floats) -> float:
        mean = weights @ target / weights.sum()
        spread = float(weights @ (target - mean) ** 2)
        return 1.0 - float(weights @ errors) / spread if spread else float("nan")

    return weighted


def log_loss(target: Floats, probability: Floats) -> float:
    """Return the mean negative log-likelihood, in nats; less is better."""
    tiny = 1e-15
    p = np.clip(probability, tiny, 1 - tiny)
    return float(-np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))


def mean_absolute_error(target: Floats, predicted: Floats) -> float:
    """Return the mean absolute error, in the target's own unit; less is better."""
    return float(np.mean(np.abs(target - predicted)))


def bootstrap(
    metrics: Sequence[Metric], rows: int, *, draws: int, rng: np.random.Generator
) -> Floats:
    """Return the metrics over resampled rows, every metric on the same draws.

    Blocks of consecutive rows are drawn, at most `BLOCKS_MAX`, not single rows: rows near in
    time share their circumstances, and single ones would promise a precision that is not there
    (Künsch 1989, with blocks that do not overlap).

    Returns
    -------
    array
        Of shape (draws, metrics). NaN where a draw held only one class.
    """
    blocks = min(rows, BLOCKS_MAX)
    block_of = np.arange(rows) * blocks // rows
    found: npt.NDArray[Any] = np.empty((draws, len(metrics)))
    for draw in range(draws):
        counts = np.bincount(rng.integers(blocks, size=blocks), minlength=blocks)
        weights = counts.astype(np.float64)[block_of]
        found[draw] = [metric(weights) for metric in metrics]
    return found


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles, NaN left out."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
