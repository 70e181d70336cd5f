"""From an address to an online store."""

from __future__ import annotations

from pathlib import Path

from fs_notebook.errors import UsageError
from fs_notebook.online.cluster import cluster_url
from fs_notebook.online.embedded import ensure_embedded
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.wire import hide_password

EMBEDDED = "embedded:"
_SCHEMES = ("redis://", "rediss://", "unix://", "redis+cluster://", "rediss+cluster://")
_ONE_SERVER = ("redis://", "rediss://")


def open_store(url: str | None, *, home: Path) -> OnlineStore:
    """Return the store at `url`, which answers.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://``; ``redis+cluster://`` or ``rediss+cluster://``
        with some nodes of a Redis Cluster (one node's own address does as well); None or
        ``embedded:`` for the embedded Redis of `home`, started if it does not run.
    home
        Where the embedded Redis keeps its data.

    Raises
    ------
    UsageError
        If the address is of another kind.
    UnreachableError
        If nothing answers there.
    """
    if url is None or url == EMBEDDED:
        url = ensure_embedded(home)
    elif not url.startswith(_SCHEMES):
        raise UsageError(
            "This is no address of an online store.",
            found=repr(hide_password(url)),
            remedy="write redis://host:6379/0, rediss://…, redis+cluster://host:6379,host:6379, "
            "unix:///path/to.sock, or embedded:",
        )
    store = RedisStore(url)
    try:
        store.ping()
        if not url.startswith(_ONE_SERVER) or not store.is_cluster_node():
            return store
    except BaseException:
        store.close()
        raise
    store.close()
    return open_store(cluster_url(url), home=home)
