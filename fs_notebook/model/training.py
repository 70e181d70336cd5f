"""Training sets: the labels, untouched, with each feature as it stood before each label's time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.catalog.drift import check_columns
from fs_notebook.catalog.model import AnyDefinition, Definition
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute import windows
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.language.plan import Join
from fs_notebook.log.protocol import Batch, EventLog, Stream
from fs_notebook.model.card import Table, card, count, moment, percent
from fs_notebook.model.labels import (
    check_entity,
    find_time,
    is_pandas,
    key_column,
    key_values,
    labels_frame,
    times_us,
)
from fs_notebook.position import START, Cut
from fs_notebook.types import TIME

if TYPE_CHECKING:
    import pandas as pd

Wanted = Sequence[tuple[Definition, tuple[str, ...]]]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Labels and features, and all that is needed to make the same again.

    Attributes
    ----------
    frame
        Exactly the label rows, in their order: the labels' columns in their own types, then one
        column a feature.
    label_columns, features
        The names of the two kinds of columns.
    time, keys
        Which label columns are the time and the entities' keys.
    versions
        Feature group → fingerprint of its plan.
    cuts
        Stream → the cut it was read up to.
    first, last
        The labels' oldest and newest time, UTC; None if there are no labels.
    events
        Events read.
    seconds
        How long it took.
    """

    frame: pl.DataFrame
    label_columns: tuple[str, ...]
    features: tuple[str, ...]
    time: str
    keys: tuple[str, ...]
    versions: Mapping[str, str]
    cuts: Mapping[str, Cut]
    first: datetime | None
    last: datetime | None
    events: int
    seconds: float
    _pandas: Any = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        return self.frame.height

    def __len__(self) -> int:
        return self.frame.height

    def to_polars(self) -> pl.DataFrame:
        """Return the frame."""
        return self.frame

    def to_pandas(self) -> pd.DataFrame:
        """Return the same as a pandas frame.

        Labels that came from pandas keep their index and their dtypes.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("pandas is not installed.", remedy="pip install pandas") from None
        if self._pandas is None:
            whole: pd.DataFrame = self.frame.to_pandas()
            return whole

        features = self.frame.select(self.features).to_pandas()
        features.index = self._pandas.index
        joined: pd.DataFrame = pd.concat([self._pandas, features], axis=1)
        return joined

    def to_dict(self) -> dict[str, list[Any]]:
        """Return column → values, one a label."""
        return self.frame.to_dict(as_series=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the labels, the features' versions and the cuts, 64 hexadecimal digits.

        The same labels with the same fingerprint have the same features.
        """
        digest = hashlib.sha256()
        what = {
            "features": self.features,
            "time": self.time,
            "keys": self.keys,
            "versions": dict(self.versions),
            "cuts": {name: cut.to_json() for name, cut in self.cuts.items()},
        }
        digest.update(json.dumps(what, sort_keys=True).encode())
        for name in self.label_columns:
            _digest_column(digest, self.frame.get_column(name))
        return digest.hexdigest()

    @property
    def nulls(self) -> dict[str, float]:
        """Feature → the share of labels for which it is null, from 0 to 1."""
        rows = max(self.rows, 1)
        return {f: self.frame.get_column(f).null_count() / rows for f in self.features}

    @property
    def _span(self) -> str:
        if self.first is None or self.last is None:
            return "no labels"
        return f"{moment(self.first)} to {moment(self.last)} UTC"

    def __repr__(self) -> str:
        cuts = "; ".join(f"{name} {cut}" for name, cut in self.cuts.items())
        versions = ", ".join(f"{n} {f[:12]}" for n, f in self.versions.items())
        nulls = ", ".join(f"{n} {percent(share)}" for n, share in self.nulls.items())
        return (
            f"training set: {count(self.rows)} labels × {len(self.features)} features, "
            f"{self._span}, {count(self.events)} events read in {self.seconds:.2f} s\n"
            f"nulls: {nulls}\nversions: {versions}\ncuts: {cuts}\n{self.frame.head(10)}"
        )

    def _repr_html_(self) -> str:
        figures = [
            ("labels", count(self.rows)),
            ("features", count(len(self.features))),
            (f"time ({self.time})", self._span),
            ("events read", count(self.events)),
            ("took", f"{self.seconds:.2f} s"),
            ("fingerprint", self.fingerprint[:12]),
        ]
        tables: list[Table] = [
            (("feature", "type", "nulls"), [
                (f, str(self.frame.schema[f]), percent(share)) for f, share in self.nulls.items()
            ]),
            (("group", "version"), [(n, f[:12]) for n, f in self.versions.items()]),
            (("stream", "cut"), [(name, str(cut)) for name, cut in self.cuts.items()]),
        ]  # fmt: skip
        return card("Training set", figures, tables=tables)


