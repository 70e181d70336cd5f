"""A stream to a folder of Parquet parts, or to one archive of them."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import polars as pl

from fs_notebook.catalog.catalog import STREAM as CATALOG
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Progress
from fs_notebook.errors import FeatureStoreError, Interrupted, UsageError
from fs_notebook.log.protocol import PUBLISHED, Batch, EventLog, Stream
from fs_notebook.position import Way
from fs_notebook.processes import interrupts_held
from fs_notebook.transfer.manifest import (
    ARCHIVE,
    MANIFEST,
    Manifest,
    Part,
    Transferred,
    digest_of_bytes,
    write_whole,
)

PART_ROWS = 200_000


def export_stream(
    log: EventLog, stream: Stream, target: str | Path, *, clock: Clock, on_progress: OnProgress
) -> Transferred:
    """Write a stream's events up to its present end; see `Session.export_stream`."""
    if stream.name == CATALOG.name:
        raise UsageError(f"{stream.name!r} is the catalog's own stream.", remedy="another stream")
    path = Path(target).expanduser()
    archive = path.suffix == ARCHIVE
    if archive and path.exists():
        raise UsageError(f"{path.name!r} is there already.", remedy="another name")
    folder = path.with_name(f"{path.name}.parts") if archive else path
    with files_written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _begun(log, stream, folder)
        manifest = _go_on(log, manifest, folder, clock, on_progress)
        if archive:
            _pack(folder, path, manifest)
    return Transferred(stream.name, path, manifest.rows, manifest.dead, manifest.digest)


@contextmanager
def files_written(folder: Path) -> Iterator[None]:
    """Say that files could not be written; what was written before stays."""
    try:
        yield
    except OSError as error:
        raise FeatureStoreError(
            f"{folder.name!r} cannot be written to or read.",
            found=error.strerror or str(error),
            remedy="make room or choose another place, then run it again: it goes on from there",
        ) from None


def _begun(log: EventLog, stream: Stream, folder: Path) -> Manifest:
    """Return what is in the folder already of this very stream, or begin."""
    source = f"{urlsplit(log.url).scheme} {log.identity(stream.name)}"
    manifest = Manifest.read(folder)
    if manifest is not None:
        if manifest.source != source or manifest.stream.name != stream.name:
            raise UsageError(
                f"The folder {folder.name!r} holds another export.",
                found=f"of {manifest.stream.name!r}",
                remedy="another folder, or remove that one",
            )
        return manifest
    if others := [p.name for p in sorted(folder.iterdir())]:
        raise UsageError(
            f"The folder {folder.name!r} is not empty.",
            found=", ".join(others[:5]),
            remedy="an empty or a new one",
        )
    manifest = Manifest(stream, source, log.end(stream.name))
    manifest.write(folder)
    return manifest


def _go_on(
    log: EventLog, manifest: Manifest, folder: Path, clock: Clock, on_progress: OnProgress
) -> Manifest:
    begun_s = clock.monotonic_s()
    before = manifest.rows
    way = Way(manifest.end)
    stream = manifest.stream
    batches = log.read(
        stream, start=manifest.at, end=manifest.end, columns=[*stream.names, PUBLISHED],
        rows_max=PART_ROWS,
    )  # fmt: skip
    try:
        with closing(cast(Any, batches)):
            for batch in batches:
                with interrupts_held():
                    manifest = _written(batch, manifest, folder)
                share = way.share(manifest.at)
                elapsed_s = clock.monotonic_s() - begun_s
                on_progress(Progress(share, manifest.rows - before, elapsed_s, "exporting"))
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: {manifest.rows:,} events of {stream.name!r} are exported."
            "\n  Try: run it again: it goes on from there"
        ) from None
    return manifest


def _written(batch: Batch, manifest: Manifest, folder: Path) -> Manifest:
    part = None
    if batch.rows.height:
        rows = pl.concat([batch.positions(), batch.rows], how="horizontal")
        file = f"part-{len(manifest.parts):06d}.parquet"
        buffer = io.BytesIO()
        rows.write_parquet(buffer)
        write_whole(folder / file, buffer.getvalue())
        part = Part(file, rows.height, digest_of_bytes(folder / file))
    letters = [(str(d.position), d.reason) for d in batch.dead]
    manifest = manifest.grown(part, manifest.at.advanced([batch.end]), letters)
    manifest.write(folder)
    return manifest


def _pack(folder: Path, path: Path, manifest: Manifest) -> None:
    packed = path.with_name(f"{path.name}.packing")
    with tarfile.open(packed, "w") as archive:
        for name in (MANIFEST, *(p.file for p in manifest.parts)):
            archive.add(folder / name, arcname=name)
    packed.replace(path)
    shutil.rmtree(folder)


def opened(source: str | Path) -> tuple[Path, Manifest]:
    """Return the folder of an export and what it holds; an archive is unpacked beside itself.

    Raises
    ------
    UsageError
        If it is no export, or not a whole one.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise UsageError(f"There is no export {path.name!r}.", remedy="check the path")
    folder = path
    with files_written(path):
        if path.is_file():
            folder = path.with_name(f"{path.name}.import")
            if Manifest.read(folder) is None:
                _unpack(path, folder)
        manifest = Manifest.read(folder)
    if manifest is None:
        raise UsageError(
            f"{path.name!r} is no export of a stream.",
            found=f"no {MANIFEST} in it",
            remedy="fs-notebook log export STREAM FOLDER makes one",
        )
    if not manifest.whole:
        raise UsageError(
            f"The export {path.name!r} is not whole.",
            found=f"{manifest.rows:,} events up to {manifest.at}, of those up to {manifest.end}",
            remedy="run the export again: it goes on from there",
        )
    return folder, manifest


def _unpack(path: Path, folder: Path) -> None:
    fresh = folder.with_name(f"{folder.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        with tarfile.open(path) as archive:
            archive.extractall(fresh, filter="data")
    except tarfile.TarError as error:
        raise UsageError(
            f"{path.name!r} is no export of a stream.", found=str(error), remedy="check the path"
        ) from None
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
