"""Point-in-time values: for each label, the fold of its entity's events just before it.

Events are sorted once by (entity, time), each label's window becomes a range of that order, and
a range is answered without touching its events one by one: counts and integer sums by
differences of running totals, everything else by merging the few blocks that tile the range.
The work grows with events + labels, never with their product. No float is ever subtracted, so
a window's sum loses nothing to the totals beside it. `compute.known` says which of these ranges'
events a label may see, where publish times matter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.compute import windows
from fs_notebook.compute.fold import MOMENT, Fold
from fs_notebook.compute.kept import kept_ranges
from fs_notebook.compute.known import Known, Part
from fs_notebook.compute.ranges import merged_ranges
from fs_notebook.compute.rows import overflow_named
from fs_notebook.kernel import Field, Fieldwise
from fs_notebook.kernel.basic import Count
from fs_notebook.kernel.ordered import Kept
from fs_notebook.language.plan import Window
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.types import ORDER, TIME

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_NEWEST, _OWNER = "__newest", "__owner"
TOGETHER = 2**15
"""Labels that are looked up together."""
LABELS_MIN = 2**20
"""Labels that a thread looks up at least."""
_LEAST: np.ufunc = np.minimum
_GREATEST: np.ufunc = np.maximum


@dataclass(frozen=True)
class _Ordered:
    """Events in (entity, time) order."""

    events: pl.DataFrame
    """Their times, arguments and, where the fold asks for it, their order."""
    entities: pl.DataFrame
    """The keys of each entity, and its number."""
    codes: Ints
    """Of each event the number of its entity."""
    starts: Ints
    """Of each entity the index of its first event, and where the events end."""
    keys: Ints
    """Of each event one integer that sorts as (entity, time)."""
    time_of: _TimeCode
    published: Ints | None = None
    """When each was published; None where that does not matter."""

    @cached_property
    def most(self) -> int:
        """How many events any entity has."""
        return int(np.diff(self.starts).max(initial=0))

    @cached_property
    def padded_keys(self) -> Ints:
        """The events' keys, and after them as many of the greatest as a search may touch."""
        beyond = np.full(2 ** self.most.bit_length(), np.iinfo(np.int64).max)
        return np.concatenate((self.keys, beyond))

    @cached_property
    def by_position(self) -> bool:
        """Tell whether events of one entity and time are in the order of their positions.

        Pairs of an interval join are not: they have no place in a log.
        """
        if ORDER[0] not in self.events.columns:
            return False
        tied = np.flatnonzero(self.keys[1:] == self.keys[:-1])
        high, low = (self.events.get_column(c).to_numpy() for c in ORDER)
        rises = (high[tied] < high[tied + 1]) | (
            (high[tied] == high[tied + 1]) & (low[tied] <= low[tied + 1])
        )
        return bool(rises.all())


@dataclass(frozen=True)
class _Asked:
    """Labels, and the ordered events that they ask about."""

    ordered: _Ordered
    codes: Ints
    """Of each label the number of its entity; of a label that has none the one after all."""
    times: Ints
    known: Known | None = None
    """Which events a label may see; None: all."""

    @cached_property
    def firsts(self) -> Ints:
        """Of each label the index of its entity's first event (or of nothing)."""
        return self.ordered.starts[self.codes]


