"""The runner: one a machine and connection, detached; makes reality match the catalog.

For each version that the catalog wants it keeps one worker process alive, restarting it with
growing pauses; it flips a group to the wanted version once that is bootstrapped, and sees to it
that the store serves what the catalog says.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import psutil

from fs_notebook.catalog import Catalog, CatalogState, Group, Version
from fs_notebook.catalog.lineage import running_of, workers
from fs_notebook.catalog.model import LIVE, Definition
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.online.board import pinned_name
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.processes import ended, exit_now, start_detached, stops_heard
from fs_notebook.worker.audits import AUDITS_VARIABLE, Audits, parse_every
from fs_notebook.worker.child import RESTART_SECONDS, Child, at_work
from fs_notebook.worker.connection import CONNECTION_VARIABLE, Connection, default_actor
from fs_notebook.worker.failures import Failure, Trouble, left, report_name
from fs_notebook.worker.metrics import METRICS_VARIABLE, Watched, WorkerMetrics, metrics_served
from fs_notebook.worker.places import failure_path, folder, log_path
from fs_notebook.worker.process import FENCED, STOPPED, STUCK
from fs_notebook.worker.records import (
    inputs_of,
    record_built,
    served_record,
    set_records,
    withdraw,
)
from fs_notebook.worker.shared import (
    members_of,
    own_shards,
    partitions_of,
    positions_of,
    shards_of,
    subscription_of,
    tell_partitions,
)
from fs_notebook.worker.sizes import Sizes

LOG = logging.getLogger("fs_notebook.runner")
POLL_SECONDS = 0.1
PARTITIONS_SECONDS = 2.0
BACKOFF_SECONDS_MAX = 30.0
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
RAN_WELL_SECONDS = 60.0
"""A worker that was at work for so long ends a row of failures."""
TROUBLE_TTL_SECONDS = 3_600.0


@dataclass
class Runner:
    """Reconciles the catalog's wish with the processes of this machine."""

    connection: Connection
    clock: Clock = SYSTEM
    children: dict[str, Child] = field(default_factory=dict)
    freed: set[str] = field(default_factory=set)
    parted: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of versions whose partitions are shared: how many there are, and when that was looked at."""
    stopping: bool = False
    metrics: str | None = None
    verify_every_s: float | None = None
    watched: tuple[Watched, ...] = ()
    """What the last round knew of the workers; replaced as a whole, for other threads."""

    def run(self) -> None:
        """Reconcile until told to stop, then stop the workers, everything committed."""
        log, store = self.connection.open_log(), self.connection.open_store()
        catalog = Catalog(log, actor=f"{default_actor()} (runner)")
        with ExitStack() as last:
            if self.metrics is not None:
                collector = WorkerMetrics(store, lambda: self.watched, clock=self.clock)
                url = last.enter_context(metrics_served(collector, self.metrics))
                LOG.info("metrics at %s", url)
            last.callback(lambda: self._stop_children(list(self.children)))
            last.callback(Sizes(store, self._shards, clock=self.clock).stop)
            audits = None
            if self.verify_every_s is not None:
                audits = Audits(self.verify_every_s, self._spawn_audit, clock=self.clock)
                last.callback(audits.stop)
            while not self.stopping:
                try:
                    self.reconcile(catalog, store)
                    if audits is not None:
                        audits.round(self._verifiable(store), store)
                except FeatureStoreError as error:
                    LOG.warning("%s", error)
                    self.clock.sleep_s(1.0)
                self.clock.sleep_s(POLL_SECONDS)

    def reconcile(self, catalog: Catalog, store: OnlineStore) -> None:
        """Make one round: processes, flips, serving records."""
        state = catalog.refresh()
        running = workers(state)
        for shard in self.parted.keys() - running.keys():
            del self.parted[shard]
        wanted: dict[str, Version] = {}
        for shard, version in running.items():
            wanted |= dict.fromkeys(members_of(shard, version.workers), version)
            if version.workers is not None:
                with self._apart(shard):
                    self._count(version, catalog, store)
        self._stop_children([shard for shard in self.children if shard not in wanted])
        self._free(state, catalog, store)
        for shard, version in wanted.items():
            child = self.children.setdefault(shard, Child(version))
            child.version = version
            with self._apart(shard):
                self._keep_alive(child, shard, store)
        for group in state.groups.values():
            with self._apart(group.name):
                self._flip(group, catalog, store)
        state = catalog.refresh()
        self._watch(state)
        self._publish(catalog, store)

    @contextmanager
    def _apart(self, what: str) -> Iterator[None]:
        """Keep the trouble of one group or shard from stopping the others."""
        try:
            yield
        except UnreachableError:
            raise
        except (FeatureStoreError, OSError) as error:
            LOG.warning("%s: %s", what, error)

    def _count(self, version: Version, catalog: Catalog, store: OnlineStore) -> None:
        """Look how many partitions there are to share, every few seconds, and tell."""
        shard, now_s = version.definition.shard, self.clock.monotonic_s()
        known = self.parted.get(shard)
        if known is None or now_s - known[1] >= PARTITIONS_SECONDS:
            definition = version.definition
            assert isinstance(definition, Definition)
            count = catalog.log.partitions(definition.source.name)
            tell_partitions(store, shard, count)
            self.parted[shard] = (count, now_s)

    def _partitions(self, shard: str) -> int | None:
        known = self.parted.get(shard)
        return None if known is None else known[0]

    def _free(self, state: CatalogState, catalog: Catalog, store: OnlineStore) -> None:
        """Drop the states of retired versions, once their workers are stopped."""
        retired = {
            version.definition.shard: version
            for group in state.groups.values()
            for version in group.versions
            if version.retired
        }
        for shard in retired.keys() - self.freed:
            withdraw(store, shard)
            definition = retired[shard].definition
            if retired[shard].workers is not None and isinstance(definition, Definition):
                for part in shards_of(shard, partitions_of(store, shard) or 0):
                    store.drop(part)
                catalog.log.unshare(definition.source.name, subscription_of(shard))
                tell_partitions(store, shard, None)
            store.drop(shard)
        self.freed = set(retired)

    def _keep_alive(self, child: Child, shard: str, store: OnlineStore) -> None:
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                self._see_whether_well(child, shard, store)
                return
            self._ended(child, child.process, code, shard, store)
        if child.told and store.health(report_name(shard)) is None:
            # Somebody did something about it and promoted again: that is worth a try at once.
            child.trouble, child.told, child.wait_s = None, False, RESTART_SECONDS
            child.due_s = self.clock.monotonic_s()
        now_s = self.clock.monotonic_s()
        if now_s < child.due_s:
            return
        other = store.health(shard) if child.fenced else None
        if other is not None and other.get("state") in ("live", "bootstrapping"):
            # Whoever took the shard over is at work: there is nothing to take back.
            child.due_s = now_s + BACKOFF_SECONDS_MAX
            return
        child.fenced = False
        child.begun_at = positions_of(store, shard)
        child.process = self._spawn(child.version, shard)
        child.starts, child.begun_s = child.starts + 1, now_s
        if child.trouble is not None:
            child.trouble = replace(child.trouble, retry_at_us=None)
            self._tell(child, shard, store)

    def _see_whether_well(self, child: Child, shard: str, store: OnlineStore) -> None:
        """End a row of failures once the worker has been at work for a while."""
        assert child.process is not None
        well_s = self.clock.monotonic_s() - child.begun_s
        if child.trouble is None or well_s < RAN_WELL_SECONDS:
            return
        if at_work(store.health(shard), child.process.pid):
            child.trouble, child.wait_s, child.told = None, RESTART_SECONDS, False
            store.heartbeat(report_name(shard), {}, ttl_seconds=TROUBLE_TTL_SECONDS)

    def _ended(
        self, child: Child, process: subprocess.Popen[bytes], code: int, shard: str,
        store: OnlineStore,
    ) -> None:  # fmt: skip
        """Note that a worker ended, and when the next one is to be started."""
        LOG.warning("worker %s ended with code %s", shard, code)
        now_s = self.clock.monotonic_s()
        health = store.health(shard) or {}
        reached = positions_of(store, shard)
        mine = own_shards(shard, health, process.pid)
        got_on = any(reached.get(s) != child.begun_at.get(s) for s in mine)
        child.process = None
        # One that was taken over must not take the shard straight back.
        child.fenced = code == FENCED
        failed = code not in (STOPPED, FENCED)
        if now_s - child.begun_s >= RAN_WELL_SECONDS and at_work(health, process.pid):
            child.trouble, child.wait_s = None, RESTART_SECONDS
        killed = code < 0 and health.get("pid") == process.pid and health["state"] == "live"
        if killed or got_on:
            # Somebody killed a worker that was well, or the next one has less to do than this one
            # had: that is no crash loop.
            child.wait_s = RESTART_SECONDS
        pause_s = BACKOFF_SECONDS_MAX if child.fenced else child.wait_s
        child.due_s = now_s + (0.0 if code == STOPPED else pause_s)
        child.wait_s = min(2 * child.wait_s, BACKOFF_SECONDS_MAX)
        if failed:
            now_us = self.clock.now_us()
            words = left(failure_path(self.connection, shard), process.pid)
            failure, failed_at_us = words or (Failure.of_code(code), now_us)
            retry_at_us = now_us + round(pause_s * 1_000_000)
            child.trouble = Trouble(child.failures + 1, failure, failed_at_us, retry_at_us)
            LOG.warning("worker %s: %s", shard, child.trouble.failure)
            self._tell(child, shard, store)

    def _tell(self, child: Child, shard: str, store: OnlineStore) -> None:
        assert child.trouble is not None
        child.told = False
        report = child.trouble.to_dict()
        store.heartbeat(report_name(shard), report, ttl_seconds=TROUBLE_TTL_SECONDS)
        child.told = True

    def _watch(self, state: CatalogState) -> None:
        watched: dict[str, Watched] = {}
        for name, child in self.children.items():
            version, shard = child.version, child.version.definition.shard
            before = watched.get(shard)
            watched[shard] = Watched(
                name=version.definition.name, version=version.number, shard=shard,
                pid=None if child.process is None else child.process.pid,
                serving=version == state.groups[version.definition.name].serving,
                elsewhere=child.fenced or name != shard,
                restarts=max(child.starts - 1, 0) + (before.restarts if before else 0),
                failures=max(child.failures, before.failures if before else 0),
                partitions=self._partitions(shard),
            )  # fmt: skip
        self.watched = tuple(watched.values())

    def _shards(self) -> dict[str, tuple[str, ...]]:
        return {one.shard: shards_of(one.shard, one.partitions) for one in self.watched}

    def _verifiable(self, store: OnlineStore) -> dict[str, Version]:
        """Return the versions that are live, by shard."""
        versions = {c.version.definition.shard: c.version for c in self.children.values()}
        return {shard: v for shard, v in versions.items() if self._caught_up(shard, store)}

    def _spawn(self, version: Version, name: str) -> subprocess.Popen[bytes]:
        more = [] if version.workers is None else [name]
        return self._started("fs_notebook.worker.process", version, *more)

    def _spawn_audit(self, version: Version) -> subprocess.Popen[bytes]:
        return self._started("fs_notebook.worker.audits", version)

    def _started(self, module: str, version: Version, *names: str) -> subprocess.Popen[bytes]:
        path = log_path(self.connection, version.definition.shard)
        with path.open("ab") as sink:
            return subprocess.Popen(
                [sys.executable, "-m", module, version.definition.name, version.fingerprint,
                 *names],
                env=dict(self.connection.environment()),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=self.connection.home,
            )  # fmt: skip

    def _flip(self, group: Group, catalog: Catalog, store: OnlineStore) -> None:
        if group.wanted is None or group.served[-1:] == (group.wanted,):
            return
        version = group.version(group.wanted)
        if not all(self._caught_up(d.shard, store) for d in inputs_of(version.definition)):
            return

        def still_wanted(state: CatalogState) -> bool:
            now = state.groups[group.name]
            return now.wanted == version.number and now.served[-1:] != (version.number,)

        catalog.record(LIVE, group.name, {"version": version.number}, check=still_wanted)
        LOG.info("%s version %d is live", group.name, version.number)

    def _caught_up(self, shard: str, store: OnlineStore) -> bool:
        partitions = self._partitions(shard)
        if partitions is not None:
            # Whose workers they are does not matter: any of them may be on another machine.
            healths = [store.health(part) for part in shards_of(shard, partitions)]
            return all(h is not None and h.get("state") == "live" for h in healths)
        child, health = self.children.get(shard), store.health(shard)
        if child is None or child.process is None or health is None:
            return False
        # Only the worker that runs now can tell that it has caught up; what is stored may be of
        # another time.
        return bool(health.get("pid") == child.process.pid and health.get("state") == "live")

    def _publish(self, catalog: Catalog, store: OnlineStore) -> None:
        """See that the store serves each group's version, and by its number each that is current.

        A store that was flushed serves nothing until the state is built again.
        """
        _, published = store.published()
        state = catalog.refresh()
        wanted: dict[str, Any] = dict.fromkeys(published) | set_records(state)
        for group in state.groups.values():
            wanted[group.name] = None
            for version in running_of(state, group):
                pinned = pinned_name(group.name, version.number)
                made = served_record(group, version, self._partitions).to_record()
                record = record_built(made, published.get(pinned), store)
                if record is None:
                    continue
                wanted[pinned] = record
                if version == group.serving:
                    wanted[group.name] = record
        for name, now in wanted.items():
            if published.get(name) != now:
                store.publish(name, now)

    def _stop_children(self, shards: list[str]) -> None:
        children = [self.children.pop(shard) for shard in shards]
        processes = [c.process for c in children if c.process is not None]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS_MAX)


def _pid_file(connection: Connection) -> Path:
    return folder(connection) / "runner.pid"


def runner_pid(connection: Connection) -> int | None:
    """Return the process number of the connection's runner, None if none runs."""
    with (folder(connection) / "runner.lock").open("a+") as handle:
        try:
            # A shared lock: those who only look do not take each other for a runner.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            pass
    try:
        pid, born = _pid_file(connection).read_text().split()
        alive = abs(psutil.Process(int(pid)).create_time() - float(born)) < 1.0
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    # The number of a process that ended may be another's by now.
    return int(pid) if alive else None


