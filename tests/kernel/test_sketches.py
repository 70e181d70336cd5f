"""How far approximate values are from the exact ones, which each of them promises."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fs_notebook.compute.fold import Fold
from tests.compute import cases


def value_of(fold: Fold, values: pl.Series, column: str) -> float:
    count = values.len()
    base = dict.fromkeys(("i", "f", "s", "b", "d"))
    frame = cases.frame_of([{**base, "user": "a", "t": 0}])
    rows = pl.concat([frame] * count).with_columns(values.alias(column))
    result = fold.values(fold.add(fold.empty, rows).state, now_us=None)["x"].item()
    return float(result)


@pytest.mark.parametrize("distinct", [10, 1_000, 9_000, 12_000, 200_000])
def test_approx_count_distinct_is_within_four_standard_errors(distinct: int) -> None:
    fold = cases.fold_of("APPROX_COUNT_DISTINCT(i) AS x")
    values = pl.int_range(distinct, eager=True, dtype=pl.Int64) * 7 - 3
    got = value_of(fold, pl.concat([values, values.head(5)]), "i")
    assert abs(got - distinct) <= 4 * 0.0163 * distinct


def test_approx_count_distinct_of_text_depends_on_nothing_but_the_text() -> None:
    fold = cases.fold_of("APPROX_COUNT_DISTINCT(s) AS x")
    values = pl.Series([f"article-{n}" for n in range(5_000)])
    forward, backward = (value_of(fold, v, "s") for v in (values, values.reverse()))
    assert forward == backward
    # The number itself, so that another hash on another machine or day would be noticed.
    assert forward == pytest.approx(5_000, rel=0.05)


@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e250])
def test_approx_quantile_is_within_one_percent(q: float, scale: float) -> None:
    fold = cases.fold_of(f"APPROX_QUANTILE(f, {q}) AS x")
    rng = np.random.default_rng(5)
    values = (
        np.concatenate([rng.lognormal(0, 3, 4_000), -rng.lognormal(0, 3, 1_000), [0.0]]) * scale
    )
    got = value_of(fold, pl.Series(values), "f")
    exact = np.sort(values)[max(int(np.ceil(values.size * q)) - 1, 0)]
    assert abs(got - exact) <= 0.0101 * abs(exact)
