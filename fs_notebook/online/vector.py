"""What a read of features returns: a row an entity, each value with its status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.errors import unknown_name

if TYPE_CHECKING:
    import pandas as pd

PRESENT, NULL, NOT_FOUND = "present", "null", "not found"


@dataclass(frozen=True)
class FeatureVector:
    """The features of some entities, as they stood when they were read.

    `rows` has one dict an entity, in the order asked: the entity's own columns, then one for
    each feature. `status` says of each value whether it is present, null, or of an entity that
    was not found (its value is then the empty fold's: COUNT 0, SUM null). `newest` is the event
    time, UTC, of the newest event behind each group's value: how fresh it is.
    """

    entities: tuple[str, ...]
    features: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    newest: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, pl.DataType]
    """The features' types in Polars."""
    owners: Mapping[str, str]
    """Feature → its group."""

    @cached_property
    def status(self) -> tuple[Mapping[str, str], ...]:
        # Most readers never ask, and a read of many entities would pay for it.
        return tuple(
            {n: _status(row[n], newest[self.owners[n]]) for n in self.features}
            for row, newest in zip(self.rows, self.newest, strict=True)
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return column → values, one value an entity."""
        names = (*self.entities, *self.features)
        return {n: [row[n] for row in self.rows] for n in names}

    def to_polars(self) -> pl.DataFrame:
        """Return a frame: the entity's columns, then one column a feature."""
        return pl.DataFrame(self.to_dict(), schema_overrides=dict(self.schema))

    def to_pandas(self) -> pd.DataFrame:
        """Return the same as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.to_dict())

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, feature: str) -> list[Any]:
        if feature not in (*self.entities, *self.features):
            raise unknown_name("feature", feature, self.features)
        return [row[feature] for row in self.rows]

    def __repr__(self) -> str:
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            table = str(self.to_polars())
        missing = sum(NOT_FOUND in s.values() for s in self.status)
        return f"{len(self)} served ({missing} not found)\n{table}"

    def _repr_html_(self) -> str:
        missing = sum(NOT_FOUND in s.values() for s in self.status)
        html: str = self.to_polars()._repr_html_()
        entities = "1 entity" if len(self) == 1 else f"{len(self):,} entities"
        return f"{html}<small>{entities}, {missing} not found</small>"


def _status(value: Any, newest: Any) -> str:
    if newest is None:
        return NOT_FOUND
    return NULL if value is None else PRESENT
