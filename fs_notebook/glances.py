"""A store's reports and states of many versions, asked for at once and then told one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from fs_notebook.catalog import Group, Version
from fs_notebook.online.protocol import OnlineStore, ShardState
from fs_notebook.worker.audits import audit_name
from fs_notebook.worker.failures import report_name
from fs_notebook.worker.records import inputs_of
from fs_notebook.worker.shared import parts_name
from fs_notebook.worker.sizes import size_name


class _Glance:
    """A store, some of whose answers are there already."""

    def __init__(
        self,
        store: OnlineStore,
        reports: Mapping[str, Mapping[str, Any] | None],
        states: Mapping[str, ShardState | None],
    ) -> None:
        self._store = store
        self._reports = reports
        self._states = states

    def health(self, shard: str) -> Mapping[str, Any] | None:
        return self._reports[shard] if shard in self._reports else self._store.health(shard)

    def state(self, shard: str) -> ShardState | None:
        return self._states[shard] if shard in self._states else self._store.state(shard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def glance_at(store: OnlineStore, groups: Iterable[Group]) -> OnlineStore:
    """Return the store as it is now for the versions of groups that run.

    What is told of them was asked for together, in a few round trips; all else is the store's own.
    """
    versions = [v for group in groups for v in (*group.running, *_wanted(group))]
    shards = list(dict.fromkeys(d.shard for v in versions for d in inputs_of(v.definition)))
    if len(shards) < 2:
        return store
    namings = (str, parts_name, report_name, audit_name, size_name)
    names = [naming(shard) for shard in shards for naming in namings]
    reports = dict(zip(names, store.reports(names), strict=True))
    states = dict(zip(shards, store.states(shards), strict=True))
    return cast("OnlineStore", _Glance(store, reports, states))


def _wanted(group: Group) -> tuple[Version, ...]:
    return () if group.wanted is None else (group.version(group.wanted),)
