"""Versions on a real Redis: what a flip shows, what a roll-back folds, what retiring frees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.serve import FeatureReader
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.redis import RedisServer
from tests.support.sessions import read_events, stop_all, until

SECOND, SLACK = 1.0, 5.0
USERS = [f"u{n}" for n in range(7)]
TEXT = "SELECT user, {0} AS a, {0} AS b, COUNT(*) * {1} AS n FROM read_events GROUP BY user"
V1, V2 = TEXT.format("SUM(readtime)", 1), TEXT.format("SUM(readtime) * -1", -1)


@pytest.fixture
def session(tmp_path: Path, own_redis: RedisServer) -> Iterator[Session]:
    """The embedded ledger and a real Redis."""
    place = Connection(tmp_path / "home", "embedded:", own_redis.url)
    session = Session(place, actor="tester")
    session.upload(read_events(0, 700), "read_events", time="ts")
    for text in (V1, V2):
        session.define("reading", text)
        session.promote("reading")
    yield session
    session.close()
    stop_all(place)


class Reader(threading.Thread):
    """Reads all entities again and again, and keeps what is no version's vector."""

    def __init__(self, url: str, vectors: list[list[dict[str, object]]]) -> None:
        super().__init__()
        self.url, self.vectors = url, vectors
        self.wrong: list[object] = []
        self.seen: list[int] = []
        self.ended = threading.Event()

    def run(self) -> None:
        store = RedisStore(self.url)
        reader = FeatureReader(store)
        try:
            while not self.ended.is_set():
                rows = list(reader.read(["a", "b", "n"], user=USERS).rows)
                if rows in self.vectors:
                    self.seen.append(self.vectors.index(rows))
                else:
                    self.wrong.append(rows)
        except Exception as error:  # noqa: BLE001 - the test shows it.
            self.wrong.append(error)
        finally:
            store.close()


@pytest.mark.redis
def test_a_flip_is_atomic_for_readers(session: Session, own_redis: RedisServer) -> None:
    """Whatever a reader meets is one version's values of all features and entities."""

    def vector() -> list[dict[str, object]]:
        return list(session.serve(["a", "b", "n"], user=USERS).rows)

    two = vector()
    session.rollback("reading")
    one = vector()
    assert one != two
    readers = [Reader(own_redis.url, [one, two]) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(20):
            wanted = 1 - turn % 2
            session.rollback("reading")
            # As long as it takes each reader to have met the new one, which it must.
            for reader in readers:
                until(lambda r=reader, w=wanted: r.wrong or r.seen[-1:] == [w])  # type: ignore[misc]
    finally:
        for reader in readers:
            reader.ended.set()
            reader.join()
    assert [reader.wrong for reader in readers] == [[], []]


@pytest.mark.redis
def test_a_rollback_folds_nothing(session: Session) -> None:
    """The former version stayed warm: same worker, same position, same state, served at once."""

    def stored() -> dict[int, object]:
        group = session.catalog.refresh().group("reading")
        return {v.number: session.store.state(v.definition.shard) for v in group.running}

    before = stored()
    pids = {s.version: s.pid for s in session.status("reading")}
    assert set(before) == {1, 2}
    for number in (1, 2):
        status = session.rollback("reading")
        assert (status.version, status.serving, status.lag) == (number, True, 0)
        assert session.serve("n", user="u1")["n"] == [{1: 100, 2: -100}[number]]
        # A worker that had been started anew would have claimed another epoch.
        assert stored() == before
    assert {s.version: s.pid for s in session.status("reading")} == pids
    session.append(read_events(700, 7), "read_events")
    for number in (1, 2):
        session.rollback("reading")
        until(
            lambda n=number: session.serve("n", user="u1")["n"] == [{1: 101, 2: -101}[n]]  # type: ignore[misc]
        )


@pytest.mark.redis
def test_a_reader_elsewhere_has_the_former_version_a_second_after_the_call(
    session: Session, own_redis: RedisServer
) -> None:
    """Waited for as long as a second may take on a machine that is busy with other things."""
    with closing(RedisStore(own_redis.url)) as store:
        reader = FeatureReader(store)
        for value in (100, -100, 100):
            called_s = SYSTEM.monotonic_s()
            session.rollback("reading")
            left_s = SECOND * SLACK - (SYSTEM.monotonic_s() - called_s)
            until(
                lambda v=value: reader.read("n", user=["u1"])["n"] == [v],  # type: ignore[misc]
                seconds_max=left_s, what=f"{value} within a second of the call",
            )  # fmt: skip


@pytest.mark.redis
def test_retiring_frees_every_key(session: Session, own_redis: RedisServer) -> None:
    group = session.catalog.refresh().group("reading")
    shards = {v.number: v.definition.shard for v in group.versions}

    def keys(number: int, *, reports: bool = False) -> list[bytes]:
        with own_redis.client() as client:
            found = client.scan_iter(f"*{shards[number]}*", count=10_000)
            return [key for key in found if reports or b"!" not in key]

    assert len(keys(1)) > len(USERS)
    kept = len(keys(2))
    session.retire("reading", 1)
    assert keys(1) == []
    # The runner may have been measuring it, and then takes its own report away.
    until(lambda: not keys(1, reports=True), what="no report of it")
    assert len(keys(2)) == kept
    assert session.serve("n", user="u1")["n"] == [-100]
    assert [s.version for s in session.status("reading")] == [2]
