"""Fitting a model on some rows and predicting others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from fs_notebook.errors import UsageError
from fs_notebook.model.columns import Matrix, Rows, Target
from fs_notebook.model.scores import Floats

_EARLY_STOPPING_ROWS_MIN = 500


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fitted model's predictions of the test rows.

    `scores` are probabilities of the second class where `probabilities` says so, else scores
    that sort alike; of a regression the predicted values.
    """

    scores: Floats
    probabilities: bool
    name: str
    predict: Callable[[Floats], Floats]


def predict_with(
    model: Any, matrix: Matrix, target: Target, train: Rows, test: Rows, *, seed: int
) -> Estimate:
    """Fit a fresh copy of `model` (None: the default one) and predict the test rows.

    Without any column the prediction is the training rows' mean.

    Raises
    ------
    UsageError
        If the given model cannot be fitted, or predicts what is no number.
    """
    if not matrix.names:
        mean = float(target.values[train].mean())
        return Estimate(
            np.full(test.size, mean), True, "a constant", lambda x: np.full(len(x), mean)
        )
    estimator = _default(matrix, target, train.size, seed) if model is None else _copy(model)
    name = _name_of(estimator)
    how = _how(estimator, target, alone=model is None)
    try:
        with _threads(alone=model is None):
            estimator.fit(matrix.values[train], target.values[train])
        predicted = how(matrix.values[test])
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"The model {name} could not be fitted.",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            remedy="a scikit-learn estimator for a "
            f"{target.task} that takes NaN, or a pipeline that fills it",
        ) from None
    if predicted.shape != (test.size,) or not np.isfinite(predicted).all():
        raise UsageError(
            f"The model {name} does not predict one finite number for each label.",
            found=f"shape {predicted.shape} for {test.size} labels",
        )
    probabilities = target.is_class and hasattr(estimator, "predict_proba")
    return Estimate(predicted, probabilities, name, how)


def _default(matrix: Matrix, target: Target, rows: int, seed: int) -> Any:
    """Return boosting that stops early and in small trees.

    scikit-learn's own defaults learn noise by heart on few thousand labels, so that any further
    column would seem to hurt.
    """
    # scikit-learn takes a second to load: only who fits a model pays for it.
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if target.is_class else HistGradientBoostingRegressor
    mask = list(matrix.categorical)
    # Of fewer rows there are too few to set aside for knowing when to stop.
    many = rows >= _EARLY_STOPPING_ROWS_MIN
    return kind(
        random_state=seed,
        categorical_features=mask if any(mask) else None,
        early_stopping=many,
        max_iter=150 if many else 40,
        max_leaf_nodes=15,
        min_samples_leaf=40 if many else 10,
    )


def _copy(model: Any) -> Any:
    from sklearn.base import clone

    try:
        return clone(model)
    except TypeError as error:
        raise UsageError(
            "This is no scikit-learn estimator.",
            found=type(model).__name__,
            remedy=f"an instance with fit and predict ({str(error).splitlines()[0][:80]})",
        ) from None


def _how(estimator: Any, target: Target, *, alone: bool) -> Callable[[Floats], Floats]:
    """Return how the estimator, once fitted, is asked for its scores."""

    def predict(values: Floats) -> Floats:
        with _threads(alone=alone):
            if target.is_class and hasattr(estimator, "predict_proba"):
                found = estimator.predict_proba(values)[:, 1]
            elif target.is_class and hasattr(estimator, "decision_function"):
                found = estimator.decision_function(values)
            else:
                found = estimator.predict(values)
        return np.asarray(found, dtype=np.float64)

    return predict


def _threads(*, alone: bool) -> AbstractContextManager[Any]:
    """Keep the default model to one thread.

    Boosting's threads wait for each other by spinning: beside other busy processes, workers and
    kernels among them, two threads take thirty times as long as one. One is also repeatable.
    """
    if not alone:
        return nullcontext()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def _name_of(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    if steps:
        return " → ".join(type(step).__name__ for _, step in steps)
    return type(estimator).__name__
