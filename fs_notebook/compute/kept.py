"""The first or last few values of ranges of ordered events, without folding them event by event.

What FIRST, LAST, FIRST_N, LAST_N and COLLECT_LIST keep of a range are its first or last events
that are not null: a stretch of the order, found by counting. Nothing is merged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.compute.ranges import spread
from fs_notebook.kernel.ordered import Kept
from fs_notebook.types import ORDER, TIME

Ints = npt.NDArray[np.int64]

ROWS_MAX = 4_000_000
"""Values that all ranges may keep together; more go the other way, in turns."""

_RANGE = "__range"


def kept_ranges(
    bound: Kept, events: pl.DataFrame, arg: str, low: Ints, high: Ints, *, alone: bool = False
) -> pl.DataFrame | None:
    """Return the aggregate's state over each range [low, high) of events.

    Parameters
    ----------
    bound
        The aggregate.
    events
        Events in the order of (entity, time, position): `arg`, `types.TIME` and `types.ORDER`.
    arg
        The column of its argument.
    low, high
        The ranges, as indices into `events`; each of one entity.
    alone
        Nothing will be merged with these states: of one value neither time nor position is told.

    Returns
    -------
    DataFrame or None
        As `compute.ranges.merged_ranges`; None where this is no way to find it: of distinct
        values, or of too many.
    """
    if bound.once:
        return None
    columns = dict(zip("vtpq", (arg, TIME, *ORDER), strict=True))
    values, first, last = events.get_column(arg), low, np.maximum(low, high)
    there = None
    if values.null_count():
        present = values.is_not_null().to_numpy()
        there = np.flatnonzero(present)
        # Of each event, how many before it are not null: ranges of these are ranges of those.
        before = np.concatenate(([0], np.cumsum(present)))
        first, last = before[first], before[last]
    if bound.newest:
        first = np.maximum(first, last - bound.count)
    else:
        last = np.minimum(last, first + bound.count)
    sizes = last - first
    # A list of lists cannot be made of single ones by `concat_list`, which strings them together.
    single = bound.count == 1 and not values.dtype.is_nested()
    if alone and single:
        return _values(bound, values, there, first, sizes)
    if int(sizes.sum()) > ROWS_MAX:
        return None
    places = spread(first, sizes)
    if there is not None:
        places = there[places]
    rows = events.select(pl.col(c).gather(places).alias(n) for n, c in columns.items())
    schema = {f.name: f.dtype for f in bound.fields}
    if single:
        lists = rows.select(pl.concat_list(n).alias(n) for n in columns)
        numbered = lists.with_columns(pl.Series(_RANGE, np.flatnonzero(sizes)))
    else:
        owners = np.repeat(np.arange(low.size), sizes)
        grouped = rows.with_columns(pl.Series(_RANGE, owners)).group_by(_RANGE, maintain_order=True)
        numbered = grouped.agg(pl.all())
    if numbered.height < low.size:
        wanted = pl.DataFrame({_RANGE: np.arange(low.size)})
        numbered = wanted.join(numbered, on=_RANGE, how="left", maintain_order="left")
    return numbered.select(pl.col(n).cast(t) for n, t in schema.items())


def _values(
    bound: Kept, values: pl.Series, there: Ints | None, first: Ints, sizes: Ints
) -> pl.DataFrame:
    """Return one value of each range, and nothing beside it.

    `there` are the indices of the values that are not null, which `first` counts; None: all are.
    """
    field = bound.fields[0]
    count = len(values) if there is None else there.size
    if not count:
        nothing = pl.repeat(None, first.size, dtype=field.dtype, eager=True)
        return nothing.alias(field.name).to_frame()
    first = np.minimum(first, count - 1)
    frame = values.gather(first if there is None else there[first]).alias(field.name).to_frame()
    value = pl.col(field.name)
    if not sizes.all():
        # Some value was taken for an empty range: a third of the time of an index with nulls.
        value = pl.when(pl.lit(pl.Series(sizes > 0))).then(value)
    return frame.select(pl.concat_list(value).cast(field.dtype).alias(field.name))
