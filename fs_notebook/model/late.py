"""Late publication: events that a training row counts, and that nobody had at the label's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.language.plan import span_text
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.model.asked import AsOf
from fs_notebook.model.card import percent
from fs_notebook.types import TIME

Ints = npt.NDArray[np.int64]

EVENTS_MIN = 50
"""Of fewer events than this, delays tell nothing."""

LABELS_MAX = 20_000
"""Of more labels than that, some entities' are looked at."""

CHANGED_MIN = 0.01
"""From this share of labels on, late events are told."""

_SECOND_US = 1_000_000
_LAGS_S = (1, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
           86_400, 129_600, 172_800, 259_200, 604_800, 1_209_600, 2_592_000)  # fmt: skip
_LATE_MIN_US = _SECOND_US
"""What is published within a second is as good as there: no feature is kept current faster."""

_SPEED_MAX = 1.1
_PUBLISHED_OF_SPAN_MIN = 0.5
_CHUNKS = 200
_LOOKED_AT_MAX = 200_000


@dataclass(frozen=True)
class Lateness:
    """How late a stream's events are published, and what that does to the labels' values.

    Attributes
    ----------
    stream
        The stream that the features fold.
    features
        The features in question.
    events
        Events whose delay is known: those that arrived as they happened, not in an upload of
        history.
    median_us, p95_us, p99_us, max_us
        Quantiles of publish time less event time, 0 for an event that is published before its time.
    labels
        Labels in the time of those events, or of more than 20,000 those of some entities.
    saw
        How many of them counted an event that was published at the label's time or later.
    changed
        How many have another value if only what was published before counts (``as_of="known"``).
    lag
        The shortest of the usual spans that 99% of the events are published within.
    saw_with_lag
        How many labels would still count such an event with that lag.
    """

    stream: str
    features: tuple[str, ...]
    events: int
    median_us: int
    p95_us: int
    p99_us: int
    max_us: int
    labels: int
    saw: int
    changed: int
    lag: str
    saw_with_lag: int

    @property
    def share(self) -> float:
        """The share of labels whose value would be another, from 0 to 1."""
        return self.changed / max(self.labels, 1)

    @property
    def text(self) -> str:
        """All of it in a sentence, with what to do."""
        return (
            f"{self.stream} is published late: half of its events within "
            f"{short_span(self.median_us)}, 95% within {short_span(self.p95_us)}, 99% within "
            f"{short_span(self.p99_us)} of their time; {_share(self.share)} of the labels have "
            f'another value with as_of="known". Try lag="{self.lag}": then '
            f"{_share(self.saw_with_lag / max(self.labels, 1))} count an event that was not there"
        )


