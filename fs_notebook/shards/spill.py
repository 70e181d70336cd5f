"""Rows dealt out to shards on disk, in bounded memory, and read back a shard at a time.

All shards of one spill share one file of blocks, each the Arrow IPC bytes of rows of one shard,
so that thousands of shards take one file handle and writing is sequential.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import FeatureStoreError

BUFFER_BYTES = 32 * 2**20
"""Rows of one spill that wait in memory until they are written."""

_SHARD = "__shard"


def spill_folder() -> Path:
    """Return where spilled rows go: ``TMPDIR``, else the disk's own temporary folder.

    ``/tmp`` is memory on many machines, which is what spilling is to save.
    """
    on_disk = Path("/var/tmp")
    if "TMPDIR" not in os.environ and on_disk.is_dir() and os.access(on_disk, os.W_OK):
        return on_disk
    return Path(tempfile.gettempdir())


@contextmanager
def spilling() -> Iterator[Path]:
    """Give a folder for spills that is gone afterwards, whatever happens; name a full disk.

    Raises
    ------
    FeatureStoreError
        If the disk is full, or cannot be written to.
    """
    where = spill_folder()
    try:
        with tempfile.TemporaryDirectory(prefix="fs-notebook-", dir=where) as folder:
            yield Path(folder)
    except OSError as error:
        free = shutil.disk_usage(where).free / 1e9
        raise FeatureStoreError(
            f"Rows could not be put aside in {where}.",
            found=f"{error.strerror or error}; {free:.1f} GB are free there",
            remedy="TMPDIR=/a/larger/disk, before the notebook is started",
        ) from error


class Spill:
    """Rows by shard, in one file.

    Parameters
    ----------
    path
        The file to make.
    count
        How many shards there are.
    buffer_bytes
        Rows that wait until they are written.
    """

    def __init__(self, path: Path, count: int, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.count = count
        self._path = path
        self._buffer_bytes = buffer_bytes
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = 0
        self._blocks: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._size = 0
        self.rows = [0] * count
        self.bytes = [0] * count
        """Of each shard, as it is in memory."""

    def add(self, frame: pl.DataFrame, shards: npt.NDArray[np.int64]) -> None:
        """Take in rows, each of the shard beside it; within a shard they keep their order."""
        if not frame.height:
            return
        assert frame.height == shards.size
        self._waiting.append(frame.with_columns(pl.Series(_SHARD, shards)))
        self._waiting_bytes += int(frame.estimated_size())
        if self._waiting_bytes >= self._buffer_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        whole = pl.concat(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        ordered = whole.sort(_SHARD, maintain_order=True)
        del whole
        codes = ordered.get_column(_SHARD).to_numpy()
        ordered = ordered.drop(_SHARD)
        present = np.unique(codes)
        begins = np.searchsorted(codes, present, side="left")
        ends = np.searchsorted(codes, present, side="right")
        with self._path.open("ab") as file:
            for shard, begin, end in zip(present.tolist(), begins, ends, strict=True):
                rows = ordered.slice(int(begin), int(end - begin))
                length = file.write(to_block(rows))
                self._blocks[shard].append((self._size, length))
                self._size += length
                self.rows[shard] += rows.height
                self.bytes[shard] += int(rows.estimated_size())

    def blocks(self, shards: Sequence[int]) -> list[bytes]:
        """Return the blocks of some shards, one shard after the other, as their rows came in.

        So their order does not depend on when rows were written.
        """
        self.flush()
        places = [place for shard in shards for place in self._blocks[shard]]
        if not places:
            return []
        found = []
        with self._path.open("rb") as file:
            for offset, length in places:
                file.seek(offset)
                found.append(file.read(length))
        return found

    def frame(self, shards: Sequence[int]) -> pl.DataFrame | None:
        """Return the rows of some shards; None if there are none."""
        return from_blocks(self.blocks(shards))


def to_block(frame: pl.DataFrame) -> bytes:
    """Return the Arrow IPC bytes of a frame."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="lz4")
    return buffer.getvalue()


def from_blocks(blocks: Sequence[bytes]) -> pl.DataFrame | None:
    """Return the rows of blocks, one after the other; None if there are no blocks."""
    frames = [pl.read_ipc(io.BytesIO(b)) for b in blocks]
    return pl.concat(frames) if frames else None
