"""The embedded ledger: one SQLite file that several processes append to, read and tail.

Events are rows of Arrow IPC streams (lz4), a stored batch each. A position is
``(0, 0, offset, 0)`` with a dense offset for each stream, so that stored batches can be merged
without any position changing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fs_notebook.clock import SYSTEM, Clock, new_id
from fs_notebook.errors import (
    ConflictError,
    StreamChanged,
    UnknownPosition,
    UsageError,
    unknown_name,
)
from fs_notebook.log import frames, stored
from fs_notebook.log.facts import KEPT, Facts
from fs_notebook.log.names import check_stream_name
from fs_notebook.log.protocol import PUBLISHED, Batch, Shares, Stream
from fs_notebook.log.sqlite import Database
from fs_notebook.position import START, Cut, Position

POLL_S = 0.01


@dataclass(frozen=True)
class _Known:
    """A stream as its row in the database has it."""

    id: int
    identity: str
    next: int
    published_us: int


@dataclass(frozen=True)
class _Piece:
    """A stretch of events of one stored batch: offsets [first, first + n)."""

    first: int
    n: int
    rows: pl.DataFrame
    keep: pl.Series | None

    def offsets(self) -> pl.Series:
        all_ = pl.int_range(self.first, self.first + self.n, dtype=pl.Int64, eager=True)
        return all_ if self.keep is None else all_.filter(self.keep)


class EmbeddedLog:
    """A ledger in a folder of this machine.

    Parameters
    ----------
    path
        The folder; it is made where it is missing, and holds ``ledger.db``.
    clock
        Where publish times and waiting come from.
    bytes_max
        A bound on the file's size; None leaves it to the disk.

    Raises
    ------
    UnreachableError
        If the file cannot be opened, and from every method if it cannot be used: no space left,
        read-only, locked for longer than 10 s.
    IntegrityError
        If the file is there but is no ledger.
    """

    def __init__(
        self, path: str | Path, *, clock: Clock = SYSTEM, bytes_max: int | None = None
    ) -> None:
        folder = Path(path).expanduser()
        self.url = f"embedded:{folder}"
        self._clock = clock
        self._database = Database(folder / "ledger.db", clock=clock, bytes_max=bytes_max)

    def create(self, stream: Stream) -> None:
        """Make the stream; nothing happens where it is there already."""
        check_stream_name(stream.name)
        frames.check_stream(stream)
        if self._find(stream.name) is not None:
            return
        with self._database.writing() as db:
            db.execute(
                "INSERT OR IGNORE INTO streams (name, identity, declaration, next, published_us)"
                " VALUES (?, ?, ?, 0, 0)",
                (stream.name, new_id(), json.dumps(stream.to_dict())),
            )

    def delete(self, name: str) -> None:
        """Remove the stream and all its events, for good."""
        known = self._known(name)
        with self._database.writing() as db:
            db.execute("DELETE FROM batches WHERE stream = ?", (known.id,))
            db.execute("DELETE FROM streams WHERE id = ?", (known.id,))

    def exists(self, name: str) -> bool:
        """Tell whether there is a stream of this name."""
        return self._find(check_stream_name(name)) is not None

    def names(self) -> list[str]:
        """Return the names of the streams that are there, sorted."""
        with self._database.reading() as db:
            return [row[0] for row in db.execute("SELECT name FROM streams ORDER BY name")]

    def identity(self, name: str) -> str:
        """Return the identifier that the stream got when it was made."""
        return self._known(name).identity

    def infer_stream(self, name: str, *, sample: int = 200) -> Stream:
        """Return the declaration that the stream was made with (`sample` is not needed here)."""
        known = self._known(name)
        with self._database.reading() as db:
            query = "SELECT declaration FROM streams WHERE id = ?"
            text = db.execute(query, (known.id,)).fetchone()[0]
        return Stream.from_dict(json.loads(text))

    def append(self, stream: Stream, rows: pl.DataFrame, *, expected: Cut | None = None) -> Cut:
        """Append events in one transaction; return the cut just after them.

        The transaction is on the disk when this returns (SQLite's ``synchronous=FULL``).

        Raises
        ------
        ConflictError
            If `expected` is given and the stream's end is another cut.
        UsageError
            If `rows` are not the stream's columns.
        """
        frame = frames.outgoing(stream, rows)
        self._known(stream.name)
        with self._database.writing() as db:
            known = self._known(stream.name)
            if expected is not None and expected != _cut(known.next):
                raise ConflictError(
                    f"Stream {stream.name!r} has moved on since it was read.",
                    found=f"its end is {_cut(known.next)}, expected was {expected}",
                    remedy="read what was added, then decide again",
                )
            # Publish times never go back, so that "published before t" is a prefix.
            now_us = max(self._clock.now_us(), known.published_us)
            frame = stored.published(stream, frame, now_us)
            for start in range(0, frame.height, stored.ROWS_MAX):
                part = stored.stamped(stream, frame.slice(start, stored.ROWS_MAX), now_us)
                stored.insert(db, known.id, known.next + start, part)
            end = known.next + frame.height
            if frame.height:
                db.execute(
                    "UPDATE streams SET next = ?, published_us = ? WHERE id = ?",
                    (end, now_us, known.id),
                )
                if frame.height < stored.SMALL_ROWS:
                    stored.merge_small(db, known.id)
        return _cut(end)

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event."""
        return _cut(self._known(name).next)

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        rows_max: int = 200_000,
    ) -> Iterator[Batch]:
        """Yield the events in (start, end]; see `EventLog.read`."""
        if rows_max < 1:
            raise UsageError(f"A batch cannot hold {rows_max} rows.", remedy="use 1 or more")
        asked = frames.asked_columns(stream, columns)
        known = self._known(stream.name)
        first, stop = _next(start, known, stream.name), _next(end, known, stream.name)
        times = (time_from_us, time_to_us)
        return self._batches(stream, known, first, stop, asked, times, rows_max)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        rows_max: int = 10_000,
        idle_seconds: float = 0.2,
        only: int | None = None,
    ) -> Iterator[Batch | None]:
        """Yield the events after `start` for ever; see `EventLog.tail`."""
        asked = frames.asked_columns(stream, columns)
        known = self._known(stream.name)
        first = _next(start, known, stream.name)
        return self._tail(stream, known.id, first, asked, rows_max, idle_seconds)

    def partitions(self, name: str) -> int:
        """Return 1: a stream of the embedded ledger is in one piece."""
        self._known(name)
        return 1

    def facts(self, name: str) -> Facts:
        """Return what the stored batches' own figures tell of the stream."""
        known = self._known(name)
        with self._database.reading() as db:
            entries, size, first_us, last_us = db.execute(_FACTS, (known.id,)).fetchone()
        return Facts(known.next, entries, size, first_us, last_us, kept=KEPT, partitions=1)

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first event lies: nothing is ever removed."""
        return Cut((Position(0, 0, 0, 0),)) if self.end(name).positions else START

    def before(self, name: str, position: Position, events: int) -> Position | None:
        """Return a position with `events` events in (it, position]; None: all there are."""
        first = position.entry - events
        return Position(0, 0, first, 0) if first >= 0 else None

    def share(self, name: str, among: str, member: str) -> Shares:
        """Refuse: a stream of the embedded ledger has one partition."""
        raise UsageError(
            f"Partitions of {name!r} cannot be shared among workers.",
            found="a ledger of one partition a stream",
            remedy="promote without --workers, or connect to Pulsar",
        )

    def unshare(self, name: str, among: str) -> None:
        """Do nothing: nothing is shared here."""

    def close(self) -> None:
        """Close the file; calls after it raise."""
        self._database.close()

    def _tail(
        self,
        stream: Stream,
        stream_id: int,
        at: int,
        asked: Sequence[str],
        rows_max: int,
        idle_seconds: float,
    ) -> Iterator[Batch | None]:
        quiet_since = self._clock.monotonic_s()
        while True:
            known = self._find(stream.name)
            if known is None or known.id != stream_id:
                raise StreamChanged(
                    f"Stream {stream.name!r} was deleted while it was followed.",
                    remedy="start again on the new stream, from its beginning",
                )
            if known.next > at:
                for batch in self._batches(
                    stream, known, at, known.next, asked, (None, None), rows_max
                ):
                    at = batch.end.entry + 1
                    yield batch
                quiet_since = self._clock.monotonic_s()
            elif self._clock.monotonic_s() - quiet_since >= idle_seconds:
                yield None
                quiet_since = self._clock.monotonic_s()
            else:
                self._clock.sleep_s(min(POLL_S, idle_seconds))

    def _batches(
        self,
        stream: Stream,
        known: _Known,
        at: int,
        stop: int,
        asked: Sequence[str],
        times: tuple[int | None, int | None],
        rows_max: int,
    ) -> Iterator[Batch]:
        """Yield offsets [at, stop) as batches; the last one ends at `stop` exactly."""
        pieces: list[_Piece] = []
        held = done = 0
        for piece in self._pieces(stream, known, at, stop, asked, times):
            for part in _split(piece, rows_max):
                if pieces and held + part.rows.height > rows_max:
                    done = pieces[-1].first + pieces[-1].n
                    yield _batch(stream, asked, pieces, done)
                    pieces, held = [], 0
                pieces.append(part)
                held += part.rows.height
        if pieces or (done < stop and at < stop):
            yield _batch(stream, asked, pieces, stop)

    def _pieces(
        self,
        stream: Stream,
        known: _Known,
        at: int,
        stop: int,
        asked: Sequence[str],
        times: tuple[int | None, int | None],
    ) -> Iterator[_Piece]:
        """Yield what the stored batches hold of [at, stop), those outside `times` left out.

        A stored batch is looked up by the offset that is due, not from a list made before,
        since an append in between may have merged it with its neighbours.
        """
        low = times[0] if times[0] is not None else -(2**63)
        high = times[1] if times[1] is not None else 2**63 - 1
        while at < stop:
            with self._database.reading() as db:
                found = db.execute(_DUE, (known.id, at, stop, low, high, stream.time)).fetchall()
            if not found:
                self._check_there(stream.name, known)
                return
            for stored_first, n, data in found:
                first, last = max(at, stored_first), min(stop, stored_first + n)
                raw = stored.decode(data, stream, asked).slice(first - stored_first, last - first)
                rows = frames.incoming(
                    stream, raw, asked, fallback=pl.col(PUBLISHED), published=pl.col(PUBLISHED)
                )
                keep = frames.time_mask(rows, *times)
                at = last
                kept = rows if keep is None else rows.filter(keep)
                yield _Piece(first, last - first, kept, keep)

    def _check_there(self, name: str, known: _Known) -> None:
        now = self._find(name)
        if now is None or now.id != known.id:
            raise StreamChanged(
                f"Stream {name!r} was deleted while it was read.",
                remedy="start again on the new stream, from its beginning",
            )

    def _find(self, name: str) -> _Known | None:
        with self._database.reading() as db:
            row = db.execute(
                "SELECT id, identity, next, published_us FROM streams WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else _Known(*row)

    def _known(self, name: str) -> _Known:
        known = self._find(check_stream_name(name))
        if known is None:
            raise unknown_name(
                "stream", name, self.names(), remedy="upload events to make a stream"
            )
        return known


_DUE = """
SELECT first, n, data FROM batches
WHERE stream = ?1 AND first < ?3 AND first + n > ?2
  AND first >= coalesce(
      (SELECT max(first) FROM batches WHERE stream = ?1 AND first <= ?2), 0)
  AND (timed IS NOT ?6 OR (max_time >= ?4 AND min_time < ?5))
