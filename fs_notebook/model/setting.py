"""How a lift is to be measured, and on which columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.model.columns import default_baseline
from fs_notebook.model.training import TrainingSet


@dataclass(frozen=True)
class Setting:
    """How a lift is to be measured.

    Attributes
    ----------
    target
        The column to predict.
    task
        ``"classification"``, ``"regression"`` or ``"ranking"``; None: as the target's values are.
    query
        The column that says which rows are ranked among each other.
    metric
        One of scikit-learn's scorer names, or ``"ndcg@10"``, ``"map"``, ``"mrr"``; None: the
        task's usual one.
    folds
        Walk-forward folds; 1 is a single split by time.
    test_share
        The share of labels, the latest ones, to test on; None: a quarter, or a half in folds.
    group
        A column none of whose values may be both learnt from and tested on. Intervals are then
        drawn by its values.
    seed
        Of shuffling, drawing and the default model.
    bootstraps
        How many draws the intervals rest on.
    model
        Any scikit-learn estimator or pipeline; None: histogram-based gradient boosting.
    """

    target: str
    task: str | None = None
    query: str | None = None
    metric: str | None = None
    folds: int = 3
    test_share: float | None = None
    group: str | None = None
    seed: int = 0
    bootstraps: int = 500
    model: Any = None


def check_options(options: Mapping[str, Any]) -> None:
    """Raise if an option is none of `Setting`.

    Raises
    ------
    UsageError
        It says which there are.
    """
    known = [f.name for f in fields(Setting) if f.name != "target"]
    for name in options:
        if name not in known:
            raise unknown_name("option of lift", name, known)


def check_setting(setting: Setting) -> None:
    if not 20 <= setting.bootstraps <= 100_000:
        raise UsageError(
            "An interval rests on 20 to 100,000 bootstrap draws.",
            found=str(setting.bootstraps),
            remedy="bootstraps=500",
        )


def columns_of(
    training: TrainingSet,
    setting: Setting,
    candidates: Sequence[Sequence[str]],
    baseline: Sequence[str] | None,
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Return each candidate's columns and the baseline's, checked."""
    wanted = [tuple(dict.fromkeys(c)) for c in candidates]
    if not wanted or not all(wanted):
        raise UsageError("A lift needs a candidate.", remedy="name a feature")
    if len(set(wanted)) < len(wanted):
        raise UsageError("A candidate is named twice.", remedy="name each once")
    target, known = setting.target, training.frame.columns
    if target not in known:
        raise unknown_name("column of the training set", target, known)
    every = [c for one in wanted for c in one]
    if baseline is None:
        chosen = default_baseline(
            training, target, [*every, setting.query, setting.group]
        )  # fmt: skip
    else:
        chosen = tuple(dict.fromkeys(baseline))
    for name in (*every, *chosen):
        if name not in known:
            raise unknown_name("column of the training set", name, known)
    if target in every or target in chosen:
        raise UsageError(
            f"The target {target!r} cannot be what it is predicted from.",
            remedy="leave it out of candidate and baseline",
        )
    both = [name for name in chosen if name in every]
    if both:
        raise UsageError(
            "A column cannot be both candidate and baseline.", found=", ".join(both),
            remedy="leave it out of one of them",
        )  # fmt: skip
    return wanted, chosen
