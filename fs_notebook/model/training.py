"""Training sets: the labels, untouched, with each feature as it stood before each label's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.catalog.drift import check_columns
from fs_notebook.catalog.model import Definition
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute import windows
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import frozen_log, joined_log, temporal_joins
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import UsageError, plain_lines, unknown_name
from fs_notebook.language.plan import Join
from fs_notebook.log.protocol import PUBLISHED, Batch, EventLog, Stream
from fs_notebook.model.asked import PLAIN, AsOf, Chosen
from fs_notebook.model.card import card, count
from fs_notebook.model.digest import frame_digest, set_fingerprint
from fs_notebook.model.encoding import Encoding
from fs_notebook.model.export import Exports
from fs_notebook.model.labels import (
    check_entity,
    find_time,
    is_pandas,
    key_column,
    key_values,
    labels_frame,
    times_us,
)
from fs_notebook.model.late import Lateness, evidence_of
from fs_notebook.model.leaks import Leak
from fs_notebook.model.spread import spreads_of
from fs_notebook.model.summary import span_text, summary_tables, summary_text
from fs_notebook.position import START, Cut
from fs_notebook.shards.dealing import TooLarge
from fs_notebook.types import TIME

if TYPE_CHECKING:
    import pandas as pd

_COVERED = "__covered"

Wanted = Sequence[tuple[Definition, tuple[str, ...]]]


@dataclass(frozen=True, eq=False)
class TrainingSet(Exports):
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
        Stream → the cut it was read up to; of streams that are joined too.
    first, last
        The labels' oldest and newest time, UTC; None if there are no labels.
    events
        Events read.
    seconds
        How long it took.
    as_of
        Which events count for a label.
    coverage
        Feature → the share of labels for which it saw any event, from 0 to 1.
    leaks, notes
        What looks like a leak, and what else to look at before a model learns of it.
    late
        How late the streams' events are published, where publish times tell.
    same_time
        Group → the share of labels that have an event at their very time, where such events count.
    covered
        Feature → for each label, whether it saw any event.
    chosen, entity
        The definitions and what was asked of them; entity → the labels' column.
    origin
        Where the labels came from, if they can be read again.
    name
        What it is saved as in the catalog, if it is.
    encoding
        What its features become before a model, if it is saved.
    set
        The feature set that it was made of, ``set:ranker@2``, if it was one.
    tasks
        Of each stored group, how many key shards were computed together, task by task, which
        decides how floats are rounded; () in one piece.
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
    as_of: AsOf = PLAIN
    coverage: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    late: tuple[Lateness, ...] = ()
    same_time: Mapping[str, float] = field(default_factory=dict)
    covered: Mapping[str, pl.Series] = field(default_factory=dict, repr=False)
    chosen: tuple[Chosen, ...] = field(default=(), repr=False)
    entity: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    encoding: Encoding | None = field(default=None, repr=False)
    set: str | None = None
    tasks: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    _pandas: Any = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        return self.frame.height

    def __len__(self) -> int:
        return self.frame.height

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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the labels, the features' versions and the cuts, 64 hexadecimal digits.

        The same labels with the same fingerprint have the same features.
        """
        return set_fingerprint(self)

    @cached_property
    def labels_fingerprint(self) -> str:
        """SHA-256 of the labels: names, types, values and order, 64 hexadecimal digits."""
        return frame_digest(self.frame.select(self.label_columns))

    def digest_of(self, column: str) -> str:
        """Return SHA-256 of a column's name, type and values, in hexadecimal digits."""
        return frame_digest(self.frame.select(column))

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """Column → its type."""
        return self.frame.schema

    @property
    def spreads(self) -> dict[str, Any]:
        """Feature → how its values are spread, as the catalog keeps it: `model.spread.Spread`."""
        return spreads_of(self.frame, self.features)

    @property
    def nulls(self) -> dict[str, float]:
        """Feature → the share of labels for which it is null, from 0 to 1."""
        rows = max(self.rows, 1)
        return {f: self.frame.get_column(f).null_count() / rows for f in self.features}

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return plain_lines(f"training set{name}: {summary_text(self)}\n{self.frame.head(10)}")

    def _repr_html_(self) -> str:
        figures = [
            ("labels", count(self.rows)),
            ("features", count(len(self.features))),
            (f"time ({self.time})", span_text(self)),
            ("features are", str(self.as_of)),
            ("events read", count(self.events)),
            ("took", f"{self.seconds:.2f} s"),
            ("labels' fingerprint", self.labels_fingerprint[:12]),
            ("fingerprint", self.fingerprint[:12]),
        ]
        tables = summary_tables(self, self.frame.schema)
        return card(
            "Training set", figures, subtitle=self.name or "", notes=self.notes, tables=tables
        )


