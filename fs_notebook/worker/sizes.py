"""How large the stored states are: looked at by the runner, now and then, beside all else.

No commit counts bytes for it. A state that has few values is measured whole, of a larger one a
sample: the first values that the store names, which come in the order of its hashes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.states import is_bucket

SAMPLE = 1_000
LOOK_SECONDS = 0.5
PAUSE_SECONDS_MAX = 60.0
TTL_SECONDS = 900.0


def size_name(shard: str) -> str:
    """Return the name under which the size of a version's state is reported."""
    return f"{shard}!size"


def state_bytes(store: OnlineStore, shard: str, *, sample: int = SAMPLE) -> int | None:
    """Return how many bytes the keys and packed values of a shard take; None: not known.

    What the store itself adds to each of them is not counted. Of more values than `sample` it is
    an estimate: the bytes an entity of the sample takes, by how many entities there are.
    """
    keys = list(islice(store.entities(shard), sample))
    state, values = store.snapshot(shard, keys)
    if state is None:
        return None
    taken = sum(len(k) + len(v) for k, v in zip(keys, values, strict=True) if v is not None)
    if len(keys) < sample:
        return taken
    entities = sum(not is_bucket(key) for key in keys)
    known = state.info.get("entities")
    return None if known is None or not entities else round(taken / entities * int(known))


def told_size(store: OnlineStore, shard: str) -> int | None:
    """Return what the runner last said of the size of a version's state, in bytes."""
    told = store.health(size_name(shard)) or {}
    size = told.get("bytes")
    return None if size is None else int(size)


def forget_size(store: OnlineStore, shard: str) -> None:
    """Take away what was said of the size of a version's state."""
    store.heartbeat(size_name(shard), {}, ttl_seconds=0.001)


class Sizes:
    """A thread that measures one version after the other and tells what it found.

    Parameters
    ----------
    shards
        Returns each version's shard, and the shards that its state lies in.
    """

    def __init__(
        self,
        store: OnlineStore,
        shards: Callable[[], Mapping[str, Sequence[str]]],
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self._store = store
        self._shards = shards
        self._clock = clock
        self._due: dict[str, tuple[float, float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fs-notebook-sizes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; what is being asked is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            shards = self._shards()
            self._due = {shard: due for shard, due in self._due.items() if shard in shards}
            for shard, parts in shards.items():
                self._look(shard, parts)

    def _look(self, shard: str, parts: Sequence[str]) -> None:
        """Measure a version if it is time to: at first often, then each minute."""
        now_s = self._clock.monotonic_s()
        due_s, pause_s = self._due.get(shard, (now_s, LOOK_SECONDS))
        if now_s < due_s:
            return
        self._due[shard] = (now_s + pause_s, min(2 * pause_s, PAUSE_SECONDS_MAX))
        with suppress(FeatureStoreError):
            found = [state_bytes(self._store, part) for part in parts]
            known = [size for size in found if size is not None]
            if known:
                report = {"bytes": sum(known), "at_us": self._clock.now_us()}
                self._store.heartbeat(size_name(shard), report, ttl_seconds=TTL_SECONDS)
            if all(self._store.state(part) is None for part in parts):
                # It was retired meanwhile: whoever waited for that has taken the report away.
                forget_size(self._store, shard)
