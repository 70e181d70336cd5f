"""What the catalog knows of streams and views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START, Cut


@dataclass(frozen=True)
class Upload:
    """How far an upload of one table or file came, noted as it went on.

    Attributes
    ----------
    at
        When this was noted.
    rows
        How many of its rows are dealt with, from the first on.
    whole
        Whether those are all.
    file
        The file's name, if it is one.
    chain
        A digest of those rows as they were given: what tells the same beginning in a file that
        was changed since.
    next, cut
        How many rows were about to be stored just then, and the stream's end before them: where
        to look for them if nothing was noted any more.
    """

    at: datetime
    rows: int
    whole: bool = False
    file: str | None = None
    chain: str = ""
    next: int = 0
    cut: Cut = START


@dataclass(frozen=True)
class Source:
    """A stream that was declared."""

    stream: Stream
    actor: str
    at: datetime
    description: str | None = None
    uploads: Mapping[str, Upload] = field(default_factory=dict)
    """Digest of what was uploaded `once` → how far that came."""


@dataclass(frozen=True)
class View:
    """A named row transform, kept as text; features inline it as it was when they were defined.

    `version` counts its texts, from 1.
    """

    name: str
    text: str
    source: str
    version: int
    actor: str
    at: datetime
    description: str | None = None
    polars: PolarsRows | None = None
    views: tuple[str, ...] = ()
    """The views that it reads, directly or not."""
    streams: tuple[str, ...] = ()
    """The streams, joined ones too."""

    @property
    def rows(self) -> str | PolarsRows:
        """What it says: SQL, or Polars as trees, whose text is for people alone."""
        return self.text if self.polars is None else self.polars


def upload_of(body: Mapping[str, Any], at: datetime) -> Upload:
    """Return the note that an event of the catalog tells of."""
    return Upload(
        at, body["rows"], body.get("whole", False), body.get("file"), body.get("chain", ""),
        body.get("next", 0), Cut.from_json(body.get("cut", "[]")),
    )  # fmt: skip
