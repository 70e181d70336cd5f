"""The catalog between the event loop and the service: threads, a watch, and bounds on both."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fs_notebook.errors import ConflictError, UnreachableError
from fs_notebook.server.service import CatalogService, GroupView, Overview

T = TypeVar("T")

POLL_S = 0.1
REFRESH_S = 2.0
RETRY_S = 1.0
REFRESH_BOOTSTRAP_S = 0.5
IDLE_S = 30.0
# The watch takes at most this share of the reader's time, however slow the service is.
WATCH_SHARE = 0.1
# But one slow answer, as that which opens the service, must not keep changes from being seen.
PAUSE_S_MAX = 1.5
READ_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 120.0
LOOK_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 5.0
WRITES_MAX = 8
LOOKS_MAX = 8
# Browsers that have one of the newest revisions are told only what changed since.
REVISIONS_MAX = 8

Emit = Callable[[str, list[str]], None]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _digested(service: CatalogService) -> tuple[Overview, dict[str, str]]:
    overview = service.overview()
    return overview, {group["name"]: _digest(group) for group in overview["groups"]}


class CatalogHub:
    """Serve one `CatalogService` to many browsers without ever blocking the event loop.

    Parameters
    ----------
    factory
        Opens the service; called on the reader thread at the first request, and again after it
        failed.
    emit
        Called on the event loop with the new revision and the names of the groups that changed.
    log
        Where the watch says, once, that the service fails.
    """

    def __init__(
        self,
        *,
        factory: Callable[[], CatalogService],
        emit: Emit,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._factory = factory
        self._emit = emit
        self._log = log
        self._service: CatalogService | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fs-notebook-read")
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fs-notebook-write")
        # What replays history must keep nobody from reading the catalog.
        self._looker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fs-notebook-look")
        self._writes = 0
        self._looks = 0
        self._reading: asyncio.Task[Overview] | None = None
        self._latest: Overview | None = None
        self._revision: str | None = None
        self._digests: dict[str, dict[str, str]] = {}
        self._noticed: dict[str, str] = {}
        self._asked_at_s = 0.0
        self._watch: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()

    async def overview(self) -> Overview:
        """Return the catalog as it is now; its revision covers the workers' states too."""
        self._wake()
        return await self._read_overview()

    async def latest(self) -> Overview:
        """Return the catalog as it was read last, at most one refresh ago."""
        self._wake()
        return self._latest or await self._read_overview()

    def since(self, revision: str, overview: Overview) -> dict[str, Any] | None:
        """Return what an overview has that a former revision had not; None if nobody knows.

        `groups` are those that came or changed, `gone` the names of those that went.
        """
        before, now = self._digests.get(revision), self._digests.get(overview["revision"])
        if before is None or now is None:
            return None
        changed = [g for g in overview["groups"] if before.get(g["name"]) != now[g["name"]]]
        return {
            "revision": overview["revision"], "connection": overview["connection"],
            "since": revision, "groups": changed, "gone": sorted(before.keys() - now.keys()),
        }  # fmt: skip

    async def promote_source(self, source: str, *, actor: str) -> GroupView:
        """Promote what a cell text defines."""
        return await self._write(lambda service: service.promote_source(source, actor=actor))

    async def promote(self, name: str, *, actor: str) -> GroupView:
        """Promote the latest version of a group."""
        return await self._write(lambda service: service.promote(name, actor=actor))

    async def rollback(self, name: str, *, actor: str) -> GroupView:
        """Serve a group's previous version again."""
        return await self._write(lambda service: service.rollback(name, actor=actor))

    async def ask(self, ask: Callable[[CatalogService], T]) -> T:
        """Return what the service answers to a question that changes nothing."""
        self._wake()
        return await self._read(ask)

    async def look(self, ask: Callable[[CatalogService], T]) -> T:
        """Return what the service answers to a question that may take it a while."""
        if self._looks >= LOOKS_MAX:
            raise ConflictError(
                f"{self._looks} features are being looked at already.",
                remedy="wait, then try again",
            )
        self._looks += 1
        try:
            service = await self._read(lambda service: service)
            return await self._call(self._looker, lambda: ask(service), LOOK_TIMEOUT_S)
        finally:
            self._looks -= 1

    async def change(self, ask: Callable[[CatalogService], T]) -> T:
        """Change something, and return what the service answers."""
        return await self._write(ask)

    async def close(self) -> None:
        """Stop the watch and let go of the service."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        service, self._service = self._service, None
        if service is not None:
            await self._call(self._reader, service.close, CLOSE_TIMEOUT_S)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
        self._looker.shutdown(wait=False, cancel_futures=True)

    async def _call(self, pool: ThreadPoolExecutor, work: Callable[[], T], timeout_s: float) -> T:
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            # Nobody is left to ask for the late outcome; it is taken, so that it is not reported
            # as an error that was never looked at.
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise UnreachableError(
                f"The feature store did not answer within {timeout_s:g} seconds.",
                remedy="see whether the broker and Redis are reachable, then try again",
            ) from None

    def _open(self) -> CatalogService:
        if self._service is None:
            self._service = self._factory()
        return self._service

    async def _read(self, ask: Callable[[CatalogService], T]) -> T:
        return await self._call(self._reader, lambda: ask(self._open()), READ_TIMEOUT_S)

    async def _write(self, ask: Callable[[CatalogService], T]) -> T:
        if self._writes >= WRITES_MAX:
            raise ConflictError(
                f"{self._writes} changes of the catalog are still under way.",
                remedy="wait for them, then try again",
            )
        self._writes += 1
        try:
            service = await self._read(lambda service: service)
            return await self._call(self._writer, lambda: ask(service), WRITE_TIMEOUT_S)
        finally:
            self._writes -= 1
            # A read that began before the change must not be shared by those who ask after it.
            self._reading = None
            self._wake()
            self._nudge.set()

    async def _read_overview(self) -> Overview:
        # Browsers that ask at the same time share one answer.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._fresh())
        return await asyncio.shield(self._reading)

    async def _fresh(self) -> Overview:
        # Of ten thousand groups the digests take as long as the reading: not on the event loop.
        overview, digests = await self._read(_digested)
        revision = f"{overview['revision']}.{_digest([overview['connection'], digests])}"
        self._latest = Overview(
            revision=revision, connection=overview["connection"], groups=overview["groups"]
        )
        self._digests.pop(revision, None)
        self._digests[revision] = digests
        while len(self._digests) > REVISIONS_MAX:
            self._digests.pop(next(iter(self._digests)))
        return self._latest

    def _wake(self) -> None:
        self._asked_at_s = asyncio.get_running_loop().time()
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_while_asked())

    async def _watch_while_asked(self) -> None:
        """Emit at each change, until no browser has asked anything for a while."""
        loop = asyncio.get_running_loop()
        revision: str | None = None
        refresh_at_s = 0.0
        failing = False
        while loop.time() - self._asked_at_s < IDLE_S:
            started_s = loop.time()
            self._nudge.clear()
            try:
                now = await self._read(lambda service: service.revision())
                if now != revision:
                    self._reading = None
                if now != revision or started_s >= refresh_at_s:
                    self._notice(await self._read_overview())
                    revision = now
                    # What the revision does not cover may wait, where telling it takes long.
                    took_s = loop.time() - started_s
                    refresh_at_s = loop.time() + max(self._refresh_s(), took_s / WATCH_SHARE)
                failing = False
            except Exception as error:  # noqa: BLE001
                # Whatever it is, each request tells it to its browser; the watch only goes on.
                self._latest = None
                if not failing:
                    self._log.warning("the feature catalog cannot be watched: %s", error)
                failing = True
            busy_s = loop.time() - started_s
            rest_s = min(busy_s * (1 / WATCH_SHARE - 1), PAUSE_S_MAX)
            await self._pause(RETRY_S if failing else max(POLL_S, rest_s))
        self._latest = None

    async def _pause(self, seconds: float) -> None:
        # Not `wait_for`: on Python 3.11 it can swallow the cancellation that `close` sends.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudge.wait()

    def _refresh_s(self) -> float:
        groups = self._latest["groups"] if self._latest else []
        moving = any(group["state"] == "bootstrapping" for group in groups)
        return REFRESH_BOOTSTRAP_S if moving else REFRESH_S

    def _notice(self, overview: Overview) -> None:
        digests = self._digests.get(overview["revision"], {})
        before, self._noticed = self._noticed, digests
        moved = self._revision not in (None, overview["revision"])
        self._revision = overview["revision"]
        if moved:
            names = before.keys() | digests.keys()
            changed = sorted(name for name in names if before.get(name) != digests.get(name))
            self._emit(overview["revision"], changed)
