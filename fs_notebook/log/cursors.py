"""Cursors over one partition, and what is asked of single messages through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fs_notebook.errors import HistoryLost
from fs_notebook.log.decode import arrow_rows
from fs_notebook.log.places import Ints, Message, Places, is_arrow, place, spot
from fs_notebook.log.retention import keeping
from fs_notebook.position import Position

QUEUE_UNKNOWN = 100
"""Where nothing tells how large entries are."""
_LOOK = 1
LOOK_MS = 5_000
"""How long to wait for a message that is looked at alone."""
PAUSE_MS = 1
"""What takes several messages at once looks sooner if the next one is not there by then."""
CHUNKS_MAX = 100
"""Chunks of one message, 5 MB each: where one begins is looked for so many entries before."""
Taken = tuple[list[Message], list[bytes], int]
"""Messages, their payloads, and how many bytes these have."""


class Cursor:
    """A reader of the client, stripped to what is used."""

    def next(self, timeout_ms: int) -> Message | None:
        """Return the next message, or None if there was none in time."""
        raise NotImplementedError

    def take(self, count: int, bytes_max: int, wait_ms: int) -> Taken:
        """Return the next messages: `count` of them at most, none if none came in time.

        They end with the one that makes it `bytes_max` or more, and before a pause.
        """
        messages: list[Message] = []
        payloads: list[bytes] = []
        size = 0
        while len(messages) < count and size < bytes_max:
            message = self.next(min(wait_ms, PAUSE_MS) if messages else wait_ms)
            if message is None:
                break
            messages.append(message)
            payloads.append(message.data())
            size += len(payloads[-1])
        return messages, payloads, size

    def close(self) -> None:
        """Close the reader at the broker."""
        raise NotImplementedError


class Cursors(Protocol):
    """Where cursors come from: the client."""

    url: str

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Cursor:
        """Open a reader at `start`'s entry (inclusive), or at the earliest message.

        It fetches up to `queue` messages before they are asked for.
        """
        ...

    def last(self, topic: str) -> Message | None:
        """Return the topic's newest message, or None if it is empty."""
        ...

    def is_lost(self, cursor: Cursor) -> bool:
        """Tell whether a cursor has no connection though there is a broker that answers."""
        ...


@dataclass(frozen=True)
class Part:
    """One partition of a stream."""

    stream: str
    topic: str
    partition: int


def end_of(cursors: Cursors, part: Part) -> Position | None:
    """Return the position of the partition's newest event, or None if it has none."""
    message = cursors.last(part.topic)
    if message is None:
        return None
    ledger, entry, batch = place(message)
    payload = message.data()
    if is_arrow(message, payload):
        batch = arrow_rows(payload) - 1
    return Position(part.partition, ledger, entry, batch)


def chunks_before(at: Position) -> Position:
    """Return where a message at `at` may begin: one that was cut into chunks lies at its last."""
    return at._replace(entry=max(at.entry - CHUNKS_MAX, 0), batch=0)


def first_message(cursor: Cursor) -> Message | None:
    """Return the first message that a cursor gives, None if none comes soon, and close it."""
    try:
        return cursor.next(LOOK_MS)
    finally:
        cursor.close()


def first_of(cursors: Cursors, part: Part) -> Position | None:
    """Return the position of the earliest event that is left in a partition that has some."""
    first = first_message(cursors.cursor(part.topic, None, queue=_LOOK))
    return None if first is None else Position(part.partition, *place(first))


def rows_at(cursors: Cursors, part: Part, at: Position) -> int:
    """Return how many positions the message at `at`, which was sent alone, takes."""
    message = first_message(cursors.cursor(part.topic, at, queue=_LOOK))
    if message is None or place(message)[:2] != at[1:3]:
        return 1
    payload = message.data()
    return arrow_rows(payload) if is_arrow(message, payload) else 1


def event_ms_of(cursors: Cursors, part: Part, places_: Places) -> Ints:
    """Return the event timestamps, in ms, of the plain messages at `places_`, which are in order.

    Raises
    ------
    HistoryLost
        If one of them is not there any more.
    """
    wanted = {spot(places_, i): i for i in range(len(places_[0]))}
    times = np.zeros(len(wanted), np.int64)
    if not wanted:
        return times
    first, last = Position(part.partition, *next(iter(wanted))), spot(places_, -1)
    for start in (chunks_before(first), None):
        left = dict(wanted)
        cursor = cursors.cursor(part.topic, start, queue=QUEUE_UNKNOWN)
        try:
            while left and (message := cursor.next(LOOK_MS)) is not None:
                at = place(message)
                if at > last:
                    break
                if at in left:
                    times[left.pop(at)] = message.event_timestamp()
        finally:
            cursor.close()
        if not left:
            return times
    raise HistoryLost(
        f"Events of stream {part.stream!r} are gone while they were read.",
        found=f"none at {Position(part.partition, *next(iter(left)))}",
        remedy="read from the start of what is left, and keep the topic for ever: "
        + keeping(part.topic),
    )
