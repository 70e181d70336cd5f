"""One partition of a stream, as a log of its own: what one share of a feature's workers reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fs_notebook.log.protocol import Batch, EventLog, Stream
from fs_notebook.position import Cut


class PartLog:
    """An `EventLog` of which every stream seems to have one partition only.

    Parameters
    ----------
    log
        Where the streams are.
    partition
        The partition's number, which its positions keep.
    """

    def __init__(self, log: EventLog, partition: int) -> None:
        self.url = log.url
        self.partition = partition
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def end(self, name: str) -> Cut:
        """Return the cut behind the partition's newest event."""
        return self._only(self._log.end(name))

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first event of the partition lies that is left."""
        return self._only(self._log.beginning(name, self.partition))

    def read(self, stream: Stream, *, start: Cut, end: Cut, **options: Any) -> Iterator[Batch]:
        """Yield the partition's events in (start, end]; see `EventLog.read`."""
        return self._log.read(stream, start=self._only(start), end=self._only(end), **options)

    def tail(self, stream: Stream, *, start: Cut, **options: Any) -> Iterator[Batch | None]:
        """Yield the partition's events after `start`; see `EventLog.tail`."""
        return self._log.tail(stream, start=self._only(start), only=self.partition, **options)

    def _only(self, cut: Cut) -> Cut:
        return Cut(tuple(p for p in cut if p.partition == self.partition))
