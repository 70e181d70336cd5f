"""Joins with keyed streams and tables: one function for every path.

A temporal join takes for each row the newest row of the other stream, by (event time, position),
with event time ≤ the row's own and published no later than it. Both lie in the ledger, so a
preview, a training set, a worker and `verify` find the same one, whenever they look: what is
published later changes nothing. A table is read up to the position that the plan pins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.compute.fold import order_of
from fs_notebook.compute.pairs import PairLog, first_after
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import FeatureStoreError
from fs_notebook.language.expr import Expr
from fs_notebook.language.joins import early_where, other_where
from fs_notebook.language.plan import Join, Plan
from fs_notebook.log.protocol import PUBLISHED, Batch, EventLog, Stream
from fs_notebook.position import START, Cut
from fs_notebook.types import ORDER, TIME

Ints = npt.NDArray[np.int64]

HISTORY_ROWS_MAX = 50_000_000
"""Rows of the other stream that are held at most."""

_CODE, _KEY = "__code", "__jk"


def joined_log(
    plan: Plan, streams: Sequence[Stream], log: EventLog, *, filtered: bool = False
) -> EventLog:
    """Return the log as the plan sees it: its rows with the joined columns beside them.

    Parameters
    ----------
    streams
        The declarations of the joined streams, one for each join.
    filtered
        Leave out rows that the plan's WHERE drops, before they are joined, where it can tell
        by then: for one who reads for this plan alone, and folds with it.
    """
    if not plan.joins:
        return log
    where, joins, others = early_where(plan) if filtered else None, plan.joins, streams
    rows = log
    if plan.pairs is not None:
        wheres = (where, other_where(plan) if filtered else None)
        rows = cast(EventLog, PairLog(plan.pairs, log, wheres))
        where, joins, others = None, joins[1:], others[1:]
    return JoinedLog(joins, others, log, rows, where) if joins else rows


def lonely_rows(log: EventLog) -> tuple[str, ...]:
    """Say how many rows of the log's last reading a join left out, for want of a partner."""
    if not isinstance(log, JoinedLog):
        return ()
    return tuple(
        f"{alone:,} of {asked:,} rows found no partner in {join.source}, {_sought(join)}: the "
        "join leaves them out, a LEFT JOIN would keep them"
        for join, alone, asked in log.lonely()
        if alone
    )


def _sought(join: Join) -> str:
    if join.cut is not None:
        return "whose rows are pinned as they were when this was defined"
    return (
        "where a row counts once it has happened and was published by then "
        f"(upload {join.source} first)"
    )


def temporal_joins(joins: Sequence[Join]) -> tuple[Join, ...]:
    """Return those joins that look at a stream as it stood, not at a table or at pairs."""
    return tuple(j for j in joins if j.cut is None and j.within is None)


def frozen_log(log: EventLog, ends: Mapping[str, Cut]) -> EventLog:
    """Return the log with streams that end at given cuts, for what is joined to read up to."""
    return cast(EventLog, _FrozenLog(log, ends))


class _FrozenLog:
    def __init__(self, log: EventLog, ends: Mapping[str, Cut]) -> None:
        self._log = log
        self._ends = ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def end(self, name: str) -> Cut:
        return self._ends[name] if name in self._ends else self._log.end(name)


