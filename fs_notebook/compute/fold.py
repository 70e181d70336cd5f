"""The incremental fold: rows into states, states into values. Every live path runs this.

A state is two frames. `lifetime` has one row an entity: the key, the newest event time, and the
merged fields of the aggregations without a window. `recent` has one row for each event that
some finite window can still count: the key, the event time, and the aggregations' arguments.
Events leave `recent` by the data alone, never by a clock: those that even a reader at the
earliest possible time, just after the entity's newest event, would no longer count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.kernel.aggregates import AGGREGATES, Field, merge_expr
from fs_notebook.language.expr import Expr
from fs_notebook.language.plan import Aggregation, Plan, Window
from fs_notebook.log.protocol import TIME

NEWEST = "__newest"
VALID_UNTIL = "__valid_until"


@dataclass(frozen=True)
class State:
    """The states of some entities. Empty frames mean nothing was folded yet."""

    lifetime: pl.DataFrame
    recent: pl.DataFrame


@dataclass(frozen=True)
class Folded:
    """What folding a batch did: the new states of the entities it touched, and counts."""

    state: State
    events: int
    null_keys: int
    late: int


class Fold:
    """A plan, ready to fold.

    Examples
    --------
    >>> fold = Fold(plan)                                      # doctest: +SKIP
    >>> state = fold.add(fold.empty, rows).state               # doctest: +SKIP
    >>> fold.values(state, now_us=None)                        # doctest: +SKIP
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.keys = [f"__k{i}" for i in range(len(plan.keys))]
        self._args: list[Expr] = []
        for aggregation in plan.aggregations:
            for arg in aggregation.args:
                if arg not in self._args:
                    self._args.append(arg)
        named = zip(plan.keys, self.keys, strict=True)
        self._key_exprs = [compile_expr(k.expr).alias(n) for k, n in named]
        self._arg_exprs = [compile_expr(a).alias(f"__x{i}") for i, a in enumerate(self._args)]
        self._where = None if plan.where is None else compile_expr(plan.where)
        self.lifetimes = [i for i, a in enumerate(plan.aggregations) if a.window.length_us is None]
        windowed = [i for i, a in enumerate(plan.aggregations) if a.window.length_us is not None]
        self.windows: dict[Window, list[int]] = {}
        for i in windowed:
            self.windows.setdefault(plan.aggregations[i].window, []).append(i)
        self.recent_args = sorted(
            {f"__x{self._args.index(e)}" for i in windowed for e in plan.aggregations[i].args}
        )

    @cached_property
    def key_schema(self) -> dict[str, pl.DataType]:
        """The key's working columns and their Polars types."""
        return {n: k.expr.type.polars for n, k in zip(self.keys, self.plan.keys, strict=True)}

    @cached_property
    def lifetime_schema(self) -> dict[str, pl.DataType]:
        schema = dict(self.key_schema) | {NEWEST: pl.Int64()}
        for i in self.lifetimes:
            schema |= {column: f.dtype for column, f in self.fields_of(i)}
        return schema

    @cached_property
    def recent_schema(self) -> dict[str, pl.DataType]:
        types = {f"__x{i}": a.type.polars for i, a in enumerate(self._args)}
        return dict(self.key_schema) | {TIME: pl.Int64()} | {n: types[n] for n in self.recent_args}

    @cached_property
    def empty(self) -> State:
        """The state of nothing folded."""
        return State(
            pl.DataFrame(schema=self.lifetime_schema), pl.DataFrame(schema=self.recent_schema)
        )

    def fields_of(self, index: int) -> list[tuple[str, Field]]:
        aggregation = self.plan.aggregations[index]
        kind = aggregation.args[0].type if aggregation.args else None
        fields = AGGREGATES[aggregation.function].fields(kind)
        return [(f"__a{index}_{f.name}", f) for f in fields]

    def lift_of(self, index: int) -> list[pl.Expr]:
        aggregation = self.plan.aggregations[index]
        if not aggregation.args:
            return list(AGGREGATES[aggregation.function].lift(None, None))
        arg = aggregation.args[0]
        column = pl.col(f"__x{self._args.index(arg)}")
        return list(AGGREGATES[aggregation.function].lift(column, arg.type))

    def finalise(self, index: int, columns: Sequence[pl.Expr] | None = None) -> pl.Expr:
        """Return the expression that finishes aggregation `index` from its field columns."""
        aggregation: Aggregation = self.plan.aggregations[index]
        kind = aggregation.args[0].type if aggregation.args else None
        fields = columns or [pl.col(name) for name, _ in self.fields_of(index)]
        return AGGREGATES[aggregation.function].finalise(fields, kind)

    def project(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Apply WHERE, keys and arguments to rows of the source.

        Returns
        -------
        frame
            Key columns, `TIME` as integer microseconds, argument columns; null keys dropped.
        null_keys
            How many rows were dropped for a null in their key.
        """
        with overflow_named("a row expression"):
            lazy = rows.lazy()
            if self._where is not None:
                lazy = lazy.filter(self._where)
            time = pl.col(TIME).to_physical().alias(TIME)
            frame = lazy.select(*self._key_exprs, time, *self._arg_exprs).collect()
        before = frame.height
        if any(frame[k].null_count() for k in self.keys):
            frame = frame.drop_nulls(self.keys)
        return frame, before - frame.height

    def partial(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Fold projected rows into lifetime states, one row an entity."""
        return self._group(frame, self.lifetimes, [pl.col(TIME).max().alias(NEWEST)])

    def _group(
        self, frame: pl.DataFrame, indices: Sequence[int], more: Sequence[pl.Expr] = ()
    ) -> pl.DataFrame:
        exprs = list(more)
        for i in indices:
            for (name, field), row in zip(self.fields_of(i), self.lift_of(i), strict=True):
                if field.monoid == "sum" and not self.plan.aggregations[i].args:
                    exprs.append(pl.len().cast(pl.Int64).alias(name))
                else:
                    exprs.append(merge_expr(field, row).alias(name))
        return frame.group_by(self.keys).agg(exprs)

    def merge(self, states: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Merge lifetime states, one row an entity."""
        filled = [s for s in states if s.height]
        if len(filled) <= 1:
            return filled[0] if filled else self.empty.lifetime
        exprs = [pl.col(NEWEST).max()]
        for i in self.lifetimes:
            exprs += [merge_expr(f, pl.col(name)).alias(name) for name, f in self.fields_of(i)]
        return pl.concat(filled).group_by(self.keys).agg(exprs)

    def add(self, state: State, rows: pl.DataFrame) -> Folded:
        """Fold rows into `state`; entities that the rows do not touch come along unchanged."""
        frame, null_keys = self.project(rows)
        folded = self.add_projected(state, frame)
        return Folded(folded.state, folded.events, null_keys, folded.late)

    def add_projected(self, state: State, frame: pl.DataFrame) -> Folded:
        """Fold projected rows into `state`.

        Late rows are those that came when their entity's newer events had already moved every
        finite window past them. Whether a row is late depends on the log alone, not on how it is
        cut into batches.
        """
        lifetime = self.merge([state.lifetime, self.partial(frame)])
        recent, late = state.recent, 0
        if self.windows and frame.height:
            newest = lifetime.select(*self.keys, NEWEST)
            late = self._late(state.lifetime, frame)
            fresh = frame.select(list(self.recent_schema))
            recent = pl.concat([self._trim(recent, newest), self._trim(fresh, newest)])
        return Folded(State(lifetime, recent), frame.height, 0, late)

    def _late(self, before: pl.DataFrame, frame: pl.DataFrame) -> int:
        length = self.plan.window_max_us
        assert length is not None
        known = before.select(*self.keys, NEWEST)
        here = pl.col(TIME).cum_max().over(self.keys)
        newest = pl.max_horizontal(pl.col(NEWEST), here)
        joined = frame.select(*self.keys, TIME).join(
            known, on=self.keys, how="left", maintain_order="left"
        )
        return int(joined.select((pl.col(TIME) < newest + 1 - length).sum()).item())

    def _trim(self, recent: pl.DataFrame, newest: pl.DataFrame) -> pl.DataFrame:
        length = self.plan.window_max_us
        assert length is not None
        # The earliest reader comes at newest + 1. The widest window then begins at
        # newest + 1 - length; keeping that very microsecond serves both ways of closing it.
        return (
            recent.join(newest, on=self.keys, how="left", maintain_order="left")
            .filter(pl.col(TIME) >= pl.col(NEWEST) + 1 - length)
            .drop(NEWEST)
        )

    def values(self, state: State, *, now_us: int | None) -> pl.DataFrame:
        """Finish the states: the value of each feature at t = max(now, newest + 1).

        Parameters
        ----------
        state
            The states of some entities.
        now_us
            Now, in microseconds since the epoch; None takes each entity's newest + 1.

        Returns
        -------
        DataFrame
            Key columns, one column a feature, `NEWEST`, and `VALID_UNTIL`: the last t for
            which these values hold if no event arrives (null: for ever). Unsorted.
        """
        moment = pl.col(NEWEST) + 1
        if now_us is not None:
            moment = pl.max_horizontal(moment, pl.lit(now_us, dtype=pl.Int64))
        frame = state.lifetime.with_columns(moment.alias("__t"))
        ends: list[str] = []
        for number, (window, indices) in enumerate(self.windows.items()):
            counted = self._windowed(state.recent, frame.select(*self.keys, "__t"), window, indices)
            end = f"__until{number}"
            ends.append(end)
            frame = frame.join(
                counted.rename({VALID_UNTIL: end}), on=self.keys, how="left", maintain_order="left"
            )
        until = pl.min_horizontal(ends) if ends else pl.lit(None, dtype=pl.Int64)
        with overflow_named("a feature"):
            return frame.select(
                *self.keys, *self._outputs(), pl.col(NEWEST), until.alias(VALID_UNTIL)
            )

    def _windowed(
        self, recent: pl.DataFrame, moments: pl.DataFrame, window: Window, indices: list[int]
    ) -> pl.DataFrame:
        length = window.length_us
        assert length is not None
        start = pl.col("__t") - length
        after = pl.col(TIME) >= start if window.closed == "left" else pl.col(TIME) > start
        last = length if window.closed == "left" else length - 1
        inside = recent.join(moments, on=self.keys, how="inner").filter(after)
        until = (pl.col(TIME).min() + last).alias(VALID_UNTIL)
        return self._group(inside, indices, [until])

    def _outputs(self) -> list[pl.Expr]:
        return [compile_expr(o.expr, self.finalise).alias(o.name) for o in self.plan.outputs]

    def empty_values(self) -> dict[str, object]:
        """Return what each feature is for an entity that has no events: the empty fold."""
        nothing = dict.fromkeys(self.lifetime_schema)
        schema = dict(self.lifetime_schema)
        for i in range(len(self.plan.aggregations)):
            for name, field in self.fields_of(i):
                schema[name] = field.dtype
                nothing[name] = None
        frame = pl.DataFrame([nothing], schema=schema, orient="row")
        return frame.select(self._outputs()).row(0, named=True)
