"""What readers ask Redis, and what its replies mean: the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from fs_notebook.online import checks
from fs_notebook.online.asks import split
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
        widths = [*(len(part.names) for part in parts), 1]
        together = self._one_slot and sum(widths) <= _KEYS_MAX
        if together:
            # One command and one reply, of one moment.
            every = [name for part in parts for name in part.names]
            commands: Commands = [("MGET", *every, GENERATION_ALONE)]
        else:
            commands = [*(("MGET", *part.names) for part in parts), ("GET", GENERATION_ALONE)]

        def answer(replies: list[Any]) -> Found:
            *values, current = replies
            if together:
                *values, (current,) = split(replies[0], widths)
            if current is None:
                # Written by a version that did not know it, or there is nothing any more.
                raise Unsure
            if int(current) != generation:
                return False, [[None] * len(keys) for _, keys in shards]
            lacking = [p.shard for p, found in zip(parts, values, strict=True) if None in found]
            if lacking:
                self._wary |= dict.fromkeys(lacking, WARY_READS)
                raise Unsure
            blobs: list[list[bytes | None]] = [[] for _ in shards]
            for part, found in zip(parts, values, strict=True):
                blobs[part.place] += opened(part.shard, part.keys, found)
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


class _Part(NamedTuple):
    """What one command reads: of the shard at a place, so many keys, and their names in Redis."""

    place: int
    shard: str
    keys: Sequence[bytes]
    names: list[bytes]


def _parts(shards: Shards) -> list[_Part]:
    parts = []
    for place, (shard, keys) in enumerate(shards):
        prefix = value_prefix(shard)
        for start in range(0, len(keys), _KEYS_MAX):
            chunk = keys if len(keys) <= _KEYS_MAX else keys[start : start + _KEYS_MAX]
            parts.append(_Part(place, shard, chunk, [prefix + k for k in chunk]))
    return parts


def _scripted(generation: int, shards: Shards, parts: Sequence[_Part]) -> Asked[Found]:
    """Ask for values by a script, which tells absent from lost."""
    rest = [(len(part.names), *part.names, base_key(part.shard)) for part in parts]

    def answer(replies: list[Any]) -> Found:
        current = int(replies[-1] or 0) == generation
        blobs: list[list[bytes | None]] = [[] for _ in shards]
        for part, (found, *wrong) in zip(parts, replies[:-1], strict=True):
            if wrong and current:
                if wrong[0] == b"unbuilt":
                    raise checks.unbuilt(part.shard)
                raise checks.lost(part.shard, part.keys[wrong[1]])
            blobs[part.place] += opened(part.shard, part.keys, found)
        return current, blobs

    def spelt() -> Asked[Found]:
        return Asked([*(("EVAL", READ.text, *words) for words in rest), _GENERATION], answer)

    return Asked([*(("EVALSHA", READ.sha, *words) for words in rest), _GENERATION], answer, spelt)
