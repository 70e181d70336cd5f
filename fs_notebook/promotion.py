"""Promote, roll back, retire: the catalog's record of the wish, and the wait for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

from fs_notebook.catalog import Catalog, CatalogState, Group, Version
from fs_notebook.catalog.lineage import (
    check_inputs,
    dependents_of,
    is_latest,
    missing_inputs,
)
from fs_notebook.catalog.model import (
    DISCARDED,
    PROMOTED,
    RETIRED,
    ROLLED_BACK,
    AnyDefinition,
    Definition,
)
from fs_notebook.catalog.usage import sets_with
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import (
    ConflictError,
    FeatureStoreError,
    Interrupted,
    UnreachableError,
    UsageError,
)
from fs_notebook.language.sources import streams_of as parts_of
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.views import Status, status_of
from fs_notebook.worker.audits import audit_name
from fs_notebook.worker.connection import EMBEDDED, Connection
from fs_notebook.worker.failures import report_name
from fs_notebook.worker.records import served_record, withdraw
from fs_notebook.worker.runner import ensure_runner, runner_log, runner_pid
from fs_notebook.worker.shared import members_of, partitions_of, stored_shards
from fs_notebook.worker.sizes import forget_size

T = TypeVar("T")

PROMOTE_SECONDS_MAX = 3_600.0
RETRYING_SECONDS_MAX = 30.0
RETIRE_SECONDS_MAX = 30.0
WORKERS_MAX = 64


def check_shareable(
    definition: AnyDefinition, known: Version | None, workers: int, connection: Connection
) -> None:
    """Raise `UsageError` if workers cannot share this definition's stream."""
    name = definition.name
    if not 1 <= workers <= WORKERS_MAX:
        raise UsageError(
            "--workers is how many processes share a stream's partitions on each machine.",
            found=str(workers), remedy=f"a number from 1 to {WORKERS_MAX}",
        )  # fmt: skip
    if not isinstance(definition, Definition):
        raise UsageError(
            f"{name!r} is derived: it has no worker.",
            remedy="promote what it is derived from with --workers",
        )
    if connection.log == EMBEDDED:
        raise UsageError(
            f"The work of {name!r} cannot be shared.",
            found="a stream of the embedded ledger has one partition",
            remedy="promote it without --workers, or connect to Pulsar",
        )
    if len(parts_of(definition.source.name)) > 1 or definition.plan.pairs is not None:
        raise UsageError(
            f"The work of {name!r} cannot be shared: it folds several streams at once.",
            found=", ".join(parts_of(definition.source.name)),
            remedy="promote it without --workers",
        )
    if known is not None and not known.retired and known.workers is None:
        raise UsageError(
            f"v{known.number} of {name!r} has its state in one shard already.",
            remedy=f"retire v{known.number} once another version serves, then promote it again "
            "with --workers",
        )


