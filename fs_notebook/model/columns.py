"""From a training set's columns to what a model takes: floats, NaN for nulls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.model.scores import Floats

if TYPE_CHECKING:
    from fs_notebook.model.training import TrainingSet

Rows = npt.NDArray[np.int64]

TEXT_VALUES_MAX = 50
"""A label's text column with more values than this is taken for a name, not for a kind."""

CATEGORIES_MAX = 255
"""What the default model can hold of one categorical column."""

PLACES_MAX = 1_024
"""A list with more places than this is known to a model by its length only."""

_LARGE = 1e300


@dataclass(frozen=True, eq=False)
class Matrix:
    """Encoded columns, one row a label.

    `categorical` marks those that hold ranks of texts; `origins` names the column that each is of:
    a list or a struct makes several.
    """

    values: Floats
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    origins: tuple[str, ...]

    def beside(self, other: Matrix) -> Matrix:
        """Return this one's columns, then the other's."""
        return Matrix(
            np.hstack([self.values, other.values]),
            (*self.names, *other.names),
            (*self.categorical, *other.categorical),
            (*self.origins, *other.origins),
        )

    def only(self, columns: npt.NDArray[np.bool_]) -> Matrix:
        """Return the columns that are marked."""
        kept = np.flatnonzero(columns)
        return Matrix(
            self.values[:, kept],
            tuple(self.names[i] for i in kept),
            tuple(self.categorical[i] for i in kept),
            tuple(self.origins[i] for i in kept),
        )

    def taken(self, rows: Rows) -> Matrix:
        """Return these rows, in this order."""
        return replace(self, values=self.values[rows])


def default_baseline(
    training: TrainingSet, target: str, taken: Sequence[str | None]
) -> tuple[str, ...]:
    """Return the usable label columns, and the features, that are not `taken` otherwise."""
    other = {target, training.time, *training.keys, *taken}
    own = [n for n in training.label_columns if n not in other]
    usable = [n for n in own if _is_usable(training.frame.get_column(n))]
    return (*usable, *(f for f in training.features if f not in other))


def _is_usable(column: pl.Series) -> bool:
    dtype = column.dtype
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return 2 <= column.drop_nulls().n_unique() <= TEXT_VALUES_MAX
    return bool(dtype.is_numeric()) or dtype == pl.Boolean


def encode(frame: pl.DataFrame, columns: Sequence[str], *, learnt_from: Rows) -> Matrix:
    """Return columns as floats.

    Texts become their rank among the values of the rows `learnt_from`, others NaN; times are
    microseconds; infinities become the largest floats, since most models take none. A list becomes
    a column for each place that the rows `learnt_from` have, ``name[1]``, …; a list with more than
    `PLACES_MAX` of them its length; a struct a column for each field, ``name.field``.

    Raises
    ------
    UsageError
        If a column has a type that no model takes.
    """
    encoded: list[Floats] = []
    categorical: list[bool] = []
    parts = {name: _flat(frame.get_column(name), learnt_from) for name in columns}
    flat = [c for part in parts.values() for c in part]
    for column in flat:
        values, is_category = _encoded(column, learnt_from)
        encoded.append(values)
        categorical.append(is_category)
    shape = (frame.height, len(encoded))
    stacked = np.column_stack(encoded) if encoded else np.empty(shape)
    origins = tuple(name for name, part in parts.items() for _ in part)
    return Matrix(stacked, tuple(c.name for c in flat), tuple(categorical), origins)


def _flat(column: pl.Series, learnt_from: Rows) -> list[pl.Series]:
    """Return a column as columns of single values."""
    name, dtype = column.name, column.dtype
    if isinstance(dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(column.dtype, pl.List):
        most = column.gather(learnt_from).list.len().max()
        width = most if isinstance(most, int) else 0
        if width > PLACES_MAX:
            return [column.list.len().cast(pl.Float64).alias(f"len({name})")]
        places = [column.list.get(i, null_on_oob=True) for i in range(width)]
        named = [p.alias(f"{name}[{i + 1}]") for i, p in enumerate(places)]
        return [flat for p in named for flat in _flat(p, learnt_from)]
    if isinstance(dtype, pl.Struct):
        fields = [column.struct.field(f.name).alias(f"{name}.{f.name}") for f in dtype.fields]
        return [flat for f in fields for flat in _flat(f, learnt_from)]
    return [column]


def _encoded(column: pl.Series, learnt_from: Rows) -> tuple[Floats, bool]:
    dtype = column.dtype
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        known = column.gather(learnt_from).drop_nulls().unique().sort()
        ranks = pl.DataFrame({"v": known}).with_row_index("r")
        found = column.alias("v").to_frame().join(ranks, on="v", how="left", maintain_order="left")
        numbers = found.get_column("r").cast(pl.Float64)
        return _floats(numbers), 0 < known.len() <= CATEGORIES_MAX
    if dtype.is_temporal():
        if dtype != pl.Time:
            column = column.cast(pl.Duration("us") if dtype == pl.Duration else pl.Datetime("us"))
        return _floats(column.to_physical().cast(pl.Float64)), False
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return _floats(column.cast(pl.Float64)), False
    raise UsageError(
        f"The column {column.name!r} has a type that no model takes.",
        found=str(dtype),
        remedy="leave it out, or make numbers of it",
    )


def _floats(column: pl.Series) -> Floats:
    values: Any = column.fill_null(float("nan")).to_numpy()
    return np.asarray(np.clip(values, -_LARGE, _LARGE), dtype=np.float64)
