"""What a session does with streams: a part of the Python API, on its own for its length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fs_notebook.catalog import Catalog
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, silent
from fs_notebook.declarations import Columns, Declarations, Wish
from fs_notebook.inspection import Description, Inspection, Overview, Peek
from fs_notebook.letters import DeadLetters, dead_letters
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import Position
from fs_notebook.sources import Sources
from fs_notebook.timelines import Timeline, timeline_of
from fs_notebook.transfer import Transferred, export_stream, import_stream
from fs_notebook.views import Uploaded


class StreamCalls:
    """The methods of a `Session` that act on streams."""

    catalog: Catalog
    log: EventLog
    clock: Clock
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

    def timeline(self, name: str, *, on_progress: OnProgress = silent) -> Timeline:
        """Return how a stream's events lie in time, from what can be read in a moment."""
        return timeline_of(
            self.log, self._sources.find(name), clock=self.clock, on_progress=on_progress
        )

    def overviews(self) -> list[Overview]:
        """Return the declared streams with what the ledger knows of them at once, by name."""
        return self._inspection.overviews(self.streams())

    def export_stream(
        self, name: str, target: str | Path, *, on_progress: OnProgress = silent
    ) -> Transferred:
        """Write a stream up to its present end to a folder, or to one ``.tar`` file.

        All events are there in order, each with its position, its publish and event time; beside
        them the declaration, counts and digests. Run again, it goes on where it was stopped.

        Raises
        ------
        UsageError
            If the folder holds something else.
        """
        return export_stream(
            self.log, self._sources.find(name), target, clock=self.clock, on_progress=on_progress
        )

    def import_stream(
        self,
        source: str | Path,
        name: str | None = None,
        *,
        time_column: str | None = None,
        on_progress: OnProgress = silent,
    ) -> Transferred:
        """Append an exported stream's events to a new stream of this ledger, in order.

        Each part is checked against its digest, appended, read back and compared; a Parquet file
        beside the export maps positions old to new, with the old publish times, since the new
        events are published now. Run again, it goes on where it was stopped.

        Parameters
        ----------
        source
            What `export_stream` wrote.
        name
            The new stream's name; default: the old one.
        time_column
            For a stream without a time column, whose events happened when they were published: a
            new column that keeps these times as event times.

        Raises
        ------
        NameTaken
            If there is a stream of that name with events already.
        IntegrityError
            If a part is not what was written.
        ConflictError
            If somebody else writes to the new stream meanwhile.
        """
        return import_stream(
            self.log, self.catalog, source, name, time_column=time_column, clock=self.clock,
            on_progress=on_progress,
        )  # fmt: skip

    def streams(self) -> list[Stream]:
        """Return the declared streams, by name."""
        return [s.stream for _, s in sorted(self.catalog.refresh().sources.items())]

    def declare(
        self,
        name: str,
        columns: Columns | None = None,
        *,
        time: str | None = None,
        key: str | Sequence[str] | None = None,
        partitions: int = 1,
        format: str | None = None,
        schema: str | bytes | Path | None = None,
        message: str | None = None,
        meta: Mapping[str, str] | None = None,
        json_only: bool | None = None,
        ahead: str | None = None,
    ) -> Stream:
        """Say what a stream is, where a look at it cannot tell; make it if it is not there.

        What is left out stays as it was declared, or as a look at the events tells. Versions of
        features keep the declaration that they were defined with.

        Parameters
        ----------
        columns
            Names and SQL types: ``{"user": "VARCHAR", "amount": "DOUBLE"}``.
        time
            The column of event times; "" for the message's own.
        key
            The columns that route an event to its partition.
        format
            How payloads are written: ``"json"``, ``"avro"`` or ``"protobuf"``.
        schema
            The schema of Avro or Protobuf payloads that the topic's registry does not have: a
            file (``order.avsc``, or a descriptor set), its bytes or its text.
        message
            The full name of the Protobuf message that an event is.
        meta
            Columns that lie beside the payload: column → ``"key"``, ``"property NAME"``,
            ``"event time"`` or ``"publish time"``.
        json_only
            Whether each event is written as a JSON message, for other readers of a topic. Large
            uploads go as Arrow batches otherwise, which are read twenty times faster.
        ahead
            A promise: no event's time lies further than that, ``"5 minutes"``, after the moment at
            which it, or any event behind it in its partition, was published. A slice by time
            then passes over what a broker has from long before. Events that break the promise
            may be missing from it; what is read is looked at, and warned of. "" takes it back.

        Raises
        ------
        UsageError
            If it cannot be so, or a feature reads a column that the stream would no longer have;
            nothing changes then.
        """
        keys = [key] if isinstance(key, str) else key
        wish = Wish(
            columns, time, keys, partitions, format, schema, message, meta, json_only, ahead
        )
        mind = self._sources.mind_retention
        return Declarations(self.catalog, self.log, mind_retention=mind).declare(name, wish)

    def dead_letters(
        self, stream: str, *, limit: int = 100, on_progress: OnProgress = silent
    ) -> DeadLetters:
        """Return the events of a stream that could not be read: how many, where, and why.

        Parameters
        ----------
        limit
            How many of the newest to return in full.
        """
        return dead_letters(
            self.log, self._sources.find(stream), limit=limit, on_progress=on_progress
        )
