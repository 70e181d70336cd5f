"""A Redis Cluster behind the wire of one Redis: each command goes to the node that has its key.

redis-py knows which node has which slot, and learns it anew; its own way of sending commands
repeats them, so they go over a `Wire` a node. All nodes are written to before any reply is read:
a read over many slots takes the time of one round trip.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UnreachableError, UsageError
from fs_notebook.online.access import RedisAccess
from fs_notebook.online.scripts import Script
from fs_notebook.online.wire import (
    Call,
    Command,
    Exchange,
    Wire,
    commands_of,
    hide_password,
    unknown_among,
)

SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_KEYLESS = ("INFO", "PING", "SCAN", "SCRIPT")
_KEY_PLACES = {"EVAL": 3, "EVALSHA": 3}
_REDIRECTS_MAX = 8
_MOVING_S = 0.05


class ClusterWire:
    """Connections to the nodes of one Redis Cluster.

    Parameters
    ----------
    url
        ``redis+cluster://host:port,host:port`` or ``rediss+cluster://…``, with user and password
        as in a Redis address; any node that answers tells of the others.
    timeout_seconds
        How long a reply may take, the script's own run included.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 20.0,
        access: RedisAccess | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.url = url
        self.shown = hide_password(url)
        split = urlsplit(url)
        login, _, hosts = split.netloc.rpartition("@")
        self._scheme = SCHEMES.get(split.scheme, "")
        if not self._scheme or not hosts or split.path.strip("/") not in ("", "0"):
            raise UsageError(
                f"{self.shown!r} is no address of a Redis Cluster.",
                found=split.path.strip("/") and "a cluster has database 0 only",
                remedy="write redis+cluster://host:6379,host:6379",
            )
        self._login = login + "@" if login else ""
        self._query = f"?{split.query}" if split.query else ""
        self._timeout_seconds = timeout_seconds
        self._access = RedisAccess.from_environment() if access is None else access
        self._clock = clock
        self._lock = threading.Lock()
        self._wires: dict[tuple[str, int], Wire] = {}
        # Parts of redis-py's cluster client carry no types.
        self._known: Any = None
        self._stale = False
        self._starts = [_host_and_port(h, self.shown) for h in hosts.split(",")]

    def ask(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """Send each command to its node, all at once; see `Wire.ask`.

        Raises
        ------
        UnreachableError
            If a node's connection fails: what was sent to it may have run or not.
        FeatureStoreError
            If a node refuses.
        """
        return self._checked(commands, self._exchange(commands, near), near)

    def read_again(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """`ask` for what only reads: repeated once if a connection broke meanwhile."""
        try:
            return self.ask(commands, near=near)
        except UnreachableError as error:
            if not isinstance(error.__cause__, ConnectionError):
                raise
        return self.ask(commands, near=near)

    def run(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script once for each (keys, arguments); see `Wire.run`."""
        commands = commands_of(script, calls)
        replies = self._exchange(commands, b"")
        unknown = unknown_among(replies)
        if unknown:
            again = [commands[i] for i in unknown]
            for place in {self._place(command, b"") for command in again}:
                self._wire(*place).ask([("SCRIPT", "LOAD", script.text)])
            for i, reply in zip(unknown, self._exchange(again, b""), strict=True):
                replies[i] = reply
        return self._checked(commands, replies, b"")

    def ping(self) -> None:
        """Raise `UnreachableError`, naming where, unless all primaries answer."""
        for node in self._cluster().get_primaries():
            self._wire(node.host, node.port).ping()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            wires, self._wires = list(self._wires.values()), {}
            known, self._known = self._known, None
        for wire in wires:
            wire.close()
        if known is not None:
            known.close()

    def _checked(self, commands: Sequence[Command], replies: list[Any], near: bytes) -> list[Any]:
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, RedisError):
                self._wire(*self._place(command, near)).checked([reply])
        return replies

    def _exchange(self, commands: Sequence[Command], near: bytes) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        places: dict[int, tuple[str, int]] = {}
        for _ in range(_REDIRECTS_MAX):
            found = self._once([commands[i] for i in left], near, [places.get(i) for i in left])
            again, places = [], {}
            for i, reply in zip(left, found, strict=True):
                replies[i] = reply
                # What was redirected did not run, so it may be sent again.
                if isinstance(reply, MovedError):
                    self._stale = True
                    again.append(i)
                elif isinstance(reply, AskError):
                    places[i] = (reply.host, reply.port)
                    again.append(i)
                elif isinstance(reply, TryAgainError):
                    again.append(i)
            if not again:
                break
            if any(isinstance(replies[i], TryAgainError) for i in again):
                self._clock.sleep_s(_MOVING_S)
            left = again
        return replies

    def _once(
        self,
        commands: Sequence[Command],
        near: bytes,
        asked: Sequence[tuple[str, int] | None],
    ) -> list[Any]:
        """Send each command to its node, or where a node has `asked` for it to be sent."""
        by_node: dict[tuple[str, int], list[tuple[int, list[Command]]]] = {}
        for i, (command, place) in enumerate(zip(commands, asked, strict=True)):
            sent = [command] if place is None else [("ASKING",), command]
            by_node.setdefault(place or self._place(command, near), []).append((i, sent))
        begun: list[tuple[list[tuple[int, list[Command]]], Exchange]] = []
        replies: list[Any] = [None] * len(commands)
        try:
            for place, mine in by_node.items():
                together = [c for _, sent in mine for c in sent]
                begun.append((mine, self._wire(*place).begin(together)))
            for mine, exchange in begun:
                found = iter(exchange.replies())
                for i, sent in mine:
                    replies[i] = [next(found) for _ in sent][-1]
        except UnreachableError:
            # Perhaps another node has the slot by now.
            self._stale = True
            raise
        finally:
            for _, exchange in begun:
                exchange.abandon()
        return replies

    def _place(self, command: Command, near: bytes) -> tuple[str, int]:
        node = self._cluster().get_node_from_key(_key_of(command, near))
        if node is None:
            raise UnreachableError(
                f"No node of the Redis Cluster at {self.shown} has a slot that is needed.",
                remedy="see CLUSTER INFO there: all 16,384 slots must be assigned",
            )
        return node.host, node.port

    def _wire(self, host: str, port: int) -> Wire:
        with self._lock:
            wire = self._wires.get((host, port))
            if wire is None:
                name = f"[{host}]" if ":" in host else host
                wire = self._wires[host, port] = Wire(
                    f"{self._scheme}://{self._login}{name}:{port}/0{self._query}",
                    timeout_seconds=self._timeout_seconds, access=self._access,
                )  # fmt: skip
            return wire

    def _cluster(self) -> Any:
        """Return redis-py's view of the cluster, looked at anew where it was found wrong."""
        with self._lock:
            known, stale, self._stale = self._known, self._stale, False
        try:
            if known is None:
                known = self._connected()
                with self._lock:
                    self._known = known
            elif stale:
                known.nodes_manager.initialize()
            return known
        except (RedisError, RedisClusterException, OSError) as error:
            self._stale = known is not None
            raise self._why(error) from error

    def _connected(self) -> Any:
        user, _, password = self._login.removesuffix("@").partition(":")
        given = self._access.options(f"{self._scheme}://{self._login}host")
        if password:
            given |= {"password": unquote(password)} | ({"username": unquote(user)} if user else {})
        if self._scheme == "rediss":
            given["ssl"] = True
        made: Any = ClusterNode
        return RedisCluster(
            startup_nodes=[made(host, port) for host, port in self._starts],
            socket_timeout=self._timeout_seconds, socket_connect_timeout=3.0, protocol=2, **given,
        )  # fmt: skip

    def _why(self, error: Exception) -> FeatureStoreError:
        """Say what keeps the cluster from being looked at: the nodes know better than redis-py."""
        for place in self._starts:
            try:
                self._wire(*place).ask([("CLUSTER", "SLOTS")])
            except FeatureStoreError as reason:
                if "cluster support disabled" in (reason.found or ""):
                    return UsageError(
                        f"The Redis at {self.shown} is no cluster.",
                        found=reason.found,
                        remedy=f"write {self._scheme}://{place[0]}:{place[1]}/0",
                    )
                return reason
        return UnreachableError(
            f"The Redis Cluster at {self.shown} does not answer.",
            found=str(error),
            remedy="see CLUSTER INFO on its nodes",
        )


def cluster_url(url: str) -> str:
    """Return the address of the cluster that the Redis at `url` is a node of."""
    split = urlsplit(url)
    query = f"?{split.query}" if split.query else ""
    return f"{split.scheme}+cluster://{split.netloc}{query}"


def _host_and_port(text: str, shown: str) -> tuple[str, int]:
    split = urlsplit(f"//{text}")
    try:
        return split.hostname or "localhost", split.port or 6379
    except ValueError as error:
        raise UsageError(
            f"{shown!r} is no address of a Redis Cluster.",
            found=str(error),
            remedy="write redis+cluster://host:6379,host:6379",
        ) from None


def _key_of(command: Command, near: bytes) -> Any:
    if command[0] in _KEYLESS:
        return near
    return command[_KEY_PLACES.get(command[0], 1)]
