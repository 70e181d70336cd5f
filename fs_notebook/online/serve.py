"""Readers of features: one that waits for the store, and one for asyncio. See `reading`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.online.asks import Published, Steps, Values, run
from fs_notebook.online.async_store import AsyncReads
from fs_notebook.online.board import AnyServed, Board, Served, Wanted
from fs_notebook.online.kept import ENTRIES_MAX, KeptValues
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.reading import Reading, coerced
from fs_notebook.online.usage import UseNotes
from fs_notebook.online.vector import FeatureVector

__all__ = ["AsyncFeatureReader", "FeatureReader", "Served", "coerced"]

T = TypeVar("T")


def _reading(clock: Clock, cache_s: float, cache_entries: int) -> Reading:
    kept = KeptValues(cache_s, clock=clock, entries_max=cache_entries) if cache_s > 0 else None
    return Reading(clock=clock, kept=kept)


class FeatureReader:
    """Reads features from a store. Threads may share one.

    Parameters
    ----------
    store
        Where the values are.
    clock
        What time it is; windows end now.
    cache_s
        For how many seconds values that were read are used again; 0: not at all. What a worker
        writes, and a version that is promoted, may be seen that much later; windows and times to
        live end on time all the same. `FeatureVector.fetched_at` says how old values are.
    cache_entries
        How many values the cache holds at most.
    uses
        Notes who reads what; None notes nothing.
    """

    def __init__(
        self,
        store: OnlineStore,
        *,
        clock: Clock = SYSTEM,
        cache_s: float = 0.0,
        cache_entries: int = ENTRIES_MAX,
        uses: UseNotes | None = None,
    ) -> None:
        self.store = store
        self._reading = _reading(clock, cache_s, cache_entries)
        self._uses = uses

    def refresh(self) -> None:
        """Fetch what is served; a read does so by itself whenever it has changed."""
        run(self._reading.refreshed(), self.store)

    def kept(self) -> list[tuple[str, int, AnyServed]]:
        """Return group, number and record of each version that can be read now."""
        return list(run(self._reading.refreshed(), self.store).kept())

    def read(
        self,
        features: Sequence[str] | str,
        *,
        request: Mapping[str, Any] | Any = None,
        **entities: Any,
    ) -> FeatureVector:
        """Return features of entities, in one round trip.

        Parameters
        ----------
        features
            Names of features, or of groups (all their features). ``total_readtime@2`` is the
            feature of version 2, if that is kept current, in a column of that name.
        request
            Values of the request that derived features read: name → one value an entity, or a
            single one for all. They may stand beside the entities, if no name is an entity's.
        **entities
            For each part of the key a list of values, all of one length (or a single value).

        Raises
        ------
        UnknownName
            If nothing serves a feature of that name, or not in that version.
        UsageError
            If an entity or a request value is missing, or lists differ in length.
        IntegrityError
            If a value is damaged, or was stored and is gone.
        UnreachableError
            If the store does not answer.
        """
        found = run(self._reading.read(features, request, entities), self.store)
        if self._uses is not None and self._uses.note(found.versions, found.at_us):
            self._uses.flush()
        return found


class AsyncFeatureReader:
    """Reads features from a store with asyncio; otherwise as `FeatureReader`, to the letter.

    Tasks of one event loop may share one. However many of them find at once that something else
    serves by now, it is fetched once. With a local cache the same is true of values: who asks for
    what is being read already gets that.

    Parameters
    ----------
    store
        Where the values are: `async_store.reads_of` an online store.
    clock, cache_s, cache_entries, uses
        As for `FeatureReader`.
    """

    def __init__(
        self,
        store: AsyncReads,
        *,
        clock: Clock = SYSTEM,
        cache_s: float = 0.0,
        cache_entries: int = ENTRIES_MAX,
        uses: UseNotes | None = None,
    ) -> None:
        self.store = store
        self._reading = _reading(clock, cache_s, cache_entries)
        self._uses = uses
        self._flush: asyncio.Future[None] | None = None
        self._flights: dict[object, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> AsyncFeatureReader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._flush is not None:
            await self._flush
        await self.store.close()

    async def kept(self) -> list[tuple[str, int, AnyServed]]:
        """Return group, number and record of each version that can be read now."""
        return list((await self.board()).kept())

    async def board(self) -> Board:
        """Return all that is served now."""
        return await self._run(self._reading.refreshed())

    async def resolve(self, features: Sequence[str]) -> Wanted:
        """Return what names mean, where something may be to do before they are read."""
        return (await self._run(self._reading.resolved(features)))[1]

    async def read(
        self,
        features: Sequence[str] | str,
        *,
        request: Mapping[str, Any] | Any = None,
        **entities: Any,
    ) -> FeatureVector:
        """Return features of entities, in one round trip; see `FeatureReader.read`."""
        return await self.read_all(features, entities, request=request)

    async def read_all(
        self,
        features: Sequence[str] | str,
        entities: Mapping[str, Any],
        *,
        request: Mapping[str, Any] | Any = None,
    ) -> FeatureVector:
        """`read`, of entities in a mapping: whatever they are called."""
        found: FeatureVector = await self._run(self._reading.read(features, request, entities))
        idle = self._flush is None or self._flush.done()
        if self._uses is not None and self._uses.note(found.versions, found.at_us) and idle:
            # One at a time, in a thread: nobody waits for it but who closes the reader.
            self._flush = asyncio.ensure_future(asyncio.to_thread(self._uses.flush))
        return found

    async def _run(self, steps: Steps[T]) -> T:
        try:
            ask = next(steps)
            while True:
                ask = steps.send(await self._answer(ask))
        except StopIteration as done:
            value: T = done.value
            return value

    async def _answer(self, ask: Published | Values) -> Any:
        if isinstance(ask, Published):
            return await self._once("published", lambda: self.store.answer(ask))
        if self._reading.kept is None:
            return await self.store.answer(ask)
        shards = tuple((shard, tuple(keys)) for shard, keys in ask.shards)
        place = (ask.generation, shards)
        current, blobs = await self._once(place, lambda: self.store.answer(ask))
        # Each reader fills in what it lacks in lists of its own.
        return current, [list(mine) for mine in blobs]

    async def _once(self, place: object, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return the answer to what is being asked already, or ask."""
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = asyncio.ensure_future(ask())

            def landed(done: asyncio.Future[Any]) -> None:
                self._flights.pop(place, None)
                # Looked at, so that asyncio has nothing to say where nobody waits any more.
                done.cancelled() or done.exception()

            flight.add_done_callback(landed)
        # One who is cancelled leaves the others their answer.
        return await asyncio.shield(flight)
