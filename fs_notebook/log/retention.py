"""The warning that a stream's events may not be kept for ever."""

from __future__ import annotations

import warnings


class RetentionWarning(UserWarning):
    """A stream's events may not be kept for ever, since nobody could see to it."""


def warn_retention(why: str, command: str) -> None:
    """Warn the caller's caller, with the command that keeps the events."""
    warnings.warn(
        f"Events may be removed after a while: {why}. To keep them for ever, run: {command}",
        RetentionWarning,
        stacklevel=3,
    )
