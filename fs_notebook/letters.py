"""The events of a stream that could not be read: how many, where they lie, and why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import polars as pl

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import DeadLetter, EventLog, Stream
from fs_notebook.position import START

LETTERS_MAX = 1_000
_SHOWN = 10
_TEXT_MAX = 80


@dataclass(frozen=True)
class DeadLetters:
    """A stream's dead letters, the newest of them in full.

    Attributes
    ----------
    stream
        Its name.
    total, events
        How many there are, and how many good events beside them.
    letters
        The newest, oldest first: position, reason, and the payload as it was sent.
    """

    stream: str
    total: int
    events: int
    letters: tuple[DeadLetter, ...]

    def to_polars(self) -> pl.DataFrame:
        """Return `letters` as a table: position, reason, payload (bytes)."""
        return pl.DataFrame(
            {
                "position": [str(d.position) for d in self.letters],
                "reason": [d.reason for d in self.letters],
                "payload": [d.payload for d in self.letters],
            },
            schema={"position": pl.String, "reason": pl.String, "payload": pl.Binary},
        )

    def rows(self) -> list[dict[str, str]]:
        """Return `letters` for display: payloads as text, shortened."""
        return [
            {"position": str(d.position), "reason": d.reason, "payload": shown(d.payload)}
            for d in self.letters
        ]

    def __repr__(self) -> str:
        if not self.total:
            return f"no dead letters in {self.stream}, {self.events:,} events"
        lines = [f"{self.total:,} dead letters in {self.stream}, beside {self.events:,} events"]
        last = self.rows()[-_SHOWN:]
        if len(last) < self.total:
            lines[0] += f"; the newest {len(last)}:"
        lines += [f"  {r['position']}  {r['reason']}  {r['payload']}" for r in last]
        return "\n".join(lines)


def shown(payload: bytes) -> str:
    """Return a payload as text that is safe to look at: what is no text as ``\\x…``."""
    text = payload[: 4 * _TEXT_MAX].decode("utf-8", errors="backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}… ({len(payload):,} bytes)"


def dead_letters(
    log: EventLog,
    stream: Stream,
    *,
    limit: int,
    on_progress: OnProgress = silent,
    clock: Clock = SYSTEM,
) -> DeadLetters:
    """Read a stream to its present end, and return what could not be read.

    Parameters
    ----------
    limit
        How many of the newest to keep, at most `LETTERS_MAX`.
    """
    if not 0 < limit <= LETTERS_MAX:
        raise UsageError(
            f"Between 1 and {LETTERS_MAX:,} dead letters can be shown.", found=str(limit)
        )
    begun_s = clock.monotonic_s()
    kept: deque[DeadLetter] = deque(maxlen=limit)
    total = events = 0
    for batch in log.read(stream, start=START, end=log.end(stream.name), columns=()):
        kept.extend(batch.dead)
        total += len(batch.dead)
        events += batch.rows.height
        on_progress(Progress(None, events + total, clock.monotonic_s() - begun_s, "reading"))
    return DeadLetters(stream.name, total, events, tuple(kept))
