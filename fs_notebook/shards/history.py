"""Backfills: the values of all entities at a cut, folded from history by key shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import frozen_log, joined_log, temporal_joins
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import plain_lines
from fs_notebook.log.protocol import EventLog
from fs_notebook.position import START, Cut, Way
from fs_notebook.shards.dealing import FINE, Dealt, Limits, check_shards, together
from fs_notebook.shards.engines import LOCAL, engine_of
from fs_notebook.shards.spill import Spill, from_blocks, spilling
from fs_notebook.shards.work import Task, asked_text
from fs_notebook.types import TIME


@dataclass(frozen=True, eq=False)
class Backfill:
    """The values of all entities that a feature group has at a cut.

    Attributes
    ----------
    frame
        One row an entity, sorted by key: its key columns, then one column a feature. None where it
        was written to a file.
    path
        That file, Parquet, in no order; else None.
    entities
        How many there are.
    cut
        The position in the log that history was folded up to.
    at
        The time that the values are of, UTC.
    events, null_keys
        Events read; rows dropped for a null key.
    seconds
        How long it took.
    """

    name: str
    keys: tuple[str, ...]
    features: tuple[str, ...]
    frame: pl.DataFrame | None
    path: Path | None
    entities: int
    cut: Cut
    at: datetime
    events: int
    null_keys: int
    seconds: float

    def scan(self) -> pl.LazyFrame:
        """Return the rows, unread where they are in a file."""
        if self.frame is not None:
            return self.frame.lazy()
        assert self.path is not None
        return pl.scan_parquet(self.path)

    def to_polars(self) -> pl.DataFrame:
        """Return the rows, sorted by key; they have to fit memory."""
        return self.scan().sort(self.keys).collect() if self.frame is None else self.frame

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path is not None else ""
        shown = self.scan().head(10).collect()
        return plain_lines(
            f"{self.name} by {', '.join(self.keys)}{where}: {self.entities:,} entities at "
            f"{self.at:%Y-%m-%d %H:%M:%S} UTC, {self.events:,} events folded up to {self.cut} in "
            f"{self.seconds:.2f} s\n{shown}"
        )


def backfill_of(
    definition: Definition,
    log: EventLog,
    *,
    clock: Clock,
    at_us: int | None = None,
    end: Cut | None = None,
    shards: int | None = None,
    engine: str = LOCAL,
    limits: Limits | None = None,
    on_progress: OnProgress = silent,
) -> tuple[Iterator[pl.DataFrame], _Facts]:
    """Return the values of each key shard's entities in turn, and what is known of them.

    The facts are whole once all shards have been taken.

    Parameters
    ----------
    at_us
        The time that the values are of, in microseconds since the epoch; default: just after the
        newest event. Events at or after it do not count, as in a preview.
    end
        The cut to fold up to; default: the stream's end now.
    shards
        How many key shards; default: as many as fit memory.
    engine
        ``"local"`` or ``"ray"``.
    limits
        What bounds memory; default: what fits this machine.
    """
    check_shards(shards)
    work = engine_of(engine)
    facts = _Facts(clock, on_progress)
    stream = definition.source
    names = [j.source for j in temporal_joins(definition.plan.joins)]
    facts.cut = log.end(stream.name) if end is None else end
    # Joined streams come last: what an event that was read may see of them is there by then.
    ends = {stream.name: facts.cut} | {n: log.end(n) for n in names if n != stream.name}
    facts.at_us = at_us

    def values() -> Iterator[pl.DataFrame]:
        bounds = limits or Limits.here()
        with spilling() as folder:
            spill = Spill(folder / "events", shards or FINE, buffer_bytes=bounds.buffer_bytes)
            dealt = Dealt(Fold(definition.plan), spill)
            _deal(dealt, definition, frozen_log(log, ends), facts)
            spill.flush()
            what = asked_text(definition.plan, at_us=facts.at_us)
            some = (
                Task(number, what, tuple(spill.blocks(mine)))
                for number, mine in enumerate(
                    together(spill.count, spill.bytes, shards=shards, task_bytes=bounds.task_bytes)
                )
                if any(spill.rows[s] for s in mine)
            )
            parts = max(sum(1 for rows in spill.rows if rows), 1)
            for number, (_, block) in enumerate(work(some)):
                frame = from_blocks([block])
                assert frame is not None
                facts.entities += frame.height
                facts.tell("folding key shards", min((number + 1) / parts, 1.0))
                yield frame

    return values(), facts


class _Facts:
    """What is known of a backfill, once it is done."""

    def __init__(self, clock: Clock, on_progress: OnProgress) -> None:
        self._clock, self._on_progress = clock, on_progress
        self._begun_s = clock.monotonic_s()
        self.cut: Cut = START
        self.at_us: int | None = None
        self.entities = self.events = self.null_keys = 0

    @property
    def seconds(self) -> float:
        return self._clock.monotonic_s() - self._begun_s

    @property
    def at(self) -> datetime:
        return from_us(self._clock.now_us() if self.at_us is None else self.at_us)

    def tell(self, what: str, share: float | None) -> None:
        self._on_progress(Progress(share, self.events, self.seconds, what))


def _deal(dealt: Dealt, definition: Definition, log: EventLog, facts: _Facts) -> None:
    """Read history once, and find the moment where none was given."""
    stream, plan = definition.source, definition.plan
    seen = joined_log(plan, definition.joined, log, filtered=True)
    way, at, newest = Way(facts.cut), START, None
    way.share(at)
    options: dict[str, Any] = {"start": START, "end": facts.cut, "columns": plan.columns}
    if facts.at_us is not None:
        options["time_to_us"] = facts.at_us
    batches = seen.read(stream, **options)
    with closing(batches):  # type: ignore[type-var]
        for batch in batches:
            frame, null_keys = dealt.fold.project(batch.rows, batch.positions)
            dealt.add_projected(frame, batch.partition)
            last = frame.get_column(TIME).max()
            if isinstance(last, int):
                newest = last if newest is None else max(newest, last)
            facts.events += batch.rows.height
            facts.null_keys += null_keys
            at = at.advanced([batch.end])
            facts.tell(f"replaying {stream.name}", way.share(at))
    if facts.at_us is None and newest is not None:
        facts.at_us = newest + 1
