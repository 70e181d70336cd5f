"""Metrics by name agree with scikit-learn's, with weights as with repeated rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from sklearn import metrics as sk

from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.model.metrics import DEFAULT, SCORERS, names_for, scorer_of

pytestmark = pytest.mark.timeout(60)

RNG = np.random.default_rng(3)
ROWS = 60
WEIGHTS = RNG.integers(0, 4, ROWS).astype(float)
BINARY = RNG.integers(0, 2, ROWS).astype(float)
BINARY[:5] = 1.0
CHANCE = np.round(RNG.random(ROWS), 1)
MANY = RNG.integers(0, 3, ROWS).astype(float)
CHANCES = RNG.dirichlet(np.ones(3), ROWS)
VALUES, GUESS = RNG.normal(size=(2, ROWS))


def by_name(name: str, kind: str, truth: Any, predicted: Any) -> float:
    return scorer_of(name, kind).make(truth, predicted, None)(WEIGHTS)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("roc_auc", sk.roc_auc_score),
        ("average_precision", sk.average_precision_score),
        ("neg_log_loss", lambda *a, **k: -sk.log_loss(*a, **k)),
        ("neg_brier_score", lambda *a, **k: -sk.brier_score_loss(*a, **k)),
    ],
)
def test_metrics_of_scores(name: str, want: Any) -> None:
    p = np.clip(CHANCE, 0.01, 0.99)
    assert by_name(name, "binary", BINARY, p) == pytest.approx(
        want(BINARY, p, sample_weight=WEIGHTS)
    )


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("accuracy", sk.accuracy_score),
        ("balanced_accuracy", sk.balanced_accuracy_score),
        ("f1_macro", lambda *a, **k: sk.f1_score(*a, average="macro", **k)),
        ("f1", sk.f1_score),
    ],
)
def test_metrics_of_classes(name: str, want: Any) -> None:
    told = (CHANCE > 0.5).astype(float)
    assert by_name(name, "binary", BINARY, told) == pytest.approx(
        want(BINARY, told, sample_weight=WEIGHTS)
    )
    if name != "f1":
        told = CHANCES.argmax(axis=1).astype(float)
        assert by_name(name, "multiclass", MANY, told) == pytest.approx(
            want(MANY, told, sample_weight=WEIGHTS)
        )


def test_metrics_of_several_classes() -> None:
    for name, want in (
        ("roc_auc_ovr", lambda *a, **k: sk.roc_auc_score(*a, multi_class="ovr", **k)),
        ("neg_log_loss", lambda *a, **k: -sk.log_loss(*a, **k)),
    ):
        assert by_name(name, "multiclass", MANY, CHANCES) == pytest.approx(
            want(MANY, CHANCES, sample_weight=WEIGHTS)
        )


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("r2", sk.r2_score),
        ("neg_mean_absolute_error", lambda *a, **k: -sk.mean_absolute_error(*a, **k)),
        ("neg_mean_squared_error", lambda *a, **k: -sk.mean_squared_error(*a, **k)),
        ("neg_root_mean_squared_error", lambda *a, **k: -sk.root_mean_squared_error(*a, **k)),
    ],
)
def test_metrics_of_values(name: str, want: Any) -> None:
    assert by_name(name, "regression", VALUES, GUESS) == pytest.approx(
        want(VALUES, GUESS, sample_weight=WEIGHTS)
    )


def ranking(name: str, truth: Any, predicted: Any, query: Any, weights: Any = None) -> float:
    metric = scorer_of(name, "ranking").make(truth, predicted, query)
    return metric(np.ones(truth.size) if weights is None else weights)


@settings(max_examples=60)
@given(
    truth=some.arrays(np.float64, 24, elements=st.integers(0, 3).map(float)),
    grades=some.arrays(np.float64, 24, elements=st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])),
    k=st.sampled_from([None, 1, 3, 10]),
    seed=st.integers(0, 9),
)
def test_ndcg_is_scikit_learns_for_each_query_with_ties(
    truth: Any, grades: Any, k: int | None, seed: int
) -> None:
    query = np.random.default_rng(seed).integers(0, 4, 24)
    wanted = [
        sk.ndcg_score([truth[query == q]], [grades[query == q]], k=k)
        for q in np.unique(query)
        if np.unique(truth[query == q]).size > 1
    ]
    got = ranking("ndcg" if k is None else f"ndcg@{k}", truth, grades, query)
    assert np.isnan(got) if not wanted else got == pytest.approx(np.mean(wanted))


def test_map_is_the_mean_of_average_precisions_and_mrr_of_first_ranks() -> None:
    query = np.repeat(np.arange(12), 5)
    grades = RNG.permutation(ROWS).astype(float)
    telling = [q for q in range(12) if np.unique(BINARY[query == q]).size > 1]
    assert len(telling) < 12
    want = [sk.average_precision_score(BINARY[query == q], grades[query == q]) for q in telling]
    assert ranking("map", BINARY, grades, query) == pytest.approx(np.mean(want))
    firsts = []
    for q in telling:
        ordered = BINARY[query == q][np.argsort(-grades[query == q])]
        firsts.append(1 + int(np.argmax(ordered)))
    assert ranking("mrr", BINARY, grades, query) == pytest.approx(np.mean([1 / f for f in firsts]))
    assert ranking("mrr@2", BINARY, grades, query) == pytest.approx(
        np.mean([1 / f if f <= 2 else 0 for f in firsts])
    )
    # Among the first one: what the first is, since there is one relevant place to fill.
    assert ranking("map@1", BINARY, grades, query) == pytest.approx(
        np.mean([f == 1 for f in firsts])
    )


def test_a_query_counts_as_often_as_it_is_drawn() -> None:
    query, grades = np.repeat(np.arange(12), 5), RNG.permutation(ROWS).astype(float)
    drawn = np.repeat(RNG.integers(0, 3, 12), 5)
    rows = np.repeat(np.arange(ROWS), drawn)
    again = np.concatenate([np.zeros(0, int), *(
        np.repeat(q * 10 + np.arange(n), 5) for q, n in enumerate(drawn[::5])
    )])  # fmt: skip
    order = np.concatenate([np.zeros(0, int), *(
        np.tile(np.flatnonzero(query == q), n) for q, n in enumerate(drawn[::5])
    )])  # fmt: skip
    assert rows.size == order.size
    for name in ("ndcg@3", "map", "mrr"):
        assert ranking(name, BINARY, grades, query, drawn.astype(float)) == pytest.approx(
            ranking(name, BINARY[order], grades[order], again)
        )


def test_names_are_told() -> None:
    for kind, name in DEFAULT.items():
        assert scorer_of(None, kind).name == name
        for other in names_for(kind):
            assert kind in scorer_of(other, kind).kinds
    with pytest.raises(UnknownName, match="did you mean 'roc_auc'"):
        scorer_of("rocauc", "binary")
    with pytest.raises(UsageError, match=r"(?s)'r2' is not one of two classes.*for regression"):
        scorer_of("r2", "binary")
    with pytest.raises(UsageError, match=r"'ndcg@5' is not one of a regression"):
        scorer_of("ndcg@5", "regression")
    with pytest.raises(UnknownName):
        scorer_of("ndcg@0", "ranking")


@pytest.mark.parametrize("name", [s.name for s in SCORERS.values()])
def test_perfect_predictions_are_the_best_there_is(name: str) -> None:
    scorer = SCORERS[name]
    for kind in scorer.kinds:
        truth = {"binary": BINARY, "multiclass": MANY, "regression": VALUES}[kind]
        given = np.eye(3)[MANY.astype(int)] if kind == "multiclass" else truth
        if scorer.needs == "classes":
            given = truth
        assert scorer.make(truth, given, None)(np.ones(ROWS)) == pytest.approx(scorer.best)
