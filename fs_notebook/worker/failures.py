"""Why a worker failed, how often in a row, and when it is tried next.

A worker that cannot go on leaves its reason in a file, since the store may be what it cannot
reach. Its runner reads that, and tells everybody in the store, under a report of its own: the
worker's own report is overwritten by the next one.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fs_notebook.errors import FeatureStoreError

KILLED = "Killed"
ENDED = "Ended"
UNREACHABLE = "UnreachableError"


@dataclass(frozen=True)
class Failure:
    """What ended a worker: an error's parts, without a traceback.

    Attributes
    ----------
    kind
        The error's class; `KILLED` or `ENDED` where the worker left no word.
    message, found, remedy
        As those of `FeatureStoreError`.
    """

    kind: str
    message: str
    found: str | None = None
    remedy: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return what an error says; the text of one that is not ours is what was found."""
        kind = type(error).__name__
        if isinstance(error, FeatureStoreError):
            return cls(kind, error.message, error.found, error.remedy)
        return cls(
            kind, "The worker met what it was not made for.", f"{kind}: {error}",
            "fs-notebook logs NAME shows where",
        )  # fmt: skip

    @classmethod
    def of_code(cls, code: int) -> Failure:
        """Return what the exit code of a worker that left no word tells."""
        if code >= 0:
            return cls(ENDED, f"The worker ended with code {code}.", remedy="fs-notebook logs NAME")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        # What the kernel does when memory runs out looks just like somebody's kill.
        remedy = "see whether the machine ran out of memory" if -code == signal.SIGKILL else None
        return cls(KILLED, f"The worker was ended by {name}.", remedy=remedy)

    def __str__(self) -> str:
        return str(FeatureStoreError(self.message, found=self.found, remedy=self.remedy))


def leave(path: Path, failure: Failure, *, at_us: int) -> None:
    """Write down why this process cannot go on; that it cannot be written must not hide it."""
    part = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        part.write_text(json.dumps({"pid": os.getpid(), "at_us": at_us, **asdict(failure)}))
        part.replace(path)


def left(path: Path, pid: int) -> tuple[Failure, int] | None:
    """Return why process `pid` failed and when, None if it left nothing."""
    try:
        words = json.loads(path.read_text())
        if words.pop("pid") != pid:
            return None
        at_us = int(words.pop("at_us"))
        return Failure(**words), at_us
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report_name(shard: str) -> str:
    """Return the name under which a runner reports on a shard's worker."""
    return f"{shard}!runner"


@dataclass(frozen=True)
class Trouble:
    """A runner's report on a worker that failed.

    Attributes
    ----------
    failures
        How often in a row; the count ends when a worker ran well.
    failed_at_us, retry_at_us
        When it failed last and when it is tried next, in microseconds since the epoch; None: it
        runs again.
    """

    failures: int
    failure: Failure
    failed_at_us: int
    retry_at_us: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_report(cls, report: Mapping[str, Any] | None) -> Trouble | None:
        """Return what a runner reported, None where it has nothing to report."""
        if not report:
            return None
        return cls(
            int(report["failures"]), Failure(**report["failure"]), int(report["failed_at_us"]),
            report["retry_at_us"],
        )  # fmt: skip
