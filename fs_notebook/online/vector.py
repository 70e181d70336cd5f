"""What a read of features returns: a row an entity, each value with its status and freshness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.clock import from_us
from fs_notebook.errors import plain, plain_lines, unknown_name

if TYPE_CHECKING:
    import pandas as pd

PRESENT, NULL, NOT_FOUND, EXPIRED = "present", "null", "not found", "expired"
STATUSES = (PRESENT, NULL, NOT_FOUND, EXPIRED)
STATUS = pl.Enum(STATUSES)
MOMENT = pl.Datetime("us", "UTC")


@dataclass(eq=False)
class FeatureVector:
    """The features of some entities, as they stood when they were read.

    Attributes
    ----------
    columns
        Column → values, one value an entity in the order asked: the entity's own columns, then
        one for each feature.
    schema
        The features' types in Polars.
    owners
        Feature → its version, as it was asked for: ``reading_time``, ``reading_time@2``.
    versions
        That name → the version's number.
    newest_us
        That name → event time of the newest event behind each entity's values, in microseconds
        since the epoch; None where the entity was not found.
    expired
        That name → the rows whose newest event is older than the version's time to live.
    at_us
        The time that the values are of.
    fetched_us
        When the oldest of them was read from the store: before `at_us` only with a local cache.
    notices
        What whoever reads these should know: which of them are deprecated, and why.
    """

    entities: tuple[str, ...]
    features: tuple[str, ...]
    columns: Mapping[str, list[Any]]
    schema: Mapping[str, pl.DataType]
    owners: Mapping[str, str]
    versions: Mapping[str, int]
    newest_us: Mapping[str, Sequence[int | None]]
    expired: Mapping[str, frozenset[int]]
    at_us: int
    fetched_us: int
    count: int
    notices: tuple[str, ...] = ()

    @property
    def at(self) -> datetime:
        """The time, UTC, that the values are of: windows and times to live end here."""
        return from_us(self.at_us)

    @property
    def fetched_at(self) -> datetime:
        """When, UTC, the oldest of the values was read from the store."""
        return from_us(self.fetched_us)

    @cached_property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """One dict an entity."""
        names = list(self.columns)
        return tuple(
            dict(zip(names, r, strict=True)) for r in zip(*self.columns.values(), strict=True)
        )

    def status_of(self, feature: str) -> list[str]:
        """Return of each value whether it is present, null, not found, or expired."""
        owner = self.owners[feature]
        expired = self.expired.get(owner, frozenset())
        statuses = []
        for row, (value, newest) in enumerate(
            zip(self.columns[feature], self.newest_us[owner], strict=True)
        ):
            if newest is None:
                statuses.append(NOT_FOUND)
            elif value is not None:
                statuses.append(PRESENT)
            else:
                statuses.append(EXPIRED if row in expired else NULL)
        return statuses

    def status(self) -> pl.DataFrame:
        """Return a frame like `to_polars`, with each value's status in its place.

        A value is ``present``; ``null``, as the definition says of these events; of an entity that
        was ``not found``, since no event of it was folded (its value is the empty fold's: COUNT 0,
        SUM null); or ``expired``: null, since its newest event is older than the time to live.
        """
        return self._framed({n: self.status_of(n) for n in self.features}, STATUS)

    def freshness(self) -> pl.DataFrame:
        """Return a frame like `to_polars`, with the newest event's time, UTC, behind each value."""
        times = {o: pl.Series(us, dtype=pl.Int64).cast(MOMENT) for o, us in self.newest_us.items()}
        return self._framed({n: times[self.owners[n]] for n in self.features}, MOMENT)

    def _framed(self, columns: Mapping[str, Any], dtype: pl.DataType) -> pl.DataFrame:
        entities = {n: self.columns[n] for n in self.entities}
        return pl.DataFrame({**entities, **columns}, schema_overrides=dict.fromkeys(columns, dtype))

    def to_dict(self) -> dict[str, list[Any]]:
        """Return column → values, one value an entity."""
        return {n: [*values] for n, values in self.columns.items()}

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
        return self.count

    def __getitem__(self, feature: str) -> list[Any]:
        if feature not in self.columns:
            raise unknown_name("feature", feature, self.features)
        return [*self.columns[feature]]

    def known(self) -> dict[str, int]:
        """Return how many entities have a value of each status."""
        statuses = [set(s) for s in zip(*map(self.status_of, self.features), strict=True)]
        return {name: sum(name in s for s in statuses) for name in STATUSES}

    def _told(self) -> str:
        """Return how many entities have values that are missing, and why."""
        known = self.known()
        expired = f", {known[EXPIRED]} expired" if known[EXPIRED] else ""
        return f"{known[NOT_FOUND]} not found{expired}"

    def __repr__(self) -> str:
        with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
            table = plain_lines(str(self.to_polars()))
        notices = "".join(f"\nnote: {plain(notice)}" for notice in self.notices)
        return f"{len(self)} served ({self._told()})\n{table}{notices}"

    def _repr_html_(self) -> str:
        html = plain_lines(self.to_polars()._repr_html_())
        entities = "1 entity" if len(self) == 1 else f"{len(self):,} entities"
        notices = "".join(f"<p><small>⚠ {escape(plain(n))}</small></p>" for n in self.notices)
        return f"{html}<small>{entities}, {self._told()}</small>{notices}"
