"""Which column of events is likely the entity that they belong to: a proposal, never more."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

_ENTITIES = re.compile(
    r"(.*_)?(user|customer|client|member|visitor|reader|player|account|card|device|session|"
    r"household|patient|driver|employee|seller|merchant|shop|store)(_?(id|key|no|number|name))?",
    re.IGNORECASE,
)
_REFERS = re.compile(r".+(_id|_key|_uuid|[a-z]Id)", re.DOTALL)
ROWS_MIN = 20
"""Of fewer rows the values tell nothing."""
ROWS_EACH_MIN = 5


def proposed_key(frame: pl.DataFrame, *, but: Sequence[str | None] = ()) -> str | None:
    """Return the column by which events are most likely looked at; None if none looks like one.

    It is text or whole numbers and never null. First come columns that are named like an entity,
    ``user`` or ``customer_id``; then other ``…_id`` whose values repeat; then the text column with
    the most values of those whose values repeat five times on average.

    Parameters
    ----------
    frame
        Some of the events, any number of rows.
    but
        Columns that are something else: times, ids of events.
    """
    if not frame.height:
        return None
    able = [
        c for c, t in frame.schema.items()
        if (t == pl.String or t.is_integer()) and c not in but and not frame[c].null_count()
    ]  # fmt: skip
    if named := [c for c in able if _ENTITIES.fullmatch(c)]:
        return named[0]
    counts = {c: frame[c].n_unique() for c in able}
    if refers := [c for c in able if _REFERS.fullmatch(c) and counts[c] < frame.height]:
        return refers[0]
    few = [
        c for c in able
        if frame.schema[c] == pl.String and 1 < counts[c] <= frame.height / ROWS_EACH_MIN
    ]  # fmt: skip
    return max(few, key=counts.__getitem__) if few and frame.height >= ROWS_MIN else None