def build_training_set(
    labels: Any,
    wanted: Wanted,
    log: EventLog,
    *,
    time: str | None = None,
    entity: Mapping[str, str] | None = None,
    clock: Clock,
    cuts: Mapping[str, Cut] | None = None,
    as_of: AsOf = PLAIN,
    on_progress: OnProgress = silent,
    held_bytes_max: int | None = None,
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
    as_of
        Which events count: t less a lag, or only what was published before t.
    held_bytes_max
        What projected events may take in memory, if that has a bound.

    Raises
    ------
    TooLarge
        If they take more, or are about to.
    UsageError
        If the labels lack a time or a key, a time is null, a type does not fit, or a feature
        has the name of another column.
    """
    begun_s = clock.monotonic_s()
    frame = labels_frame(labels)
    features = check_names(frame, [Chosen(d, names) for d, names in wanted])
    mapping = dict(entity or {})
    check_entity(mapping, [d.plan for d, _ in wanted])
    time = find_time(frame, time)
    times = times_us(frame, time).alias(TIME)
    first, last = times.min(), times.max()
    times = times - as_of.lag_us
    groups = [Group.of(d, names, frame, mapping, times) for d, names in wanted]
    if cuts is None:
        # What is read up to an earlier cut was written by earlier schemas.
        for group in groups:
            check_columns(group.definition, log)
    ends = freeze(groups, log, cuts or {})
    reading = _Reading(log, ends, clock, begun_s, on_progress)
    reading.held_bytes_max = held_bytes_max
    columns: dict[str, pl.Series] = {}
    covered: dict[str, pl.Series] = {}
    late: list[Lateness] = []
    same_time: dict[str, float] = {}
    for rows in dict.fromkeys(g.rows for g in groups):
        mine = [g for g in groups if g.rows == rows]
        held = reading.read(mine, times)
        for group in mine:
            # Taken out, so that one group's events are gone before the next one's join.
            events = held.pop(group.definition.name)
            found = values_at(
                group.fold, events, group.moments, known=as_of.known, covered=_COVERED
            )
            evidence = evidence_of(
                group.definition, group.fold, events, group.moments, found, as_of, group.features
            )
            late += evidence.late
            same_time |= evidence.same_time
            del events
            columns |= {f: found.get_column(f) for f in group.features}
            covered |= dict.fromkeys(group.features, found.get_column(_COVERED))
    joined = frame.hstack([columns[f] for f in features]) if features else frame
    assert joined.height == frame.height
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
        as_of=as_of,
        coverage=shares(covered),
        late=tuple(late),
        same_time=same_time,
        covered=covered,
        chosen=tuple(Chosen(d, names) for d, names in wanted),
        entity=mapping,
        _pandas=labels.copy() if is_pandas(labels) else None,
    )


@dataclass(frozen=True, eq=False)
class Group:
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
    ) -> Group:
        fold = Fold(definition.plan)
        names = tuple(key_column(labels, k, entity) for k in definition.plan.keys)
        keys = [
            key_values(labels.get_column(c), key).alias(k)
            for c, key, k in zip(names, definition.plan.keys, fold.keys, strict=True)
        ]
        moments = pl.DataFrame([*keys, times])
        entities = moments.select(fold.keys).drop_nulls().unique()
        return cls(definition, features, fold, names, moments, entities)

    def no_events(self, stamps: Sequence[str]) -> pl.DataFrame:
        """Return no projected events, in their types."""
        plan, columns = self.definition.plan, dict(self.definition.source.columns)
        schema = {n: columns[n].polars for n in plan.columns}
        schema |= {n: kind.polars for join in plan.joins for n, _, kind in join.columns}
        schema |= dict.fromkeys((TIME, *stamps), pl.Datetime("us", "UTC"))
        return self.fold.project(pl.DataFrame(schema=schema), stamps=stamps)[0]


def check_names(labels: pl.DataFrame, wanted: Sequence[Chosen]) -> tuple[str, ...]:
    """Return the features' columns in the order asked for, once their names are clear."""
    if not wanted:
        raise UsageError("A training set needs at least one feature.", remedy="name one")
    features: dict[str, str] = {}
    versions: dict[str, str] = {}
    for chosen in wanted:
        definition = chosen.definition
        if versions.setdefault(chosen.name, definition.fingerprint) != definition.fingerprint:
            raise UsageError(
                f"Two versions of {definition.name!r} are wanted in one training set.",
                remedy="say which by their numbers: feature@1, feature@2",
            )
        for name, column in zip(chosen.features, chosen.columns, strict=True):
            if name not in definition.plan.features:
                raise unknown_name(
                    f"feature of {definition.name!r}", name, definition.plan.features
                )
            if column in features:
                raise UsageError(
                    f"The feature {column!r} is wanted twice.",
                    found=f"from {features[column]!r} and {definition.name!r}",
                    remedy="name it once",
                )
            if column in labels.columns:
                raise UsageError(
                    f"The labels have a column {column!r} already, like the feature.",
                    found=", ".join(labels.columns),
                    remedy="rename the labels' column, or drop it",
                )
            features[column] = definition.name
    return tuple(features)


def freeze(groups: Sequence[Group], log: EventLog, given: Mapping[str, Cut]) -> dict[str, Cut]:
    """Return the cut of each stream: the given one, or its end now.

    Joined streams come last: what an event that was read may see of them is there by then.
    """
    folded = [g.definition.source.name for g in groups]
    joined = [j.source for g in groups for j in temporal_joins(g.definition.plan.joins)]
    names = list(dict.fromkeys([*folded, *joined]))
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
        self.held_bytes_max: int | None = None
        self._log = frozen_log(log, ends)
        self._ends = ends
        # Publish times also tell how late events are: the same reading serves for both.
        self._stamps = (PUBLISHED,)
        self._clock = clock
        self._begun_s = begun_s
        self._on_progress = on_progress

    def read(self, groups: Sequence[Group], times: pl.Series) -> dict[str, pl.DataFrame]:
        """Return, for each group by name, the projected events of the labels' entities.

        The groups are of the same rows: of one stream, joined in the same way.
        """
        definition = groups[0].definition
        stream, log = definition.source, self._log
        log = joined_log(definition.plan, definition.joined, log, filtered=len(groups) == 1)
        end = self._ends[stream.name]
        columns = sorted({c for g in groups for c in g.definition.plan.columns})
        columns += self._stamps
        # By partition, since position decides between equal times and reads may interleave.
        parts: dict[str, dict[int, list[pl.DataFrame]]] = {g.definition.name: {} for g in groups}
        low, high = interval(groups, times)
        share, held_bytes = 0.0, 0
        batches = log.read(
            stream, start=START, end=end, columns=columns, time_from_us=low, time_to_us=high
        )
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                for group in groups:
                    kept = _of_labels(group, batch, self._stamps)
                    if kept.height:
                        mine = parts[group.definition.name]
                        mine.setdefault(batch.partition, []).append(kept)
                        held_bytes += int(kept.estimated_size())
                self.events += batch.rows.height
                last = end.get(batch.partition)
                if len(end.positions) == 1 and last is not None:
                    share = max(share, min((batch.end.entry + 1) / (last.entry + 1), 1.0))
                if self.held_bytes_max is not None:
                    TooLarge.check(held_bytes, share, self.held_bytes_max)
                self._tell(f"replaying {stream.name}", share or None)
        self._tell("joining", None)
        return {g.definition.name: self._joined(g, parts[g.definition.name]) for g in groups}

    def _joined(self, group: Group, parts: Mapping[int, Sequence[pl.DataFrame]]) -> pl.DataFrame:
        ordered = [frame for partition in sorted(parts) for frame in parts[partition]]
        return pl.concat(ordered) if ordered else group.no_events(self._stamps)

    def _tell(self, what: str, share: float | None) -> None:
        seconds = self._clock.monotonic_s() - self._begun_s
        self._on_progress(Progress(share, self.events, seconds, what))


def interval(groups: Sequence[Group], times: pl.Series) -> tuple[int | None, int | None]:
    """Return the half-open interval of event times that any label's window can reach."""
    first, last = times.min(), times.max()
    if not isinstance(first, int) or not isinstance(last, int):
        return None, 0
    spans = {a.window for g in groups for a in g.definition.plan.aggregations}
    if any(w.length_us is None for w in spans):
        return None, last + 1
    return min(windows.start(w, first) for w in spans), last + 1


def _of_labels(group: Group, batch: Batch, stamps: Sequence[str]) -> pl.DataFrame:
    projected, _ = group.fold.project(batch.rows, batch.positions, stamps)
    return projected.join(group.entities, on=group.fold.keys, how="semi", maintain_order="left")


def shares(covered: Mapping[str, pl.Series]) -> dict[str, float]:
    """Return feature → the share of labels that it saw an event for."""
    return {f: int(some.sum()) / max(some.len(), 1) for f, some in covered.items()}
