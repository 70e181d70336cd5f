"""A real Pulsar broker for the tests: started once a run, shared by its workers, always ended.

The broker belongs to a supervisor process (this file run as a script). Every test process that
uses the broker leaves a file with its process ID; the supervisor ends the broker and removes its
data once the last of them is gone, however it went. Set ``FS_TEST_BROKER`` to
``pulsar://host:6650|http://host:8080`` to use one that runs already.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VERSION = "4.0.8"
ARTIFACT = f"org.apache.pulsar:pulsar-server-distribution:{VERSION}:tar.gz:bin"
OFFLOADERS = f"org.apache.pulsar:pulsar-offloader-distribution:{VERSION}:tar.gz:bin"
_ALONE = ("-Dtransitive=false",)
CACHE = Path("~/.cache/fs-notebook-tests").expanduser()
STARTED_S_MAX = 240
QUICK = "-XX:TieredStopAtLevel=1"
MEMORY = "-Xms256m -Xmx1g -XX:MaxDirectMemorySize=1g"


@dataclass(frozen=True)
class Broker:
    """Where a broker listens, and what tests ask of its admin interface."""

    url: str
    admin_url: str
    token: str | None = None
    ca: Path | None = None

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call the admin REST interface; return the decoded answer."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(
            f"{self.admin_url}/admin/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        context = None if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def namespace(self) -> str:
        """Make a namespace of a test's own; return it as ``tenant/namespace``."""
        name = f"public/{self.fresh('n')}"
        self.admin("PUT", f"namespaces/{name}", {})
        return name

    def fresh(self, prefix: str = "t") -> str:
        """Return a topic name that nobody has used."""
        return f"{prefix}-{uuid.uuid4().hex[:12]}"


def distribution() -> Path:
    """Return the unpacked server, fetching and unpacking it where it is missing."""
    return _unpacked(ARTIFACT, f"apache-pulsar-{VERSION}")


def offloaders() -> Path:
    """Return the folder of what moves ledgers to tiered storage, fetched where it is missing."""
    return _unpacked(OFFLOADERS, f"apache-pulsar-offloaders-{VERSION}") / "offloaders"


def _unpacked(artifact: str, name: str) -> Path:
    target = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        module = artifact.split(":")[1]
        archive = (
            Path("~/.m2/repository/org/apache/pulsar").expanduser()
            / module
            / VERSION
            / f"{module}-{VERSION}-bin.tar.gz"
        )
        if not archive.exists():
            subprocess.run(
                ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={artifact}", *_ALONE],
                check=True,
                timeout=1800,
            )
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            os.rename(Path(folder) / name, target)
    return target


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    return ports


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(
    folder: Path,
    *,
    settings: dict[str, str] | None = None,
    given: dict[str, str] | None = None,
    broker: Broker | None = None,
    timed: bool = False,
) -> tuple[Any, Broker]:
    """Start a broker with its data in `folder`; return its process and its address once ready.

    `given` is added to its environment. `broker` is where it will listen, if `settings` say so.
    One that is `timed` has all of Java's compilers; others are ready with half the work.

    Raises
    ------
    RuntimeError
        If it ends or is not ready in time; the message holds the end of its log.
    """
    home = distribution()
    service, web, bookie, stream = free_ports(4)
    conf = (home / "conf" / "standalone.conf").read_text()
    wanted = {
        "brokerServicePort": str(service),
        "webServicePort": str(web),
        "bindAddress": "127.0.0.1",
        "advertisedAddress": "127.0.0.1",
        "managedLedgerMinLedgerRolloverTimeMinutes": "0",
    } | (settings or {})
    kept = [line for line in conf.splitlines() if line.partition("=")[0] not in wanted]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "standalone.conf").write_text(
        "\n".join(kept + [f"{k}={v}" for k, v in wanted.items()]) + "\n"
    )
    command = [str(home / "bin" / "pulsar"), "standalone", "-nfw", "-nss"]
    command += ["-a", wanted["advertisedAddress"]]
    command += ["-c", str(folder / "standalone.conf")]
    command += ["--bookkeeper-dir", str(folder / "bookkeeper")]
    command += ["--metadata-dir", str(folder / "metadata")]
    command += ["--bookkeeper-port", str(bookie), "--stream-storage-port", str(stream)]
    environment = (
        os.environ
        | (given or {})
        | {
            "PULSAR_MEM": MEMORY if timed else f"{MEMORY} {QUICK}",
            "PULSAR_GC": "-XX:+UseSerialGC",
            "PULSAR_GC_LOG": "-Xlog:disable",
            "PULSAR_LOG_DIR": str(folder / "logs"),
            "PULSAR_LOG_APPENDER": "Console",
            "PULSAR_LOG_LEVEL": "warn",
            "PULSAR_STANDALONE_CONF": str(folder / "standalone.conf"),
        }
    )
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    if broker is None:
        broker = Broker(f"pulsar://127.0.0.1:{service}", f"http://127.0.0.1:{web}")
    until = time.monotonic() + STARTED_S_MAX
    while process.poll() is None and time.monotonic() < until:
        if _ready(broker):
            return process, broker
        time.sleep(0.2)
    stop(process)
    tail = (folder / "broker.log").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"The Pulsar broker did not start:\n{tail}")


