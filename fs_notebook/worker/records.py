"""Serving records: what the store must know to serve a version, and taking that back."""

from __future__ import annotations

from fs_notebook.catalog import Group, Version
from fs_notebook.catalog.model import AnyDefinition, Definition, DerivedDefinition
from fs_notebook.language.expr import Column
from fs_notebook.online.board import Served
from fs_notebook.online.derived import ServedDerived
from fs_notebook.online.protocol import OnlineStore


def served_record(group: Group, version: Version) -> Served | ServedDerived:
    """Return what the store must know to serve `version` of `group`."""
    definition = version.definition
    if isinstance(definition, DerivedDefinition):
        inputs = tuple(
            stored_record(definition.input(i.group, i.fingerprint), None, None).to_record()
            for i in definition.plan.inputs
        )
        return ServedDerived(
            group.name, version.number, version.fingerprint, definition.plan, inputs
        )
    return stored_record(definition, version.number, None)


def stored_record(definition: Definition, number: int | None, partitions: int | None) -> Served:
    """Return what the store must know to serve a definition that folds a stream."""
    plan = definition.plan
    columns = tuple(k.expr.name if isinstance(k.expr, Column) else k.name for k in plan.keys)
    return Served(
        definition.name, number, definition.fingerprint, definition.shard, plan, columns, partitions
    )


def withdraw(store: OnlineStore, shard: str) -> None:
    """Stop serving what is read from a shard that is about to be dropped.

    So that no reader takes an entity for one that was never there.
    """
    whole = shard.partition("#")[0]
    for name, record in store.published()[1].items():
        inputs = record.get("inputs", [record])
        if any(whole == one["shard"] for one in inputs):
            store.publish(name, None)


def shards_of(definition: AnyDefinition) -> tuple[str, ...]:
    """Return the shards that a definition's values are read from."""
    if isinstance(definition, DerivedDefinition):
        return tuple(d.shard for d in definition.inputs)
    return (definition.shard,)
