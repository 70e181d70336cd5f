"""What Pulsar's admin interface tells of a topic's managed ledgers."""

from __future__ import annotations

from collections.abc import Sequence

from fs_notebook.errors import UnreachableError
from fs_notebook.log.admin import Admin, Refused, Topic
from fs_notebook.log.cursors import QUEUE_UNKNOWN
from fs_notebook.log.facts import KEPT, Facts
from fs_notebook.log.reader import queue_for
from fs_notebook.log.retention import keeping
from fs_notebook.position import Position


def facts_of(admin: Admin, topics: Sequence[str]) -> Facts:
    """Return what the admin interface tells of a stream's partitions.

    A broker counts entries, each a batch of messages, and not the events in them.
    """
    try:
        found = [admin.internal_stats(Topic.of(t, "", "")) for t in topics]
        whole = Topic.of(topics[0].partition("-partition-")[0], "", "")
        kept = _in_words(admin.retention(whole))
    except (UnreachableError, Refused):
        return Facts(partitions=len(topics))
    size = sum(int(f.get("totalSize", 0)) for f in found)
    offloaded = sum(
        int(ledger.get("size", 0))
        for f in found
        for ledger in f.get("ledgers", ())
        if ledger.get("offloaded")
    )
    return Facts(
        entries=sum(int(f.get("numberOfEntries", 0)) for f in found), stored_bytes=size,
        kept=kept, offloaded_share=offloaded / size if size else 0.0,
        partitions=len(topics), keep=None if kept == KEPT else keeping(whole.full),
    )  # fmt: skip


def entry_before(admin: Admin, topic: str, position: Position, events: int) -> Position | None:
    """Return a position with at least `events` events in (it, position].

    None where that is the whole history, or where it cannot be told. Each entry holds an event or
    more, and a ledger's entries are numbered from 0.
    """
    if position.entry >= events:
        return Position(position.partition, position.ledger, position.entry - events, 0)
    missing = events - position.entry - 1
    try:
        ledgers = admin.internal_stats(Topic.of(topic, "", "")).get("ledgers", ())
    except (UnreachableError, Refused):
        return None
    earlier = sorted(
        (int(one["ledgerId"]), int(one["entries"]))
        for one in ledgers
        if int(one["ledgerId"]) < position.ledger
    )
    for ledger, entries in reversed(earlier):
        if entries > missing:
            return Position(position.partition, ledger, entries - missing - 1, 0)
        missing -= entries
    return None


def queue_of(
    admin: Admin, topic: str, start: Position | None, end: Position | None, *, share: int = 1
) -> int:
    """Return how many messages to fetch ahead in (start, end]: see `reader.queue_for`.

    That follows from the ledger with the largest entries among those that are read.
    """
    try:
        told = admin.internal_stats(Topic.of(topic, "", ""))
    except (UnreachableError, Refused):
        return QUEUE_UNKNOWN
    # Of the ledger that is written to, the list does not tell.
    known = [(int(told.get("currentLedgerSize", 0)), int(told.get("currentLedgerEntries", 0)))]
    known += [
        (int(one["size"]), int(one["entries"]))
        for one in told.get("ledgers", ())
        if (start is None or int(one["ledgerId"]) >= start.ledger)
        and (end is None or int(one["ledgerId"]) <= end.ledger)
    ]
    return queue_for(max((s / n for s, n in known if n > 0), default=0.0), share=share)


def _in_words(retention: dict[str, int] | None) -> str:
    minutes = (retention or {}).get("retentionTimeInMinutes", 0)
    size_mb = (retention or {}).get("retentionSizeInMB", 0)
    if minutes < 0 and size_mb < 0:
        return KEPT
    if not minutes or not size_mb:
        return "until every subscription has read them"
    limits = [f"{minutes:,} minutes"] if minutes > 0 else []
    limits += [f"{size_mb:,} MB"] if size_mb > 0 else []
    return "up to " + " and ".join(limits)
