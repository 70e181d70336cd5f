"""The metrics by name: scikit-learn's scorer names, and those of ranking. More is better in all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.model import ranking, scores
from fs_notebook.model.scores import Floats, Metric

BINARY, MULTICLASS, REGRESSION, RANKING = "binary", "multiclass", "regression", "ranking"

_Make = Callable[[Floats, Floats, Any], Metric]


@dataclass(frozen=True)
class Scorer:
    """A metric of a kind of task.

    Attributes
    ----------
    name, label
        What it is asked for by, and what it is called on a card.
    kinds
        Of which kinds of task.
    needs
        What of the predictions it looks at: ``"scores"`` that sort, ``"probabilities"``,
        ``"classes"`` or ``"values"``.
    make
        From the truth, the predictions and the rows' queries to the metric.
    best
        Its value for perfect predictions.
    """

    name: str
    label: str
    kinds: tuple[str, ...]
    needs: str
    make: _Make
    best: float = 1.0


def _plain(make: Callable[[Floats, Floats], Metric]) -> _Make:
    return lambda truth, predicted, query: make(truth, predicted)


def _error(error: Callable[[Floats, Floats], Floats]) -> _Make:
    return lambda truth, predicted, query: scores.mean_of(-error(truth, predicted))


def _brier(truth: Floats, p: Floats) -> Floats:
    if p.ndim == 1:
        return np.asarray((truth - p) ** 2)
    given: Floats = np.eye(p.shape[1])[truth.astype(np.int64)]
    return np.asarray(((given - p) ** 2).sum(axis=1))


def _f1_macro(truth: Floats, classes: Floats, query: Any) -> Metric:
    return scores.f1(truth, classes, [int(c) for c in np.unique(np.append(truth, classes))])


def _rmse(truth: Floats, predicted: Floats, query: Any) -> Metric:
    return scores.root_mean_of((truth - predicted) ** 2, -1.0)


_EITHER = (BINARY, MULTICLASS)
SCORERS: Mapping[str, Scorer] = {
    s.name: s
    for s in (
        Scorer("roc_auc", "ROC AUC", (BINARY,), "scores", _plain(scores.auc)),
        Scorer("roc_auc_ovr", "ROC AUC (one vs rest)", (MULTICLASS,), "scores",
               _plain(scores.auc_one_vs_rest)),
        Scorer("average_precision", "average precision", (BINARY,), "scores",
               _plain(scores.average_precision)),
        Scorer("accuracy", "accuracy", _EITHER, "classes",
               lambda t, p, q: scores.mean_of((t == p).astype(np.float64))),
        Scorer("balanced_accuracy", "balanced accuracy", _EITHER, "classes",
               _plain(scores.balanced_accuracy)),
        Scorer("f1", "F1", (BINARY,), "classes", lambda t, p, q: scores.f1(t, p, [1])),
        Scorer("f1_macro", "F1 (macro)", _EITHER, "classes", _f1_macro),
        Scorer("neg_log_loss", "−log loss", _EITHER, "probabilities",
               _error(scores.log_losses), 0.0),
        Scorer("neg_brier_score", "−Brier score", _EITHER, "probabilities", _error(_brier), 0.0),
        Scorer("r2", "R²", (REGRESSION,), "values", _plain(scores.r_squared)),
        Scorer("neg_mean_absolute_error", "−mean absolute error", (REGRESSION,), "values",
               _error(lambda t, p: np.abs(t - p)), 0.0),
        Scorer("neg_mean_squared_error", "−mean squared error", (REGRESSION,), "values",
               _error(lambda t, p: (t - p) ** 2), 0.0),
        Scorer("neg_root_mean_squared_error", "−root mean squared error", (REGRESSION,), "values",
               _rmse, 0.0),
    )
}  # fmt: skip
_RANKING: Mapping[str, tuple[str, Callable[[int | None], _Make]]] = {
    "ndcg": ("NDCG", ranking.ndcg),
    "map": ("MAP", ranking.average_precision_at),
    "mrr": ("MRR", ranking.reciprocal_rank_at),
}
DEFAULT: Mapping[str, str] = {
    BINARY: "roc_auc", MULTICLASS: "roc_auc_ovr", REGRESSION: "r2", RANKING: "ndcg@10",
}  # fmt: skip
_AT = re.compile(r"(ndcg|map|mrr)(?:@([1-9]\d{0,4}))?")


def names_for(kind: str) -> list[str]:
    """Return the names of the metrics of a kind of task."""
    if kind == RANKING:
        return [*_RANKING, *(f"{n}@10" for n in _RANKING)]
    return [s.name for s in SCORERS.values() if kind in s.kinds]


def scorer_of(name: str | None, kind: str) -> Scorer:
    """Return the metric of that name (None: the usual one) for a kind of task.

    Raises
    ------
    UsageError
        If there is none of that name, or it is of another kind of task.
    """
    name = DEFAULT[kind] if name is None else name.strip().lower()
    if match := _AT.fullmatch(name):
        label, make = _RANKING[match[1]]
        k = int(match[2]) if match[2] else None
        suffix = "" if k is None else f"@{k}"
        found = Scorer(name, label + suffix, (RANKING,), "values", make(k))
    elif name in SCORERS:
        found = SCORERS[name]
    else:
        every = [*SCORERS, *names_for(RANKING)]
        raise unknown_name("metric", name, every, remedy=", ".join(names_for(kind)))
    if kind not in found.kinds:
        told = {BINARY: "two classes", MULTICLASS: "several classes"}.get(kind, f"a {kind}")
        raise UsageError(
            f"The metric {name!r} is not one of {told}.",
            found=f"it is for {' and '.join(found.kinds)}",
            remedy=", ".join(names_for(kind)),
        )
    return found
