"""Where a reading by time may begin, so that what was published long before is not read.

A stream may declare `ahead`: no event's time lies further than that after the moment at which it,
or any event behind it in its partition, was published. Then one message that was published before
``time_from - ahead`` tells that neither it nor anything before it is asked for. The messages
themselves are asked when they were published. The broker's search by time, which takes publish
times to be in order, only decides how much is passed over, never whether it may be.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import polars as pl

from fs_notebook.log import frames
from fs_notebook.log.cursors import LOOK_MS, Cursor, Cursors, Part, first_message
from fs_notebook.log.decode import arrow_rows
from fs_notebook.log.places import Message, is_arrow, place
from fs_notebook.log.protocol import PUBLISHED, Batch, Stream
from fs_notebook.position import Position
from fs_notebook.types import TIME

STEPS_MS = (100, 5_000, 300_000, 18_000_000, 864_000_000)
"""How long before the moment the broker is asked for a message, until one lies before it.

The entry before the one that it finds is looked at too: often the last that can be passed over.
"""
Promised = Callable[[Stream], int | None]
_QUEUE = 4


class PromiseWarning(UserWarning):
    """Events do not keep what their stream promises of their times."""


class Seekable(Cursors, Protocol):
    """Where cursors come from that can begin at a time."""

    def since(self, topic: str, published_ms: int) -> Cursor:
        """Open a reader at about the first message that was published at a time or after it."""
        ...


def begin_at(
    cursors: Seekable, part: Part, start: Position | None, end: Position, before_us: int
) -> Position | None:
    """Return where (start, end] may begin if what was published before a moment is not wanted.

    It is `start` itself, or the position of a message behind it, or `end` where all of it was
    published before. If `start` is not, or no longer, there, it stays: reading from it says so.

    Parameters
    ----------
    before_us
        UTC microseconds.
    """
    if start is not None and not _is_there(cursors, part, start):
        return start
    last = first_message(cursors.cursor(part.topic, end, queue=_QUEUE))
    if last is None or place(last)[:2] != end[1:3]:
        return start
    if _is_before(last, before_us):
        return end
    for step_ms in STEPS_MS:
        since_ms = before_us // 1000 - step_ms
        if since_ms <= 0:
            break
        found = first_message(cursors.since(part.topic, since_ms))
        if found is not None and not _is_before(found, before_us):
            found = _entry_before(cursors, part, found)
        if found is not None and _is_before(found, before_us):
            at = Position(part.partition, *place(found))
            return at if (start is None or at > start) and at < end else start
    return start


def broken(rows: pl.DataFrame, ahead_us: int) -> str | None:
    """Return what is to be said if an event breaks its stream's promise; None if none does.

    `rows` have `TIME` and `PUBLISHED`. The latter are given in whole milliseconds.
    """
    ahead = (pl.col(TIME) - pl.col(PUBLISHED)).dt.total_microseconds().max()
    furthest = rows.select(ahead).item()
    if furthest is None or furthest < ahead_us + 1_000:
        return None
    return (
        f"an event lies {timedelta(microseconds=furthest)} after it was published, and no more "
        f"than {timedelta(microseconds=ahead_us)} was promised: slices by time may lack such events"
    )


def nothing(stream: Stream, asked: tuple[str, ...], until: Position) -> Batch:
    """Return a batch without events that ends at `until`."""
    rows = frames.no_rows(stream, asked)
    return Batch(until.partition, rows, until, (), frames.no_positions)


def _is_before(message: Message, moment_us: int) -> bool:
    # Its time is given in whole milliseconds, of which it may have been the end.
    return (message.publish_timestamp() + 1) * 1000 <= moment_us


def _entry_before(cursors: Cursors, part: Part, message: Message) -> Message | None:
    """Return the first message of the entry before a message's own, in the same ledger."""
    ledger, entry, _ = place(message)
    if entry == 0:
        return None
    return first_message(
        cursors.cursor(part.topic, Position(0, ledger, entry - 1, 0), queue=_QUEUE)
    )


def _is_there(cursors: Cursors, part: Part, at: Position) -> bool:
    """Tell whether there is an event at a position."""
    cursor = cursors.cursor(part.topic, at, queue=_QUEUE)
    try:
        while (message := cursor.next(LOOK_MS)) is not None:
            found = place(message)
            if found[:2] != at[1:3]:
                return False
            payload = message.data()
            if is_arrow(message, payload):
                return at.batch < arrow_rows(payload)
            if found >= at[1:]:
                return found == at[1:]
        return False
    finally:
        cursor.close()
