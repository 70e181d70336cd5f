"""Fold states into packed values, and back: what a worker writes and a reader finishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import polars as pl

from fs_notebook.compute.fold import NEWEST, VALID_UNTIL, Fold, State
from fs_notebook.errors import IntegrityError
from fs_notebook.online.codec import pack_key, pack_value, unpack_key, unpack_value

_TEMPORAL = (pl.Datetime, pl.Date, pl.Duration)
_WIDE = 1
"""The tag of an integer that does not fit 64 bits, stored as its decimal text."""


class StateCodec:
    """Packs the states of one plan, an entity a value."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        skip = len(fold.keys)
        self._recent = list(fold.recent_schema)[skip:]

    def keys_of(self, frame: pl.DataFrame) -> list[bytes]:
        """Return the packed key of each row of `frame`, which has the fold's key columns."""
        return [pack_key(row) for row in frame.select(self.fold.keys).iter_rows()]

    def encode(self, state: State) -> dict[bytes, bytes]:
        """Return one packed value for each entity of `state`.

        The values in front are those at t = newest + 1: they depend on the log alone, so the
        same log gives the same bytes, whoever writes them and when.
        """
        values = self.fold.values(state, now_us=None)
        outputs = list(self.fold.plan.features)
        finished = _physical(values.select(*self.fold.keys, NEWEST, VALID_UNTIL, *outputs))
        lifetime = _physical(state.lifetime)
        assert finished.height == lifetime.height
        # Fold.values keeps the order of the lifetime frame: row by row they are the same entity.
        keys = self.keys_of(state.lifetime)
        recent = self._recent_lists(state, keys)
        skip = len(self.fold.keys)
        packed: dict[bytes, bytes] = {}
        for key, done, fields in zip(keys, finished.iter_rows(), lifetime.iter_rows(), strict=True):
            body = _pack([fields[skip:], recent.get(key)])
            packed[key] = pack_value(done[skip], done[skip + 1], done[skip + 2 :], body)
        return packed

    def _recent_lists(self, state: State, keys: Sequence[bytes]) -> dict[bytes, tuple[Any, ...]]:
        if state.recent.is_empty():
            return {}
        columns = [pl.col(c) for c in self._recent]
        grouped = _physical(state.recent).group_by(self.fold.keys, maintain_order=True).agg(columns)
        originals = state.recent.select(self.fold.keys).unique(
            subset=self.fold.keys, keep="first", maintain_order=True
        )
        skip = len(self.fold.keys)
        rows = (row[skip:] for row in grouped.iter_rows())
        return dict(zip(self.keys_of(originals), rows, strict=True))

    def decode(self, keys: Sequence[bytes], blobs: Sequence[bytes | None]) -> State:
        """Return the states that `encode` packed, of those `keys` that have one."""
        lifetime: list[tuple[Any, ...]] = []
        recent: list[tuple[Any, ...]] = []
        for key, blob in zip(keys, blobs, strict=True):
            if blob is None:
                continue
            parts = unpack_key(key)
            fields, lists = _unpack(unpack_value(blob).state)
            lifetime.append((*parts, *fields))
            if lists is not None:
                recent.append((*parts, *lists))
        return State(self._frame(lifetime), self._exploded(recent))

    def _frame(self, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        return _restored(rows, self.fold.lifetime_schema, len(self.fold.keys))

    def _exploded(self, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        schema = self.fold.recent_schema
        if not rows:
            return pl.DataFrame(schema=schema)
        skip = len(self.fold.keys)
        listed: dict[str, pl.DataType] = {
            name: dtype if i < skip else pl.List(storage(dtype))
            for i, (name, dtype) in enumerate(schema.items())
        }
        frame = pl.DataFrame(rows, schema=listed, orient="row").explode(self._recent)
        return _typed(frame, schema, skip)


def storage(dtype: pl.DataType) -> pl.DataType:
    """Return the type that carries `dtype` in a stored value: times as integers, also inside."""
    if dtype == pl.Date:
        return pl.Int32()
    if isinstance(dtype, _TEMPORAL):
        return pl.Int64()
    if isinstance(dtype, pl.List):
        assert isinstance(dtype.inner, pl.DataType)
        return pl.List(storage(dtype.inner))
    if isinstance(dtype, pl.Struct):
        inner = [(f.name, f.dtype) for f in dtype.fields]
        return pl.Struct([pl.Field(n, storage(t)) for n, t in inner if isinstance(t, pl.DataType)])
    return dtype


def _physical(frame: pl.DataFrame) -> pl.DataFrame:
    casts = [
        pl.col(name).cast(storage(dtype))
        for name, dtype in frame.schema.items()
        if storage(dtype) != dtype
    ]
    return frame.with_columns(casts) if casts else frame


def _restored(
    rows: list[tuple[Any, ...]], schema: dict[str, pl.DataType], skip: int
) -> pl.DataFrame:
    stored = {n: t if i < skip else storage(t) for i, (n, t) in enumerate(schema.items())}
    return _typed(pl.DataFrame(rows, schema=stored, orient="row"), schema, skip)


def _typed(frame: pl.DataFrame, schema: dict[str, pl.DataType], skip: int) -> pl.DataFrame:
    casts = [
        pl.col(name).cast(dtype)
        for i, (name, dtype) in enumerate(schema.items())
        if i >= skip and storage(dtype) != dtype
    ]
    return frame.with_columns(casts) if casts else frame


def _pack(value: list[Any]) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except OverflowError:
        return bytes(msgpack.packb(_widened(value)))


def _widened(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_widened(v) for v in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return msgpack.ExtType(_WIDE, str(value).encode())
    return value


def _unpack(state: bytes) -> tuple[list[Any], list[Any] | None]:
    try:
        fields, recent = msgpack.unpackb(state, ext_hook=_narrowed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise IntegrityError(
            "A stored state cannot be read.",
            found=str(error),
            remedy="promote the feature again to rebuild it from the ledger",
        ) from None
    return fields, recent


def _narrowed(tag: int, data: bytes) -> Any:
    if tag == _WIDE:
        return int(data)
    raise ValueError(f"unknown tag {tag}")