def build_training_set(
    labels: Any,
    wanted: Wanted,
    log: EventLog,
    *,
    time: str | None = None,
    entity: Mapping[str, str] | None = None,
    clock: Clock,
    cuts: Mapping[str, Cut] | None = None,
    on_progress: OnProgress = silent,
) -> TrainingSet:
    """Return the labels with each wanted feature as of just before each label's time.

    Each stream is read once, up to a cut that is frozen first, whatever number of definitions
    fold it; of its events only those of the labels' entities are held.

    Parameters
    ----------
    labels
        A Polars, pandas or Arrow table, a dict of columns or a list of dicts.
    wanted
        Definitions, each with those of its features that are wanted.
    log
        Where the events are.
    time
        The labels' time column; default: the only one that holds times. Naive times are UTC.
    entity
        Key name → the labels' column, where neither the key's nor the source's name is it.
    clock
        Times the work.
    cuts
        Stream → the cut to read up to, to make an earlier training set again.

    Raises
    ------
    UsageError
        If the labels lack a time or a key, a time is null, a type does not fit, or a feature
        has the name of another column.
    """
    begun_s = clock.monotonic_s()
    frame = labels_frame(labels)
    features = check_names(frame, wanted)
    mapping = dict(entity or {})
    check_entity(mapping, [d.plan for d, _ in wanted])
    time = find_time(frame, time)
    times = times_us(frame, time).alias(TIME)
    groups = [_Group.of(d, names, frame, mapping, times) for d, names in wanted]
    ends = _freeze(groups, log, cuts or {})
    reading = _Reading(log, ends, clock, begun_s, on_progress)
    columns: dict[str, pl.Series] = {}
    for rows in dict.fromkeys(g.rows for g in groups):
        mine = [g for g in groups if g.rows == rows]
        held = reading.read(mine, times)
        for group in mine:
            # Handed over, so that one group's events are gone before the next one's join.
            found = values_at(group.fold, held.pop(group.definition.name), group.moments)
            columns |= {f: found.get_column(f) for f in group.features}
    joined = frame.hstack([columns[f] for f in features]) if features else frame
    assert joined.height == frame.height
    first, last = times.min(), times.max()
    return TrainingSet(
        frame=joined,
        label_columns=tuple(frame.columns),
        features=features,
        time=time,
        keys=tuple(dict.fromkeys(c for g in groups for c in g.key_columns)),
        versions={g.definition.name: g.definition.fingerprint for g in groups},
        cuts=ends,
        first=from_us(first) if isinstance(first, int) else None,
        last=from_us(last) if isinstance(last, int) else None,
        events=reading.events,
        seconds=clock.monotonic_s() - begun_s,
        _pandas=labels.copy() if is_pandas(labels) else None,
    )


@dataclass(frozen=True, eq=False)
class _Group:
    """A wanted definition, ready to fold, and the labels as its moments."""

    definition: Definition
    features: tuple[str, ...]
    fold: Fold
    key_columns: tuple[str, ...]
    moments: pl.DataFrame
    entities: pl.DataFrame

    @property
    def rows(self) -> tuple[Stream, tuple[Join, ...]]:
        """What its events are read from: groups of the same rows share one reading."""
        return self.definition.source, self.definition.plan.joins

    @classmethod
    def of(
        cls,
        definition: Definition,
        features: tuple[str, ...],
        labels: pl.DataFrame,
        entity: Mapping[str, str],
        times: pl.Series,
    ) -> _Group:
        fold = Fold(definition.plan)
        names = tuple(key_column(labels, k, entity) for k in definition.plan.keys)
        keys = [
            key_values(labels.get_column(c), key).alias(k)
            for c, key, k in zip(names, definition.plan.keys, fold.keys, strict=True)
        ]
        moments = pl.DataFrame([*keys, times])
        entities = moments.select(fold.keys).drop_nulls().unique(maintain_order=True)
        return cls(definition, features, fold, names, moments, entities)


def check_names(
    labels: pl.DataFrame, wanted: Sequence[tuple[AnyDefinition, tuple[str, ...]]]
) -> tuple[str, ...]:
    """Return the features in the order asked for, once their names are clear."""
    if not wanted:
        raise UsageError("A training set needs at least one feature.", remedy="name one")
    features: dict[str, str] = {}
    versions: dict[str, str] = {}
    for definition, names in wanted:
        if versions.setdefault(definition.name, definition.fingerprint) != definition.fingerprint:
            raise UsageError(
                f"Two versions of {definition.name!r} are wanted in one training set.",
                remedy="make one training set for each",
            )
        for name in names:
            if name not in definition.plan.features:
                raise unknown_name(
                    f"feature of {definition.name!r}", name, definition.plan.features
                )
            if name in features:
                raise UsageError(
                    f"The feature {name!r} is wanted twice.",
                    found=f"from {features[name]!r} and {definition.name!r}",
                    remedy="name it once",
                )
            if name in labels.columns:
                raise UsageError(
                    f"The labels have a column {name!r} already, like the feature.",
                    found=", ".join(labels.columns),
                    remedy="rename the labels' column, or drop it",
                )
            features[name] = definition.name
    return tuple(features)


