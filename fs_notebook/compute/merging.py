"""States of the same entities that were folded apart, from different partitions, made one.

Lifetimes merge by the kernel's own merge, recent events are put together. Where an entity's events
are split into buckets in one of the states they become so in all of them, and buckets of one number
merge: a bucket is what lies in its stretch of time, wherever it was folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from fs_notebook.compute import buckets
from fs_notebook.compute.fold import Fold, State


def merge_states(fold: Fold, states: Sequence[State]) -> State:
    """Return the state of all that was folded into `states`, of disjoint sets of events.

    Of split entities' events those that are at hand come along, as in `State`.
    """
    if len(states) == 1:
        return states[0]
    lifetime = fold.merge([s.lifetime for s in states])
    recent = pl.concat([s.recent for s in states])
    split = [s.buckets for s in states if s.buckets is not None]
    if not split:
        return State(lifetime, recent)
    busy = pl.concat(split).select(fold.keys).unique()
    parts = list(split)
    for state in states:
        others = state.recent.join(busy, on=fold.keys, how="semi")
        if state.buckets is not None:
            others = others.join(state.buckets, on=fold.keys, how="anti")
        if others.height:
            parts.append(buckets.partials(fold, others))
    return State(lifetime, recent, _merged(fold, pl.concat(parts)))


def _merged(fold: Fold, parts: pl.DataFrame) -> pl.DataFrame:
    about = [
        pl.col(buckets.OLDEST).min(), pl.col(buckets.LATEST).max(), pl.col(buckets.COUNT).sum(),
    ]  # fmt: skip
    merged = fold.merged(parts, fold.windowed, about, by=[*fold.keys, buckets.BUCKET])
    return merged.select(list(buckets.schema(fold)))
