"""The states behind values that no longer hold, with the buckets of busy entities beside them.

A busy entity's events lie in values of their own (see `compute.buckets`), so that finishing it
anew takes a second round trip. What that brought stays right as long as the entity's own value
is the same to the byte: it is kept, and read again only once the worker has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fs_notebook.compute.fold import State
from fs_notebook.compute.merging import merge_states
from fs_notebook.errors import UsageError
from fs_notebook.online.asks import Steps, Values

if TYPE_CHECKING:
    from fs_notebook.online.states import StateCodec

_TRIES_MAX = 3
KEPT_MAX = 64
"""Busy entities (or lists of them that are read together) whose states a reader keeps."""

_Place = tuple[tuple[str, ...], tuple[bytes, ...]]


@dataclass(frozen=True)
class _Kept:
    blobs: list[list[bytes | None]]
    state: State
    buckets: frozenset[bytes]


class BusyStates:
    """States of entities, as a reader needs them at a moment."""

    def __init__(self) -> None:
        self._kept: dict[_Place, _Kept] = {}

    def at(
        self,
        codec: StateCodec,
        shards: Sequence[str],
        keys: list[bytes],
        blobs: list[list[bytes | None]],
        *,
        now_us: int,
        generation: int,
    ) -> Steps[State]:
        """Return entities' states, with the buckets that values at `now_us` need.

        `blobs` are the entities' values in each of the shards that have them: states of several
        are merged. A bucket is only of use beside the very state that it belongs to, so both are
        read again together.

        Raises
        ------
        UsageError
            If the entities change faster than they can be read.
        """
        if codec.fold.bucket_us is None:
            return merge_states(codec.fold, [codec.decode(keys, mine) for mine in blobs])
        place = (tuple(shards), tuple(keys))
        kept = self._kept.pop(place, None)
        same = kept is not None and kept.blobs == blobs
        if kept is not None and same and codec.needed_by(kept.state, now_us) <= kept.buckets:
            self._kept[place] = kept
            return kept.state
        needed: frozenset[bytes] = frozenset()
        order: list[bytes] = []
        more: list[list[bytes | None]] = [[] for _ in shards]
        for _ in range(_TRIES_MAX):
            states = [codec.decode(keys, mine) for mine in blobs]
            wanted = codec.needed_by(merge_states(codec.fold, states), now_us)
            if wanted <= needed:
                if not needed:
                    return merge_states(codec.fold, states)
                whole = [
                    codec.with_buckets(s, order, found) if s.buckets is not None else s
                    for s, found in zip(states, more, strict=True)
                ]
                state = merge_states(codec.fold, whole)
                self._keep(place, _Kept(blobs, state, needed))
                return state
            needed, order = wanted, sorted(wanted)
            asked = [(shard, [*keys, *order]) for shard in shards]
            _, found = yield Values(generation, asked)
            blobs = [mine[: len(keys)] for mine in found]
            more = [mine[len(keys) :] for mine in found]
        raise UsageError("These entities change faster than they can be read.", remedy="read again")

    def _keep(self, place: _Place, kept: _Kept) -> None:
        while len(self._kept) >= KEPT_MAX:
            self._kept.pop(next(iter(self._kept), place), None)
        self._kept[place] = kept
