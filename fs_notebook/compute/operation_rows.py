"""What the feature operations of `language.operations` mean, in Polars.

None of them learns anything here: what they learnt stands in the plan, so that a training row, a
worker and a reader compute the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import polars as pl
import xxhash

from fs_notebook.compute.casts import Build, cast, widened
from fs_notebook.embedders import embedder, texts_to_vectors
from fs_notebook.errors import DefinitionError, FeatureStoreError
from fs_notebook.language.expr import Call, Literal


def _number(call: Call, index: int) -> float:
    arg = call.args[index]
    assert isinstance(arg, Literal)
    assert isinstance(arg.value, (int, float))
    return float(arg.value)


def _closed(call: Call, count: int) -> None:
    if len(call.args) == count:
        raise DefinitionError(
            f"{call.function.upper()} cannot be computed before what it depends on is pinned.",
            found="no statistics, or no embedder's version",
            remedy="use it in a feature's definition, which pins them; or write its constants out",
        )


def _clip(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    value, low, high = (
        a if e.type is call.type else cast(a, e.type, call.type)
        for a, e in zip(args, call.args, strict=True)
    )
    # NaN is greater than every number, so that it comes down to the high end.
    clipped = pl.when(value > high).then(high).when(value < low).then(low).otherwise(value)
    known = value.is_not_null() & low.is_not_null() & high.is_not_null()
    return pl.when(known).then(clipped)


def _bin(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    wide = widened(args, call)
    reached = pl.sum_horizontal([(wide[0] >= edge).cast(pl.Int64) for edge in wide[1:]])
    return pl.when(wide[0].is_not_null()).then(reached.cast(pl.Int64))


def _quantile_bin(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    _closed(call, 2)
    raise AssertionError(call)


def _one_hot(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    flags = pl.concat_list([(args[0] == option).cast(pl.Int64) for option in args[1:]])
    return pl.when(args[0].is_not_null()).then(flags)


def _min_max_scale(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    _closed(call, 1)
    low, high = _number(call, 1), _number(call, 2)
    # Where all values were one, their distance counts as 1, and the value becomes 0.
    return (args[0].cast(pl.Float64) - low) / ((high - low) or 1.0)


def _z_score(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    _closed(call, 1)
    mean, deviation = _number(call, 1), _number(call, 2)
    return (args[0].cast(pl.Float64) - mean) / (deviation or 1.0)


def _canonical(values: pl.Series) -> pl.Series:
    """Return values that hash alike where they are equal: text as it is, all else as 64 bits."""
    if values.dtype == pl.String:
        return values
    if values.dtype != pl.Float64:
        return values.cast(pl.Int64)
    numbers = values.fill_null(0.0).to_numpy()
    # One zero, one NaN: their bits may differ where they are equal.
    bits = np.where(np.isnan(numbers), np.nan, numbers + 0.0).view(np.int64)
    return pl.Series(values.name, bits).set(values.is_null(), None)


def _code(value: str | int) -> int:
    """Return xxHash64 of text in UTF-8, or of 8 bytes, the least first: the same everywhere."""
    data = value.encode() if isinstance(value, str) else struct.pack("<q", value)
    return xxhash.xxh64_intdigest(data)


def _hash_bucket(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    count = int(_number(call, 1))

    def place(values: pl.Series) -> pl.Series:
        plain = _canonical(values)
        distinct = plain.unique().drop_nulls()
        buckets = [_code(v) % count for v in distinct]
        return _looked_up(plain, distinct, pl.Series(buckets, dtype=pl.Int64))

    value = args[0].to_physical() if call.args[0].type.is_temporal else args[0]
    return value.map_batches(place, return_dtype=pl.Int64(), is_elementwise=True)


def _looked_up(values: pl.Series, distinct: pl.Series, results: pl.Series) -> pl.Series:
    """Return for each value the result of the distinct value that it is; null for null."""
    known = pl.DataFrame({"v": distinct, "r": results})
    found = values.alias("v").to_frame().join(known, on="v", how="left", maintain_order="left")
    return found.get_column("r").alias(values.name)


def _embed(args: Sequence[pl.Expr], call: Call) -> pl.Expr:
    _closed(call, 2)
    name, version = (a.value for a in call.args[1:3] if isinstance(a, Literal))
    dimensions = int(_number(call, 3))

    def embed(texts: pl.Series) -> pl.Series:
        distinct = texts.unique().drop_nulls()
        dtype = pl.List(pl.Float64())
        if distinct.is_empty():
            # The model is looked for only where there is text: reading finished values needs none.
            return pl.Series(texts.name, [None] * texts.len(), dtype=dtype)
        try:
            model = embedder(str(name), version=str(version))
            vectors = texts_to_vectors(model, distinct.to_list(), dimensions, name=str(name))
        except FeatureStoreError as error:
            _told[str(error)] = error
            raise
        results = pl.Series(np.ascontiguousarray(vectors)).cast(dtype)
        return _looked_up(texts, distinct, results)

    return args[0].map_batches(embed, return_dtype=pl.List(pl.Float64()), is_elementwise=True)


_told: dict[str, FeatureStoreError] = {}


def original(error: FeatureStoreError) -> FeatureStoreError:
    """Return the error that was raised inside an expression.

    Polars passes on one of its own making: of the same class, with the text of the original and
    more behind it, and without its fields.
    """
    told = next((text for text in _told if str(error).startswith(text)), None)
    return error if told is None else _told.pop(told)


BUILDERS: dict[str, Build] = {
    "clip": _clip,
    "bin": _bin,
    "one_hot": _one_hot,
    "hash_bucket": _hash_bucket,
    "min_max_scale": _min_max_scale,
    "z_score": _z_score,
    "quantile_bin": _quantile_bin,
    "embed": _embed,
}
