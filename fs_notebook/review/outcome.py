"""What an export wrote, and what an import would change or has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fs_notebook.errors import plain

NEW, CHANGED, SAME, REFUSED = "new", "changed", "same", "refused"


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    written, same, removed
        Files that were written, that were right already, and that were of what is gone.
    """

    folder: Path
    written: tuple[str, ...]
    same: int
    removed: tuple[str, ...]

    def __repr__(self) -> str:
        lines = [f"{self.folder}: {len(self.written)} files written, {self.same} as they were"]
        lines += [f"  removed {name}" for name in self.removed]
        return "\n".join(lines)


@dataclass(frozen=True)
class Step:
    """What an import does to one thing.

    Attributes
    ----------
    action
        ``"new"``, ``"changed"``, ``"same"`` or ``"refused"``.
    words
        What changes, or why it is refused, a sentence each.
    lines
        A diff of the texts.
    """

    kind: str
    name: str
    action: str
    words: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def __repr__(self) -> str:
        told = [f"{self.action} {self.kind} {self.name}", *(f"  {w}" for w in self.words)]
        told += [f"    {line}" for line in self.lines]
        return "\n".join(plain(line) for said in told for line in said.split("\n"))


@dataclass(frozen=True)
class Imported:
    """What an import would change (`applied` is False), or has changed."""

    folder: Path
    steps: tuple[Step, ...]
    applied: bool

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(s for s in self.steps if s.action in (NEW, CHANGED))

    @property
    def refused(self) -> tuple[Step, ...]:
        """What cannot be imported."""
        return tuple(s for s in self.steps if s.action == REFUSED)

    def __repr__(self) -> str:
        counts = Counter(s.action for s in self.steps)
        told = ", ".join(f"{counts[a]} {a}" for a in (NEW, CHANGED, SAME, REFUSED) if counts[a])
        done = "applied" if self.applied else "nothing is applied yet"
        if not self.changes and not self.refused:
            done = "nothing to change"
        lines = [repr(s) for s in self.steps if s.action != SAME]
        return "\n".join([*lines, f"{self.folder}: {told or 'no file'}; {done}"])
