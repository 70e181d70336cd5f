"""Storing events at the broker: producers, acknowledgements, and what a failure left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

import polars as pl

from fs_notebook.clock import Clock
from fs_notebook.errors import ConflictError, UnreachableError
from fs_notebook.log.cursors import Part
from fs_notebook.log.framing import Lot, is_json, lots
from fs_notebook.log.protocol import Stream
from fs_notebook.position import Position

PRODUCER_TRIES_MAX = 40
PRODUCER_WAIT_S = 0.05
ANSWER_S_MAX = 60
PENDING_MAX = 20_000
BATCH_MESSAGES = 1_000
BATCH_BYTES = 2**19
"""What one batch holds: it is cut here, never by the client's clock or its own bounds."""


class Producers(Protocol):
    """Where producers come from: the client."""

    def producer(self, topic: str, *, batching: bool, exclusive: bool) -> Any: ...
    def explained(self, doing: str) -> AbstractContextManager[None]: ...


def open_producer(
    producers: Producers, topic: str, *, batching: bool, exclusive: bool, clock: Clock
) -> Any:
    """Open a producer, waiting up to 2 s for one of somebody else's that is in the way.

    Raises
    ------
    ConflictError
        If it does not go away.
    """
    tries = 0
    while True:
        try:
            return producers.producer(topic, batching=batching, exclusive=exclusive)
        except ConflictError:
            tries += 1
            if tries >= PRODUCER_TRIES_MAX:
                raise
            clock.sleep_s(PRODUCER_WAIT_S)


def send(
    producers: Producers,
    stream: Stream,
    part: Part,
    rows: pl.DataFrame,
    sent: Sent,
    *,
    clock: Clock,
    exclusive: Any = None,
) -> None:
    """Send rows to one partition, through the `exclusive` producer if given; await the answers.

    An Arrow message is never put into a batch of the client's: its rows' indices take the place
    of the batch's. JSON messages are batched, `BATCH_MESSAGES` together: a batch is stored as a
    whole or not at all, so that the answer to its last message is that to all of them. An answer
    to each would cost more than sending them.
    """
    batching = exclusive is None and is_json(stream, rows)
    producer = exclusive or open_producer(
        producers, part.topic, batching=batching, exclusive=False, clock=clock
    )
    try:
        with producers.explained(f"store events in {part.topic}"):
            for lot in lots(stream, rows):
                for batch in _batches(lot, batching=batching):
                    producer.send_all(batch, sent.callback(part.partition, batch))
                    if batching and len(batch.payloads) < BATCH_MESSAGES:
                        producer.flush()
            producer.flush()
    except UnreachableError as error:
        raise sent.failed(part.topic, error.found) from None
    finally:
        if exclusive is None:
            with suppress(Exception):
                producer.close()
    sent.check(part.topic)


def _batches(lot: Lot, *, batching: bool) -> Iterator[Lot]:
    """Yield what is sent together: each message alone, or as many as make a batch."""
    count = len(lot.payloads)
    if not batching:
        for place in range(count):
            yield lot.part(place, place + 1)
        return
    sizes = list(map(len, lot.payloads))
    for start in range(0, count, BATCH_MESSAGES):
        stop = min(start + BATCH_MESSAGES, count)
        first = start
        if sum(sizes[start:stop]) >= BATCH_BYTES:
            size = 0
            for place in range(start, stop):
                size += sizes[place]
                if size >= BATCH_BYTES:
                    yield lot.part(first, place + 1)
                    first, size = place + 1, 0
        if first < stop:
            yield lot.part(first, stop)


class Sent:
    """What became of the messages of one append; written to by the client's own thread."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.stored = 0
        self.ends: dict[int, Position] = {}
        self._waiting = 0
        self._failure: str | None = None
        self._changed = threading.Condition()

    def callback(self, partition: int, batch: Lot) -> Callable[[Any, Any], None]:
        """Return what takes the answer to a batch's last message, which is that to all of it."""
        with self._changed:
            self._waiting += 1
        events = batch.rows * len(batch.payloads)
        last = batch.rows - 1 if batch.arrow else None

        def done(result: Any, at: Any) -> None:
            with self._changed:
                self._waiting -= 1
                if getattr(result, "name", str(result)) != "Ok":
                    self._failure = self._failure or str(result)
                else:
                    self.stored += events
                    index = max(at.batch_index(), 0) if last is None else last
                    end = Position(partition, at.ledger_id(), at.entry_id(), index)
                    self.ends[partition] = max(self.ends.get(partition, end), end)
                self._changed.notify_all()

        return done

    def check(self, topic: str) -> None:
        """Wait for the last answers; raise if any was a failure."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=ANSWER_S_MAX)
            if self._failure or self._waiting:
                raise self.failed(topic, self._failure or f"no answer in {ANSWER_S_MAX} s")

    def failed(self, topic: str, found: str | None) -> UnreachableError:
        return UnreachableError(
            f"Pulsar stored only {self.stored} of {self.total} rows.",
            found=f"{topic}: {found}",
            remedy="check the broker, then append the rest; rows are stored in order",
        )
