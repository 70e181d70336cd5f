"""The outcome of `compare`: plain records with a plain display."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from fs_notebook.inspection import plain_table


@dataclass(frozen=True)
class FeatureComparison:
    """How far one feature's values differ between two versions.

    An entity that one version has no events of has the empty fold's value there, as it is served.

    Attributes
    ----------
    types
        The SQL type in each version.
    entities, equal
        How many entities were compared, and of how many the values are equal: floats within 1e-9
        relative, all else exactly.
    only
        How many have a value in the first version alone, and in the second alone: the other is
        null.
    means
        The mean of each version's finite numbers; None where there are none.
    numbers
        How many entities have a finite number in both: what the next two are of.
    mean_difference, greatest
        Mean and greatest absolute difference; None where `numbers` is 0.
    """

    feature: str
    types: tuple[str, str]
    entities: int
    equal: int
    only: tuple[int, int]
    means: tuple[float | None, float | None] = (None, None)
    numbers: int = 0
    mean_difference: float | None = None
    greatest: float | None = None

    @property
    def share_equal(self) -> float:
        """The share of entities whose values are equal, from 0 to 1."""
        return self.equal / self.entities if self.entities else 1.0

    @property
    def percent_equal(self) -> str:
        """The same as text that is 0% or 100% only if it is."""
        share = self.share_equal
        if 0 < share < 0.001:
            return "<0.1%"
        if 0.999 < share < 1:
            return ">99.9%"
        return f"{100 * share:.1f}".removesuffix(".0") + "%"


@dataclass(frozen=True)
class Difference:
    """One entity's value in both versions; `difference` is the second less the first, if numbers.

    A version that has no events of the entity is said to lack it.
    """

    entity: str
    feature: str
    first: Any
    second: Any
    difference: float | None
    lacking: str = ""


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Two versions of a feature group side by side.

    Attributes
    ----------
    name, versions, serving
        Of which group, which two versions, and which one serves.
    at
        The t at which windows end, UTC.
    positions
        The cut that each version's values are of.
    apart
        How many entities were compared at positions that differ: one version was ahead.
    entities, known
        How many entities were compared, and how many each version has.
    sampled
        Whether those are a sample, chosen by a hash of the key.
    differing
        How many entities have a feature that differs.
    only
        How many of them the first version alone has events of, and the second alone.
    features
        What there is to say of each feature that both versions have.
    lacking
        The features that only the first version has, and only the second.
    largest
        The largest differences of each feature.
    """

    name: str
    versions: tuple[int, int]
    serving: int | None
    at: datetime
    positions: tuple[str, str]
    apart: int
    entities: int
    known: tuple[int, int]
    sampled: bool
    differing: int
    only: tuple[int, int]
    features: tuple[FeatureComparison, ...]
    lacking: tuple[tuple[str, ...], tuple[str, ...]]
    largest: tuple[Difference, ...]
    frame: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def equal(self) -> bool:
        """Whether no value that was compared differs."""
        return not self.differing

    def to_polars(self) -> pl.DataFrame:
        """Return the values: the key, then ``feature_v1`` and ``feature_v2``, a row an entity."""
        return self.frame

    def column(self, feature: str, index: int) -> pl.Series:
        """Return a feature's values in the first (0) or the second version (1)."""
        place = [f.feature for f in self.features].index(feature)
        keys = self.frame.width - 2 * len(self.features)
        return self.frame.to_series(keys + 2 * place + index)

    @property
    def line(self) -> str:
        """The outcome in one line, about the second version."""
        first, second = self.versions
        if not self.features:
            return f"v{second} has no feature of v{first}"
        if self.equal:
            return f"v{second} is equal to v{first} in all of {self.entities:,} entities"
        of = f"{self.differing:,} of {self.entities:,} entities"
        text = f"v{second} differs from v{first} in {of}"
        most = max(self.features, key=_relative)
        if most.greatest:
            text += f", most {_short(most.greatest)} for {most.feature}"
        return text

    def figures(self) -> list[tuple[str, str]]:
        """Return what there is to say beside the features, by name."""
        first, second = self.versions
        compared = f"{self.entities:,}"
        if self.sampled:
            compared += f" of {max(self.known):,}"
        shown = [
            ("entities compared", compared),
            ("entities that differ", f"{self.differing:,}"),
            ("at, UTC", f"{self.at:%Y-%m-%d %H:%M:%S.%f}"),
        ]
        if self.positions[0] == self.positions[1]:
            return [*shown, ("both at position", self.positions[0])]
        return [
            *shown,
            (f"v{first} at position", self.positions[0]),
            (f"v{second} at position", self.positions[1]),
        ]

    def notes(self) -> list[str]:
        """Return what a reader must know of how this was compared."""
        first, second = self.versions
        found = []
        if self.apart:
            found.append(
                f"The versions were at different positions when {self.apart:,} of the entities "
                "were read: some differences may be events that one of them had still to fold."
            )
        if self.sampled:
            found.append("A sample, chosen by a hash of the key.")
        for number, count in zip(self.versions, self.only, strict=True):
            if count:
                found.append(
                    f"{count:,} {'entity has' if count == 1 else 'entities have'} events in "
                    f"v{number} only; the other version serves the value of an entity that was "
                    "never seen."
                )
        for number, names in zip((first, second), self.lacking, strict=True):
            if names:
                found.append(f"Only v{number} has {', '.join(names)}.")
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a feature, by the names of the table's columns."""
        first, second = self.versions
        return [
            {
                "feature": f.feature,
                "type": " → ".join(dict.fromkeys(f.types)),
                "equal": f.percent_equal,
                "mean difference": f.mean_difference,
                "greatest": f.greatest,
                f"mean v{first}": f.means[0],
                f"mean v{second}": f.means[1],
                f"only v{first}": f.only[0],
                f"only v{second}": f.only[1],
            }
            for f in self.features
        ]

    def examples(self) -> list[dict[str, Any]]:
        """Return the largest differences, by the names of the table's columns."""
        first, second = self.versions
        rows: list[dict[str, Any]] = [
            {
                "entity": d.entity, "feature": d.feature, f"v{first}": d.first,
                f"v{second}": d.second, "difference": d.difference,
            }
            for d in self.largest
        ]  # fmt: skip
        if any(d.lacking for d in self.largest):
            for row, d in zip(rows, self.largest, strict=True):
                row["note"] = d.lacking or None
        return rows

    def __repr__(self) -> str:
        head = ", ".join(f"{name} {text}" for name, text in self.figures())
        serves = "" if self.serving is None else f" (v{self.serving} serves)"
        lines = [f"{self.name}: {self.line}{serves}", head, *self.notes()]
        for title, rows in (("", self.rows()), ("largest differences:", self.examples())):
            if rows:
                # Values are shown as they are, figures about them in a few digits.
                cells = [[_cell(n, v, self.versions) for n, v in row.items()] for row in rows]
                lines += [title] if title else []
                lines.append(plain_table(list(rows[0]), cells))
        return "\n".join(lines)


def _relative(feature: FeatureComparison) -> float:
    """Return a feature's greatest difference in relation to the size of its values."""
    size = max((abs(m) for m in feature.means if m is not None), default=0.0)
    return (feature.greatest or 0.0) / (size or 1.0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and value < 1e15 else f"{value:.4g}"


def _cell(name: str, value: Any, versions: tuple[int, int]) -> Any:
    if name in [f"v{n}" for n in versions] or not isinstance(value, float):
        return value
    return _short(value)
