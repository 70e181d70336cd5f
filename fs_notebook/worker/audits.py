"""`verify` on a schedule: `fs-notebook runner --verify-every 1h`.

A replay takes long and its machine's cores, so each is a process of its own, at low priority and
one at a time: `python -m fs_notebook.worker.audits GROUP FINGERPRINT`. It compares a sample of the
entities, another one each time, and leaves its outcome in the store, under a report of its own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from fs_notebook.catalog import Catalog, Definition, Version
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.compute.preview import parse_span
from fs_notebook.errors import FeatureStoreError, UnknownName, UsageError
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.processes import exit_now
from fs_notebook.worker.connection import Connection, default_actor
from fs_notebook.worker.verify import Verification, verify

AUDITS_VARIABLE = "FS_NOTEBOOK_VERIFY_EVERY"
ENTITIES_MAX = 10_000
TTL_SECONDS = 30 * 86_400.0
EVERY_SECONDS_MIN = 1.0
_STOP_SECONDS_MAX = 5.0
LOG = logging.getLogger("fs_notebook.audits")


def audit_name(shard: str) -> str:
    """Return the name under which the last verification of a shard is reported."""
    return f"{shard}!verify"


@dataclass(frozen=True)
class Audit:
    """The outcome of a verification on schedule.

    Attributes
    ----------
    at_us
        When it was begun, in microseconds since the epoch.
    entities, known
        How many entities were compared, of how many.
    mismatches
        How many values are not what the ledger says; 0 where there was none to compare.
    first
        The first of them, as text.
    error
        Why it could not be done, None if it was.
    """

    at_us: int
    seconds: float
    entities: int = 0
    known: int = 0
    values: int = 0
    events: int = 0
    mismatches: int = 0
    first: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, outcome: Verification, at_us: int, seconds: float) -> Audit:
        """Return what a verification found."""
        first = outcome.examples[0] if outcome.examples else None
        known = outcome.entities if outcome.sampled_from is None else outcome.sampled_from
        return cls(
            at_us, seconds, outcome.entities, known, outcome.values, outcome.events,
            outcome.mismatches, None if first is None else (
                f"{first.entity} {first.feature}: online {first.online!r}, ledger {first.ledger!r}"
            ),
        )  # fmt: skip

    @classmethod
    def from_report(cls, report: Mapping[str, Any] | None) -> Audit | None:
        """Return what was reported, None where nothing was."""
        return cls(**report) if report else None

    @property
    def ok(self) -> bool:
        """Whether it was done and nothing differed."""
        return self.error is None and self.mismatches == 0

    def __str__(self) -> str:
        if self.error is not None:
            return f"not done: {self.error}"
        of = "" if self.entities == self.known else f" of {self.known:,}"
        compared = f"{self.entities:,}{of} entities"
        if self.ok:
            return f"equal to the ledger, {compared}"
        return f"{self.mismatches:,} mismatches in {compared}; {self.first}"


def parse_every(text: str) -> float:
    """Return the seconds of ``1h``.

    Raises
    ------
    UsageError
        If it is no length of time, or less than a second.
    """
    seconds = parse_span(text, option="--verify-every") / 1_000_000
    if seconds < EVERY_SECONDS_MIN:
        raise UsageError("--verify-every is at least a second.", found=text, remedy="1h")
    return seconds


class Audits:
    """Says when which shard is verified; the runner calls it every round.

    Parameters
    ----------
    every_s
        The time between the beginnings of two verifications of a shard.
    start
        Starts the process that verifies a version.
    """

    def __init__(
        self,
        every_s: float,
        start: Callable[[Version], subprocess.Popen[bytes]],
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self._every_s = every_s
        self._start = start
        self._clock = clock
        self._due_s: dict[str, float] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def round(self, live: Mapping[str, Version], store: OnlineStore) -> None:
        """Start the verification that has been due for longest, unless one is under way.

        One that was done by a runner before this one counts.
        """
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._process = None
        now_s = self._clock.monotonic_s()
        self._due_s = {shard: due_s for shard, due_s in self._due_s.items() if shard in live}
        for shard in live.keys() - self._due_s.keys():
            last = Audit.from_report(store.health(audit_name(shard)))
            passed_s = (
                self._every_s if last is None
                else max(self._clock.now_us() - last.at_us, 0) / 1_000_000
            )  # fmt: skip
            self._due_s[shard] = now_s + max(self._every_s - passed_s, 0.0)
        due = min(self._due_s, key=lambda shard: (self._due_s[shard], shard), default=None)
        if due is not None and now_s >= self._due_s[due]:
            self._due_s[due] = now_s + self._every_s
            self._process = self._start(live[due])

    def stop(self) -> None:
        """End a verification that is under way; it writes nothing but its outcome."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS_MAX)
        self._process = None


def run_audit(
    connection: Connection, group: str, fingerprint: str, *, clock: Clock = SYSTEM
) -> Audit:
    """Verify a version now and report the outcome, be it that this was not possible."""
    log, store = connection.open_log(), connection.open_store()
    at_us, begun_s = clock.now_us(), clock.monotonic_s()
    version = Catalog(log, actor=default_actor()).refresh().group(group).by_fingerprint(fingerprint)
    definition = None if version is None else version.definition
    if version is None or not isinstance(definition, Definition):
        raise UnknownName(f"The catalog has no version {fingerprint[:16]} of {group!r} to verify.")
    try:
        outcome = verify(
            definition, version.number, log, store, now_us=at_us, entities_max=ENTITIES_MAX
        )
        audit = Audit.of(outcome, at_us, clock.monotonic_s() - begun_s)
    except FeatureStoreError as error:
        audit = Audit(at_us, clock.monotonic_s() - begun_s, error=str(error))
    store.heartbeat(audit_name(definition.shard), asdict(audit), ttl_seconds=TTL_SECONDS)
    return audit


def main(argv: list[str]) -> int:
    """Verify one version; what is wrong goes to the log as well."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with suppress(OSError):
        # Workers and readers come first.
        os.nice(10)
    group, fingerprint = argv
    try:
        audit = run_audit(Connection.from_environment(), group, fingerprint)
    except FeatureStoreError as error:
        LOG.error("verification of %s: %s", group, error)
        return 1
    level = logging.INFO if audit.ok else logging.ERROR
    LOG.log(level, "verification of %s: %s", group, audit)
    return 0


if __name__ == "__main__":
    exit_now(main(sys.argv[1:]))
