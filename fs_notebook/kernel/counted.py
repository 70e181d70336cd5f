"""Aggregates over how often each distinct value came: the state is a list of values and counts.

The state grows with the distinct values of an entity, not with its events, and has no bound of
its own. Distinct counts, modes, quantiles and entropy are exact. -0.0 counts as 0.0, and all NaNs
are one value, greater than every number.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fs_notebook.kernel.algebra import Exprs, Field, Framewise, Parameter, one
from fs_notebook.kernel.totals import listed_mean, listed_total, total_type
from fs_notebook.types import Type, list_of, struct_of

_AT = "__at"


class Counted(Framewise):
    """The base: values in ascending order, and how often each of them came."""

    invertible = True
    bounded = False

    def key(self, arg: pl.Expr) -> pl.Expr:
        """Return what is counted of an argument."""
        if self.types[0] is not Type.DOUBLE:
            return arg
        return pl.when(arg == 0).then(0.0).otherwise(arg)

    @property
    def key_dtype(self) -> pl.DataType:
        return self.types[0].polars

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("v", pl.List(self.key_dtype)), Field("n", pl.List(pl.Int64())))

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        keys = frame.select(*by, self.key(pl.col(args[0])).alias("v")).drop_nulls("v")
        counts = keys.group_by(*by, "v").agg(pl.len().cast(pl.Int64).alias("n"))
        return _listed(counts, by)

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        rows = frame.filter(pl.col("n").list.len() > 0).explode("v", "n")
        return _listed(rows.group_by(*by, "v").agg(pl.col("n").sum()), by)


def _listed(counts: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    return counts.sort("v").group_by(by, maintain_order=True).agg("v", "n")


class NUnique(Counted):
    """COUNT(DISTINCT a): exact; empty: 0."""

    name = "n_unique"
    usage = "COUNT(DISTINCT a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.BIGINT if one(types) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0].list.len().cast(pl.Int64).fill_null(0)


class SumDistinct(Counted):
    """SUM(DISTINCT a): each value once; empty: null."""

    name = "sum_distinct"
    usage = "SUM(DISTINCT number)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types, number=True)
        return None if kind is None else total_type(kind)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        values = state[0]
        if self.types[0].is_decimal:
            total = listed_total(values, self.types[0])
        elif self.types[0] is Type.BIGINT:
            total = values.cast(pl.List(pl.Int128)).list.sum().cast(pl.Int64)
        else:
            total = values.list.sum()
        return pl.when(values.list.len() > 0).then(total)


class AvgDistinct(Counted):
    """AVG(DISTINCT a): each value once; empty: null."""

    name = "avg_distinct"
    usage = "AVG(DISTINCT number)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        values = state[0]
        if self.types[0].is_decimal:
            return pl.when(values.list.len() > 0).then(listed_mean(values, self.types[0]))
        wide = pl.Int128() if self.types[0] is Type.BIGINT else pl.Float64()
        total = values.cast(pl.List(wide)).list.sum().cast(pl.Float64)
        return pl.when(values.list.len() > 0).then(total / values.list.len())


class Mode(Counted):
    """MODE(a): the most frequent value, the smaller one of equals; empty: null."""

    name = "mode"
    usage = "MODE(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return one(types)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        values, counts = state
        return values.list.get(counts.list.arg_max(), null_on_oob=True)


def _by_frequency(counts: pl.Expr) -> pl.Expr:
    """Return each list's indices by falling count; of equal counts the earlier, smaller value."""
    place = pl.element() * 2**24 - pl.int_range(pl.len())
    return counts.list.eval(place.arg_sort(descending=True))


_K = Parameter("k", Type.BIGINT, 1, 10_000, example=3)


class TopK(Counted):
    """TOP_K(a, k): the k most frequent values, most frequent first; empty: null."""

    name = "top_k"
    usage = "TOP_K(a, k)"
    parameters = (_K,)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types)
        return list_of(kind) if kind is not None else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        values, counts = state
        first = _by_frequency(counts).list.head(int(self.params[0] or 1))
        return pl.when(values.list.len() > 0).then(values.list.gather(first))


def _pairs(values: pl.Expr, counts: pl.Expr, kind: Type) -> pl.Expr:
    """Return two lists beside each other as one list of (value, count)."""
    dtype = kind.polars

    def zipped(both: pl.Series) -> pl.Series:
        frame = both.struct.unnest().with_row_index(_AT)
        rows = frame.filter(pl.col("value").list.len() > 0).explode("value", "count")
        pair = pl.struct("value", "count").alias("pair")
        lists = rows.group_by(_AT, maintain_order=True).agg(pair)
        return frame.join(lists, on=_AT, how="left", maintain_order="left")["pair"].cast(dtype)

    both = pl.struct(values.alias("value"), counts.alias("count"))
    return both.map_batches(zipped, return_dtype=dtype)