def _freeze(groups: Sequence[_Group], log: EventLog, given: Mapping[str, Cut]) -> dict[str, Cut]:
    """Return the cut of each stream: the given one, or its end now."""
    names = list(dict.fromkeys(g.definition.source.name for g in groups))
    for name in given:
        if name not in names:
            raise unknown_name("stream of these features", name, names)
    return {name: given[name] if name in given else log.end(name) for name in names}


class _Reading:
    """Reads streams for training, counting what it read over all of them."""

    def __init__(
        self,
        log: EventLog,
        ends: Mapping[str, Cut],
        clock: Clock,
        begun_s: float,
        on_progress: OnProgress,
    ) -> None:
        self.events = 0
        self._log = log
        self._ends = ends
        self._clock = clock
        self._begun_s = begun_s
        self._on_progress = on_progress

    def read(self, groups: Sequence[_Group], times: pl.Series) -> dict[str, pl.DataFrame]:
        """Return, for each group by name, the projected events of the labels' entities.

        The groups are of the same rows: of one stream, joined in the same way.
        """
        definition = groups[0].definition
        stream, log = definition.source, self._log
        for group in groups:
            check_columns(group.definition, log)
        log = joined_log(definition.plan, definition.joined, log, filtered=len(groups) == 1)
        end = self._ends[stream.name]
        columns = sorted({c for g in groups for c in g.definition.plan.columns})
        # By partition, since position decides between equal times and reads may interleave.
        parts: dict[str, dict[int, list[pl.DataFrame]]] = {g.definition.name: {} for g in groups}
        low, high = _interval(groups, times)
        share = 0.0
        batches = log.read(
            stream, start=START, end=end, columns=columns, time_from_us=low, time_to_us=high
        )
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                for group in groups:
                    kept = _of_labels(group, batch)
                    if kept.height:
                        mine = parts[group.definition.name]
                        mine.setdefault(batch.partition, []).append(kept)
                self.events += batch.rows.height
                last = end.get(batch.partition)
                if len(end.positions) == 1 and last is not None:
                    share = max(share, min((batch.end.entry + 1) / (last.entry + 1), 1.0))
                self._tell(f"replaying {stream.name}", share or None)
        self._tell("joining", None)
        return {g.definition.name: _joined(g, parts[g.definition.name]) for g in groups}

    def _tell(self, what: str, share: float | None) -> None:
        seconds = self._clock.monotonic_s() - self._begun_s
        self._on_progress(Progress(share, self.events, seconds, what))


def _interval(groups: Sequence[_Group], times: pl.Series) -> tuple[int | None, int | None]:
    """Return the half-open interval of event times that any label's window can reach."""
    first, last = times.min(), times.max()
    if not isinstance(first, int) or not isinstance(last, int):
        return None, 0
    spans = {a.window for g in groups for a in g.definition.plan.aggregations}
    if any(w.length_us is None for w in spans):
        return None, last + 1
    return min(windows.start(w, first) for w in spans), last + 1


def _of_labels(group: _Group, batch: Batch) -> pl.DataFrame:
    projected, _ = group.fold.project(batch.rows, batch.positions)
    return projected.join(group.entities, on=group.fold.keys, how="semi", maintain_order="left")


def _joined(group: _Group, parts: Mapping[int, Sequence[pl.DataFrame]]) -> pl.DataFrame:
    ordered = [frame for partition in sorted(parts) for frame in parts[partition]]
    if ordered:
        return pl.concat(ordered)
    plan, columns = group.definition.plan, dict(group.definition.source.columns)
    schema = {n: columns[n].polars for n in plan.columns}
    schema |= {n: kind.polars for join in plan.joins for n, _, kind in join.columns}
    empty = pl.DataFrame(schema=schema)
    time = pl.Series(TIME, [], dtype=pl.Datetime("us", "UTC"))
    return group.fold.project(empty.with_columns(time))[0]


def _digest_column(digest: Any, column: pl.Series) -> None:
    """Feed a column into a hash by its values, however its memory is laid out."""
    digest.update(f"{column.name}\0{column.dtype}\0{column.len()}\0".encode())
    digest.update(column.is_null().to_numpy().tobytes())
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        digest.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
        digest.update("".join(column.drop_nulls()).encode())
        return
    if column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    plain = column.dtype.is_integer() or column.dtype.is_float() or column.dtype.is_temporal()
    if plain and column.dtype not in (pl.Int128, pl.UInt128):
        digest.update(column.to_physical().fill_null(0).to_numpy().tobytes())
    else:
        digest.update("\n".join(repr(v) for v in column).encode())
