"""Lift: what a candidate feature adds to a model, measured on labels later than it learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.model import scores
from fs_notebook.model.card import Table, card, count, moment, percent
from fs_notebook.model.chart import lift_chart, lift_spec, svg_of
from fs_notebook.model.columns import Matrix, Target, default_baseline, encode, target_of
from fs_notebook.model.estimate import Estimate, predict_with
from fs_notebook.model.labels import times_us
from fs_notebook.model.training import TrainingSet

ROWS_MIN = 100
TRAIN_ROWS_MAX = 300_000
TEST_ROWS_MAX = 100_000
_IMPORTANCE_ROWS_MAX = 20_000
_IMPORTANCE_COLUMNS_MAX = 12
_SUSPICIOUS = 0.99


@dataclass(frozen=True)
class Lift:
    """What a candidate adds to a model.

    Attributes
    ----------
    name
        The candidate: its columns, joined by commas.
    target, task
        The column to predict, and ``"classification"`` or ``"regression"``.
    metric
        ``"ROC AUC"`` or ``"R²"``; more is better.
    without, with_, difference
        The metric on the test rows without and with the candidate, and with less without.
    low, high
        The 95% interval of `difference`: a paired bootstrap over blocks of test rows.
    noise_difference, noise_low, noise_high
        The same for the candidate's values shuffled across rows: what a column of this shape
        that knows nothing would add.
    verdict
        ``"helps"``: the interval lies above 0 and above the control's. ``"hurts"``: it lies
        below 0. Else ``"no evidence"``.
    error_name, error_without, error_with
        ``"log loss"`` or ``"mean absolute error"``, less is better; None where the model gives
        no probabilities.
    split
        The label time, UTC, from which on labels are test rows: the model learnt from earlier
        ones only.
    importances
        Candidate column → how much of the metric is lost when it alone is shuffled in the test
        rows; empty for a single column, or for many.
    """

    name: str
    target: str
    task: str
    metric: str
    without: float
    with_: float
    difference: float
    low: float
    high: float
    noise_difference: float
    noise_low: float
    noise_high: float
    verdict: str
    error_name: str
    error_without: float | None
    error_with: float | None
    rows_train: int
    rows_test: int
    split: datetime
    candidate: tuple[str, ...]
    baseline: tuple[str, ...]
    model: str
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()
    importances: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, fit for `json.dumps`."""
        return asdict(self) | {"split": self.split.isoformat()}

    def spec(self) -> dict[str, Any]:
        """Return the chart as a Vega-Lite specification."""
        return lift_spec(self)

    def chart(self) -> Any:
        """Return the chart as an Altair chart, to be changed and combined."""
        return lift_chart(self)

    @property
    def _sentence(self) -> str:
        what = {
            "helps": f"helps to predict {self.target}",
            "hurts": f"hurts in predicting {self.target}",
        }.get(self.verdict, f"no evidence that it helps to predict {self.target}")
        return what

    def __repr__(self) -> str:
        base = ", ".join(self.baseline) or "nothing (a constant)"
        notes = "".join(f"\nnote: {note}" for note in self.notes)
        return (
            f"{self.name}: {self._sentence}. {self.metric} {self.without:.4f} without, "
            f"{self.with_:.4f} with: {self.difference:+.4f} (95% {self.low:+.4f} to "
            f"{self.high:+.4f}); shuffled, it adds {self.noise_difference:+.4f} "
            f"({self.noise_low:+.4f} to {self.noise_high:+.4f}). Learnt from "
            f"{count(self.rows_train)} labels before {moment(self.split)} UTC, tested on "
            f"{count(self.rows_test)} from then on, by {self.model}, beside {base}; "
            f"{self.seconds:.1f} s.{notes}"
        )

    def _repr_html_(self) -> str:
        shuffled = f"{self.noise_difference:+.4f}"
        figures = [
            (f"{self.metric} without", f"{self.without:.4f}"),
            (f"{self.metric} with", f"{self.with_:.4f}"),
            ("difference", f"{self.difference:+.4f}"),
            ("95% interval", f"{self.low:+.4f} to {self.high:+.4f}"),
            ("shuffled adds", f"{shuffled} ({self.noise_low:+.4f} to {self.noise_high:+.4f})"),
        ]
        if self.error_without is not None and self.error_with is not None:
            figures.append((self.error_name, f"{self.error_without:.4f} → {self.error_with:.4f}"))
        figures += [
            ("learnt from", f"{count(self.rows_train)} labels before {moment(self.split)} UTC"),
            ("tested on", f"{count(self.rows_test)} labels from then on"),
            ("model", self.model),
            ("beside", ", ".join(self.baseline) or "nothing (a constant)"),
            ("took", f"{self.seconds:.1f} s"),
        ]
        lost: Table = (
            ("candidate", f"{self.metric} lost if shuffled"),
            [(name, f"{value:+.4f}") for name, value in self.importances],
        )
        return card(
            self.name, figures, subtitle=self._sentence, notes=self.notes,
            svg=svg_of(self.spec()), tables=[lost],
        )  # fmt: skip


