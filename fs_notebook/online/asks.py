"""What reading asks of a store, as data: reading itself does no I/O.

A reader is a generator that yields asks and is sent their answers. Who runs it decides how the
store is asked: `serve.FeatureReader` waits, `serve.AsyncFeatureReader` awaits.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fs_notebook.online.protocol import OnlineStore

T = TypeVar("T")

Shards = Sequence[tuple[str, Sequence[bytes]]]
Blobs = list[list[bytes | None]]
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Published:
    """Asks for the serving generation and all records: `OnlineStore.published`."""


@dataclass(frozen=True, slots=True)
class Values:
    """Asks for values, in one round trip: `OnlineStore.read`."""

    generation: int
    shards: Shards


Steps = Generator[Published | Values, Any, T]


def split(items: list[T], widths: Iterable[int]) -> list[list[T]]:
    """Return items in stretches of these lengths."""
    stretches, start = [], 0
    for width in widths:
        stretches.append(items[start : start + width])
        start += width
    return stretches


def answer(ask: Published | Values, store: OnlineStore) -> Any:
    """Return what a store answers."""
    if isinstance(ask, Published):
        return store.published()
    return store.read(ask.generation, ask.shards)


def run(steps: Steps[T], store: OnlineStore) -> T:
    """Run a reader to its end."""
    try:
        ask = next(steps)
        while True:
            ask = steps.send(answer(ask, store))
    except StopIteration as done:
        value: T = done.value
        return value
