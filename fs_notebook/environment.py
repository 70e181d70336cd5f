"""Settings and secrets that are taken from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from fs_notebook.errors import UsageError


def setting(name: str) -> str | None:
    """Return what a variable holds; None where it is empty or not there."""
    return os.environ.get(name) or None


def secret(name: str) -> str | None:
    """Return the secret that a variable holds, or the file that it names: ``file:PATH``.

    Raises
    ------
    UsageError
        If that file cannot be read.
    """
    text = setting(name)
    if text is None or not text.startswith("file:"):
        return text
    try:
        return Path(text.removeprefix("file:").removeprefix("//")).read_text().strip()
    except OSError as error:
        raise UsageError(f"The file that {name} names cannot be read.", found=str(error)) from None
