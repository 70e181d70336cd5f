"""A training set on disk, in pieces: written once, read a batch at a time."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from fs_notebook.errors import IntegrityError, UsageError, plain, unknown_name
from fs_notebook.model.card import Table, card, count
from fs_notebook.model.encoding import Encoding
from fs_notebook.model.export import (
    BATCH_ROWS,
    Numbers,
    check_rows,
    classes_of,
    target_values,
    tensorflow_rows,
    torch_rows,
)

if TYPE_CHECKING:
    from fs_notebook.model.encoder import FeatureEncoder
    from fs_notebook.model.torch_rows import TrainingStream

ABOUT = "training_set.json"


class Piece(NamedTuple):
    """So many rows of a Parquet file, from a row of it on."""

    file: str
    rows: int
    start: int = 0


@dataclass(frozen=True)
class TrainingPieces:
    """A training set in a folder of Parquet files, larger than memory if need be.

    Attributes
    ----------
    folder
        Where it is.
    pieces
        The files and their rows, in order.
    schema
        Column → its type, as Polars writes it.
    label_columns, features
        The two kinds of columns.
    name, fingerprint
        Of the training set; the name None if it was not saved.
    encoding
        What it was saved with, if anything.
    """

    folder: Path
    pieces: tuple[Piece, ...]
    schema: Mapping[str, str]
    label_columns: tuple[str, ...]
    features: tuple[str, ...]
    name: str | None = None
    fingerprint: str | None = None
    encoding: Encoding | None = None

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def __len__(self) -> int:
        return self.rows

    def batches(
        self, *, rows: int = BATCH_ROWS, columns: Sequence[str] | None = None,
        place: int = 0, count: int = 1,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """Yield the rows in order, so many at a time; no batch reaches over two pieces.

        Parameters
        ----------
        columns
            Only these.
        place, count
            Of every `count` pieces only the `place`-th, from 0: to share them among processes.

        Raises
        ------
        IntegrityError
            If a piece is gone or is not what was written.
        """
        check_rows(rows)
        for name in columns or ():
            if name not in self.schema:
                raise unknown_name("column of the training set", name, self.schema)
        for piece, length, first in self.pieces[place::count]:
            path, found = self.folder / piece, 0
            try:
                source = pl.scan_parquet(path, glob=False)
                if columns is not None:
                    source = source.select(columns)
                for start in range(0, length, rows):
                    taken = source.slice(first + start, min(rows, length - start))
                    batch: pl.DataFrame = taken.collect()
                    found += batch.height
                    yield batch
            except (OSError, pl.exceptions.PolarsError) as error:
                raise IntegrityError(
                    f"The training set's piece {piece!r} cannot be read.",
                    found=(str(error).splitlines() or [type(error).__name__])[0],
                    remedy="write the training set again",
                ) from None
            if found != length:
                raise IntegrityError(
                    f"The training set's piece {piece!r} is not the one that was written.",
                    found=f"{found:,} rows instead of {length:,}",
                    remedy="write the training set again",
                )

    def encoder(self, **options: Any) -> FeatureEncoder:
        """Return an encoder of its features, fitted a batch at a time on all of its rows.

        What the set was saved with comes back as it was, unless options ask for another.
        """
        from fs_notebook.model.encoder import FeatureEncoder

        if not options and self.encoding is not None:
            return FeatureEncoder.of(self.encoding)
        made = FeatureEncoder(**{"columns": list(self.features)} | options)
        for batch in self.batches(columns=made.columns):
            made.partial_fit(batch)
        return made

    def arrays(
        self, target: str | None = None, *, encoder: Any = None,
        classes: Sequence[str] | None = None, rows: int = BATCH_ROWS,
        place: int = 0, count: int = 1,
    ) -> Iterator[tuple[Numbers, Numbers | None]]:  # fmt: skip
        """Yield batches as encoded features and the target, None where none is named.

        For estimators with a `partial_fit`. See `TrainingSet.to_torch` for the parameters.
        """
        encoder = self.encoder() if encoder is None else encoder
        classes = self.classes(target) if classes is None else classes
        for batch in self.batches(rows=rows, place=place, count=count):
            y = None if target is None else target_values(batch, target, classes)
            yield encoder.transform(batch), y

    def classes(self, target: str | None) -> tuple[str, ...]:
        """Return a target's texts in alphabetical order; () of numbers."""
        if target is None:
            return ()
        found = (classes_of(b, target) for b in self.batches(columns=[target]))
        return tuple(sorted(set().union(*found)))

    def to_torch(
        self, target: str | None = None, *, encoder: Any = None,
        classes: Sequence[str] | None = None, batch_size: int = 256,
    ) -> TrainingStream:  # fmt: skip
        """Return a PyTorch `IterableDataset` of batches; ``.loader(num_workers=…)`` loads them.

        As `TrainingSet.to_torch` otherwise.
        """
        made = torch_rows()
        encoder = self.encoder() if encoder is None else encoder
        classes = self.classes(target) if classes is None else tuple(classes)
        batches = partial(_shared, self, target, encoder, classes, batch_size)
        stream: TrainingStream = made.TrainingStream(batches, self.rows, encoder, classes)
        return stream

    def to_tf(
        self, target: str | None = None, *, encoder: Any = None,
        classes: Sequence[str] | None = None, batch_size: int = 256,
    ) -> Any:  # fmt: skip
        """Return a `tf.data.Dataset` of batches; `TrainingSet.to_tf` otherwise."""
        made = tensorflow_rows()
        encoder = self.encoder() if encoder is None else encoder
        classes = self.classes(target) if classes is None else tuple(classes)
        kind = None if target is None else np.int64 if classes else np.float32
        batches = partial(_shared, self, target, encoder, classes, batch_size, 0, 1)
        return made.tensor_batches(batches, len(encoder.get_feature_names_out()), kind)

    def __repr__(self) -> str:
        named = f" {self.name}" if self.name else ""
        pieces = "1 piece" if len(self.pieces) == 1 else f"{count(len(self.pieces))} pieces"
        return (
            f"training set{named} in {pieces}: {count(self.rows)} labels × "
            f"{len(self.features)} features, in {self.folder}\n"
            f"features: {plain(', '.join(self.features))}"
        )

    def _repr_html_(self) -> str:
        figures = [
            ("labels", count(self.rows)), ("features", count(len(self.features))),
            ("pieces", count(len(self.pieces))), ("folder", str(self.folder)),
            ("fingerprint", (self.fingerprint or "")[:12]),
        ]  # fmt: skip
        features = set(self.features)
        columns = [(n, t, "feature" if n in features else "label") for n, t in self.schema.items()]
        tables: list[Table] = [(("column", "type", "is a"), columns)]
        return card("Training set", figures, subtitle=self.name or "in pieces", tables=tables)


