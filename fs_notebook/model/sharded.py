"""Training sets by key shards: out of core, or on Ray, and the same as in one piece.

Labels are read a slice at a time, and their keys and times dealt out by the hash of each group's
entity; then each stream is read once, and its projected events are dealt out alike. A shard's
values come from the very join of the whole. They are dealt out once more, by the slices of the
labels that they belong to, and put beside those in their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fs_notebook.catalog.drift import check_columns
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.delays import Counts, Glance, Question, step_of
from fs_notebook.compute.joins import frozen_log, joined_log
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import PUBLISHED, EventLog
from fs_notebook.model.asked import PLAIN, AsOf, Chosen
from fs_notebook.model.derived import AnyWanted, noted, training_set_of
from fs_notebook.model.labels import check_entity, find_time, is_pandas, times_us
from fs_notebook.model.late import Evidence, evidence_from, question_of
from fs_notebook.model.slices import LabelSlices
from fs_notebook.model.training import (
    Group,
    TrainingSet,
    Wanted,
    build_training_set,
    check_names,
    freeze,
    interval,
    shares,
)
from fs_notebook.position import START, Cut, Way
from fs_notebook.shards.dealing import (
    FINE,
    WORK_FACTOR,
    Dealt,
    Limits,
    TooLarge,
    check_shards,
    memory_bytes,
    together,
)
from fs_notebook.shards.engines import LOCAL, Engine, engine_of
from fs_notebook.shards.hashing import Asked, key_hashes, shards_of
from fs_notebook.shards.spill import Spill, spilling, to_block
from fs_notebook.shards.work import (
    COVERED,
    LOG_PARTITION,
    ROW,
    Task,
    asked_text,
    unpacked,
)
from fs_notebook.types import TIME


@dataclass(frozen=True)
class How:
    """How the work is shared out.

    Attributes
    ----------
    shards
        How many key shards; None: as many as fit memory.
    engine
        ``"local"`` or ``"ray"``.
    limits
        What bounds memory; None: what fits this machine.
    tasks
        Of each stored group, how many shards are computed together, task by task, as an earlier
        set was: floats are rounded alike then. None: each by itself, or as many as fit memory.
    """

    shards: int | None = None
    engine: str = LOCAL
    limits: Limits | None = None
    tasks: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        check_shards(self.shards)


def training_set_of_any_size(
    labels: Any, wanted: AnyWanted, log: EventLog, *, how: How, **options: Any
) -> TrainingSet:
    """Return what `training_set_of` returns: by key shards where its events would not fit memory.

    That they would not is told by how much there is of a first part of the log, or, where a cut
    does not say how long the log is, when what is held has become too much. Then the log is read
    once more.
    """
    on_progress = options.get("on_progress", silent)
    if how.shards is None and how.engine == LOCAL:
        most = memory_bytes() // WORK_FACTOR
        build = partial(build_training_set, held_bytes_max=most)
        try:
            return training_set_of(labels, wanted, log, build=build, **options)
        except TooLarge as large:
            told = f"{large.told}: by key shards, out of core"
            on_progress(Progress(None, 0, 0.0, told))
    return sharded_training_set(labels, wanted, log, how=how, **options)


def sharded_training_set(
    labels: Any, wanted: AnyWanted, log: EventLog, *, how: How, **options: Any
) -> TrainingSet:
    """Return what `training_set_of` returns, with only a shard's events in memory at once.

    Labels and values are in memory as ever; `write_training_set` writes them instead.

    Parameters
    ----------
    labels, wanted, log, options
        As for `training_set_of`.
    how
        How the work is shared out.
    """
    with sharded_slices(labels, wanted, log, how=how, **options) as (_, slices):
        parts = list(slices)
    first = parts[0]
    frame = pl.concat([p.frame for p in parts])
    covered = {c: pl.concat([p.covered[c] for p in parts]) for c in first.covered}
    times = [(p.first, p.last) for p in parts if p.first is not None and p.last is not None]
    made = replace(
        parts[-1],
        frame=frame,
        first=min((a for a, _ in times), default=None),
        last=max((b for _, b in times), default=None),
        coverage=shares(covered),
        covered=covered,
        _pandas=labels.copy() if is_pandas(labels) else None,
    )
    return noted(made)


@contextmanager
def sharded_slices(
    labels: Any,
    wanted: AnyWanted,
    log: EventLog,
    *,
    how: How,
    time: str | None = None,
    entity: Mapping[str, str] | None = None,
    clock: Clock,
    cuts: Mapping[str, Cut] | None = None,
    as_of: AsOf = PLAIN,
    on_progress: OnProgress = silent,
) -> Iterator[tuple[TrainingSet, Iterator[TrainingSet]]]:
    """Give the training set of no labels, and those of the labels' slices in order.

    There is at least one slice. What was put aside on disk is gone at the end, or at an interrupt.
    """
    engine = engine_of(how.engine)
    given = partial(
        training_set_of, wanted=wanted, log=log, time=time, entity=entity, clock=clock, cuts=cuts,
        as_of=as_of, on_progress=on_progress,
    )  # fmt: skip
    source = LabelSlices(labels)
    with spilling() as folder:
        work = _Work(source, log, how, engine, folder, clock, as_of, on_progress)
        # What there is to join is known by asking for it with no labels.
        head = given(source.head, build=work.prepare)
        work.run()

        def slices() -> Iterator[TrainingSet]:
            for number, frame in enumerate(work.label_slices()):
                yield given(frame, build=partial(work.slice_of, number))

        yield head, slices()


class _Work:
    """One training set in the making."""

    def __init__(
        self,
        labels: LabelSlices,
        log: EventLog,
        how: How,
        engine: Engine,
        folder: Path,
        clock: Clock,
        as_of: AsOf,
        on_progress: OnProgress,
    ) -> None:
        self._labels, self._log, self._engine, self._folder = labels, log, engine, folder
        self._shards = how.shards
        self._count = sum(how.tasks[0]) if how.tasks else how.shards or FINE
        self._limits = how.limits or Limits.here()
        self._clock, self._as_of, self._on_progress = clock, as_of, on_progress
        self._begun_s = clock.monotonic_s()
        # Publish times also tell how late events are: the same reading serves for both.
        self._stamps = (PUBLISHED,)
        self._events = 0
        self._rows = 0
        self._first: int | None = None
        self._last: int | None = None
        self._values: list[Spill] = []
        self._evidence: list[Evidence] = []
        self._given = how.tasks
        self._together: list[list[list[int]]] = []

    def prepare(
        self,
        labels: pl.DataFrame,
        wanted: Wanted,
        log: EventLog,
        *,
        time: str | None,
        entity: Mapping[str, str] | None,
        cuts: Mapping[str, Cut] | None,
        **_: Any,
    ) -> TrainingSet:
        """Learn what is to be joined; return it for no labels."""
        check_names(labels, [Chosen(d, names) for d, names in wanted])
        check_entity(dict(entity or {}), [d.plan for d, _ in wanted])
        self._wanted, self._mapping = wanted, dict(entity or {})
        self._time = find_time(labels, time)
        groups = self._groups_of(labels)
        self._heads = groups
        if cuts is None:
            for group in groups:
                check_columns(group.definition, log)
        self._cuts = freeze(groups, log, cuts or {})
        return self._made(labels, groups, [_nothing(g, self._as_of) for g in groups])

    def run(self) -> None:
        """Deal out labels and events, and compute all shards."""
        buffer = self._limits.buffer_bytes // len(self._heads)
        spill = partial(Spill, count=self._count, buffer_bytes=buffer)
        moments = [spill(self._folder / f"labels-{i}") for i in range(len(self._heads))]
        asked = [Asked() for _ in self._heads]
        self._deal_labels(moments, asked)
        dealt = [
            Dealt(g.fold, spill(self._folder / f"events-{i}"), a)
            for i, (g, a) in enumerate(zip(self._heads, asked, strict=True))
        ]
        self._deal_events(dealt)
        self._values = [
            Spill(self._folder / f"values-{i}", self._slice_count, buffer_bytes=buffer)
            for i in range(len(self._heads))
        ]
        self._together = [
            self._runs(index, labels, one.events)
            for index, (labels, one) in enumerate(zip(moments, dealt, strict=True))
        ]
        glances = self._compute(moments, dealt)
        self._look_for_late(moments, dealt, glances)

    def label_slices(self) -> Iterator[pl.DataFrame]:
        """Yield the labels again, in the slices that the values were dealt out to.

        Raises
        ------
        UsageError
            If they are others than they were.
        """
        rows = 0
        for frame in self._labels(self._slice_rows) if self._rows else [self._labels.head]:
            rows += frame.height
            if rows > self._rows:
                break
            yield frame
        if rows != self._rows:
            raise UsageError(
                "The labels changed while their features were computed.",
                found=f"{self._rows:,} rows first, then others", remedy="ask again",
            )  # fmt: skip

    def slice_of(
        self, number: int, labels: pl.DataFrame, wanted: Wanted, log: EventLog, **_: Any
    ) -> TrainingSet:
        """Return a slice of the labels with what is joined to it."""
        found = []
        for head, group, spill in zip(
            self._heads, self._groups_of(labels), self._values, strict=True
        ):
            values = spill.frame([number])
            if values is None:
                values = _nothing(head, self._as_of).with_columns(_rows_from(0, 0))
            values = values.sort(ROW)
            assert values.height == labels.height, group.definition.name
            found.append(values)
        self._tell("writing", (number + 1) / self._slice_count)
        return self._made(labels, self._groups_of(labels), found)

    def _groups_of(self, labels: pl.DataFrame) -> list[Group]:
        times = times_us(labels, self._time).alias(TIME) - self._as_of.lag_us
        return [Group.of(d, names, labels, self._mapping, times) for d, names in self._wanted]

    def _made(
        self, labels: pl.DataFrame, groups: Sequence[Group], found: Sequence[pl.DataFrame]
    ) -> TrainingSet:
        columns = [v.get_column(f) for g, v in zip(groups, found, strict=True) for f in g.features]
        covered = {
            f: v.get_column(COVERED).alias(f)
            for g, v in zip(groups, found, strict=True)
            for f in g.features
        }
        times = times_us(labels, self._time)
        first, last = times.min(), times.max()
        return TrainingSet(
            frame=labels.hstack(columns),
            label_columns=tuple(labels.columns),
            features=tuple(c.name for c in columns),
            time=self._time,
            keys=tuple(dict.fromkeys(c for g in groups for c in g.key_columns)),
            versions={g.definition.name: g.definition.fingerprint for g in groups},
            cuts=self._cuts,
            first=from_us(first) if isinstance(first, int) else None,
            last=from_us(last) if isinstance(last, int) else None,
            events=self._events,
            seconds=self._clock.monotonic_s() - self._begun_s,
            as_of=self._as_of,
            coverage=shares(covered),
            # The events tell of all labels at once: each slice has what is told of the whole.
            late=tuple(late for one in self._evidence for late in one.late),
            same_time={name: s for one in self._evidence for name, s in one.same_time.items()},
            covered=covered,
            tasks=tuple(tuple(map(len, mine)) for mine in self._together),
            chosen=tuple(Chosen(d, names) for d, names in self._wanted),
            entity=self._mapping,
        )

    def _deal_labels(self, moments: Sequence[Spill], asked: Sequence[Asked]) -> None:
        for labels in self._labels(self._limits.slice_rows):
            groups = self._groups_of(labels)
            numbers = _rows_from(self._rows, labels.height)
            for group, spill, there in zip(groups, moments, asked, strict=True):
                hashes = key_hashes(group.moments, group.fold.keys)
                there.add(hashes)
                spill.add(group.moments.with_columns(numbers), shards_of(hashes, spill.count))
            times = groups[0].moments.get_column(TIME)
            low, high = times.min(), times.max()
            assert isinstance(low, int)
            assert isinstance(high, int)
            self._first = low if self._first is None else min(self._first, low)
            self._last = high if self._last is None else max(self._last, high)
            self._rows += labels.height
            self._tell("reading labels", None)
        # Of even sizes, so that no last slice is too small to tell a leak by.
        self._slice_count = max(-(-self._rows // self._limits.slice_rows), 1)
        self._slice_rows = max(-(-self._rows // self._slice_count), 1)

    def _deal_events(self, dealt: Sequence[Dealt]) -> None:
        log = frozen_log(self._log, self._cuts)
        for rows in dict.fromkeys(g.rows for g in self._heads):
            pairs = [(g, d) for g, d in zip(self._heads, dealt, strict=True) if g.rows == rows]
            mine = [g for g, _ in pairs]
            definition = mine[0].definition
            stream, end = definition.source, self._cuts[definition.source.name]
            seen = joined_log(definition.plan, definition.joined, log, filtered=len(mine) == 1)
            columns = sorted({c for g in mine for c in g.definition.plan.columns})
            columns += self._stamps
            low, high = interval(mine, pl.Series([self._first, self._last], dtype=pl.Int64))
            way, at = Way(end), START
            way.share(at)
            batches = seen.read(
                stream, start=START, end=end, columns=columns, time_from_us=low, time_to_us=high
            )
            with closing(batches):  # type: ignore[type-var]
                for batch in batches:
                    for _, one in pairs:
                        one.add(batch, self._stamps)
                    self._events += batch.rows.height
                    at = at.advanced([batch.end])
                    self._tell(f"replaying {stream.name}", way.share(at))

    def _compute(self, moments: Sequence[Spill], dealt: Sequence[Dealt]) -> list[list[Glance]]:
        """Put the values aside; return what was seen of each group's events."""
        glances: list[list[Glance]] = [[] for _ in self._heads]
        what = {"known": self._as_of.known, "step": step_of(self._rows)}
        tasks = self._tasks(moments, dealt, dict.fromkeys(range(len(self._heads)), what))
        whole, done = max(sum(sum(m.rows) for m in moments), 1), 0
        for number, block in self._engine(tasks):
            values, glance = unpacked(block)
            slices = values.get_column(ROW).to_numpy() // self._slice_rows
            index = number % len(self._heads)
            self._values[index].add(values, slices.astype(np.int64))
            if glance is not None:
                # One by one, so that no more than two are held of a group.
                glances[index] = [Glance.merged([*glances[index], glance])]
            done += values.height
            self._tell(f"joining {self._count} key shards", done / whole)
        return glances

    def _look_for_late(
        self, moments: Sequence[Spill], dealt: Sequence[Dealt], glances: Sequence[list[Glance]]
    ) -> None:
        """Count the labels that late events reach, once all shards told how late events are.

        The shards are read again from the disk, only where publish times tell of delays.
        """
        step = step_of(self._rows)
        asked: dict[int, Question] = {}
        for index, (group, mine) in enumerate(zip(self._heads, glances, strict=True)):
            if mine and (one := question_of(mine[0], self._as_of, group.features, step)):
                asked[index] = one
        counts = dict.fromkeys(asked, Counts())
        what = {index: {"asked": one.to_dict()} for index, one in asked.items()}
        whole, done = max(sum(sum(moments[index].rows) for index in asked), 1), 0
        for number, block in self._engine(self._tasks(moments, dealt, what)):
            told = json.loads(block)
            counts[number % len(self._heads)] += Counts(**told["counts"])
            done += told["labels"]
            self._tell("looking for late events", done / whole)
        self._evidence = [
            evidence_from(
                group.definition, mine[0], asked.get(index), counts.get(index), self._as_of,
                self._rows,
            )
            for index, (group, mine) in enumerate(zip(self._heads, glances, strict=True)) if mine
        ]  # fmt: skip

    def _tasks(
        self,
        moments: Sequence[Spill],
        dealt: Sequence[Dealt],
        what: Mapping[int, Mapping[str, Any]],
    ) -> Iterator[Task]:
        """Yield the tasks of those groups, by their places, of which something is asked."""
        every, place = len(self._heads), 0
        for index, options in what.items():
            group, labels, one = self._heads[index], moments[index], dealt[index]
            text = asked_text(group.fold.plan, **options)
            nothing = to_block(_no_events(group, self._stamps))
            for some in self._together[index]:
                asked = labels.blocks(some)
                if asked:
                    events = one.events.blocks(some) or [nothing]
                    # The number says of which group it is.
                    yield Task(place * every + index, text, tuple(events), tuple(asked))
                    place += 1

    def _runs(self, index: int, labels: Spill, events: Spill) -> list[list[int]]:
        """Return which shards of a group are computed together."""
        labels.flush()
        events.flush()
        if self._given:
            ends = np.cumsum(self._given[index]).tolist()
            starts = [0, *ends[:-1]]
            return [list(range(a, b)) for a, b in zip(starts, ends, strict=True)]
        sizes = [a + b for a, b in zip(labels.bytes, events.bytes, strict=True)]
        limit = self._limits.task_bytes
        return list(together(self._count, sizes, shards=self._shards, task_bytes=limit))

    def _tell(self, what: str, share: float | None) -> None:
        seconds = self._clock.monotonic_s() - self._begun_s
        self._on_progress(Progress(share, self._events, seconds, what))


def _rows_from(first: int, count: int) -> pl.Series:
    return pl.int_range(first, first + count, dtype=pl.Int64, eager=True).alias(ROW)


def _no_events(group: Group, stamps: Sequence[str]) -> pl.DataFrame:
    number = pl.lit(0, dtype=pl.Int32).alias(LOG_PARTITION)
    return group.no_events(stamps).with_columns(number)


def _nothing(group: Group, as_of: AsOf) -> pl.DataFrame:
    """Return the group's columns for no labels."""
    moments, events = group.moments.head(0), group.no_events((PUBLISHED,))
    return values_at(group.fold, events, moments, known=as_of.known, covered=COVERED)
