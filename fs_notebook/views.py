"""What a session shows of groups, workers and uploads: plain records with plain displays."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psutil

from fs_notebook.catalog.about import GROUP, Notes
from fs_notebook.catalog.lineage import inputs_of, streams_of
from fs_notebook.catalog.model import (
    AnyDefinition,
    CatalogState,
    Definition,
    DerivedDefinition,
    Group,
    Version,
)
from fs_notebook.clock import from_us
from fs_notebook.glances import glance_at
from fs_notebook.language.plan import span_text
from fs_notebook.model.card import bytes_text
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.worker.audits import Audit, audit_name
from fs_notebook.worker.failures import KILLED, UNREACHABLE, Trouble, report_name
from fs_notebook.worker.shared import (
    joined_health,
    joined_info,
    members_of,
    partitions_of,
    shards_of,
)
from fs_notebook.worker.sizes import told_size


@dataclass(frozen=True)
class Uploaded:
    """What an upload did.

    Attributes
    ----------
    rows
        Events that were appended now.
    repeated, before
        Events of what was uploaded before, which were not, and when the last of it was.
    known, id
        Events that were not appended since their id was there already, and the ids' column.
    files, files_repeated
        How many files there were, and how many of them were uploaded before.
    key
        The column that looks like the new stream's key, if none was named. Nothing is declared.
    """

    stream: str
    rows: int
    seconds: float
    position: str
    created: bool
    repeated: int = 0
    before: datetime | None = None
    files: int = 0
    files_repeated: int = 0
    known: int = 0
    id: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        if self.before is not None and not self.rows:
            return (
                f"nothing appended to {self.stream}: these {self.repeated:,} events were uploaded "
                f"on {self.before:%Y-%m-%d %H:%M:%S} UTC (--again appends them once more)"
            )
        made = " (new stream)" if self.created else ""
        rate = self.rows / self.seconds if self.seconds > 0 else 0.0
        of_files = f" of {self.files - self.files_repeated:,} files" if self.files > 1 else ""
        text = (
            f"{self.rows:,} events{of_files} to {self.stream}{made} in {self.seconds:.2f} s "
            f"({rate:,.0f}/s), now at {self.position}"
        )
        if self.files_repeated:
            text += (
                f"; {self.files_repeated:,} files of the same content, {self.repeated:,} events, "
                "were there already (--again appends them once more)"
            )
        if self.known:
            text += f"; {self.known:,} whose {self.id} was there already were skipped"
        if self.key is not None:
            text += (
                f"\nno key is declared; if events are of a {self.key!r}: "
                f"fs.declare({self.stream!r}, key={self.key!r})"
            )
        return text


@dataclass(frozen=True)
class Status:
    """One running version, as its worker last reported it."""

    name: str
    version: int
    serving: bool
    state: str
    position: str | None
    lag: int | None
    rate: float | None
    events: int
    progress: float | None
    error: str | None
    null_keys: int = 0
    late: int = 0
    dead: int = 0
    pid: int | None = None
    depends_on: str | None = None
    """For a derived version, which has no worker of its own: what it is computed from."""
    failures: int = 0
    """How often in a row its worker failed; ends when it ran well for a minute."""
    failure: str | None = None
    """What it failed of last."""
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    """When it is tried next; None while it runs."""
    tries: str | None = None
    """The same in words."""
    owners: str | None = None
    """Where workers share the partitions: which of them has which, as ``0: host:pid, …``."""
    verified_at: datetime | None = None
    verified: str | None = None
    """What the last verification on schedule found."""
    state_bytes: int | None = None
    """What keys and packed values take in the store, by the runner's last look; an estimate where
    there are many."""
    compared: str | None = None
    """After a promotion: how far its values differ from those of the version before."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        parts = [f"{self.name} v{self.version} {self.state}{' (serving)' if self.serving else ''}"]
        if self.progress is not None:
            parts.append(f"{self.progress:.0%}")
        if self.depends_on is not None:
            parts += [f"computed when read from {self.depends_on}", f"lag {self.lag}"]
            return ", ".join(parts + ([f"error: {self.error}"] if self.error else []))
        parts += [f"at {self.position}", f"lag {self.lag}", f"{self.events:,} events"]
        parts += [f"{self.rate:,.0f}/s"] if self.rate is not None else []
        parts += [f"state {bytes_text(self.state_bytes)}"] if self.state_bytes is not None else []
        parts += [f"partitions {self.owners}"] if self.owners else []
        parts += [self.tries] if self.tries else []
        told = self.error or self.failure
        parts += [f"error: {told}"] if told else []
        if self.verified_at is not None:
            parts.append(f"verified at {self.verified_at:%Y-%m-%d %H:%M:%S} UTC: {self.verified}")
        return ", ".join(parts) + ("" if self.compared is None else f"\n{self.compared}")


