"""A preview: the fold of a replayed slice of history, at once and with its figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from fs_notebook.clock import Clock, from_us, to_us
from fs_notebook.compute.fold import NEWEST, Fold, State
from fs_notebook.compute.joins import lonely_rows
from fs_notebook.compute.running import Running
from fs_notebook.errors import UsageError, plain_lines
from fs_notebook.language.cell import parse_sample
from fs_notebook.language.derived import AnyPlan
from fs_notebook.language.plan import Plan
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut, Way
from fs_notebook.types import TIME

_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
_UNITS = {
    "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000,
    "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000,
    "second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000,
    "week": 604_800_000_000,
}  # fmt: skip


def parse_span(text: str, *, option: str = "a length of time") -> int:
    """Return the microseconds of ``30d``, ``6h``, ``15m``, ``90s`` and their kin."""
    match = _SPAN.fullmatch(text) if isinstance(text, str) else None
    unit = None if match is None else _UNITS.get(match[2], _UNITS.get(match[2].removesuffix("s")))
    if match is None or unit is None or not 0 < float(match[1]) * unit < 2**62:
        raise UsageError(
            f"{option} is not a length of time.",
            found=repr(text),
            remedy="30d, 12h, 15m, 90s or 2w",
        )
    return int(float(match[1]) * unit)


def parse_moment(value: str | date, *, option: str = "a time") -> int:
    """Return microseconds since the epoch of an ISO 8601 text or a datetime, UTC unless it says."""
    if isinstance(value, datetime):
        return to_us(value)
    try:
        value = value.isoformat() if isinstance(value, date) else value
        return to_us(datetime.fromisoformat(value))
    except (ValueError, TypeError):
        raise UsageError(
            f"{option} is not a time.", found=repr(value), remedy="2013-01-31 or 2013-01-31T12:00"
        ) from None


@dataclass(frozen=True)
class Slice:
    """Which part of history to replay, and which share of the entities.

    Attributes
    ----------
    last_us
        Only the newest stretch of the stream of this length.
    from_us, to_us
        Only events with time in [from, to).
    sample
        At most this many entities (an integer of 1 or more) or this share of them (below 1).
        Entities are chosen by a hash of their key, so those that are there are exact.
    """

    last_us: int | None = None
    from_us: int | None = None
    to_us: int | None = None
    sample: float | None = None

    def __post_init__(self) -> None:
        if self.last_us is not None and self.from_us is not None:
            raise UsageError("A slice is either --last or --from.", remedy="leave one out")
        if self.from_us is not None and self.to_us is not None and self.from_us >= self.to_us:
            raise UsageError(
                "The slice is empty: it ends before it begins.",
                found=f"{from_us(self.from_us)} to {from_us(self.to_us)}",
                remedy="--from before --to",
            )
        if self.sample is not None and self.sample <= 0:
            raise UsageError(
                "A sample has entities.", found=str(self.sample), remedy="--sample 1000 or 5%"
            )


WHOLE = Slice()


def slice_of(
    last: str | None = None,
    from_: str | datetime | None = None,
    to: str | datetime | None = None,
    sample: str | float | None = None,
) -> Slice:
    """Return the slice that a preview's options choose; raise `UsageError` if they choose none."""
    return Slice(
        last_us=None if last is None else parse_span(last, option="--last"),
        from_us=None if from_ is None else parse_moment(from_, option="--from"),
        to_us=None if to is None else parse_moment(to, option="--to"),
        sample=parse_sample(sample) if isinstance(sample, str) else sample,
    )


@dataclass(frozen=True)
class Progress:
    """How far a replay has come.

    `share` is from 0 to 1, None where the whole is not known; `events` were read so far.
    """

    share: float | None
    events: int
    seconds: float
    what: str = "replaying"

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds > 0 else 0.0


FOLD_ROWS = 1_000_000
"""Projected rows that a preview folds at once, for speed."""

OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Preview:
    """The values of a feature group over a slice of history, and where they come from.

    Attributes
    ----------
    frame
        One row an entity: its key columns, then one column a feature; sorted by key.
    at
        The time t, UTC, that the values are of: just after the slice's newest event.
    first, last
        Event times of the oldest and the newest event that was folded, None if there were none.
    cut
        The position in the log that the replay stopped at.
    events, folded, null_keys, dead
        Events read; those that passed WHERE; rows dropped for a null key; malformed payloads.
    seconds
        How long it took.
    """

    name: str
    plan: AnyPlan
    frame: pl.DataFrame
    at: datetime
    first: datetime | None
    last: datetime | None
    cut: Cut
    events: int
    folded: int
    null_keys: int
    dead: int
    seconds: float
    slice: Slice = WHOLE
    sampled: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, plan: AnyPlan, frame: pl.DataFrame, *, at_us: int, first_us: int | None,
        last_us: int | None, **figures: Any,
    ) -> Preview:  # fmt: skip
        """Make one, with times in microseconds since the epoch."""
        return cls(
            name=name, plan=plan, frame=frame, at=_utc(at_us), first=_utc(first_us),
            last=_utc(last_us), **figures,
        )  # fmt: skip

    @property
    def entities(self) -> int:
        return self.frame.height

    @property
    def types(self) -> dict[str, str]:
        """Feature name → SQL type."""
        return {o.name: o.type.value for o in self.plan.outputs}

    def to_polars(self) -> pl.DataFrame:
        return self.frame

    def __repr__(self) -> str:
        span = f"{self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M}" if self.first else "—"
        kinds = ", ".join(f"{n} {t}" for n, t in self.types.items())
        # Of several streams no one cut says where the replay stopped: a note does.
        cut = f", cut {self.cut}" if self.cut.positions or not self.events else ""
        head = (
            f"{self.name} by {', '.join(self.plan.entity)}: {self.entities:,} entities, "
            f"{self.folded:,} events folded, {span}{cut}, {self.seconds:.2f} s\n{kinds}"
        )
        notes = "".join(f"\nnote: {n}" for n in self.notes)
        return plain_lines(f"{head}{notes}\n{self.frame.head(10)}")


@dataclass(frozen=True)
class Replayed:
    """A slice of history, folded and not yet finished at any t."""

    fold: Fold
    state: State
    cut: Cut
    first_us: int | None
    last_us: int | None
    events: int
    folded: int
    null_keys: int
    dead: int


def replay(
    plan: Plan,
    source: Stream,
    log: EventLog,
    *,
    clock: Clock,
    where: Slice = WHOLE,
    on_progress: OnProgress = silent,
    rows_max: int = 200_000,
    end: Cut | None = None,
) -> Replayed:
    """Fold a slice of history in bounded memory.

    History goes up to `end`; default: to where the stream ends now. An interrupt stops it between
    two batches and leaves nothing behind.
    """
    begun_s = clock.monotonic_s()
    end = log.end(source.name) if end is None else end
    fold, from_us, to_us = Fold(plan), where.from_us, where.to_us
    if where.last_us is not None:
        newest = _newest_us(log, source, end, to_us)
        from_us = None if newest is None else newest + 1 - where.last_us
    running = Running(fold, held_rows=FOLD_ROWS)
    events, folded, null_keys, dead = 0, 0, 0, 0
    first_us: int | None = None
    way, at = Way(end), START
    way.share(at)
    for batch in log.read(
        source, start=START, end=end, columns=plan.columns,
        time_from_us=from_us, time_to_us=to_us, rows_max=rows_max,
    ):  # fmt: skip
        projected, dropped = fold.project(batch.rows, batch.positions)
        if where.sample is not None and where.sample < 1:
            projected = projected.filter(_share(fold, where.sample))
        if projected.height:
            oldest = int(projected[TIME].min())  # type: ignore[arg-type]
            first_us = oldest if first_us is None else min(first_us, oldest)
        running.add_projected(projected)
        events += batch.rows.height
        folded += projected.height
        null_keys, dead = null_keys + dropped, dead + len(batch.dead)
        at = at.advanced([batch.end])
        on_progress(Progress(way.share(at), events, clock.monotonic_s() - begun_s))
    state = running.state
    sampled = where.sample is not None and where.sample >= 1
    if sampled:
        state = _some(fold, state, int(where.sample or 0))
    newest_us = state.lifetime[NEWEST].max()
    last_us = newest_us if isinstance(newest_us, int) else None
    return Replayed(fold, state, end, first_us, last_us, events, folded, null_keys, dead)


