"""Reading features: one round trip, finished at t, each with its status. No I/O here.

Everything a reader needs lies in the store: which version serves, its plan, its values. So an
application reads features without the ledger and without a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import polars as pl

from fs_notebook.clock import Clock
from fs_notebook.compute.requests import check_known
from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.online.asks import Blobs, Published, Shards, Steps, Values, split
from fs_notebook.online.board import Board, Part, Read, Ready, Wanted
from fs_notebook.online.busy import BusyStates
from fs_notebook.online.codec import pack_key, unpack_head
from fs_notebook.online.kept import KeptValues
from fs_notebook.online.states import storage
from fs_notebook.online.vector import FeatureVector
from fs_notebook.types import Type

T = TypeVar("T")

_REFRESHES_MAX = 3
_LONG_AGO = -(2**63)
ENTITIES_MAX = 100_000


class Reading:
    """What reading is, whoever asks the store. See `serve` for who does.

    Parameters
    ----------
    clock
        What time it is; windows end now.
    kept
        The local cache; None for none.
    """

    def __init__(self, *, clock: Clock, kept: KeptValues | None = None) -> None:
        self.clock = clock
        self.kept = kept
        # Replaced as a whole: another thread sees the former one or the next, and no mixture.
        self._board: Board | None = None
        self._busy = BusyStates()

    def refreshed(self) -> Steps[Board]:
        """Fetch what is served; a read does so by itself whenever it has changed."""
        generation, records = yield Published()
        board = self._board
        if board is None or board.generation != generation:
            board = self._board = Board(generation, records, board)
        return board

    def resolved(self, asked: Sequence[str]) -> Steps[tuple[Board, Wanted]]:
        """Return what is served, and what names mean in it."""
        board = self._board
        if board is None:
            board = yield from self.refreshed()
        try:
            return board, board.resolve(asked)
        except UnknownName:
            # Perhaps it was promoted a moment ago: look again, once, before saying no.
            board = yield from self.refreshed()
            return board, board.resolve(asked)

    def read(
        self,
        features: Sequence[str] | str,
        request: Mapping[str, Any] | Any,
        entities: Mapping[str, Any],
    ) -> Steps[FeatureVector]:
        """Return features of entities; see `serve.FeatureReader.read`."""
        asked = [features] if isinstance(features, str) else list(features)
        if request is not None and not isinstance(request, Mapping):
            # An entity that is called so.
            entities, request = {**entities, "request": request}, None
        for _ in range(_REFRESHES_MAX):
            board, wanted = yield from self.resolved(asked)
            columns, given = _told_apart(wanted, entities, request or {})
            count = _count(columns)
            parts = wanted.parts(tuple(columns))
            keys = [_keys(mine, columns) for mine in parts]
            requests = [
                ready.requested([f for _, f in shown], given, count)
                for ready, shown in wanted.derived.items()
            ]
            pairs = zip(wanted.reads, keys, strict=True)
            shards = [(shard, mine) for read, mine in pairs for shard in read.ready.shards]
            widths = [len(read.ready.shards) for read in wanted.reads]
            fetched = yield from self._fetched(board.generation, shards, widths)
            if fetched is not None:
                found, at_us = fetched
                blobs = split(found, widths)
                return (
                    yield from self._finished(
                        board, wanted, columns, count, keys, blobs, requests, at_us
                    )
                )
            yield from self.refreshed()
        raise UsageError(
            "What is served changes faster than it can be read.",
            remedy="read again once the promotions have settled",
        )

    def _fetched(
        self, generation: int, shards: Shards, widths: Sequence[int]
    ) -> Steps[tuple[Blobs, int] | None]:
        """Return values, and when the oldest of them was read; None if others serve by now.

        `widths` says how many of the shards are one version's, each with the same keys.
        """
        if self.kept is None:
            at_us = self.clock.now_us()
            current, blobs = yield Values(generation, shards)
            return (blobs, at_us) if current else None
        kept, lacking, oldest_us = self.kept.find(generation, shards)
        # Of a version in several shards all are asked, so that what is found is of one moment.
        lacking = [
            together
            for mine in split(lacking, widths)
            for together in [sorted(set().union(*mine))] * len(mine)
        ]
        asked = [
            (shard, [keys[i] for i in lacks])
            for (shard, keys), lacks in zip(shards, lacking, strict=True)
        ]
        if not any(lacking):
            return kept, oldest_us
        asked_s, asked_us = self.clock.monotonic_s(), self.clock.now_us()
        current, found = yield Values(generation, asked)
        if not current:
            return None
        self.kept.keep(generation, asked, found, asked_s=asked_s, asked_us=asked_us)
        for mine, lacks, fresh in zip(kept, lacking, found, strict=True):
            for place, blob in zip(lacks, fresh, strict=True):
                mine[place] = blob
        return kept, min(oldest_us, asked_us)

    def _finished(
        self,
        board: Board,
        wanted: Wanted,
        columns: dict[str, list[Any]],
        count: int,
        keys: Sequence[Sequence[bytes]],
        blobs: Sequence[Blobs],
        requests: Sequence[Mapping[str, list[Any]]],
        fetched_us: int,
    ) -> Steps[FeatureVector]:
        now_us = self.clock.now_us()
        made: dict[str, list[Any]] = {}
        newest: dict[str, list[int | None]] = {}
        expired: dict[str, frozenset[int]] = {}
        done: dict[Read, tuple[list[Sequence[Any]], frozenset[int]]] = {}
        for (read, shown, owners), mine, found in zip(wanted.stored, keys, blobs, strict=True):
            ready = read.ready
            rows, old = yield from self._values(ready, mine, found, now_us, board.generation)
            if wanted.derived:
                done[read] = rows, old
            if not shown:
                continue
            turned = [*map(list, zip(*rows, strict=True))]
            if not rows:
                turned = [[]] * (len(ready.places) + 2)
            for column, place in shown:
                made[column] = turned[place]
            for owner in owners:
                newest[owner], expired[owner] = turned[0], old
        for (derived, asked), given in zip(wanted.derived.items(), requests, strict=True):
            inputs = [done[read] for read in wanted.inputs[derived]]
            entity = {n: columns[n] for n in derived.served.plan.entity}
            brought = [
                {f: [row[read.ready.places[f]] for row in rows] for f, _ in needed.features}
                for needed, read, (rows, _) in zip(
                    derived.served.plan.inputs, wanted.inputs[derived], inputs, strict=True
                )
            ]
            values = derived.values(
                [f for _, f in asked],
                entities=entity, requests=given, inputs=brought, count=count,
            )  # fmt: skip
            times = [
                max((row[0] for row in row_s if row[0] is not None), default=None)
                for row_s in zip(*(rows for rows, _ in inputs), strict=True)
            ]
            gone: frozenset[int] = frozenset().union(*(old for _, old in inputs))
            for column, feature in asked:
                made[column] = values[feature]
            for owner in wanted.owners_of[derived]:
                newest[owner], expired[owner] = times, gone
        if not wanted.in_order:
            made = {n: made[n] for n in wanted.features}
        return FeatureVector(
            entities=tuple(columns), features=wanted.features,
            columns={**columns, **made},
            schema=wanted.schema, owners=wanted.owners, versions=wanted.versions,
            newest_us=newest, expired=expired, at_us=now_us, fetched_us=min(fetched_us, now_us),
            count=count, notices=wanted.notices,
        )  # fmt: skip

    def _values(
        self, ready: Ready, keys: Sequence[bytes], blobs: Blobs, now_us: int, generation: int
    ) -> Steps[tuple[list[Sequence[Any]], frozenset[int]]]:
        """Return each entity's values at t = max(now, newest + 1), and which rows are expired.

        `blobs` are those of each of the version's shards.
        """
        packed, ttl_us = ready.packed, ready.served.plan.ttl_us
        rows: list[Sequence[Any]] = []
        unfinished: dict[tuple[int, ...], list[int]] = {}
        expired: list[int] = []
        for i, found in enumerate(zip(*blobs, strict=True)):
            heads = [unpack_head(blob) for blob in found if blob is not None]
            if not heads:
                rows.append(ready.empty)
                continue
            row = heads[0]
            if len(heads) > 1:
                row[0], row[1] = max(head[0] for head in heads), _LONG_AGO
            until = row[1]
            if until is not None and now_us > until:
                if ttl_us is not None and now_us - row[0] > ttl_us:
                    expired.append(i)
                    rows.append([row[0], None, *[None] * (len(row) - 2)])
                    continue
                places = tuple(n for n, blob in enumerate(found) if blob is not None)
                unfinished.setdefault(places, []).append(i)
            for place, kind in packed:
                row[place] = _logical(row[place], kind)
            rows.append(row)
        for places, which in unfinished.items():
            # Something left a window since the worker wrote, or the value is of several states:
            # finish those anew. An entity that several rows ask for is one state, not several.
            once = {keys[i]: i for i in which}
            state = yield from self._busy.at(
                ready.codec, [ready.shards[n] for n in places], list(once),
                [[blobs[n][i] for i in once.values()] for n in places],
                now_us=now_us, generation=generation,
            )  # fmt: skip
            frame = ready.fold.values(state, now_us=now_us)
            keyed = len(ready.fold.keys)
            by_key = {pack_key(row[:keyed]): row[keyed:-2] for row in frame.iter_rows()}
            for i in which:
                rows[i] = [rows[i][0], None, *by_key[keys[i]]]
        return rows, frozenset(expired)


def _count(columns: Mapping[str, list[Any]]) -> int:
    lengths = {len(v) for v in columns.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"{n}: {len(v)}" for n, v in columns.items())
        raise UsageError(
            "The entity lists differ in length.",
            found=shown,
            remedy="one value of each entity for every row",
        )
    count = lengths.pop() if lengths else 0
    if count > ENTITIES_MAX:
        raise UsageError(
            f"At most {ENTITIES_MAX:,} entities a read.",
            found=f"{count:,}",
            remedy="read in slices",
        )
    return count


def _keys(parts: Sequence[Part], columns: Mapping[str, list[Any]]) -> list[bytes]:
    """Return the packed key of each row; empty where a part is null."""
    values = [[coerced(v, p.type, p.column) for v in columns[p.column]] for p in parts]
    return [pack_key(k) if None not in k else b"" for k in zip(*values, strict=True)]


def _told_apart(
    wanted: Wanted, given: Mapping[str, Any], request: Mapping[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return entities' values, and the request's own: those that no entity is called as.

    A list of the request's stays one, a single value is for all entities.
    """
    if not wanted.derived and not request:
        return {n: _as_list(v) for n, v in given.items()}, {}
    # What other features of the group read may be given as well.
    known = {n for ready in wanted.derived for n, _ in ready.served.plan.requests}
    entities = {n for ready in wanted.derived for n in ready.served.plan.entity}
    for read in wanted.reads:
        entities |= {*(read.entity or read.ready.served.plan.entity), *read.ready.served.columns}
    check_known(request, known)
    beside = {n: v for n, v in given.items() if n in known and n not in entities}
    others = [n for n in given if n not in known and n not in entities]
    for ready, shown in wanted.derived.items():
        ready.check_requested([f for _, f in shown], {**beside, **request}, others)
    values = {n: v if _is_one(v) else _as_list(v) for n, v in {**beside, **request}.items()}
    return {n: _as_list(v) for n, v in given.items() if n not in beside}, values