@dataclass(frozen=True)
class _Range:
    """Which events count for each label: those of [low, high), and of `parts`."""

    low: Ints
    high: Ints
    parts: list[Part]

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Tell for which labels any event counts."""
        some = self.high > self.low
        for part in self.parts:
            some[part.owners] = True
        return some


@dataclass(frozen=True)
class _TimeCode:
    """Packs (entity, time) into one integer that sorts alike.

    Times are counted from `origin`; where entities times microseconds would leave 64 bits they
    are replaced by their rank among the events' `distinct` times.
    """

    origin: int
    span: int
    distinct: Ints | None = None

    @classmethod
    def of(cls, times: Ints, entities: int) -> _TimeCode:
        """Choose the code for events at `times`, of `entities` entities."""
        if not times.size:
            return cls(0, 2)
        origin, last = int(times.min()) - 1, int(times.max()) + 1
        span = last - origin + 1
        if (entities + 1) * span < 2**63:
            return cls(origin, span)
        distinct = np.unique(times)
        return cls(0, 2 * distinct.size + 1, distinct)

    def pack(self, codes: Ints, times: Ints) -> Ints:
        """Return one integer for each (entity, time)."""
        if self.distinct is None:
            return codes * self.span + np.clip(times - self.origin, 0, self.span - 1)
        # The i-th distinct time is 2 i + 1; times between two of them get the even number.
        at = np.searchsorted(self.distinct, times, side="left")
        hit = self.distinct[np.minimum(at, self.distinct.size - 1)] == times
        packed: Ints = codes * self.span + 2 * at + hit
        return packed


def values_at(
    fold: Fold,
    events: pl.DataFrame,
    labels: pl.DataFrame,
    *,
    known: bool = False,
    covered: str | None = None,
) -> pl.DataFrame:
    """Return each feature's value for each label.

    Parameters
    ----------
    fold
        The plan, ready to fold.
    events
        Projected events (`Fold.project`), in log order.
    labels
        `fold.keys` in the keys' types, and `TIME` as integer microseconds: t of each label.
    known
        Count only events that were published before t, whatever closes the windows: `events` has
        `PUBLISHED` as integer microseconds.
    covered
        Name of a Boolean column to add: whether any event counts for the label.

    Returns
    -------
    DataFrame
        One column a feature, one row a label, in the labels' order. A label whose entity has
        no event before it has the empty fold's value; so has a label with a null in its key.
    """
    ordered = _order(fold, events, labels, known=known)
    height = max(LABELS_MIN, events.height)
    if known or labels.height <= height:
        return _values(fold, ordered, labels, covered)
    # Each lot of labels is looked up by a thread of its own.
    lots = labels.iter_slices(height)
    with ThreadPoolExecutor(pl.thread_pool_size(), "fs-notebook-asof") as pool:
        try:
            return pl.concat(pool.map(lambda lot: _values(fold, ordered, lot, covered), lots))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _values(
    fold: Fold, ordered: _Ordered, labels: pl.DataFrame, covered: str | None
) -> pl.DataFrame:
    asked = _ask(fold, ordered, labels)
    columns: dict[str, pl.Series] = {MOMENT: labels[TIME]}
    ranges: dict[Window, _Range] = {}
    with overflow_named(f"a training set's {fold.told}"):
        for index, aggregation in enumerate(fold.plan.aggregations):
            window = aggregation.window
            if window not in ranges:
                ranges[window] = _ranges(asked, window)
            columns |= _fields(fold, index, ordered, ranges[window])
        if fold.plan.ttl_us is None:
            result = pl.DataFrame(columns).select(fold.outputs)
        else:
            columns[_NEWEST] = _newest(asked, fold.plan.closed)
            result = pl.DataFrame(columns).select(fold.living(pl.col(_NEWEST)))
    assert result.height == labels.height
    if covered is not None:
        filled = [r.filled for r in ranges.values()]
        some = np.logical_or.reduce(filled) if filled else np.zeros(labels.height, bool)
        result = result.with_columns(pl.Series(covered, some))
    return result


def _newest(asked: _Asked, closed: str) -> pl.Series:
    """Return the time of each label's newest event; null where there is none."""
    low, high = _bounds(asked, Window(closed=closed))
    times = asked.ordered.events[TIME]
    if times.is_empty():
        return pl.repeat(None, high.size, dtype=pl.Int64, eager=True)
    last = np.where(high > low, high - 1, -1)
    if asked.known is not None:
        last = asked.known.last(low, high)
    return times.gather(np.maximum(last, 0)).set(pl.Series(last < 0), None)