def _counts_of(kind: Type) -> Type:
    return list_of(struct_of([("value", kind), ("count", Type.BIGINT)]))


class TopKCounts(Counted):
    """TOP_K_COUNTS(a, k): the k most frequent values with their counts; empty: null."""

    name = "top_k_counts"
    usage = "TOP_K_COUNTS(a, k)"
    parameters = (_K,)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types)
        return _counts_of(kind) if kind is not None else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        values, counts = state
        first = _by_frequency(counts).list.head(int(self.params[0] or 1))
        chosen = values.list.gather(first), counts.list.gather(first)
        return _pairs(*chosen, _counts_of(self.types[0]))


class Histogram(Counted):
    """HISTOGRAM(a): every distinct value with its count, in ascending order; empty: null."""

    name = "histogram"
    usage = "HISTOGRAM(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types)
        return _counts_of(kind) if kind is not None else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return _pairs(state[0], state[1], _counts_of(self.types[0]))


class Entropy(Counted):
    """ENTROPY(a): Shannon's entropy of the values' shares, in bits; empty: null."""

    name = "entropy"
    usage = "ENTROPY(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        share = pl.element() / pl.element().sum()
        bits = state[1].list.eval(-share * share.log(2.0)).list.sum()
        # A single value has entropy 0.0, not -0.0.
        return pl.when(state[1].list.len() > 0).then(bits + 0.0)


class GiniSimpson(Counted):
    """GINI_SIMPSON(a): the chance that two events, drawn with return, differ in a; empty: null."""

    name = "gini_simpson"
    usage = "GINI_SIMPSON(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        share = pl.element() / pl.element().sum()
        alike = state[1].list.eval(share * share).list.sum()
        return pl.when(state[1].list.len() > 0).then(1.0 - alike)


_Q = Parameter("q", Type.DOUBLE, 0.0, 1.0, example=0.25)


def _ranked(
    values: pl.Expr, counts: pl.Expr, q: float, dtype: pl.DataType, *, cont: bool
) -> pl.Expr:
    """Return the q-quantile of each entity's values: interpolated, or the lower value."""

    def chosen(both: pl.Series) -> pl.Series:
        frame = both.struct.unnest().with_row_index(_AT)
        rows = frame.filter(pl.col("n").list.len() > 0).explode("v", "n")
        upto = pl.col("n").cum_sum().over(_AT)
        total = pl.col("n").sum().over(_AT)
        place = (total - 1) * q if cont else ((total * q).ceil() - 1).clip(0)
        rows = rows.with_columns(upto.alias("upto"), place.alias("place"))
        low = pl.col("v").filter(pl.col("upto") > pl.col("place").floor()).first()
        if not cont:
            picked = rows.group_by(_AT).agg(low.alias("q"))
        else:
            high = pl.col("v").filter(pl.col("upto") > pl.col("place").ceil()).first()
            part = pl.col("place").first() % 1.0
            between = rows.group_by(_AT).agg(
                low.cast(pl.Float64).alias("low"),
                high.cast(pl.Float64).alias("high"),
                part.alias("part"),
            )
            # Between equal values, infinite ones too, there is nothing to interpolate.
            alike = (pl.col("low") == pl.col("high")) | (pl.col("part") == 0)
            mixed = pl.col("low") + (pl.col("high") - pl.col("low")) * pl.col("part")
            value = pl.when(alike).then(pl.col("low")).otherwise(mixed)
            picked = between.select(_AT, value.alias("q"))
        return frame.join(picked, on=_AT, how="left", maintain_order="left")["q"]

    both = pl.struct(values.alias("v"), counts.alias("n"))
    return both.map_batches(chosen, return_dtype=dtype)


class QuantileCont(Counted):
    """QUANTILE_CONT(a, q): the q-quantile, interpolated between neighbours; empty: null."""

    name = "quantile_cont"
    usage = "QUANTILE_CONT(number, q)"
    parameters = (_Q,)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if one(types, number=True) else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return _ranked(state[0], state[1], float(self.params[0] or 0.0), pl.Float64(), cont=True)


class QuantileDisc(Counted):
    """QUANTILE_DISC(a, q): the least value that a share q of all values does not exceed."""

    name = "quantile_disc"
    usage = "QUANTILE_DISC(a, q)"
    parameters = (_Q,)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return one(types)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return _ranked(state[0], state[1], float(self.params[0] or 0.0), self.key_dtype, cont=False)
