"""Reading with asyncio, and the local cache: the same answers, fewer questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs_notebook.errors import IntegrityError, UnknownName, UnreachableError
from fs_notebook.online.asks import Published, Values
from fs_notebook.online.async_store import AsyncReads, AsyncRedisStore, reads_of
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.serve import AsyncFeatureReader, FeatureReader
from tests.online.conftest import BackDoor, RedisDoor
from tests.support.redis import RedisServer, free_port
from tests.support.served import Fixed, commit, event, plan_of, publish

SECOND = 1_000_000
TOTAL = "SELECT user, SUM(readtime) AS total, COUNT(*) AS n FROM read_events GROUP BY user"
WINDOWED = "SELECT user, SUM(readtime) AS recent FROM read_events GROUP BY user"
EVENTS = [event("a", 1, 30, 1 * SECOND), event("b", 1, 5, 2 * SECOND)]


class Counted:
    """Counts what is asked of a store, and lets tests hold answers back."""

    def __init__(self, store: OnlineStore) -> None:
        self.inner = reads_of(store)
        self.url = self.inner.url
        self.asks: list[Published | Values] = []
        self.go = asyncio.Event()
        self.go.set()

    async def answer(self, ask: Published | Values) -> Any:
        self.asks.append(ask)
        await self.go.wait()
        return await self.inner.answer(ask)

    async def ping(self) -> None:
        await self.inner.ping()

    async def close(self) -> None:
        await self.inner.close()


def fill(store: OnlineStore) -> None:
    publish(store, commit(store, "reading", plan_of(TOTAL, "reading"), EVENTS))
    recent = plan_of(WINDOWED, "recent", window_us=10 * SECOND, ttl_us=20 * SECOND)
    publish(store, commit(store, "recent", recent, EVENTS))


def asking(
    make: Callable[[], AsyncReads], use: Callable[[AsyncFeatureReader], Awaitable[None]],
    **options: Any,
) -> None:  # fmt: skip
    async def main() -> None:
        async with AsyncFeatureReader(make(), **options) as reader:
            await use(reader)

    asyncio.run(main())


def test_both_readers_say_the_same(door: BackDoor) -> None:
    store = door.store
    fill(store)
    clock = Fixed(5 * SECOND)

    async def use(reader: AsyncFeatureReader) -> None:
        for clock.us in (5 * SECOND, 11 * SECOND, 12 * SECOND, 22 * SECOND, 30 * SECOND):
            asked: dict[str, Any] = {"user": ["a", "b", "nobody", None]}
            here = await reader.read(["total", "recent@1", "n"], **asked)
            there = FeatureReader(store, clock=clock).read(["total", "recent@1", "n"], **asked)
            assert here.to_dict() == there.to_dict()
            assert here.status().equals(there.status())
            assert here.freshness().equals(there.freshness())
        assert [(g, n) for g, n, _ in await reader.kept()] == [("reading", 1), ("recent", 1)]
        with pytest.raises(UnknownName, match="totl"):
            await reader.read("totl", user="a")
        shard = (await reader.kept())[0][2].shard  # type: ignore[union-attr]
        (key,) = [k for k in store.entities(shard) if b"a" in k]
        door.overwrite(shard, key, door.sealed(shard, key)[:-1] + b"?")
        with pytest.raises(IntegrityError, match="damaged"):
            await reader.read("total", user="a")
        door.evict(shard, key)
        with pytest.raises(IntegrityError, match="evicted or deleted"):
            await reader.read("total", user="a")

    asking(lambda: reads_of(store), use, clock=clock)


def test_many_readers_fetch_once_what_serves_by_now() -> None:
    store = MemoryStore()
    fill(store)

    async def main() -> None:
        counted = Counted(store)
        reader = AsyncFeatureReader(counted, clock=Fixed(5 * SECOND))
        await reader.read("total", user="a")
        assert len(counted.asks) == 2
        # Another version serves now: all of them see it, and one of them fetches it.
        twice = plan_of(TOTAL.replace("SUM(readtime)", "SUM(2 * readtime)"), "reading")
        publish(store, commit(store, "reading", twice, EVENTS), version=2)
        counted.asks.clear()
        found = await asyncio.gather(*(reader.read("total", user="a") for _ in range(20)))
        assert [f["total"] for f in found] == [[60]] * 20
        published = [a for a in counted.asks if isinstance(a, Published)]
        assert len(published) == 1
        assert len(counted.asks) == 1 + 2 * 20

    asyncio.run(main())


def test_one_who_is_cancelled_leaves_the_others_their_answer() -> None:
    store = MemoryStore()
    fill(store)

    async def main() -> None:
        counted = Counted(store)
        counted.go.clear()
        reader = AsyncFeatureReader(counted, clock=Fixed(5 * SECOND), cache_s=60)
        first, second = (asyncio.ensure_future(reader.read("total", user="a")) for _ in range(2))
        while not counted.asks:
            await asyncio.sleep(0)
        first.cancel()
        counted.go.set()
        assert (await second)["total"] == [30]
        with pytest.raises(asyncio.CancelledError):
            await first
        assert [type(a) for a in counted.asks] == [Published, Values]

    asyncio.run(main())


def test_a_cache_asks_once_and_says_how_old_it_is() -> None:
    store, clock = MemoryStore(), Fixed(5 * SECOND)
    fill(store)

    async def main() -> None:
        counted = Counted(store)
        reader = AsyncFeatureReader(counted, clock=clock, cache_s=30, cache_entries=3)
        await asyncio.gather(*(reader.read(["total", "recent"], user="a") for _ in range(5)))
        # One flight for all of them.
        assert [type(a) for a in counted.asks] == [Published, Values]
        clock.us = 12 * SECOND
        kept = await reader.read(["total", "recent"], user=["a"])
        assert len(counted.asks) == 2
        # The window went on ending; only what was written meanwhile is not seen.
        assert kept.to_dict() == {"user": ["a"], "total": [30], "recent": [None]}
        assert (kept.at_us, kept.fetched_us) == (12 * SECOND, 5 * SECOND)
        mixed = await reader.read("total", user=["a", "b"])
        assert mixed["total"] == [30, 5]
        assert mixed.fetched_us == 5 * SECOND
        (ask,) = counted.asks[2:]
        assert isinstance(ask, Values)
        assert [keys for _, keys in ask.shards] == [[b"\x91\xa1b"]]
        # It holds three values, and the window's was used longest ago.
        assert len(reader._reading.kept or ()) == 3
        await reader.read("n", user=["zz"])
        assert len(reader._reading.kept or ()) == 3
        assert (await reader.read("recent", user="b"))["recent"] == [5]
        clock.us = 36 * SECOND
        counted.asks.clear()
        again = await reader.read("total", user="a")
        assert (len(counted.asks), again.fetched_us) == (1, 36 * SECOND)

    asyncio.run(main())


def test_a_cache_of_a_reader_in_threads_forgets_what_serves_no_more() -> None:
    store, clock = MemoryStore(), Fixed(5 * SECOND)
    fill(store)
    reader = FeatureReader(store, clock=clock, cache_s=30)
    assert reader.read("total", user="a")["total"] == [30]
    twice = plan_of(TOTAL.replace("SUM(readtime)", "SUM(2 * readtime)"), "reading")
    publish(store, commit(store, "reading", twice, EVENTS), version=2)
    assert reader.read("total", user="a")["total"] == [30]
    # A value that is not here makes it ask, and then it sees the flip.
    assert reader.read("total", user=["a", "b"])["total"] == [60, 10]
    assert reader.read("total", user="a")["total"] == [60]


def test_a_broken_connection_is_replaced(own_redis: RedisServer) -> None:
    door = RedisDoor(own_redis, own_redis.url)
    fill(door.store)

    async def use(reader: AsyncFeatureReader) -> None:
        assert (await reader.read("total", user="a"))["total"] == [30]
        own_redis.kill()
        with pytest.raises(UnreachableError, match="does not answer"):
            await reader.read("total", user="a")
        own_redis.start()
        assert (await reader.read("total", user="a"))["total"] == [30]
        for client in door.client.client_list():
            door.client.client_kill_filter(_id=client["id"], skipme=True)
        assert (await reader.read("total", user="a"))["total"] == [30]

    asking(lambda: AsyncRedisStore(own_redis.url), use, clock=Fixed(5 * SECOND))
    door.store.close()


def test_a_cancelled_read_takes_its_connection_with_it(system_redis: RedisServer) -> None:
    door = RedisDoor(system_redis, system_redis.url)
    door.client.flushall()
    fill(door.store)

    async def use(reader: AsyncFeatureReader) -> None:
        await reader.read("total", user="a")
        for turn in range(1, 40):
            task = asyncio.ensure_future(reader.read("total", user="a"))
            for _ in range(turn % 8):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # No reply of the former read may be taken for this one's.
            assert (await reader.read("total", user="b"))["total"] == [5]

    asking(lambda: AsyncRedisStore(system_redis.url), use, clock=Fixed(5 * SECOND))
    door.store.close()


def test_a_store_that_is_not_there_is_named() -> None:
    async def use(reader: AsyncFeatureReader) -> None:
        with pytest.raises(UnreachableError, match=r"redis://u:\*\*\*@127.0.0.1"):
            await reader.read("total", user="a")

    url = f"redis://u:secret@127.0.0.1:{free_port()}/0"
    asking(lambda: AsyncRedisStore(url), use)