def moment_of(last_us: int | None, where: Slice, clock: Clock) -> int:
    """Return the t of a preview: the slice's end, or just after its newest event."""
    if where.to_us is not None:
        return where.to_us
    return clock.now_us() if last_us is None else last_us + 1


def preview(
    name: str,
    plan: Plan,
    source: Stream,
    log: EventLog,
    *,
    clock: Clock,
    where: Slice = WHOLE,
    on_progress: OnProgress = silent,
    rows_max: int = 200_000,
    notes: tuple[str, ...] = (),
    end: Cut | None = None,
) -> Preview:
    """Fold a slice of history in bounded memory and return the values at its end.

    History goes up to `end`; default: to where the stream ends now.
    """
    begun_s = clock.monotonic_s()
    done = replay(
        plan, source, log, clock=clock, where=where, on_progress=on_progress, rows_max=rows_max,
        end=end,
    )  # fmt: skip
    fold, at_us = done.fold, moment_of(done.last_us, where, clock)
    values = fold.values(done.state, now_us=at_us)
    names = dict(zip(fold.keys, plan.entity, strict=True))
    frame = values.select(*fold.keys, *plan.features).sort(fold.keys).rename(names)
    return Preview.of(
        name, plan, frame, at_us=at_us, first_us=done.first_us, last_us=done.last_us,
        cut=done.cut, events=done.events, folded=done.folded, null_keys=done.null_keys,
        dead=done.dead, seconds=clock.monotonic_s() - begun_s, slice=where,
        sampled=where.sample is not None, notes=(*notes, *lonely_rows(log)),
    )  # fmt: skip


def _utc(us: Any) -> Any:
    return None if us is None else from_us(int(us)).astimezone(UTC)


def _newest_us(log: EventLog, source: Stream, end: Cut, to_us: int | None) -> int | None:
    newest: int | None = None
    for batch in log.read(source, start=START, end=end, columns=(), time_to_us=to_us):
        last = batch.rows[TIME].dt.epoch("us").max()
        if isinstance(last, int):
            newest = last if newest is None else max(newest, last)
    return newest


def _digest(keys: Sequence[str], frame: pl.DataFrame) -> pl.Series:
    """Return a number in [0, 1) for each row, decided by its key alone, for ever."""

    def place(key: tuple[Any, ...]) -> float:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    rows = frame.select(keys).iter_rows()
    return pl.Series("__place", [place(k) for k in rows], dtype=pl.Float64)


def _share(fold: Fold, share: float) -> pl.Expr:
    keys = pl.struct(fold.keys)
    return keys.map_batches(
        lambda s: _digest(fold.keys, s.struct.unnest()) < share, return_dtype=pl.Boolean
    )


def chosen_entities(frame: pl.DataFrame, keys: Sequence[str], count: int) -> pl.DataFrame:
    """Return at most `count` rows, one an entity, chosen by a hash of the key."""
    placed = frame.with_columns(_digest(keys, frame))
    return placed.sort("__place").head(count).drop("__place")


def _some(fold: Fold, state: State, count: int) -> State:
    chosen = chosen_entities(state.lifetime, fold.keys, count)
    recent = state.recent.join(chosen.select(fold.keys), on=fold.keys, how="semi")
    return State(chosen, recent)
