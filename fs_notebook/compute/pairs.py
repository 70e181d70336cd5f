"""Interval joins: the pairs of two streams' events, read as one stream.

An event makes a pair with each event of the other stream of equal key whose time is in the
interval. Each pair is read once, with whichever of its two events is read later; both must lie
before the cut, so what pairs a cut holds depends on no order of reading. Its event time is the
later one of the two, since it was no pair before.

Events that were read are held, in runs that are sorted by (hash of the key, time). A new run is
merged with those before it that are not much greater, so that an event is sorted again a few
times, and a look finds its events in a few runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.compute.composed import PairStream, Place, in_turn
from fs_notebook.compute.fold import BITS, order_of
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import FeatureStoreError
from fs_notebook.language.expr import Column, Expr, columns_of, substitute
from fs_notebook.language.plan import Join
from fs_notebook.log.frames import position_frame
from fs_notebook.log.protocol import (
    BATCH,
    ENTRY,
    LEDGER,
    PARTITION,
    PUBLISHED,
    Batch,
    EventLog,
    Stream,
)
from fs_notebook.position import START, Cut, Position
from fs_notebook.types import ORDER, TIME, Type

Ints = npt.NDArray[np.int64]

HELD_ROWS_MAX = 50_000_000
"""Rows of both streams that are held at most."""

PAIRS_MAX = 500_000
"""Pairs in a batch, more or less: an event's pairs are in one."""

_HASH, _AT, _ROW = "__hash", "__at", "__row"


def first_after(times: Ints, moments: Ints, low: Ints, high: Ints) -> Ints:
    """Return for each moment the first index in [low, high) whose time is after it, else high.

    `times` ascend within each [low, high).
    """
    low, high = low.copy(), high.copy()
    # A binary search for all moments at once, each between its own bounds.
    while (active := low < high).any():
        middle = (low + high) >> 1
        later = np.zeros(active.size, bool)
        later[active] = times[middle[active]] > moments[active]
        high = np.where(active & later, middle, high)
        low = np.where(active & ~later, middle + 1, low)
    return low