def _ready(broker: Broker) -> bool:
    # Readiness is told before the default namespace exists, so that one is asked for instead.
    # The first topic of a broker takes several times as long as any other: it is made here.
    try:
        if "public/default" not in broker.admin("GET", "namespaces/public"):
            return False
        first = f"persistent/public/default/{broker.fresh('first')}"
        broker.admin("PUT", first)
        broker.admin("DELETE", first)
        return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def stop(process: Any) -> None:
    """Kill a broker that `start` started, with all its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def _alive(user: Path) -> bool:
    try:
        pid, _, started = user.read_text().partition(" ")
        return bool(pid) and _started(int(pid)) == started
    except FileNotFoundError:
        return False


def _started(pid: int) -> str:
    """Return when a process started, so that a reused process ID is told from the first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "gone"


def supervise(folder: Path) -> None:
    """Run a broker until no process that registered in ``folder/users`` lives."""
    process = None
    try:
        process, broker = start(folder / "broker")
        written = folder / "address.part"
        written.write_text(f"{broker.url}|{broker.admin_url}")
        written.rename(folder / "address")
        while any(_alive(user) for user in (folder / "users").iterdir()):
            if process.poll() is not None:
                break
            time.sleep(0.3)
    except RuntimeError as error:
        (folder / "failed.part").write_text(str(error))
        (folder / "failed.part").rename(folder / "failed")
        time.sleep(5)
    finally:
        if process is not None:
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def shared(folder: Path) -> Broker:
    """Return the broker of the test run that has `folder`, starting it for the first that asks."""
    (folder / "users").mkdir(parents=True, exist_ok=True)
    mine = folder / "users" / str(os.getpid())
    mine.write_text(f"{os.getpid()} {_started(os.getpid())}")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "started").exists():
            (folder / "started").touch()
            subprocess.run(
                [sys.executable, __file__, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
                timeout=30,
            )
    until = time.monotonic() + STARTED_S_MAX + 30
    while time.monotonic() < until:
        if (folder / "address").exists():
            url, _, admin = (folder / "address").read_text().partition("|")
            return Broker(url, admin)
        if (folder / "failed").exists():
            raise RuntimeError((folder / "failed").read_text())
        time.sleep(0.1)
    raise RuntimeError("The Pulsar broker did not start, and its supervisor said nothing.")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Give the run's Pulsar broker."""
    given = os.environ.get("FS_TEST_BROKER")
    if given:
        url, _, admin = given.partition("|")
        yield Broker(url, admin or "http://127.0.0.1:8080")
        return
    run = getattr(request.config, "workerinput", {}).get("testrunuid", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"fs-notebook-broker-{os.getuid()}-{run}"
    yield shared(folder)
    (folder / "users" / str(os.getpid())).unlink(missing_ok=True)


if __name__ == "__main__":
    # The supervisor is nobody's child, so that no test run waits for it or is warned of it.
    if os.fork():
        os._exit(0)
    supervise(Path(sys.argv[1]))
