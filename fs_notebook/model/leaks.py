"""What in a training set may tell a model of what came after the label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from fs_notebook.catalog.model import AnyDefinition, Definition, DerivedDefinition
from fs_notebook.model.card import percent
from fs_notebook.model.late import CHANGED_MIN, Lateness
from fs_notebook.model.verdict import LATE_SHARE

ROWS_MIN = 20
"""Rows in which a feature must be a label column's equal before that is told."""
_FIRST = 10_000


@dataclass(frozen=True)
class Leak:
    """One thing that looks like a leak.

    Attributes
    ----------
    kind
        ``"label"``: a feature is the label. ``"same time"``: events at a label's very time count.
        ``"late"``: events were published later than they are counted. ``"statistic"``,
        ``"table"``: of a time after many a label.
    features
        The columns that it is about.
    text
        It in a sentence, with its evidence.
    is_serious
        Whether a lift of these features is not to be believed.
    """

    kind: str
    features: tuple[str, ...]
    text: str
    is_serious: bool


def leaks_of(
    frame: pl.DataFrame,
    label_columns: Sequence[str],
    features: Sequence[tuple[AnyDefinition, Sequence[str]]],
    *,
    same_time: Mapping[str, float],
    late: Sequence[Lateness],
) -> tuple[Leak, ...]:
    """Return each thing that looks like a leak, none twice.

    Parameters
    ----------
    frame
        The training set's rows.
    label_columns
        The labels' columns that are no key and no time: what may be the target.
    features
        Definitions with the columns of their features.
    same_time
        Group → the share of labels that have an event at their very time, where that counts.
    late
        How late the streams are.
    """
    found: dict[str, Leak] = {}
    for definition, columns in features:
        own = definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)
        for stored in own:
            for kind, text in _by_definition(stored):
                share = same_time.get(stored.name) if kind == "same time" else None
                if share is not None:
                    text += f"; {percent(share)} of the labels have one"
                known = found[text].features if text in found else ()
                found[text] = Leak(kind, (*known, *columns), text, bool(share))
    for one in late:
        if one.share >= CHANGED_MIN:
            found[one.text] = Leak("late", one.features, one.text, one.share >= LATE_SHARE)
    for feature in (c for _, columns in features for c in columns):
        for label in label_columns:
            if _equal(frame.get_column(feature), frame.get_column(label)):
                text = f"{feature} is the labels' {label} in every row that has both"
                found[text] = Leak("label", (feature,), text, True)
    return tuple(found.values())


def _by_definition(definition: Definition) -> Iterator[tuple[str, str]]:
    plan, name = definition.plan, definition.name
    if plan.closed == "right":
        text = "counts events at the very time of a label (closed=right): the label's own event"
        yield "same time", f"{name} {text} may be among them"
    for pin in definition.pins:
        if pin.cut is not None:
            text = f"has a statistic of all events up to {pin.cut}, after many a label"
            yield "statistic", f"{name} {text}: {pin.function.upper()} of {pin.expression}"
    for join in plan.joins:
        if join.cut is not None:
            text = f"reads the table {join.source} as it was when it was defined"
            yield "table", f"{name} {text}, whatever a label's time"


def _equal(feature: pl.Series, label: pl.Series) -> bool:
    """Tell whether two columns are one, in rows enough and of more than one value."""
    if feature.dtype.is_numeric() and label.dtype.is_numeric():
        feature, label = feature.cast(pl.Float64), label.cast(pl.Float64)
    elif feature.dtype != label.dtype or feature.dtype.is_nested():
        return False
    # Mostly the first rows tell, of however many.
    if feature.len() > _FIRST and not bool((feature.head(_FIRST) == label.head(_FIRST)).all()):
        return False
    both = feature.is_not_null() & label.is_not_null()
    if both.sum() < ROWS_MIN:
        return False
    mine, theirs = feature.filter(both), label.filter(both)
    return bool((mine == theirs).all()) and mine.n_unique() > 1
