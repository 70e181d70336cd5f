"""A store that serves, without a worker's process: plans folded and committed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from fs_notebook.compute.fold import Fold
from fs_notebook.language.plan import Plan
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.online.board import Served, pinned_name
from fs_notebook.online.protocol import OnlineStore, part_shard
from fs_notebook.online.states import StateCodec
from fs_notebook.position import Cut, Position
from fs_notebook.types import TIME, Type

COLUMNS = SourceColumns(
    "read_events",
    (("user", Type.VARCHAR), ("article", Type.BIGINT), ("readtime", Type.BIGINT),
     ("ts", Type.TIMESTAMP)),
    "ts",
)  # fmt: skip


class Fixed:
    """A clock that stands, until it is moved."""

    def __init__(self, now_us: int = 0) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1_000_000

    def sleep_s(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def plan_of(sql: str, name: str, *, ttl_us: int | None = None, **options: Any) -> Plan:
    """Compile SQL over the stream of reads."""
    plan = compile_sql(sql, name=name, find_source=lambda source: COLUMNS, **options)
    return replace(plan, ttl_us=ttl_us)


def event(user: str, article: int, readtime: int, at_us: int) -> dict[str, Any]:
    return {"user": user, "article": article, "readtime": readtime, "ts": at_us}


def frame_of(events: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return events as a log hands them over."""
    schema = {"user": pl.String, "article": pl.Int64, "readtime": pl.Int64, "ts": pl.Int64}
    frame = pl.DataFrame(events, schema=schema)
    at = pl.col("ts").cast(pl.Datetime("us", "UTC"))
    return frame.with_columns(at, at.alias(TIME))


def commit(
    store: OnlineStore,
    name: str,
    plan: Plan,
    events: Sequence[Mapping[str, Any]],
    *,
    part: int | None = None,
) -> Served:
    """Fold events and store the values, as a worker does, of all partitions or of one."""
    fold = Fold(plan)
    served = Served(
        name, 1, plan.fingerprint, f"{name}@{plan.fingerprint[:16]}", plan,
        tuple(k.name for k in plan.keys),
    )  # fmt: skip
    shard = served.shard if part is None else part_shard(served.shard, part)
    lease = store.claim(shard, fingerprint=plan.fingerprint)
    values = StateCodec(fold).encode(fold.add(fold.empty, frame_of(events)).state)
    store.commit(lease, cut=Cut((Position(0, 0, len(events), 0),)), puts=values, info={})
    return served


def publish(store: OnlineStore, served: Served, *, version: int = 1, serving: bool = True) -> None:
    """Let readers find a version, as a runner does."""
    record = replace(served, version=version).to_record()
    store.publish(pinned_name(served.group, version), record)
    if serving:
        store.publish(served.group, record)
