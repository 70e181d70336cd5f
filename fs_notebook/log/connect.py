"""From a URL to the ledger behind it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import UsageError
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import EventLog

CACHE_BYTES_MAX = 20 * 2**30
SHARED = "FS_NOTEBOOK_SHARED_CACHE"
"""The environment's name for where a team shares what it read: see `log.shared.SharedFiles`."""


def open_log(
    url: str | None, *, home: Path, admin_url: str | None = None, clock: Clock = SYSTEM
) -> EventLog:
    """Return the ledger that `url` names.

    Parameters
    ----------
    url
        ``pulsar://host:6650`` or ``pulsar+ssl://host:6651`` for a broker; ``embedded:`` or None
        for the embedded ledger under `home`, ``embedded:/some/folder`` for one elsewhere.
    home
        Where the embedded ledger and the cache of what was read from a broker live.
    admin_url
        The broker's admin REST address; by default port 8080 (8443 with TLS) of its first host.
    clock
        Where publish times and waiting come from.

    Raises
    ------
    UsageError
        If the URL has another scheme.
    UnreachableError
        If the ledger does not answer.
    """
    if url is None or url == "embedded:":
        return EmbeddedLog(home / "ledger", clock=clock)
    scheme = urlsplit(url).scheme
    if scheme == "embedded":
        return EmbeddedLog(url.removeprefix("embedded:").removeprefix("//"), clock=clock)
    if scheme in ("pulsar", "pulsar+ssl"):
        # These are imported here since most sessions never talk to a broker.
        from fs_notebook.log.cache import CachedLog
        from fs_notebook.log.pulsar import PulsarLog
        from fs_notebook.log.segments import SegmentCache
        from fs_notebook.log.shared import SharedFiles

        place = os.environ.get(SHARED)
        shared = SharedFiles(place, clock=clock) if place else None
        folder = home / "cache" / "segments"
        cache = SegmentCache(folder, bytes_max=CACHE_BYTES_MAX, shared=shared)
        return CachedLog(PulsarLog(url, admin_url=admin_url, clock=clock), cache)
    raise UsageError(
        f"{url!r} is not the address of a ledger.",
        remedy="use pulsar://host:6650, pulsar+ssl://host:6651, or embedded: for the built-in one",
    )