def status_of(group: Group, version: Version, store: OnlineStore) -> Status:
    """Return what is known of a version's worker: its heartbeat, else its last commit.

    A derived version is as well as the worst of what it is derived from.
    """
    if isinstance(version.definition, DerivedDefinition):
        return _derived_status(group, version, version.definition, store)
    shard = version.definition.shard
    partitions = partitions_of(store, shard)
    if partitions is not None:
        return _shared_status(group, version, partitions, store)
    health: Mapping[str, Any] = store.health(shard) or {}
    stored = store.state(shard)
    info: Mapping[str, Any] = stored.info if stored is not None else {}
    if health:
        state = str(health["state"])
        if health.get("host") == socket.gethostname() and state in ("live", "bootstrapping"):
            # A worker that was killed left a report behind; here one can look.
            state = state if psutil.pid_exists(int(health["pid"])) else "restarting"
    elif version.retired:
        state = "retired"
    else:
        # A version that is wanted and has no heartbeat yet is being started, or its runner died.
        state = "starting" if stored is None else "stopped"
    trouble = Trouble.from_report(store.health(report_name(shard)))
    error = health.get("error")
    if trouble is not None and trouble.retry_at_us is not None and state != "live":
        # It is between two tries.
        state = _BETWEEN_TRIES.get(trouble.failure.kind, "failing")
        error = error or str(trouble.failure)
    cut = stored.cut if stored is not None else None
    return Status(
        name=group.name, version=version.number,
        serving=group.serving is not None and group.serving.number == version.number,
        # What is committed is newer than a report, which is written every half second.
        state=state, position=str(cut) if cut is not None else health.get("position"),
        lag=health.get("lag"), rate=health.get("rate"),
        events=int(info.get("events") or health.get("events") or 0),
        progress=health.get("progress"), error=error,
        null_keys=int(info.get("null_keys", 0)), late=int(info.get("late", 0)),
        dead=int(info.get("dead", 0)), pid=health.get("pid"), **_tries(trouble),
        state_bytes=told_size(store, shard),
        **_verified(Audit.from_report(store.health(audit_name(shard)))),
    )  # fmt: skip


def _shared_status(group: Group, version: Version, partitions: int, store: OnlineStore) -> Status:
    """Return what is known of a version whose partitions are shared: of all of them together."""
    shard = version.definition.shard
    shards = shards_of(shard, partitions)
    health, info = joined_health(store, shards), joined_info(store, shards)
    members = members_of(shard, version.workers)
    troubles = [Trouble.from_report(store.health(report_name(m))) for m in members]
    trouble = next((t for t in troubles if t is not None), None)
    state = str(health.get("state", "retired" if version.retired else "starting"))
    if trouble is not None and trouble.retry_at_us is not None and state != "live":
        state = _BETWEEN_TRIES.get(trouble.failure.kind, "failing")
    owners = ", ".join(f"{n}: {who}" for n, who in sorted(health.get("owners", {}).items()))
    return Status(
        name=group.name, version=version.number,
        serving=group.serving is not None and group.serving.number == version.number,
        state=state, position=health.get("position"), lag=health.get("lag"),
        rate=health.get("rate"), events=int(info.get("events") or 0),
        progress=health.get("progress"),
        error=health.get("error") or (None if trouble is None else str(trouble.failure)),
        null_keys=int(info["null_keys"]), late=int(info["late"]), dead=int(info["dead"]),
        owners=owners or None, **_tries(trouble),
        state_bytes=told_size(store, shard),
        **_verified(Audit.from_report(store.health(audit_name(shard)))),
    )  # fmt: skip


def _verified(audit: Audit | None) -> dict[str, Any]:
    return {} if audit is None else {"verified_at": from_us(audit.at_us), "verified": str(audit)}


# Where trying again may be all that it takes.
_BETWEEN_TRIES = {KILLED: "restarting", UNREACHABLE: "retrying"}


def _tries(trouble: Trouble | None) -> dict[str, Any]:
    if trouble is None:
        return {}
    often, at = trouble.failures, from_us(trouble.failed_at_us)
    retry_at = None if trouble.retry_at_us is None else from_us(trouble.retry_at_us)
    text = "failed" if often == 1 else f"failed {often:,} times in a row, last"
    text += f" at {at:%H:%M:%S} UTC"
    text += "" if retry_at is None else f", next try at {retry_at:%H:%M:%S}"
    return {
        "failures": often, "failure": str(trouble.failure), "failed_at": at,
        "retry_at": retry_at, "tries": text,
    }  # fmt: skip