def _shared(
    pieces: TrainingPieces, target: str | None, encoder: Any, classes: Sequence[str], rows: int,
    place: int, count: int,
) -> Iterator[tuple[Numbers, Numbers | None]]:  # fmt: skip
    return pieces.arrays(
        target, encoder=encoder, classes=classes, rows=rows, place=place, count=count
    )


def write_file(frame: pl.DataFrame, path: Path) -> Path:
    """Write a frame as one Parquet file, all of it or nothing; return its path."""
    path = path.expanduser()
    if path.exists():
        raise _there(path)
    _written(frame, path)
    return path


def write_pieces(
    batches: Iterator[pl.DataFrame], folder: Path, about: Mapping[str, Any]
) -> TrainingPieces:
    """Write batches as a folder's pieces, and what they are last: no half of a set is ever read.

    Raises
    ------
    UsageError
        If the folder has something in it.
    """
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise _there(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[tuple[str, int]] = []
    for place, batch in enumerate(batches):
        name = f"{place:06d}.parquet"
        _written(batch, folder / name)
        pieces.append((name, batch.height))
    part = folder / f"{ABOUT}.part"
    part.write_text(json.dumps({**about, "pieces": pieces}, sort_keys=True, indent=1))
    part.replace(folder / ABOUT)
    return read_pieces(folder)


def read_pieces(folder: str | Path) -> TrainingPieces:
    """Return the training set that `write_pieces` wrote to a folder.

    Raises
    ------
    UsageError
        If there is none.
    """
    place = Path(folder).expanduser()
    try:
        about = json.loads((place / ABOUT).read_text())
        encoding = about["encoding"]
        return TrainingPieces(
            folder=place.absolute(),
            pieces=tuple(Piece(str(name), int(rows)) for name, rows in about["pieces"]),
            schema=about["schema"],
            label_columns=tuple(about["label_columns"]),
            features=tuple(about["features"]),
            name=about["name"],
            fingerprint=about["fingerprint"],
            encoding=None if encoding is None else Encoding.from_dict(encoding),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{str(place)!r} holds no training set in pieces.", found=str(error)[:200],
            remedy="training.to_parquet(folder, rows=100_000) writes one",
        ) from None  # fmt: skip


def _written(frame: pl.DataFrame, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        frame.write_parquet(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _there(path: Path) -> UsageError:
    return UsageError(
        f"There is something at {str(path)!r} already.", remedy="another path, or remove it first"
    )
