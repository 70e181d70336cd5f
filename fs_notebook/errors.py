"""One error base. Each error says what was wrong, what was found, and what to do."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


class FeatureStoreError(Exception):
    """The base of every error that this package raises on purpose.

    Parameters
    ----------
    message
        What is wrong, in one sentence that names the thing.
    found
        What was found instead, where that helps.
    remedy
        What to do about it.
    """

    def __init__(
        self, message: str, *, found: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.message]
        if self.found:
            parts.append(f"Found: {self.found}")
        if self.remedy:
            parts.append(f"Try: {self.remedy}")
        return "\n  ".join(parts)

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a cell: the user's own lines, then the message.

        The frames inside this package and the libraries under it say nothing to who made the
        mistake; they are there for a debugger and in every other traceback.
        """
        own = [f for f in traceback.extract_tb(self.__traceback__) if not _is_library(f.filename)]
        lines = [f"line {f.lineno}: {f.line}" for f in own if f.line]
        return [*lines, f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__ | {"message": self.message}))


def _is_library(filename: str) -> bool:
    paths = sysconfig.get_paths()
    libraries = [Path(paths[k]) for k in ("stdlib", "platstdlib", "purelib", "platlib")]
    return not {_PACKAGE, *libraries}.isdisjoint(Path(filename).parents)


def _rebuild(kind: type[FeatureStoreError], fields: dict[str, object]) -> FeatureStoreError:
    error = kind.__new__(kind)
    Exception.__init__(error, fields["message"])
    error.__dict__.update(fields)
    return error


class UsageError(FeatureStoreError):
    """An argument or option that cannot be used as given."""


class DefinitionError(FeatureStoreError):
    """A definition that cannot be folded; points into its text where it can."""

    def __init__(
        self,
        message: str,
        *,
        found: str | None = None,
        remedy: str | None = None,
        line: int | None = None,
        column: int | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message, found=found, remedy=remedy)
        self.line = line
        self.column = column
        self.text = text

    def __str__(self) -> str:
        base = super().__str__()
        if self.line is None or self.text is None:
            return base
        lines = self.text.splitlines()
        if not 1 <= self.line <= len(lines):
            return base
        shown = lines[self.line - 1]
        caret = " " * max((self.column or 1) - 1, 0) + "^"
        prefix = f"  line {self.line}: "
        return f"{base}\n{prefix}{shown}\n{' ' * len(prefix)}{caret}"


class UnknownName(FeatureStoreError):
    """A stream, column, feature or version that is not there; near names are suggested."""


class NameTaken(FeatureStoreError):
    """A name that already means something else."""


class NotCaughtUp(FeatureStoreError):
    """A worker that was waited for has not folded all that it was to; it goes on."""


class UnreachableError(FeatureStoreError):
    """A broker or a store that does not answer."""


class PositionError(FeatureStoreError):
    """The base of errors about positions in the log."""


class HistoryLost(PositionError):
    """Events that a reader still needs were removed from the log."""


class UnknownPosition(PositionError):
    """A position that this log never had, or does not have yet."""


class StreamChanged(PositionError):
    """The stream is another one than before under the same name."""


class OverflowInFold(FeatureStoreError):
    """An integer that does not fit 64 bits, or a decimal with more digits than its type."""


class FencedError(FeatureStoreError):
    """Another worker owns this share now; nothing was written."""


class StalePosition(FeatureStoreError):
    """The stored position is not the expected one; nothing was written."""


class IntegrityError(FeatureStoreError):
    """Stored state that does not match its checksum or its position."""


class UnreadableEntry(FeatureStoreError):
    """An entry of the catalog that this version cannot read; all others can be."""


class ConflictError(FeatureStoreError):
    """Somebody else changed the same thing first."""


class CancelledError(FeatureStoreError):
    """The user interrupted a long piece of work; nothing was half done."""


class Interrupted(KeyboardInterrupt):
    """The user's interrupt of work that had left something behind; it says what.

    It is no `FeatureStoreError`, so that whoever interrupts a script ends it as ever.
    """


def plain(text: str) -> str:
    """Return text as one line that steers no terminal: people wrote what is in it."""
    return "".join(c if c.isprintable() else "\ufffd" if c != "\n" else " " for c in text)


def plain_lines(text: str) -> str:
    """Return text whose lines are ours, as one that steers no terminal."""
    return "\n".join(map(plain, text.split("\n")))


def near_names(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to `count` of `known` that look like `name`, best first."""
    name, known = str(name), list(known)
    folded = {k.casefold(): k for k in reversed(known)}
    hits = difflib.get_close_matches(name.casefold(), folded, n=count, cutoff=0.55)
    return [folded[h] for h in hits]


def unknown_name(kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> UnknownName:
    """Build the error for a `kind` (stream, column, feature …) called `name` that is not there."""
    known = sorted(set(known))
    near = near_names(name, known)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else remedy
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return UnknownName(
        f"There is no {kind} named {name!r}.",
        found=f"there are {shown}" if known else "there is none at all",
        remedy=hint or None,
    )
