"""Processes that outlive whoever starts them, and signals that wait."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil


def start_detached(
    command: Sequence[str], *, log: Path, folder: Path, env: Mapping[str, str]
) -> None:
    """Start `command` in a session of its own, its output appended to `log`.

    A shell in between starts it and ends at once, so that it belongs to the system's first
    process: it gets no signal meant for the kernel or the terminal, and no zombie is left when
    it ends before its starter.
    """
    with log.open("ab") as sink:
        subprocess.run(
            ["/bin/sh", "-c", '"$0" "$@" &', *command],
            check=True, start_new_session=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            cwd=folder, env=dict(env),
        )  # fmt: skip


def ended(processes: Iterable[psutil.Process], *, seconds_max: float) -> list[psutil.Process]:
    """Wait until processes have ended, and return those that have not after `seconds_max`.

    One has ended once it can do nothing more: some systems' first process takes a second until it
    takes note of that.
    """
    end_s = time.monotonic() + seconds_max
    while (alive := [p for p in processes if _is_alive(p)]) and time.monotonic() < end_s:
        time.sleep(0.01)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def exit_now(code: int) -> NoReturn:
    """End this process with an exit code, all that it said written out.

    An interpreter that takes itself apart looks for garbage for a second; the system frees all
    of it at once. Only for a process whose work is done and committed: nothing else is run.
    """
    logging.shutdown()
    for said in (sys.stdout, sys.stderr):
        said.flush()
    os._exit(code)


@contextmanager
def stops_heard(told: Callable[[], None]) -> Iterator[None]:
    """Call `told` at SIGTERM and SIGINT while the block runs; after it they mean what they did."""

    def heard(number: int, frame: FrameType | None) -> None:
        told()

    former = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold an interrupt back until the block has ended, so that the block is done as a whole.

    A second interrupt breaks into the block: the user does not want to wait. Only the main
    thread is ever interrupted; elsewhere, or where SIGINT is not Python's, this does nothing.
    """
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(former):
        yield
        return
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            former(number, frame)
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if held:
        former(signal.SIGINT, None)