def measure_lift(
    training: TrainingSet,
    *,
    target: str,
    candidate: Sequence[str],
    baseline: Sequence[str] | None = None,
    clock: Clock,
    seed: int = 0,
    test_share: float = 0.25,
    bootstraps: int = 500,
    model: Any = None,
    on_progress: OnProgress = silent,
) -> Lift:
    """Fit a model without and with the candidate on earlier labels, compare them on later ones.

    A third fit has the candidate's values shuffled across rows: the control that shows what
    chance alone would bring.

    Parameters
    ----------
    training
        Labels and features.
    target
        The column to predict: two values make it a classification, other numbers a regression.
    candidate
        The columns under test, together.
    baseline
        The columns that the model has already. Default: the labels' columns other than the
        target, the time and the keys that are numbers, booleans or texts of few values, and the
        set's other features. With none at all the comparison is with a constant.
    seed
        Of the shuffling, the bootstrap and the default model.
    test_share
        The share of labels, the latest ones, to test on; those at the boundary's very time are
        all test rows. From above 0 to below 1.
    bootstraps
        How many draws the intervals rest on.
    model
        Any scikit-learn estimator or pipeline for the task; it gets floats, NaN where null, and
        texts as the rank of their value among those learnt. Default: histogram-based gradient
        boosting, which needs no tuning to take nulls and curves.

    Raises
    ------
    UsageError
        If the target or a column cannot be used, or there are too few labels, or only one class.
    """
    begun_s = clock.monotonic_s()
    _check_options(test_share, bootstraps)
    candidate, chosen = _columns_of(training, target, candidate, baseline)
    wanted = target_of(training.frame, target)
    split = _split(training, test_share, seed)
    wanted.check_classes(split.train, split.test)

    def tell(done: int, what: str) -> None:
        seconds = clock.monotonic_s() - begun_s
        # Fits are no replay: there are no events to count and no pace to tell.
        on_progress(Progress(done / 5, 0, seconds, what))

    tell(0, "preparing")
    known = encode(training.frame, chosen, learnt_from=split.train)
    added = encode(training.frame, candidate, learnt_from=split.train)
    rng = np.random.default_rng(seed)
    shuffled = added.taken(rng.permutation(training.rows))
    fits: list[Estimate] = []
    for what, matrix in (
        ("fitting without", known),
        ("fitting with", known.beside(added)),
        ("fitting with the control", known.beside(shuffled)),
    ):
        tell(1 + len(fits), what)
        fits.append(predict_with(model, matrix, wanted, split.train, split.test, seed=seed))
    tell(4, "bootstrapping")
    truth = wanted.values[split.test]
    metrics = [wanted.metric(truth, fit.scores) for fit in fits]
    everyone = np.ones(truth.size)
    without, with_, noise = (metric(everyone) for metric in metrics)
    draws = scores.bootstrap(metrics, truth.size, draws=bootstraps, rng=rng)
    low, high = scores.interval(draws[:, 1] - draws[:, 0])
    noise_low, noise_high = scores.interval(draws[:, 2] - draws[:, 0])
    importances = _importances(fits[1], wanted, known.beside(added), candidate, split.test, rng)
    return Lift(
        name=", ".join(candidate), target=target, task=wanted.task, metric=wanted.metric_name,
        without=without, with_=with_, difference=with_ - without, low=low, high=high,
        noise_difference=noise - without, noise_low=noise_low, noise_high=noise_high,
        verdict=_verdict(low, high, noise_high), error_name=wanted.error_name,
        error_without=wanted.error(truth, fits[0]), error_with=wanted.error(truth, fits[1]),
        rows_train=split.train.size, rows_test=split.test.size, split=split.at,
        candidate=candidate, baseline=chosen, model=fits[1].name, seed=seed,
        seconds=clock.monotonic_s() - begun_s,
        notes=_notes(training, candidate, wanted, without, with_, split),
        importances=importances,
    )  # fmt: skip


def _check_options(test_share: float, bootstraps: int) -> None:
    if not 0 < test_share < 1:
        raise UsageError(
            "The share of labels to test on lies between 0 and 1.",
            found=str(test_share),
            remedy="test_share=0.25",
        )
    if not 20 <= bootstraps <= 100_000:
        raise UsageError(
            "An interval rests on 20 to 100,000 bootstrap draws.",
            found=str(bootstraps),
            remedy="bootstraps=500",
        )


