"""The warning that a stream's events may not be kept for ever."""

from __future__ import annotations

import sys
import warnings

_OURS = ("fs_notebook", "IPython", "ipykernel")


class RetentionWarning(UserWarning):
    """A stream's events may not be kept for ever, since nobody could see to it."""


def keeping(topic: str) -> str:
    """Return the command that keeps a topic's events for ever."""
    return f"pulsar-admin topics set-retention --time -1 --size -1 {topic}"


def warn_retention(why: str, command: str) -> None:
    """Warn whoever called this package, with the command that keeps the events."""
    warnings.warn(
        f"Events may be removed after a while: {why}. To keep them for ever, run: {command}",
        RetentionWarning,
        stacklevel=_caller(),
    )


def _caller() -> int:
    """Return how far up the user's own line is: in a notebook, that of the cell."""
    level, frame = 1, sys._getframe(2)
    while frame.f_back is not None:
        level += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _OURS:
            break
        frame = frame.f_back
    return level
