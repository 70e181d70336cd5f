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
    base_key,
    info_of,
    opened,
    value_prefix,
)
from fs_notebook.online.scripts import READ

T = TypeVar("T")

Shards = Sequence[tuple[str, Sequence[bytes]]]
Commands = Sequence[tuple[Any, ...]]
Found = tuple[bool, list[list[bytes | None]]]

_KEYS_MAX = 5_000

# Last in the pipeline: whatever took values away withdrew their record first, and is seen here.
_GENERATION = ("HGET", SERVING, GENERATION)


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """Commands that go out together, and what their replies mean.

    `spelt` are the same where Redis does not know a script by its digest: that makes it know.
    """

    commands: Commands
    answer: Callable[[list[Any]], T]
    spelt: Callable[[], Commands] = tuple


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
    """Ask for values of several shards, a script each, which tells absent from lost."""
    commands: list[tuple[Any, ...]] = []
    parts: list[tuple[int, str, Sequence[bytes]]] = []
    for place, (shard, keys) in enumerate(shards):
        prefix, base = value_prefix(shard), base_key(shard)
        for start in range(0, len(keys), _KEYS_MAX):
            chunk = keys if len(keys) <= _KEYS_MAX else keys[start : start + _KEYS_MAX]
            commands.append(("EVALSHA", READ.sha, len(chunk), *[prefix + k for k in chunk], base))
            parts.append((place, shard, chunk))

    def answer(replies: list[Any]) -> Found:
        current = int(replies[-1] or 0) == generation
        blobs: list[list[bytes | None]] = [[] for _ in shards]
        for (place, shard, chunk), (found, *wrong) in zip(parts, replies[:-1], strict=True):
            if wrong and current:
                if wrong[0] == b"unbuilt":
                    raise checks.unbuilt(shard)
                raise checks.lost(shard, chunk[wrong[1]])
            blobs[place] += opened(shard, chunk, found)
        return current, blobs

    def spelt() -> Commands:
        return [*(("EVAL", READ.text, *rest) for _, _, *rest in commands), _GENERATION]

    return Asked([*commands, _GENERATION], answer, spelt)
