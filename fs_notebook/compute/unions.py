"""Unions: several streams of the ledger, seen as one.

Each branch's rows are transformed and filtered as they are read, and its partitions are
numbered among those of the others. So a cut of the union is a cut of each of its streams, and a
preview, a training set, a worker and `verify` read a union as they read a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

import polars as pl

from fs_notebook.compute.composed import Place, UnionStream, in_turn
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.language.expr import columns_of
from fs_notebook.language.plan import Branch
from fs_notebook.language.sources import streams_of
from fs_notebook.log.protocol import PARTITION, PUBLISHED, Batch, EventLog, Stream
from fs_notebook.position import START, Cut
from fs_notebook.types import TIME


class _Part:
    """A branch and its place among the others."""

    def __init__(self, branch: Branch, stream: Stream, number: int, count: int) -> None:
        self.stream = stream
        self._place = Place(number, count)
        self._exprs = dict(branch.columns)
        self._where = branch.where

    def cut(self, cut: Cut) -> Cut:
        """Return what a cut of the union is in this branch's stream."""
        return self._place.cut(cut)

    def needs(self, columns: Sequence[str] | None) -> list[str]:
        """Return the stream's columns that the union's `columns` are made of."""
        wanted = list(self._exprs) if columns is None else columns
        exprs = [self._exprs[c] for c in wanted if c in self._exprs]
        exprs += [self._where] if self._where is not None else []
        names = sorted(set().union(*(columns_of(e) for e in exprs)))
        return [*names, PUBLISHED] if PUBLISHED in wanted else names

    def rows(self, batch: Batch, columns: Sequence[str] | None, name: str) -> Batch:
        """Return a batch of the stream as one of the union."""
        wanted = list(self._exprs) if columns is None else [c for c in columns if c != TIME]
        made = [
            pl.col(c) if c == PUBLISHED else compile_expr(self._exprs[c]).alias(c) for c in wanted
        ]
        keep: pl.Series | None = None
        place = self._place
        with overflow_named(f"the union {name}"):
            rows = batch.rows
            if self._where is not None:
                # Beside a column, so that a constant gets as many rows as there are.
                there = rows.select(TIME, __keep=compile_expr(self._where)).get_column("__keep")
                keep = there.fill_null(False)
                rows = rows.filter(keep)
            rows = rows.select(*made, TIME)

        def positions() -> pl.DataFrame:
            frame = batch.positions() if keep is None else batch.positions().filter(keep)
            return frame.with_columns(pl.col(PARTITION) * place.count + place.number)

        number = place.numbered(batch.partition)
        dead = tuple(replace(d, position=d.position._replace(partition=number)) for d in batch.dead)
        return Batch(number, rows, batch.end._replace(partition=number), dead, positions)


def _numbered(cuts: Sequence[Cut]) -> Cut:
    """Return the cut of a union that has these of its streams."""
    return Cut(
        tuple(
            p._replace(partition=p.partition * len(cuts) + number)
            for number, cut in enumerate(cuts)
            for p in cut
        )
    )


def _parts(stream: UnionStream) -> list[_Part]:
    pairs = zip(stream.branches, stream.parts, strict=True)
    return [_Part(b, s, number, len(stream.parts)) for number, (b, s) in enumerate(pairs)]


class UnionLog:
    """An `EventLog` in which unions can be read beside streams, and the ends of pairs be told."""

    def __init__(self, log: EventLog) -> None:
        self.url = log.url
        self._log = log

    def __getattr__(self, name: str) -> Any:
        # What is of no concern to unions is the log's own.
        return getattr(self._log, name)

    def identity(self, name: str) -> str:
        """Return what stays the same as long as all streams of a union do."""
        first, *others = streams_of(name)
        if not others:
            return self._log.identity(first)
        return json.dumps([self._log.identity(n) for n in (first, *others)])

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event of each partition of each stream."""
        first, *others = streams_of(name)
        if not others:
            return self._log.end(first)
        return _numbered([self._log.end(n) for n in (first, *others)])

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first events of each stream lie; see `EventLog.beginning`."""
        first, *others = streams_of(name)
        if not others:
            return self._log.beginning(first, only)
        names = (first, *others)
        if only is None:
            return _numbered([self._log.beginning(n) for n in names])
        partition, number = divmod(only, len(names))
        found = self._log.beginning(names[number], partition)
        return _numbered([found if i == number else START for i in range(len(names))])

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[Batch]:
        """Yield the events of `EventLog.read`, one stream after the other."""
        if not isinstance(stream, UnionStream):
            return self._log.read(stream, start=start, end=end, columns=columns, **options)
        return self._read(stream, start, end, columns, options)

    def _read(
        self,
        stream: UnionStream,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None,
        options: dict[str, Any],
    ) -> Iterator[Batch]:
        for part in _parts(stream):
            if not (last := part.cut(end)).positions:
                continue
            batches = self._log.read(
                part.stream, start=part.cut(start), end=last, columns=part.needs(columns),
                **options,
            )  # fmt: skip
            with closing(cast(Any, batches)):
                for batch in batches:
                    yield part.rows(batch, columns, stream.name)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        idle_seconds: float = 0.2,
        **options: Any,
    ) -> Iterator[Batch | None]:
        """Yield the events of `EventLog.tail`, the streams watched in turn."""
        if not isinstance(stream, UnionStream):
            return self._log.tail(
                stream, start=start, columns=columns, idle_seconds=idle_seconds, **options
            )
        return self._tail(stream, start, columns, idle_seconds, options)

    def _tail(
        self,
        stream: UnionStream,
        start: Cut,
        columns: Sequence[str] | None,
        idle_seconds: float,
        options: dict[str, Any],
    ) -> Iterator[Batch | None]:
        parts = _parts(stream)

        def follow(part: _Part, look: float) -> Iterator[Batch | None]:
            return self._log.tail(
                part.stream, start=part.cut(start), columns=part.needs(columns),
                idle_seconds=look, **options,
            )  # fmt: skip

        tails = [partial(follow, part) for part in parts]
        with closing(cast(Any, in_turn(tails, idle_seconds))) as arriving:
            for arrived in arriving:
                if arrived is None:
                    yield None
                else:
                    number, batch = arrived
                    yield parts[number].rows(batch, columns, stream.name)
