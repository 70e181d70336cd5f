"""Late publication: events that a training row counts, and that nobody had at the label's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.compute.delays import (
    SECOND_US,
    Counts,
    Delays,
    Glance,
    Question,
    counts_of,
    step_of,
)
from fs_notebook.compute.fold import Fold
from fs_notebook.language.plan import span_text
from fs_notebook.model.asked import AsOf
from fs_notebook.model.card import percent

CHANGED_MIN = 0.01
"""From this share of labels on, late events are told."""


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
    features: tuple[str, ...],
) -> Evidence:
    """Return how late a group's events were published, and how many are at a label's very time.

    Nothing is read again: the events are those that the labels were joined with.

    Parameters
    ----------
    fold, events, moments
        As for `values_at`; the events have `PUBLISHED`, the moments are less the lag.
    values
        What the labels have: `values_at` of the same.
    features
        Those that are wanted.
    """
    if as_of.known:
        return Evidence()
    step = step_of(moments.height)
    glance = Glance.of(fold, events, moments, step)
    asked = question_of(glance, as_of, features, step)
    counts = None if asked is None else counts_of(fold, events, moments, asked, values)
    return evidence_from(definition, glance, asked, counts, as_of, moments.height)


def question_of(
    glance: Glance, as_of: AsOf, features: tuple[str, ...], step: int
) -> Question | None:
    """Return what is to be counted, of a glance at all events; None where it tells nothing."""
    delays = Delays.of(glance)
    if delays is None:
        return None
    # Of few entities none may be marked: then all labels are looked at.
    return Question(delays, as_of.lag_us, step if glance.marked else 1, features)


def evidence_from(
    definition: Definition,
    glance: Glance,
    asked: Question | None,
    counts: Counts | None,
    as_of: AsOf,
    labels: int,
) -> Evidence:
    """Return what a glance at all events, and counts of so many labels, come to."""
    late: tuple[Lateness, ...] = ()
    if asked is not None and counts is not None:
        one = asked.delays
        late = (Lateness(
            definition.source.name, asked.features, counts.events, one.median_us, one.p95_us,
            one.p99_us, counts.max_us, counts.labels, counts.saw, counts.changed,
            span_text(one.wanted_us), counts.with_lag,
        ),)  # fmt: skip
    same_time = {}
    if definition.plan.closed == "right" and not as_of.lag_us and labels:
        same_time[definition.name] = glance.own / labels
    return Evidence(late, same_time)


def short_span(us: float) -> str:
    """Return a span in its largest unit: ``"0.4 s"``, ``"12 min"``, ``"26 h"``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if us >= 2 * size * SECOND_US:
            return f"{us / size / SECOND_US:.3g} {unit}"
    return f"{us / SECOND_US:.3g} s"


def _share(share: float) -> str:
    return "none" if share == 0 else percent(share)