def ensure_runner(connection: Connection, *, clock: Clock = SYSTEM) -> int:
    """Return the process number of the connection's runner, started if none runs.

    The runner is detached: it outlives the kernel, the Jupyter server and the terminal.

    Raises
    ------
    UnreachableError
        If it does not start within 20 s; shows the end of its log.
    """
    found = runner_pid(connection)
    if found is not None:
        return found
    path = folder(connection) / "runner.log"
    command = [sys.executable, "-m", "fs_notebook.worker.runner"]
    start_detached(command, log=path, folder=connection.home, env=connection.environment())
    until_s = clock.monotonic_s() + START_SECONDS_MAX
    while clock.monotonic_s() < until_s:
        found = runner_pid(connection)
        if found is not None:
            return found
        clock.sleep_s(0.02)
    raise UnreachableError(
        "The background runner did not start.",
        found=runner_log(connection),
        remedy=f"see {path}",
    )


def runner_log(connection: Connection) -> str:
    """Return the last lines of the runner's log, on one line."""
    path = folder(connection) / "runner.log"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "; ".join(lines[-5:])


def stop_runner(connection: Connection) -> bool:
    """Stop the connection's runner and its workers; tell whether one was running."""
    pid = runner_pid(connection)
    if pid is not None:
        with suppress(psutil.NoSuchProcess):
            _end([psutil.Process(pid)])
    # Workers whose runner was killed go on without one.
    _end(list(orphans(connection)))
    return pid is not None


