"""Streams: declared by their first upload, or by a look at what the ledger has already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.catalog import STREAM as CATALOG
from fs_notebook.catalog.model import DECLARED
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress
from fs_notebook.errors import NameTaken, UnknownName, UsageError
from fs_notebook.ingest import declare, fit, time_column, to_frame, with_time
from fs_notebook.keys import proposed_key
from fs_notebook.log.facts import Facts
from fs_notebook.log.frames import check_stream
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.log.retention import warn_retention
from fs_notebook.types import conform
from fs_notebook.uploads import Appender, FramePiece, Piece, declared_by, file_pieces
from fs_notebook.views import Uploaded

UPLOAD_ROWS_MAX = 200_000
"""One part of an upload: what an interrupt waits for."""


class Sources:
    """What puts events into streams and finds their declarations. `Session` documents each call."""

    def __init__(self, catalog: Catalog, log: EventLog, *, clock: Clock) -> None:
        self.catalog = catalog
        self.log = log
        self.clock = clock
        self._minded: set[str] = set()

    def upload(
        self,
        data: Any,
        stream: str,
        *,
        time: str | None,
        key: str | Sequence[str],
        partitions: int,
        once: bool,
        table: bool,
        id: str | None,
        on_progress: OnProgress,
    ) -> Uploaded:
        """Append events to a stream, declared by the first upload."""
        begun_s = self.clock.monotonic_s()
        if stream == CATALOG.name:
            raise UsageError(
                f"{stream!r} is the catalog's own stream.", remedy="another name for this one"
            )
        if stream in self.catalog.refresh().views:
            raise NameTaken(f"{stream!r} is a view.", remedy="another name for the stream")
        files = file_pieces(data) if isinstance(data, (str, Path)) else []
        frame = pl.DataFrame() if files else to_frame(data)
        known = self._known(stream)
        created = known is None
        if not created:
            self.mind_retention(stream)
        if known is None:
            keys = [key] if isinstance(key, str) else list(key)
            if table and (time is not None or not keys):
                raise UsageError(
                    "A table has a key and no event time.",
                    found=f"--time {time}" if time is not None else "no key",
                    remedy="--table --key COLUMN; or a stream with --time",
                )
            if files:
                known = declared_by(
                    files, stream, time=time, key=keys, partitions=partitions, table=table, id=id
                )
            else:
                time = None if table else time_column(frame, stream, time)
                frame = conform(with_time(frame, time))
                known = declare(frame, stream, time=time, key=keys, partitions=partitions, id=id)
            check_stream(known)
        elif time is not None and time != known.time:
            raise UsageError(
                f"The time column of {stream!r} is {known.time!r}.",
                found=f"--time {time}", remedy="leave it out, or upload to a new stream",
            )  # fmt: skip
        if id is not None:
            known = _identified(known, id)
        for file in files:
            file.into(known)
        pieces: Sequence[Piece] = files or [FramePiece(fit(frame, known))]
        if created:
            self.log.create(known)
            self._declare(known)
        elif self.catalog.refresh().source(stream).stream.id != known.id:
            self.catalog.record(DECLARED, stream, {"stream": known.to_dict()})
        appender = Appender(
            self.catalog, self.log, self.catalog.refresh().source(stream).stream,
            clock=self.clock, rows_max=UPLOAD_ROWS_MAX, on_progress=on_progress,
        )  # fmt: skip
        done = appender.run(pieces, once=once)
        again = done.pieces_repeated if files else 0
        sample = files[0].sample if files else frame
        no_key = created and not known.key and not table
        return Uploaded(
            stream, done.rows, self.clock.monotonic_s() - begun_s, str(self.log.end(stream)),
            created, done.repeated, done.before, files=len(files), files_repeated=again,
            known=done.known, id=known.id,
            key=proposed_key(sample, but=(known.time, known.id)) if no_key else None,
        )  # fmt: skip

    def _known(self, stream: str) -> Stream | None:
        """Return a stream's declaration, one in the ledger only included; None where it is new."""
        known = self.catalog.refresh().sources.get(stream)
        if known is None and self.log.exists(stream):
            return self._adopt(stream)
        return None if known is None else known.stream

    def _declare(self, stream: Stream) -> None:
        self.catalog.record(
            DECLARED, stream.name, {"stream": stream.to_dict()},
            check=lambda state: stream.name not in state.sources,
        )  # fmt: skip

    def _adopt(self, name: str) -> Stream:
        """Declare a stream that is in the ledger already, by a look at its events."""
        infer: Callable[[str], Stream] = cast(Any, self.log).infer_stream
        stream = infer(name)
        self._declare(stream)
        self.mind_retention(name)
        return stream

    def mind_retention(self, name: str) -> None:
        """Warn, once for each stream, if events of one that was there before may be removed.

        Warns
        -----
        RetentionWarning
            With the command that keeps them for ever.
        """
        facts: Callable[[str], Facts] | None = getattr(self.log, "facts", None)
        if facts is None or name in self._minded:
            return
        self._minded.add(name)
        told = facts(name)
        if told.limit is not None and told.keep is not None:
            warn_retention(f"{name!r} is kept {told.limit}", told.keep)

    def find(self, name: str) -> Stream:
        """Return a stream's declaration; one that is only in the ledger is looked at first."""
        state = self.catalog.refresh()
        if name not in state.sources and self.log.exists(name):
            return self._adopt(name)
        return state.source(name).stream

    def labels(self, labels: Any) -> Any:
        """Return the table of labels that a file's path or a table stands for."""
        if isinstance(labels, (str, Path)) and not Path(labels).suffix:
            raise UnknownName(
                f"There is no stream of labels named {str(labels)!r}.",
                found=", ".join(sorted(self.catalog.refresh().sources)) or "no streams",
                remedy="a stream, a file, a table, or SELECT … FROM stream",
            )
        return to_frame(labels) if isinstance(labels, (str, Path)) else labels


def _identified(stream: Stream, id: str) -> Stream:
    """Return the stream with the column of ids declared; what is declared once stays so."""
    if stream.id not in (None, id):
        raise UsageError(
            f"The ids of {stream.name!r} are in {stream.id!r}.",
            found=f"--id {id}", remedy="leave it out, or upload to a new stream",
        )  # fmt: skip
    identified = replace(stream, id=id)
    check_stream(identified)
    return identified