class JoinedLog:
    """An `EventLog` whose reading puts the columns of joins beside each row.

    Parameters
    ----------
    joins, streams
        The joins, and the declarations of their streams.
    log
        Where those are.
    rows
        Gives the rows to put them beside.
    where
        Which rows there are.
    """

    def __init__(
        self,
        joins: Sequence[Join],
        streams: Sequence[Stream],
        log: EventLog,
        rows: EventLog,
        where: Expr | None = None,
    ) -> None:
        self.url = log.url
        self._log = rows
        self._where = None if where is None else compile_expr(where)
        self._sides = [_Side(j, s, log) for j, s in zip(joins, streams, strict=True)]
        self._temporal = any(j.cut is None for j in joins)
        self._asked_rows = [0] * len(joins)
        self._lonely_rows = [0] * len(joins)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(
        self, stream: Stream, *, columns: Sequence[str] | None = None, **options: Any
    ) -> Iterator[Batch]:
        """Yield the events of `EventLog.read`, joined."""
        self._asked_rows = [0] * len(self._sides)
        self._lonely_rows = [0] * len(self._sides)
        for batch in self._log.read(stream, columns=self._asked(stream, columns), **options):
            yield self._joined(batch)

    def lonely(self) -> Iterator[tuple[Join, int, int]]:
        """Yield each inner join, the rows of the last reading that it left out, and all of them."""
        counts = zip(self._sides, self._lonely_rows, self._asked_rows, strict=True)
        for side, alone, asked in counts:
            if not side.join.outer:
                yield side.join, alone, asked

    def tail(
        self, stream: Stream, *, columns: Sequence[str] | None = None, **options: Any
    ) -> Iterator[Batch | None]:
        """Yield the events of `EventLog.tail`, joined."""
        tail = self._log.tail(stream, columns=self._asked(stream, columns), **options)
        try:
            for batch in tail:
                yield None if batch is None else self._joined(batch)
        finally:
            close = getattr(tail, "close", None)
            if close is not None:
                close()

    def _asked(self, stream: Stream, columns: Sequence[str] | None) -> list[str]:
        names = list(stream.names if columns is None else columns)
        return list(dict.fromkeys([*names, PUBLISHED])) if self._temporal else names

    def _kept(self, batch: Batch) -> Batch:
        if self._where is None:
            return batch
        with overflow_named("WHERE"):
            there = batch.rows.select(TIME, __keep=self._where).get_column("__keep")
        keep = there.fill_null(False)
        return Batch(
            batch.partition, batch.rows.filter(keep), batch.end, batch.dead,
            lambda: batch.positions().filter(keep),
        )  # fmt: skip

    def _joined(self, whole: Batch) -> Batch:
        batch = self._kept(whole)
        rows, keep = batch.rows, pl.repeat(True, batch.rows.height, eager=True)
        for number, side in enumerate(self._sides):
            rows, found = side.beside(rows)
            self._asked_rows[number] += found.len()
            self._lonely_rows[number] += found.len() - int(found.sum())
            if not side.join.outer:
                keep &= found
        if keep.all():
            return Batch(batch.partition, rows, batch.end, batch.dead, batch.positions)
        return Batch(
            batch.partition, rows.filter(keep), batch.end, batch.dead,
            lambda: batch.positions().filter(keep),
        )  # fmt: skip


@dataclass(frozen=True)
class _Index:
    """The other stream's rows in the order of (key, time, position)."""

    rows: pl.DataFrame
    codes: pl.DataFrame
    """Key columns → code."""
    first: Ints
    """Of each code the index of its first row; one more for the end."""
    times: Ints
    published: Ints


