"""Serving records: what the store must know to serve a version, and taking that back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fs_notebook.catalog import Group, Version
from fs_notebook.catalog.model import AnyDefinition, CatalogState, Definition, DerivedDefinition
from fs_notebook.catalog.sets import SetVersion
from fs_notebook.language.expr import Column
from fs_notebook.online.board import SET, Served, pinned_name
from fs_notebook.online.derived import ServedDerived
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.worker.shared import shards_of

PartitionsOf = Callable[[str], int | None]
"""In how many shards, one a partition, the state of a version lies, by its shard's name."""


def _in_one(shard: str) -> int | None:
    return None


def served_record(
    group: Group, version: Version, partitions: PartitionsOf = _in_one
) -> Served | ServedDerived:
    """Return what the store must know to serve `version` of `group`."""
    definition = version.definition
    notice = None if group.deprecated is None else group.deprecated.told(group.name)
    if isinstance(definition, DerivedDefinition):
        pinned = [definition.input(i.group, i.fingerprint) for i in definition.plan.inputs]
        inputs = tuple(stored_record(d, None, partitions(d.shard)).to_record() for d in pinned)
        return ServedDerived(
            group.name, version.number, version.fingerprint, definition.plan, inputs, notice
        )
    stored = stored_record(definition, version.number, partitions(definition.shard))
    return replace(stored, notice=notice)


def published_record(
    group: Group, record: Mapping[str, Any], partitions: PartitionsOf
) -> dict[str, Any]:
    """Return what a group's published record is now, of the version that it is of."""
    number = int(record["version"])
    version = next((v for v in group.versions if v.number == number), None)
    if version is None:
        return dict(record)
    return served_record(group, version, partitions).to_record()


def stored_record(definition: Definition, number: int | None, partitions: int | None) -> Served:
    """Return what the store must know to serve a definition that folds a stream."""
    plan = definition.plan
    columns = tuple(k.expr.name if isinstance(k.expr, Column) else k.name for k in plan.keys)
    return Served(
        definition.name, number, definition.fingerprint, definition.shard, plan, columns, partitions
    )


def set_records(state: CatalogState) -> dict[str, dict[str, Any]]:
    """Return what the store must know to serve feature sets: each kept version, and the newest."""
    records: dict[str, dict[str, Any]] = {}
    for name, one in state.feature_sets.items():
        for version in one.kept:
            records[f"{SET}{name}@{version.number}"] = records[SET + name] = _set_record(version)
    return records


def _set_record(version: SetVersion) -> dict[str, Any]:
    members = [[pinned_name(m.group, m.version), m.feature] for m in version.members]
    return {"members": members, "version": version.number}


def record_built(
    record: dict[str, Any], former: dict[str, Any] | None, store: OnlineStore
) -> dict[str, Any] | None:
    """Return the serving record whose state is there, None where that is of neither.

    Of partitions that were added nothing is folded yet: until there is, the others serve on.
    """
    return next((r for r in (record, former) if r is not None and _is_built(r, store)), None)


def _is_built(record: Mapping[str, Any], store: OnlineStore) -> bool:
    """Tell whether all of the state is there that a serving record is read from."""
    shards = [
        shard
        for one in record.get("inputs", [record])
        for shard in shards_of(one["shard"], one.get("partitions"))
    ]
    states = [store.state(shard) for shard in shards]
    return all(s is not None and bool(s.info.get("built")) for s in states)


def withdraw(store: OnlineStore, shard: str) -> None:
    """Stop serving what is read from a version's state that is about to be dropped.

    So that no reader takes an entity for one that was never there.
    """
    for name, record in store.published()[1].items():
        if name.startswith(SET):
            continue
        inputs = record.get("inputs", [record])
        if any(shard == one["shard"] for one in inputs):
            store.publish(name, None)


def inputs_of(definition: AnyDefinition) -> tuple[Definition, ...]:
    """Return the definitions whose stored values a definition's values are read from."""
    return definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)
