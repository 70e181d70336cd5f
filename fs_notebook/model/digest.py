"""Digests of frames by their values, however their memory is laid out, or in however many parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from fs_notebook.model.training import TrainingSet
    from fs_notebook.model.written import WrittenTrainingSet

PART_ROWS = 2**18

Parts = Callable[[str], Iterable[pl.Series]]
"""Gives a column's parts in order, as often as it is asked for."""


def frame_digest(frame: pl.DataFrame) -> str:
    """Return SHA-256 of a frame's names, types and values, in hexadecimal digits."""
    return columns_digest(frame.schema, frame.height, lambda name: [frame.get_column(name)])


def lazy_digest(frame: pl.LazyFrame) -> str:
    """Return the `frame_digest` of rows that are read a part of a column at a time.

    Each column is read up to three times: where a text's values are in the digest, all of the
    column's lengths are before them.
    """
    rows = int(frame.select(pl.len()).collect().item())
    return columns_digest(frame.collect_schema(), rows, lambda name: column_parts(frame, name))


def columns_digest(schema: Mapping[str, pl.DataType], rows: int, parts: Parts) -> str:
    """Return the `frame_digest` of columns of those types, so many rows each, in parts.

    A part may come in another type that holds the same values, as a file has it.
    """
    digest = hashlib.sha256()
    for name, dtype in schema.items():
        _digest_column(digest, name, dtype, rows, parts)
    return digest.hexdigest()


def column_parts(frame: pl.LazyFrame, name: str) -> Iterator[pl.Series]:
    """Yield a column in order, in bounded memory."""
    for part in frame.select(name).collect_batches(
        chunk_size=PART_ROWS, maintain_order=True, engine="streaming"
    ):
        yield part.get_column(name)


def set_fingerprint(made: TrainingSet | WrittenTrainingSet) -> str:
    """Return SHA-256 of a set's labels, its features' versions and cuts, and its options."""
    what = {
        "features": made.features,
        "time": made.time,
        "keys": made.keys,
        "versions": dict(made.versions),
        "cuts": {name: cut.to_json() for name, cut in made.cuts.items()},
        "as_of": [made.as_of.lag_us, made.as_of.known],
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    digest.update(made.labels_fingerprint.encode())
    return digest.hexdigest()


def _digest_column(digest: Any, name: str, dtype: pl.DataType, rows: int, parts: Parts) -> None:
    """Feed a column into a hash by its values, however its memory is laid out."""
    digest.update(f"{name}\0{dtype}\0{rows}\0".encode())
    for part in parts(name):
        digest.update(part.is_null().to_numpy().tobytes())
    held: Any = dtype
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        held = pl.String()
    if held == pl.String:
        for part in parts(name):
            lengths = part.cast(held).str.len_bytes().fill_null(0)
            digest.update(lengths.to_numpy().tobytes())
        for part in parts(name):
            digest.update("".join(part.cast(held).drop_nulls()).encode())
        return
    plain = held.is_integer() or held.is_float() or held.is_temporal() or held == pl.Boolean
    if plain and held not in (pl.Int128, pl.UInt128):
        for part in parts(name):
            column = part.cast(held)
            column = column.cast(pl.UInt8) if held == pl.Boolean else column.to_physical()
            digest.update(column.fill_null(0).to_numpy().tobytes())
        return
    # As Python's own values: a Series inside a list is shown in part only.
    some = False
    for part in parts(name):
        if part.len():
            text = "\n".join(repr(v) for v in part.to_list())
            digest.update((("\n" if some else "") + text).encode())
            some = True
