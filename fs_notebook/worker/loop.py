"""The worker: one loop that folds history, then the live stream, and commits as it goes.

A live worker keeps no state between batches. It loads the states that a batch touches at the
stored position, folds, and commits new absolute values together with the new position. In history
it folds several batches before it commits (`worker.held`). Whatever interrupts it, the store is at
some position of the log with exactly the values of that position, and the next worker goes on from
the very next event.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import polars as pl

from fs_notebook.catalog.drift import check_columns
from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.errors import (
    FeatureStoreError,
    FencedError,
    HistoryLost,
    StalePosition,
    StreamChanged,
    UnknownPosition,
    UnreachableError,
)
from fs_notebook.log.parted import PartLog
from fs_notebook.log.protocol import EARLIEST, PUBLISHED, Batch, EventLog
from fs_notebook.online.protocol import Lease, OnlineStore, part_shard
from fs_notebook.online.states import StateCodec
from fs_notebook.position import START, Cut, Way
from fs_notebook.worker.ends import Ends, EndsBeside
from fs_notebook.worker.held import Held
from fs_notebook.worker.timings import Timings

BOOTSTRAP_ROWS_MAX = 200_000
GATHER_ROWS_MAX = 200_000
"""With what is held, below what a commit takes, even if each row is of another entity."""
LIVE_ROWS_MAX = 10_000
GATHER_SECONDS = 0.5
COMMIT_SECONDS = 2.0
COMMIT_SHARE = 0.1
"""Of a bootstrap's time at most, where what it holds leaves it the choice."""
HEARTBEAT_SECONDS = 0.5
HEARTBEAT_TTL_SECONDS = 10.0
ERROR_TTL_SECONDS = 3_600.0
BACKOFF_SECONDS_MAX = 5.0
COUNTERS = ("events", "null_keys", "late", "dead")


@dataclass
class Progress:
    """What the worker reports of itself."""

    state: str = "starting"
    rate: float = 0.0
    error: str | None = None
    progress: float | None = None
    counted: int = 0
    since_s: float = 0.0
    beat_s: float = field(default=-1e9)
    commits: Timings = field(default_factory=Timings)


