"""`FeatureEncoder`: what training rows taught, as a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fs_notebook.errors import UsageError
from fs_notebook.model.encoding import CODE, INDICATOR, NAN, ONE_HOT, Encoding, Learner, Options
from fs_notebook.model.labels import labels_frame
from fs_notebook.model.training import TrainingSet
from fs_notebook.online.vector import FeatureVector

__all__ = ["CODE", "INDICATOR", "NAN", "ONE_HOT", "FeatureEncoder"]


class FeatureEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features as numbers, the same in training and in serving.

    Numbers and truth values stay as they are; a time is the days since the training rows' earliest;
    lengths of time and times of day are seconds; a text is a column for each of its categories; a
    list a column for each place that the training rows had, and its length; a struct one for each
    field. What a column becomes is learnt by `fit` and never changes by what is transformed.

    Parameters
    ----------
    columns
        Which columns, in which order; default: a training set's features, or all of a frame's.
    nulls
        ``"indicator"``: a null or NaN is the training rows' mean, and ``x is null`` tells where, if
        there was any; ``"nan"``: NaN, for models that take it.
    text
        ``"one_hot"``: ``genre=news``, … and ``genre is other`` where there were more categories;
        ``"code"``: the category's number from 1, and 0 for others and nulls.
    categories_max
        How many categories a text has at most, the most frequent ones.
    dtype
        ``"float64"`` or ``"float32"``.

    Attributes
    ----------
    encoding_
        What was learnt, as plain data.
    feature_names_in_
        The columns that it reads.

    Examples
    --------
    >>> encoder = FeatureEncoder().fit({"genre": ["news", "sport", None], "reads": [1, 2, 6]})
    >>> [str(name) for name in encoder.get_feature_names_out()]
    ['genre=news', 'genre=sport', 'genre is null', 'reads']
    >>> encoder.transform({"reads": [None], "genre": ["sport"]}).tolist()
    [[0.0, 1.0, 0.0, 3.0]]
    """

    def __init__(
        self,
        columns: Sequence[str] | None = None,
        *,
        nulls: str = INDICATOR,
        text: str = ONE_HOT,
        categories_max: int = 50,
        dtype: str = "float64",
    ) -> None:
        self.columns = columns
        self.nulls = nulls
        self.text = text
        self.categories_max = categories_max
        self.dtype = dtype

    def fit(self, X: Any, y: Any = None) -> FeatureEncoder:  # noqa: N803 - scikit-learn's name
        """Learn of the training rows: a training set, or any table.

        Raises
        ------
        UsageError
            If there are no rows, or a column is of a type that no model takes.
        """
        self._learner: Learner | None = None
        return self.partial_fit(X)

    def partial_fit(self, X: Any, y: Any = None) -> FeatureEncoder:  # noqa: N803
        """Learn of some more rows: of sets larger than memory, a batch at a time."""
        learner: Learner | None = getattr(self, "_learner", None)
        if learner is None:
            columns = self.columns
            if columns is None and isinstance(X, (TrainingSet, FeatureVector)):
                columns = X.features
            learner = self._learner = Learner(columns, self._options)
        learner.take(table_of(X))
        return self._keep(learner.encoding())

    @property
    def _options(self) -> Options:
        return Options(self.nulls, self.text, self.categories_max, self.dtype)

    def _keep(self, encoding: Encoding) -> FeatureEncoder:
        self.encoding_ = encoding
        self.feature_names_in_ = np.array(encoding.inputs, dtype=object)
        self.n_features_in_ = len(encoding.inputs)
        return self

    def transform(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return rows as numbers: of a training set, of what was served, or of any table.

        Columns are found by their names; others than those that it learnt of are passed over.

        Returns
        -------
        ndarray of shape (rows, len(get_feature_names_out()))

        Raises
        ------
        UnknownName
            If a column is missing.
        UsageError
            If one is of another kind than it was.
        """
        check_is_fitted(self, "encoding_")
        encoding: Encoding = self.encoding_
        return encoding.apply(table_of(X))

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Return the names of the columns that `transform` gives."""
        check_is_fitted(self, "encoding_")
        return np.array(self.encoding_.names, dtype=object)

    @classmethod
    def of(cls, encoding: Encoding) -> FeatureEncoder:
        """Return a fitted encoder of what was learnt elsewhere."""
        options = encoding.options
        made = cls(
            list(encoding.inputs), nulls=options.nulls, text=options.text,
            categories_max=options.categories_max, dtype=options.dtype,
        )  # fmt: skip
        return made._keep(encoding)

    def to_dict(self) -> dict[str, Any]:
        """Return what was learnt, fit for `json.dumps`: for who serves without the catalog."""
        check_is_fitted(self, "encoding_")
        encoding: Encoding = self.encoding_
        return encoding.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureEncoder:
        """Return the encoder that `to_dict` wrote."""
        return cls.of(Encoding.from_dict(data))


def table_of(rows: Any) -> pl.DataFrame:
    """Return a training set, what was served, or any table as a frame.

    Raises
    ------
    UsageError
        If it is no table with named columns.
    """
    if isinstance(rows, (TrainingSet, FeatureVector)):
        return rows.to_polars()
    if isinstance(rows, np.ndarray):
        raise UsageError(
            "An encoder finds columns by their names, and an array has none.",
            found=f"an array of shape {rows.shape}",
            remedy="a training set, what fs.serve returns, or a table",
        )
    return labels_frame(rows, what="rows")
