"""How late events are published, and which labels count some that nobody had by then.

All of it is told from a shard at a time: a glance at each shard's events, merged, says from when
on events came as they happened and how late; then each shard counts its labels. What is looked at
of more events than `LOOKED_AT_MAX` is decided by their values alone, so that the shards' sample is
the whole's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.types import TIME

Ints = npt.NDArray[np.int64]

EVENTS_MIN = 50
"""Of fewer events than this, delays tell nothing."""

LABELS_MAX = 20_000
"""Of more labels than that, some entities' are looked at."""

LOOKED_AT_MAX = 200_000
"""Of more events than that, some are looked at."""

SECOND_US = 1_000_000
_LAGS_S = (1, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
           86_400, 129_600, 172_800, 259_200, 604_800, 1_209_600, 2_592_000)  # fmt: skip
_LATE_MIN_US = SECOND_US
"""What is published within a second is as good as there: no feature is kept current faster."""

_SPEED_MAX = 1.1
_PUBLISHED_OF_SPAN_MIN = 0.5
_CHUNKS = 200
_SAME_FLOAT = 1e-9
_HASH, _EVENT, _PUBLISHED = "hash", "event", "published"


@dataclass(frozen=True, eq=False)
class Glance:
    """What is kept of a shard's events, or of several shards'.

    Attributes
    ----------
    seen
        Event and publish times in microseconds since the epoch, of a part of the events, with a
        hash by which that part is drawn.
    level
        The part: hashes of so many leading zeros.
    own
        Labels that have an event at their very time.
    marked
        Labels that are marked: see `marked`.
    """

    seen: pl.DataFrame
    level: int
    own: int
    marked: int

    @classmethod
    def of(cls, fold: Fold, events: pl.DataFrame, moments: pl.DataFrame, step: int) -> Glance:
        """Return the glance at events that have `PUBLISHED`, of the labels' entities alone."""
        drawn = pl.lit(0, pl.UInt64)
        for place, name in enumerate((*fold.keys, TIME, PUBLISHED)):
            drawn = drawn ^ pl.col(name).hash(seed=place + 2)
        times = pl.col(TIME).to_physical(), pl.col(PUBLISHED).to_physical()
        seen = events.select(drawn.alias(_HASH), times[0].alias(_EVENT), times[1].alias(_PUBLISHED))
        own = 0
        if fold.plan.closed == "right":
            at = [*fold.keys, TIME]
            own = moments.join(events.select(at).unique(), on=at, how="semi").height
        some = int(marked(fold, moments, step).sum()) if step > 1 else moments.height
        return cls(seen, 0, own, some)._thinned()

    @classmethod
    def merged(cls, parts: Sequence[Glance]) -> Glance:
        """Return the glance at all of them together: what one at all at once would be."""
        level = max(p.level for p in parts)
        seen = pl.concat([_of_level(p.seen, level) for p in parts])
        whole = cls(seen, level, sum(p.own for p in parts), sum(p.marked for p in parts))
        return whole._thinned()

    def _thinned(self) -> Glance:
        level, seen = self.level, self.seen
        while seen.height > LOOKED_AT_MAX and level < 63:
            level += 1
            seen = _of_level(seen, level)
        return Glance(seen, level, self.own, self.marked)


def _of_level(seen: pl.DataFrame, level: int) -> pl.DataFrame:
    return seen.filter(pl.col(_HASH) < 1 << (64 - level)) if level else seen


@dataclass(frozen=True)
class Delays:
    """How late events are, of those that came as they happened.

    Attributes
    ----------
    begin_us
        The publish time from which on they did.
    median_us, p95_us, p99_us
        Quantiles of publish time less event time.
    wanted_us
        The shortest of the usual spans that 99% of them are published within.
    """

    begin_us: int
    median_us: int
    p95_us: int
    p99_us: int
    wanted_us: int

    @classmethod
    def of(cls, glance: Glance) -> Delays | None:
        """Return what a glance at all events tells; None where publish times do not tell."""
        event_us = glance.seen.get_column(_EVENT).to_numpy()
        published_us = glance.seen.get_column(_PUBLISHED).to_numpy()
        begin = live_from(event_us, published_us)
        if begin is None:
            return None
        live = published_us >= begin
        delays = np.maximum(published_us[live] - event_us[live], 0)
        if delays.size < EVENTS_MIN:
            return None
        median, p95, p99 = (int(v) for v in np.quantile(delays, [0.5, 0.95, 0.99], method="higher"))
        return cls(begin, median, p95, p99, _lag_us(p99))


