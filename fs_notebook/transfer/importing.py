"""An exported stream into a ledger: each part appended, read back, compared and mapped."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.catalog import STREAM as CATALOG
from fs_notebook.catalog.model import DECLARED
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Progress
from fs_notebook.errors import ConflictError, Interrupted, NameTaken, UsageError
from fs_notebook.log.protocol import POSITION_COLUMNS, PUBLISHED, EventLog, Stream
from fs_notebook.position import START, Cut, Position
from fs_notebook.processes import interrupts_held
from fs_notebook.transfer.exporting import files_written, opened
from fs_notebook.transfer.manifest import Manifest, Transferred, write_whole
from fs_notebook.types import TIME, Type

_HASH, _NUMBER, _ROW = "__hash", "__number", "__row"
_NEW = {c: f"__new_{c.removeprefix('__')}" for c in POSITION_COLUMNS}
_STATE = "import.json"


def import_stream(
    log: EventLog,
    catalog: Catalog,
    source: str | Path,
    name: str | None,
    *,
    time_column: str | None,
    clock: Clock,
    on_progress: OnProgress,
) -> Transferred:
    """Append an export's events to a new stream; see `Session.import_stream`."""
    folder, manifest = opened(source)
    path = Path(source).expanduser()
    stream = _declaration(manifest, name, time_column)
    if stream.name == CATALOG.name or stream.name in catalog.refresh().views:
        raise NameTaken(f"{stream.name!r} is taken already.", remedy="--as another name")
    with files_written(path):
        mine = _place(path, log, stream)
        final = mine.with_name(f"{mine.name}.parquet")
        if final.exists():
            _check_same(pl.read_parquet_metadata(final), log, stream, manifest, final)
        else:
            _begin(log, catalog, stream, mine, manifest)
            _go_on(log, stream, manifest, folder, mine, clock, on_progress)
            _finish(mine, final, _notes(log, stream, manifest))
        if folder != path:
            shutil.rmtree(folder, ignore_errors=True)
    return Transferred(
        stream.name, path, manifest.rows, manifest.dead, manifest.digest, positions=final
    )


def _declaration(manifest: Manifest, name: str | None, time_column: str | None) -> Stream:
    """Return what the events are here: what lay beside a payload is in it now."""
    stream = replace(
        manifest.stream, name=name or manifest.stream.name, format="json", schema=None, meta=()
    )
    if time_column is None:
        return stream
    if stream.time is not None or time_column in stream.names:
        raise UsageError(
            "A column for the old event times is for streams that have none.",
            found=f"{stream.name!r} has {stream.time or time_column!r}",
            remedy="leave --time-column out",
        )
    columns = (*stream.columns, (time_column, Type.TIMESTAMP))
    return replace(stream, columns=columns, time=time_column)


def _place(path: Path, log: EventLog, stream: Stream) -> Path:
    """Return the folder beside an export where the import into this very ledger notes its way."""
    target = hashlib.sha256(f"{log.url} {stream.name}".encode()).hexdigest()[:12]
    return path.with_name(f"{path.name}.positions-{target}")


def _begin(log: EventLog, catalog: Catalog, stream: Stream, mine: Path, manifest: Manifest) -> None:
    state = mine / _STATE
    there = log.exists(stream.name)
    if state.exists():
        _check_same(json.loads(state.read_text()), log, stream, manifest, mine)
    else:
        if there and log.end(stream.name) != START:
            raise NameTaken(
                f"There is a stream {stream.name!r} with events already.",
                found=f"up to {log.end(stream.name)}",
                remedy="--as another name",
            )
        log.create(stream)
        mine.mkdir(parents=True, exist_ok=True)
        write_whole(state, json.dumps(_notes(log, stream, manifest)).encode())
    known = catalog.refresh().sources.get(stream.name)
    if known is None or known.stream != stream:
        catalog.record(DECLARED, stream.name, {"stream": stream.to_dict()})


def _notes(log: EventLog, stream: Stream, manifest: Manifest) -> dict[str, str]:
    identity = log.identity(stream.name) if log.exists(stream.name) else ""
    return {"identity": identity, "digest": manifest.digest}


def _check_same(
    noted: Mapping[str, str], log: EventLog, stream: Stream, manifest: Manifest, where: Path
) -> None:
    """Refuse to go on where the notes are of another stream or another export."""
    if any(noted.get(k) != v for k, v in _notes(log, stream, manifest).items()):
        raise UsageError(
            f"What was imported to {stream.name!r} before is not there, or was another export.",
            found=f"notes in {where.name}",
            remedy="--as another name, or remove these notes",
        )