def live_from(event_us: Ints, published_us: Ints) -> int | None:
    """Return the publish time from which on events came as they happened; None if they never did.

    An upload of history has publish times that tell nothing of how late its events were known. In
    it the newest event time runs faster than the clock; it does not while events come as they
    happen, be it one by one or a day's each night. So the live part is the longest last one in
    which it runs no faster, and which took at least half as long as most of its events span.
    """
    step = -(-event_us.size // _LOOKED_AT_MAX) or 1
    event_us, published_us = event_us[::step], published_us[::step]
    if event_us.size < EVENTS_MIN:
        return None
    order = np.argsort(published_us, kind="stable")
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


@dataclass(frozen=True)
class Evidence:
    """What the events that a group was joined with tell of leaks, if anything."""

    late: tuple[Lateness, ...] = ()
    same_time: Mapping[str, float] = field(default_factory=dict)


def evidence_of(
    definition: Definition,
    fold: Fold,
    events: pl.DataFrame,
    moments: pl.DataFrame,
    values: pl.DataFrame,
    as_of: AsOf,
) -> Evidence:
    """Return how late a group's events were published, and how many are at a label's very time.

    For the parameters see `lateness_of`.
    """
    if as_of.known:
        return Evidence()
    features = tuple(f for f in definition.plan.features if f in values.columns)
    late = lateness_of(
        fold, events, moments, values, stream=definition.source.name, features=features,
        lag_us=as_of.lag_us,
    )  # fmt: skip
    same_time = {}
    if definition.plan.closed == "right" and not as_of.lag_us and moments.height:
        at = [*fold.keys, TIME]
        own = moments.join(events.select(at).unique(), on=at, how="semi")
        same_time[definition.name] = own.height / moments.height
    return Evidence(() if late is None else (late,), same_time)


def lateness_of(
    fold: Fold,
    events: pl.DataFrame,
    moments: pl.DataFrame,
    values: pl.DataFrame,
    *,
    stream: str,
    features: tuple[str, ...],
    lag_us: int = 0,
) -> Lateness | None:
    """Return how late events were published; None where publish times do not tell.

    Nothing is read again: the events are those that the labels were joined with, and only labels
    that saw a late one, with their entities' events, are joined once more.

    Parameters
    ----------
    fold, events, moments
        As for `values_at`; the events have `PUBLISHED`, the moments are less the lag.
    values
        What the labels have: `values_at` of the same.
    lag_us
        By how much the moments are earlier than the labels.
    """
    event_us = events.get_column(TIME).to_numpy()
    published_us = events.get_column(PUBLISHED).to_numpy()
    begin = live_from(event_us, published_us)
    if begin is None:
        return None
    live = published_us >= begin
    delays = np.maximum(published_us[live] - event_us[live], 0)
    if delays.size < EVENTS_MIN:
        return None
    median, p95, p99 = (int(v) for v in np.quantile(delays, [0.5, 0.95, 0.99], method="higher"))
    wanted_us = _lag_us(p99)
    if moments.height > LABELS_MAX:
        some = _some_entities(fold, moments)
        moments, values = moments.filter(some), values.filter(some)
        kept = events.select(fold.keys).with_row_index("__event").join(
            moments.select(fold.keys).unique(), on=fold.keys, how="semi"
        )  # fmt: skip
        places = kept.get_column("__event").sort()
        events, live = events[places], live[places.to_numpy()]
        event_us, published_us = event_us[places.to_numpy()], published_us[places.to_numpy()]
    # Moments are the labels' times less the lag: so much earlier is what was there by then.
    shifted = events.with_columns(pl.col(PUBLISHED) - lag_us)
    late = shifted.filter(pl.Series(live & (published_us - event_us > _LATE_MIN_US)))
    # Labels of the time before know only uploaded events.
    judged = moments.get_column(TIME).to_numpy() + lag_us >= begin
    saw = _seeing(fold, late, moments, 0) & judged
    with_lag = _seeing(fold, late, moments, max(wanted_us - lag_us, 0)) & judged
    changed = _changed(fold, shifted, moments, values, saw, features) if saw.any() else 0
    return Lateness(
        stream, features, int(delays.size), median, p95, p99, int(delays.max()),
        int(judged.sum()), int(saw.sum()), changed, span_text(wanted_us), int(with_lag.sum()),
    )  # fmt: skip


def _some_entities(fold: Fold, moments: pl.DataFrame) -> pl.Series:
    """Mark the labels of some entities, about `LABELS_MAX` of them: a share needs no more."""
    step = moments.height // LABELS_MAX + 1
    chance = moments.select(pl.struct(fold.keys).hash(seed=1) % step == 0).to_series()
    # Of few entities all labels may be marked, or none.
    return chance if chance.any() else pl.repeat(True, moments.height, eager=True)


def _lag_us(wanted_us: int) -> int:
    """Return the shortest usual span that is longer; beyond a month whole days."""
    fitting = (s * _SECOND_US for s in _LAGS_S if s * _SECOND_US > wanted_us)
    day = 86_400 * _SECOND_US
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
    values: pl.DataFrame,
    saw: Any,
    features: tuple[str, ...],
) -> int:
    """Return how many of the labels that saw late events have another value as known."""
    mine = moments.filter(pl.Series(saw))
    theirs = events.join(mine.select(fold.keys).unique(), on=fold.keys, how="semi",
                         maintain_order="left")  # fmt: skip
    known = values_at(fold, theirs, mine, known=True)
    were = values.filter(pl.Series(saw))
    differs = pl.any_horizontal(
        (pl.col(f).ne_missing(pl.col(f"{f}\0"))) for f in features
    )  # fmt: skip
    both = were.select(features).hstack(
        [known.get_column(f).alias(f"{f}\0") for f in features]
    )  # fmt: skip
    return int(both.select(differs).to_series().sum())


def short_span(us: float) -> str:
    """Return a span in its largest unit: ``"0.4 s"``, ``"12 min"``, ``"26 h"``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if us >= 2 * size * _SECOND_US:
            return f"{us / size / _SECOND_US:.3g} {unit}"
    return f"{us / _SECOND_US:.3g} s"


def _share(share: float) -> str:
    return "none" if share == 0 else percent(share)
