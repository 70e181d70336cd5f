"""A bootstrap through the segment cache: what lies there is not read from the broker again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.online.memory import MemoryStore
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.verify import verify
from tests.log.test_cache import Counting
from tests.support.broker import Broker
from tests.support.logs import read_all
from tests.support.sessions import read_events
from tests.worker.test_handover import STREAM, append, definition, run_until_caught_up

pytestmark = pytest.mark.pulsar

HISTORY, LIVE = 6_000, 7


def test_a_bootstrap_on_a_full_cache_reads_no_history_from_the_broker(
    broker: Broker, tmp_path: Path
) -> None:
    place = f"{broker.url}/{broker.namespace()}"
    with closing(PulsarLog(place, admin_url=broker.admin_url)) as log:
        log.create(STREAM)
        append(log, read_events(0, HISTORY))
        counting: Any = Counting(log)
        cached: Any = CachedLog(counting, SegmentCache(tmp_path / "cache", bytes_max=2**30))
        # Somebody previewed it before.
        assert sum(b.rows.height for b in read_all(cached, STREAM)) == HISTORY
        assert len(counting.reads) == 1
        counting.reads.clear()
        store = MemoryStore()
        worker = Worker(definition(), cached, store)
        run_until_caught_up(worker, cached, store, worker.shard)
        state = store.state(worker.shard)
        assert state is not None
        assert (state.info["events"], counting.reads) == (HISTORY, [])
        # What came since is read from the broker, and nothing that was there before.
        end = log.end(STREAM.name)
        append(log, read_events(HISTORY, LIVE))
        again = Worker(definition(), cached, store)
        run_until_caught_up(again, cached, store, again.shard)
        assert [start for start, _ in counting.reads] == [end.get(0)]
        state = store.state(worker.shard)
        assert state is not None
        assert state.info["events"] == HISTORY + LIVE
        assert verify(definition(), 1, cached, store, now_us=SYSTEM.now_us()).ok
