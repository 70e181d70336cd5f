"""A simulated ledger and online store, for testing one's own features and this package's worker.

Everything is drawn from one seed and timed by a clock that only the simulation moves, so a run
that fails is repeated by its seed.
"""

from __future__ import annotations

from fs_notebook.testing.clock import SimulatedClock
from fs_notebook.testing.faults import Fault, Faults, Killed
from fs_notebook.testing.log import SimulatedLog
from fs_notebook.testing.simulation import Simulation
from fs_notebook.testing.store import SimulatedStore

__all__ = [
    "Fault",
    "Faults",
    "Killed",
    "SimulatedClock",
    "SimulatedLog",
    "SimulatedStore",
    "Simulation",
]
