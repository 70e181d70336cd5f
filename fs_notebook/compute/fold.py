"""The incremental fold: rows into states, states into values. Every live path runs this.

A state is two frames. `lifetime` has one row an entity: the key, the newest event time, and the
merged fields of the aggregations without a window. `recent` has one row for each event that
some finite window can still count: the key, the event time, and the aggregations' arguments.
Events leave `recent` by the data alone, never by a clock: those that even a reader at the
earliest possible time, just after the entity's newest event, would no longer count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from fs_notebook.compute import buckets, single, windows
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import PositionError
from fs_notebook.kernel import AGGREGATES, Aggregate, Field, Framewise, Grouped, Row
from fs_notebook.language.expr import Expr
from fs_notebook.language.plan import Aggregation, Plan, Window
from fs_notebook.log.protocol import BATCH, ENTRY, LEDGER, PARTITION
from fs_notebook.types import ORDER, TIME

NEWEST = "__newest"
VALID_UNTIL = "__valid_until"
MOMENT = buckets.MOMENT
_TOLD_MAX = 5


@dataclass(frozen=True)
class State:
    """The states of some entities. Empty frames mean nothing was folded yet."""

    lifetime: pl.DataFrame
    recent: pl.DataFrame
    buckets: pl.DataFrame | None = None
    """Of entities whose recent events are split: see `compute.buckets`. Of those `recent` holds
    only the events that are needed."""


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
        self.bound = [_bound(a) for a in plan.aggregations]
        self.ordered = any(b.ordered for b in self.bound)
        self.lifetimes = [i for i, a in enumerate(plan.aggregations) if a.window.is_lifetime]
        self.windows: dict[Window, list[int]] = {}
        for i, aggregation in enumerate(plan.aggregations):
            if not aggregation.window.is_lifetime:
                self.windows.setdefault(aggregation.window, []).append(i)
        self.windowed = [i for indices in self.windows.values() for i in indices]
        self.bucket_us = buckets.width_us(plan)
        self.recent_args = sorted({c for i in self.windowed for c in self.args_of(i)})
        self._recent_order = any(self.bound[i].ordered for i in self.windowed)

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
        schema = dict(self.key_schema) | {TIME: pl.Int64()}
        schema |= {n: types[n] for n in self.recent_args}
        return schema | (dict.fromkeys(ORDER, pl.Int64()) if self._recent_order else {})

    @cached_property
    def empty(self) -> State:
        """The state of nothing folded."""
        return State(
            pl.DataFrame(schema=self.lifetime_schema), pl.DataFrame(schema=self.recent_schema)
        )

    @property
    def told(self) -> str:
        """The features' names, for errors."""
        names = self.plan.features
        more = ", …" if len(names) > _TOLD_MAX else ""
        return ", ".join(names[:_TOLD_MAX]) + more

    @property
    def args(self) -> tuple[Expr, ...]:
        """The distinct arguments of all aggregations: the columns ``__x0``, ``__x1`` …"""
        return tuple(self._args)

    def args_of(self, index: int) -> list[str]:
        """Return the columns that hold the arguments of aggregation `index`."""
        return [f"__x{self._args.index(a)}" for a in self.plan.aggregations[index].args]

    def fields_of(self, index: int) -> list[tuple[str, Field]]:
        """Return the columns of aggregation `index`'s state, by their names in a state frame."""
        return [(f"__a{index}_{f.name}", f) for f in self.bound[index].fields]

    def row_of(self, index: int) -> Row:
        """Return what aggregation `index` may look at, as expressions over projected rows."""
        args = tuple(pl.col(c) for c in self.args_of(index))
        return Row(args, pl.col(TIME))

    def finalise(self, index: int) -> pl.Expr:
        """Return the expression that finishes aggregation `index` from its columns and `MOMENT`."""
        state = tuple(pl.col(name) for name, _ in self.fields_of(index))
        window = self.plan.aggregations[index].window
        return self.bound[index].finalise(state, windows.end(window, pl.col(MOMENT)))

    def project(
        self,
        rows: pl.DataFrame,
        positions: Callable[[], pl.DataFrame] | None = None,
        stamps: Sequence[str] = (),
    ) -> tuple[pl.DataFrame, int]:
        """Apply WHERE, keys and arguments to rows of the source.

        Parameters
        ----------
        rows
            The plan's columns and `TIME`.
        positions
            Gives the rows' positions (`Batch.positions`); asked where an aggregate needs them.
            Without it the rows' own order stands for their positions.
        stamps
            Columns of times to keep, as integer microseconds.

        Returns
        -------
        frame
            Key columns, `TIME` as integer microseconds, argument columns, `ORDER` where an
            aggregate asks for it; null keys dropped.
        null_keys
            How many rows were dropped for a null in their key.
        """
        extra: list[pl.Expr] = []
        if self.ordered:
            order = row_order(rows.height) if positions is None else order_of(positions())
            rows = rows.hstack(order)
            extra = [pl.col(c) for c in ORDER]
        with overflow_named(f"a row expression of {self.told}"):
            lazy = rows.lazy()
            if self._where is not None:
                lazy = lazy.filter(self._where)
            time = pl.col(TIME, *stamps).to_physical()
            # Beside a column, so that literals get as many rows as there are.
            frame = lazy.select(time, *self._key_exprs, *self._arg_exprs, *extra).collect()
        before = frame.height
        if any(frame[k].null_count() for k in self.keys):
            frame = frame.drop_nulls(self.keys)
        return frame, before - frame.height

    def rows_of(self, rows: pl.DataFrame, key: Sequence[object]) -> pl.Series:
        """Tell which rows of the source `project` keeps for the entity `key`."""
        with overflow_named(f"a row expression of {self.told}"):
            lazy = rows.with_row_index("__row").lazy()
            if self._where is not None:
                lazy = lazy.filter(self._where)
            mine = lazy.with_columns(self._key_exprs).filter(
                *(pl.col(n) == pl.lit(v, dtype=self.key_schema[n])
                  for n, v in zip(self.keys, key, strict=True))
            ).select("__row").collect()  # fmt: skip
        return pl.int_range(rows.height, dtype=pl.UInt32, eager=True).is_in(mine["__row"].implode())

    def counted(self, frame: pl.DataFrame, window: Window, moment_us: int) -> pl.Series:
        """Tell which of one entity's projected rows a window holds at a moment."""
        at = pl.lit(moment_us, dtype=pl.Int64).alias(MOMENT)
        rows = frame.with_row_index("__row").with_columns(at)
        if window.gap_us is not None:
            held = self._session(rows, window)
        elif window.is_lifetime:
            time, moment = pl.col(TIME), pl.col(MOMENT)
            held = rows.filter(time < moment if window.closed == "left" else time <= moment)
        else:
            held = rows.filter(windows.inside(window, pl.col(MOMENT)))
        return rows["__row"].is_in(held["__row"].implode())

    def partial(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Fold projected rows into lifetime states, one row an entity."""
        return self.folded(frame, self.lifetimes, [pl.col(TIME).max().alias(NEWEST)])

    def folded(
        self,
        frame: pl.DataFrame,
        indices: Sequence[int],
        more: Sequence[pl.Expr] = (),
        *,
        by: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Fold rows into the states of aggregations, one row an entity, after `more` columns.

        `by` replaces the keys as what makes a group.
        """
        groups = list(by) or self.keys
        exprs, framewise = list(more), []
        for i in indices:
            bound, names = self.bound[i], [name for name, _ in self.fields_of(i)]
            if isinstance(bound, Grouped):
                folded = bound.fold(self.row_of(i))
                exprs += [e.alias(n) for e, n in zip(folded, names, strict=True)]
            elif isinstance(bound, Framewise):
                framewise.append((i, bound.fold(frame, groups, self.args_of(i))))
        return self._beside(frame.group_by(groups).agg(exprs), framewise, groups)

    def _beside(
        self, frame: pl.DataFrame, states: Sequence[tuple[int, pl.DataFrame]], by: list[str]
    ) -> pl.DataFrame:
        """Put the states of framewise aggregations beside those of the others."""
        for i, state in states:
            named = {f.name: name for name, f in self.fields_of(i)}
            typed = [pl.col(f.name).cast(f.dtype).alias(n) for n, f in self.fields_of(i)]
            assert set(state.columns) == {*by, *named}, state.columns
            frame = frame.join(state.select(*by, *typed), on=by, how="left", maintain_order="left")
        return frame

    def merge(self, states: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Merge lifetime states, one row an entity."""
        names = list(self.lifetime_schema)
        # A frame that has just these is not selected from: that costs a small batch much.
        filled = [s if s.columns == names else s.select(names) for s in states if s.height]
        if len(filled) <= 1:
            return filled[0] if filled else self.empty.lifetime
        newest = [pl.col(NEWEST).max()]
        merged = self.merged(pl.concat(filled), self.lifetimes, newest)
        return merged if merged.columns == names else merged.select(names)

    def merged(
        self,
        together: pl.DataFrame,
        indices: Sequence[int],
        more: Sequence[pl.Expr],
        *,
        by: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Merge many states of aggregations, one row an entity, after `more` columns.

        `by` replaces the keys as what makes a group.
        """
        groups = list(by) or self.keys
        exprs, framewise = list(more), []
        for i in indices:
            bound, fields = self.bound[i], self.fields_of(i)
            if isinstance(bound, Grouped):
                merged = bound.merge(tuple(pl.col(name) for name, _ in fields))
                exprs += [e.alias(n) for e, (n, _) in zip(merged, fields, strict=True)]
            elif isinstance(bound, Framewise):
                plain = [pl.col(name).alias(f.name) for name, f in fields]
                framewise.append((i, bound.merge(together.select(*groups, *plain), groups)))
        return self._beside(together.group_by(groups).agg(exprs), framewise, groups)

    def add(
        self,
        state: State,
        rows: pl.DataFrame,
        positions: Callable[[], pl.DataFrame] | None = None,
    ) -> Folded:
        """Fold rows into `state`; entities that the rows do not touch come along unchanged."""
        frame, null_keys = self.project(rows, positions)
        folded = self.add_projected(state, frame)
        return Folded(folded.state, folded.events, null_keys, folded.late)

    def add_projected(
        self, state: State, frame: pl.DataFrame, partial: pl.DataFrame | None = None
    ) -> Folded:
        """Fold projected rows into `state`; `partial` is what `self.partial` makes of them.

        Late rows are those that came when their entity's newer events had already moved every
        finite window past them. Whether a row is late depends on the log alone, not on how it is
        cut into batches.
        """
        lifetime = self.merge([state.lifetime, self.partial(frame) if partial is None else partial])
        recent, split, late = state.recent, state.buckets, 0
        if self.windows and frame.height:
            newest = lifetime.select(*self.keys, NEWEST)
            fresh = frame.select(list(self.recent_schema))
            if not self._all_within(frame, newest):
                late = self._late(state.lifetime, frame)
                fresh = self._trim(fresh, newest)
            if split is None:
                recent = pl.concat([self._trim(recent, newest), fresh])
            else:
                # Of split entities whole buckets go at once, so that a bucket's events are always
                # all that it counts.
                mine = split.select(self.keys).unique()
                whole = recent.join(mine, on=self.keys, how="anti")
                held = recent.join(mine, on=self.keys, how="semi")
                recent = pl.concat([self._trim(whole, newest), held, fresh])
                split = buckets.add(self, split, recent, fresh)
                split = self._trim(split, newest, time=buckets.LATEST)
        return Folded(State(lifetime, recent, split), frame.height, 0, late)

    def _oldest(self, newest: pl.Expr) -> pl.Expr | None:
        """Return the least time that any window can still hold; None if there is no such bound.

        The earliest reader comes at newest + 1, and windows only move on. Keeping what lies at
        their very start serves both ways of closing them.
        """
        if any(w.gap_us is not None for w in self.windows):
            # A late event may join a session to those before it.
            return None
        return pl.min_horizontal(windows.start(w, newest + 1) for w in self.windows)

    def _all_within(self, frame: pl.DataFrame, newest: pl.DataFrame) -> bool:
        """Tell whether no row is older than what the entity with the newest event can hold.

        Then none is late and none is to be trimmed, since windows of others begin no later.
        """
        oldest = self._oldest(pl.lit(newest.get_column(NEWEST).max(), dtype=pl.Int64))
        if oldest is None:
            return True
        return bool((frame.get_column(TIME) >= pl.select(oldest).item()).all())

    def _late(self, before: pl.DataFrame, frame: pl.DataFrame) -> int:
        known = before.select(*self.keys, NEWEST)
        here = pl.col(TIME).cum_max().over(self.keys)
        oldest = self._oldest(pl.max_horizontal(pl.col(NEWEST), here))
        if oldest is None:
            return 0
        joined = frame.select(*self.keys, TIME).join(
            known, on=self.keys, how="left", maintain_order="left"
        )
        return int(joined.select((pl.col(TIME) < oldest).sum()).item())

    def _trim(
        self, recent: pl.DataFrame, newest: pl.DataFrame, *, time: str = TIME
    ) -> pl.DataFrame:
        oldest = self._oldest(pl.col(NEWEST))
        if oldest is None:
            return recent
        return (
            recent.join(newest, on=self.keys, how="left", maintain_order="left")
            .filter(pl.col(time) >= oldest)
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
        if state.lifetime.height == 1 and not any(w.gap_us is not None for w in self.windows):
            return self._finished(*single.values(self, state, now_us=now_us))
        moment = pl.col(NEWEST) + 1
        if now_us is not None:
            moment = pl.max_horizontal(moment, pl.lit(now_us, dtype=pl.Int64))
        frame = state.lifetime.with_columns(moment.alias(MOMENT))
        ends: list[str] = []
        for number, (window, indices) in enumerate(self.windows.items()):
            counted = self._windowed(state, frame.select(*self.keys, MOMENT), window, indices)
            end = f"__until{number}"
            ends.append(end)
            frame = frame.join(
                counted.rename({VALID_UNTIL: end}), on=self.keys, how="left", maintain_order="left"
            )
            if window.slide_us is not None:
                # What lies behind this window's end will come into a later one.
                next_end = windows.valid_until(window, pl.lit(0), pl.lit(0), pl.col(MOMENT))
                frame = frame.with_columns(next_end.alias(end))
        return self._finished(frame, ends)

    def _finished(self, frame: pl.DataFrame, ends: Sequence[str]) -> pl.DataFrame:
        """Finish the features from the columns of all states, `MOMENT` and the windows' `ends`."""
        until = pl.min_horizontal(ends) if ends else pl.lit(None, dtype=pl.Int64)
        if any(b.timed for b in self.bound):
            until = pl.col(MOMENT)
        newest, outputs = pl.col(NEWEST), self.outputs
        if self.plan.ttl_us is not None:
            outputs = self.living(newest)
            last = newest + self.plan.ttl_us
            # Once expired, nothing changes until an event arrives.
            until = pl.when(pl.col(MOMENT) <= last).then(pl.min_horizontal(until, last))
        with overflow_named(f"the feature {self.told}"):
            return frame.select(*self.keys, *outputs, newest, until.alias(VALID_UNTIL))

    def living(self, newest: pl.Expr) -> list[pl.Expr]:
        """Return the features' expressions, null where the entity has expired at `MOMENT`.

        `newest` is the time of the entity's newest event before then; null where it has none, and
        then nothing can expire.
        """
        ttl_us = self.plan.ttl_us
        if ttl_us is None:
            return self.outputs
        lives = (pl.col(MOMENT) - newest <= ttl_us).fill_null(True)
        named = zip(self.plan.features, self.outputs, strict=True)
        return [pl.when(lives).then(e).alias(n) for n, e in named]

    def _windowed(
        self, state: State, moments: pl.DataFrame, window: Window, indices: list[int]
    ) -> pl.DataFrame:
        time, moment = pl.col(TIME), pl.col(MOMENT).first()
        if state.buckets is None:
            lazy = state.recent.lazy().join(
                moments.lazy(), on=self.keys, how="inner", maintain_order="left"
            )
            if window.gap_us is None:
                inside = lazy.filter(windows.inside(window, pl.col(MOMENT))).collect()
            else:
                inside = self._session(lazy.collect(), window)
            until = windows.valid_until(window, time.min(), time.max(), moment).alias(VALID_UNTIL)
            return self.folded(inside, indices, [until])
        events, whole = buckets.split(self, state, moments, window)
        oldest, latest = pl.col(buckets.OLDEST), pl.col(buckets.LATEST)
        about = [time.min().alias(buckets.OLDEST), time.max().alias(buckets.LATEST), moment]
        single = self.folded(events, indices, about)
        together = pl.concat([single, whole.select(single.columns)])
        until = windows.valid_until(window, oldest.min(), latest.max(), moment)
        return self.merged(together, indices, [until.alias(VALID_UNTIL)])

    def _session(self, frame: pl.DataFrame, window: Window) -> pl.DataFrame:
        """Return the rows of each entity's session that is open at its moment."""
        gap, time, moment = window.gap_us, pl.col(TIME), pl.col(MOMENT)
        assert gap is not None
        seen = time < moment if window.closed == "left" else time <= moment
        ordered = frame.filter(seen).sort(TIME, maintain_order=True)
        fresh = (time - time.shift(1).over(self.keys) > gap).fill_null(True)
        begin = pl.when(fresh).then(time).max().over(self.keys)
        is_open = moment - time.max().over(self.keys) <= gap
        return ordered.with_columns(begin.alias("__begin")).filter(
            (time >= pl.col("__begin")) & is_open
        )

    @cached_property
    def outputs(self) -> list[pl.Expr]:
        """Return each feature's expression over the columns of states and `MOMENT`."""
        return [compile_expr(o.expr, self.finalise).alias(o.name) for o in self.plan.outputs]

    def empty_values(self) -> dict[str, object]:
        """Return what each feature is for an entity that has no events: the empty fold."""
        nothing: dict[str, object] = dict.fromkeys([*self.key_schema, MOMENT])
        schema: dict[str, pl.DataType] = dict(self.key_schema) | {MOMENT: pl.Int64()}
        for i in range(len(self.plan.aggregations)):
            for name, field in self.fields_of(i):
                schema[name] = field.dtype
                nothing[name] = None
        frame = pl.DataFrame([nothing], schema=schema, orient="row")
        with overflow_named(f"the feature {self.told} without events"):
            return frame.select(self.outputs).row(0, named=True)


def _bound(aggregation: Aggregation) -> Aggregate:
    return AGGREGATES[aggregation.function](
        tuple(a.type for a in aggregation.args), aggregation.params, aggregation.window.length_us
    )


BITS = {PARTITION: 15, LEDGER: 48, ENTRY: 39, BATCH: 24}
"""How many bits of a position's parts the columns `ORDER` hold."""


def order_of(positions: pl.DataFrame) -> pl.DataFrame:
    """Return positions as two integers of 63 bits that sort like them: the columns `ORDER`.

    Raises
    ------
    PositionError
        If a part of a position is greater than any ledger is known to make it.
    """
    for column, bits in BITS.items():
        most = positions.get_column(column).max()
        if isinstance(most, int) and most >= 2**bits:
            raise PositionError(
                f"A position's {column.strip('_')} has more than {bits} bits.", found=str(most)
            )
    high = pl.col(PARTITION) * 2 ** BITS[LEDGER] + pl.col(LEDGER)
    low = pl.col(ENTRY) * 2 ** BITS[BATCH] + pl.col(BATCH)
    return positions.select(high.alias(ORDER[0]), low.alias(ORDER[1]))


def row_order(count: int) -> pl.DataFrame:
    """Return the rows' own order as the columns `ORDER`, where there are no positions."""
    low = pl.int_range(count, dtype=pl.Int64, eager=True)
    return pl.DataFrame({ORDER[0]: pl.zeros(count, pl.Int64, eager=True), ORDER[1]: low})
