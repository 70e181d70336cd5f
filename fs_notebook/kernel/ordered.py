"""Aggregates that ask which event came first: the order is (event time, position).

The state holds values with their times and positions, so that whatever order batches come in,
the same event is the first. Nulls are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fs_notebook.kernel.algebra import Exprs, Field, Framewise, Parameter, one
from fs_notebook.types import ORDER, TIME, Type, list_of

_N = Parameter("n", Type.BIGINT, 1, 10_000, example=3)


class Kept(Framewise):
    """The base: at most `count` values, oldest first, each with its time and position."""

    ordered = True
    newest = True
    once = False
    """Whether of equal values only the one at the chosen end is kept."""

    @property
    def count(self) -> int:
        return int(self.params[0] or 1) if self.params else 1

    @property
    def fields(self) -> tuple[Field, ...]:
        kind = self.types[0].polars
        return (
            Field("v", pl.List(kind)),
            Field("t", pl.List(pl.Int64())),
            Field("p", pl.List(pl.Int64())),
            Field("q", pl.List(pl.Int64())),
        )

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        columns = zip((args[0], TIME, *ORDER), "vtpq", strict=True)
        rows = frame.select(*by, *(pl.col(c).alias(n) for c, n in columns))
        return self._keep(rows.drop_nulls("v"), by)

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        rows = frame.filter(pl.col("t").list.len() > 0).explode("v", "t", "p", "q")
        return self._keep(rows.select(*by, "v", "t", "p", "q"), by)

    def _keep(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        rows = rows.sort("t", "p", "q")
        if self.once:
            rows = rows.unique(
                [*by, "v"], keep="last" if self.newest else "first", maintain_order=True
            )
        grouped = rows.group_by(by, maintain_order=True)
        cut = pl.all().tail(self.count) if self.newest else pl.all().head(self.count)
        return grouped.agg(cut)


class Last(Kept):
    """LAST(a): the newest value that is not null; empty: null."""

    name = "last"
    usage = "LAST(a)"

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return types[0] if len(types) == 1 else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0].list.get(-1, null_on_oob=True)


class First(Kept):
    """FIRST(a): the oldest value that is not null; empty: null."""

    name = "first"
    usage = "FIRST(a)"
    newest = False

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return types[0] if len(types) == 1 else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0].list.get(0, null_on_oob=True)


class _Several(Kept):
    parameters = (_N,)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return list_of(types[0]) if len(types) == 1 else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return pl.when(state[0].list.len() > 0).then(state[0])


class LastN(_Several):
    """LAST_N(a, n): the newest n values, newest first; empty: null."""

    name = "last_n"
    usage = "LAST_N(a, n)"

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return super().finalise(state, t).list.reverse()


class FirstN(_Several):
    """FIRST_N(a, n): the oldest n values, oldest first; empty: null."""

    name = "first_n"
    usage = "FIRST_N(a, n)"
    newest = False


class CollectList(_Several):
    """COLLECT_LIST(a, n): the newest n values, oldest first; empty: null."""

    name = "collect_list"
    usage = "COLLECT_LIST(a, n)"


class CollectSet(_Several):
    """COLLECT_SET(a, n): the n distinct values that came last, in ascending order; empty: null."""

    name = "collect_set"
    usage = "COLLECT_SET(a, n)"
    once = True

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        kind = one(types)
        return list_of(kind) if kind is not None else None

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return super().finalise(state, t).list.sort()


class _ByExtreme(Framewise):
    """The base: the value of one argument where another is extreme, the oldest one of equals."""

    ordered = True
    greatest = True

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return types[0] if len(types) == 2 and types[1].is_scalar else None

    @property
    def fields(self) -> tuple[Field, ...]:
        value, key = (t.polars for t in self.types)
        return (Field("v", value), Field("x", key), *(Field(n, pl.Int64()) for n in "tpq"))

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        columns = zip((*args, TIME, *ORDER), "vxtpq", strict=True)
        rows = frame.select(*by, *(pl.col(c).alias(n) for c, n in columns))
        return self._keep(rows.drop_nulls(["v", "x"]), by)

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        return self._keep(frame.drop_nulls("t").select(*by, *"vxtpq"), by)

    def _keep(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        down = [self.greatest, False, False, False]
        ordered = rows.sort("x", "t", "p", "q", descending=down)
        return ordered.unique(by, keep="first", maintain_order=True)

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        return state[0]


class ArgMax(_ByExtreme):
    """ARG_MAX(a, b), MAX_BY(a, b): the value of a where b is greatest; empty: null."""

    name = "arg_max"
    usage = "ARG_MAX(a, b)"


class ArgMin(_ByExtreme):
    """ARG_MIN(a, b), MIN_BY(a, b): the value of a where b is least; empty: null."""

    name = "arg_min"
    usage = "ARG_MIN(a, b)"
    greatest = False


class SessionLength(Framewise):
    """SESSION_LENGTH(gap): seconds from the first to the last event of the newest session.

    A session ends where nothing comes for longer than `gap`. Empty: null.
    """

    name = "session_length"
    usage = "SESSION_LENGTH(INTERVAL '30' MINUTE)"
    bounded = False
    parameters = (Parameter("gap", Type.INTERVAL, 1, 2**53, example=4_000_000),)

    @classmethod
    def result(cls, types: Sequence[Type]) -> Type | None:
        return Type.DOUBLE if not types else None

    @property
    def fields(self) -> tuple[Field, ...]:
        return (Field("s", pl.List(pl.Int64())), Field("e", pl.List(pl.Int64())))

    def fold(self, frame: pl.DataFrame, by: list[str], args: Sequence[str]) -> pl.DataFrame:
        time = pl.col(TIME)
        return self._joined(frame.select(*by, time.alias("s"), time.alias("e")), by)

    def merge(self, frame: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        rows = frame.filter(pl.col("s").list.len() > 0).explode("s", "e")
        return self._joined(rows.select(*by, "s", "e"), by)

    def _joined(self, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        gap = int(self.params[0] or 0)
        before = pl.col("e").cum_max().shift(1).over(by)
        begins = (pl.col("s") - before > gap).fill_null(True)
        numbered = rows.sort("s", "e").with_columns(begins.cum_sum().over(by).alias("__session"))
        spans = numbered.group_by(*by, "__session").agg(pl.col("s").min(), pl.col("e").max())
        return spans.sort("s").group_by(by, maintain_order=True).agg("s", "e")

    def finalise(self, state: Exprs, t: pl.Expr) -> pl.Expr:
        starts, ends = (c.list.get(-1, null_on_oob=True) for c in state)
        return (ends - starts) / 1e6
