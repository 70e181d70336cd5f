"""What is known of a version whose partitions are shared: its shards' reports and states as one.

How many shards there are, the runner leaves in the store, so that whoever has the store can tell.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from fs_notebook.online.protocol import OnlineStore, part_shard
from fs_notebook.position import START, Cut

PARTS_TTL_SECONDS = 30 * 86_400.0
_MEMBER = "~"
"""Parts a version's shard from the rest of a member's name."""
_SUMMED = ("events", "null_keys", "late", "dead", "entities")
_WORST_FIRST = ("failing", "retrying", "starting", "bootstrapping", "live")


def parts_name(shard: str) -> str:
    """Return the name under which a shared version's number of partitions is reported."""
    return f"{shard}!parts"


def tell_partitions(store: OnlineStore, shard: str, partitions: int | None) -> None:
    """Say that a version's state lies in one shard a partition; None: it is gone."""
    ttl_seconds = 0.001 if partitions is None else PARTS_TTL_SECONDS
    store.heartbeat(parts_name(shard), {"partitions": partitions}, ttl_seconds=ttl_seconds)


def partitions_of(store: OnlineStore, shard: str) -> int | None:
    """Return how many shards a version's state lies in; None: it is in one."""
    told = store.health(parts_name(shard))
    return None if told is None else told.get("partitions")


def shards_of(shard: str, partitions: int | None) -> tuple[str, ...]:
    """Return the shards that hold a version's state."""
    if partitions is None:
        return (shard,)
    return tuple(part_shard(shard, n) for n in range(partitions))


def stored_shards(store: OnlineStore, shard: str) -> tuple[str, ...]:
    """Return the shards that hold a version's state, as the store has it."""
    return shards_of(shard, partitions_of(store, shard))


def subscription_of(shard: str) -> str:
    """Return the name of the subscription through which a version's workers share partitions."""
    return f"fs-notebook-{shard}"


def members_of(shard: str, workers: int | None) -> tuple[str, ...]:
    """Return the names of the workers that this machine has of a version.

    One that has all partitions is called as its shard; those that share them are told from each
    other, and from those on other machines.
    """
    if workers is None:
        return (shard,)
    return tuple(f"{shard}{_MEMBER}{socket.gethostname()}~{n}" for n in range(workers))


def positions_of(store: OnlineStore, member: str) -> dict[str, Cut | None]:
    """Return how far each shard of a worker's version is folded."""
    shards = stored_shards(store, member.partition(_MEMBER)[0])
    states = {shard: store.state(shard) for shard in shards}
    return {shard: None if state is None else state.cut for shard, state in states.items()}


def joined_cut(store: OnlineStore, shard: str) -> Cut:
    """Return how far a version is folded, all shards that hold its state together."""
    cuts = positions_of(store, shard).values()
    return START.advanced(position for cut in cuts if cut is not None for position in cut)


def own_shards(member: str, health: Mapping[str, Any], pid: int) -> tuple[str, ...]:
    """Return the shards that a worker's process folded; of a member, by its own report."""
    shard = member.partition(_MEMBER)[0]
    if shard == member:
        return (shard,)
    owns = (health.get("owns") or ()) if health.get("pid") == pid else ()
    return tuple(part_shard(shard, int(n)) for n in owns)


def owner_text(health: Mapping[str, Any]) -> str:
    """Return who wrote a report."""
    return f"{health.get('host')}:{health.get('pid')}"


def joined_health(store: OnlineStore, shards: Sequence[str]) -> dict[str, Any]:
    """Return the reports of several shards as one; empty where there is none at all.

    The state is the worst of all, counters are sums, `owners` says who reports on which partition.
    """
    healths = [store.health(shard) for shard in shards]
    known = [h for h in healths if h is not None]
    if not known:
        return {}
    states = ["starting" if h is None else str(h["state"]) for h in healths]
    lags = [h.get("lag") for h in known]
    joined: dict[str, Any] = {
        "state": min(states, key=lambda s: _WORST_FIRST.index(s) if s in _WORST_FIRST else 0),
        "pid": None,
        "host": None,
        "position": ", ".join(
            h["position"] for h in known if h.get("position") not in (None, "start")
        ),
        "lag": None if None in lags or len(known) < len(shards) else sum(lags),
        "rate": sum(h.get("rate") or 0.0 for h in known),
        "progress": min(
            (h["progress"] for h in known if h.get("progress") is not None), default=None
        ),
        "error": next((h["error"] for h in known if h.get("error")), None),
        "at_us": max(int(h.get("at_us") or 0) for h in known),
        "owners": {n: owner_text(h) for n, h in enumerate(healths) if h is not None},
    }
    joined |= {name: sum(int(h.get(name) or 0) for h in known) for name in _SUMMED}
    counts = [h["commits"] for h in known if "commits" in h]
    if counts:
        joined["commits"] = {
            "counts": [sum(each) for each in zip(*(c["counts"] for c in counts), strict=True)],
            "sum": sum(c["sum"] for c in counts),
        }
    return joined


def joined_info(store: OnlineStore, shards: Sequence[str]) -> dict[str, Any]:
    """Return what the last commits of several shards stored beside their positions, as one."""
    states = [store.state(shard) for shard in shards]
    infos = [s.info for s in states if s is not None]
    joined: dict[str, Any] = {n: sum(int(i.get(n, 0)) for i in infos) for n in _SUMMED}
    published = [int(i["published"]) for i in infos if "published" in i]
    if published:
        joined["published"] = max(published)
    if infos and len(infos) == len(shards):
        joined["built"] = all(i.get("built") for i in infos)
    return joined


def own_report(state: str, owns: Sequence[int], at_us: int) -> dict[str, Any]:
    """Return what a worker that shares partitions says of itself."""
    return {
        "state": state, "pid": os.getpid(), "host": socket.gethostname(), "owns": list(owns),
        "at_us": at_us,
    }  # fmt: skip