ORDER BY first LIMIT 4
"""

_FACTS = """
SELECT count(*), coalesce(sum(length(data)), 0), min(min_time), max(max_time)
FROM batches WHERE stream = ?
"""


def _cut(next_offset: int) -> Cut:
    return Cut((Position(0, 0, next_offset - 1, 0),)) if next_offset else START


def _next(cut: Cut, known: _Known, name: str) -> int:
    """Return the offset just after `cut`."""
    for position in cut:
        shaped = position.partition == position.ledger == position.batch == 0
        if not shaped or not 0 <= position.entry < known.next:
            raise UnknownPosition(
                f"Stream {name!r} has no position {position}.",
                found=f"its end is {_cut(known.next)}",
                remedy="positions of one stream mean nothing on another, or on another ledger",
            )
    position_or_none = cut.get(0)
    return 0 if position_or_none is None else position_or_none.entry + 1


def _split(piece: _Piece, rows_max: int) -> Iterator[_Piece]:
    """Yield `piece` in parts of at most `rows_max` rows."""
    if piece.rows.height <= rows_max:
        yield piece
        return
    if piece.keep is None:
        for start in range(0, piece.n, rows_max):
            n = min(rows_max, piece.n - start)
            yield _Piece(piece.first + start, n, piece.rows.slice(start, n), None)
        return
    kept = piece.keep.arg_true()
    first = 0
    for start in range(0, piece.rows.height, rows_max):
        rows = piece.rows.slice(start, rows_max)
        whole = start + rows.height == piece.rows.height
        stop = piece.n if whole else int(kept[start + rows_max - 1]) + 1
        yield _Piece(piece.first + first, stop - first, rows, piece.keep.slice(first, stop - first))
        first = stop


def _batch(stream: Stream, asked: Sequence[str], pieces: Sequence[_Piece], stop: int) -> Batch:
    """Return `pieces` as one batch that ends just before offset `stop`."""
    held = tuple(p for p in pieces if p.rows.height)
    if held:
        rows = held[0].rows if len(held) == 1 else pl.concat([p.rows for p in held])
    else:
        rows = frames.no_rows(stream, asked)

    def positions() -> pl.DataFrame:
        if not held:
            return frames.no_positions()
        entry = pl.concat([p.offsets() for p in held])
        zeros = pl.zeros(len(entry), dtype=pl.Int64, eager=True)
        return frames.position_frame(partition=0, ledger=zeros, entry=entry, batch=zeros)

    return Batch(0, rows, Position(0, 0, stop - 1, 0), (), positions)
