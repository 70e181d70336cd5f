"""Approximate aggregates, used only where a definition asks for them by name.

Both are functions of the set or multiset of values alone, so they too are equal under any
chunking and any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import xxhash

from fs_notebook.kernel.algebra import Exprs, Field, Framewise, one
from fs_notebook.kernel.counted import _Q, Counted, _ranked
from fs_notebook.types import Type

BITS = 12
REGISTERS = 1 << BITS
NAN = float("nan")


class ApproxNUnique(Framewise):
    """APPROX_COUNT_DISTINCT(a): a HyperLogLog of 4,096 registers; empty: 0.

    Source: Flajolet et al. (2007), with linear counting for few values.
    """

    name = "approx_n_unique"
    usage = "APPROX_COUNT_DISTINCT(a)"
    error = "1.6 % standard error"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.BIGINT if one(types) else None

    @property
    def fields(self) -> tuple[Field, ...]:
        # Only the registers that were hit: which ones, and each one's greatest rank.
        return (Field("r", pl.List(pl.Int32())), Field("z", pl.List(pl.Int32())))

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        value = pl.col(args[0])
        if self.types[0] is Type.DOUBLE:
            value = pl.when(value == 0).then(0.0).when(value.is_nan()).then(NAN).otherwise(value)
        values = frame.select(*by, value.alias("v")).drop_nulls("v").unique()
        register, rank = _hashed(values["v"])
        return self._listed(values.select(by).with_columns(register, rank), by)

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        rows = frame.filter(pl.col("r").list.len() > 0).explode("r", "z")
        return self._listed(rows.select(*by, "r", "z"), by)

    def _listed(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        best = rows.group_by(*by, "r").agg(pl.col("z").max())
        return best.sort("r").group_by(by, maintain_order=True).agg("r", "z")

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        hit = state[1].list.len().cast(pl.Float64)
        empty = REGISTERS - hit
        powers = state[1].list.eval(pl.lit(2.0).pow(-pl.element().cast(pl.Float64))).list.sum()
        alpha = 0.7213 / (1 + 1.079 / REGISTERS)
        raw = alpha * REGISTERS**2 / (powers + empty)
        few = REGISTERS * (REGISTERS / empty).log()
        estimate = pl.when((raw <= 2.5 * REGISTERS) & (empty > 0)).then(few).otherwise(raw)
        return estimate.round().cast(pl.Int64).fill_null(0)


def _hashed(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return each value's register and rank, by xxHash64: the same on every machine, for ever."""
    if values.dtype == pl.Decimal:
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        codes = [xxhash.xxh64_intdigest(v.encode()) for v in values]
    else:
        raw = values.to_physical()
        plain = raw if raw.dtype == pl.Float64 else raw.cast(pl.Int64)
        codes = [xxhash.xxh64_intdigest(v) for v in map(bytes, _as_bytes(plain.to_numpy()))]
    hashes = np.array(codes, dtype=np.uint64)
    register = (hashes >> np.uint64(64 - BITS)).astype(np.int32)
    # The lowest bit stands for a rest of nothing but zeros.
    rest = (hashes << np.uint64(BITS)) | np.uint64(1 << (BITS - 1))
    rank = np.zeros(rest.size, dtype=np.int32)
    left = np.ones(rest.size, dtype=bool)
    for step in range(1, 64 - BITS + 2):
        top = (rest >> np.uint64(63)) == 1
        rank[left & top] = step
        left &= ~top
        rest = rest << np.uint64(1)
    return pl.Series("r", register), pl.Series("z", rank)


def _as_bytes(values: Any) -> Any:
    little = values.astype(values.dtype.newbyteorder("<"))
    return np.frombuffer(little.tobytes(), dtype=np.dtype("V8"))


ACCURACY = 0.01
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_ZERO, _FAR, _INFINITY, _NAN = 0, 50_000, 100_000, 200_000


class ApproxQuantile(Counted):
    """APPROX_QUANTILE(a, q): within 1 % of the exact lower quantile; empty: null.

    The state counts values in buckets whose bounds grow by a constant factor: at most 71,000 a
    sign over all of DOUBLE, some 1,400 over six orders of magnitude. Source: Masson et al. (2019),
    DDSketch.
    """

    name = "approx_quantile"
    usage = "APPROX_QUANTILE(number, q)"
    parameters = (_Q,)
    bounded = True
    error = "1 % of the value"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    @property
    def key_dtype(self) -> pl.DataType:
        return pl.Int32()

    def key(self, arg: pl.Expr) -> pl.Expr:
        value = arg.cast(pl.Float64)
        size = (value.abs().log() / math.log(_GAMMA)).ceil() + _FAR
        sign = value.sign()
        return (
            pl.when(value.is_nan())
            .then(_NAN)
            .when(value.is_infinite())
            .then(sign * _INFINITY)
            .when(value == 0)
            .then(_ZERO)
            .otherwise(sign * size)
            .cast(pl.Int32)
        )

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        key = _ranked(state[0], state[1], float(self.params[0] or 0.0), pl.Int32(), cont=False)
        index = (key.abs() - _FAR).cast(pl.Float64)
        # In two halves, since gamma to the last power leaves DOUBLE before the value does.
        half = (index * (math.log(_GAMMA) / 2)).exp()
        size = half * (2.0 / (_GAMMA + 1)) * half
        return (
            pl.when(key == _NAN)
            .then(float("nan"))
            .when(key.abs() == _INFINITY)
            .then(key.sign() * float("inf"))
            .when(key == _ZERO)
            .then(0.0)
            .otherwise(key.sign() * size)
        )
