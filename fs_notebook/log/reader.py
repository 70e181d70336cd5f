"""Reading one partition of a topic: from a position, in order, in chunks, up to an end or on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from fs_notebook.clock import Clock
from fs_notebook.errors import HistoryLost, UnknownPosition, UnreachableError
from fs_notebook.log.cursors import (
    LOOK_MS,
    QUEUE_UNKNOWN,
    Cursors,
    Part,
    Taken,
    chunks_before,
    event_ms_of,
    first_of,
)
from fs_notebook.log.decode import arrow_rows
from fs_notebook.log.lanes import Stopped
from fs_notebook.log.messages import Chunk
from fs_notebook.log.places import (
    NOTED_BYTES,
    Ints,
    Message,
    Noted,
    Place,
    Places,
    Run,
    above,
    above_each,
    is_arrow,
    place,
    places_of,
    runs,
    spot,
)
from fs_notebook.log.retention import keeping
from fs_notebook.position import Position

QUEUE_BYTES = 32 * 2**20
"""What the client may hold of a partition before it is asked for; it counts in messages."""
QUEUE_MESSAGES = 10_000
_QUEUE_MIN = 4
WIDER = 4
FAR_ENTRIES = 100
FAR_MESSAGES = 1_000
"""More messages ahead are worth opening a cursor only where many came, and many will."""
CHUNK_BYTES_MAX = 16 * 2**20
WAIT_MS = 100
SILENT_S = 30.0
"""After so long without a message the broker is asked whether it is there at all."""
STALL_S_MAX = 150.0
"""A broker whose storage failed it waits 15 s, then 30 s, then 60 s, before it reads again."""
LOST_MS = 2_000
"""After so long without a message a reader asks whether its connection is lost."""
LOOK_AGAIN = 64
"""So many messages are taken at most before who follows looks whether the first are held long."""
BLOCK_MESSAGES = 256
"""So many are taken at most before a reader looks where it is and whether to go on."""
_ALL_ROWS = 2**62


def _never() -> bool:
    return False


def queue_for(entry_bytes: float, *, share: int = 1) -> int:
    """Return how many messages to fetch ahead where entries have about so many bytes.

    An entry may be a batch of many messages, which come all together: then fewer of them are ahead
    than would do, which costs little, and never more. `share` is how many readers have one bound.
    """
    return int(min(max(QUEUE_BYTES / share / max(entry_bytes, 1), _QUEUE_MIN), QUEUE_MESSAGES))


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
    than `QUEUE_BYTES` allow, or with more where they are far smaller. Whoever needs no more of
    plain messages than their payloads asks for them without `each`.
    """

    def __init__(
        self,
        cursors: Cursors,
        part: Part,
        start: Position | None,
        *,
        queue: int = QUEUE_UNKNOWN,
        each: bool = True,
    ) -> None:
        self.part = part
        self._cursors = cursors
        self._start = start
        self._after: Place | None = None if start is None else start[1:]
        self._each = each
        self._held: deque[tuple[Message, bytes]] = deque()
        self._checked = start is None
        self._skipping = start is not None
        self._seen: Place | None = self._after
        self.reached = False
        """Whether the last chunk came up to the end that it was asked for."""
        self.exact = False
        """Whether the event at that very end was there."""
        self._queue = queue
        self._silent_ms = 0
        self._widened = False
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
        first = self._taken(wait_ms)
        if first is None:
            self._mend(wait_ms)
            return None
        if not self._checked:
            self._check_start(first[0])
        self._held.appendleft(first)
        chunk = Chunk(self.part.partition, is_arrow(*first), after=self._after, until=end)
        gather = self._gather_arrow if chunk.arrow else self._gather_plain
        size = gather(chunk, rows_max, linger_ms, stopped)
        seen = len(chunk.payloads)
        self._silent_ms = 0
        self._sift(chunk, end)
        if not self.reached:
            self._fit(size, seen, end)
        return chunk

    def _taken(self, timeout_ms: int) -> tuple[Message, bytes] | None:
        if self._held:
            return self._held.popleft()
        messages, payloads, _ = self._cursor.take(1, 1, timeout_ms)
        return (messages[0], payloads[0]) if messages else None

    def _gather_arrow(self, chunk: Chunk, rows_max: int, linger_ms: int, stopped: Stopped) -> int:
        """Take Arrow batches into the chunk; return their size in bytes."""
        size = count = 0
        while count < rows_max and size < CHUNK_BYTES_MAX:
            taken = self._taken(linger_ms)
            if taken is None:
                break
            message, payload = taken
            if not is_arrow(message, payload):
                self._held.appendleft(taken)
                break
            chunk.messages.append(message if len(payload) < NOTED_BYTES else Noted(*taken))
            chunk.payloads.append(payload)
            size += len(payload)
            count += _rows(message, payload)
            at_end = chunk.until is not None and place(message)[:2] >= chunk.until[:2]
            if at_end or stopped():
                break
        return size

    def _gather_plain(self, chunk: Chunk, rows_max: int, linger_ms: int, stopped: Stopped) -> int:
        """Take plain messages into the chunk; return their size in bytes.

        They come in blocks. After each it looks where it is, and whether to go on.
        """
        found: list[Run] = []
        size = 0
        # Another thread may change its mind meanwhile: a chunk is all of one or the other.
        each = self._each
        block = before = 1
        block_max = LOOK_AGAIN if chunk.until is None else BLOCK_MESSAGES
        mixed = False
        while before > 0 and len(chunk.payloads) < rows_max and size < CHUNK_BYTES_MAX:
            count = min(block, before, rows_max - len(chunk.payloads))
            messages, payloads, taken = self._block(count, linger_ms)
            here = runs(messages)
            plain = _plain(here, messages, payloads)
            if plain < len(messages):
                self._held.extend(list(zip(messages, payloads, strict=True))[plain:])
                messages, payloads, mixed = messages[:plain], payloads[:plain], True
                here, taken = runs(messages), sum(map(len, payloads))
            if not messages:
                break
            # Only the last one may be large.
            if len(payloads[-1]) >= NOTED_BYTES:
                messages[-1] = Noted(messages[-1], payloads[-1])
            found += here
            if each:
                chunk.messages += messages
            else:
                _note_heads(chunk, messages, here)
            chunk.payloads += payloads
            size += taken
            if mixed or stopped():
                break
            block = before = min(2 * block, block_max)
            if chunk.until is not None:
                (ledger, entry, index), run = here[-1]
                before = _messages_before(chunk.until, (ledger, entry, index + run - 1))
        chunk.places = places_of(found)
        if not each:
            chunk.again = self._event_ms
        return size

    def _block(self, count: int, linger_ms: int) -> Taken:
        """Return up to `count` messages, which end with one that is large."""
        if not self._held:
            return self._cursor.take(count, NOTED_BYTES, linger_ms)
        message, payload = self._held.popleft()
        return [message], [payload], len(payload)

    def _event_ms(self, places_: Places) -> Ints:
        """Return the event timestamps of messages, which are read again for it.

        From here on each message is kept: if one is asked for, so are others.
        """
        self._each = True
        return event_ms_of(self._cursors, self.part, places_)

    def _mend(self, waited_ms: int) -> None:
        """Open the cursor anew where its connection is lost though the broker answers.

        The client would do so itself, but waits for up to a minute after an outage that was long.
        """
        self._silent_ms += waited_ms
        if self._silent_ms < LOST_MS:
            return
        self._silent_ms = 0
        if self._cursors.is_lost(self._cursor):
            self._open_instead(self._queue)

    def _fit(self, size: int, seen: int, end: Place | None) -> None:
        """Go on with another number of messages ahead, where one fits messages far better.

        What was known before is how large entries are, not how many messages lie in each.
        """
        if self._seen is None or self._skipping:
            return
        queue = queue_for(size / seen)
        if queue < self._queue and self._queue * size > 2 * QUEUE_BYTES * seen:
            self._cursor.close()
            self._open(queue)
            return
        ledger, entry, _ = self._seen
        far = end is not None and (end[0] > ledger or end[1] - entry >= FAR_ENTRIES)
        if far and queue > WIDER * self._queue and seen >= FAR_MESSAGES and not self._widened:
            self._widened = True
            self._open_instead(queue)

    def _open_instead(self, queue: int) -> None:
        """Open a cursor in place of the one there is, which stays if that cannot be done."""
        held = self._cursor
        with suppress(UnreachableError):
            self._open(queue)
            held.close()

    def _open(self, queue: int) -> None:
        """Open a cursor at the entry that was read last."""
        at = self._start
        if self._seen is not None and not self._skipping:
            ledger, entry, _ = self._seen
            at = Position(self.part.partition, ledger, entry, 0)
        self._cursor = self._cursors.cursor(self.part.topic, at, queue=queue)
        self._held.clear()
        self._queue = queue
        # What was read last must still be there: else what follows it may be gone as well.
        self._start, self._checked = at, at is None

    def _sift(self, chunk: Chunk, end: Place | None) -> None:
        """Drop what lies outside (start, end] or was there before; note how far reading has come.

        When its connection was cut, the client hands over again some of what it had handed over.
        """
        if chunk.arrow:
            self._sift_arrow(chunk, end)
            return
        spots = chunk.places
        assert spots is not None
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
            if chunk.messages:
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
        before = chunks_before(start)
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


def _note_heads(chunk: Chunk, messages: Sequence[Message], found: Sequence[Run]) -> None:
    """Let the chunk hold one message of each entry."""
    index = 0
    for (ledger, entry, _), run in found:
        chunk.heads.setdefault((ledger, entry), messages[index])
        index += run


def _plain(found: Sequence[Run], messages: Sequence[Message], payloads: Sequence[bytes]) -> int:
    """Return how many messages come before the first Arrow batch, which is never in a batch."""
    index = 0
    for _, run in found:
        if run == 1 and is_arrow(messages[index], payloads[index]):
            break
        index += run
    return index


def _messages_before(end: Place, at: Place) -> int:
    """Return how many messages can safely be taken before looking again; 0 at or past `end`.

    A message moves on by one entry at most, save for the broker's own markers, which cost
    no more than one waiting time at the very end.
    """
    if at[:2] >= end[:2]:
        return 0 if at[:2] > end[:2] else max(end[2] - at[2], 0)
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
        if chunk.payloads:
            yield chunk
    if not reader.exact:
        raise UnknownPosition(
            f"Stream {reader.part.stream!r} has no position {end}.",
            found="the broker's messages go on past it without it",
            remedy="positions of one stream mean nothing on another, or on another ledger",
        )
