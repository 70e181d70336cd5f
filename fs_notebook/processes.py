"""Processes that outlive whoever starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def start_detached(
    command: Sequence[str], *, log: Path, folder: Path, env: Mapping[str, str]
) -> None:
    """Start `command` in a session of its own, its output appended to `log`.

    A shell in between starts it and ends at once, so that it belongs to the system's first
    process: it gets no signal meant for the kernel or the terminal, and no zombie is left when
    it ends before its starter.
    """
    with log.open("ab") as sink:
        subprocess.run(
            ["/bin/sh", "-c", '"$0" "$@" &', *command],
            check=True, start_new_session=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            cwd=folder, env=dict(env),
        )  # fmt: skip