def _columns_of(
    training: TrainingSet, target: str, candidate: Sequence[str], baseline: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the candidate's and the baseline's columns, checked."""
    candidates = tuple(dict.fromkeys(candidate))
    if not candidates:
        raise UsageError("A lift needs a candidate.", remedy="name a feature")
    if target not in training.frame.columns:
        raise unknown_name("column of the training set", target, training.frame.columns)
    if baseline is None:
        chosen = default_baseline(training, target, candidates)
    else:
        chosen = tuple(dict.fromkeys(baseline))
    for name in (*candidates, *chosen):
        if name not in training.frame.columns:
            raise unknown_name("column of the training set", name, training.frame.columns)
    if target in candidates or target in chosen:
        raise UsageError(
            f"The target {target!r} cannot be what it is predicted from.",
            remedy="leave it out of candidate and baseline",
        )
    both = [name for name in chosen if name in candidates]
    if both:
        raise UsageError(
            "A column cannot be both candidate and baseline.", found=", ".join(both),
            remedy="leave it out of one of them",
        )  # fmt: skip
    return candidates, chosen


@dataclass(frozen=True, eq=False)
class _Split:
    """Row numbers of earlier and of later labels, each in the order of time."""

    train: Any
    test: Any
    at: datetime
    left_out: int


def _split(training: TrainingSet, test_share: float, seed: int) -> _Split:
    rows = training.rows
    if rows < ROWS_MIN:
        raise UsageError(
            f"{rows} labels are too few to measure a lift.",
            remedy=f"{ROWS_MIN} or more; thousands for a small lift",
        )
    times = times_us(training.frame, training.time).to_numpy()
    order = np.argsort(times, kind="stable")
    first_test = min(max(int(rows * (1 - test_share)), 0), rows - 1)
    boundary = times[order[first_test]]
    begin = int(np.searchsorted(times[order], boundary, side="left"))
    if begin == 0:
        raise UsageError(
            "No label is earlier than the test labels, so that there is nothing to learn from.",
            found=f"{int((times == boundary).sum()):,} of {rows:,} labels at "
            f"{moment(from_us(int(boundary)))} UTC, the earliest time",
            remedy="labels of more than one time, or a smaller test_share",
        )
    rng = np.random.default_rng(seed)
    train = _thinned(order[:begin], TRAIN_ROWS_MAX, rng)
    test = _thinned(order[begin:], TEST_ROWS_MAX, rng)
    left_out = rows - train.size - test.size
    return _Split(train, test, from_us(int(boundary)), left_out)


def _thinned(rows: Any, rows_max: int, rng: np.random.Generator) -> Any:
    if rows.size <= rows_max:
        return rows
    return rows[np.sort(rng.choice(rows.size, rows_max, replace=False))]


def _verdict(low: float, high: float, noise_high: float) -> str:
    if low > max(0.0, noise_high):
        return "helps"
    return "hurts" if high < 0 else "no evidence"


def _importances(
    fit: Estimate,
    target: Target,
    matrix: Matrix,
    candidate: Sequence[str],
    test: Any,
    rng: np.random.Generator,
) -> tuple[tuple[str, float], ...]:
    """Shuffle one candidate column at a time in the test rows and see what the metric loses."""
    if not 2 <= len(candidate) <= _IMPORTANCE_COLUMNS_MAX:
        return ()
    rows = _thinned(test, _IMPORTANCE_ROWS_MAX, rng)
    truth, everyone = target.values[rows], np.ones(rows.size)
    values = matrix.values[rows]
    whole = target.metric(truth, fit.predict(values))(everyone)
    first = values.shape[1] - len(candidate)
    lost: Mapping[str, float] = {
        name: whole - target.metric(truth, fit.predict(_mixed(values, first + i, rng)))(everyone)
        for i, name in enumerate(candidate)
    }
    return tuple(sorted(lost.items(), key=lambda item: -item[1]))


def _mixed(values: Any, column: int, rng: np.random.Generator) -> Any:
    mixed = values.copy()
    mixed[:, column] = rng.permutation(mixed[:, column])
    return mixed


def _notes(
    training: TrainingSet,
    candidate: Sequence[str],
    target: Target,
    without: float,
    with_: float,
    split: _Split,
) -> tuple[str, ...]:
    notes = []
    if max(without, with_) > _SUSPICIOUS:
        which = "with" if without <= _SUSPICIOUS else "even without"
        notes.append(
            f"suspicious: {target.metric_name} above {_SUSPICIOUS} {which} the candidate; "
            f"does a column know {target.name} already?"
        )
    for name in candidate:
        column = training.frame.get_column(name)
        share = column.null_count() / column.len()
        if share > 0.5:
            notes.append(f"{name} is null for {percent(share)} of the labels")
        elif column.drop_nulls().n_unique() < 2:
            notes.append(f"{name} has the same value for all labels")
    if split.left_out:
        notes.append(f"{count(split.left_out)} labels, chosen at random, were left out for speed")
    return tuple(notes)
