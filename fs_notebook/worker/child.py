"""What a runner keeps of a worker process that it started."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.catalog import Version
from fs_notebook.position import Cut
from fs_notebook.worker.failures import Trouble

RESTART_SECONDS = 0.25


@dataclass
class Child:
    """A worker process that the runner started.

    Attributes
    ----------
    wait_s, due_s
        The next pause, and when the next start is due.
    begun_s, begun_at
        When the process was started, and the positions that the version's shards had then.
    trouble
        What it failed of, as long as it has not run well since.
    told
        Whether that is in the store.
    """

    version: Version
    process: subprocess.Popen[bytes] | None = None
    wait_s: float = RESTART_SECONDS
    due_s: float = 0.0
    begun_s: float = 0.0
    begun_at: Mapping[str, Cut | None] = field(default_factory=dict)
    fenced: bool = False
    starts: int = 0
    trouble: Trouble | None = None
    told: bool = False

    @property
    def failures(self) -> int:
        return 0 if self.trouble is None else self.trouble.failures


def at_work(health: Mapping[str, Any] | None, pid: int) -> bool:
    """Tell whether a process reports that it gets on."""
    health = health or {}
    return health.get("pid") == pid and health.get("state") in ("live", "bootstrapping")
