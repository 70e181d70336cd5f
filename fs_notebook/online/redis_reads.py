"""What readers ask Redis, and what its replies mean: the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fs_notebook.online import checks
from fs_notebook.online.redis_keys import (
    GENERATION,
    GROUP,
    SERVING,
    index_place,
    info_of,
    meta_key,
    opened,
    value_prefix,
)

T = TypeVar("T")

Shards = Sequence[tuple[str, Sequence[bytes]]]
Found = tuple[bool, list[list[bytes | None]]]

# Last in the pipeline: whatever took values away withdrew their record first, and is seen here.
_GENERATION = ("HGET", SERVING, GENERATION)


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """Commands that go out together, and what their replies mean."""

    commands: Sequence[tuple[Any, ...]]
    answer: Callable[[list[Any]], T]


def published() -> Asked[tuple[int, dict[str, dict[str, Any]]]]:
    """Ask for the serving generation, 0 before the first change, and all records."""
    return Asked([("HGETALL", SERVING)], _published)


def _published(replies: list[Any]) -> tuple[int, dict[str, dict[str, Any]]]:
    (flat,) = replies
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    records = {
        field[len(GROUP) :].decode(): info_of("serving", text)
        for field, text in sorted(fields.items())
        if field.startswith(GROUP)
    }
    return int(fields.get(GENERATION, 0)), records


def values(generation: int, shards: Shards) -> Asked[Found]:
    """Ask for values of several shards, a command each."""
    commands: list[tuple[Any, ...]] = []
    for shard, keys in shards:
        if keys:
            prefix = value_prefix(shard)
            commands.append(("MGET", *[prefix + k for k in keys]))

    def answer(replies: list[Any]) -> Found:
        found = iter(replies)
        blobs = [opened(shard, keys, next(found)) if keys else [] for shard, keys in shards]
        return int(next(found) or 0) == generation, blobs

    return Asked([*commands, _GENERATION], answer)


def missing(generation: int, shards: Shards) -> Asked[Found]:
    """Ask again for values that were not found, and whether each was ever put.

    The index is asked first: an entity that is in it then, and whose value is not there
    afterwards, lost it. One that is put in between has its value.
    """
    commands: list[tuple[Any, ...]] = []
    for shard, keys in shards:
        commands.append(("HEXISTS", meta_key(shard), "cut"))
        commands += [("SISMEMBER", *index_place(shard, key)) for key in keys]
    again = values(generation, shards)

    def answer(replies: list[Any]) -> Found:
        current, blobs = again.answer(replies[len(commands) :])
        told = iter(replies)
        for (shard, keys), mine in zip(shards, blobs, strict=True):
            built = next(told)
            if current and keys and not built:
                raise checks.unbuilt(shard)
            for key, blob in zip(keys, mine, strict=True):
                if next(told) and current and blob is None:
                    raise checks.lost(shard, key)
        return current, blobs

    return Asked([*commands, *again.commands], answer)
