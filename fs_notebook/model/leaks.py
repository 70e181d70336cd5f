"""What in a training set may tell a model of what came after the label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from fs_notebook.catalog.model import AnyDefinition, Definition, DerivedDefinition

ROWS_MIN = 20
"""Rows in which a feature must be a label column's equal before that is told."""


def leaks_of(
    frame: pl.DataFrame,
    label_columns: Sequence[str],
    features: Sequence[str],
    definitions: Sequence[AnyDefinition],
) -> tuple[str, ...]:
    """Return a sentence for each thing that looks like a leak, none twice.

    Parameters
    ----------
    frame
        The training set's rows.
    label_columns
        The labels' columns that are no key and no time: what may be the target.
    definitions
        What the features are of.
    """
    stored = [
        d
        for one in definitions
        for d in (one.inputs if isinstance(one, DerivedDefinition) else (one,))
    ]
    found = [*(n for d in stored for n in _by_definition(d))]
    for feature in features:
        for label in label_columns:
            if _equal(frame.get_column(feature), frame.get_column(label)):
                found.append(f"{feature} is the labels' {label} in every row that has both")
    return tuple(dict.fromkeys(found))


def _by_definition(definition: Definition) -> Iterator[str]:
    plan, name = definition.plan, definition.name
    if plan.closed == "right":
        yield (
            f"{name} counts events at the very time of a label (closed=right): the label's own "
            "event may be among them"
        )
    for pin in definition.pins:
        if pin.cut is not None:
            yield (
                f"{name} has a statistic of all events up to {pin.cut}, after many a label: "
                f"{pin.function.upper()} of {pin.expression}"
            )
    for join in plan.joins:
        if join.cut is not None:
            yield (
                f"{name} reads the table {join.source} as it was when it was defined, whatever a "
                "label's time"
            )


def _equal(feature: pl.Series, label: pl.Series) -> bool:
    """Tell whether two columns are one, in rows enough and of more than one value."""
    if feature.dtype.is_numeric() and label.dtype.is_numeric():
        feature, label = feature.cast(pl.Float64), label.cast(pl.Float64)
    elif feature.dtype != label.dtype or feature.dtype.is_nested():
        return False
    both = feature.is_not_null() & label.is_not_null()
    if both.sum() < ROWS_MIN:
        return False
    mine, theirs = feature.filter(both), label.filter(both)
    return bool((mine == theirs).all()) and mine.n_unique() > 1
