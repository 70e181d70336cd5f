"""Training sets in the catalog: how each was made, so that it can be made again. No data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from fs_notebook.errors import plain
from fs_notebook.position import Cut

TRAINED = "trained"


@dataclass(frozen=True)
class TrainingRecipe:
    """All that a training set was made of, but for the labels and the events themselves.

    Attributes
    ----------
    name
        What it was saved as.
    wanted
        The definitions as they were then, each with its features and the version's number where
        one was named: ``{"definition": …, "features": […], "version": 2}``.
    columns
        The features' columns.
    time, entity
        The labels' time column; entity → column, where they differ.
    lag_us, known
        Which events count: see `model.asked.AsOf`.
    cuts
        Stream → the cut it was read up to, as text.
    streams
        Stream → its identity and where it began, by which another one, or one that lost events,
        is told.
    labels
        Where the labels came from, if they can be read again: a stream up to a cut, SQL over
        streams up to cuts, or a file.
    label_columns
        The labels' columns and their types.
    labels_fingerprint, fingerprint
        SHA-256 of the labels, and of labels, versions, cuts and options.
    values
        Column → SHA-256 of its values.
    rows, first, last
        Of the labels: how many, and their oldest and newest time.
    coverage, nulls
        Column → the share of labels that saw an event, and of nulls.
    notes
        What to look at before a model learns of it.
    set
        The feature set that it was made of, ``set:ranker@2``, if it was one.
    encoding
        What its features become before a model: see `model.encoding.Encoding`. It holds the
        categories of texts, and no other values.
    spreads
        Column → how its values were spread, in bins: see `model.spread.Spread`.
    tasks
        By which key shards it was computed: see `model.training.TrainingSet`.
    """

    name: str
    wanted: tuple[Mapping[str, Any], ...]
    columns: tuple[str, ...]
    time: str
    entity: Mapping[str, str]
    lag_us: int
    known: bool
    cuts: Mapping[str, str]
    streams: Mapping[str, tuple[str, str]]
    labels: Mapping[str, Any]
    label_columns: tuple[tuple[str, str], ...]
    labels_fingerprint: str
    fingerprint: str
    values: Mapping[str, str]
    rows: int
    first: str | None
    last: str | None
    coverage: Mapping[str, float] = field(default_factory=dict)
    nulls: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    set: str | None = None
    encoding: Mapping[str, Any] | None = None
    spreads: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[tuple[int, ...], ...] = ()

    @property
    def ends(self) -> dict[str, Cut]:
        """Stream → the cut it was read up to."""
        return {name: Cut.from_json(text) for name, text in self.cuts.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, fit for `json.dumps`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingRecipe:
        """Return the recipe that `to_dict` wrote; what later versions add is passed over."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        known["streams"] = {n: (i, b) for n, (i, b) in data["streams"].items()}
        known["label_columns"] = tuple((n, t) for n, t in data["label_columns"])
        for name in ("wanted", "columns", "notes"):
            known[name] = tuple(data[name])
        known["tasks"] = tuple(tuple(sizes) for sizes in data.get("tasks", ()))
        return cls(**known)


@dataclass(frozen=True)
class SavedTrainingSet:
    """A training set in the catalog.

    Attributes
    ----------
    recipe
        How it was made.
    actor, at
        Who saved it, and when.
    """

    recipe: TrainingRecipe
    actor: str
    at: datetime

    @property
    def name(self) -> str:
        return self.recipe.name

    def to_dict(self) -> dict[str, Any]:
        """Return what a list shows of it, fit for `json.dumps`."""
        made = self.recipe
        return {
            "name": made.name, "rows": made.rows, "features": list(made.columns),
            "first": made.first, "last": made.last, "set": made.set,
            "fingerprint": made.fingerprint, "actor": self.actor, "at": self.at.isoformat(),
        }  # fmt: skip

    def __repr__(self) -> str:
        made = self.recipe
        return plain(
            f"training set {made.name}: {made.rows:,} labels × {len(made.columns)} features "
            f"({', '.join(made.columns)}), {made.first} to {made.last}, "
            f"saved by {self.actor} at {self.at:%Y-%m-%d %H:%M} UTC ({made.fingerprint[:12]})"
        )


def saved_of(body: Mapping[str, Any], actor: str, at: datetime) -> SavedTrainingSet:
    """Return the training set that an event of the catalog tells of."""
    return SavedTrainingSet(TrainingRecipe.from_dict(body["recipe"]), actor, at)
