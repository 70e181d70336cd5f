"""Duels: two sides, each in a fresh process of its own, take turns at the same work.

Taking turns makes whatever else the machine does hit both sides alike; a process of its own
makes a side's memory its own.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

Config = Mapping[str, Any]
Run = Callable[[], float]
Side = Callable[[Config], AbstractContextManager[Run]]
"""Prepares, then gives what is called again and again: it does the work once, and returns the
seconds that the work itself took."""

ANSWER_S_MAX = 120
_starts: Any = multiprocessing.get_context("spawn")
_KIB_IN_MB = 1024


@dataclass(frozen=True)
class Sample:
    """What one side took: seconds of each run, and memory in MB."""

    seconds: tuple[float, ...]
    held_mb: float
    """Before the first run: interpreter, libraries and the data that the work is given."""
    peak_mb: float
    """The most that was ever held during the runs."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Duel:
    """Both sides' samples; the i-th runs of both were neighbours in time."""

    ours: Sample
    rival: Sample
    busy: float
    """The share of all cores that others used just before, 0 to 1."""

    def times(self) -> tuple[float, float, float]:
        """Return how many times the rival's time ours is: of the medians, least, most."""
        pairs = [a / b for a, b in zip(self.ours.seconds, self.rival.seconds, strict=True)]
        return self.ours.median / self.rival.median, min(pairs), max(pairs)


class _Child:
    """One side in its process."""

    def __init__(self, side: Side, config: Config) -> None:
        self._pipe, theirs = _starts.Pipe()
        self._process = _process(_run_side, theirs, side, config)
        theirs.close()
        self._seconds: list[float] = []
        self._held_mb = self._answer()

    def run(self) -> None:
        self._pipe.send(True)
        self._seconds.append(self._answer())

    def warm(self) -> None:
        self._pipe.send(True)
        self._answer()

    def finish(self) -> Sample:
        self._pipe.send(False)
        peak_mb = self._answer()
        self._process.join(timeout=ANSWER_S_MAX)
        return Sample(tuple(self._seconds), self._held_mb, peak_mb)

    def _answer(self) -> Any:
        return _received(self._pipe)

    def close(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def quick_starts() -> Iterator[None]:
    """Fork sides from a process that has imported it all: for a test of what they do.

    What they hold in memory is then partly what that process held.
    """
    global _starts
    before, _starts = _starts, multiprocessing.get_context("forkserver")
    _starts.set_forkserver_preload(["tests.benchmarks.suite"])
    try:
        yield
    finally:
        _starts = before


def _process(target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process with this one's environment, whichever its parent has."""
    process = _starts.Process(
        target=_in_environment, args=(dict(os.environ), target, *arguments), daemon=True
    )
    process.start()
    return process


def _in_environment(
    environment: dict[str, str], target: Callable[..., None], *arguments: Any
) -> None:
    os.environ.update(environment)
    target(*arguments)


def duel(ours: Side, rival: Side, config: Config, *, repeats: int, warm: bool = True) -> Duel:
    """Let two sides take turns, `repeats` times, after a run of each that does not count."""
    busy = psutil.cpu_percent(interval=0.5) / 100
    with _open(ours, config) as mine, _open(rival, config) as theirs:
        if warm:
            mine.warm()
            theirs.warm()
        for turn in range(repeats):
            # Who goes first changes, so that a trend in the machine's load cancels out.
            for child in (mine, theirs) if turn % 2 == 0 else (theirs, mine):
                child.run()
        return Duel(mine.finish(), theirs.finish(), busy)


def ask(
    function: Callable[[Config], Any], config: Config, *, seconds_max: float = ANSWER_S_MAX
) -> Any:
    """Return what `function` returns in a fresh process."""
    pipe, theirs = _starts.Pipe()
    process = _process(_run_once, theirs, function, config)
    theirs.close()
    try:
        return _received(pipe, seconds_max)
    finally:
        process.kill()
        process.join()
        pipe.close()


@contextmanager
def _open(side: Side, config: Config) -> Iterator[_Child]:
    child = _Child(side, config)
    try:
        yield child
    finally:
        child.close()


def _received(pipe: Connection, seconds_max: float = ANSWER_S_MAX) -> Any:
    if not pipe.poll(seconds_max):
        raise RuntimeError(f"A side of a benchmark said nothing for {seconds_max:.0f} s.")
    good, answer = pipe.recv()
    if not good:
        raise RuntimeError(f"A side of a benchmark failed:\n{answer}")
    return answer


def _run_side(pipe: Connection, side: Side, config: Config) -> None:
    try:
        with side(config) as run:
            gc.collect()
            held_mb = memory_mb("VmRSS")
            forget_peak()
            pipe.send((True, held_mb))
            while pipe.recv():
                gc.collect()
                pipe.send((True, run()))
            pipe.send((True, memory_mb("VmHWM")))
    except Exception:  # noqa: BLE001 - the parent shows it.
        pipe.send((False, traceback.format_exc()))


def _run_once(pipe: Connection, function: Callable[[Config], Any], config: Config) -> None:
    try:
        pipe.send((True, function(config)))
    except Exception:  # noqa: BLE001 - the parent shows it.
        pipe.send((False, traceback.format_exc()))


def memory_mb(field: str) -> float:
    """Return a figure of this process's memory from the kernel.

    `getrusage` would not do: a child's peak there begins with its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / _KIB_IN_MB
    raise AssertionError(field)


def forget_peak() -> None:
    """Let the peak begin anew, so that it is the work's and not the preparation's."""
    Path("/proc/self/clear_refs").write_text("5")
