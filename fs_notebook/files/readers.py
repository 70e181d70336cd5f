"""Each kind of file: a sample of its rows, and all of them in slices of bounded size.

A slice comes as it lies in the file (`raw`) and becomes rows of the stream's types by `typed`, so
that whoever finds a slice that does not fit can look for the very row.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.files.json_lines import json_rows, unknown_fields
from fs_notebook.files.texts import text_to
from fs_notebook.log.infer import infer_columns
from fs_notebook.log.protocol import Stream

SAMPLE_ROWS = 5_000
"""How many of a file's first rows say what types it has, where the file itself does not."""

LINE_BYTES_MAX = 64 * 2**20
_LINE = "line"


class DataFile(Protocol):
    """A file of rows."""

    path: Path
    typed_by_text: bool
    """Whether its columns have no types but what their text looks like."""

    def sample(self) -> pl.DataFrame:
        """Return its first rows, in the types that they seem to have; a Null column is unknown.

        Raises
        ------
        UsageError
            If it cannot be read.
        """
        ...

    def rows_about(self, sample: pl.DataFrame) -> int:
        """Return how many rows it has, or about how many."""
        ...

    def raw(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield its rows from number `start` (the first is 0) on, `rows_max` at a time."""
        ...

    def typed(self, raw: pl.DataFrame, stream: Stream) -> pl.DataFrame:
        """Return a slice's rows with the stream's types where they have none of their own.

        Raises
        ------
        UsageError
            If a value is none of its column's type.
        """
        ...


def digest_of_file(path: Path) -> str:
    """Return text that is the same for files of the same content, 64 hexadecimal digits."""
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say which file could not be read, and why."""
    try:
        yield
    except pl.exceptions.NoDataError:
        raise UsageError(
            f"{path.name!r} is empty.", found="0 bytes, not even a header", remedy="leave it out"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{path.name!r} cannot be read.",
            found=said.splitlines()[0],
            remedy=f"is it really {path.suffix}, and whole?",
        ) from None


def _batches(path: Path, rows: pl.LazyFrame, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
    with readable(path):
        # The streaming engine reads ahead by a few slices and no more.
        yield from rows.slice(start).collect_batches(
            chunk_size=rows_max, maintain_order=True, engine="streaming"
        )


class _Columnar:
    """A file that says itself what its columns are: Parquet, Arrow."""

    typed_by_text = False

    def __init__(self, path: Path, scan: Callable[[Path], pl.LazyFrame]) -> None:
        self.path = path
        self._scan = scan

    def sample(self) -> pl.DataFrame:
        with readable(self.path):
            return self._scan(self.path).head(SAMPLE_ROWS).collect()

    def rows_about(self, sample: pl.DataFrame) -> int:
        with readable(self.path):
            return int(self._scan(self.path).select(pl.len()).collect().item())

    def raw(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        with readable(self.path):
            rows = self._scan(self.path)
        return _batches(self.path, rows, start, rows_max)

    def typed(self, raw: pl.DataFrame, stream: Stream) -> pl.DataFrame:
        return raw


class _Csv:
    """Text with a header. Every slice is read as text, since only so a bad value has a row."""

    typed_by_text = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def sample(self) -> pl.DataFrame:
        with readable(self.path):
            texts = pl.scan_csv(self.path, infer_schema=False, glob=False).head(SAMPLE_ROWS)
            first = texts.collect()
            # Only these rows say what the types are; a reader of the file would look further.
            seen = io.BytesIO(first.write_csv().encode())
            frame = pl.read_csv(seen, try_parse_dates=True, infer_schema_length=None)
        # A column without a value in the sample is of any type.
        unknown = [c for c in first.columns if first[c].null_count() == first.height]
        return frame.with_columns(pl.lit(None).alias(c) for c in unknown)

    def rows_about(self, sample: pl.DataFrame) -> int:
        if sample.height < SAMPLE_ROWS:
            return sample.height
        row_bytes = len(sample.write_csv(include_header=False).encode()) / sample.height
        return max(round(os.path.getsize(self.path) / row_bytes), sample.height)

    def raw(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        with readable(self.path):
            rows = pl.scan_csv(self.path, infer_schema=False, glob=False)
        return _batches(self.path, rows, start, rows_max)

    def typed(self, raw: pl.DataFrame, stream: Stream) -> pl.DataFrame:
        kinds = dict(stream.columns)
        known = [c for c in raw.columns if c in kinds]
        return raw.with_columns(text_to(raw[c], kinds[c]) for c in known)


class _JsonLines:
    """A JSON object a line, read by the rules of JSON events on Pulsar."""

    typed_by_text = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def sample(self) -> pl.DataFrame:
        lines = next(self.raw(0, SAMPLE_ROWS), pl.DataFrame({_LINE: []}))[_LINE].to_list()
        if not lines:
            return pl.DataFrame()
        try:
            columns, _ = infer_columns(self.path.name, lines)
        except UsageError:
            raise UsageError(
                f"{self.path.name!r} cannot be read.",
                found="none of its first lines is a JSON object",
                remedy=f"is it really {self.path.suffix}? A line is one event: {{…}}",
            ) from None
        frame, _ = json_rows(lines, Stream(self.path.name, columns))
        nulls = [c for c in frame.columns if frame[c].null_count() == frame.height]
        return frame.with_columns(pl.lit(None).alias(c) for c in nulls)

    def rows_about(self, sample: pl.DataFrame) -> int:
        size = os.path.getsize(self.path)
        lines = next(self.raw(0, SAMPLE_ROWS), None)
        if lines is None or lines.height < SAMPLE_ROWS:
            return 0 if lines is None else lines.height
        return max(round(size / (sum(map(len, lines[_LINE])) / lines.height + 1)), lines.height)

    def raw(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        with readable(self.path), self.path.open("rb") as file:
            lines = (line for line in _lines(self.path, file) if line.strip())
            for _ in itertools.islice(lines, start):
                pass
            while some := list(itertools.islice(lines, rows_max)):
                yield pl.DataFrame({_LINE: some}, schema={_LINE: pl.Binary})

    def typed(self, raw: pl.DataFrame, stream: Stream) -> pl.DataFrame:
        lines = raw[_LINE].to_list()
        frame, bad = json_rows(lines, stream)
        if bad:
            first = min(bad)
            raise UsageError(
                "This line is no event of the stream.",
                found=bad[first],
                remedy="correct it, or leave it out",
            )
        if extra := unknown_fields(lines, stream):
            raise UsageError(
                f"Stream {stream.name!r} has no such column.",
                found=", ".join(extra),
                remedy=f"its columns are {', '.join(stream.names)}; leave others out, or upload "
                "to a new stream",
            )
        return frame


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    for line in iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""):
        if len(line) > LINE_BYTES_MAX:
            raise UsageError(
                f"{path.name!r} has a line that is too long to be an event.",
                found=f"more than {LINE_BYTES_MAX:,} bytes",
                remedy="one JSON object a line; a JSON array of events is to be taken apart first",
            )
        yield line.rstrip(b"\r\n")


def _parquet(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _ipc(path: Path) -> pl.LazyFrame:
    return pl.scan_ipc(path, glob=False, hive_partitioning=False)


KINDS: dict[str, Callable[[Path], DataFile]] = {
    ".parquet": lambda path: _Columnar(path, _parquet),
    ".pq": lambda path: _Columnar(path, _parquet),
    ".csv": _Csv,
    ".ndjson": _JsonLines,
    ".jsonl": _JsonLines,
    ".arrow": lambda path: _Columnar(path, _ipc),
    ".feather": lambda path: _Columnar(path, _ipc),
}


def open_file(path: Path) -> DataFile:
    """Return the file at `path`, of one of `KINDS`."""
    return KINDS[path.suffix.lower()](path)
