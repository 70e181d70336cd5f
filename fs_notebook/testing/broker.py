"""What a broker keeps, in memory: topics of messages in entries of ledgers, and cursors over them.

Ledgers are numbered across the broker and are closed after a few entries, as a broker's are when
topics move; an entry holds a batch of messages, or one that was sent alone.
"""

from __future__ import annotations

import random
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fs_notebook.clock import Clock
from fs_notebook.errors import UnreachableError, UsageError
from fs_notebook.log.cursors import Cursor
from fs_notebook.position import Position
from fs_notebook.testing.faults import Fault, Faults

REDELIVERED_MAX = 40
DELAY_MS_MAX = 2_000


def silent(doing: str, faults: Faults) -> UnreachableError:
    """Build the error for a simulated ledger or store that does not answer."""
    return UnreachableError(
        f"The simulation did not {doing}.",
        found=f"{faults!r}",
        remedy="the same seed does the same again",
    )


@dataclass(frozen=True)
class MessageId:
    """Where a message lies; the batch index of one that was sent alone is -1."""

    ledger: int
    entry: int
    batch: int

    def ledger_id(self) -> int:
        return self.ledger

    def entry_id(self) -> int:
        return self.entry

    def batch_index(self) -> int:
        return self.batch


@dataclass(frozen=True)
class Stored:
    """A stored message, as the client hands it over."""

    at: MessageId
    payload: bytes
    publish_ms: int
    event_ms: int = 0
    told: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None

    def data(self) -> bytes:
        return self.payload

    def message_id(self) -> MessageId:
        return self.at

    def publish_timestamp(self) -> int:
        return self.publish_ms

    def event_timestamp(self) -> int:
        return self.event_ms

    def properties(self) -> dict[str, str]:
        return dict(self.told)

    def partition_key(self) -> str:
        return self.key or ""

    def int_schema_version(self) -> int:
        return -1

    def encryption_context(self) -> None:
        return None


@dataclass(frozen=True)
class Sending:
    """A message to store: its payload, and what is told beside it."""

    payload: bytes
    event_ms: int | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None