def _order(fold: Fold, events: pl.DataFrame, labels: pl.DataFrame, *, known: bool) -> _Ordered:
    # Whichever are fewer name the entities: what only one of both has, meets nothing.
    naming = labels if labels.height <= events.height else events
    entities = naming.select(fold.keys).drop_nulls().unique(maintain_order=True)
    entities = entities.with_row_index("__code").cast({"__code": pl.Int64})
    # Labels with a null in their key get a number of their own, which no event has; so do
    # events that no label asks for, which go last and are left out.
    count = entities.height
    codes = _codes(fold, events, entities, missing=count + 1)
    times = events[TIME].to_numpy()
    starts = np.concatenate(([0], np.cumsum(np.bincount(codes, minlength=count + 2))))
    starts = starts[: count + 2]
    order = _by_entity_and_time(codes, times, count + 1)[: starts[-1]]
    code = _TimeCode.of(times, count)
    # Of a column in many pieces each row would be looked for: ten times the work. One column after
    # the other is put into one piece: all at once, the events would be held a second time.
    arguments = events.select(pl.exclude(*fold.keys)).iter_columns()
    sorted_events = pl.DataFrame([column.rechunk().gather(order) for column in arguments])
    sorted_codes = np.repeat(np.arange(count + 1), np.diff(starts))
    return _Ordered(
        events=sorted_events,
        entities=entities,
        codes=sorted_codes,
        starts=starts,
        keys=code.pack(sorted_codes, sorted_events[TIME].to_numpy()),
        time_of=code,
        published=sorted_events[PUBLISHED].to_numpy() if known else None,
    )


def _ask(fold: Fold, ordered: _Ordered, labels: pl.DataFrame) -> _Asked:
    codes = _codes(fold, labels, ordered.entities, missing=ordered.entities.height)
    times = labels[TIME].to_numpy()
    known = None
    if ordered.published is not None:
        known = Known(ordered.published, ordered.codes, codes, times)
    return _Asked(ordered, codes, times, known)


def _codes(fold: Fold, frame: pl.DataFrame, entities: pl.DataFrame, *, missing: int) -> Ints:
    """Return the number of each row's entity."""
    numbered = frame.select(fold.keys).join(
        entities, on=fold.keys, how="left", maintain_order="left"
    )
    return numbered["__code"].fill_null(missing).to_numpy()


def _by_entity_and_time(codes: Ints, times: Ints, code_max: int) -> Ints:
    """Return the order by (entity, time); log order among equal ones: position decides.

    Logs are mostly in the order of time, and then nothing is left but to deal the events out to
    their entities: numpy sorts numbers of 16 bits by counting, several times as fast as others.
    """
    order: Ints | None = None
    if not (times[1:] >= times[:-1]).all():
        order = np.argsort(times, kind="stable")
    for shift in range(0, max(code_max.bit_length(), 1), 16):
        digits = (codes >> shift).astype(np.uint16)
        step = np.argsort(digits if order is None else digits[order], kind="stable")
        order = step if order is None else order[step]
    assert order is not None
    return order


def _ranges(asked: _Asked, window: Window) -> _Range:
    """Return which events count for each label."""
    low, high = _bounds(asked, window)
    if asked.known is None:
        return _Range(low, high, [])
    if window.gap_us is not None:
        times = asked.ordered.events[TIME].to_numpy()
        low = asked.known.session(times, asked.times, low, high, window.gap_us)
    middle, parts = asked.known.split(low, high)
    return _Range(low, middle, parts)


def _bounds(asked: _Asked, window: Window) -> tuple[Ints, Ints]:
    """Return, for each label, the half-open range [low, high) of events in the window."""
    side = "left" if window.closed == "left" else "right"
    high = _bound(asked, windows.end(window, asked.times), side)
    if window.gap_us is not None:
        return _open_session(asked, window.gap_us, high), high
    if window.length_us is None:
        return asked.firsts, high
    return _bound(asked, windows.start(window, asked.times), side), high


def _open_session(asked: _Asked, gap_us: int, high: Ints) -> Ints:
    """Return where the session that is open at each label begins; `high` where none is."""
    times = asked.ordered.events[TIME].to_numpy()
    if not times.size:
        return high
    begins = np.ones(times.size, bool)
    begins[1:] = times[1:] - times[:-1] > gap_us
    # An entity's first event begins one too; those of labels bound it from below.
    begin = np.maximum.accumulate(np.where(begins, np.arange(times.size), 0))
    last = np.maximum(high - 1, 0)
    is_open = (high > asked.firsts) & (asked.times - times[last] <= gap_us)
    return np.where(is_open, np.maximum(begin[last], asked.firsts), high)


