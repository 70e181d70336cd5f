"""Over fifty seeds: noise is refused as often as the interval promises, help found, leaks told."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from fs_notebook.clock import SYSTEM
from fs_notebook.model import scores
from fs_notebook.model.measure import measure_lift, measure_lifts
from tests.model.test_lift import BEGIN, training_of

pytestmark = pytest.mark.timeout(120)

SEEDS = 50
FEW_SEEDS = 4
ROWS = 500
FALSE_ACCEPTED = 0.025
"""The share of columns that know nothing and that a two-sided 95% interval calls a help."""


class LeastSquares(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear score, fitted in microseconds: what is tested here is the verdict."""

    def fit(self, x: Any, y: Any) -> LeastSquares:
        self.classes_ = np.unique(y)
        self.weights_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
        return self

    def decision_function(self, x: Any) -> Any:
        return x @ self.weights_[:-1] + self.weights_[-1] - 0.5


class LeastSquaresNumber(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The same for amounts, and for what is ranked."""

    def fit(self, x: Any, y: Any) -> LeastSquaresNumber:
        self.weights_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
        return self

    def predict(self, x: Any) -> Any:
        return x @ self.weights_[:-1] + self.weights_[-1]


def planted(seed: int, rows: int = ROWS) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    base, knows, error, *noise = rng.normal(size=(8, rows))
    clicked = rng.random(rows) < 1 / (1 + np.exp(-(base + knows)))
    picked = rng.random(rows) < 1 / (1 + np.exp(-(base + 2 * knows)))
    amount = base + 0.6 * knows + rng.normal(size=rows)
    columns = {f"noise{i}": values for i, values in enumerate(noise)}
    return pl.DataFrame(
        {
            "user": np.arange(rows), "at": [BEGIN + timedelta(minutes=n) for n in range(rows)],
            "base": base, "clicked": clicked, "knows": knows, "leak": clicked + 0.1 * error,
            "amount": amount, "known": amount + 0.05 * error, "picked": picked,
            "pick": picked + 0.1 * error, "session": np.arange(rows) // 5,
            **columns,
        }
    )  # fmt: skip


FEATURES = ("knows", "leak", "known", "pick", *(f"noise{i}" for i in range(5)))
OPTIONS: dict[str, Any] = {
    "target": "clicked", "baseline": ["base"], "folds": 2, "bootstraps": 100, "clock": SYSTEM,
    "model": LeastSquares(),
}  # fmt: skip


def accepted_max(promised: float, seeds: int = SEEDS) -> int:
    """Return how many of the seeds may be accepted at that rate, but for one run in a thousand."""
    return int(binom.ppf(0.999, seeds, promised))


TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("leak", {}),
    "regression": ("known", {"target": "amount", "model": LeastSquaresNumber()}),
    # Within a session of five there is less to tell, so what helps is planted deeper.
    "ranking": (
        "pick",
        {"target": "picked", "query": "session", "model": LeastSquaresNumber()},
    ),
}
"""Of each task the column that is a leak, and what is measured otherwise."""


@pytest.mark.parametrize("task", TASKS)
def test_noise_is_refused_help_found_and_a_leak_told(task: str) -> None:
    leak, options = TASKS[task]
    found: dict[str, Counter[str]] = {n: Counter() for n in ("noise0", "knows", leak)}
    for seed in range(SEEDS):
        training = training_of(planted(seed), FEATURES)
        for name, verdicts in found.items():
            given = OPTIONS | options
            lift = measure_lift(training, candidate=[name], seed=seed, **given)
            assert lift.task == task
            verdicts[lift.verdict] += 1
    assert found[leak] == {"suspicious: leak": SEEDS}
    assert found["noise0"]["helps"] <= accepted_max(FALSE_ACCEPTED)
    assert found["noise0"]["suspicious: leak"] == 0
    # A power of 80%, stated: of fifty such helpers no fewer are found than that lets expect.
    assert found["knows"]["helps"] >= SEEDS - int(binom.ppf(0.999, SEEDS, 0.2))
    assert found["knows"]["hurts"] == 0


@pytest.mark.parametrize("target", ["clicked", "amount"])
def test_the_default_model_is_no_more_easily_led(target: str) -> None:
    """A few seeds: gradient boosting finds something in any column, in what it learnt of."""
    found: dict[str, Counter[str]] = {n: Counter() for n in ("noise0", "knows")}
    options = OPTIONS | {"target": target, "model": None, "folds": 1}
    for seed in range(FEW_SEEDS):
        training = training_of(planted(seed, 1_500), FEATURES)
        for name, verdicts in found.items():
            lift = measure_lift(training, candidate=[name], seed=seed, **options)
            assert lift.model.startswith("HistGradientBoosting")
            verdicts[lift.verdict] += 1
    assert found["noise0"]["helps"] <= accepted_max(FALSE_ACCEPTED, FEW_SEEDS)
    assert found["knows"] == {"helps": FEW_SEEDS}


def test_the_best_of_five_that_know_nothing_is_no_more_likely_accepted_than_one() -> None:
    accepted = 0
    for seed in range(SEEDS):
        training = training_of(planted(100 + seed), FEATURES)
        lifts = measure_lifts(
            training, candidates=[[f"noise{i}"] for i in range(5)], seed=seed, **OPTIONS
        )
        accepted += any(lift.verdict == "helps" for lift in lifts)
    assert accepted <= accepted_max(FALSE_ACCEPTED)


def test_intervals_of_several_differences_hold_together() -> None:
    """Each alone would miss in 5%, so that one of eight would in a third of cases."""
    missed = together = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(8, 300))
        metrics = [scores.mean_of(row) for row in rows]
        drawn = scores.draws_of(metrics, scores.Blocks.in_time([300]), draws=200, rng=rng)
        draws = np.array(list(drawn))
        points = rows.mean(axis=1)
        missed += any(not a <= 0 <= b for a, b in map(scores.interval, draws.T))
        together += any(
            not a <= 0 <= b for a, b in scores.intervals_together(draws, points.tolist())
        )
    assert missed > 120 * 0.2
    assert together <= binom.ppf(0.999, 120, 0.05)
