"""Reading from a store with asyncio: the same goes out and comes back as in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from fs_notebook.errors import UnreachableError
from fs_notebook.online import redis_reads
from fs_notebook.online.asks import Published, Values, answer
from fs_notebook.online.cluster import SCHEMES
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.wire import Command, Explained, UnknownScript, broke, packed

T = TypeVar("T")


class AsyncReads(Protocol):
    """A store that readers can ask with asyncio."""

    url: str

    async def answer(self, ask: Published | Values) -> Any:
        """Return what `asks.answer` returns of the same store."""
        ...

    async def ping(self) -> None:
        """Raise `UnreachableError`, naming where, if the store does not answer."""
        ...

    async def close(self) -> None: ...


class AsyncWire(Explained):
    """A pool of connections to one Redis, of one event loop. Only reads, see `Wire` for the rest.

    Parameters
    ----------
    url
        As for `Wire`.
    timeout_seconds
        How long a reply may take, and a free connection may be waited for.
    connections_max
        How many reads may be under way at once; others wait.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 20.0,
        connect_timeout_seconds: float = 3.0,
        connections_max: int = 64,
    ) -> None:
        super().__init__(
            BlockingConnectionPool.from_url, url, None, Retry(NoBackoff(), 0),
            timeout=timeout_seconds, socket_timeout=timeout_seconds,
            socket_connect_timeout=connect_timeout_seconds, max_connections=connections_max,
        )  # fmt: skip

    async def read_again(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to `commands`; repeated once if the connection broke meanwhile."""
        try:
            return self.checked(await self._exchange(commands))
        except UnreachableError as error:
            if not broke(error):
                raise
        return self.checked(await self._exchange(commands))

    async def close(self) -> None:
        await self._pool.disconnect()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        try:
            connection = await self._pool.get_connection()
        except (RedisError, OSError) as error:
            raise self.unreachable(error) from error
        try:
            await connection.send_packed_command(packed(commands))
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies
        except (RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            raise self.unreachable(error) from error
        except BaseException:
            # Cancelled: replies may still be under way, and must not reach anybody else.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)


class AsyncRedisStore:
    """The reading side of `RedisStore`, for asyncio.

    Parameters
    ----------
    url
        The address, as for `RedisStore`.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 20.0) -> None:
        self._wire = AsyncWire(url, timeout_seconds=timeout_seconds)
        self.url = self._wire.shown
        self._values = redis_reads.Values(one_slot=True)

    async def answer(self, ask: Published | Values) -> Any:
        """Return what Redis answers to one ask, in one round trip."""
        if isinstance(ask, Published):
            return await self._asked(redis_reads.published())
        return await self._asked(self._values.ask(ask.generation, ask.shards))

    async def ping(self) -> None:
        """Raise `UnreachableError`, naming where, if Redis does not answer."""
        await self._wire.read_again([("PING",)])

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def _asked(self, asked: redis_reads.Asked[T]) -> T:
        while True:
            try:
                return asked.answer(await self._wire.read_again(asked.commands))
            except (UnknownScript, redis_reads.Unsure):
                if asked.otherwise is None:
                    raise
                asked = asked.otherwise()


class Immediate:
    """A store in this process's memory, which answers without waiting."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self.url = store.url

    async def answer(self, ask: Published | Values) -> Any:
        return answer(ask, self.store)

    async def ping(self) -> None:
        self.store.ping()

    async def close(self) -> None:
        """Do nothing: the store is somebody else's."""


class Threaded:
    """A store that waits, asked from threads: a Redis Cluster has no wire for asyncio here.

    Parameters
    ----------
    store
        Closed with this.
    threads_max
        How many reads may be under way at once; others wait.
    """

    def __init__(self, store: OnlineStore, *, threads_max: int = 32) -> None:
        self.store = store
        self.url = store.url
        self._threads = ThreadPoolExecutor(threads_max, thread_name_prefix="fs-reads")

    async def answer(self, ask: Published | Values) -> Any:
        return await self._apart(partial(answer, ask, self.store))

    async def ping(self) -> None:
        await self._apart(self.store.ping)

    async def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self.store.close()

    async def _apart(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def reads_of(store: OnlineStore) -> AsyncReads:
    """Return the reading side of a store, for asyncio; connections of its own where it has any."""
    if not isinstance(store, RedisStore):
        return Immediate(store)
    if store.address.partition("://")[0] in SCHEMES:
        return Threaded(RedisStore(store.address))
    return AsyncRedisStore(store.address)