def _bound(asked: _Asked, times: Ints, side: str) -> Ints:
    """Return where each label's time would be inserted among its entity's events.

    Every label halves its own entity's events, all labels at once: a few thousand at a time stay
    in the cache, and an entity of few events takes few steps.
    """
    ordered = asked.ordered
    keys, reaches = ordered.padded_keys, np.less if side == "left" else np.less_equal
    steps = [2**bit for bit in reversed(range(ordered.most.bit_length()))]
    found = asked.firsts.copy()
    for start in range(0, found.size, TOGETHER):
        some = slice(start, start + TOGETHER)
        wanted = ordered.time_of.pack(asked.codes[some], times[some])
        at = found[some]
        for step in steps:
            at += reaches(keys[at + (step - 1)], wanted) * step
    return found


def _fields(fold: Fold, index: int, ordered: _Ordered, range_: _Range) -> dict[str, pl.Series]:
    """Return the merged state fields of one aggregation over each label's events."""
    plain = _merged(
        fold, index, ordered.events, range_.low, range_.high,
        in_order=ordered.by_position, alone=not range_.parts,
    )  # fmt: skip
    if not range_.parts:
        return plain
    # What a label sees of several ranges goes through the aggregate's own merge.
    whole = pl.DataFrame(plain).with_columns(
        pl.Series(_OWNER, np.arange(range_.low.size)), pl.Series("__some", range_.high > range_.low)
    )
    parts = []
    for part in range_.parts:
        states = _merged(fold, index, ordered.events[part.order], part.low, part.high)
        parts.append(pl.DataFrame(states).with_columns(pl.Series(_OWNER, part.owners)))
    owners = pl.Series(np.unique(np.concatenate([p.owners for p in range_.parts]))).implode()
    names = dict(fold.fields_of(index))
    mine = whole.filter(pl.col(_OWNER).is_in(owners) & pl.col("__some")).drop("__some")
    together = pl.concat([mine, *(p.select(mine.columns) for p in parts)])
    # Of what was nothing but nulls some aggregates make no state.
    together = together.filter(~pl.all_horizontal(pl.col(list(names)).is_null()))
    typed = [pl.col(_OWNER), *(pl.col(n).cast(f.dtype) for n, f in names.items())]
    merged = fold.merged(together, [index], [], by=[_OWNER]).select(typed)
    asked = pl.DataFrame({_OWNER: owners.explode()})
    merged = asked.join(merged, on=_OWNER, how="left", maintain_order="left")
    rest = whole.filter(~pl.col(_OWNER).is_in(owners)).select(typed)
    joined = pl.concat([rest, merged]).sort(_OWNER)
    return {n: joined.get_column(n) for n in names}


def _merged(
    fold: Fold,
    index: int,
    events: pl.DataFrame,
    low: Ints,
    high: Ints,
    *,
    in_order: bool = False,
    alone: bool = False,
) -> dict[str, pl.Series]:
    """Return the merged state fields of one aggregation over each range of events."""
    bound, names = fold.bound[index], fold.fields_of(index)
    if not isinstance(bound, Fieldwise):
        args, states = fold.args_of(index), None
        if in_order and isinstance(bound, Kept):
            states = kept_ranges(bound, events, args[0], low, high, alone=alone)
        if states is None:
            states = merged_ranges(bound, events, args, low, high)
        made = {n: (states.get_column(f.name), f.dtype) for n, f in names if f.name in states}
        return {n: (s if s.dtype == t else s.cast(t)).rename(n) for n, (s, t) in made.items()}
    if isinstance(bound, Count) and not bound.types:
        return {names[0][0]: pl.Series(names[0][0], high - low)}
    lifted = events.select(
        e.alias(name) for e, (name, _) in zip(bound.lift(fold.row_of(index)), names, strict=True)
    )
    return {n: merge_ranges(lifted[n], f, low, high).rename(n) for n, f in names}


