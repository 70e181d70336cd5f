"""What a session does with streams: a part of the Python API, on its own for its length."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fs_notebook.catalog import Catalog
from fs_notebook.compute.preview import OnProgress, silent
from fs_notebook.inspection import Description, Inspection, Overview, Peek
from fs_notebook.log.protocol import Stream
from fs_notebook.position import Position
from fs_notebook.sources import Sources
from fs_notebook.views import Uploaded


class StreamCalls:
    """The methods of a `Session` that act on streams."""

    catalog: Catalog
    _sources: Sources
    _inspection: Inspection

    def upload(
        self,
        data: Any,
        stream: str,
        *,
        time: str | None = None,
        key: str | Sequence[str] = (),
        partitions: int = 1,
        once: bool = False,
        table: bool = False,
        id: str | None = None,
        on_progress: OnProgress = silent,
    ) -> Uploaded:
        """Append events to a stream, declared by the first upload.

        Parameters
        ----------
        data
            A polars, pandas or Arrow table, a list of dicts, or the path of a Parquet, CSV,
            NDJSON or Arrow file of any size, of a folder of them, or a pattern: ``logs/*.csv``.
        stream
            The stream's name.
        time
            The column of event times; may be left out where only one column holds times.
        key
            The columns that route an event to its partition.
        once
            Append no table and no file of the very same content again: a notebook's cell may then
            be run again, and goes on where it was interrupted or killed.
        id
            The column that tells one event from another: rows whose id is in the stream already
            are skipped and counted. Declared once, it holds for all later uploads. The same event
            has the same event time; only that stretch of history is compared.

        Raises
        ------
        UsageError
            If the data does not fit the stream. Nothing is appended then, but of files that
            turn out so only when their later rows are read; the message says how far it came.
        """
        return self._sources.upload(
            data, stream, time=time, key=key, partitions=partitions, once=once, table=table,
            id=id, on_progress=on_progress,
        )  # fmt: skip

    append = upload

    def source(self, name: str) -> Stream:
        """Return a stream's declaration; one that is only in the ledger is looked at first."""
        return self._sources.find(name)

    def peek(
        self,
        name: str,
        n: int = 10,
        *,
        newest: bool = False,
        at: str | Position | None = None,
        since: str | datetime | None = None,
    ) -> Peek:
        """Return some of a stream's events, with their positions and publish times.

        Parameters
        ----------
        n
            How many, 1 to 10,000.
        newest
            The last ones; default: the first.
        at
            Those from this position on, ``"0:0:41:0"``.
        since
            Those whose event time is at or after this one, UTC unless it says.

        Raises
        ------
        UnknownName, UnknownPosition
            If there is no such stream or position.
        """
        return self._inspection.peek(name, n, newest=newest, at=at, since=since)

    def describe(self, name: str) -> Description:
        """Return what is known of a stream: schema, size, retention, times, dead letters."""
        return self._inspection.describe(name)

    def overviews(self) -> list[Overview]:
        """Return the declared streams with what the ledger knows of them at once, by name."""
        return self._inspection.overviews(self.streams())

    def streams(self) -> list[Stream]:
        """Return the declared streams, by name."""
        return [s.stream for _, s in sorted(self.catalog.refresh().sources.items())]
