"""A ledger, a store and workers in one process: one's own features, through every mishap."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.model import (
    DRAFTED,
    AnyDefinition,
    Definition,
    DerivedDefinition,
    Group,
    Version,
)
from fs_notebook.clock import from_us
from fs_notebook.compute.unions import UnionLog
from fs_notebook.definitions import Definitions
from fs_notebook.errors import FencedError, IntegrityError
from fs_notebook.ingest import declare, fit, to_frame, with_time
from fs_notebook.log.parted import PartLog
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.protocol import part_shard
from fs_notebook.online.serve import FeatureReader
from fs_notebook.online.vector import FeatureVector
from fs_notebook.position import START, Cut
from fs_notebook.sources import Sources
from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.testing.faults import Fault, Faults, Killed
from fs_notebook.testing.log import SimulatedLog
from fs_notebook.testing.store import SimulatedStore
from fs_notebook.testing.turns import Turns
from fs_notebook.transforms import Transforms
from fs_notebook.types import conform
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.records import served_record, stored_record
from fs_notebook.worker.verify import Verification, verify, verify_part

STEPS_MAX = 200_000
ACTION_RATE = 0.05
FENCED_MAX = 2
"""How often a worker comes back for a shard that others claim."""


class Simulation:
    """Runs feature definitions as production does, on a simulated ledger and store.

    Workers are killed, cut off, fenced and set back as `rates` and `at` say, at points drawn
    from the seed; then nothing goes wrong any more, a last worker catches up, and every online
    value must be what a replay of the ledger gives.

    Parameters
    ----------
    seed
        What everything is drawn from: the same seed does the same again.
    rates, at, most
        What goes wrong, and how often; see `Faults`. By default nothing does.

    Attributes
    ----------
    log, store, clock, faults
        The parts, for damage of one's own.
    restarts, rebuilds
        How often a worker was started again after a kill, and a shard built again from the start
        because a value in it was lost.

    Examples
    --------
    >>> sim = Simulation(seed=7, rates={Fault.KILLED: 0.05, Fault.REPLY_LOST: 0.1})
    >>> reads = [{"user": "u1", "seconds": n, "at": f"2024-01-01T00:0{n}:00Z"} for n in range(9)]
    >>> sim.upload(reads, "reads", time="at")
    >>> total = sim.define("total", "SELECT user, SUM(seconds) AS total FROM reads GROUP BY user")
    >>> sim.run(total)
    >>> sim.check(total)
    >>> sim.serve(total, user=["u1", "u2"]).to_dict()
    {'user': ['u1', 'u2'], 'total': [36, None]}
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        rates: Mapping[Fault, float] | None = None,
        at: Mapping[Fault, Collection[int]] | None = None,
        most: int = 20,
    ) -> None:
        self.seed = seed
        self.clock = SimulatedClock()
        self.faults = Faults(seed, rates=rates, at=at, most=most)
        self.log = SimulatedLog(seed=seed, clock=self.clock, faults=self.faults)
        self.store = SimulatedStore(clock=self.clock, faults=self.faults)
        self.restarts = self.rebuilds = 0
        self._read_log = cast(EventLog, UnionLog(self.log))
        self._chance = random.Random(f"simulation {seed}")
        self._running: dict[str, _Share] = {}
        self._partitions: dict[str, int] = {}
        self._actions: deque[Callable[[], object]] = deque()
        self._steps_left = 0
        self._turns = Turns(seed)

    def upload(
        self,
        data: Any,
        stream: str,
        *,
        time: str | None = None,
        key: str | Sequence[str] = (),
        partitions: int = 1,
    ) -> None:
        """Make a stream of `data` and append it; nothing goes wrong while it does.

        Parameters
        ----------
        data
            A table, dicts or a file, as for `Session.upload`.
        stream
            The stream's name.
        time
            The column of event times; None for a table that is only joined with.
        key
            The columns that route an event to a partition.
        partitions
            How many partitions the stream has.
        """
        keys = [key] if isinstance(key, str) else list(key)
        frame = conform(with_time(to_frame(data), time))
        declared = declare(frame, stream, time=time, key=keys, partitions=partitions)
        with self.faults.calm():
            self.log.create(declared)
        self.append(frame, stream)

    def append(self, data: Any, stream: str) -> Cut:
        """Append events to a stream; nothing goes wrong while it does. Return the cut after them.

        To append while workers run, hand it over: ``sim.meanwhile(lambda: sim.append(…))``.
        """
        with self.faults.calm():
            declared = self.log.infer_stream(stream)
            return self.log.append(declared, fit(to_frame(data), declared))

    def create_view(self, name: str, text: object) -> None:
        """Name a row transform; see `Session.create_view`."""
        with self.faults.calm():
            self._definitions.transforms.create(name, text, description=None)

    def define(
        self,
        name: str,
        text: object,
        *,
        entity: str | Sequence[str] = (),
        stream: str | None = None,
        window: str | None = None,
        closed: str = "left",
        resolution: str | None = None,
        ttl: str | None = None,
        request: str | None = None,
    ) -> AnyDefinition:
        """Compile a feature group, in SQL or Polars; the options are those of `Session.define`.

        A group that is derived from others finds those that were defined here before.
        """
        with self.faults.calm():
            definition = self._definitions.compile(
                name, text, entity=entity, stream=stream, window=window, closed=closed,
                resolution=resolution, ttl=ttl, request=request, tags=(), written=None,
                refresh_statistics=False,
            )  # fmt: skip
            self._catalog.record(DRAFTED, name, {"definition": definition.to_dict()})
        return definition

    def meanwhile(self, *actions: Callable[[], object]) -> None:
        """Do these, in order, while workers run: at points of theirs drawn from the seed.

        What is left when a worker has caught up is done then, and the worker goes on.
        """
        self._actions.extend(actions)

    def run(self, definition: AnyDefinition, *, workers: int = 1, shared: bool = False) -> None:
        """Build and follow a feature's values, until everything in the ledger is folded.

        What was run before is brought up to date again, as its own worker would have done.

        Parameters
        ----------
        definition
            What to fold; of a derived group, its inputs.
        workers
            How many workers there are for each shard, all alive at once.
        shared
            Whether each partition has a shard of its own, as with ``promote --workers``: its
            owner changes whenever another of its workers claims it.

        Raises
        ------
        FeatureStoreError
            What ends a worker for good: lost history, a changed stream, overflow.
        AssertionError
            If they do not come to an end in 200,000 steps.
        """
        for stored in _stored(definition):
            if not shared:
                self._run([_Share(stored, None)], workers)
                continue
            # Partitions that are added meanwhile are somebody's as well.
            known = 0
            while (count := self._count(stored)) != known:
                self._partitions[stored.shard] = known = count
                self._run([_Share(stored, part) for part in range(count)], workers)

    def check(self, definition: AnyDefinition) -> None:
        """Raise `AssertionError` unless every online value is what a replay of the ledger gives.

        Each event must have been counted once as well.
        """
        for stored in _stored(definition):
            partitions = self._partitions.get(stored.shard)
            outcome = self._verified(stored, partitions)
            parts = [None] if partitions is None else range(partitions)
            states = [self.store.memory.state(_Share(stored, part).shard) for part in parts]
            counted = sum(state.info.get("events", 0) for state in states if state is not None)
            assert outcome.ok, f"{outcome!r}\n  {self!r}"
            assert counted == outcome.events, (
                f"{counted} events were counted, and the ledger has {outcome.events}\n  {self!r}"
            )

    def serve(self, definition: AnyDefinition, **entities: Any) -> FeatureVector:
        """Read a feature group's online values at the clock's time; see `Session.serve`."""
        version = Version(1, definition, "simulation", from_us(self.clock.now_us()))
        counts = [self._partitions.get(stored.shard) for stored in _stored(definition)]
        if isinstance(definition, Definition):
            record = stored_record(definition, 1, counts[0]).to_record()
        else:
            assert counts == [None] * len(counts), "derived groups of shared ones are not simulated"
            record = served_record(Group(definition.name), version).to_record()
        memory = self.store.memory
        memory.publish(definition.name, record)
        reader = FeatureReader(memory, clock=self.clock)
        return reader.read(definition.name, **entities)

    def __repr__(self) -> str:
        return f"Simulation(seed={self.seed}), {self.faults!r}"

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(self._read_log, actor="simulation", clock=self.clock)

    @cached_property
    def _definitions(self) -> Definitions:
        sources = Sources(self._catalog, self._read_log, clock=self.clock)
        transforms = Transforms(self._catalog, self._read_log, sources)
        return Definitions(self._catalog, self._read_log, sources, transforms, clock=self.clock)

    def _count(self, stored: Definition) -> int:
        with self.faults.calm():
            return self._read_log.partitions(stored.source.name)

    def _run(self, shares: Sequence[_Share], workers: int) -> None:
        self._steps_left = STEPS_MAX
        self.faults.on_step = self._step
        try:
            work = [partial(self._work, share) for share in shares for _ in range(workers)]
            # One worker needs no thread beside this one.
            errors = self._turns.run(work) if len(work) > 1 else [_outcome(work[0])]
        finally:
            self.faults.on_step = lambda where: None
        for error in errors:
            if error is not None:
                error.add_note(repr(self))
                raise error
        self._running |= {share.shard: share for share in shares}
        with self.faults.calm():
            self.store.settle()
            # What happened to the store happened to every shard in it.
            for running in self._running.values():
                self._work(running)
                evicted = any(kind is Fault.EVICTED for kind, _ in self.faults.struck)
                if evicted and not self._verified(running.definition, None, running.part).ok:
                    self._rebuild(running)
                    self._work(running)

    def _work(self, share: _Share) -> None:
        """Keep a worker going until it has caught up, or others have the shard for good."""
        fenced = 0
        while True:
            worker = Worker(
                share.definition, self._read_log, self.store, partition=share.part,
                beside=False, clock=self.clock, should_stop=partial(self._is_done, share),
                # Its clock stands still while it folds: one commit in history, or one a batch.
                commit_every_s=self.seed % 2,
            )  # fmt: skip
            try:
                worker.run()
                return
            except Killed:
                self.restarts += 1
            except FencedError:
                fenced += 1
                if fenced > FENCED_MAX:
                    return
            except IntegrityError:
                if not self.faults.may(Fault.EVICTED):
                    raise
                self._rebuild(share)

    def _rebuild(self, share: _Share) -> None:
        """Do what the error about a lost value says: drop the shard and fold it from the start."""
        self.rebuilds += 1
        self.store.memory.drop(share.shard)

    def _is_done(self, share: _Share) -> bool:
        with self.faults.calm():
            state = self.store.memory.state(share.shard)
            end = share.seen(self._read_log).end(share.definition.source.name)
            live = state is not None and state.info.get("phase") == "live"
            caught_up = live and state is not None and (state.cut or START) == end
            if caught_up and self._actions:
                self._actions.popleft()()
                return False
            return caught_up

    def _step(self, where: str) -> None:
        self._steps_left -= 1
        assert self._steps_left > 0, f"no end after {STEPS_MAX:,} steps, {where}"
        if self._actions and self._chance.random() < ACTION_RATE:
            with self.faults.calm():
                self._actions.popleft()()
        self._turns.step()

    def _verified(
        self, definition: Definition, partitions: int | None, part: int | None = None
    ) -> Verification:
        now_us = self.clock.now_us()
        with self.faults.calm():
            if part is not None:
                return verify_part(
                    definition, self._read_log, self.store.memory, part, now_us=now_us
                )
            return verify(
                definition, 1, self._read_log, self.store.memory, now_us=now_us,
                partitions=partitions,
            )  # fmt: skip


@dataclass(frozen=True)
class _Share:
    """What one worker folds: a definition, of one partition or of all."""

    definition: Definition
    part: int | None

    @property
    def shard(self) -> str:
        shard = self.definition.shard
        return shard if self.part is None else part_shard(shard, self.part)

    def seen(self, log: EventLog) -> EventLog:
        return log if self.part is None else cast(EventLog, PartLog(log, self.part))


def _stored(definition: AnyDefinition) -> tuple[Definition, ...]:
    return definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)


def _outcome(task: Callable[[], None]) -> Exception | None:
    try:
        task()
    except Exception as error:  # noqa: BLE001 - it is raised again, with the seed beside it.
        return error
    return None