def _logical(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    if kind.is_decimal:
        return Decimal(value)
    restored = pl.Series([value], dtype=storage(kind.polars)).cast(kind.polars)
    return restored.to_list()[0]


def _is_one(value: Any) -> bool:
    return isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")


def _as_list(value: Any) -> list[Any]:
    if _is_one(value):
        return [value]
    return list(value.to_list()) if hasattr(value, "to_list") else list(value)


_EXPECTED: Mapping[Type, tuple[type, str]] = {
    Type.VARCHAR: (str, "str(…)"),
    Type.BOOLEAN: (bool, "bool(…)"),
    Type.BIGINT: (int, "int(…)"),
    Type.TIMESTAMP: (datetime, "datetime(…, tzinfo=UTC)"),
    Type.DATE: (date, "date(…)"),
    Type.INTERVAL: (timedelta, "timedelta(…)"),
}


def coerced(value: Any, kind: Type, entity: str) -> Any:
    """Bring an entity's value to its key's type: the string '7' and the number 7 differ."""
    expected, remedy = _EXPECTED[kind]
    if value is None or type(value) is expected:
        return value
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    is_bool, is_moment = isinstance(value, bool), isinstance(value, datetime)
    fits = isinstance(value, expected)
    if kind is Type.BIGINT:
        fits = fits and not is_bool
    if kind is Type.DATE:
        fits = fits and not is_moment
    if not fits:
        raise UsageError(
            f"{entity!r} is a {kind}.",
            found=f"{value!r}, of type {type(value).__name__}",
            remedy=f"convert it with {remedy}",
        )
    return value
