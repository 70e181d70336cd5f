"""Metrics agree with scikit-learn's, and intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from sklearn.metrics import log_loss, r2_score, roc_auc_score

from fs_notebook.model import scores

pytestmark = pytest.mark.timeout(60)

grades = some.arrays(np.float64, 12, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
weights = some.arrays(np.float64, 12, elements=st.integers(0, 3).map(float))


@settings(max_examples=100)
@given(target=some.arrays(np.bool_, 12), grades=grades, weights=weights)
def test_auc_is_scikit_learns_with_ties_and_weights(
    target: np.ndarray, grades: np.ndarray, weights: np.ndarray
) -> None:
    truth = target.astype(np.float64)
    got = scores.auc(truth, grades)(weights)
    if not (weights @ truth and weights @ (1 - truth)):
        assert np.isnan(got)
        return
    kept = weights > 0
    want = roc_auc_score(truth[kept], grades[kept], sample_weight=weights[kept])
    assert got == pytest.approx(want)


@settings(max_examples=50)
@given(target=grades, predicted=grades, weights=weights)
def test_r_squared_is_scikit_learns(
    target: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> None:
    kept = weights > 0
    if np.unique(target[kept]).size < 2:
        return
    want = r2_score(target, predicted, sample_weight=weights)
    assert scores.r_squared(target, predicted)(weights) == pytest.approx(want)


def test_log_loss_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    truth, p = rng.integers(0, 2, 50).astype(float), rng.random(50)
    assert scores.log_loss(truth, p) == pytest.approx(log_loss(truth, p))


def test_interval_is_as_wide_as_the_spread_of_means() -> None:
    """Of independent rows the mean's 95% interval is about ± 1.96 standard errors."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=4000)
    draws = scores.bootstrap(
        [lambda w: float(w @ values / w.sum())], values.size, draws=800, rng=rng
    )
    low, high = scores.interval(draws[:, 0])
    assert (high - low) / (2 * 1.96 / np.sqrt(values.size)) == pytest.approx(1, abs=0.2)


def test_interval_widens_where_neighbours_are_alike() -> None:
    """Rows that come in runs of equal values tell less than as many independent ones."""
    rng = np.random.default_rng(3)
    runs = np.repeat(rng.normal(size=200), 20)
    found = []
    for values in (runs, rng.permutation(runs)):
        draws = scores.bootstrap(
            [lambda w, v=values: float(w @ v / w.sum())], values.size, draws=400, rng=rng
        )
        low, high = scores.interval(draws[:, 0])
        found.append(high - low)
    assert found[0] > 2.5 * found[1]
