"""Permutation importance: what a metric loses when one column's values are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fs_notebook.model.columns import Matrix, Rows
from fs_notebook.model.estimate import Estimate
from fs_notebook.model.folds import run_numbers
from fs_notebook.model.scores import Floats
from fs_notebook.model.target import Target

ROWS_MAX, COLUMNS_MAX, REPEATS = 10_000, 24, 3


def some_of(rows: Rows, target: Target, seed: int) -> Rows:
    """Return at most about `ROWS_MAX` of the rows; a query's rows stay together."""
    if rows.size <= ROWS_MAX:
        return rows
    rng = np.random.default_rng(seed)
    if target.query is None:
        return rows[np.sort(rng.choice(rows.size, ROWS_MAX, replace=False))]
    numbers = run_numbers(target.query[rows])
    kept: Any = rng.random(int(numbers.max()) + 1) < ROWS_MAX / rows.size
    found: Rows = rows[kept[numbers]]
    return found


def importances_of(
    target: Target,
    fit: Estimate,
    matrix: Matrix,
    rows: Rows,
    columns: Sequence[str],
    *,
    rng: np.random.Generator,
    on_column: Callable[[float], None],
) -> tuple[tuple[str, float], ...]:
    """Return each column with what the metric loses when it alone is shuffled, most first.

    Permutation importance (Breiman 2001; Fisher, Rudin and Dominici 2019), the mean of `REPEATS`
    shuffles. What one column became (a list's places) is shuffled together.

    Parameters
    ----------
    fit
        The model with all of `matrix`' columns, fitted on other rows.
    matrix, rows
        Encoded columns of the labels of these numbers.
    columns
        Those to look at, in order; the first `COLUMNS_MAX` of them are.
    on_column
        Called before each column with the share that is done.
    """
    everyone = np.ones(rows.size)

    def metric(values: Floats) -> float:
        return target.metric(rows, fit, fit.predict(values))(everyone)

    whole, lost = metric(matrix.values), {}
    looked_at = [n for n in dict.fromkeys(columns) if n in matrix.origins][:COLUMNS_MAX]
    for done, name in enumerate(looked_at):
        on_column(done / len(looked_at))
        places = [p for p, origin in enumerate(matrix.origins) if origin == name]
        drops = []
        for _ in range(REPEATS):
            mixed = matrix.values.copy()
            mixed[:, places] = mixed[rng.permutation(rows.size)][:, places]
            drops.append(whole - metric(mixed))
        lost[name] = float(np.mean(drops))
    return tuple(sorted(lost.items(), key=lambda item: -item[1]))
