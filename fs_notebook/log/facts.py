"""What a ledger knows of a stream without reading its events."""

from __future__ import annotations

from dataclasses import dataclass

from fs_notebook.types import Type

KEPT = "for ever"
"""How long events are kept that are never removed."""


@dataclass(frozen=True)
class Drift:
    """How the newest schema of a topic differs from a stream's declaration.

    Attributes
    ----------
    added
        Columns that are not declared, and their types.
    removed
        Declared columns that a former schema had and the newest one has not.
    changed
        Columns of another type: the declared one and the newest one.
    """

    added: tuple[tuple[str, Type], ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[tuple[str, Type, Type], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True)
class Facts:
    """What is known of a stream at once; None where it is not.

    Attributes
    ----------
    events
        How many there are.
    entries
        How many batches of events are stored.
    stored_bytes
        Their size.
    first_us, last_us
        The least and the greatest event time, microseconds since the epoch.
    kept
        How long events are kept, in words.
    offloaded_share
        The share of the bytes that lies in tiered storage, from 0 to 1.
    partitions
        How many there really are, whatever the declaration asked for.
    keep
        The command that would keep events for ever, where they are not.
    """

    events: int | None = None
    entries: int | None = None
    stored_bytes: int | None = None
    first_us: int | None = None
    last_us: int | None = None
    kept: str | None = None
    offloaded_share: float | None = None
    partitions: int | None = None
    keep: str | None = None

    @property
    def limit(self) -> str | None:
        """How long events are kept, in words; None where that is for ever, or not known."""
        return None if self.kept == KEPT else self.kept
