"""Fields of a state that a stored value need not hold twice: they are in its head already.

The state of a lifetime's SUM is the sum and a count, and the sum stands in front as the feature's
value. So do extremes and counts, and the time of the newest event.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import polars as pl

from fs_notebook.compute.fold import NEWEST, Fold
from fs_notebook.language.expr import Aggregated

_HEAD = 2
"""Where the values begin in a head: behind newest and valid until."""


class Lean:
    """Tells which fields of a plan's lifetime states are left out, and puts them back.

    Parameters
    ----------
    fold
        The fold whose states they are.

    Attributes
    ----------
    left_out
        How many fields are left out of a lean state.
    """

    def __init__(self, fold: Fold) -> None:
        named = list(fold.lifetime_schema)[len(fold.keys) :]
        places = {NEWEST: 0}
        self._pairs: list[tuple[str, str]] = []
        for place, output in enumerate(fold.plan.outputs, _HEAD):
            column = _shown(fold, output.expr)
            if column is not None and column not in places:
                places[column] = place
                self._pairs.append((column, output.name))
        self.left_out = len(places)
        self.kept = [name for name in named if name not in places]
        front = _HEAD + len(fold.plan.outputs)
        order = [
            places[name] if name in places else front + self.kept.index(name) for name in named
        ]
        # An itemgetter of one place gives no tuple.
        self._pick = itemgetter(*order, order[-1])

    def is_lean(self, lifetime: pl.DataFrame, finished: pl.DataFrame) -> pl.Series:
        """Return for each row whether the fields to leave out are the values in front.

        The frames have one row an entity, in the same order, as they are stored.
        """
        same = pl.Series([True]).new_from_index(0, lifetime.height)
        for field, value in self._pairs:
            inside, front = lifetime.get_column(field), finished.get_column(value)
            # Mostly all are, and to tell that of small batches takes a thirtieth of the time.
            if not inside.equals(front, check_dtypes=True):
                same &= inside.eq_missing(front)
        return same

    def whole(self, head: list[Any], kept: list[Any]) -> tuple[Any, ...]:
        """Return all fields of a state, those left out from the value's head."""
        fields: tuple[Any, ...] = self._pick([*head, *kept])
        return fields[:-1]


def _shown(fold: Fold, expr: Any) -> str | None:
    """Return the column of a lifetime state that has an output's very value; None: there is none.

    Only where both are stored alike.
    """
    if not isinstance(expr, Aggregated) or expr.index not in fold.lifetimes:
        return None
    shown = fold.bound[expr.index].shown
    for column, field in fold.fields_of(expr.index):
        alike = field.dtype == expr.type.polars or (
            field.dtype == pl.Int128 and expr.type.polars == pl.Int64
        )
        if field.name == shown and alike:
            return column
    return None
