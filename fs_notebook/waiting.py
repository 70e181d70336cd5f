"""Waiting until a worker has folded what is in the log by now: then one reads one's own writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs_notebook.catalog import Catalog, Group, Version
from fs_notebook.catalog.model import Definition, DerivedDefinition
from fs_notebook.clock import Clock
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import FeatureStoreError, Interrupted, NotCaughtUp, UsageError
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.position import Cut, Way
from fs_notebook.views import Status, status_of
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid
from fs_notebook.worker.shared import joined_cut

TIMEOUT_S = 60.0
STOPPED_S_MAX = 5.0
"""How long there may be no worker at all: one that is started again needs a moment."""
_ASK_S, _ASK_S_MAX = 0.01, 0.1


@dataclass(frozen=True)
class Goal:
    """One definition's way: the cut that its worker has to commit."""

    definition: Definition
    end: Cut

    def at(self, store: OnlineStore) -> Cut:
        """Return what is committed, of all shards together."""
        return joined_cut(store, self.definition.shard)


@dataclass(frozen=True)
class CaughtUp:
    """That a version has committed what was in its streams when somebody asked.

    Attributes
    ----------
    name, version
        Of the feature group.
    cuts
        Streams, and where they ended then: all of that is in what is served.
    seconds
        How long it took.
    """

    name: str
    version: int
    cuts: tuple[tuple[str, Cut], ...]
    seconds: float

    def __repr__(self) -> str:
        ends = "; ".join(f"{name} up to {cut}" for name, cut in self.cuts)
        return f"{self.name} v{self.version} has folded {ends} ({self.seconds:.2f} s)"


class WaitCalls:
    """The method of a `Session` that waits for a worker."""

    connection: Connection
    catalog: Catalog
    log: EventLog
    store: OnlineStore
    clock: Clock

    def wait(
        self,
        name: str,
        *,
        timeout_s: float = TIMEOUT_S,
        version: int | None = None,
        on_progress: OnProgress = silent,
    ) -> CaughtUp:
        """Return once what is in the ledger now is in what is served: read your own writes.

        Parameters
        ----------
        name
            A feature or group; of a derived one, all that it is derived from is waited for.
        timeout_s
            How long to wait at most, in seconds.
        version
            Which one; default: the one that serves, or else is to serve: then until it does.

        Returns
        -------
        CaughtUp
            Where the streams that are folded ended at the call. What was appended by then, to
            these streams, by anybody, is committed; what is joined to them is not waited for.

        Raises
        ------
        UsageError
            If it was never promoted, or the version is retired.
        NotCaughtUp
            If it takes longer; says where the worker is and what it reported.
        FeatureStoreError
            If the worker cannot go on, with its reason, or if there is none.
        """
        if not timeout_s > 0:
            raise UsageError("A timeout is more than 0 seconds.", found=f"{timeout_s:g}",
                             remedy="timeout_s=60")  # fmt: skip
        group = self.catalog.refresh().group(name)
        chosen = _chosen(group, version)
        goals = tuple(Goal(d, _log_of(d, self.log).end(d.source.name)) for d in _stored(chosen))
        begun_s = self.clock.monotonic_s()
        try:
            self._await(group, chosen, goals, version is None, timeout_s, on_progress)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted the waiting only: the worker of {group.name!r} v{chosen.number} "
                f"goes on.\n  Try: %feature status {group.name}"
            ) from None
        cuts = tuple((g.definition.source.name, g.end) for g in goals)
        return CaughtUp(group.name, chosen.number, cuts, self.clock.monotonic_s() - begun_s)

    def _await(
        self, group: Group, chosen: Version, goals: Sequence[Goal], is_served: bool,
        timeout_s: float, on_progress: OnProgress,
    ) -> None:  # fmt: skip
        begun_s = running_s = self.clock.monotonic_s()
        pause_s = _ASK_S
        ways = [Way(goal.end) for goal in goals]
        while True:
            cuts = [goal.at(self.store) for goal in goals]
            behind = [g for g, at in zip(goals, cuts, strict=True) if not at.contains(g.end)]
            if not behind and (not is_served or self._serves(group.name, chosen)):
                return
            now_s = self.clock.monotonic_s()
            status = status_of(group, chosen, self.store)
            if status.state not in ("stopped", "starting"):
                running_s = now_s
            self._check_running(group.name, status, now_s - running_s)
            if now_s - begun_s >= timeout_s:
                raise _late(group.name, status, behind, cuts, goals, timeout_s)
            shares = [way.share(at) for way, at in zip(ways, cuts, strict=True)]
            known = [share for share in shares if share is not None]
            share = min(known) if len(known) == len(shares) else None
            on_progress(Progress(share, status.events, now_s - begun_s, "catching up"))
            self.clock.sleep_s(min(pause_s, max(timeout_s - (now_s - begun_s), 0.001)))
            pause_s = min(2 * pause_s, _ASK_S_MAX)

    def _serves(self, name: str, chosen: Version) -> bool:
        """Tell whether readers get this version, if it is the one that is to serve."""
        group = self.catalog.refresh().groups.get(name)
        if group is None or group.version(chosen.number).retired:
            raise UsageError(
                f"{name!r} v{chosen.number} was retired meanwhile.", remedy="%feature status"
            )
        serving = group.serving
        if serving is None:
            return False
        if serving.number != chosen.number:
            # Somebody chose another one since.
            return group.wanted != chosen.number
        record = self.store.published()[1].get(name, {})
        return record.get("fingerprint") == chosen.fingerprint

    def _check_running(self, name: str, status: Status, stopped_s: float) -> None:
        told = status.error or status.failure
        if status.state == "failing" and told:
            raise FeatureStoreError(
                f"The worker of {name!r} v{status.version} cannot go on.", found=told,
                remedy=f"fs-notebook logs {name} shows where; %feature promote {name} builds its "
                "state anew",
            )  # fmt: skip
        if stopped_s > STOPPED_S_MAX and runner_pid(self.connection) is None:
            raise FeatureStoreError(
                f"No worker keeps {name!r} v{status.version} current.",
                found=f"{status.state}, at {status.position or 'the beginning'}",
                remedy="fs-notebook runner, or %feature connect, starts the workers again",
            )


