"""A worker that shares a stream's partitions with others: one loop for each that it owns.

Who owns which is told by the ledger (`EventLog.share`). Each loop is a `Worker` on a log of one
partition with a shard of its own: taking a partition over is claiming its shard, whose position
says where to go on. Whoever had it before is fenced, whether it has noticed yet or not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fs_notebook.catalog.model import Definition
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, FencedError, UnreachableError
from fs_notebook.log.protocol import EventLog, Shares
from fs_notebook.online.protocol import OnlineStore, part_shard
from fs_notebook.worker.loop import HEARTBEAT_TTL_SECONDS, Worker
from fs_notebook.worker.shared import own_report

LOG = logging.getLogger("fs_notebook.worker")
LOOK_SECONDS = 0.25
FENCED_SECONDS = 1.0
ACKNOWLEDGE_SECONDS = 2.0
LEAVE_SECONDS_MAX = 10.0


@dataclass
class _Hand:
    """The loop of one partition, in a thread of its own."""

    partition: int
    leave: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    error: Exception | None = None


class Crew:
    """Folds the partitions that are this worker's, as long as they are.

    Parameters
    ----------
    definition
        What to fold: one stream's events.
    shares
        Says which partitions are whose; closed at the end of `run`.
    name
        Under which this worker reports on itself.
    should_stop, is_wanted
        As for `Worker`.
    """

    def __init__(
        self,
        definition: Definition,
        log: EventLog,
        store: OnlineStore,
        shares: Shares,
        *,
        name: str,
        clock: Clock = SYSTEM,
        should_stop: Callable[[], bool] = lambda: False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.definition = definition
        self.log = log
        self.store = store
        self._shares = shares
        self._name = name
        self._clock = clock
        self._should_stop = should_stop
        self._is_wanted = is_wanted
        self._hands: dict[int, _Hand] = {}
        self._again_s: dict[int, float] = {}
        self._acknowledged_s = 0.0
        self._gone = False

    @property
    def owns(self) -> list[int]:
        """The partitions that are folded here now."""
        return sorted(self._hands)

    def run(self) -> None:
        """Take up and let go of partitions until told to stop.

        Raises
        ------
        FeatureStoreError
            What ends the loop of one partition for good: lost history, a changed stream.
        """
        try:
            while not self._should_stop() and not self._gone:
                self._look()
                self._tell()
                self._clock.sleep_s(LOOK_SECONDS)
        finally:
            self._let_go(self.owns)
            self._shares.close()

    def _look(self) -> None:
        for hand in [h for h in self._hands.values() if not _alive(h)]:
            del self._hands[hand.partition]
            if isinstance(hand.error, FencedError):
                # Perhaps the news of who owns it has not come here yet.
                LOG.info("partition %d was taken over", hand.partition)
                self._again_s[hand.partition] = self._clock.monotonic_s() + FENCED_SECONDS
            elif hand.error is not None:
                raise hand.error
            elif not hand.leave.is_set() and not self._should_stop():
                # It found that nobody wants the version any more.
                self._gone = True
                return
        try:
            owned = self._shares.owned()
        except UnreachableError as error:
            # Nobody is asked to stop for that: a new owner's claim ends what is not ours any more.
            LOG.warning("%s", error)
            return
        self._let_go([p for p in self._hands if p not in owned])
        now_s = self._clock.monotonic_s()
        for partition in sorted(owned - self._hands.keys()):
            if now_s >= self._again_s.get(partition, now_s):
                self._take_up(partition)

    def _take_up(self, partition: int) -> None:
        LOG.info("partition %d is taken up", partition)
        hand = self._hands[partition] = _Hand(partition)
        worker = Worker(
            self.definition, self.log, self.store, partition=partition, clock=self._clock,
            should_stop=lambda: hand.leave.is_set() or self._should_stop(),
            is_wanted=self._is_wanted,
        )  # fmt: skip

        def work() -> None:
            try:
                worker.run()
            except Exception as error:  # noqa: BLE001 - it goes on in the other thread.
                hand.error = error

        hand.thread = threading.Thread(target=work, name=f"partition-{partition}", daemon=True)
        hand.thread.start()

    def _let_go(self, partitions: list[int]) -> None:
        """Stop these loops, each after the commit that it is at."""
        hands = [self._hands.pop(p) for p in partitions]
        for hand in hands:
            LOG.info("partition %d is let go", hand.partition)
            hand.leave.set()
        for hand in hands:
            if hand.thread is not None:
                hand.thread.join(LEAVE_SECONDS_MAX)

    def _tell(self) -> None:
        """Report, and acknowledge what is committed, if the store answers."""
        with suppress(FeatureStoreError):
            shards = {p: part_shard(self.definition.shard, p) for p in self.owns}
            live = all((self.store.health(s) or {}).get("state") == "live" for s in shards.values())
            report = own_report(
                "live" if live else "bootstrapping", self.owns, self._clock.now_us()
            )
            self.store.heartbeat(self._name, report, ttl_seconds=HEARTBEAT_TTL_SECONDS)
            now_s = self._clock.monotonic_s()
            if now_s - self._acknowledged_s < ACKNOWLEDGE_SECONDS:
                return
            self._acknowledged_s = now_s
            for partition, shard in shards.items():
                state = self.store.state(shard)
                position = None if state is None or state.cut is None else state.cut.get(partition)
                if position is not None:
                    self._shares.committed(position)


def _alive(hand: _Hand) -> bool:
    return hand.thread is not None and hand.thread.is_alive()
