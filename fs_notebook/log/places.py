"""Where messages lie: some of them are asked, the places of the others follow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fs_notebook.log.decode import ARROW_MAGIC

Place = tuple[int, int, int]
"""Ledger, entry, index: where a message lies in its partition."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Places = tuple[Ints, Ints, Ints]
"""Ledgers, entries and indices of several messages."""
Run = tuple[Place, int]
"""Where a run of messages begins, and how many they are: one entry, successive indices."""


class MessageId(Protocol):
    def ledger_id(self) -> int: ...
    def entry_id(self) -> int: ...
    def batch_index(self) -> int: ...


class Message(Protocol):
    """What is used of the client's messages."""

    def data(self) -> bytes: ...
    def message_id(self) -> MessageId: ...
    def publish_timestamp(self) -> int: ...
    def event_timestamp(self) -> int: ...
    def properties(self) -> dict[str, str]: ...
    def partition_key(self) -> str: ...
    def int_schema_version(self) -> int: ...
    def encryption_context(self) -> Any: ...


NOTED_BYTES = 2**16


class Noted:
    """What is asked of a large message later, without the client's own copy of its payload."""

    def __init__(self, message: Message, payload: bytes) -> None:
        at = message.message_id()
        self._place = (at.ledger_id(), at.entry_id(), at.batch_index())
        self._payload = payload
        self._published, self._event = message.publish_timestamp(), message.event_timestamp()
        self._properties, self._key = message.properties(), message.partition_key()
        self._version = message.int_schema_version()
        self._encryption = message.encryption_context()

    def data(self) -> bytes:
        return self._payload

    def message_id(self) -> MessageId:
        return self

    def ledger_id(self) -> int:
        return self._place[0]

    def entry_id(self) -> int:
        return self._place[1]

    def batch_index(self) -> int:
        return self._place[2]

    def publish_timestamp(self) -> int:
        return self._published

    def event_timestamp(self) -> int:
        return self._event

    def properties(self) -> dict[str, str]:
        return self._properties

    def partition_key(self) -> str:
        return self._key

    def int_schema_version(self) -> int:
        return self._version

    def encryption_context(self) -> Any:
        return self._encryption


def place(message: Message) -> Place:
    """Return (ledger, entry, batch index); a message that was sent alone has index 0."""
    at = message.message_id()
    return at.ledger_id(), at.entry_id(), max(at.batch_index(), 0)


def is_arrow(message: Message, payload: bytes) -> bool:
    """Tell whether a message is an Arrow batch, whose rows are events of their own.

    Only one that was sent alone can be: inside a batch its rows would have no positions.
    """
    return payload[:4] == ARROW_MAGIC and message.message_id().batch_index() < 0


def places(messages: Sequence[Message]) -> Places:
    """Return the ledgers, entries and batch indices of `messages`."""
    return places_of(runs(messages))


def runs(messages: Sequence[Message]) -> list[Run]:
    """Return the runs of `messages` that lie in one entry at successive indices.

    Asking a message for its place costs as much as receiving it, so that most are inferred: inside
    an entry indices grow one by one, hence two messages of one entry whose indices differ by as
    much as their ranks have every index between them. Entries are found by galloping. A message
    that comes a second time shifts all that follow, which ends the run there.
    """
    found: list[Run] = []
    start, guess = 0, len(messages)
    while start < len(messages):
        first = place(messages[start])
        guess = _run(messages, start, first, guess)
        found.append((first, guess))
        start += guess
    return found


def places_of(runs_: Sequence[Run]) -> Places:
    """Return the ledgers, entries and batch indices of all messages of successive runs."""
    counts = np.array([count for _, count in runs_], np.int64)
    firsts = np.array([first for first, _ in runs_], np.int64).reshape(-1, 3)
    ledger, entry = np.repeat(firsts[:, 0], counts), np.repeat(firsts[:, 1], counts)
    # The index of a run's first message, less how many come before it.
    shift = firsts[:, 2] - (np.cumsum(counts) - counts)
    return ledger, entry, np.arange(len(ledger), dtype=np.int64) + np.repeat(shift, counts)


def _run(messages: Sequence[Message], start: int, first: Place, guess: int) -> int:
    """Return how many messages from `start` on lie in its entry at successive indices."""

    def inside(length: int) -> bool:
        last = place(messages[start + length - 1])
        return last == (first[0], first[1], first[2] + length - 1)

    most = len(messages) - start
    known, beyond = 1, most + 1
    step = min(max(guess, 2), most)
    while known < step < beyond:
        if inside(step):
            known, step = step, min(step * 2 if step > guess else step + 1, most)
        else:
            beyond = step
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if inside(middle):
            known = middle
        else:
            beyond = middle
    return known


def spot(places_: Places, index: int) -> Place:
    """Return one of several places."""
    return int(places_[0][index]), int(places_[1][index]), int(places_[2][index])


def above_each(places_: Places, bound: Place) -> Bools:
    """Return which places lie beyond `bound`."""
    ledger, entry, batch = places_
    same = ledger == bound[0]
    beyond: Bools = (ledger > bound[0]) | (
        same & ((entry > bound[1]) | ((entry == bound[1]) & (batch > bound[2])))
    )
    return beyond


def above(places_: Places, bound: Place | None) -> Bools:
    """Return which places lie beyond `bound` and beyond all places before them."""
    ledger, entry, batch = places_
    step_l, step_e, step_b = np.diff(ledger), np.diff(entry), np.diff(batch)
    grows = (step_l > 0) | ((step_l == 0) & ((step_e > 0) | ((step_e == 0) & (step_b > 0))))
    if grows.all():
        return np.ones(len(ledger), np.bool_) if bound is None else above_each(places_, bound)
    keep = np.zeros(len(ledger), np.bool_)
    for index in range(len(ledger)):
        at = spot(places_, index)
        if bound is None or at > bound:
            keep[index] = True
            bound = at
    return keep
