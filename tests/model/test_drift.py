"""PSI, KS and JS agree with their definitions, and a shift is told from chance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from fs_notebook.model.drift import Binned, drift_of, jensen_shannon, kolmogorov_smirnov, psi

pytestmark = pytest.mark.timeout(60)

RNG = np.random.default_rng(1)
TIMES = np.arange(4000) * 3_600_000_000
THEN, NOW = np.arange(3000), np.arange(3000, 4000)


def test_formulas() -> None:
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.3, 0.4])
    assert psi(p, q) == pytest.approx(0.1 * np.log(1.5) + -0.2 * np.log(0.6) + 0.1 * np.log(4 / 3))
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    assert psi(p, p) == jensen_shannon(p, p) == 0.0
    a, b = np.round(RNG.normal(size=300), 1), np.round(RNG.normal(0.4, 1, 200), 1)
    assert kolmogorov_smirnov(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    assert np.isfinite(psi(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def test_a_shift_is_told_from_chance() -> None:
    still = pl.Series("x", RNG.normal(size=4000))
    same = drift_of(still, TIMES, THEN, NOW)
    assert same.psi < 0.05
    assert not same.is_large
    moved = still.to_numpy() + np.where(np.arange(4000) >= 3000, 1.0, 0.0)
    shifted = drift_of(pl.Series("x", moved), TIMES, THEN, NOW)
    assert shifted.is_large
    # Two normal distributions, one apart: 2 Φ(1/2) - 1.
    assert shifted.ks == pytest.approx(0.383, abs=0.05)
    first, last = shifted.slices[0], shifted.slices[-1]
    assert first.at == datetime(1970, 1, 1, tzinfo=UTC)
    assert last.psi > 5 * first.psi
    assert last.median == pytest.approx(1, abs=0.15)
    assert sum(s.rows for s in shifted.slices) == 4000


def test_few_rows_vary_and_are_no_shift() -> None:
    large = [
        drift_of(pl.Series("x", np.random.default_rng(s).normal(size=60)), TIMES[:60],
                 np.arange(40), np.arange(40, 60)).is_large
        for s in range(40)
    ]  # fmt: skip
    assert sum(large) <= 2


def test_texts_and_nulls_are_bins() -> None:
    genre = pl.Series("g", ["news"] * 2000 + ["sport"] * 1000 + ["sport"] * 600 + [None] * 400)
    found = drift_of(genre, TIMES, THEN, NOW)
    assert found.is_large
    assert found.ks == pytest.approx(2 / 3)
    assert found.slices[-1].nulls == 1.0
    assert found.slices[0].median is None
    # What only later labels have is a bin that earlier ones do not fill.
    late = pl.Series("g", ["a"] * 3000 + ["b"] * 1000)
    assert drift_of(late, TIMES, THEN, NOW).js == pytest.approx(1.0)
    numbers = pl.Series("n", [1.0] * 3000 + [None] * 1000)
    assert drift_of(numbers, TIMES, THEN, NOW).is_large


def test_columns_of_every_kind_have_bins() -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    for column in (
        pl.Series("b", [n % 2 == 0 for n in range(100)]),
        pl.Series("t", [begin + timedelta(days=n) for n in range(100)]),
        pl.Series("c", ["x", "y"] * 50).cast(pl.Categorical),
        pl.Series("one", [5] * 100),
        pl.Series("inf", [float("inf"), float("nan")] * 50),
        pl.Series("none", [None] * 100, dtype=pl.Float64),
    ):
        binned = Binned(column, np.arange(50))
        assert binned.shares(np.arange(100)).sum() == pytest.approx(1)
