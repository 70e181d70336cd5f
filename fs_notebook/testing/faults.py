"""What goes wrong in a simulation, and when: drawn from a seed, or said beforehand."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum

from fs_notebook.errors import UsageError


class Fault(StrEnum):
    """A thing that can go wrong, at each opportunity of its own."""

    KILLED = "killed"
    """The process ends: at any call of the ledger or the store, and after any commit."""
    LEDGER_SILENT = "ledger silent"
    """A call of the ledger, or the fetch of a message, fails with `UnreachableError`."""
    BATCH_CUT = "batch cut"
    """The next message does not come in time, so that a batch ends here."""
    REDELIVERY = "redelivery"
    """The client reconnects and hands over again messages that it had handed over."""
    DELAY = "delay"
    """A call takes up to 2 s of the simulation's clock."""
    APPEND_UNKNOWN = "append unknown"
    """An append stores its first events, or all, and is not answered."""
    STORE_SILENT = "store silent"
    """A call of the store other than a commit fails with `UnreachableError`."""
    COMMIT_LOST = "commit lost"
    """A commit fails with `UnreachableError` and did not take effect."""
    COMMIT_LATE = "commit late"
    """A commit fails with `UnreachableError` and arrives some calls later."""
    REPLY_LOST = "reply lost"
    """A commit takes effect and fails with `UnreachableError`."""
    OUT_OF_MEMORY = "out of memory"
    """The store refuses a commit for want of memory."""
    TAKEN_OVER = "taken over"
    """Somebody else claims the shard before a commit."""
    WENT_BACK = "went back"
    """The store restarts with its last moments lost."""
    FLUSHED = "flushed"
    """The store loses everything."""
    EVICTED = "evicted"
    """The store loses one committed value."""


class Killed(BaseException):
    """The simulated end of a process. No handler of errors catches it, as none outlives a kill."""


class Faults:
    """Decides at each opportunity whether a fault strikes.

    Each kind draws from a random sequence of its own, so that switching one on leaves the others
    where they were.

    Parameters
    ----------
    seed
        Where the draws come from.
    rates
        The probability of each kind at each of its opportunities, from 0 to 1.
    at
        The opportunities at which a kind strikes for certain, counted from 0.
    most
        The most faults that are drawn; those in `at` do not count.

    Examples
    --------
    >>> faults = Faults(at={Fault.REPLY_LOST: [1]})
    >>> [faults.strikes(Fault.REPLY_LOST) for _ in range(3)]
    [False, True, False]
    >>> faults
    Faults(seed=0: reply lost 1)
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        rates: Mapping[Fault, float] | None = None,
        at: Mapping[Fault, Collection[int]] | None = None,
        most: int = 20,
    ) -> None:
        self.seed = seed
        self.rates = dict(rates or {})
        self.at = {kind: frozenset(places) for kind, places in (at or {}).items()}
        for kind, rate in self.rates.items():
            if not 0 <= rate <= 1:
                raise UsageError(
                    f"The rate of {kind!s} is no probability.", found=str(rate), remedy="0 to 1"
                )
        self.struck: list[tuple[Fault, int]] = []
        """What struck, and at which opportunity of its kind, in order."""
        self.on_step: Callable[[str], None] = lambda where: None
        """Called at each step, with what is about to be done; what it raises goes on from there."""
        self.steps = 0
        self._left = most
        self._chances = {kind: random.Random(f"{kind} {seed}") for kind in Fault}
        self._seen = dict.fromkeys(Fault, 0)
        self._calm = False

    def step(self, where: str) -> None:
        """Note that something is about to be done; raise `Killed` if the process ends here."""
        if self._calm:
            return
        self.steps += 1
        self.on_step(where)
        if self.strikes(Fault.KILLED):
            raise Killed(where)

    def strikes(self, kind: Fault) -> bool:
        """Tell whether a fault strikes at this opportunity."""
        if self._calm or not self.may(kind):
            return False
        place = self._seen[kind]
        self._seen[kind] += 1
        told = place in self.at.get(kind, ())
        drawn = self._left > 0 and self._chances[kind].random() < self.rates.get(kind, 0.0)
        if not told and not drawn:
            return False
        self._left -= not told
        self.struck.append((kind, place))
        return True

    def may(self, kind: Fault) -> bool:
        """Tell whether a kind is switched on at all."""
        return kind in self.rates or kind in self.at

    def draw(self, kind: Fault, below: int) -> int:
        """Return how far a fault goes: an integer from 0 to `below`, exclusive."""
        return self._chances[kind].randrange(below)

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Let nothing go wrong, and nobody else's turn come, inside."""
        before, self._calm = self._calm, True
        try:
            yield
        finally:
            self._calm = before

    def __repr__(self) -> str:
        struck = ", ".join(f"{kind} {place}" for kind, place in self.struck)
        return f"Faults(seed={self.seed}: {struck or 'none struck'})"
