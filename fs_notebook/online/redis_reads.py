"""What readers ask Redis, and what its replies mean: the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fs_notebook.online import checks
from fs_notebook.online.redis_keys import (
    GENERATION,
    GENERATION_ALONE,
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
WARY_READS = 100
"""So many reads of a shard look for lost values at once, after one that met an absent value."""

# Last in the pipeline: whatever took values away withdrew their record first, and is seen here.
_GENERATION = ("HGET", SERVING, GENERATION)


class Unsure(Exception):
    """What the replies leave open, `Asked.otherwise` asks for."""


@dataclass(slots=True)
class Asked(Generic[T]):
    """Commands that go out together, and what their replies mean.

    `otherwise` gives what to ask where the replies say too little, or where Redis does not know a
    script by its digest.
    """

    commands: Commands
    answer: Callable[[list[Any]], T]
    otherwise: Callable[[], Asked[T]] | None = None


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


class Values:
    """Asks for values, and tells one that is absent from one that was lost.

    Only a script can tell: it sees both the values and the index of what was ever put. Where all
    are there, as mostly, it costs a read of one entity a tenth of its time for nothing. So a shard
    is read without it, and with it once a value was absent, as well as for some reads to come: a
    second round trip is not for every read of an application that asks for entities not seen yet.

    Parameters
    ----------
    one_slot
        Whether a command may name keys of several shards: not in a cluster.
    """

    def __init__(self, *, one_slot: bool) -> None:
        self._one_slot = one_slot
        # Threads may share one: a count that is off costs a read a round trip, or a little time.
        self._wary: dict[str, int] = {}

    def ask(self, generation: int, shards: Shards) -> Asked[Found]:
        """Ask for values of several shards, in one round trip."""
        parts = _parts(shards)
        if self._wary and self._is_wary(shards):
            return _scripted(generation, shards, parts)
        named = []
        for _, shard, chunk in parts:
            prefix = value_prefix(shard)
            named.append([prefix + k for k in chunk])
        together = self._one_slot and sum(map(len, named)) < _KEYS_MAX
        if together:
            # One command and one reply, of one moment.
            every = [key for keys in named for key in keys]
            commands: Commands = [("MGET", *every, GENERATION_ALONE)]
        else:
            commands = [*(("MGET", *keys) for keys in named), ("GET", GENERATION_ALONE)]

        def answer(replies: list[Any]) -> Found:
            if together:
                replies = _split(replies[0], named)
            current = replies[-1]
            if current is None:
                # Written by a version that did not know it, or there is nothing any more.
                raise Unsure
            if int(current) != generation:
                return False, [[None] * len(keys) for _, keys in shards]
            lacking = [p[1] for p, found in zip(parts, replies, strict=False) if None in found]
            if lacking:
                self._wary |= dict.fromkeys(lacking, WARY_READS)
                raise Unsure
            blobs: list[list[bytes | None]] = [[] for _ in shards]
            for (place, shard, chunk), found in zip(parts, replies, strict=False):
                blobs[place] += opened(shard, chunk, found)
            return True, blobs

        return Asked(commands, answer, lambda: _scripted(generation, shards, parts))

    def _is_wary(self, shards: Shards) -> bool:
        wary = False
        for shard, _ in shards:
            left = self._wary.pop(shard, 0)
            if left > 1:
                self._wary[shard] = left - 1
            wary |= left > 0
        return wary


def _split(replies: list[Any], named: Sequence[Sequence[bytes]]) -> list[Any]:
    """Return what one command found as so many would have found it."""
    found, start = [], 0
    for keys in named:
        found.append(replies[start : start + len(keys)])
        start += len(keys)
    return [*found, replies[-1]]


def _parts(shards: Shards) -> list[tuple[int, str, Sequence[bytes]]]:
    """Return which shard, by its place and its name, and which of its keys one command reads."""
    return [
        (place, shard, keys if len(keys) <= _KEYS_MAX else keys[start : start + _KEYS_MAX])
        for place, (shard, keys) in enumerate(shards)
        for start in range(0, len(keys), _KEYS_MAX)
    ]


def _scripted(
    generation: int, shards: Shards, parts: Sequence[tuple[int, str, Sequence[bytes]]]
) -> Asked[Found]:
    """Ask for values by a script, which tells absent from lost."""
    rest = []
    for _, shard, chunk in parts:
        prefix = value_prefix(shard)
        rest.append((len(chunk), *[prefix + k for k in chunk], base_key(shard)))

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

    def spelt() -> Asked[Found]:
        return Asked([*(("EVAL", READ.text, *words) for words in rest), _GENERATION], answer)

    return Asked([*(("EVALSHA", READ.sha, *words) for words in rest), _GENERATION], answer, spelt)