@dataclass(frozen=True)
class Question:
    """What is counted in each shard.

    Attributes
    ----------
    delays
        Of all shards' events.
    lag_us
        By how much the moments are earlier than the labels.
    step
        Which labels are looked at: see `marked`; 1 for all.
    features
        Of which features.
    """

    delays: Delays
    lag_us: int
    step: int
    features: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it, fit for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Question:
        """Return what `to_dict` wrote."""
        features = tuple(data["features"])
        return cls(Delays(**data["delays"]), data["lag_us"], data["step"], features)


@dataclass(frozen=True)
class Counts:
    """What late events did to labels: of a shard, or added up.

    Attributes
    ----------
    events
        Events that came as they happened.
    max_us
        The longest delay of those.
    labels
        Labels of that time that were looked at.
    saw
        How many of them counted an event that was published at the label's time or later.
    with_lag
        How many would with the lag that the delays suggest.
    changed
        How many have another value if only what was published before counts.
    """

    events: int = 0
    max_us: int = 0
    labels: int = 0
    saw: int = 0
    with_lag: int = 0
    changed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.events + other.events, max(self.max_us, other.max_us),
            self.labels + other.labels, self.saw + other.saw, self.with_lag + other.with_lag,
            self.changed + other.changed,
        )  # fmt: skip


def step_of(labels: int) -> int:
    """Return one in how many entities is looked at, of so many labels."""
    return labels // LABELS_MAX + 1 if labels > LABELS_MAX else 1


def marked(fold: Fold, moments: pl.DataFrame, step: int) -> pl.Series:
    """Mark the labels of one in `step` entities: a share needs no more."""
    chance = pl.struct(fold.keys).hash(seed=1) % step == 0
    return moments.select(chance).to_series()


def counts_of(
    fold: Fold,
    events: pl.DataFrame,
    moments: pl.DataFrame,
    asked: Question,
    values: pl.DataFrame | None = None,
) -> Counts:
    """Count the labels of a shard that saw late events, and those that it changes.

    Only labels that saw a late event, with their entities' events, are joined once more.

    Parameters
    ----------
    fold, events, moments
        As for `values_at`; the events have `PUBLISHED` and are of the labels' entities alone.
    asked
        What of them.
    values
        What the labels have, `values_at` of the same; default: it is computed where it is needed.
    """
    begin, lag_us = asked.delays.begin_us, asked.lag_us
    event_us = events.get_column(TIME).to_physical().to_numpy()
    published_us = events.get_column(PUBLISHED).to_physical().to_numpy()
    live = published_us >= begin
    delays = published_us[live] - event_us[live]
    most = max(int(delays.max()), 0) if delays.size else 0
    if asked.step > 1:
        some = marked(fold, moments, asked.step)
        moments = moments.filter(some)
        values = None if values is None else values.filter(some)
        kept = events.select(fold.keys).with_row_index("__event").join(
            moments.select(fold.keys).unique(), on=fold.keys, how="semi"
        )  # fmt: skip
        places = kept.get_column("__event").sort()
        events, live = events[places], live[places.to_numpy()]
        event_us, published_us = event_us[places.to_numpy()], published_us[places.to_numpy()]
    # Moments are the labels' times less the lag: so much earlier is what was there by then.
    shifted = events.with_columns(pl.col(PUBLISHED) - lag_us)
    late = shifted.select(*fold.keys, TIME, PUBLISHED).filter(
        pl.Series(live & (published_us - event_us > _LATE_MIN_US))
    )
    # Labels of the time before know only uploaded events.
    judged = moments.get_column(TIME).to_physical().to_numpy() + lag_us >= begin
    saw = _seeing(fold, late, moments, 0) & judged
    with_lag = _seeing(fold, late, moments, max(asked.delays.wanted_us - lag_us, 0)) & judged
    changed = _changed(fold, shifted, moments, values, saw, asked.features) if saw.any() else 0
    return Counts(
        int(delays.size), most, int(judged.sum()), int(saw.sum()), int(with_lag.sum()), changed
    )