def pair_order(left: pl.DataFrame, right: pl.DataFrame, apart_us: pl.Series) -> pl.DataFrame:
    """Return positions for pairs, in the place of those that only events have.

    They sort pairs of one event time: by the earlier event's time, and where that is equal too
    in an order that both events' positions alone decide, though it has no other meaning.

    Parameters
    ----------
    left, right
        The columns `ORDER` of both events.
    apart_us
        Microseconds between the two, not negative.
    """
    nearer = 2**62 - apart_us.to_numpy()
    mixed = np.zeros(left.height, np.uint64)
    with np.errstate(over="ignore"):
        for column in (*left.get_columns(), *right.get_columns()):
            mixed = (mixed ^ column.to_numpy().astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    low = (mixed >> np.uint64(1)).astype(np.int64)
    split = {PARTITION: nearer >> BITS[LEDGER], LEDGER: nearer & (2 ** BITS[LEDGER] - 1),
             ENTRY: low >> BITS[BATCH], BATCH: low & (2 ** BITS[BATCH] - 1)}  # fmt: skip
    return pl.DataFrame(split)


@dataclass(frozen=True)
class _Run:
    """Rows in the order of (hash of the key, time)."""

    rows: pl.DataFrame
    hashes: npt.NDArray[np.uint64]
    times: Ints

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Run:
        ordered = rows.sort(_HASH, _AT)
        return cls(ordered, ordered[_HASH].to_numpy(), ordered[_AT].to_numpy())


class _Held:
    """What was read of one stream."""

    def __init__(self) -> None:
        self.count = 0
        self._runs: list[_Run] = []
        self._ahead: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        if rows.height:
            self.count += rows.height
            self._ahead.append(rows)

    def _sorted(self) -> list[_Run]:
        if not self._ahead:
            return self._runs
        rows = pl.concat(self._ahead)
        while self._runs and self._runs[-1].rows.height <= 2 * rows.height:
            rows = pl.concat([self._runs.pop().rows, rows])
        self._runs.append(_Run.of(rows))
        self._ahead = []
        return self._runs

    def found(self, rows: pl.DataFrame, low_us: int, high_us: int) -> list[tuple[_Run, Ints, Ints]]:
        """Return for each row the [first, end) of each run with its key and a time in reach."""
        hashes, at = rows[_HASH].to_numpy(), rows[_AT].to_numpy()
        ranges = []
        for run in self._sorted():
            low = np.searchsorted(run.hashes, hashes, "left")
            high = np.searchsorted(run.hashes, hashes, "right")
            first = first_after(run.times, at + (low_us - 1), low, high)
            ranges.append((run, first, first_after(run.times, at + high_us, first, high)))
        return ranges


class _Side:
    """How one stream's events are read for the join."""

    def __init__(self, number: int, join: Join, stream: PairStream, where: Expr | None) -> None:
        assert join.within is not None
        low, high = join.within
        # From an event of this stream to one of the other.
        self.low_us, self.high_us = (low, high) if number == 0 else (-high, -low)
        self.place, self.stream = Place(number, 2), stream.parts[number]
        exprs = [e if number == 0 else Column(c, e.type) for e, c in join.keys]
        # Both sides' keys in the type of the other stream's, so that they hash alike.
        types = [stream.parts[1].type_of(c).polars for _, c in join.keys]
        named = enumerate(zip(exprs, types, strict=True))
        self.keys = [self.own(f"_key{i}") for i in range(len(exprs))]
        self._keys = [compile_expr(e).cast(t).alias(self.keys[i]) for i, (e, t) in named]
        self._columns = {} if number == 0 else {n: c for n, c, _ in join.columns}
        kinds = {n: t for n, _, t in join.columns}
        if where is not None and number == 1:
            # It speaks of the columns by the names that the join gives them.
            where = substitute(where, {n: Column(c, kinds[n]) for n, c in self._columns.items()})
        self._where = None if where is None else compile_expr(where)
        read = [*exprs, *([where] if where is not None else [])]
        self._reads = set().union(*map(columns_of, read)) | set(self._columns.values())

    def own(self, name: str) -> str:
        """Return what a column of every event is called for this stream, beside the other's."""
        return f"__{('left', 'right')[self.place.number]}{name}"

    def needs(self, asked: Sequence[str]) -> list[str]:
        """Return the stream's columns that are read."""
        names = self._reads | {a for a in asked if self.place.number == 0 and a != PUBLISHED}
        return [*sorted(names), *([PUBLISHED] if PUBLISHED in asked else [])]

    def rows(self, batch: Batch, asked: Sequence[str]) -> pl.DataFrame:
        """Return the events that can be in a pair, and `_ROW`, their place in the batch."""
        columns = [pl.col(c).alias(n) for n, c in self._columns.items()]
        if self.place.number == 0:
            columns = [pl.col(a) for a in asked if a != PUBLISHED]
        stamps = [s for s in (TIME, PUBLISHED) if s == TIME or s in asked]
        columns += [pl.col(s).to_physical().alias(self.own(s)) for s in stamps]
        columns += [pl.col(o).alias(self.own(o)) for o in ORDER]
        rows = batch.rows.hstack(order_of(batch.positions())).with_row_index(_ROW)
        with overflow_named("a join"):
            made = rows.lazy() if self._where is None else rows.lazy().filter(self._where)
            at = pl.col(TIME).to_physical().alias(_AT)
            made = made.select(_ROW, at, *columns, *self._keys).drop_nulls(self.keys)
            frame = made.collect()
        return frame.with_columns(frame.select(self.keys).hash_rows(seed=1).alias(_HASH))


class _Reading:
    """The events that were read up to a cut, and the pairs that the next ones make."""

    def __init__(self, join: Join, stream: PairStream, asked: Sequence[str],
                 sides: Sequence[_Side]) -> None:  # fmt: skip
        self.asked, self.sides = tuple(asked), sides
        self.cut = START
        self._held = (_Held(), _Held())
        kinds = {**dict(stream.columns), TIME: Type.TIMESTAMP, PUBLISHED: Type.TIMESTAMP}
        self._schema = {n: kinds[n].polars for n in (*asked, TIME)}
        self._schema |= {n: t.polars for n, _, t in join.columns}
        self._kept = [n for n in self._schema if n not in (TIME, PUBLISHED)]

    def skip(self, side: _Side, batch: Batch) -> None:
        """Hold a batch's events, whose pairs were read before."""
        self._hold(side, side.rows(batch, self.asked), batch.end)

    def _hold(self, side: _Side, rows: pl.DataFrame, end: Position) -> None:
        self._held[side.place.number].add(rows.drop(_ROW))
        self.cut = self.cut.advanced([_numbered(side, end)])
        count = sum(h.count for h in self._held)
        if count > HELD_ROWS_MAX:
            raise FeatureStoreError(
                "The streams of an interval join are too long to be held.",
                found=f"{count:,} events, of {HELD_ROWS_MAX:,} at most",
                remedy="conditions in WHERE on one of the streams alone, which are told first",
            )

    def pairs(self, side: _Side, batch: Batch) -> Iterator[Batch]:
        """Yield the pairs that a batch's events make with what is held; then they are held."""
        rows = side.rows(batch, self.asked)
        other = self._held[1 - side.place.number]
        ranges = other.found(rows, side.low_us, side.high_us)
        counts = sum((end - first for _, first, end in ranges), np.zeros(rows.height, np.int64))
        done, before = 0, batch.dead
        for stop in _stops(counts):
            # All that was read lies before the end of the last batch, a malformed one too.
            end = batch.end
            if stop < rows.height:
                end = Position(*batch.positions().row(rows[_ROW][stop - 1]))
            frame, order = self._made(
                rows[done:stop], [(run, f[done:stop], e[done:stop]) for run, f, e in ranges]
            )
            dead = [d for d in before if d.position <= end]
            before = [d for d in before if d.position > end]
            self._hold(side, rows[done:stop], end)
            end = _numbered(side, end)
            yield Batch(
                end.partition, frame, end,
                [replace(d, position=_numbered(side, d.position)) for d in dead], order,
            )  # fmt: skip
            done = stop

    def _made(
        self, rows: pl.DataFrame, ranges: Sequence[tuple[_Run, Ints, Ints]]
    ) -> tuple[pl.DataFrame, Callable[[], pl.DataFrame]]:
        """Return the pairs of some events with ranges of the other stream's, and positions."""
        rows, found = rows.drop(_ROW, _AT, _HASH), []
        for run, first, end in ranges:
            counts = end - first
            if not counts.any():
                continue
            mine = np.repeat(np.arange(counts.size), counts)
            begins = np.cumsum(counts) - counts
            theirs = np.arange(mine.size) + np.repeat(first - begins, counts)
            found.append(rows[mine].hstack(run.rows[theirs].drop(_AT, _HASH)))
        one, two = self.sides
        if not found:
            nothing = pl.DataFrame(schema=self._schema)
            return nothing, partial(position_frame, partition=0, **dict.fromkeys(
                ("ledger", "entry", "batch"), pl.Series([], dtype=pl.Int64)))  # fmt: skip
        # Keys of equal hashes may still differ. In one order of columns, whichever came later.
        same = [pl.col(a).eq_missing(pl.col(b)) for a, b in zip(one.keys, two.keys, strict=True)]
        pairs = pl.concat(found).filter(*same)
        stamps = [
            pl.max_horizontal(one.own(s), two.own(s)).cast(self._schema[s]).alias(s)
            for s in (TIME, PUBLISHED)
            if s in self._schema
        ]

        def order() -> pl.DataFrame:
            apart = (pairs[one.own(TIME)] - pairs[two.own(TIME)]).abs()
            left, right = (pairs.select(s.own(o) for o in ORDER) for s in self.sides)
            return pair_order(left, right, apart)

        return pairs.select(*self._kept, *stamps).select(list(self._schema)), order


def _numbered(side: _Side, position: Position) -> Position:
    return position._replace(partition=side.place.numbered(position.partition))


def _stops(counts: Ints) -> list[int]:
    """Return where to end batches, so that each has some `PAIRS_MAX` pairs; the last is the end."""
    whole = np.cumsum(counts) // PAIRS_MAX
    return [*(np.flatnonzero(np.diff(whole)) + 1).tolist(), counts.size]


class PairLog:
    """An `EventLog` in which the pairs of an interval join can be read.

    Parameters
    ----------
    join
        The interval join.
    log
        Where both streams are, and where a cut of both can be told (`UnionLog`).
    wheres
        Which of each stream's events there are, before they are joined.
    """

    def __init__(
        self, join: Join, log: EventLog, wheres: tuple[Expr | None, Expr | None] = (None, None)
    ) -> None:
        self.url = log.url
        self._join, self._log, self._wheres = join, log, wheres
        self._lock = threading.Lock()
        self._idle: list[_Reading] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        **options: Any,
    ) -> Iterator[Batch]:
        """Yield the pairs of which both events lie before `end` and one after `start`."""
        assert isinstance(stream, PairStream)
        assert self._join.within is not None
        reach = max(map(abs, self._join.within))
        whole = time_from_us is None and time_to_us is None
        # The earlier event of a pair may be this much older than the pair.
        options |= {
            "time_from_us": None if time_from_us is None else time_from_us - reach,
            "time_to_us": time_to_us,
        }
        with self._reading(stream, columns, start, options, kept=whole) as reading:
            for side in reading.sides:
                with self._events(reading, side, start, end, options) as events:
                    for batch in events:
                        for found in reading.pairs(side, batch):
                            yield found if whole else _sliced(found, time_from_us, time_to_us)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        idle_seconds: float = 0.2,
        **options: Any,
    ) -> Iterator[Batch | None]:
        """Yield the pairs that events after `start` make as they arrive, as `EventLog.tail`."""
        assert isinstance(stream, PairStream)
        with self._reading(stream, columns, start, {}, kept=True) as reading:

            def follow(side: _Side, look: float) -> Iterator[Batch | None]:
                return self._log.tail(
                    side.stream, start=side.place.cut(start),
                    columns=side.needs(reading.asked), idle_seconds=look, **options,
                )  # fmt: skip

            tails = [partial(follow, side) for side in reading.sides]
            with closing(cast(Any, in_turn(tails, idle_seconds))) as arriving:
                for arrived in arriving:
                    if arrived is None:
                        yield None
                        continue
                    number, batch = arrived
                    yield from reading.pairs(reading.sides[number], batch)

    @contextmanager
    def _reading(
        self,
        stream: PairStream,
        columns: Sequence[str] | None,
        start: Cut,
        options: dict[str, Any],
        *,
        kept: bool,
    ) -> Iterator[_Reading]:
        """Give what holds the events up to `start`, and keep it for who goes on from there."""
        names = stream.names if columns is None else columns
        asked = tuple(dict.fromkeys(n for n in names if n != TIME))
        reading = None
        with self._lock:
            for idle in self._idle if kept else []:
                if idle.asked == asked and start.contains(idle.cut):
                    reading = idle
                    self._idle.remove(idle)
                    break
        if reading is None:
            sides = [_Side(n, self._join, stream, self._wheres[n]) for n in (0, 1)]
            reading = _Reading(self._join, stream, asked, sides)
        for side in reading.sides:
            with self._events(reading, side, reading.cut, start, options) as events:
                for batch in events:
                    reading.skip(side, batch)
        try:
            yield reading
        finally:
            if kept:
                with self._lock:
                    self._idle = [reading]

    @contextmanager
    def _events(
        self, reading: _Reading, side: _Side, start: Cut, end: Cut, options: dict[str, Any]
    ) -> Iterator[Iterator[Batch]]:
        first, last = side.place.cut(start), side.place.cut(end)
        if not last.positions or first == last:
            yield iter(())
            return
        batches = self._log.read(
            side.stream, start=first, end=last, columns=side.needs(reading.asked), **options
        )
        with closing(cast(Any, batches)):
            yield batches


def _sliced(batch: Batch, from_us: int | None, to_us: int | None) -> Batch:
    """Return those pairs of a batch that happened in [from, to)."""
    at = batch.rows[TIME].to_physical()
    keep = pl.repeat(True, at.len(), eager=True)
    keep = keep if from_us is None else keep & (at >= from_us)
    keep = keep if to_us is None else keep & (at < to_us)
    return replace(
        batch, rows=batch.rows.filter(keep), _positions=lambda: batch.positions().filter(keep)
    )