class Worker:
    """Keeps one feature version's shard current.

    Parameters
    ----------
    definition
        What to fold.
    log, store
        Where events come from and values go to.
    should_stop
        Asked between batches; True ends `run` after the batch is committed.
    partition
        The one partition to fold, into a shard of its own; None: all, in one shard.
    beside
        Whether reports ask for the stream's end in a thread of their own, so that events are not
        kept waiting; False asks in the loop, for a simulation.
    commit_every_s
        How many seconds of history are folded between two commits; more where a commit itself
        takes longer than `COMMIT_SHARE` of that, fewer where what is held grows too large.
    is_wanted
        Asked when the state is not where the worker left it: False ends `run`, for what was
        retired must not be built again.
    """

    def __init__(
        self,
        definition: Definition,
        log: EventLog,
        store: OnlineStore,
        *,
        partition: int | None = None,
        beside: bool = True,
        commit_every_s: float = COMMIT_SECONDS,
        clock: Clock = SYSTEM,
        should_stop: Callable[[], bool] = lambda: False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.definition = definition
        self.shard = definition.shard
        self.log = joined_log(definition.plan, definition.joined, log, filtered=True)
        if partition is not None:
            self.shard = part_shard(definition.shard, partition)
            self.log = cast(EventLog, PartLog(self.log, partition))
        self.store = store
        self.fold = Fold(definition.plan)
        self.codec = StateCodec(self.fold)
        self._clock = clock
        self._commit_every_s = commit_every_s
        self._should_stop = should_stop
        self._is_wanted = is_wanted
        self._report = Progress()
        self._name = definition.source.name
        self._ends = (EndsBeside if beside else Ends)(self._end)
        self._way = Way(START)
        self._epoch = 0
        self._schemas_met = 0

    def run(self) -> None:
        """Bootstrap if that is still to do, then follow the stream until told to stop.

        Raises
        ------
        FencedError
            If another worker took the shard over.
        FeatureStoreError
            What cannot be mended by trying again: lost history, a changed stream, overflow.
        """
        wait_s = 0.1
        while not self._should_stop():
            try:
                lease = self._claim()
                with self._same_stream(lease):
                    lease = self._bootstrap(lease)
                    wait_s = 0.1
                    self._follow(lease)
            except FencedError:
                if not self._went_back():
                    # The shard and its report are somebody else's now.
                    raise
                self._pause(wait_s)
            except (StalePosition, UnreachableError) as error:
                # The store went back to an older position, was flushed, or does not answer:
                # claiming again reads back where it is.
                self._note("retrying", error)
                if isinstance(error, StalePosition) and not self._is_wanted():
                    return
                self._pause(wait_s)
                wait_s = min(2 * wait_s, BACKOFF_SECONDS_MAX)
            except Exception as error:
                self._note("failing", error)
                raise

    def _went_back(self) -> bool:
        """Tell whether the store was restored to a moment before this worker's own claim.

        Epochs only grow: a newer one is another worker's, an older one is of the past. While the
        store does not answer it cannot be told, and claiming would fence whoever has the shard.
        """
        wait_s = 0.1
        while not self._should_stop():
            try:
                stored = self.store.state(self.shard)
            except UnreachableError:
                self._pause(wait_s)
                wait_s = min(2 * wait_s, BACKOFF_SECONDS_MAX)
            else:
                return stored is None or stored.epoch < self._epoch
        return False

    def _claim(self) -> Lease:
        lease = self.store.claim(self.shard, fingerprint=self.definition.fingerprint)
        self._epoch = lease.epoch
        known = lease.info.get("identity")
        if known is None:
            begun = self.log.beginning(self._name).to_json()
            info = {"identity": self.log.identity(self._name), "begun": begun}
            return Lease(lease.shard, lease.epoch, lease.cut, info)
        self._check_stream(lease)
        return lease

    def _check_stream(self, lease: Lease) -> None:
        """Make sure that the stream is still the one that the state was built from.

        Of a stream without an identity of its own only its positions can tell: those of one that
        was deleted are refused when they are read from.
        """
        known, now = lease.info["identity"], self.log.identity(self._name)
        if known != now and EARLIEST not in known and EARLIEST not in now:
            raise StreamChanged(
                f"The stream {self._name!r} is not the one that {self.definition.name!r} was "
                "built from.",
                found="it was deleted and made again",
                remedy="promote the feature again to rebuild it from the new stream",
            )

    def _check_schemas(self, *, always: bool = False) -> None:
        """Make sure that the columns are still written, where there may be another schema.

        All that lies before a frozen end was written by schemas that are known by now; what is
        read live has met its schema before it comes here.
        """
        met = getattr(self.log, "schemas_met", 0)
        if always or met != self._schemas_met:
            check_columns(self.definition, self.log)
            self._schemas_met = met

    def _check_begun(self, lease: Lease, only: int | None = None) -> dict[str, str]:
        """Make sure that partitions of which nothing is folded still begin where they did.

        Reading those starts at whatever comes first, so no position tells that events are gone.
        Returns where they begin now, with those that had no event before. Of these, what is
        removed between two workers cannot be told: a broker does not say what it had.

        Raises
        ------
        HistoryLost
            If events that were there when the state was begun were removed before it got there.
        """
        if "begun" not in lease.info:
            return {}
        known, cut = Cut.from_json(lease.info["begun"]), lease.cut or START
        now = self.log.beginning(self._name, only)
        for first in known:
            partition = first.partition
            if cut.get(partition) is None and only in (None, partition):
                found = now.get(partition)
                if found != first:
                    raise HistoryLost(
                        f"Events of stream {self._name!r} were removed before "
                        f"{self.definition.name!r} had folded them.",
                        found=f"partition {partition} began at {first}, now "
                        + (f"at {found}" if found else "it has none"),
                        remedy="keep the stream for ever, then promote again to rebuild from "
                        "what is left",
                    )
        fresh = [p for p in now if known.get(p.partition) is None]
        return {"begun": known.advanced(fresh).to_json()}

    def _end(self) -> Cut:
        return self.log.end(self._name)

    @contextmanager
    def _same_stream(self, lease: Lease) -> Iterator[None]:
        """Say of a position that is not there, if so it is, that its stream was made again."""
        try:
            yield
        except (HistoryLost, UnknownPosition):
            self._check_stream(lease)
            raise

    def _bootstrap(self, lease: Lease) -> Lease:
        """Fold history up to a cut that was frozen when this began.

        A worker that starts again catches up in the same way before it calls itself live; what
        was `built` once is served meanwhile.
        """
        frozen = lease.info.get("target") if lease.info.get("phase") != "live" else None
        target = self.log.end(self._name) if frozen is None else Cut.from_json(frozen)
        if lease.info.get("phase") == "live" and (lease.cut or START).contains(target):
            self._report.error = None
            self._beat("live", lease, None, force=True)
            return lease
        self._way = Way(target)
        begun = self._check_begun(lease)
        info = {**lease.info, **begun, "phase": "bootstrapping", "target": target.to_json()}
        lease = self.store.commit(lease, cut=lease.cut or START, puts={}, info=info)
        self._beat("bootstrapping", lease, target, force=True)
        batches = self.log.read(
            self.definition.source,
            start=lease.cut or START,
            end=target,
            columns=self.fold.plan.columns,
            rows_max=BOOTSTRAP_ROWS_MAX,
        )
        self._check_stream(lease)
        self._check_schemas(always=True)
        lease, done = self._fold_history(lease, gathered(batches, clock=self._clock), target)
        if not done:
            return lease
        info = {**lease.info, "phase": "live", "built": True}
        lease = self.store.commit(lease, cut=lease.cut or START, puts={}, info=info)
        self._report.error = None
        self._beat("live", lease, None, force=True)
        return lease

    def _follow(self, lease: Lease) -> None:
        """Go on from the very next event, for as long as nobody says stop."""
        if self._should_stop():
            return
        tail: Iterator[Batch | None] = self.log.tail(
            self.definition.source,
            start=lease.cut or START,
            columns=[*self.fold.plan.columns, PUBLISHED],
            rows_max=LIVE_ROWS_MAX,
        )
        try:
            self._check_stream(lease)
            for batch in tail:
                if batch is not None:
                    lease = self._step(lease, batch)
                self._beat("live", lease, None)
                if self._should_stop():
                    return
        finally:
            close = getattr(tail, "close", None)
            if close is not None:
                close()

    def _fold_history(
        self, lease: Lease, batches: Iterable[Batch], target: Cut
    ) -> tuple[Lease, bool]:
        """Fold batches and commit what they come to, not each of them, until told to stop.

        Return what is committed, and whether that is all.
        """
        held = Held(self.fold, self.codec, lease, is_all=lease.cut in (None, START))
        committed_s, wait_s = self._clock.monotonic_s(), self._commit_every_s
        done = True
        for batch in batches:
            self._take(lease, held, batch)
            begun_s = self._clock.monotonic_s()
            if held.is_full or begun_s - committed_s >= wait_s:
                lease = self._commit(lease, held)
                committed_s = self._clock.monotonic_s()
                wait_s = max(self._commit_every_s, (committed_s - begun_s) / COMMIT_SHARE)
            self._beat("bootstrapping", lease, target, reached=held.cut)
            if self._should_stop():
                done = False
                break
        return (lease if held.cut == lease.cut else self._commit(lease, held)), done

    def _step(self, lease: Lease, batch: Batch) -> Lease:
        """Fold one batch and commit it: states, counters and position in one."""
        held = Held(self.fold, self.codec, lease, is_all=False)
        self._take(lease, held, batch)
        return self._commit(lease, held)

    def _take(self, lease: Lease, held: Held, batch: Batch) -> None:
        """Fold one batch into what is held."""
        before = held.cut.get(batch.partition)
        if before is None or before.ledger != batch.end.ledger:
            # A client that reconnects goes on with whatever stream has the name by now; one that
            # was made again has other ledgers.
            self._check_stream(lease)
        if before is None:
            # Once its first batch is here, nothing was removed before that if nothing was by now.
            self._check_begun(lease, batch.partition)
        self._check_schemas()
        frame, null_keys = self.fold.project(batch.rows, batch.positions)
        folded, fresh = held.add(frame, partial(self.store.load, lease))
        counted = {
            "events": batch.rows.height,
            "null_keys": null_keys,
            "late": folded.late,
            "dead": len(batch.dead),
        }
        info = held.info
        for name in COUNTERS:
            info[name] = int(info.get(name, 0)) + counted[name]
        if "entities" in info or held.cut == START:
            # A state from before entities were counted stays without their number.
            info["entities"] = int(info.get("entities", 0)) + fresh
        if PUBLISHED in batch.rows.columns and batch.rows.height:
            newest = int(batch.rows[PUBLISHED].to_physical().max())  # type: ignore[arg-type]
            info["published"] = max(newest, int(info.get("published", 0)))
        held.cut = held.cut.advanced([batch.end])
        self._report.counted += batch.rows.height

    def _commit(self, lease: Lease, held: Held) -> Lease:
        """Write what changed, and the position up to which it is folded."""
        puts, deletes = held.changes()
        begun_s = self._clock.monotonic_s()
        lease = self.store.commit(lease, cut=held.cut, puts=puts, deletes=deletes, info=held.info)
        self._report.commits.add(self._clock.monotonic_s() - begun_s)
        held.settle(puts)
        return lease

    def _beat(
        self,
        state: str,
        lease: Lease,
        target: Cut | None,
        *,
        force: bool = False,
        reached: Cut | None = None,
    ) -> None:
        """Report, at most every `HEARTBEAT_SECONDS`; stop a worker that was taken over.

        What is committed is told; of the way to a target, what is `reached` by now.
        """
        now_s = self._clock.monotonic_s()
        report = self._report
        elapsed_s = now_s - report.beat_s
        if not force and (elapsed_s < HEARTBEAT_SECONDS or not self._ends.ready(now_s)):
            return
        stored = self.store.state(self.shard)
        if stored is None or stored.epoch != lease.epoch:
            # An idle worker commits nothing, so it asks whether the shard is still its own.
            if stored is None:
                raise StalePosition(f"The state of {self.shard!r} is gone from the store.")
            raise FencedError(
                f"Another worker took {self.shard!r} over.", found=f"epoch {stored.epoch}"
            )
        if (stored.cut, stored.info) != (lease.cut, lease.info):
            # A store that was restored to an earlier moment: the events since are folded again.
            # The phase is looked at too: what a restored store calls unfinished is not served.
            raise StalePosition(
                f"The stored position of {self.shard!r} moved behind the worker's back.",
                found=f"{stored.cut} ({stored.info.get('phase')}) instead of {lease.cut}",
            )
        if elapsed_s < 1e6:
            report.rate = report.counted / max(elapsed_s, 1e-6)
        report.counted, report.beat_s, report.state = 0, now_s, state
        end = target if target is not None else self._ends.newest()
        cut = lease.cut or START
        lag = cut.entries_to(end)
        report.progress = None if target is None else self._way.share(reached or cut)
        self._send(cut, lag, lease)

    def _send(
        self,
        cut: Cut | None,
        lag: int | None,
        lease: Lease | None,
        *,
        ttl_seconds: float = HEARTBEAT_TTL_SECONDS,
    ) -> None:
        report = self._report
        counters = {} if lease is None else {n: lease.info.get(n, 0) for n in COUNTERS}
        self.store.heartbeat(
            self.shard,
            {
                "state": report.state,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "position": None if cut is None else str(cut),
                "lag": lag,
                "rate": round(report.rate, 1),
                "progress": report.progress,
                "error": report.error,
                "at_us": self._clock.now_us(),
                "commits": report.commits.to_dict(),
                **counters,
            },
            ttl_seconds=ttl_seconds,
        )

    def _note(self, state: str, error: Exception) -> None:
        """Keep the error for `status`, long enough for a person; telling it must not hide it."""
        known = isinstance(error, FeatureStoreError)
        self._report.error = str(error) if known else f"{type(error).__name__}: {error}"
        self._report.state = state
        with suppress(FeatureStoreError):
            self._send(None, None, None, ttl_seconds=ERROR_TTL_SECONDS)

    def _pause(self, seconds: float) -> None:
        until_s = self._clock.monotonic_s() + seconds
        while self._clock.monotonic_s() < until_s and not self._should_stop():
            self._clock.sleep_s(0.05)


def gathered(
    batches: Iterable[Batch],
    *,
    clock: Clock,
    rows_max: int = GATHER_ROWS_MAX,
    seconds_max: float = GATHER_SECONDS,
) -> Iterator[Batch]:
    """Yield the batches of each partition joined; no more than `rows_max` rows are held.

    A commit costs by the entities that it touches, and in history each batch touches much the
    same ones: joined they are written once. A log that hands over slowly is not waited for
    longer than `seconds_max`, so that reports stay fresh.
    """
    held: dict[int, list[Batch]] = {}
    rows: dict[int, int] = {}
    since_s = 0.0
    for batch in batches:
        now_s = clock.monotonic_s()
        if held and now_s - since_s > seconds_max:
            yield from map(_joined, held.values())
            held, rows = {}, {}
        while held and sum(rows.values()) + batch.rows.height > rows_max:
            most = max(rows, key=lambda partition: rows[partition])
            rows.pop(most)
            yield _joined(held.pop(most))
        if not held:
            since_s = now_s
        held.setdefault(batch.partition, []).append(batch)
        rows[batch.partition] = rows.get(batch.partition, 0) + batch.rows.height
    yield from map(_joined, held.values())


def _joined(held: list[Batch]) -> Batch:
    if len(held) == 1:
        return held[0]
    dead = tuple(letter for batch in held for letter in batch.dead)
    rows = pl.concat([batch.rows for batch in held])

    def positions() -> pl.DataFrame:
        return pl.concat([batch.positions() for batch in held])

    return Batch(held[-1].partition, rows, held[-1].end, dead, positions)
