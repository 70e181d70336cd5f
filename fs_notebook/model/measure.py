"""Measuring lift: models without and with candidates, on labels later than they learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.model import scores
from fs_notebook.model.card import count, percent
from fs_notebook.model.columns import Matrix, encode
from fs_notebook.model.drift import Drift, drift_of
from fs_notebook.model.estimate import Estimate, predict_with
from fs_notebook.model.folds import Split, run_numbers, splits_of
from fs_notebook.model.importance import importances_of, some_of
from fs_notebook.model.labels import times_us
from fs_notebook.model.lift import FoldScore, Lift
from fs_notebook.model.lifts import Lifts
from fs_notebook.model.scores import Blocks, Floats, Metric
from fs_notebook.model.setting import Setting, check_setting, columns_of
from fs_notebook.model.shapes import Distribution, curve_of, distribution_of
from fs_notebook.model.target import codes_of, named_column, target_of
from fs_notebook.model.training import TrainingSet
from fs_notebook.model.verdict import LEAK, Control, decide, too_good

_COLUMNS_DRAWN_MAX = 6
_CLUSTERS_FEW = 30
_WITHOUT = "without"


def measure_lift(
    training: TrainingSet,
    *,
    target: str,
    candidate: Sequence[str],
    baseline: Sequence[str] | None = None,
    clock: Clock,
    on_progress: OnProgress = silent,
    **options: Any,
) -> Lift:
    """Fit models without and with the candidate on earlier labels, compare them on later ones.

    Two more fits are controls: the candidate's values shuffled across rows, and random numbers in
    its place, show what chance alone would bring.

    Parameters
    ----------
    training
        Labels and features.
    target
        The column to predict.
    candidate
        The columns under test, together.
    baseline
        The columns that the model has already. Default: the labels' columns other than the
        target, the time and the keys that are numbers, booleans or texts of few values, and the
        set's other features. With none at all the comparison is with a constant.
    options
        As for `Setting`. A model gets floats, NaN where null, and texts as the rank of their
        value among those learnt.

    Raises
    ------
    UsageError
        If the target or a column cannot be used, or there are too few labels, classes, groups or
        queries for the folds that are wanted.
    """
    setting = Setting(target, **options)
    return _Measuring(training, [candidate], baseline, setting, clock, on_progress).lifts()[0]


def measure_lifts(
    training: TrainingSet,
    *,
    target: str,
    candidates: Sequence[Sequence[str]],
    baseline: Sequence[str] | None = None,
    clock: Clock,
    on_progress: OnProgress = silent,
    **options: Any,
) -> Lifts:
    """Measure several candidates, each by itself beside the same baseline, and rank them.

    Their intervals hold all at once with 95%, so that the best of many columns that know nothing
    is no more likely to be called a help than one alone. For the rest see `measure_lift`.
    """
    setting = Setting(target, **options)
    found = _Measuring(training, candidates, baseline, setting, clock, on_progress).lifts()
    return Lifts.ranked(found)


class _Measuring:
    """One measurement: the models of all folds and candidates, then what they tell."""

    def __init__(
        self,
        training: TrainingSet,
        candidates: Sequence[Sequence[str]],
        baseline: Sequence[str] | None,
        setting: Setting,
        clock: Clock,
        on_progress: OnProgress,
    ) -> None:
        self._begun_s = clock.monotonic_s()
        check_setting(setting)
        self._training, self._setting, self._clock = training, setting, clock
        self._on_progress = on_progress
        self._candidates, self._baseline = columns_of(training, setting, candidates, baseline)
        frame = training.frame
        self._target = target_of(
            frame, setting.target, task=setting.task, query=setting.query, metric=setting.metric
        )
        self._times: Any = times_us(frame, training.time).to_numpy()
        self._groups = None
        if setting.group is not None:
            self._groups = codes_of(named_column(
                frame, setting.group, "is to be on one side of each split",
            ))  # fmt: skip
            if (query := self._target.query) is not None:
                # A query is on one side as a whole, with the group of its first row.
                first = np.empty(int(query.max()) + 1, np.int64)
                first[query[::-1]] = self._groups[::-1]
                self._groups = first[query]
        self._splits = splits_of(
            self._times, folds=setting.folds, test_share=setting.test_share, groups=self._groups,
            queries=self._target.query, group_name=setting.group or "", seed=setting.seed,
        )  # fmt: skip
        for place, split in enumerate(self._splits):
            where = f" of fold {place + 1}" if len(self._splits) > 1 else ""
            self._target.check(split.train, split.test, where)
        self._rng = np.random.default_rng(setting.seed)
        self._fits: dict[str, list[Estimate]] = {}
        self._last: dict[int, Matrix] = {}
        self._done, self._steps = 0, 1

    def _tell(self, what: str, part: float = 0.0) -> None:
        """Say what comes next; an interrupt takes effect here at the latest."""
        seconds = self._clock.monotonic_s() - self._begun_s
        # Fits are no replay: there are no events to count and no pace to tell.
        self._on_progress(Progress((self._done + part) / self._steps, 0, seconds, what))

    def lifts(self) -> list[Lift]:
        """Return a lift for each candidate."""
        count = len(self._candidates)
        self._steps = len(self._splits) * (1 + 3 * count) + 2 * count
        self._tell("preparing")
        permutations = [self._rng.permutation(self._training.rows) for _ in self._candidates]
        for place, split in enumerate(self._splits):
            self._fit_fold(place, split, permutations)
        names = list(self._fits)
        draws = self._draws(names)
        points = {n: self._pooled(self._points(self._fits[n])) for n in names}
        pooled = {n: self._pooled_draws(draws[:, i]) for i, n in enumerate(names)}
        intervals = self._intervals(points, pooled)
        return [
            self._lift(i, points, intervals[i], {n: draws[:, j] for j, n in enumerate(names)})
            for i in range(count)
        ]

    def _fit_fold(self, place: int, split: Split, permutations: Sequence[Any]) -> None:
        frame = self._training.frame
        where = f" (fold {place + 1} of {len(self._splits)})" if len(self._splits) > 1 else ""
        known = encode(frame, self._baseline, learnt_from=split.train)
        self._fit(_WITHOUT, known, split, f"fitting without{where}")
        for i, columns in enumerate(self._candidates):
            which = f" {', '.join(columns)}" if len(self._candidates) > 1 else ""
            added = encode(frame, columns, learnt_from=split.train)
            whole = known.beside(added)
            self._fit(f"with {i}", whole, split, f"fitting with{which}{where}")
            if place == len(self._splits) - 1:
                self._last[i] = whole.taken(some_of(split.test, self._target, self._setting.seed))
            shuffled = known.beside(added.taken(permutations[i]))
            self._fit(f"shuffled {i}", shuffled, split, f"fitting with{which} shuffled{where}")
            # Candidates of as many columns share the control that has none of their values.
            name = f"random {len(added.names)}"
            if len(self._fits.get(name, ())) <= place:
                values = np.random.default_rng([self._setting.seed, len(added.names)]).normal(
                    size=added.values.shape
                )
                names = tuple(f"random {j}" for j in range(len(added.names)))
                random = Matrix(values, names, (False,) * len(names), names)
                self._fit(name, known.beside(random), split, f"fitting with random numbers{where}")
            else:
                self._done += 1

    def _fit(self, name: str, matrix: Matrix, split: Split, what: str) -> None:
        self._tell(what)
        fit = predict_with(
            self._setting.model, matrix, self._target, split.train, split.test,
            seed=self._setting.seed,
        )  # fmt: skip
        self._fits.setdefault(name, []).append(fit)
        self._done += 1

    def _metrics(self, fits: Sequence[Estimate]) -> list[Metric]:
        return [
            self._target.metric(split.test, fit)
            for split, fit in zip(self._splits, fits, strict=True)
        ]

    def _points(self, fits: Sequence[Estimate]) -> Floats:
        """Return the metric in each fold."""
        return np.array([
            metric(np.ones(split.test.size))
            for split, metric in zip(self._splits, self._metrics(fits), strict=True)
        ])  # fmt: skip

    def _pooled(self, points: Floats) -> float:
        return float(self._pooled_draws(points[None, :])[0])

    def _pooled_draws(self, values: Floats) -> Floats:
        """Return the mean over folds, by their rows; a fold that tells nothing is left out.

        Predictions of several models are not sorted into one list: each fold's model has a level
        of its own.
        """
        weights = np.array([float(s.test.size) for s in self._splits])
        some = ~np.isnan(values)
        total = (some * weights).sum(axis=1)
        summed = (np.where(some, values, 0.0) * weights).sum(axis=1)
        return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)

    def _blocks(self) -> Blocks:
        tests = [s.test for s in self._splits]
        query = self._target.query
        if self._groups is not None:
            return Blocks.of_groups(np.concatenate([self._groups[t] for t in tests]))
        units = None
        if query is not None:
            units = [run_numbers(query[t]) for t in tests]
        return Blocks.in_time([t.size for t in tests], units)

    def _draws(self, names: Sequence[str]) -> Floats:
        """Return the metric of each resampled set of rows: (draws, models, folds)."""
        ends = np.cumsum([s.test.size for s in self._splits])
        metrics: list[Metric] = []
        for name in names:
            for metric, split, end in zip(
                self._metrics(self._fits[name]), self._splits, ends, strict=True
            ):
                metrics.append(_within(metric, int(end) - split.test.size, int(end)))
        blocks, draws = self._blocks(), self._setting.bootstraps
        found = np.empty((draws, len(metrics)))
        drawn = scores.draws_of(metrics, blocks, draws=draws, rng=self._rng)
        for i, row in enumerate(drawn):
            if i % 10 == 0:
                self._tell("bootstrapping", len(self._candidates) * i / draws)
            found[i] = row
        self._done += len(self._candidates)
        return found.reshape(draws, len(names), len(self._splits))

    def _random(self, i: int) -> str:
        return f"random {sum(o in self._candidates[i] for o in self._last[i].origins)}"

    def _intervals(
        self, points: dict[str, float], draws: dict[str, Floats]
    ) -> list[list[tuple[float, tuple[float, float]]]]:
        """Return for each candidate five differences with their intervals.

        With less without; shuffled, random less without; with less shuffled, less random.
        """
        count = range(len(self._candidates))
        pairs: list[Callable[[int], tuple[str, str]]] = [
            lambda i: (f"with {i}", _WITHOUT),
            lambda i: (f"shuffled {i}", _WITHOUT),
            lambda i: (self._random(i), _WITHOUT),
            lambda i: (f"with {i}", f"shuffled {i}"),
            lambda i: (f"with {i}", self._random(i)),
        ]
        columns = []
        for pair in pairs:
            named = [pair(i) for i in count]
            values = [points[a] - points[b] for a, b in named]
            drawn = np.column_stack([draws[a] - draws[b] for a, b in named])
            together = scores.intervals_together(drawn, values)
            columns.append(list(zip(values, together, strict=True)))
        return [[column[i] for column in columns] for i in count]

    def _lift(
        self,
        i: int,
        points: dict[str, float],
        found: Sequence[tuple[float, tuple[float, float]]],
        draws: dict[str, Floats],
    ) -> Lift:
        setting, target, columns = self._setting, self._target, self._candidates[i]
        without, with_ = points[_WITHOUT], points[f"with {i}"]
        (difference, (low, high)), *others = found
        controls = tuple(
            Control(name, *_flat(others[at]), *_flat(others[at + 2]))
            for at, name in enumerate(("shuffled", "random"))
        )
        suspicions = self._suspicions(columns, without, with_)
        decision = decide(low, high, controls, suspicions)
        fits = {w: self._fits[n] for w, n in ((_WITHOUT, _WITHOUT), ("with", f"with {i}"))}
        drifts, distributions = self._pictures(columns)
        importances = importances_of(
            target, fits["with"][-1], self._last[i], some_of(
                self._splits[-1].test, target, setting.seed
            ), [*columns, *self._baseline], rng=self._rng,
            on_column=lambda part: self._tell("measuring importance", part),
        )  # fmt: skip
        self._done += 1
        return Lift(
            name=", ".join(columns), target=target.name, task=target.task,
            metric=target.scorer.label, scorer=target.scorer.name,
            without=without, with_=with_, difference=difference, low=low, high=high,
            controls=controls, verdict=decision.verdict, reason=decision.reason,
            suspicions=suspicions, error_name=target.error_name,
            error_without=self._error(fits[_WITHOUT]), error_with=self._error(fits["with"]),
            folds=self._fold_scores(fits, draws[f"with {i}"] - draws[_WITHOUT]),
            rows_train=self._splits[-1].train.size,
            rows_test=sum(s.test.size for s in self._splits),
            split=self._splits[0].at, candidate=columns, baseline=self._baseline,
            group=setting.group, query=setting.query, classes=target.classes,
            model=fits["with"][-1].name, seed=setting.seed, bootstraps=setting.bootstraps,
            compared=len(self._candidates), seconds=self._clock.monotonic_s() - self._begun_s,
            notes=self._notes(columns, decision.verdict, suspicions, drifts),
            importances=importances,
            calibration=tuple(
                c for w, f in fits.items() if (c := curve_of(w, target, self._tested(f)))
            ),
            distributions=distributions, drifts=drifts,
        )  # fmt: skip

    def _tested(self, fits: Sequence[Estimate]) -> list[tuple[Any, Estimate]]:
        return [(s.test, f) for s, f in zip(self._splits, fits, strict=True)]

    def _error(self, fits: Sequence[Estimate]) -> float | None:
        errors = [self._target.error(rows, fit) for rows, fit in self._tested(fits)]
        if any(e is None for e in errors):
            return None
        return self._pooled(np.array(errors, dtype=np.float64))

    def _fold_scores(
        self, fits: dict[str, list[Estimate]], differences: Floats
    ) -> tuple[FoldScore, ...]:
        without, with_ = self._points(fits[_WITHOUT]), self._points(fits["with"])
        return tuple(
            FoldScore(
                split.at, split.until, split.train.size, split.test.size, float(without[k]),
                float(with_[k]), float(with_[k] - without[k]),
                *scores.interval(differences[:, k]),
            )
            for k, split in enumerate(self._splits)
        )  # fmt: skip

    def _suspicions(self, columns: Sequence[str], without: float, with_: float) -> tuple[str, ...]:
        scorer = self._target.scorer
        found = [
            leak.text for leak in self._training.leaks
            if leak.is_serious and not set(leak.features).isdisjoint(columns)
        ]  # fmt: skip
        good = too_good(scorer.label, scorer.best, without, with_)
        return tuple(dict.fromkeys([*found, *([good] if good else [])]))

    def _pictures(
        self, columns: Sequence[str]
    ) -> tuple[tuple[Drift, ...], tuple[Distribution, ...]]:
        first, last = self._splits[0], self._splits[-1]
        rows = np.union1d(first.train, np.concatenate([s.test for s in self._splits]))
        drifts, shapes = [], []
        for name in columns[:_COLUMNS_DRAWN_MAX]:
            column = self._training.frame.get_column(name)
            shape = distribution_of(column, self._target, rows)
            if shape is None:
                continue
            shapes.append(shape)
            drifts.append(drift_of(column, self._times, last.train, last.test))
        return tuple(drifts), tuple(shapes)

    def _notes(
        self,
        columns: Sequence[str],
        verdict: str,
        suspicions: Sequence[str],
        drifts: Sequence[Drift],
    ) -> tuple[str, ...]:
        # The first one is the verdict's reason, where it is the verdict.
        told = suspicions[1:] if verdict == LEAK else suspicions
        notes = [f"suspicious: {s}" for s in told]
        notes += [
            leak.text for leak in self._training.leaks
            if not leak.is_serious and not set(leak.features).isdisjoint(columns)
        ]  # fmt: skip
        for name in columns:
            column = self._training.frame.get_column(name)
            share = column.null_count() / column.len()
            if share > 0.5:
                notes.append(f"{name} is null for {percent(share)} of the labels")
            elif column.drop_nulls().n_unique() < 2:
                notes.append(f"{name} has the same value for all labels")
        notes += [
            f"{d.column} drifts: PSI {d.psi:.2f} between what was learnt from and the newest labels"
            for d in drifts if d.is_large
        ]  # fmt: skip
        if self._groups is not None:
            tested = np.concatenate([s.test for s in self._splits])
            clusters = np.unique(self._groups[tested]).size
            if clusters < _CLUSTERS_FEW:
                notes.append(
                    f"only {clusters} values of {self._setting.group} were tested: intervals of so "
                    "few tend to be too narrow"
                )
        thinned = sum(s.thinned for s in self._splits)
        if thinned:
            notes.append(f"{count(thinned)} labels, chosen at random, were left out for speed")
        return tuple(notes)


def _flat(found: tuple[float, tuple[float, float]]) -> tuple[float, float, float]:
    return (found[0], *found[1])


def _within(metric: Metric, low: int, high: int) -> Metric:
    """Return a metric of the rows [low, high), as a function of the weights of all."""
    return lambda weights: metric(weights[low:high])
