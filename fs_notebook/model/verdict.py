"""From differences and their intervals to one plain word, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HELPS, HURTS, NO_EVIDENCE, LEAK = "helps", "hurts", "no evidence", "suspicious: leak"
ORDER = (HELPS, LEAK, NO_EVIDENCE, HURTS)
"""In which order candidates are ranked: what is suspicious may be the best there is, or nothing."""

PERFECT_SHARE = 0.97
"""Who closes so much of the gap to perfect predictions is not believed at once."""

NEAR_PERFECT, NEAR_SHARE = 0.99, 0.9
"""Nor who comes this near to a perfect 1, and closes so much of the gap."""

LATE_SHARE = 0.05
"""If so many labels' values were not known at the time, a lift is not believed."""


@dataclass(frozen=True)
class Control:
    """What a column that knows nothing brings in the candidate's place.

    Attributes
    ----------
    name
        ``"shuffled"``: the candidate's own values, shuffled across rows. ``"random"``: numbers
        drawn from a normal distribution.
    difference, low, high
        What it adds to the metric, with its 95% interval.
    margin, margin_low, margin_high
        What the candidate adds beyond it, on the same rows, with its 95% interval.
    """

    name: str
    difference: float
    low: float
    high: float
    margin: float
    margin_low: float
    margin_high: float


@dataclass(frozen=True)
class Decision:
    """The word, and the sentence that says what decided."""

    verdict: str
    reason: str


def decide(
    low: float, high: float, controls: Sequence[Control], suspicions: Sequence[str]
) -> Decision:
    """Return what the intervals say.

    ``"helps"`` needs all of: an interval that lies above 0, and above each control one of the
    margin that does. Each of these would let a column that knows nothing pass in 2.5% of cases, so
    all together in no more (an intersection-union test, Berger 1982). ``"hurts"``: the interval
    lies below 0. What helps and is suspicious is ``"suspicious: leak"``. An interval that is not
    known (NaN) decides nothing.
    """
    if high < 0:
        return Decision(HURTS, "the interval lies below 0")
    if not low > 0:
        return Decision(NO_EVIDENCE, "the interval reaches 0")
    weak = [c for c in controls if not c.margin_low > 0]
    if weak:
        what = {"shuffled": "its own values shuffled", "random": "a random column"}
        told = " or ".join(what.get(c.name, c.name) for c in weak)
        return Decision(NO_EVIDENCE, f"not surely more than {told} would bring")
    if suspicions:
        return Decision(LEAK, suspicions[0])
    return Decision(HELPS, "its interval lies above 0, and above what the controls bring")


def too_good(label: str, best: float, without: float, with_: float) -> str | None:
    """Return why a metric is too good to be believed; None if it is not."""
    gap = best - without
    if gap <= 0 or with_ <= without:
        return None
    closed = (with_ - without) / gap
    near = best == 1.0 and with_ > NEAR_PERFECT and closed >= NEAR_SHARE
    if not near and closed < PERFECT_SHARE:
        return None
    return (
        f"too good: with it {label} is {with_:.4f}, where {best:g} is perfect; does it know the "
        "label already?"
    )
