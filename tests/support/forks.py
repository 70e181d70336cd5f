"""Worker processes that are at work within milliseconds: forks of one that has imported it all.

Run as a script, it forks a worker for each line of places, and answers with its process ID. It
runs no query and opens no connection before it forks, so that a fork has all threads it needs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fs_notebook.catalog.model import Definition, definition_of
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.worker.loop import Worker


class Forks:
    """The process that forks, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], words: Path) -> None:
        self._process = process
        self._words = words

    def start(self, ledger: str, admin: str, online: str) -> int:
        """Start a worker on a ledger and a store, and return its process ID."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([ledger, admin, online]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def failures(self) -> str:
        """Return what workers met that ended of themselves."""
        return self._words.read_text()


@contextmanager
def forks(definition: Definition, words: Path) -> Iterator[Forks]:
    """Start the process that forks workers of a definition; end it and them."""
    given = json.dumps(definition.to_dict())
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    with words.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks", given], text=True, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", words.read_text()
        yield Forks(process, words)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _work(definition: Definition, ledger: str, admin: str, online: str) -> None:
    log: Any = PulsarLog(ledger, admin_url=admin)
    Worker(definition, log, RedisStore(online)).run()


def main() -> None:
    """Fork a worker a line."""
    definition = definition_of(json.loads(sys.argv[1]))
    assert isinstance(definition, Definition)
    # Nobody waits for those that are killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _work(definition, *json.loads(line))
            except BaseException:  # noqa: BLE001 - a fork must not go on as its parent.
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
