"""Fitting a model on some rows and predicting others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fs_notebook.errors import UsageError
from fs_notebook.model.columns import Matrix, Rows
from fs_notebook.model.scores import Floats
from fs_notebook.model.target import Target

_EARLY_STOPPING_ROWS_MIN = 500


@dataclass(frozen=True, eq=False)
class Estimate:
    """A fitted model's predictions of the test rows.

    `scores` are probabilities where `probabilities` says so, of the second of two classes or in
    a column a class; else scores that sort alike; of a regression or a ranking the predicted
    values. Of two classes it is the second from `threshold` on.
    """

    scores: Floats
    probabilities: bool
    name: str
    predict: Callable[[Floats], Floats]
    threshold: float = 0.5

    def classes_of(self, scores: Floats) -> Floats:
        """Return the class that each score speaks for, by its number."""
        if scores.ndim == 2:
            return np.asarray(scores.argmax(axis=1), dtype=np.float64)
        return (scores >= self.threshold).astype(np.float64)


def predict_with(
    model: Any, matrix: Matrix, target: Target, train: Rows, test: Rows, *, seed: int
) -> Estimate:
    """Fit a fresh copy of `model` (None: the default one) and predict the test rows.

    Without any column the prediction is the training rows' mean, or how often each class is.
    A model whose `fit` takes ``group`` or ``qid`` is given a ranking's queries.

    Raises
    ------
    UsageError
        If the given model cannot be fitted, or predicts what is no number.
    """
    if not matrix.names:
        return _constant(target, train, test)
    if model is None:
        some = np.asarray(~np.isnan(matrix.values[train]).all(axis=0))
        if not some.all():
            # Boosting cannot bin a column of which nothing is known yet; nothing is learnt of it.
            fit = predict_with(None, matrix.only(some), target, train, test, seed=seed)
            return replace(fit, predict=lambda x: fit.predict(x[:, some]))
    estimator = _default(matrix, target, train.size, seed) if model is None else _copy(model)
    name = _name_of(estimator)
    how, probabilities, threshold = _how(estimator, target, alone=model is None)
    try:
        with _threads(alone=model is None):
            rows, extra = _queries(estimator, target, train)
            estimator.fit(matrix.values[rows], target.values[rows], **extra)
        predicted = how(matrix.values[test])
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"The model {name} could not be fitted.",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            remedy="a scikit-learn estimator for a "
            f"{target.task} that takes NaN, or a pipeline that fills it",
        ) from None
    width = (test.size, len(target.classes)) if target.is_multiclass else (test.size,)
    if predicted.shape != width or not np.isfinite(predicted).all():
        raise UsageError(
            f"The model {name} does not predict one finite number for each label"
            + (" and class." if target.is_multiclass else "."),
            found=f"shape {predicted.shape} for {test.size} labels",
        )
    return Estimate(predicted, probabilities, name, how, threshold)


def _constant(target: Target, train: Rows, test: Rows) -> Estimate:
    learnt = target.values[train]
    if target.is_multiclass:
        shares = np.bincount(learnt.astype(np.int64), minlength=len(target.classes)) / learnt.size
        return Estimate(
            np.tile(shares, (test.size, 1)), True, "a constant",
            lambda x: np.tile(shares, (len(x), 1)),
        )  # fmt: skip
    mean = float(learnt.mean())
    return Estimate(
        np.full(test.size, mean), target.is_class, "a constant", lambda x: np.full(len(x), mean)
    )


def _queries(estimator: Any, target: Target, train: Rows) -> tuple[Rows, dict[str, Any]]:
    """Return the rows to learn from, and what a ranker's `fit` wants to know of their queries."""
    if target.query is None:
        return train, {}
    accepted = inspect.signature(estimator.fit).parameters
    named = [n for n in ("qid", "group") if n in accepted]
    if not named:
        return train, {}
    # Rankers want the rows of one query beside each other.
    rows = train[np.argsort(target.query[train], kind="stable")]
    codes = target.query[rows]
    if named[0] == "qid":
        return rows, {"qid": codes}
    return rows, {"group": np.unique(codes, return_counts=True)[1]}


def _default(matrix: Matrix, target: Target, rows: int, seed: int) -> Any:
    """Return boosting that stops early and in small trees.

    scikit-learn's own defaults learn noise by heart on few thousand labels, so that any further
    column would seem to hurt. Rankings are learnt row by row, by how relevant a row is.
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


def _how(
    estimator: Any, target: Target, *, alone: bool
) -> tuple[Callable[[Floats], Floats], bool, float]:
    """Return how the estimator, once fitted, is asked; if for probabilities; from where on it
    speaks for the second class."""
    probabilities = target.is_class and hasattr(estimator, "predict_proba")
    # A support vector machine has probabilities or not by its parameters, known before it fits.
    decides = target.is_class and not probabilities and hasattr(estimator, "decision_function")
    several = target.is_multiclass

    def predict(values: Floats) -> Floats:
        with _threads(alone=alone):
            if probabilities:
                found = estimator.predict_proba(values)
                found = found if several else found[:, 1]
            elif decides:
                found = estimator.decision_function(values)
            else:
                found = np.asarray(estimator.predict(values), dtype=np.float64)
                if several:
                    found = np.eye(len(target.classes))[found.astype(np.int64)]
        return np.asarray(found, dtype=np.float64)

    return predict, probabilities, 0.0 if decides else 0.5


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
