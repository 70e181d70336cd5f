"""The pieces of an upload: a table in memory, or files that are read in slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.files import DataFile, find_files, open_file
from fs_notebook.files.readers import digest_of_file
from fs_notebook.ingest import declare, digest_of, fit, time_column, with_time
from fs_notebook.log.protocol import Stream
from fs_notebook.types import PRECISION_MAX, Type, conform, decimal_of, list_of, struct_of, type_of

SLICE_BYTES_MAX = 128 * 2**20
"""About how large a slice of a file may be in memory."""

_SLICE_ROWS_MIN = 100
BIGINT_DIGITS = 19


class Piece(Protocol):
    """Rows to append to one stream."""

    name: str | None
    """The file's name, where it is one."""

    rows_about: int
    weight: int
    """Its share of the whole upload, in units of its own kind: rows or bytes."""

    def digest(self) -> str:
        """Return text that is the same for the same content."""
        ...

    def slices(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield the rows from number `start` (the first is 0) on, as the stream takes them.

        Raises
        ------
        UsageError
            If a row does not fit the stream; names file and row.
        """
        ...


class FramePiece:
    """A table in memory, whose rows fit the stream as they are."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.name: str | None = None
        self.rows = rows
        self.rows_about = self.weight = rows.height

    def digest(self) -> str:
        return digest_of(self.rows)

    def slices(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        for at in range(start, self.rows.height, rows_max):
            yield self.rows.slice(at, rows_max)


class FilePiece:
    """A file, read in slices whose size in memory is bounded.

    Parameters
    ----------
    file
        The file.
    name
        What messages and the catalog call it.

    Raises
    ------
    UsageError
        If it cannot be read.
    """

    def __init__(self, file: DataFile, name: str) -> None:
        self.file = file
        self.name: str | None = name
        self.sample = file.sample()
        self.rows_about = file.rows_about(self.sample)
        self.weight = file.path.stat().st_size
        self._state = _state_of(file.path)
        self.stream: Stream | None = None

    def into(self, stream: Stream) -> None:
        """Take `stream` as where the rows go; its first rows are tried.

        Raises
        ------
        UsageError
            If they do not fit.
        """
        self.stream = stream
        next(self.slices(0, max(self.sample.height, 1)), None)

    def digest(self) -> str:
        return digest_of_file(self.file.path)

    def slices(self, start: int, rows_max: int) -> Iterator[pl.DataFrame]:
        done = start
        for raw in self.file.raw(start, self._rows_max(rows_max)):
            try:
                rows = self._fitted(raw)
            except UsageError:
                row, error = self._first_bad(raw)
                raise UsageError(
                    f"{self.name!r}, row {done + row + 1:,}: {error.message}",
                    found=error.found, remedy=error.remedy,
                ) from None  # fmt: skip
            done += rows.height
            yield rows
        if _state_of(self.file.path) != self._state:
            raise UsageError(
                f"{self.name!r} was changed while it was uploaded.",
                found="another size or time of change",
                remedy="run it again once nobody writes to it",
            )

    def _rows_max(self, rows_max: int) -> int:
        if not self.sample.height:
            return rows_max
        row_bytes = max(self.sample.estimated_size() / self.sample.height, 1)
        return max(min(rows_max, int(SLICE_BYTES_MAX / row_bytes)), _SLICE_ROWS_MIN)

    def _fitted(self, raw: pl.DataFrame) -> pl.DataFrame:
        assert self.stream is not None
        return fit(self.file.typed(raw, self.stream), self.stream)

    def _first_bad(self, raw: pl.DataFrame) -> tuple[int, UsageError]:
        """Return the first row that does not fit, and what is wrong with it."""
        good, bad = 0, raw.height
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                self._fitted(raw.head(middle))
                good = middle
            except UsageError:
                bad = middle
        try:
            self._fitted(raw.slice(good, 1))
        except UsageError as error:
            return good, error
        # The row alone is fine: it does not go with those before it.
        try:
            self._fitted(raw.head(bad))
        except UsageError as error:
            return good, error
        raise AssertionError("a slice that did not fit does")


def file_pieces(data: str | Path) -> list[FilePiece]:
    """Return the files that a path, a folder or a glob means; each is looked into.

    Raises
    ------
    UsageError
        If there are none, or one of them cannot be read.
    """
    paths = find_files(data)
    above = paths[0].parent if len({p.parent for p in paths}) == 1 else _common(paths)
    return [FilePiece(open_file(p), p.relative_to(above).as_posix()) for p in paths]


def declared_by(
    pieces: Sequence[FilePiece], name: str, *, time: str | None, key: Sequence[str],
    partitions: int, table: bool, id: str | None = None,
) -> Stream:  # fmt: skip
    """Return the declaration of a new stream that all of `pieces` go into.

    A column has the type that it has in all files; BIGINT beside DOUBLE is DOUBLE, decimals
    and whole numbers are one DECIMAL with room for all of them, and in files of mere text what is
    of several types is text. A column that a file lacks is null there.

    Raises
    ------
    UsageError
        If two files cannot go together, or there is no event time.
    """
    kinds: dict[str, Type | None] = {}
    where: dict[str, FilePiece] = {}
    for piece in pieces:
        for column, dtype in piece.sample.schema.items():
            kind = None if dtype == pl.Null else type_of(dtype, column=column)
            known = kinds.get(column)
            both = _common_type(known, kind)
            if known is None or kind is None:
                where[column] = piece if known is None else where[column]
            elif both is None and piece.file.typed_by_text and where[column].file.typed_by_text:
                both = Type.VARCHAR
            elif both is None:
                raise UsageError(
                    f"The column {column!r} is of different types in these files.",
                    found=f"{known} in {where[column].name}, {kind} in {piece.name}"
                    + _why_apart(known, kind),
                    remedy="bring them to one type first, or upload them to two streams",
                )
            kinds[column] = both
    probe = pl.DataFrame(schema={c: (k or Type.VARCHAR).polars for c, k in kinds.items()})
    time = None if table else time_column(probe, name, time)
    if time is not None:
        for piece in pieces:
            _check_time(piece, time)
        probe = probe.with_columns(pl.lit(None, dtype=Type.TIMESTAMP.polars).alias(time))
    return declare(conform(probe), name, time=time, key=key, partitions=partitions, id=id)


def _check_time(piece: FilePiece, time: str) -> None:
    if time not in piece.sample.columns:
        if not piece.sample.width:
            return
        raise UsageError(
            f"{piece.name!r} has no {time!r}, the time column.",
            found=", ".join(piece.sample.columns), remedy=f"add {time!r}, or leave the file out",
        )  # fmt: skip
    if piece.sample.schema[time] == pl.Null:
        return
    try:
        with_time(piece.sample.select(time), time)
    except UsageError as error:
        raise UsageError(
            f"{piece.name!r}: {error.message}", found=error.found, remedy=error.remedy
        ) from None


def _common_type(one: Type | None, other: Type | None) -> Type | None:
    """Return the type that holds the values of both, None where there is none."""
    if one is None or other is None or one is other:
        return one or other
    if {one, other} == {Type.BIGINT, Type.DOUBLE}:
        return Type.DOUBLE
    if one.is_decimal or other.is_decimal:
        digits = _digits(one, other)
        return None if digits is None or digits[0] > PRECISION_MAX else decimal_of(*digits)
    if one.element is not None and other.element is not None:
        element = _common_type(one.element, other.element)
        return None if element is None else list_of(element)
    if one.fields and other.fields:
        fields: dict[str, Type] = dict(one.fields)
        for field, kind in other.fields:
            both = _common_type(fields.get(field), kind)
            if both is None:
                return None
            fields[field] = both
        return struct_of(list(fields.items()))
    return None


def _digits(one: Type, other: Type) -> tuple[int, int] | None:
    """Return precision and scale that hold all values of two exact types; None of other types."""
    if not all(t.is_decimal or t is Type.BIGINT for t in (one, other)):
        return None
    before = max(BIGINT_DIGITS if t is Type.BIGINT else t.precision - t.scale for t in (one, other))
    scale = max(one.scale, other.scale)
    return before + scale, scale


def _why_apart(one: Type | None, other: Type | None) -> str:
    """Return what keeps decimals from being one type, where that is it."""
    if one is None or other is None or not (one.is_decimal or other.is_decimal):
        return ""
    digits = _digits(one, other)
    if digits is not None:
        return f": together {digits[0]} digits, and a decimal has {PRECISION_MAX} at most"
    return ": what a double stands for is not known exactly" if Type.DOUBLE in (one, other) else ""


def _common(paths: Sequence[Path]) -> Path:
    above = paths[0].parent
    while not all(above in p.parents for p in paths):
        above = above.parent
    return above


def _state_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