def merge_ranges(values: pl.Series, field: Field, low: Ints, high: Ints) -> pl.Series:
    """Return the merge of `values` over each range [low, high); null where nothing is there."""
    if field.monoid == "sum":
        if field.dtype == pl.Float64:
            numbers = values.fill_null(0.0).to_numpy()
            # Infinities of both signs add up to NaN, as IEEE 754 says; that is no mistake here.
            with np.errstate(invalid="ignore", over="ignore"):
                return pl.Series(_tile(numbers, low, high, np.add, 0.0))
        return _integer_sums(values, field.dtype, low, high)
    return _extremes(values, field, low, high)


def _integer_sums(values: pl.Series, dtype: pl.DataType, low: Ints, high: Ints) -> pl.Series:
    values = values.fill_null(0)
    least, most = int(values.min() or 0), int(values.max() or 0)  # type: ignore[arg-type]
    if least == most == 1:
        # Rows that are counted, and none of them null.
        return pl.Series(high - low).cast(dtype)
    if max(-least, most) * values.len() < 2**62:
        # No running total can leave 64 bits, so machine integers are exact.
        running = np.zeros(values.len() + 1, np.int64)
        np.cumsum(values.cast(pl.Int64).to_numpy(), out=running[1:])
        return pl.Series(running[high] - running[low]).cast(dtype)
    totals = values.cast(pl.Int128).cum_sum()
    running_wide = pl.concat([pl.Series([0], dtype=pl.Int128), totals])
    return running_wide.gather(high) - running_wide.gather(low)


def _extremes(values: pl.Series, field: Field, low: Ints, high: Ints) -> pl.Series:
    """Take MIN or MAX over ranges; null where a range has no value."""
    smallest = field.monoid == "min"
    if field.dtype == pl.Float64:
        # NaN is greater than every number: MIN passes it over unless there is nothing else.
        identity = np.nan if smallest else -np.inf
        numbers = values.fill_null(identity).to_numpy()
        found = _tile(numbers, low, high, np.fmin if smallest else np.maximum, identity)
        return _where_present(pl.Series(found), values, low, high)
    bounds = np.iinfo(np.int64)
    merge, last = (_LEAST, bounds.max) if smallest else (_GREATEST, bounds.min)
    if field.dtype in (pl.String, pl.Boolean, pl.Decimal):
        distinct = values.drop_nulls().unique().sort()
        ranks = distinct.to_frame("v").with_row_index("r")
        ranked = values.to_frame("v").join(ranks, on="v", how="left", maintain_order="left")["r"]
        found = _tile(ranked.cast(pl.Int64).fill_null(last).to_numpy(), low, high, merge, last)
        index = _where_present(pl.Series(found), values, low, high)
        return distinct.gather(index)
    physical = values.to_physical().cast(pl.Int64).fill_null(last)
    found = _tile(physical.to_numpy(), low, high, merge, last)
    present = _where_present(pl.Series(found), values, low, high)
    return present.cast(values.to_physical().dtype).cast(field.dtype)


def _where_present(found: pl.Series, values: pl.Series, low: Ints, high: Ints) -> pl.Series:
    """Return `found`, null for the ranges that hold no value but nulls."""
    running = np.concatenate(([0], np.cumsum(values.is_not_null().to_numpy())))
    return found.set(pl.Series(running[high] == running[low]), None)


def _tile(values: Array, low: Ints, high: Ints, merge: np.ufunc, identity: float | int) -> Array:
    """Merge each range from blocks of 1, 2, 4, … values, each aligned to its own size.

    The classic bottom-up segment tree, all ranges at once: at every level a range hands over at
    most one block at each of its ends, and the rest moves up.
    """
    left = np.full(low.size, identity, dtype=values.dtype)
    right = left.copy()
    low, high = low.copy(), high.copy()
    level = values
    active = np.flatnonzero(low < high)
    while active.size:
        odd = active[(low[active] & 1) == 1]
        left[odd] = merge(left[odd], level[low[odd]])
        low[odd] += 1
        odd = active[(high[active] & 1) == 1]
        high[odd] -= 1
        right[odd] = merge(level[high[odd]], right[odd])
        low[active] >>= 1
        high[active] >>= 1
        active = active[low[active] < high[active]]
        if level.size & 1:
            level = np.append(level, np.asarray(identity, dtype=values.dtype))
        level = merge(level[0::2], level[1::2])
    return np.asarray(merge(left, right))
