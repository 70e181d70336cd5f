"""A look at streams: some of their events with positions, and what is known of them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import polars as pl

from fs_notebook.catalog.drift import drift_of, readers_of
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.catalog.model import Definition
from fs_notebook.clock import from_us
from fs_notebook.compute.preview import parse_moment
from fs_notebook.errors import UnknownPosition, UsageError
from fs_notebook.language.plan import span_text
from fs_notebook.log.facts import Drift, Facts
from fs_notebook.log.protocol import POSITION_COLUMNS, PUBLISHED, EventLog, Stream
from fs_notebook.position import START, Cut, Position
from fs_notebook.sources import Sources
from fs_notebook.types import TIME

PEEK_MAX = 10_000
SAMPLE_EVENTS = 1_000
_CELL_MAX = 60
_POSITION = re.compile(r"(\d{1,6}):(\d{1,19}):(\d{1,19}):(\d{1,10})")


@dataclass(frozen=True)
class Peek:
    """Some events of a stream, in the order of its log where that is one.

    Attributes
    ----------
    stream
        Its declaration.
    events
        `position` (text), `published` and `time` (UTC), then the stream's columns.
    dead
        How many events among those read could not be decoded.
    what
        Which events these are.
    """

    stream: Stream
    events: pl.DataFrame
    dead: int
    what: str

    def json_lines(self) -> Iterator[str]:
        """Yield each event as a JSON object: position, published, time, and the event itself."""
        for position, published, time, *values in self.events.iter_rows():
            yield json.dumps(
                {
                    "position": position,
                    "published": _json(published),
                    "time": _json(time),
                    "event": dict(zip(self.stream.names, map(_json, values), strict=True)),
                },
                ensure_ascii=False,
            )

    def __repr__(self) -> str:
        title = f"{self.stream.name}: {self.what}"
        if self.dead:
            title += f"; {self.dead:,} could not be decoded"
        if not self.events.height:
            return f"{title}: none"
        names = ["position", "published", *self.stream.names]
        # Columns are found by place: the stream's own may have any name.
        rows = [[row[0], row[1], *row[3:]] for row in self.events.iter_rows()]
        return f"{title}\n{plain_table(names, rows)}"


@dataclass(frozen=True)
class Overview:
    """One line of the list of streams."""

    stream: Stream
    events: int | None
    entries: int | None
    partitions: int | None = None
    """How many there really are; None: as many as were declared."""

    def fields(self) -> dict[str, Any]:
        """Return what the list shows."""
        stream = self.stream
        return {
            "name": stream.name,
            "events": self.events,
            "partitions": self.partitions or stream.partitions,
            "time": stream.time or "when published",
            "key": ", ".join(stream.key) or None,
            "id": stream.id,
            "columns": ", ".join(f"{n} {t}" for n, t in stream.columns),
        }


@dataclass(frozen=True)
class Description:
    """What is known of a stream.

    Attributes
    ----------
    first, last
        The least and the greatest event time: of all events where the ledger knows, else of the
        first and the last event of each partition. Others may be earlier or later.
    published
        The earliest publish time of the partitions' first events, the latest of their last ones;
        None where there are none.
    rate
        Events a second, by event time, of the newest ones in the sample; None where they are of
        one moment.
    sampled, dead
        How many of the first and newest events were read, and how many could not be decoded.
    drift
        How the newest schema in the topic's registry differs from the declaration, if it is read
        by the registry.
    readers
        Of each column that the newest schema has no more, the features that read it.
    """

    stream: Stream
    facts: Facts
    end: Cut
    first: datetime | None
    last: datetime | None
    rate: float | None
    sampled: int
    dead: int
    reason: str | None
    published: tuple[datetime, datetime] | None = None
    drift: Drift | None = None
    readers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def figures(self) -> list[tuple[str, str]]:
        """Return what is known, as names and texts."""
        stream, facts = self.stream, self.facts
        partitions = f"{facts.partitions or stream.partitions:,}"
        if facts.partitions not in (None, stream.partitions):
            partitions += f" (declared with {stream.partitions:,})"
        shown = [("partitions", partitions), ("now at", str(self.end))]
        if facts.events is not None:
            shown.append(("events", f"{facts.events:,}"))
        elif facts.entries is not None:
            shown.append(("stored batches", f"{facts.entries:,}"))
        if facts.stored_bytes is not None:
            shown.append(("size", f"{facts.stored_bytes:,} bytes"))
        shown.append(("event time", stream.time or "when published"))
        if stream.ahead_us is not None:
            shown.append(("promised: times ahead of publishing", span_text(stream.ahead_us)))
        if stream.key:
            shown.append(("key", ", ".join(stream.key)))
        if stream.id is not None:
            shown.append(("id", stream.id))
        if self.published is not None:
            first, last = self.published
            shown.append(("first event published, UTC", f"{first:%Y-%m-%d %H:%M:%S.%f}"))
            shown.append(("last event published, UTC", f"{last:%Y-%m-%d %H:%M:%S.%f}"))
        if self.first is not None and self.last is not None:
            names = ("least event time, UTC", "greatest event time, UTC")
            if facts.first_us is None:
                names = ("event time of the first, UTC", "event time of the last, UTC")
            shown.append((names[0], f"{self.first:%Y-%m-%d %H:%M:%S.%f}"))
            shown.append((names[1], f"{self.last:%Y-%m-%d %H:%M:%S.%f}"))
        if self.rate is not None:
            shown.append(("newest events, by their time", f"{self.rate:,.3g}/s"))
        if facts.kept is not None:
            shown.append(("kept", facts.kept))
        if facts.keep is not None:
            shown.append(("to keep it for ever, run", facts.keep))
        if facts.offloaded_share is not None:
            shown.append(("offloaded", f"{facts.offloaded_share:.0%} of the bytes"))
        shown += self._drifted()
        dead = f"{self.dead:,} of {self.sampled:,} sampled"
        shown.append(("dead letters", dead + (f", e.g. {self.reason}" if self.reason else "")))
        return shown

    def _drifted(self) -> list[tuple[str, str]]:
        """Return what the newest schema has otherwise than the declaration."""
        if not self.drift:
            return []
        told = [f"{n} {t} added" for n, t in self.drift.added]
        for name in self.drift.removed:
            readers = ", ".join(self.readers.get(name, ()))
            told.append(f"{name} removed" + (f", which {readers} reads" if readers else ""))
        told += [f"{n} {declared} is {now}" for n, declared, now in self.drift.changed]
        return [("newest schema differs", "; ".join(told))]

    def __repr__(self) -> str:
        figures = [f"  {name}: {_shown(text, 200)}" for name, text in self.figures()]
        columns = [[n, str(t)] for n, t in self.stream.columns]
        table = plain_table(["column", "type"], columns)
        return "\n".join([self.stream.name, *figures, table])


class Inspection:
    """Looks at the streams of a ledger. `Session` documents each call."""

    def __init__(self, sources: Sources, log: EventLog) -> None:
        self._sources = sources
        self._log = log

    def overviews(self, streams: Sequence[Stream]) -> list[Overview]:
        """Return the list's lines for `streams`."""
        lines = []
        for stream in streams:
            facts = self._facts(stream.name) if self._log.exists(stream.name) else Facts()
            lines.append(Overview(stream, facts.events, facts.entries, facts.partitions))
        return lines

    def limits(self, definition: Definition) -> tuple[str, ...]:
        """Return a note for each stream of a definition that is not kept for ever."""
        told = {name: self._facts(name) for name in streams_of(definition)}
        return tuple(
            f"{name!r} is kept {facts.limit}: values are of what is left of it, and what is "
            "removed before it is folded is missing"
            + (f". To keep it for ever, run: {facts.keep}" if facts.keep else "")
            for name, facts in told.items()
            if facts.limit is not None
        )

    def peek(
        self,
        name: str,
        n: int,
        *,
        newest: bool,
        at: str | Position | None,
        since: str | datetime | None,
    ) -> Peek:
        """Return some of a stream's events."""
        if not 1 <= n <= PEEK_MAX:
            raise UsageError(f"A look at {n:,} events is none.", remedy=f"-n 1 to {PEEK_MAX}")
        if sum((newest, at is not None, since is not None)) > 1:
            raise UsageError(
                "A look begins at one place.", remedy="one of --newest, --at and --since"
            )
        stream = self._sources.find(name)
        end = self._log.end(name)
        if at is not None:
            position = parse_position(at) if isinstance(at, str) else at
            if not end.covers(position):
                raise UnknownPosition(
                    f"Stream {name!r} has no position {position}.",
                    found=f"its end is {end}",
                    remedy="positions are partition:ledger:entry:batch, as a peek shows them",
                )
            return self._at(stream, end, position, n)
        since_us = None if since is None else parse_moment(since, option="--since")
        found, dead = [], 0
        for until in end:
            start = self._before(name, until, n) if newest else None
            rows, letters = self._rows(stream, start, until, None if newest else n, since_us)
            found.append(rows.tail(n) if newest else rows)
            dead += len(letters)
        what = f"the newest {n:,} events" if newest else f"the first {n:,} events"
        if since_us is not None:
            what += f" from {from_us(since_us):%Y-%m-%d %H:%M:%S} on"
        merged = _no_events(stream) if not found else pl.concat(found)
        if len(found) > 1:
            merged = merged.sort("published", maintain_order=True)
        return Peek(stream, merged.tail(n) if newest else merged.head(n), dead, what)

    def _at(self, stream: Stream, end: Cut, position: Position, n: int) -> Peek:
        until = end.get(position.partition)
        assert until is not None
        start = self._before(stream.name, position, 1)
        if start == position:
            start = None
        rows, letters = self._rows(stream, start, until, n, None, first=position)
        return Peek(stream, rows, len(letters), f"{n:,} events from {position} on")

    def describe(self, name: str) -> Description:
        """Return what is known of a stream, and what a sample of its events tells."""
        stream = self._sources.find(name)
        end = self._log.end(name)
        facts = self._facts(name)
        heads, tails, letters = [], [], []
        sampled: set[str] = set()
        for until in end:
            start = self._before(name, until, SAMPLE_EVENTS)
            head, bad = self._rows(stream, None, until, SAMPLE_EVENTS, None)
            tail, more = self._rows(stream, start, until, None, None)
            heads.append(head)
            tails.append(tail.tail(SAMPLE_EVENTS))
            letters += [*bad, *more]
            sampled |= {*head["position"], *tails[-1]["position"]}
        dead = {str(d.position): d.reason for d in letters}
        # By place: the stream's own columns may have any name.
        firsts = [f.row(0)[1:3] for f in heads if f.height]
        lasts = [f.row(-1)[1:3] for f in tails if f.height]
        first = min((t for _, t in firsts), default=None)
        last = max((t for _, t in lasts), default=None)
        if facts.first_us is not None and facts.last_us is not None:
            first, last = from_us(facts.first_us), from_us(facts.last_us)
        published = None
        if firsts and lasts:
            published = min(at for at, _ in firsts), max(at for at, _ in lasts)
        drift = drift_of(self._log, stream)
        state = self._sources.catalog.refresh()
        readers = {c: readers_of(state, name, c) for c in (drift.removed if drift else ())}
        return Description(
            stream, facts, end, first, last,
            _rate(tails), len(sampled) + len(dead), len(dead), next(iter(dead.values()), None),
            published, drift, readers,
        )  # fmt: skip

    def _facts(self, name: str) -> Facts:
        facts: Callable[[str], Facts] | None = getattr(self._log, "facts", None)
        return Facts() if facts is None else facts(name)

    def _before(self, name: str, position: Position, events: int) -> Position | None:
        """Return where to begin in order to read `events` events up to `position`."""
        before: Callable[..., Position | None] | None = getattr(self._log, "before", None)
        return None if before is None else before(name, position, events)

    def _rows(
        self,
        stream: Stream,
        start: Position | None,
        until: Position,
        n: int | None,
        since_us: int | None,
        *,
        first: Position | None = None,
    ) -> tuple[pl.DataFrame, list[Any]]:
        """Return a partition's events in (start, until], the first `n` of them, and dead ones."""
        found, letters, held = [_no_events(stream)], [], 0
        batches = self._log.read(
            stream, start=START if start is None else Cut((start,)), end=Cut((until,)),
            columns=[*stream.names, PUBLISHED], time_from_us=since_us,
            rows_max=max(n or 0, SAMPLE_EVENTS),
        )  # fmt: skip
        with closing(cast(Any, batches)):
            for batch in batches:
                rows = _with_positions(stream, batch.rows, batch.positions())
                if first is not None:
                    rows = rows.filter(_from(batch.positions(), first))
                found.append(rows)
                letters += [d for d in batch.dead if first is None or d.position >= first]
                held += rows.height
                if n is not None and held >= n:
                    break
        rows = pl.concat(found)
        return (rows if n is None else rows.head(n)), letters


