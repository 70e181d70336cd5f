"""What a ledger is to the rest of the package: streams of events at positions, for ever."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from fs_notebook.errors import unknown_name
from fs_notebook.position import Cut, Position
from fs_notebook.types import Type

PUBLISHED = "__published"
"""The column of publish times, UTC microseconds: in `rows` only where `columns` names it."""

EARLIEST = "earliest: "
"""Begins the identity of a stream that was given none when it was made."""

PARTITION, LEDGER, ENTRY, BATCH = "__partition", "__ledger", "__entry", "__batch"
POSITION_COLUMNS = (PARTITION, LEDGER, ENTRY, BATCH)


@dataclass(frozen=True)
class Stream:
    """The declaration of a stream: how its payloads are read. Kept in the catalog.

    Attributes
    ----------
    name
        What definitions call it.
    columns
        Names and types of the payload's columns, in order.
    time
        The column that holds the event time; None takes the message's own event timestamp,
        else its publish time.
    key
        The columns that route an event to a partition, if any.
    partitions
        How many partitions it was made with (the embedded ledger has one).
    format
        How payloads are written: ``"json"`` (and Arrow batches among them), ``"avro"`` or
        ``"protobuf"``.
    schema
        The schema of Avro or Protobuf payloads; None takes each from the topic's schema registry.
    meta
        Columns that lie beside the payload, and where: (column, source) with source ``"key"``,
        ``"property NAME"``, ``"event time"`` or ``"publish time"``.
    id
        The column that tells one event from another, if any: what is uploaded again with an id
        that is there already is the same event.
    json_only
        Whether each event is written as a JSON message, for other readers of the topic, even
        where many are written at once; else those go as Arrow batches.
    ahead_us
        How far at most an event's time lies after the moment at which it, or any event behind it
        in its partition, was published, by the producers' clocks, microseconds; None: not known.
        With it, a reading by time passes over what was published long before.
    """

    name: str
    columns: tuple[tuple[str, Type], ...]
    time: str | None = None
    key: tuple[str, ...] = ()
    partitions: int = 1
    format: str = "json"
    schema: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    json_only: bool = False
    id: str | None = None
    ahead_us: int | None = None

    def type_of(self, column: str) -> Type:
        """Return a column's type; an unknown column is an error that suggests near names."""
        for name, kind in self.columns:
            if name == column:
                return kind
        raise unknown_name(f"column of stream {self.name!r}", column, self.names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    def to_dict(self) -> dict[str, Any]:
        declared: dict[str, Any] = {
            "name": self.name,
            "columns": [[n, t.value] for n, t in self.columns],
            "time": self.time,
            "key": list(self.key),
            "partitions": self.partitions,
        }
        # What is not declared is left out, so that declarations stay as they were stored.
        if self.format != "json":
            declared["format"] = self.format
        if self.schema is not None:
            declared["schema"] = self.schema
        if self.meta:
            declared["meta"] = [list(pair) for pair in self.meta]
        if self.json_only:
            declared["json_only"] = True
        if self.id is not None:
            declared["id"] = self.id
        if self.ahead_us is not None:
            declared["ahead_us"] = self.ahead_us
        return declared

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Stream:
        return cls(
            name=data["name"],
            columns=tuple((n, Type(t)) for n, t in data["columns"]),
            time=data["time"],
            key=tuple(data["key"]),
            partitions=data.get("partitions", 1),
            format=data.get("format", "json"),
            schema=data.get("schema"),
            meta=tuple((c, s) for c, s in data.get("meta", ())),
            json_only=data.get("json_only", False),
            id=data.get("id"),
            ahead_us=data.get("ahead_us"),
        )

    def __str__(self) -> str:
        return json.dumps(self.to_dict())


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be decoded: where it lies and why."""

    position: Position
    reason: str
    payload: bytes


@dataclass
class Batch:
    """Events of one partition, in log order.

    Attributes
    ----------
    partition
        Where they come from.
    rows
        The asked columns, in the stream's canonical Polars types, and `TIME`.
    end
        The position of the last event read, good or malformed: the next read starts after it.
    dead
        The malformed ones among them; they are not in `rows`.
    """

    partition: int
    rows: pl.DataFrame
    end: Position
    dead: Sequence[DeadLetter] = field(default_factory=tuple)
    _positions: Callable[[], pl.DataFrame] | None = None

    def positions(self) -> pl.DataFrame:
        """Return each row's position: `POSITION_COLUMNS`, Int64, as many rows as `rows`.

        They are made only when asked for, since most folds never need them.
        """
        assert self._positions is not None
        frame = self._positions()
        assert frame.height == self.rows.height
        return frame


class Shares(Protocol):
    """One member's part in sharing a stream's partitions with others, on any machine."""

    def owned(self) -> frozenset[int]:
        """Return the partitions that are this member's now.

        Another may have believed the same a moment ago: what is written must be fenced.
        """
        ...

    def committed(self, position: Position) -> None:
        """Tell the ledger that all before a position of an owned partition was dealt with."""
        ...

    def close(self) -> None:
        """Leave: what this member owned goes to the others."""
        ...


class EventLog(Protocol):
    """A ledger of streams. Reading is thread-safe; one object may serve several readers."""

    url: str

    def create(self, stream: Stream) -> None:
        """Make the stream, kept for ever; nothing happens where it is there already."""
        ...

    def exists(self, name: str) -> bool:
        """Tell whether there is a stream of this name."""
        ...

    def names(self) -> list[str]:
        """Return the names of the streams that are there, sorted."""
        ...

    def identity(self, name: str) -> str:
        """Return text that stays the same as long as the stream is the same one.

        A stream that was deleted and made again under its name has another. Where nothing tells
        one from the other, text with `EARLIEST` in it says where the stream begins, and changes
        with its first event and with what retention removes.
        """
        ...

    def append(self, stream: Stream, rows: pl.DataFrame, *, expected: Cut | None = None) -> Cut:
        """Append events; return the cut just after them, once they are durable.

        `rows` holds the stream's columns in their canonical types. With `expected`, append only
        if the stream's end is still that cut, else raise `ConflictError`: of several writers one
        wins. All rows of one call become durable together, or the error says how many did.
        """
        ...

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return the positions of the first events that are left, of partitions that have any.

        They are events, and what follows them is not before the cut: where one is another than it
        was, events were removed. `only` is the one partition that is asked for.
        """
        ...

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event of each partition, frozen now."""
        ...

    def partitions(self, name: str) -> int:
        """Return how many partitions the stream has now."""
        ...

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        rows_max: int = 200_000,
    ) -> Iterator[Batch]:
        """Yield the events in (start, end], each partition in order.

        Batches of several partitions come in turns, in the same order each time if nothing but
        the asking is repeated; partitions may be read side by side.
        `columns` names what is needed (default: all the stream's); it may name `PUBLISHED` too,
        for "as known" readings. With `time_from_us` and
        `time_to_us` only events with time in [from, to) are in `rows`; whole stretches
        outside may be skipped unread. Batches hold about `rows_max` rows or fewer. The last
        batch of a partition ends exactly at `end`.

        Raises
        ------
        HistoryLost
            If events after `start` are no longer there.
        UnknownPosition
            If `start` or `end` are positions that this stream does not have.
        UnreachableError
            If the ledger does not answer; the message names where it was sought.
        """
        ...

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        rows_max: int = 10_000,
        idle_seconds: float = 0.2,
        only: int | None = None,
    ) -> Iterator[Batch | None]:
        """Yield the events after `start` for ever, as they arrive, soon after they do.

        `only` names the one partition to follow; default: all, and those that are added.

        Yields None when nothing arrived for `idle_seconds`, so that the caller can look
        around. Close the generator to stop.
        """
        ...

    def share(self, name: str, among: str, member: str) -> Shares:
        """Take part in sharing the stream's partitions among all who name the same `among`.

        Raises
        ------
        UsageError
            If streams of this ledger cannot be shared.
        """
        ...

    def unshare(self, name: str, among: str) -> None:
        """Forget that the stream was shared; nothing happens where it was not."""
        ...

    def close(self) -> None:
        """Release connections; calls after it raise."""
        ...
