"""Labels a slice at a time: of a frame, or of a Parquet file that is never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.model.labels import labels_frame


class LabelSlices:
    """Labels that can be gone through more than once.

    Parameters
    ----------
    labels
        What `labels_frame` takes, a Polars lazy frame, or a Parquet file's path.
    """

    def __init__(self, labels: Any) -> None:
        self._frame: pl.DataFrame | None = None
        self._rows: pl.LazyFrame | None = None
        if isinstance(labels, pl.LazyFrame):
            self._rows = labels
        elif is_scanned(labels):
            self._rows = pl.scan_parquet(labels)
        else:
            self._frame = labels_frame(labels)

    @property
    def head(self) -> pl.DataFrame:
        """No rows, in the labels' types.

        Raises
        ------
        UsageError
            If the file cannot be read.
        """
        if self._frame is not None:
            return self._frame.head(0)
        assert self._rows is not None
        try:
            return self._rows.head(0).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UsageError(
                "The labels cannot be read.", found=str(error).splitlines()[0],
                remedy="a Parquet file, whole",
            ) from None  # fmt: skip

    def __call__(self, rows: int) -> Iterator[pl.DataFrame]:
        """Yield them in order, in slices of exactly so many rows; the last may have fewer."""
        if self._frame is not None:
            yield from self._frame.iter_slices(rows)
            return
        assert self._rows is not None
        held: list[pl.DataFrame] = []
        count = 0
        # The streaming engine reads ahead by a few slices and no more.
        for part in self._rows.collect_batches(
            chunk_size=rows, maintain_order=True, engine="streaming"
        ):
            held.append(part)
            count += part.height
            while count >= rows:
                whole = pl.concat(held)
                yield whole.head(rows)
                held, count = [whole.slice(rows)], count - rows
        if count:
            yield pl.concat(held)


def is_scanned(labels: Any) -> bool:
    """Tell whether labels are a Parquet file's path."""
    return isinstance(labels, (str, Path)) and Path(labels).suffix in (".parquet", ".pq")