class Promotions:
    """What changes which version is wanted. `Session` documents each call."""

    def __init__(
        self, connection: Connection, catalog: Catalog, store: OnlineStore, *, clock: Clock
    ) -> None:
        self.connection = connection
        self.catalog = catalog
        self.store = store
        self.clock = clock

    def promote(
        self,
        name: str,
        *,
        wait: bool = True,
        with_inputs: bool = False,
        workers: int | None = None,
        actor: str | None = None,
        on_progress: OnProgress = silent,
    ) -> Status:
        """Record the wish, see that a runner lives, and wait until the version serves."""
        begun_at = from_us(self.clock.now_us())
        group = self.catalog.refresh().group(name)
        definition = group.latest
        if with_inputs:
            self._promote_inputs(definition, wait, actor, on_progress)
        seen = (group.wanted, group.draft, len(group.versions))
        known = group.by_fingerprint(definition.fingerprint)
        if workers is not None:
            check_shareable(definition, known, workers, self.connection)
        stuck = (
            known is not None
            and isinstance(definition, Definition)
            and known.number == group.wanted
            and status_of(group, known, self.store).state == "failing"
        )
        if stuck:
            # Its worker cannot go on with the state as it is (a damaged value, another stream):
            # without one it builds it anew from the ledger.
            withdraw(self.store, definition.shard)
            for part in stored_shards(self.store, definition.shard):
                self.store.drop(part)
            # A runner that waits before the next try takes this as a reason to try at once.
            for member in members_of(definition.shard, known.workers if known else None):
                self.store.heartbeat(report_name(member), {}, ttl_seconds=0.001)

        def check(state: CatalogState) -> bool:
            now = state.groups[group.name]
            known = now.by_fingerprint(definition.fingerprint)
            same = known is not None and workers in (None, known.workers)
            if known is not None and now.wanted == known.number and not known.retired and same:
                return False
            if (now.wanted, now.draft, len(now.versions)) != seen:
                raise ConflictError(
                    f"{group.name!r} was changed by somebody else meanwhile.",
                    found=f"{now.actor}, {now.at:%Y-%m-%d %H:%M:%S} UTC",
                    remedy="look at what they did, then promote again",
                )
            state.check_names(definition)
            check_inputs(state, definition)
            return True

        body: dict[str, object] = {"definition": definition.to_dict()}
        if workers is not None:
            body["workers"] = workers
        state = self.catalog.record(PROMOTED, group.name, body, check=check, actor=actor)
        ensure_runner(self.connection, clock=self.clock)
        version = state.groups[group.name].by_fingerprint(definition.fingerprint)
        assert version is not None
        if wait:
            try:
                self._await_live(group.name, version, begun_at, on_progress)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"Interrupted the waiting only: the worker of {group.name!r} "
                    f"v{version.number} goes on.\n  Try: %feature status {group.name}"
                ) from None
        return self._patiently(lambda: self._look(group.name, version))[1]

    def _promote_inputs(
        self,
        definition: AnyDefinition,
        wait: bool,
        actor: str | None,
        on_progress: OnProgress,
    ) -> None:
        """Promote what a derived definition pins and nobody has promoted yet."""
        state = self.catalog.refresh()
        missing = missing_inputs(state, definition)
        if not all(is_latest(state, p.definition) for p in missing):
            check_inputs(state, definition)
        for pinned in missing:
            self.promote(pinned.definition.name, wait=wait, actor=actor, on_progress=on_progress)

    def _await_live(
        self, name: str, version: Version, begun_at: datetime, on_progress: OnProgress
    ) -> None:
        begun_s = retrying_since_s = self.clock.monotonic_s()
        runner_lost = False
        while True:
            group, status = self._patiently(lambda: self._look(name, version))
            serving = group.serving
            if serving is not None and serving.number == version.number:
                # The record alone may be of before a rebuild, the worker's word of before a flip.
                is_served = partial(self._is_served, group, version)
                if status.state == "live" and self._patiently(is_served):
                    return
            elif group.wanted != version.number:
                raise ConflictError(
                    f"The promotion of {name!r} v{version.number} was overtaken.",
                    found=f"{group.actor} chose v{group.wanted}", remedy="%feature status",
                )  # fmt: skip
            if group.version(version.number).retired:
                raise ConflictError(
                    f"{name!r} v{version.number} was retired before it was live.",
                    found=f"by {group.actor}", remedy="promote it again if it is wanted",
                )  # fmt: skip
            now_s = self.clock.monotonic_s()
            elapsed_s = now_s - begun_s
            if status.state != "retrying":
                retrying_since_s = now_s
            elif now_s - retrying_since_s > RETRYING_SECONDS_MAX:
                raise FeatureStoreError(
                    f"The worker of {name!r} v{version.number} gets no further; it goes on trying.",
                    found=status.error, remedy="%feature status",
                )  # fmt: skip
            if runner_pid(self.connection) is None:
                if runner_lost:
                    raise FeatureStoreError(
                        "The background runner ends as soon as it is started.",
                        found=runner_log(self.connection), remedy="see its log in the home folder",
                    )  # fmt: skip
                runner_lost = True
                ensure_runner(self.connection, clock=self.clock)
            # What failed before this promotion is no word about it.
            is_former = status.failed_at is not None and status.failed_at < begun_at
            if status.state == "failing" and status.error and not is_former:
                raise FeatureStoreError(
                    f"The worker of {name!r} v{version.number} cannot go on.",
                    found=status.error, remedy=f"fs-notebook logs {name}",
                )  # fmt: skip
            if elapsed_s > PROMOTE_SECONDS_MAX:
                raise FeatureStoreError(
                    f"{name!r} is not live yet; its worker goes on.", remedy="%feature status"
                )
            on_progress(Progress(status.progress, status.events, elapsed_s, "bootstrapping"))
            self.clock.sleep_s(0.05)

    def _look(self, name: str, version: Version) -> tuple[Group, Status]:
        group = self.catalog.refresh().groups[name]
        return group, status_of(group, version, self.store)

    def _is_served(self, group: Group, version: Version) -> bool:
        """Tell whether what is served under the group's name is that version."""
        published = self.store.published()[1].get(group.name)
        return published == self._record(group, version)

    def _patiently(self, look: Callable[[], T]) -> T:
        """Look again for a while where the store does not answer: big commits keep it busy."""
        until_s = self.clock.monotonic_s() + RETRYING_SECONDS_MAX
        while True:
            try:
                return look()
            except UnreachableError:
                if self.clock.monotonic_s() > until_s:
                    raise
            self.clock.sleep_s(0.2)

    def rollback(self, name: str, *, actor: str | None = None) -> Status:
        """Serve the former version again, or take back a promotion that is under way."""
        group = self.catalog.refresh().group(name)
        target = self._rollback_target(group)

        def check(state: CatalogState) -> bool:
            now = state.groups[group.name]
            if self._rollback_target(now).number != target.number:
                raise ConflictError(
                    f"{group.name!r} was changed by somebody else meanwhile.",
                    found=f"{now.actor}, {now.at:%Y-%m-%d %H:%M:%S} UTC",
                    remedy="%feature status, then roll back again if it is still needed",
                )
            check_inputs(state, target.definition)
            return True

        self.catalog.record(
            ROLLED_BACK, group.name, {"version": target.number}, check=check, actor=actor
        )
        self.store.publish(group.name, self._record(group, target))
        return status_of(self.catalog.refresh().groups[group.name], target, self.store)

    @staticmethod
    def _rollback_target(group: Group) -> Version:
        serving = group.serving
        if serving is not None and group.wanted != serving.number:
            return serving
        if group.previous is None:
            raise UsageError(
                f"{group.name!r} has no former version to go back to.",
                found="never promoted" if serving is None else f"only v{serving.number} has served",
                remedy="promote a second version first",
            )
        return group.previous

    def discard(self, name: str, *, actor: str | None = None) -> None:
        """Take a draft back; a group that nothing was promoted of is gone then."""
        group = self.catalog.refresh().group(name)
        draft = group.draft
        if draft is None:
            raise UsageError(
                f"{group.name!r} has no draft.",
                found=", ".join(f"v{v.number}" for v in group.running),
                remedy=f"%feature retire {group.name} VERSION stops one that does not serve",
            )

        def check(state: CatalogState) -> bool:
            now = state.groups.get(group.name)
            if now is not None and now.draft != draft:
                raise ConflictError(
                    f"{group.name!r} was changed by somebody else meanwhile.",
                    found=f"{now.actor}, {now.at:%Y-%m-%d %H:%M:%S} UTC",
                    remedy="look at what they did first",
                )
            return now is not None

        self.catalog.record(DISCARDED, group.name, {}, check=check, actor=actor)

    def retire(self, name: str, version: int, *, actor: str | None = None) -> None:
        """Stop a version that does not serve, and free its state."""
        group = self.catalog.refresh().group(name)
        chosen = group.version(version)
        self._check_unused(self.catalog.refresh(), group.name, version)
        if group.serving is not None and group.serving.number == version:
            raise UsageError(
                f"v{version} of {group.name!r} serves.", remedy="roll back or promote first"
            )

        def check(state: CatalogState) -> bool:
            self._check_unused(state, group.name, version)
            return True

        self.catalog.record(RETIRED, group.name, {"version": version}, check=check, actor=actor)
        # The runner stops its worker first; only then is nobody left to write the state again.
        ensure_runner(self.connection, clock=self.clock)
        until_s = self.clock.monotonic_s() + RETIRE_SECONDS_MAX
        shard = chosen.definition.shard
        parts = stored_shards(self.store, shard)
        while any(self.store.state(part) is not None for part in parts):
            if self.clock.monotonic_s() > until_s:
                raise FeatureStoreError(
                    f"v{version} of {group.name!r} is retired, but its state is still there.",
                    remedy=f"fs-notebook logs {group.name}; the runner frees it when it can",
                )
            self.clock.sleep_s(0.05)
        if not self.catalog.refresh().groups[group.name].version(version).retired:
            return
        # The position goes first. What is left is deleted here too, so that nothing is at the end.
        for part in parts:
            self.store.drop(part)
        for report in (report_name(shard), audit_name(shard)):
            self.store.heartbeat(report, {}, ttl_seconds=0.001)
        forget_size(self.store, shard)

    def _record(self, group: Group, version: Version) -> dict[str, object]:
        partitions = partial(partitions_of, self.store)
        return served_record(group, version, partitions).to_record()

    @staticmethod
    def _check_unused(state: CatalogState, name: str, version: int) -> None:
        if dependents := dependents_of(state, name, version):
            raise UsageError(
                f"v{version} of {name!r} is needed by what is derived from it.",
                found=", ".join(dependents),
                remedy="derive those from another version and promote them, or retire them first",
            )
        if sets := sets_with(state, name, version):
            raise UsageError(
                f"v{version} of {name!r} is pinned by feature sets.",
                found=", ".join(sets),
                remedy="%feature set NAME@VERSION --retire, if no model needs it",
            )
