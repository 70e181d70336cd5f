"""What is to be predicted: its task, its values as floats, and how predictions are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import UsageError, near_names, unknown_name
from fs_notebook.model import scores
from fs_notebook.model.metrics import BINARY, MULTICLASS, RANKING, REGRESSION, Scorer, scorer_of
from fs_notebook.model.scores import Floats, Metric

if TYPE_CHECKING:
    from fs_notebook.model.estimate import Estimate

Rows = npt.NDArray[np.int64]

CLASSIFICATION = "classification"
TASKS = (CLASSIFICATION, REGRESSION, RANKING)
CLASSES_MAX = 50
"""Of a target of texts with more values than this, nothing is learnt about most of them."""

CLASSES_ROWS_MIN = 2


@dataclass(frozen=True, eq=False)
class Target:
    """What to predict, as floats, and how predictions of it are judged.

    Of a classification `values` are the numbers of `classes`; `query` has the number of each
    row's query, where rows of one query are ranked.
    """

    name: str
    task: str
    values: Floats
    scorer: Scorer
    classes: tuple[str, ...] = ()
    query: Rows | None = field(default=None, repr=False)
    query_name: str | None = None

    @property
    def is_class(self) -> bool:
        return self.task == CLASSIFICATION

    @property
    def is_multiclass(self) -> bool:
        return len(self.classes) > 2

    @property
    def error_name(self) -> str:
        if self.task == RANKING:
            return ""
        return "log loss" if self.is_class else "mean absolute error"

    def metric(self, rows: Rows, fit: Estimate, predicted: Floats | None = None) -> Metric:
        """Return the metric of predictions of these rows, as a function of the rows' weights.

        Raises
        ------
        UsageError
            If the metric needs probabilities and the model gives none.
        """
        if self.scorer.needs == "probabilities" and not fit.probabilities:
            raise UsageError(
                f"The metric {self.scorer.name!r} needs probabilities.",
                found=f"{fit.name} has no predict_proba",
                remedy="a model that gives probabilities, or another metric",
            )
        given = fit.scores if predicted is None else predicted
        if self.scorer.needs == "classes":
            given = fit.classes_of(given)
        elif given.ndim == 2 and self.scorer.needs == "values":
            given = given[:, 1]
        query = None if self.query is None else self.query[rows]
        return self.scorer.make(self.values[rows], given, query)

    def error(self, rows: Rows, fit: Estimate) -> float | None:
        """Return the second metric, of which less is better; None where there is none."""
        truth = self.values[rows]
        if self.task == REGRESSION:
            return scores.mean_absolute_error(truth, fit.scores)
        return scores.log_loss(truth, fit.scores) if self.is_class and fit.probabilities else None

    def check(self, train: Rows, test: Rows, where: str = "") -> None:
        """Raise if earlier or later labels lack a class, do not vary, or rank nothing."""
        for what, rows in ((f"earlier labels{where}", train), (f"later labels{where}", test)):
            seen = self.values[rows]
            if self.is_class:
                self._check_classes(what, seen, later=rows is test)
            elif self.task == RANKING and not self._tells(rows):
                raise UsageError(
                    f"The {what} have no {self.query_name} with both better and worse rows.",
                    found=f"{seen.size:,} labels, {self.name} the same within each "
                    f"{self.query_name}",
                    remedy="more labels, or another query column",
                )
            elif not seen.size or seen.min() == seen.max():
                raise UsageError(
                    f"The {what} all have the same {self.name}.",
                    found=f"{seen.size:,} labels", remedy="more labels, or another test_share",
                )  # fmt: skip

    def _check_classes(self, what: str, seen: Floats, *, later: bool) -> None:
        counts = np.bincount(seen.astype(np.int64), minlength=len(self.classes))
        rare = int(counts.argmin())
        if counts.min() >= CLASSES_ROWS_MIN:
            return
        # Later labels may lack a rare class of many: the others are told apart all the same.
        if later and self.is_multiclass and (counts >= CLASSES_ROWS_MIN).sum() >= 2:
            return
        shown = ", ".join(f"{n:,} × {c}" for n, c in zip(counts, self.classes, strict=True))
        raise UsageError(
            f"The {what} have hardly any {self.name} = {self.classes[rare]}.",
            found=shown,
            remedy="more labels, another test_share, or fewer folds"
            + (", or rare classes made one" if self.is_multiclass else ""),
        )

    def _tells(self, rows: Rows) -> bool:
        assert self.query is not None
        truth, query = self.values[rows], self.query[rows]
        frame = pl.DataFrame({"q": query, "v": truth}).group_by("q").agg(pl.col("v").n_unique())
        return bool((frame.get_column("v") > 1).any())


def target_of(
    frame: pl.DataFrame,
    name: str,
    *,
    task: str | None = None,
    query: str | None = None,
    metric: str | None = None,
) -> Target:
    """Return the target column as floats.

    Two values, or texts, make it a classification, other numbers a regression, a query column a
    ranking; `task` says otherwise. Of classes the numbers are in their order: of texts the
    alphabet's.

    Raises
    ------
    UsageError
        If it has nulls, one value only, or does not fit the task; if the metric does not.
    """
    task = _task(task, query)
    column = frame.get_column(name)
    _check_known(column)
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    distinct = column.unique().sort()
    if distinct.len() == 1:
        raise UsageError(
            f"The target {name!r} has one value only, so that there is nothing to tell apart.",
            found=str(distinct[0]),
        )
    if task is None:
        task = _natural_task(column, distinct)
    if task == CLASSIFICATION:
        return _classes(column, distinct, scorer_name=metric)
    numeric = column.dtype.is_numeric() or column.dtype == pl.Boolean
    if not numeric:
        wanted = "a number" if task == REGRESSION else "a relevance: a number, or yes and no"
        raise UsageError(
            f"The target {name!r} of a {task} is not {wanted}.",
            found=f"{column.dtype} with {distinct.len():,} values",
            remedy="numbers, or task='classification'",
        )
    values = column.cast(pl.Float64).to_numpy()
    scorer = scorer_of(metric, task)
    if task == REGRESSION:
        return Target(name, task, values, scorer)
    if values.min() < 0:
        raise UsageError(
            f"The target {name!r} of a ranking is how relevant a row is, from 0 on.",
            found=f"{values.min():g}", remedy="0 for rows of no interest",
        )  # fmt: skip
    return Target(name, task, values, scorer, query=_queries(frame, query), query_name=query)


def codes_of(column: pl.Series) -> Rows:
    """Return a number for each value, from 0 in ascending order."""
    if column.dtype == pl.Boolean:
        column = column.cast(pl.Int8)
    ranks: Any = (column.rank("dense") - 1).to_numpy()
    return np.asarray(ranks, dtype=np.int64)


def named_column(frame: pl.DataFrame, name: str, what: str) -> pl.Series:
    """Return the column that rows are put together by, checked: it has no nulls.

    Raises
    ------
    UsageError
        If it is missing, or null somewhere, or of lists or structs.
    """
    if name not in frame.columns:
        near = near_names(name, frame.columns)
        raise UsageError(
            f"The labels have no column {name!r}, which {what}.",
            found=", ".join(frame.columns),
            remedy=f"did you mean {near[0]!r}?" if near else "name one of these",
        )
    column = frame.get_column(name)
    if column.dtype.is_nested():
        raise UsageError(f"The column {name!r} cannot put rows together.", found=str(column.dtype))
    if column.null_count():
        raise UsageError(
            f"The column {name!r}, which {what}, is null for {column.null_count():,} labels.",
            remedy="drop those labels first",
        )
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column


def _task(task: str | None, query: str | None) -> str | None:
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if query is None:
        if task == RANKING:
            raise UsageError(
                "A ranking orders the rows of a query: which column says of which query a row is?",
                found="task='ranking' without a query",
                remedy="query='session'",
            )
        return task
    if task not in (None, RANKING):
        raise UsageError(
            "Rows of one query are ranked.", found=f"query={query!r} for a {task}",
            remedy="task='ranking', or no query",
        )  # fmt: skip
    return RANKING


def _check_known(column: pl.Series) -> None:
    name, nulls = column.name, column.null_count()
    if column.dtype.is_float():
        nulls += int((~column.is_finite()).sum())
    if nulls:
        raise UsageError(
            f"The target {name!r} is not known for {nulls:,} of {column.len():,} labels.",
            found="null, NaN or infinite",
            remedy="drop those labels first",
        )
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        raise UsageError(f"The target {name!r} is nothing to predict.", found=str(column.dtype))


def _natural_task(column: pl.Series, distinct: pl.Series) -> str:
    if distinct.len() == 2 and not column.dtype.is_temporal():
        return CLASSIFICATION
    if column.dtype.is_numeric():
        return REGRESSION
    if column.dtype == pl.String:
        return CLASSIFICATION
    raise UsageError(
        f"The target {column.name!r} is neither of classes nor a number.",
        found=f"{column.dtype} with {distinct.len():,} values",
        remedy="make it a boolean: one value against the rest",
    )


def _classes(column: pl.Series, distinct: pl.Series, *, scorer_name: str | None) -> Target:
    if distinct.len() > CLASSES_MAX:
        raise UsageError(
            f"The target {column.name!r} has too many values to be classes.",
            found=f"{distinct.len():,} values; {CLASSES_MAX} classes at most",
            remedy="make it a boolean: one value against the rest, or rare ones one",
        )
    scorer = scorer_of(scorer_name, BINARY if distinct.len() == 2 else MULTICLASS)
    names = tuple(str(v) for v in distinct)
    values = codes_of(column).astype(np.float64)
    return Target(column.name, CLASSIFICATION, values, scorer, names)


def _queries(frame: pl.DataFrame, query: str | None) -> Rows:
    assert query is not None
    return codes_of(named_column(frame, query, "says of which query a row is"))
