"""Reading one partition of a topic: from a position, in order, in chunks, up to an end or on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fs_notebook.clock import Clock
from fs_notebook.errors import HistoryLost, UnknownPosition, UnreachableError
from fs_notebook.log.decode import ARROW_MAGIC, arrow_rows
from fs_notebook.log.lanes import Stopped
from fs_notebook.log.messages import (
    NOTED_BYTES,
    Chunk,
    Message,
    Noted,
    Place,
    Places,
    above,
    above_each,
    is_arrow,
    place,
    places,
    spot,
)
from fs_notebook.log.retention import keeping
from fs_notebook.position import Position

QUEUE_BYTES = 32 * 2**20
"""What the client may hold of a partition before it is asked for; it counts in messages."""
QUEUE_MESSAGES = 10_000
QUEUE_UNKNOWN = 100
"""Where nothing tells how large entries are."""
_QUEUE_MIN = 4
_LOOK = 1
LOOK_MS = 5_000
"""How long to wait for a message that is looked at alone."""
CHUNK_BYTES_MAX = 16 * 2**20
WAIT_MS = 100
SILENT_S = 30.0
"""After so long without a message the broker is asked whether it is there at all."""
STALL_S_MAX = 150.0
"""A broker whose storage failed it waits 15 s, then 30 s, then 60 s, before it reads again."""
LOST_MS = 2_000
"""After so long without a message a reader asks whether its connection is lost."""
LOOK_AGAIN = 64
CHUNKS_MAX = 100
"""Chunks of one message, 5 MB each: where one begins is looked for so many entries before."""
_ALL_ROWS = 2**62


def _never() -> bool:
    return False


class Cursor(Protocol):
    """A reader of the client, stripped to what is used."""

    def next(self, timeout_ms: int) -> Message | None:
        """Return the next message, or None if there was none in time."""
        ...

    def close(self) -> None: ...


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


def queue_for(entry_bytes: float, *, share: int = 1) -> int:
    """Return how many messages to fetch ahead where entries have about so many bytes.

    An entry may be a batch of many messages, which come all together: then fewer of them are ahead
    than would do, which costs little, and never more. `share` is how many readers have one bound.
    """
    return int(min(max(QUEUE_BYTES / share / max(entry_bytes, 1), _QUEUE_MIN), QUEUE_MESSAGES))


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


def sampled(
    cursors: Cursors, ends: Sequence[tuple[Part, Position | None]], count: int
) -> list[bytes]:
    """Return the payloads of the first messages, about `count` of them, partition by partition."""
    payloads: list[bytes] = []
    for part, end in ends:
        if end is None or len(payloads) >= count:
            continue
        reader = PartReader(cursors, part, None)
        try:
            chunk = reader.collect(count, end=end[1:], wait_ms=2_000, linger_ms=100)
        finally:
            reader.close()
        payloads += chunk.payloads if chunk is not None else []
    return payloads


class PartReader:
    """Reads a partition's messages after `start`, in the order in which they lie there.

    The broker is asked for the entry of `start` itself: if that does not come first, then the
    position is not, or no longer, in the topic. The broker would not say so: it goes on with
    whatever comes next.

    It begins with `queue` messages ahead, and goes on with fewer where they turn out to be larger
    than `QUEUE_BYTES` allow.
    """

    def __init__(
        self, cursors: Cursors, part: Part, start: Position | None, *, queue: int = QUEUE_UNKNOWN
    ) -> None:
        self.part = part
        self._cursors = cursors
        self._start = start
        self._after: Place | None = None if start is None else start[1:]
        self._held: Message | None = None
        self._checked = start is None
        self._skipping = start is not None
        self._seen: Place | None = self._after
        self.reached = False
        """Whether the last chunk came up to the end that it was asked for."""
        self.exact = False
        """Whether the event at that very end was there."""
        self._queue = queue
        self._silent_ms = 0
        self._cursor = cursors.cursor(part.topic, start, queue=queue)

    def close(self) -> None:
        """Close the reader at the broker."""
        self._cursor.close()

    def collect(
        self,
        rows_max: int,
        *,
        end: Place | None,
        wait_ms: int,
        linger_ms: int,
        stopped: Stopped = _never,
    ) -> Chunk | None:
        """Return the next messages, up to `end` if there is one; None if none came in time.

        A chunk has messages of one kind. `wait_ms` is how long to wait for the first,
        `linger_ms` for each further one. Once it is `stopped`, it returns what it has.
        """
        messages: list[Message] = []
        payloads: list[bytes] = []
        chunk = Chunk(self.part.partition, False, messages, payloads, self._after, end)
        size = count = seen = 0
        due = 1
        timeout_ms = wait_ms
        take = self._cursor.next
        while count < rows_max and size < CHUNK_BYTES_MAX:
            message = self._held or take(timeout_ms)
            self._held = None
            if message is None:
                break
            if not self._checked:
                self._check_start(message)
            payload = message.data()
            arrow = payload[:4] == ARROW_MAGIC and is_arrow(message, payload)
            if not messages:
                chunk.arrow = arrow
                timeout_ms = linger_ms
            elif chunk.arrow != arrow:
                self._held = message
                break
            messages.append(message if len(payload) < NOTED_BYTES else Noted(message, payload))
            payloads.append(payload)
            if size // NOTED_BYTES != (size + len(payload)) // NOTED_BYTES and stopped():
                break
            size += len(payload)
            count += _rows(message, payload) if arrow else 1
            seen += 1
            if seen % LOOK_AGAIN == 0 and stopped():
                break
            if seen >= due:
                before = _messages_before(end, place(message), arrow) if end else LOOK_AGAIN
                if before <= 0:
                    break
                due = seen + before
        if not messages:
            self._mend(wait_ms)
            return None
        self._silent_ms = 0
        self._sift(chunk, end)
        if not self.reached and self._queue * size / len(payloads) > 2 * QUEUE_BYTES:
            self._narrow(queue_for(size / seen))
        return chunk

    def _mend(self, waited_ms: int) -> None:
        """Open the cursor anew where its connection is lost though the broker answers.

        The client would do so itself, but waits for up to a minute after an outage that was long.
        """
        self._silent_ms += waited_ms
        if self._silent_ms < LOST_MS:
            return
        self._silent_ms = 0
        if self._cursors.is_lost(self._cursor):
            lost = self._cursor
            with suppress(UnreachableError):
                self._open(self._queue)
                lost.close()

    def _narrow(self, queue: int) -> None:
        """Go on with fewer messages ahead, from the entry that was read last."""
        if self._queue <= queue or self._seen is None or self._skipping:
            return
        self._cursor.close()
        self._open(queue)

    def _open(self, queue: int) -> None:
        """Open a cursor at the entry that was read last."""
        at = self._start
        if self._seen is not None and not self._skipping:
            ledger, entry, _ = self._seen
            at = Position(self.part.partition, ledger, entry, 0)
        self._cursor = self._cursors.cursor(self.part.topic, at, queue=queue)
        self._held, self._queue = None, queue
        # What was read last must still be there: else what follows it may be gone as well.
        self._start, self._checked = at, at is None

    def _sift(self, chunk: Chunk, end: Place | None) -> None:
        """Drop what lies outside (start, end] or was there before; note how far reading has come.

        When its connection was cut, the client hands over again some of what it had handed over.
        """
        if chunk.arrow:
            self._sift_arrow(chunk, end)
            return
        spots = places(chunk.messages)
        if self._skipping:
            self._look_for_start(spots)
        keep = above(spots, self._seen)
        last = self._seen
        if keep.any():
            last = spot(spots, int(np.flatnonzero(keep)[-1]))
        self.reached = end is not None and last is not None and last >= end
        if self.reached:
            assert end is not None
            keep &= ~above_each(spots, end)
            kept = np.flatnonzero(keep)
            self.exact = bool(kept.size) and spot(spots, int(kept[-1])) == end
        self._seen = last
        if not keep.all():
            chunk.messages = [m for m, k in zip(chunk.messages, keep, strict=True) if k]
            chunk.payloads = [p for p, k in zip(chunk.payloads, keep, strict=True) if k]
            spots = (spots[0][keep], spots[1][keep], spots[2][keep])
        chunk.places = spots

    def _sift_arrow(self, chunk: Chunk, end: Place | None) -> None:
        self._skipping = False
        kept: list[tuple[Message, bytes]] = []
        for message, payload in zip(chunk.messages, chunk.payloads, strict=True):
            ledger, entry, _ = place(message)
            whole = (ledger, entry, _ALL_ROWS)
            if self._seen is not None and whole <= self._seen:
                continue
            if end is not None and (ledger, entry) >= end[:2]:
                self.reached = True
                self.exact = (ledger, entry) == end[:2] and end[2] < arrow_rows(payload)
                if (ledger, entry) > end[:2]:
                    break
            kept.append((message, payload))
            self._seen = whole
        chunk.messages = [m for m, _ in kept]
        chunk.payloads = [p for _, p in kept]

    def _look_for_start(self, spots: Places) -> None:
        """Make sure that the very message of `start` is there, not just its entry."""
        assert self._after is not None
        beyond = above_each(spots, self._after)
        before = above_each(spots, (self._after[0], self._after[1], self._after[2] - 1))
        if (before & ~beyond).any():
            self._skipping = False
        elif beyond.any():
            raise self._unknown(f"its entry has no index {self._after[2]}")

    def _check_start(self, message: Message) -> None:
        """Make sure that the first message lies in the entry of `start`."""
        assert self._start is not None
        at = place(message)
        self._checked = True
        if at[:2] == self._start[1:3]:
            payload = message.data()
            rows = arrow_rows(payload) if is_arrow(message, payload) else None
            if rows is not None and self._start.batch >= rows:
                raise self._unknown(f"its entry has {rows} rows")
            return
        if at > self._start[1:] and self._ends_chunks():
            self._skipping = False
            return
        earliest = first_of(self._cursors, self.part)
        if earliest is not None and self._start < earliest:
            raise HistoryLost(
                f"Events of stream {self.part.stream!r} after {self._start} are gone.",
                found=f"the earliest that is left is {earliest}",
                remedy="read from the start of what is left, and keep the topic for ever: "
                + keeping(self.part.topic),
            )
        raise self._unknown("the broker goes on at " + ":".join(map(str, at)))

    def _ends_chunks(self) -> bool:
        """Tell whether the entry of `start` is the last of a message that was cut into chunks.

        Such a message has the place of its last chunk, and the broker does not hand it over to who
        begins there. It is looked for from a little before.
        """
        assert self._start is not None
        start = self._start
        before = start._replace(entry=max(start.entry - CHUNKS_MAX, 0), batch=0)
        cursor = self._cursors.cursor(self.part.topic, before, queue=_QUEUE_MIN)
        try:
            while (message := cursor.next(LOOK_MS)) is not None:
                at = place(message)
                if at >= start[1:]:
                    return at == start[1:]
            return False
        finally:
            cursor.close()

    def _unknown(self, found: str) -> UnknownPosition:
        return UnknownPosition(
            f"Stream {self.part.stream!r} has no position {self._start}.",
            found=found,
            remedy="positions of one stream mean nothing on another, or on another ledger",
        )


def _rows(message: Message, payload: bytes) -> int:
    """Return about how many rows an Arrow message has; writers say so in a property."""
    told = message.properties().get("fs-rows", "")
    return int(told) if told.isdigit() else arrow_rows(payload)


def _messages_before(end: Place, at: Place, arrow: bool) -> int:
    """Return how many messages can safely be taken before looking again; 0 at or past `end`.

    A message moves on by one entry at most, save for the broker's own markers, which cost
    no more than one waiting time at the very end.
    """
    if at[:2] >= end[:2]:
        return 0 if arrow or at[:2] > end[:2] else max(end[2] - at[2], 0)
    return end[1] - at[1] if at[0] == end[0] else LOOK_AGAIN


def chunks_until(
    reader: PartReader,
    end: Position,
    *,
    rows_max: int,
    clock: Clock,
    stopped: Stopped = _never,
    ask: Callable[[], object] | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks up to `end` exactly, or until it is `stopped`.

    While nothing comes, the broker is asked for something else now and then, by `ask`, which
    raises what is wrong with it. A broker that answers may be waiting for its storage.

    Raises
    ------
    UnknownPosition
        If messages go on past `end` without it.
    UnreachableError
        If nothing comes for 150 s though `end` has not been reached, or `ask` says so before.
    """
    target: Place = end[1:]
    stalled_since = asked_at = clock.monotonic_s()
    while not reader.reached:
        chunk = reader.collect(
            rows_max, end=target, wait_ms=WAIT_MS, linger_ms=WAIT_MS, stopped=stopped
        )
        if stopped():
            return
        if chunk is None:
            now = clock.monotonic_s()
            if ask is not None and now - asked_at > SILENT_S:
                ask()
                asked_at = now
            if now - stalled_since > STALL_S_MAX:
                raise UnreachableError(
                    f"The broker stopped sending {reader.part.topic!r}.",
                    found=f"nothing for {STALL_S_MAX:.0f} s before {end}",
                    remedy="see whether the broker and its storage are up, then read again",
                )
            continue
        stalled_since = asked_at = clock.monotonic_s()
        if chunk.messages:
            yield chunk
    if not reader.exact:
        raise UnknownPosition(
            f"Stream {reader.part.stream!r} has no position {end}.",
            found="the broker's messages go on past it without it",
            remedy="positions of one stream mean nothing on another, or on another ledger",
        )