class _Side:
    """One join: the history of the other stream, as far as it was read."""

    def __init__(self, join: Join, stream: Stream, log: EventLog) -> None:
        self.join = join
        self._stream = stream
        self._log = log
        self._cut: Cut = START
        self._parts: list[pl.DataFrame] = []
        self._rows = 0
        self._index: _Index | None = None
        self._names = [f"{_KEY}{i}" for i in range(len(join.keys))]

    def beside(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
        """Return the rows with this join's columns, and which of them found a match."""
        self._refresh()
        index = self._index
        assert index is not None
        with overflow_named("a join's key"):
            casts = {n: index.codes.schema[n] for n in self._names}
            keys = rows.select(
                compile_expr(e).cast(casts[n]).alias(n)
                for (e, _), n in zip(self.join.keys, self._names, strict=True)
            )
        codes = keys.join(index.codes, on=self._names, how="left", maintain_order="left")[_CODE]
        found = pl.repeat(False, rows.height, eager=True)
        if not index.times.size:
            nothing = [pl.lit(None, dtype=t.polars).alias(n) for n, _, t in self.join.columns]
            return rows.with_columns(nothing), found
        code = codes.fill_null(0).to_numpy()
        place = self._newest(index, code, rows)
        found = codes.is_not_null() & pl.Series(place >= index.first[code])
        # Where nothing was found any row will do: it is not taken.
        if not self.join.columns:
            return rows, found
        there = index.rows[np.maximum(place, 0)]
        taken = there.select(
            pl.when(found).then(pl.col(c)).alias(n) for n, c, _ in self.join.columns
        )
        return rows.hstack(taken), found

    def _newest(self, index: _Index, code: Ints, rows: pl.DataFrame) -> Ints:
        """Return, for each row, the index of the newest one that it may see; else before first."""
        last: Ints = index.first[code + 1] - 1
        if self.join.cut is not None:
            return last
        times = rows[TIME].to_physical().to_numpy()
        published = rows[PUBLISHED].to_physical().to_numpy()
        place: Ints = first_after(index.times, times, index.first[code], last + 1) - 1
        first = index.first[code]
        hidden = np.flatnonzero(place >= first)
        while hidden.size:
            # What came by then but was published later was not known yet.
            hidden = hidden[index.published[place[hidden]] > published[hidden]]
            place[hidden] -= 1
            hidden = hidden[place[hidden] >= first[hidden]]
        return place

    def _refresh(self) -> None:
        """Read what was appended since the last look; a table has no more than its cut."""
        if self.join.cut is not None:
            end = Cut.from_json(self.join.cut)
        else:
            end = self._log.end(self._stream.name)
        if end == self._cut and self._index is not None:
            return
        columns = [c for _, c in self.join.keys] + [c for _, c, _ in self.join.columns]
        asked = [*dict.fromkeys(columns), PUBLISHED]
        for batch in self._log.read(self._stream, start=self._cut, end=end, columns=asked):
            # What is held is no longer what was indexed, whatever becomes of the rest of this.
            self._index = None
            self._parts.append(batch.rows.hstack(order_of(batch.positions())))
            self._rows += batch.rows.height
            self._cut = self._cut.advanced([batch.end])
        if self._rows > HISTORY_ROWS_MAX:
            raise FeatureStoreError(
                f"The joined stream {self._stream.name!r} is too long to be held.",
                found=f"{self._rows:,} rows, of {HISTORY_ROWS_MAX:,} at most",
                remedy="join with a stream that has fewer rows",
            )
        self._cut = self._cut.advanced(end)
        self._index = self._indexed()

    def _indexed(self) -> _Index:
        named = [pl.col(c).alias(n) for (_, c), n in zip(self.join.keys, self._names, strict=True)]
        if not self._parts:
            schema = {c: t.polars for c, t in self._stream.columns}
            codes = (
                pl.DataFrame(schema=schema)
                .select(named)
                .with_columns(pl.lit(0, dtype=pl.Int64).alias(_CODE))
            )
            nothing = np.zeros(0, np.int64)
            return _Index(pl.DataFrame(schema=schema), codes.clear(), np.zeros(2, np.int64),
                          nothing, nothing)  # fmt: skip
        rows = pl.concat(self._parts).with_columns(named).drop_nulls(self._names)
        self._parts = [pl.concat(self._parts)]
        codes = rows.select(self._names).unique(maintain_order=True).with_row_index(_CODE)
        codes = codes.cast({_CODE: pl.Int64})
        rows = rows.join(codes, on=self._names, how="left", maintain_order="left")
        by = [_CODE, *ORDER] if self.join.cut is not None else [_CODE, TIME, *ORDER]
        rows = rows.sort(by)
        sizes = np.bincount(rows[_CODE].to_numpy(), minlength=codes.height + 1)
        first = np.concatenate(([0], np.cumsum(sizes)))
        return _Index(
            rows, codes, first, rows[TIME].to_physical().to_numpy(),
            rows[PUBLISHED].to_physical().to_numpy(),
        )  # fmt: skip
