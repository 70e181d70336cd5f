"""The watch: an event at every change, one answer shared, the loop never blocked."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import fake_catalog_service
import pytest

from fs_notebook.errors import UnreachableError
from fs_notebook.server.extension import EVENT_SCHEMA_ID
from fs_notebook.server.hub import CatalogHub


async def next_event(socket) -> dict:
    while True:
        event = json.loads(await socket.read_message())
        if event["schema_id"] == EVENT_SCHEMA_ID:
            return event


async def test_a_promote_reaches_every_listener(ask, jp_ws_fetch):
    socket = await jp_ws_fetch("api", "events", "subscribe")
    _, before = await ask("catalog")
    await ask("promote", body={"name": "taste"})
    names = set()
    while "taste" not in names:
        event = await next_event(socket)
        names |= set(event["changed"])
        assert event["revision"] != before["revision"]
    socket.close()


async def test_a_change_made_elsewhere_is_seen(ask, service, jp_ws_fetch):
    socket = await jp_ws_fetch("api", "events", "subscribe")
    await ask("catalog")
    service().promote("taste", actor="another notebook")
    assert (await next_event(socket))["changed"] == ["taste"]
    socket.close()


class Emitted:
    """Collects what a hub emits, and lets a test wait for it."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[list[str]] = asyncio.Queue()

    def __call__(self, revision: str, changed: list[str]) -> None:
        self.changes.put_nowait(changed)


@pytest.fixture
def make_hub(jp_asyncio_loop):
    hubs = []

    def _make(factory, emit=lambda *_: None):
        hub = CatalogHub(factory=factory, emit=emit, log=logging.getLogger("test-hub"))
        hubs.append(hub)
        return hub

    yield _make
    for hub in hubs:
        jp_asyncio_loop.run_until_complete(hub.close())


async def test_a_service_that_opens_slowly_is_watched_soon_after(make_hub):
    made = []

    def opened():
        threading.Event().wait(1.0)
        made.append(fake_catalog_service.FakeCatalogService())
        return made[0]

    emitted = Emitted()
    hub = make_hub(opened, emitted)
    await hub.overview()
    made[0].promote("taste", actor="another notebook")
    # In proportion to the opening, the watch would rest for nine seconds.
    async with asyncio.timeout(6):
        assert await emitted.changes.get() == ["taste"]


async def test_a_slow_service_does_not_block_the_loop(make_hub):
    release = threading.Event()

    class Slow(fake_catalog_service.FakeCatalogService):
        def overview(self):
            assert release.wait(30)
            return super().overview()

    hub = make_hub(Slow)
    asked = asyncio.create_task(hub.overview())
    await asyncio.sleep(0)
    assert not asked.done()
    release.set()
    assert (await asked)["groups"]


async def test_an_answer_read_before_a_change_is_not_given_after_it(make_hub):
    reading, release = threading.Event(), threading.Event()

    class Slow(fake_catalog_service.FakeCatalogService):
        def overview(self):
            seen = super().overview()
            reading.set()
            assert release.wait(30)
            return seen

    hub = make_hub(Slow)
    before = asyncio.create_task(hub.overview())
    await asyncio.to_thread(reading.wait, 30)
    promoted = asyncio.create_task(hub.promote("taste", actor="ada"))
    await asyncio.sleep(0)
    release.set()
    await promoted
    after = {g["name"]: g["state"] for g in (await hub.overview())["groups"]}
    await before
    assert after["taste"] != "draft"


async def test_the_watch_survives_an_outage(make_hub):
    class Flaky(fake_catalog_service.FakeCatalogService):
        down = True

        def revision(self):
            if self.down:
                self.down = False
                raise UnreachableError("gone")
            return super().revision()

    emitted = Emitted()
    opened: list[Flaky] = []

    def factory() -> Flaky:
        opened.append(Flaky())
        return opened[-1]

    hub = make_hub(factory, emitted)
    await hub.overview()
    opened[0].promote("taste", actor="ada")
    await hub.overview()
    while "taste" not in await emitted.changes.get():
        pass


async def test_closing_lets_go_of_the_service():
    opened = fake_catalog_service.FakeCatalogService()
    hub = CatalogHub(
        factory=lambda: opened, emit=lambda *_: None, log=logging.getLogger("test-hub")
    )
    await hub.overview()
    await hub.close()
    assert opened.closed