def _go_on(
    log: EventLog, stream: Stream, manifest: Manifest, folder: Path, mine: Path, clock: Clock,
    on_progress: OnProgress,
) -> None:  # fmt: skip
    begun_s = clock.monotonic_s()
    cut, done, earlier = START, 0, 0
    try:
        for number, part in enumerate(manifest.parts):
            noted = mine / f"map-{number:06d}.parquet"
            if noted.exists():
                cut = cut.advanced(_ends(pl.read_parquet(noted)))
                done += part.rows
                earlier = done
                continue
            exported = part.read(folder)
            with interrupts_held():
                mapped = _appended(log, stream, exported, cut)
                buffer = io.BytesIO()
                mapped.write_parquet(buffer)
                write_whole(noted, buffer.getvalue())
            cut = cut.advanced(_ends(mapped))
            done += part.rows
            elapsed_s = clock.monotonic_s() - begun_s
            share = (done - earlier) / max(manifest.rows - earlier, 1)
            on_progress(Progress(share, done - earlier, elapsed_s, "importing"))
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: {done:,} of {manifest.rows:,} events are in {stream.name!r}."
            "\n  Try: run it again: it goes on from there"
        ) from None
    if log.end(stream.name) != cut:
        raise _others(stream, "more events than were imported")


def _appended(log: EventLog, stream: Stream, exported: pl.DataFrame, cut: Cut) -> pl.DataFrame:
    """Append what of a part is not there behind `cut`; return its positions, old and new."""
    rows = _rows(stream, exported)
    mine = _hashes(rows)
    there = _matched(log, stream, mine, cut)
    missing = mine.with_row_index(_ROW).join(there, on=_ROW, how="anti", maintain_order="left")
    if missing.height:
        log.append(stream, rows[missing[_ROW]])
        there = _matched(log, stream, mine, cut)
    if there.height != rows.height:
        raise _others(stream, f"{there.height:,} of {rows.height:,} events read back as written")
    order = there.sort(_ROW)
    renamed = order.select(pl.col(c).alias(new) for c, new in _NEW.items())
    old = exported.select(*POSITION_COLUMNS, PUBLISHED, TIME)
    return pl.concat([old, renamed], how="horizontal")


def _rows(stream: Stream, exported: pl.DataFrame) -> pl.DataFrame:
    if stream.time is not None:
        # An event without a time of its own keeps the one that it was read with.
        column = pl.col(stream.time) if stream.time in exported.columns else pl.lit(None)
        time = pl.coalesce(column, pl.col(TIME)).alias(stream.time)
        exported = exported.with_columns(time)
    return exported.select(stream.names)


def _hashes(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.struct(pl.all()).hash().alias(_HASH))


def _numbered(hashes: pl.DataFrame) -> pl.DataFrame:
    """Return the hashes, and the how-manieth of its kind each is, from 1."""
    return hashes.with_columns(pl.col(_HASH).cum_count().over(_HASH).alias(_NUMBER))


def _matched(log: EventLog, stream: Stream, mine: pl.DataFrame, cut: Cut) -> pl.DataFrame:
    """Return the new positions of the events behind `cut`, with the number of each in the part.

    Raises
    ------
    ConflictError
        If there are others among them, or if those of a partition are in another order.
    """
    end = log.end(stream.name)
    if end == cut:
        return pl.DataFrame(schema={_ROW: pl.UInt32, **dict.fromkeys(POSITION_COLUMNS, pl.Int64)})
    batches = list(log.read(stream, start=cut, end=end))
    if any(b.dead for b in batches):
        raise _others(stream, "events that cannot be decoded")
    rows = pl.concat([b.rows.select(stream.names) for b in batches])
    positions = pl.concat([b.positions() for b in batches])
    hashes = _hashes(rows)
    if hashes.equals(mine.head(rows.height)):
        # As they were appended: there is nothing to look for.
        return positions.with_row_index(_ROW).select(_ROW, *POSITION_COLUMNS)
    found = pl.concat([_numbered(hashes), positions], how="horizontal").join(
        _numbered(mine).with_row_index(_ROW),
        on=[_HASH, _NUMBER],
        how="left",
        maintain_order="left",
    )
    if found[_ROW].null_count():
        raise _others(stream, f"{found[_ROW].null_count():,} other events among them")
    ordered = found.select(
        pl.col(_ROW).cast(pl.Int64).diff().over(POSITION_COLUMNS[0]).fill_null(1) > 0
    ).to_series()
    # Events without a key go around the partitions, where no order is theirs.
    if (stream.key or positions[POSITION_COLUMNS[0]].n_unique() == 1) and not ordered.all():
        raise _others(stream, "events in another order")
    return found.select(_ROW, *POSITION_COLUMNS)


def _ends(mapped: pl.DataFrame) -> list[Position]:
    names = list(_NEW.values())
    last = mapped.select(names).sort(names).group_by(names[0], maintain_order=True).last()
    return [Position(*map(int, row)) for row in last.iter_rows()]


def _others(stream: Stream, found: str) -> ConflictError:
    return ConflictError(
        f"Stream {stream.name!r} does not hold what is being imported, and nothing else.",
        found=found,
        remedy="let nobody else write to it meanwhile; import it anew --as another name",
    )


def _finish(mine: Path, final: Path, notes: dict[str, str]) -> None:
    """Make one file of the positions that were noted part by part."""
    maps = sorted(mine.glob("map-*.parquet"))
    empty = pl.LazyFrame(schema=dict.fromkeys(POSITION_COLUMNS, pl.Int64))
    frame = pl.scan_parquet(maps, glob=False) if maps else empty
    made = mine / "positions"
    frame.sink_parquet(made, metadata=notes)
    made.replace(final)
    shutil.rmtree(mine)
