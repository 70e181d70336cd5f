"""Digests of frames by their values, however their memory is laid out."""

from __future__ import annotations

import hashlib
from typing import Any

import polars as pl


def frame_digest(frame: pl.DataFrame) -> str:
    """Return SHA-256 of a frame's names, types and values, in hexadecimal digits."""
    digest = hashlib.sha256()
    for column in frame.get_columns():
        _digest_column(digest, column)
    return digest.hexdigest()


def _digest_column(digest: Any, column: pl.Series) -> None:
    """Feed a column into a hash by its values, however its memory is laid out."""
    digest.update(f"{column.name}\0{column.dtype}\0{column.len()}\0".encode())
    digest.update(column.is_null().to_numpy().tobytes())
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        digest.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
        digest.update("".join(column.drop_nulls()).encode())
        return
    if column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    plain = column.dtype.is_integer() or column.dtype.is_float() or column.dtype.is_temporal()
    if plain and column.dtype not in (pl.Int128, pl.UInt128):
        digest.update(column.to_physical().fill_null(0).to_numpy().tobytes())
    else:
        # As Python's own values: a Series inside a list is shown in part only.
        digest.update("\n".join(repr(v) for v in column.to_list()).encode())
