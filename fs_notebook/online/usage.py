"""Who reads what: noted by readers as they go, cheap, and kept beside the values.

A read adds to a dict; what was noted goes to the store every half minute. Two processes that note
at the same instant can lose one of both counts, never who reads or about when: counts are for
telling much used from unused.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fs_notebook.clock import SYSTEM, Clock, from_us
from fs_notebook.errors import FeatureStoreError, plain
from fs_notebook.online.protocol import OnlineStore

SERVING, HTTP, TRAINING = "serving", "http", "training"
FLUSH_US = 30_000_000
KEPT_SECONDS = 400 * 86_400.0
READERS_MAX = 50


@dataclass(frozen=True)
class Use:
    """One reader of a feature group.

    Attributes
    ----------
    kind
        ``"serving"`` (Python), ``"http"`` (the feature server) or ``"training"``.
    who, host
        The user and the machine.
    reads
        How many reads or training sets were noted; about.
    last_at
        When the last of them was noted, UTC, within half a minute.
    """

    kind: str
    who: str
    host: str
    reads: int
    last_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "kind": self.kind, "who": self.who, "host": self.host, "reads": self.reads,
            "last_at": self.last_at.isoformat(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return plain(
            f"{self.kind} by {self.who} on {self.host}: {self.reads:,} reads, "
            f"last at {self.last_at:%Y-%m-%d %H:%M} UTC"
        )


def usage_name(group: str) -> str:
    """Return the name of the report that a group's readers share."""
    return f"{group}:uses"


def uses_of(store: OnlineStore, group: str) -> list[Use]:
    """Return who reads a group, the last reader first."""
    found = []
    for place, said in (store.health(usage_name(group)) or {}).items():
        kind, host, who = (*place.split("|", 2), "", "")[:3]
        found.append(Use(kind, who, host, int(said[0]), from_us(int(said[1]))))
    return sorted(found, key=lambda u: u.last_at, reverse=True)


class UseNotes:
    """Notes the reads of one process.

    Parameters
    ----------
    store
        Where they go. One that cannot be written to is left alone: reading goes on.
    kind, actor
        What reads, and for whom.
    """

    def __init__(self, store: OnlineStore, *, kind: str, actor: str, clock: Clock = SYSTEM) -> None:
        self._store = store
        self._place = f"{kind}|{socket.gethostname()}|{actor}"
        self._clock = clock
        self._pending: dict[str, int] = {}
        self._due_us = 0

    def note(self, names: Iterable[str], at_us: int) -> bool:
        """Note a read of groups or versions (``reading_time@2``); tell whether to flush now."""
        pending = self._pending
        for name in names:
            pending[name] = pending.get(name, 0) + 1
        return at_us >= self._due_us

    def flush(self) -> None:
        """Write what was noted to the store."""
        now_us = self._clock.now_us()
        self._due_us = now_us + FLUSH_US
        pending, self._pending = self._pending, {}
        groups: dict[str, int] = {}
        for name, count in pending.items():
            group = name.partition("@")[0]
            groups[group] = groups.get(group, 0) + count
        try:
            for group, count in groups.items():
                name = usage_name(group)
                said = self._with(self._store.health(name) or {}, count, now_us)
                self._store.heartbeat(name, said, ttl_seconds=KEPT_SECONDS)
        except FeatureStoreError:
            # A reader whose user may not write, or a store that is gone: its read says so itself.
            return

    def _with(self, known: Mapping[str, Any], count: int, now_us: int) -> dict[str, Any]:
        before = known.get(self._place, (0, 0))[0]
        said = {**known, self._place: [before + count, now_us]}
        newest = sorted(said.items(), key=lambda item: item[1][1])[-READERS_MAX:]
        return dict(newest)
