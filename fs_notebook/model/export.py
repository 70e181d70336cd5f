"""What a training set goes out as: frames, arrays, files, and the tensors of two frameworks."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.model.encoding import Encoding
from fs_notebook.position import Cut
from fs_notebook.types import type_name

if TYPE_CHECKING:
    import pyarrow as pa

    from fs_notebook.model.encoder import FeatureEncoder
    from fs_notebook.model.pieces import TrainingPieces
    from fs_notebook.model.torch_rows import TrainingTensors

BATCH_ROWS = 65_536
LARGE = 3e38
"""As good as infinity, in float32."""
Numbers = npt.NDArray[Any]


class Exports:
    """The methods of a training set that give it to other libraries."""

    frame: pl.DataFrame
    label_columns: tuple[str, ...]
    features: tuple[str, ...]
    time: str
    keys: tuple[str, ...]
    versions: Mapping[str, str]
    cuts: Mapping[str, Cut]
    encoding: Encoding | None
    set: str | None
    name: str | None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of all that decides its values."""

    def ordered(self, features: Sequence[str]) -> Self:
        """Return the same with its features' columns in this order."""
        frame = self.frame.select(*self.label_columns, *features)
        # What these methods are of is a dataclass.
        made: Self = replace(self, frame=frame, features=tuple(features))  # type: ignore[type-var]
        return made

    def about(self) -> dict[str, Any]:
        """Return what is written beside its rows: all but the rows, fit for `json.dumps`."""
        return {
            "name": self.name,
            "set": self.set,
            "label_columns": self.label_columns,
            "features": self.features,
            "schema": {n: type_name(t) for n, t in self.frame.schema.items()},
            "time": self.time,
            "keys": self.keys,
            "versions": dict(self.versions),
            "cuts": {name: cut.to_json() for name, cut in self.cuts.items()},
            "fingerprint": self.fingerprint,
            "encoding": None if self.encoding is None else self.encoding.to_dict(),
        }

    def to_polars(self) -> pl.DataFrame:
        """Return the frame."""
        return self.frame

    def to_arrow(self) -> pa.Table:
        """Return the same as an Arrow table."""
        return self.frame.to_arrow()

    def to_dict(self) -> dict[str, list[Any]]:
        """Return column → values, one a label."""
        return self.frame.to_dict(as_series=False)

    def to_parquet(self, path: str | Path, *, rows: int | None = None) -> TrainingPieces | Path:
        """Write it as one Parquet file, or as a folder of pieces of so many rows.

        A folder is read a batch at a time by what is returned, or by ``fs.training_pieces(path)``.

        Raises
        ------
        UsageError
            If there is a file or a training set already.
        """
        from fs_notebook.model.pieces import write_file, write_pieces

        if rows is None:
            return write_file(self.frame, Path(path))
        return write_pieces(self.batches(rows=rows), Path(path), self.about())

    def batches(self, *, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """Yield the frame in slices of so many rows, in order; the last one may be shorter."""
        check_rows(rows)
        yield from self.frame.iter_slices(rows)

    def encoder(self, **options: Any) -> FeatureEncoder:
        """Return an encoder of its features, fitted on all of its rows.

        What the set was saved with comes back as it was, unless options ask for another.

        Parameters
        ----------
        **options
            See `FeatureEncoder`.
        """
        from fs_notebook.model.encoder import FeatureEncoder

        if not options and self.encoding is not None:
            return FeatureEncoder.of(self.encoding)
        return FeatureEncoder(**{"columns": list(self.features)} | options).fit(self.frame)

    def to_numpy(self, target: str | None = None, *, encoder: Any = None) -> Any:
        """Return the encoded features, and the target beside them if one is named.

        Parameters
        ----------
        target
            The labels' column to predict.
        encoder
            What encodes: a fitted `FeatureEncoder`, or a fitted scikit-learn pipeline that begins
            with one; default: `encoder()`.

        Returns
        -------
        ndarray of shape (rows, columns), or a pair of it and one of shape (rows,)
        """
        encoder = self.encoder() if encoder is None else encoder
        values = encoder.transform(self.frame)
        if target is None:
            return values
        return values, target_values(self.frame, target, classes_of(self.frame, target))

    def to_torch(
        self, target: str | None = None, *, encoder: Any = None,
        classes: Sequence[str] | None = None,
    ) -> TrainingTensors:  # fmt: skip
        """Return a PyTorch `Dataset` of (features, target), or of (features,) without a target.

        Features are encoded, float32; ``.loader(batch_size=…)`` gives a `DataLoader`. A target of
        texts is the number of its class among `classes`, int64; any other is float32.

        Parameters
        ----------
        target, encoder
            As for `to_numpy`.
        classes
            The target's texts, in the order of their numbers; default: the alphabet's.
        """
        made = torch_rows()
        encoder = self.encoder() if encoder is None else encoder
        classes = classes_of(self.frame, target, classes)
        y = None if target is None else target_values(self.frame, target, classes)
        tensors: TrainingTensors = made.TrainingTensors(
            encoder.transform(self.frame), y, encoder, classes
        )
        return tensors

    def to_tf(
        self, target: str | None = None, *, encoder: Any = None,
        classes: Sequence[str] | None = None,
    ) -> Any:  # fmt: skip
        """Return a `tf.data.Dataset` of (features, target), or of features without a target.

        A row an element: ``.shuffle(…).batch(256)`` as ever. Types and parameters are those of
        `to_torch`.
        """
        made = tensorflow_rows()
        encoder = self.encoder() if encoder is None else encoder
        classes = classes_of(self.frame, target, classes)
        y = None if target is None else target_values(self.frame, target, classes)
        return made.tensor_rows(encoder.transform(self.frame), y)


def torch_rows() -> Any:
    """Return the module that makes PyTorch's data sets."""
    return _framework("torch", "PyTorch")


def tensorflow_rows() -> Any:
    """Return the module that makes TensorFlow's data sets."""
    return _framework("tensorflow", "TensorFlow")


def _framework(module: str, name: str) -> Any:
    """Return the module of ours that imports a framework.

    Raises
    ------
    UsageError
        If that is not installed; says how to.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{name} is not installed.", found=str(error),
            remedy=f"pip install 'fs-notebook[{module}]'",
        ) from None  # fmt: skip
    return importlib.import_module(f"fs_notebook.model.{module}_rows")


def check_rows(rows: int) -> None:
    """Raise `UsageError` unless `rows` is a number of rows."""
    if rows < 1:
        raise UsageError("A batch has one row at least.", found=str(rows), remedy="rows=65_536")


def float32(values: Any) -> Numbers:
    """Return numbers as float32, those that are too large as its largest."""
    given = np.asarray(values)
    if given.dtype == np.float32:
        return given
    return np.asarray(np.clip(given, -LARGE, LARGE), dtype=np.float32)


def classes_of(
    frame: pl.DataFrame, target: str | None, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the classes of a target of texts: those given, or else its values; () of numbers."""
    if target is None or classes is not None:
        return tuple(classes or ())
    if target not in frame.columns:
        raise unknown_name("column to predict", target, frame.columns)
    column = frame.get_column(target)
    if column.dtype != pl.String and not isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return ()
    return tuple(column.cast(pl.String).drop_nulls().unique().sort())


def target_values(frame: pl.DataFrame, target: str, classes: Sequence[str]) -> Numbers:
    """Return a target as numbers: of classes int64, from 0; else float32.

    Raises
    ------
    UsageError
        If it is not known for a row, has another class, or is no number.
    """
    if target not in frame.columns:
        raise unknown_name("column to predict", target, frame.columns)
    column = frame.get_column(target)
    if nulls := column.null_count():
        raise UsageError(
            f"The target {target!r} is not known for {nulls:,} of {column.len():,} rows.",
            found="null", remedy="drop those labels first",
        )  # fmt: skip
    if classes:
        numbers: Mapping[str, int] = {c: n for n, c in enumerate(classes)}
        codes = column.cast(pl.String).replace_strict(numbers, default=None, return_dtype=pl.Int64)
        if codes.null_count():
            odd = column.filter(codes.is_null()).unique().sort()
            raise UsageError(
                f"The target {target!r} has other classes than {', '.join(classes)}.",
                found=", ".join(map(str, odd.head(5))), remedy="classes=[all of them]",
            )  # fmt: skip
        return codes.to_numpy()
    if not column.dtype.is_numeric() and column.dtype != pl.Boolean:
        raise UsageError(
            f"The target {target!r} is nothing to predict.", found=str(column.dtype),
            remedy="a number, a truth value or a text",
        )  # fmt: skip
    return np.asarray(column.cast(pl.Float64).to_numpy(), dtype=np.float32)