def parse_position(text: str) -> Position:
    """Return the position that a look at a stream showed as ``partition:ledger:entry:batch``."""
    match = _POSITION.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            "This is no position.", found=repr(text), remedy="0:0:41:0, as a peek shows them"
        )
    return Position(*map(int, match.groups()))


def _from(positions: pl.DataFrame, first: Position) -> pl.Series:
    parts = [pl.col(c).cast(pl.Int64) for c in POSITION_COLUMNS[1:]]
    ledger, entry, batch = parts
    later = (entry > first.entry) | ((entry == first.entry) & (batch >= first.batch))
    return positions.select(
        (ledger > first.ledger) | ((ledger == first.ledger) & later)
    ).to_series()


def _with_positions(stream: Stream, rows: pl.DataFrame, positions: pl.DataFrame) -> pl.DataFrame:
    text = positions.select(
        pl.concat_str(POSITION_COLUMNS, separator=":").alias("__position")
    ).to_series()
    # The stream's columns come last and keep their place: they may be called as ours are.
    frame = rows.with_columns(text)
    return _placed([frame["__position"], frame[PUBLISHED], frame[TIME]],
                   [frame[c] for c in stream.names])  # fmt: skip


def _placed(ours: Sequence[pl.Series], theirs: Sequence[pl.Series]) -> pl.DataFrame:
    names = ["position", "published", "time"]
    taken = {s.name for s in theirs} & set(names)
    shown = [s.alias(f"__{s.name}") if s.name in taken else s for s in theirs]
    return pl.DataFrame([s.alias(n) for s, n in zip(ours, names, strict=True)] + shown)