def live_from(event_us: Ints, published_us: Ints) -> int | None:
    """Return the publish time from which on events came as they happened; None if they never did.

    An upload of history has publish times that tell nothing of how late its events were known. In
    it the newest event time runs faster than the clock; it does not while events come as they
    happen, be it one by one or a day's each night. So the live part is the longest last one in
    which it runs no faster, and which took at least half as long as most of its events span.
    """
    if event_us.size < EVENTS_MIN:
        return None
    # By both, so that the order that the events are given in decides nothing.
    order = np.lexsort((event_us, published_us))
    published, events = published_us[order], event_us[order]
    newest = np.maximum.accumulate(events)
    ends = np.unique(np.linspace(0, order.size - 1, min(_CHUNKS, order.size)).astype(np.int64))
    ran = newest[-1] - newest[ends]
    took = published[-1] - published[ends]
    steady = (took > 0) & (ran <= _SPEED_MAX * took)
    for place in np.flatnonzero(steady):
        rest = events[ends[place] + 1 :]
        if rest.size < EVENTS_MIN:
            return None
        low, high = np.quantile(rest, [0.05, 0.95])
        if took[place] >= _PUBLISHED_OF_SPAN_MIN * (high - low):
            return int(published[ends[place]]) + 1
    return None


def _lag_us(wanted_us: int) -> int:
    """Return the shortest usual span that is longer; beyond a month whole days."""
    fitting = (s * SECOND_US for s in _LAGS_S if s * SECOND_US > wanted_us)
    day = 86_400 * SECOND_US
    return next(fitting, (wanted_us // day + 1) * day)


def _seeing(fold: Fold, late: pl.DataFrame, moments: pl.DataFrame, more_us: int) -> Any:
    """Tell which labels, with so much more lag, count an event that was not published yet.

    An event does that to labels at times after its own, and the lag, up to its publish time or
    until its window has passed: it opens and it closes an interval, and a label is in one if, in
    the order of time, more of its entity's were opened before it than closed.
    """
    begin = pl.col(TIME) + more_us - (1 if fold.plan.closed == "right" else 0)
    windows = [a.window for a in fold.plan.aggregations]
    end = pl.col(PUBLISHED)
    if all(w.length_us is not None for w in windows):
        reach = max(
            (w.length_us or 0) + (w.slide_us or 0) + (w.resolution_us or 0) for w in windows
        )
        end = pl.min_horizontal(end, pl.col(TIME) + more_us + reach)
    spans = late.select(*fold.keys, begin.alias("__begin"), end.alias("__end"))
    spans = spans.filter(pl.col("__end") > pl.col("__begin"))
    found = np.zeros(moments.height, bool)
    if spans.is_empty():
        return found
    asked = moments.with_row_index("__row").drop_nulls(fold.keys)
    nothing = pl.lit(None, pl.UInt32).alias("__row")
    steps = [
        spans.select(*fold.keys, pl.col(c).alias("__at"), pl.lit(n).alias("__n"), nothing)
        for c, n in (("__begin", 1), ("__end", -1))
    ]
    steps.append(asked.select(
        *fold.keys, pl.col(TIME).alias("__at"), pl.lit(0).alias("__n"), pl.col("__row"),
    ))  # fmt: skip
    # At the same time a label comes first: it counts what was before it, strictly.
    swept = pl.concat(steps).sort([*fold.keys, "__at", "__row"], nulls_last=True)
    inside = pl.col("__n").cum_sum().over(fold.keys) > 0
    rows = swept.filter(inside & pl.col("__row").is_not_null()).get_column("__row")
    found[rows.to_numpy()] = True
    return found


def _changed(
    fold: Fold,
    events: pl.DataFrame,
    moments: pl.DataFrame,
    values: pl.DataFrame | None,
    saw: Any,
    features: tuple[str, ...],
) -> int:
    """Return how many of the labels that saw late events have another value as known."""
    mine = moments.filter(pl.Series(saw))
    theirs = events.join(mine.select(fold.keys).unique(), on=fold.keys, how="semi",
                         maintain_order="left")  # fmt: skip
    known = values_at(fold, theirs, mine, known=True)
    if values is None:
        were = values_at(fold, theirs.drop(PUBLISHED), mine)
    else:
        were = values.filter(pl.Series(saw))
    both = were.select(features).hstack(
        [known.get_column(f).alias(f"{f}\0") for f in features]
    )  # fmt: skip
    return int(both.select(pl.any_horizontal(_differs(both, f) for f in features)).sum().item())


def _differs(both: pl.DataFrame, feature: str) -> pl.Expr:
    """Tell where a feature is another as known: floats may be rounded otherwise (S11)."""
    mine, known = pl.col(feature), pl.col(f"{feature}\0")
    if not both.schema[feature].is_float():
        return mine.ne_missing(known)
    near = (mine - known).abs() <= _SAME_FLOAT * pl.max_horizontal(mine.abs(), known.abs())
    return mine.ne_missing(known) & ~near.fill_null(value=False)
