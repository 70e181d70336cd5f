"""The recent events of busy entities, cut into buckets of time.

An entity with many events in its windows would make each commit rewrite, and each reader finish,
all of them. Its events lie in buckets instead: of each the state keeps the merged partial of every
windowed aggregate, and the events themselves can be stored apart. A window takes the partials of
the buckets that lie in it as a whole, and the very events of those that its ends cut through. So
values stay exact, a commit touches the buckets that it adds to, and a reader fetches one or two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from fs_notebook.compute import windows
from fs_notebook.errors import IntegrityError
from fs_notebook.language.plan import Plan, Window
from fs_notebook.types import TIME

if TYPE_CHECKING:
    from fs_notebook.compute.fold import Fold, State

BUCKET = "__bucket"
OLDEST, LATEST, COUNT = "__oldest", "__latest", "__count"
WHOLE, APART = "__whole", "__apart"
MOMENT = "__t"

BUCKETS = 256
"""Buckets that the longest window spans."""


def width_us(plan: Plan) -> int | None:
    """Return the length of a bucket; None where windows have no bound to be cut by."""
    lengths = [(w.length_us or 0) + (w.slide_us or 0) for w in plan.windows]
    if not lengths or any(w.gap_us is not None for w in plan.windows):
        return None
    return -(-max(lengths) // BUCKETS)


def bucket_of(width: int, time: pl.Expr) -> pl.Expr:
    """Return the number of the bucket in which `time` lies."""
    return (time // width).alias(BUCKET)


def schema(fold: Fold) -> dict[str, pl.DataType]:
    """Return the columns of `State.buckets`: one row for each bucket of each split entity."""
    columns: dict[str, pl.DataType] = dict(fold.key_schema)
    columns |= dict.fromkeys((BUCKET, OLDEST, LATEST, COUNT), pl.Int64())
    for i in fold.windowed:
        columns |= {name: f.dtype for name, f in fold.fields_of(i)}
    return columns


def partials(fold: Fold, recent: pl.DataFrame) -> pl.DataFrame:
    """Fold recent events into buckets, one row each; they must be all that these buckets have."""
    assert fold.bucket_us is not None
    time = pl.col(TIME)
    about = [
        time.min().alias(OLDEST), time.max().alias(LATEST), pl.len().cast(pl.Int64).alias(COUNT),
    ]  # fmt: skip
    rows = recent.with_columns(bucket_of(fold.bucket_us, time))
    folded = fold.folded(rows, fold.windowed, about, by=[*fold.keys, BUCKET])
    return folded.select(list(schema(fold)))


def add(
    fold: Fold, buckets: pl.DataFrame, recent: pl.DataFrame, fresh: pl.DataFrame
) -> pl.DataFrame:
    """Return the buckets of split entities after `fresh` rows, which `recent` has already."""
    by = [*fold.keys, BUCKET]
    touched = touched_by(fold, buckets, fresh)
    number = bucket_of(fold.bucket_us or 1, pl.col(TIME))
    rows = recent.with_columns(number).join(touched, on=by, how="semi").drop(BUCKET)
    kept = buckets.join(touched, on=by, how="anti")
    return pl.concat([kept, partials(fold, rows)])


def touched_by(fold: Fold, buckets: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return (key, bucket) of what rows of split entities fall into."""
    mine = rows.join(buckets.select(fold.keys).unique(), on=fold.keys, how="semi")
    number = bucket_of(fold.bucket_us or 1, pl.col(TIME))
    return mine.select(*fold.keys, number).unique()


def cut_through(fold: Fold, buckets: pl.DataFrame, moments: pl.DataFrame) -> pl.DataFrame:
    """Return (key, bucket) of those that some window cuts through at its entity's moment.

    `moments` has the keys and `MOMENT`.
    """
    joined = buckets.join(moments, on=fold.keys, how="inner")
    cut = pl.lit(False)
    for window in fold.windows:
        cut = cut | (_some(window) & ~_whole(window))
    return joined.filter(cut).select(*fold.keys, BUCKET)


def _whole(window: Window) -> pl.Expr:
    t = pl.col(MOMENT)
    return windows.inside(window, t, pl.col(OLDEST)) & windows.inside(window, t, pl.col(LATEST))


def _some(window: Window) -> pl.Expr:
    t = pl.col(MOMENT)
    first: pl.Expr = windows.start(window, t)
    last: pl.Expr = windows.end(window, t)
    return (pl.col(LATEST) >= first) & (pl.col(OLDEST) <= last)


def split(
    fold: Fold, state: State, moments: pl.DataFrame, window: Window
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the window's events that no whole bucket stands for, and its whole buckets.

    Raises
    ------
    IntegrityError
        If events of a bucket that the window cuts through are not at hand.
    """
    assert state.buckets is not None
    by = [*fold.keys, BUCKET]
    marked = (
        state.buckets.lazy()
        .join(moments.lazy(), on=fold.keys, how="inner")
        .with_columns(_whole(window).alias(WHOLE), (~_whole(window) & _some(window)).alias(APART))
        .collect()
    )
    # One query for both, since a reader of one entity waits for each that is run.
    rows = (
        state.recent.lazy()
        .join(moments.lazy(), on=fold.keys, how="inner", maintain_order="left")
        .with_columns(bucket_of(fold.bucket_us or 1, pl.col(TIME)))
        .join(marked.lazy().select(*by, WHOLE, APART), on=by, how="left", maintain_order="left")
        .collect()
    )
    there = int(rows.get_column(APART).sum())
    counted = int((marked.get_column(COUNT) * marked.get_column(APART)).sum())
    check(there, counted)
    inside = windows.inside(window, pl.col(MOMENT))
    return rows.filter(inside & ~pl.col(WHOLE).fill_null(False)), marked.filter(WHOLE)


def check(there: int, counted: int) -> None:
    """Refuse events of cut buckets that are not as many as the buckets count."""
    if there != counted:
        raise IntegrityError(
            "Stored events of a window's end are not what its buckets say.",
            found=f"{there:,} events where {counted:,} are counted",
            remedy="promote the feature again to rebuild it from the ledger",
        )