def _no_events(stream: Stream) -> pl.DataFrame:
    moment = pl.Datetime("us", "UTC")
    ours = [
        pl.Series("position", [], pl.String), pl.Series("published", [], moment),
        pl.Series("time", [], moment),
    ]  # fmt: skip
    return _placed(ours, [pl.Series(n, [], t.polars) for n, t in stream.columns])


def _rate(tails: Sequence[pl.DataFrame]) -> float | None:
    rates = []
    for tail in tails:
        if tail.height < 2:
            continue
        span = cast(datetime, tail["time"].max()) - cast(datetime, tail["time"].min())
        if span > timedelta(0):
            rates.append((tail.height - 1) / span.total_seconds())
    return sum(rates) if rates else None


def plain_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as text in columns, with nothing in it that steers a terminal."""
    cells = [[_shown(v) for v in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["─" * w for w in widths])
    lines = (
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )
    return "\n".join(lines)


def _shown(value: Any, length_max: int = _CELL_MAX) -> str:
    if value is None:
        return "·"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    text = json.dumps(_json(value), ensure_ascii=False) if _is_nested(value) else str(value)
    text = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in text)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, dict))


def _json(value: Any) -> Any:
    """Return a value as JSON has it: times as ISO 8601; decimals, NaN and infinities as text."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
