"""How the embedded ledger keeps events: rows of Arrow IPC streams, and their merging."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence

import polars as pl

from fs_notebook.errors import IntegrityError
from fs_notebook.log import beside, frames
from fs_notebook.log.protocol import PUBLISHED, Stream

ROWS_MAX = 50_000
SMALL_ROWS, SMALL_BATCHES = 1_000, 64
_MIDDLE_ROWS = 16_000

Stamped = tuple[pl.DataFrame, int, int, str | None]


def published(stream: Stream, rows: pl.DataFrame, now_us: int) -> pl.DataFrame:
    """Return rows with their publish time in the column that is declared to hold it, if any."""
    column = beside.column_of(stream, beside.PUBLISH_TIME)
    if column is None:
        return rows
    now = pl.lit(now_us, dtype=pl.Int64).cast(frames.TIMESTAMP)
    return rows.with_columns(now.alias(column))


def stamped(stream: Stream, part: pl.DataFrame, now_us: int) -> Stamped:
    """Return rows with their publish time, their least and greatest event time, and its column.

    A null time counts as the publish time, as it will when it is read.
    """
    low = high = now_us
    if stream.time is not None:
        times = part.get_column(stream.time).to_physical().fill_null(now_us)
        low, high = int(times.min()), int(times.max())  # type: ignore[arg-type]
    published = pl.lit(now_us, dtype=pl.Int64).cast(frames.TIMESTAMP).alias(PUBLISHED)
    return part.with_columns(published), low, high, stream.time


def insert(db: sqlite3.Connection, stream_id: int, first: int, what: Stamped) -> None:
    """Write a stored batch whose first row has offset `first`."""
    part, low, high, timed = what
    buffer = io.BytesIO()
    part.rechunk().write_ipc_stream(buffer, compression="lz4")
    db.execute(
        "INSERT INTO batches (stream, first, n, min_time, max_time, timed, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stream_id, first, part.height, low, high, timed, buffer.getbuffer()),
    )


def decode(data: bytes, stream: Stream, asked: Sequence[str]) -> pl.DataFrame:
    """Return the columns of a stored batch that `asked` needs, as far as it has them."""
    columns = [*frames.needed_columns(stream, asked), PUBLISHED]
    try:
        try:
            return pl.read_ipc_stream(data, columns=columns)
        except pl.exceptions.ColumnNotFoundError:
            whole = pl.read_ipc_stream(data)
            return whole.select(c for c in columns if c in whole.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(
            f"A stored batch of stream {stream.name!r} cannot be read.",
            found=str(error).splitlines()[0],
            remedy="restore the ledger's file from a copy",
        ) from None


def merge_small(db: sqlite3.Connection, stream_id: int) -> None:
    """Merge the newest stored batches where many of them are small.

    Small ones (up to 1,000 rows) are merged 64 at a time into ones of a middle size, and those
    into ones that are large enough to stay; so a row is rewritten a bounded number of times
    however it came. Offsets stay what they are.
    """
    for size in (SMALL_ROWS, _MIDDLE_ROWS):
        rows = db.execute(
            "SELECT id, first, n, timed FROM batches WHERE stream = ? ORDER BY first DESC LIMIT ?",
            (stream_id, 2 * SMALL_BATCHES),
        ).fetchall()
        run: list[tuple[int, int, int, str | None]] = []
        for row in rows:
            skipped_small = not run and size > SMALL_ROWS and row[2] < SMALL_ROWS
            if skipped_small:
                continue
            if row[2] >= size or (run and row[3] != run[0][3]) or len(run) == SMALL_BATCHES:
                break
            run.append(row)
        if len(run) == SMALL_BATCHES:
            _merge(db, stream_id, run[::-1])


def _merge(
    db: sqlite3.Connection, stream_id: int, run: list[tuple[int, int, int, str | None]]
) -> None:
    marks = ",".join("?" * len(run))
    ids = [row[0] for row in run]
    kept = db.execute(
        f"SELECT data, min_time, max_time FROM batches WHERE id IN ({marks}) ORDER BY first", ids
    ).fetchall()
    parts = [pl.read_ipc_stream(data) for data, _, _ in kept]
    # Parts written under different declarations do not stack column by column where a type
    # changed; they are left as they are, which costs speed and nothing else.
    types: dict[str, pl.DataType] = {}
    for part in parts:
        if any(types.setdefault(n, t) != t for n, t in part.schema.items()):
            return
    whole = pl.concat(parts, how="diagonal")
    low, high = min(r[1] for r in kept), max(r[2] for r in kept)
    db.execute(f"DELETE FROM batches WHERE id IN ({marks})", ids)
    insert(db, stream_id, run[0][1], (whole, low, high, run[0][3]))