_WORST_FIRST = (
    "failing", "retrying", "stopped", "starting", "restarting", "bootstrapping", "live",
)  # fmt: skip


def _derived_status(
    group: Group, version: Version, definition: DerivedDefinition, store: OnlineStore
) -> Status:
    inputs = []
    for pinned in definition.inputs:
        # Who pins a version does not know its number; its worker's report has no need of it.
        alone = Version(0, pinned, version.actor, version.at)
        inputs.append(status_of(Group(pinned.name, (alone,), wanted=0), alone, store))
    worst = min(inputs, key=lambda s: _WORST_FIRST.index(s.state))
    lags = [s.lag for s in inputs if s.lag is not None]
    return Status(
        name=group.name, version=version.number,
        serving=group.serving is not None and group.serving.number == version.number,
        state="retired" if version.retired else worst.state,
        position=None, lag=max(lags, default=None), rate=None, events=0, progress=worst.progress,
        error=None if worst.error is None else f"{worst.name}: {worst.error}",
        depends_on=", ".join(f"{d.name} {d.fingerprint[:12]}" for d in definition.inputs),
    )  # fmt: skip


def group_view(group: Group, store: OnlineStore, catalog: CatalogState) -> dict[str, Any]:
    """Return one group as the sidebar and the catalog table show it.

    What serves is what is described; before anything serves it is the newest definition.
    """
    serving = group.serving
    definition = group.latest if serving is None else serving.definition
    wanted = None if group.wanted is None else group.version(group.wanted)
    status = None if wanted is None else status_of(group, wanted, store)
    state = "draft"
    if status is not None:
        waiting = serving is None or serving.number != status.version
        known = {
            "starting": "bootstrapping",
            "restarting": "bootstrapping" if waiting else "live",
            "retrying": "failing",
            "retired": "stopped",
        }
        state = known.get(status.state, status.state)
        if state == "live" and waiting:
            state = "bootstrapping"
    previous = group.previous
    notes = catalog.notes.get((GROUP, group.name), Notes())
    facts = definition.facts
    return {
        "name": group.name,
        "entity": list(facts.entity),
        "features": [
            {"name": n, "type": t} for n, t in zip(facts.features, facts.types, strict=True)
        ],
        "state": state,
        "version": None if serving is None else serving.number,
        "latest": len(group.versions),
        "previous": None if previous is None else previous.number,
        "fingerprint": definition.fingerprint,
        "progress": None if status is None else status.progress,
        "lag": None if status is None else status.lag,
        "events_per_second": None if status is None else status.rate,
        "position": None if status is None else status.position,
        "error": None if status is None else status.error,
        "owner": definition.owner,
        "tags": list(definition.tags),
        "description": definition.description,
        "definition": definition.text,
        "source": definition.cell,
        "requests": _requests(definition),
        "depends_on": [str(p) for p in inputs_of(catalog, definition)],
        "used_by": list(catalog.users.get(group.name, ())),
        "status": group.status,
        "deprecated": None if group.deprecated is None else group.deprecated.to_dict(),
        "created_by": notes.created_by,
        "created_at": "" if notes.created_at is None else notes.created_at.isoformat(),
        "streams": list(streams_of(definition)),
        "updated_at": "" if group.at is None else group.at.isoformat(),
        "actor": group.actor,
    }


def _requests(definition: AnyDefinition) -> list[dict[str, str]]:
    # The plan is decoded for this: of a definition that has no requests it need not be.
    derived = definition if isinstance(definition, DerivedDefinition) else None
    requests = () if derived is None else derived.plan.requests
    return [{"name": name, "type": kind.value} for name, kind in requests]


def notes_of(group: Group) -> tuple[str, ...]:
    """Return what a preview of a group's latest definition says beside its values."""
    latest = group.latest
    said: tuple[str, ...] = ()
    if group.deprecated is not None:
        said = (group.deprecated.told(group.name),)
    if isinstance(latest, Definition):
        said = (*said, *map(str, latest.pins))
        if latest.plan.ttl_us is not None:
            span = span_text(latest.plan.ttl_us)
            said = (f"null once an entity's newest event is older than {span}", *said)
    if group.draft is None or not group.versions:
        return said
    live = "" if group.serving is None else f"; v{group.serving.number} goes on serving"
    known = group.by_fingerprint(group.draft.fingerprint)
    if known is not None:
        return (f"this is v{known.number} again: promoting serves it{live} until then", *said)
    return (f"changed: promoting makes this v{len(group.versions) + 1}{live}", *said)


def views_of(state: CatalogState, store: OnlineStore, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the views of these groups, their workers asked for together."""
    groups = [state.groups[n] for n in names]
    glance = glance_at(store, groups)
    return [group_view(group, glance, state) for group in groups]
