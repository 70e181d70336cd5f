"""Streams that are made of several: unions, and the pairs of an interval join.

The partitions of each part are numbered among those of the others: partition p of stream i of
n is p·n + i. So a cut is one of all parts, and a position says which one it is of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, cast

from fs_notebook.language.plan import Branch, Join, Plan
from fs_notebook.language.sources import BETWEEN, streams_of
from fs_notebook.log.protocol import Batch, Stream
from fs_notebook.position import Cut

LOOK_SECONDS = 0.02
"""How long one stream's end is watched before the next one's is: what arrives waits no longer
than this for each of the other streams."""


@dataclass(frozen=True)
class UnionStream(Stream):
    """The declaration of a union: what its rows are made of.

    Attributes
    ----------
    branches
        What each stream's rows become.
    parts
        The declarations of the branches' streams, in their order.
    """

    branches: tuple[Branch, ...] = ()
    parts: tuple[Stream, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        branches = [b.to_list() for b in self.branches]
        return super().to_dict() | {
            "branches": branches, "parts": [s.to_dict() for s in self.parts],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> UnionStream:
        branches = tuple(Branch.from_list(b) for b in data["branches"])
        return union_of(branches, [Stream.from_dict(s) for s in data["parts"]])


def union_of(branches: Sequence[Branch], parts: Sequence[Stream]) -> UnionStream:
    """Return what branches over streams look like together."""
    return UnionStream(
        BETWEEN.join(b.source for b in branches),
        tuple((n, e.type) for n, e in branches[0].columns),
        branches=tuple(branches), parts=tuple(parts),
    )  # fmt: skip


@dataclass(frozen=True)
class PairStream(Stream):
    """The declaration of an interval join's rows: those of its first stream, each maybe often.

    Attributes
    ----------
    parts
        The declarations of both streams.
    """

    parts: tuple[Stream, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"parts": [s.to_dict() for s in self.parts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairStream:
        first, second = (Stream.from_dict(s) for s in data["parts"])
        return pairs_of(first, second)


def pairs_of(first: Stream, second: Stream) -> PairStream:
    """Return what the pairs of two streams' events look like."""
    name = BETWEEN.join((first.name, second.name))
    return PairStream(name, first.columns, first.time, parts=(first, second))


def source_of(plan: Plan, find: Callable[[str], Stream]) -> Stream:
    """Return what a plan reads: a stream, a union of several, or pairs of two."""
    return composed(plan.source, plan.branches, plan.joins, find)


def composed(
    source: str, branches: Sequence[Branch], joins: Sequence[Join], find: Callable[[str], Stream]
) -> Stream:
    """Return what rows are read from: a stream, a union of several, or pairs of two."""
    if branches:
        return union_of(branches, [find(b.source) for b in branches])
    first = find(streams_of(source)[0])
    if joins and joins[0].within is not None:
        return pairs_of(first, find(joins[0].source))
    return first


def stream_from_dict(data: dict[str, Any]) -> Stream:
    """Return the declaration, of a stream or of what is made of several, that `to_dict` wrote."""
    if "branches" in data:
        return UnionStream.from_dict(data)
    return PairStream.from_dict(data) if "parts" in data else Stream.from_dict(data)


@dataclass(frozen=True)
class Place:
    """A part's place among the others: it is number `number` of `count`."""

    number: int
    count: int

    def cut(self, cut: Cut) -> Cut:
        """Return what a cut of the whole is in this part's stream."""
        mine = [p for p in cut if p.partition % self.count == self.number]
        return Cut(tuple(p._replace(partition=p.partition // self.count) for p in mine))

    def numbered(self, partition: int) -> int:
        """Return what the whole calls a partition of this part's stream."""
        return partition * self.count + self.number


def in_turn(
    tails: Sequence[Callable[[float], Iterator[Batch | None]]], idle_seconds: float
) -> Iterator[tuple[int, Batch] | None]:
    """Yield what arrives in several streams, watched in turn, and the number of the stream.

    Parameters
    ----------
    tails
        Each follows one stream, and yields None when nothing came for so many seconds.
    idle_seconds
        None is yielded when nothing arrived in any of them for so long.
    """
    look = min(LOOK_SECONDS, idle_seconds / len(tails))
    with ExitStack() as opened:
        watched = [opened.enter_context(closing(cast(Any, tail(look)))) for tail in tails]
        quiet_s = 0.0
        while True:
            for number, tail in enumerate(watched):
                batch = next(tail)
                if batch is None:
                    quiet_s += look
                    continue
                quiet_s = 0.0
                yield number, batch
            if quiet_s >= idle_seconds:
                yield None
                quiet_s = 0.0