def orphans(connection: Connection) -> Iterator[psutil.Process]:
    """Yield the connection's worker processes that run on this machine."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "fs_notebook.worker.process" not in process.cmdline():
                continue
            if process.environ().get(CONNECTION_VARIABLE) == connection.to_json():
                yield process


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in ended(processes, seconds_max=STOP_SECONDS_MAX * 2):
        # It hangs on a store or a ledger that is gone. Killing loses nothing: what is committed
        # is committed, and the rest is folded again.
        with suppress(psutil.NoSuchProcess):
            for doomed in [*process.children(recursive=True), process]:
                doomed.kill()


def serve_forever(
    connection: Connection, *, metrics: str | None = None, verify_every: str | None = None
) -> int:
    """Run in the foreground, for systemd and Kubernetes; returns the exit code.

    Parameters
    ----------
    metrics
        The address to serve Prometheus metrics at, ``"127.0.0.1:9109"``.
    verify_every
        How often to verify a sample of each live version, ``"1h"``; default: never.

    Raises
    ------
    UsageError
        If nothing can be served there, or it is no length of time.
    """
    every_s = None if verify_every is None else parse_every(verify_every)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (folder(connection) / "runner.lock").open("a+") as handle:
        if not _locked(handle):
            LOG.info("another runner serves this connection")
            return STOPPED
        me = psutil.Process()
        _pid_file(connection).write_text(f"{me.pid} {me.create_time()}")
        runner = Runner(connection, metrics=metrics, verify_every_s=every_s)

        def stop() -> None:
            runner.stopping = True

        with stops_heard(stop):
            try:
                runner.run()
            finally:
                _pid_file(connection).unlink(missing_ok=True)
    return STOPPED


def _locked(handle: IO[str], *, clock: Clock = SYSTEM) -> bool:
    """Take the runner's lock, waiting out those who only look."""
    until_s = clock.monotonic_s() + 2.0
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if clock.monotonic_s() > until_s:
                return False
            clock.sleep_s(0.01)


def main() -> int:
    """Run as `ensure_runner` starts it; what is wrong goes to the log."""
    try:
        connection = Connection.from_environment()
        return serve_forever(
            connection, metrics=os.environ.get(METRICS_VARIABLE) or None,
            verify_every=os.environ.get(AUDITS_VARIABLE) or None,
        )  # fmt: skip
    except FeatureStoreError as error:
        LOG.error("%s", error)
        return STUCK


if __name__ == "__main__":
    exit_now(main())
