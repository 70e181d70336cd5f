"""Settings and secrets that are taken from the environment, or from where it says they are."""

from __future__ import annotations

import os
from pathlib import Path

from fs_notebook.errors import UsageError


def setting(name: str) -> str | None:
    """Return what a variable holds; None where it is empty or not there."""
    return os.environ.get(name) or None


def secret(name: str) -> str | None:
    """Return the secret that a variable holds, or that lies where it says.

    ``file:PATH`` names a file, ``keyring:SERVICE/USER`` an entry of the machine's keyring (needs
    the extra ``keyring``). What the processes that are started inherit is the name, not the secret.

    Raises
    ------
    UsageError
        If there is nothing, or it cannot be read.
    """
    text = setting(name)
    if text is not None and text.startswith("file:"):
        return _of_file(name, text.removeprefix("file:").removeprefix("//"))
    if text is not None and text.startswith("keyring:"):
        return _of_keyring(name, text.removeprefix("keyring:"))
    return text


def _of_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The file that {name} names cannot be read.", found=str(error)) from None


def _of_keyring(name: str, entry: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise UsageError(
            f"{name} names an entry of the keyring, for which the package keyring is needed.",
            remedy="pip install 'fs-notebook[keyring]'",
        ) from None
    service, _, user = entry.rpartition("/")
    try:
        found = keyring.get_password(service, user) if service and user else None
    except KeyringError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError("This machine's keyring cannot be read.", found=reason) from None
    if found is None:
        raise UsageError(
            f"The keyring has no such entry as {name} names.",
            found=f"keyring:{entry}",
            remedy=f"keyring:SERVICE/USER; python -m keyring set {service or 'SERVICE'} "
            f"{user or 'USER'} makes one",
        )
    return str(found)