def _chosen(group: Group, number: int | None) -> Version:
    """Return the version that is meant."""
    if number is not None:
        chosen = group.version(number)
    elif group.serving is not None:
        chosen = group.serving
    elif group.wanted is not None:
        chosen = group.version(group.wanted)
    else:
        raise UsageError(
            f"No worker folds {group.name!r}: it was never promoted.",
            remedy=f"%feature promote {group.name}",
        )
    if chosen.number not in {v.number for v in group.running}:
        raise UsageError(
            f"v{chosen.number} of {group.name!r} is not kept current.",
            found="retired" if chosen.retired else "neither serving nor kept for a roll-back",
            remedy=", ".join(f"version={v.number}" for v in group.running) or "promote it",
        )
    return chosen


def _stored(version: Version) -> tuple[Definition, ...]:
    """Return the definitions whose workers a version needs."""
    definition = version.definition
    return definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)


def _log_of(definition: Definition, log: EventLog) -> EventLog:
    return joined_log(definition.plan, definition.joined, log, filtered=True)


def _late(
    name: str, status: Status, behind: Sequence[Goal], cuts: Sequence[Cut],
    goals: Sequence[Goal], timeout_s: float,
) -> NotCaughtUp:  # fmt: skip
    places = [
        f"{g.definition.source.name} at {at}, which ends at {g.end}"
        for g, at in zip(goals, cuts, strict=True)
        if g in behind
    ]
    told = [status.state, *places, *filter(None, [status.error or status.failure])]
    return NotCaughtUp(
        f"{name!r} v{status.version} had not caught up within {timeout_s:g} seconds.",
        found="; ".join(told),
        remedy=f"a longer timeout; the worker goes on: %feature status {name}",
    )