class Topic:
    """The messages of one partition, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Stored] = []
        self.gone = 0
        """How many messages were trimmed; cursors count from the first there ever was."""
        self.ledger = -1
        self.entries = 0
        self.entries_max = 0

    @property
    def count(self) -> int:
        """How many messages there ever were."""
        return self.gone + len(self.messages)

    def index_of(self, ledger: int, entry: int) -> int:
        """Return the number of the first message that lies at or after an entry."""
        place = (ledger, entry)
        return self.gone + bisect_left(
            self.messages, place, key=lambda m: (m.at.ledger, m.at.entry)
        )

    def get(self, index: int) -> Stored | None:
        """Return a message by its number; what was trimmed is passed over."""
        index = max(index - self.gone, 0)
        return self.messages[index] if index < len(self.messages) else None


class Broker:
    """Topics by name. Its methods are atomic; `locked` makes several of them so.

    Parameters
    ----------
    chance
        Draws how many entries a ledger takes.
    clock
        Gives publish times, in milliseconds as a broker has them, and takes what is waited.
    faults
        What goes wrong while messages are fetched.
    entries_max
        The most entries that a ledger takes.
    """

    url = "simulated:"

    def __init__(
        self, chance: random.Random, *, clock: Clock, faults: Faults, entries_max: int
    ) -> None:
        if entries_max < 1:
            raise UsageError(f"A ledger cannot hold {entries_max} entries.", remedy="1 or more")
        self._chance = chance
        self._clock = clock
        self._faults = faults
        self._entries_max = entries_max
        self._ledgers = 0
        self._topics: dict[str, Topic] = {}
        self._lock = threading.RLock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else out."""
        with self._lock:
            yield

    def make(self, name: str) -> None:
        with self._lock:
            self._topics[name] = Topic(name)

    def delete(self, name: str) -> None:
        with self._lock:
            del self._topics[name]

    def topic(self, name: str) -> Topic:
        with self._lock:
            found = self._topics.get(name)
        if found is None:
            raise UnreachableError(f"The simulated ledger has no topic {name!r}.")
        return found

    def store(self, name: str, batch: Sequence[Sending], *, alone: bool) -> MessageId:
        """Store messages as one entry; return where the last one lies.

        `alone` is for a single message outside any batch of the client's.
        """
        assert len(batch) == 1 or (batch and not alone)
        with self._lock:
            topic = self.topic(name)
            if topic.ledger < 0 or topic.entries >= topic.entries_max:
                self._open_ledger(topic)
            publish_ms = self._clock.now_us() // 1000
            for index, one in enumerate(batch):
                at = MessageId(topic.ledger, topic.entries, -1 if alone else index)
                event_ms = one.event_ms or 0
                topic.messages.append(
                    Stored(at, one.payload, publish_ms, event_ms, one.told, one.key)
                )
            topic.entries += 1
            return at

    def close_ledger(self, name: str) -> None:
        """Let the topic go on in a new ledger, as when it is unloaded."""
        with self._lock:
            topic = self.topic(name)
            topic.entries_max = topic.entries

    def trim(self, name: str, before: Position) -> None:
        """Remove the entries that lie wholly before that of `before`."""
        with self._lock:
            topic = self.topic(name)
            removed = topic.index_of(before.ledger, before.entry) - topic.gone
            del topic.messages[:removed]
            topic.gone += removed

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Cursor:
        """Open a cursor at `start`'s entry, or at the earliest message there is."""
        found = self.topic(topic)
        with self._lock:
            index = 0 if start is None else found.index_of(start.ledger, start.entry)
        return BrokerCursor(self, found, index, self._clock, self._faults)

    def since(self, topic: str, published_ms: int) -> Cursor:
        """Open a cursor at the first message that was published at a time or after it."""
        found = self.topic(topic)
        with self._lock:
            later = (i for i, m in enumerate(found.messages) if m.publish_ms >= published_ms)
            index = found.gone + next(later, len(found.messages))
        return BrokerCursor(self, found, index, self._clock, self._faults)

    def last(self, topic: str) -> Stored | None:
        """Return the topic's newest message, or None if it is empty."""
        with self._lock:
            found = self.topic(topic)
            return found.messages[-1] if found.messages else None

    def is_lost(self, cursor: Cursor) -> bool:
        """Tell whether a cursor has no connection: it always has one here, if a faulty one."""
        return False

    def first(self, topic: str) -> Stored | None:
        """Return the oldest message that is left of a topic, or None if there is none."""
        with self._lock:
            found = self.topic(topic)
            return found.messages[0] if found.messages else None

    def _open_ledger(self, topic: Topic) -> None:
        topic.ledger, topic.entries = self._ledgers, 0
        topic.entries_max = self._chance.randint(1, self._entries_max)
        self._ledgers += 1


class BrokerCursor(Cursor):
    """Hands over a topic's messages in order, from one on."""

    def __init__(
        self, broker: Broker, topic: Topic, index: int, clock: Clock, faults: Faults
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._index = self._first = index
        self._clock = clock
        self._faults = faults

    def next(self, timeout_ms: int) -> Stored | None:
        """Return the next message; None, with `timeout_ms` gone by, if there is none."""
        if not self._is_calm(timeout_ms):
            return None
        now = self._broker.topic(self._topic.name)
        if now is not self._topic:
            # As Pulsar's client does, this reconnects to what has the name by now.
            self._topic, self._index, self._first = now, 0, 0
        self._index = max(self._index, self._topic.gone)
        message = self._topic.get(self._index)
        if message is None:
            self._clock.sleep_s(timeout_ms / 1000)
            return None
        self._index += 1
        return message

    def _is_calm(self, timeout_ms: int) -> bool:
        """Tell whether the next message comes in time; break, wait or go back if that strikes."""
        faults = self._faults
        faults.step("fetch a message")
        if faults.strikes(Fault.LEDGER_SILENT):
            raise silent(f"send a message of {self._topic.name!r}", faults)
        if faults.strikes(Fault.REDELIVERY):
            back = max(self._index - 1 - faults.draw(Fault.REDELIVERY, REDELIVERED_MAX), 0)
            again = self._topic.get(back)
            if again is not None:
                # A batch is handed over as a whole.
                whole = self._topic.index_of(again.at.ledger, again.at.entry)
                self._index = max(min(whole, self._index), self._first)
        if faults.strikes(Fault.DELAY):
            late_ms = faults.draw(Fault.DELAY, DELAY_MS_MAX)
            self._clock.sleep_s(min(late_ms, timeout_ms) / 1000)
            return late_ms <= timeout_ms
        return not faults.strikes(Fault.BATCH_CUT)

    def close(self) -> None:
        """Do nothing: there is no connection."""
