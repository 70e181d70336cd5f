"""One round trip to Redis: commands out, replies in, and never a silent repetition.

redis-py's own clients repeat a command after a broken connection; for a commit that would
turn an unknown outcome into a wrong answer. Here its connections and pool are used directly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from fs_notebook.errors import FeatureStoreError, IntegrityError, UnreachableError, UsageError
from fs_notebook.online.access import RedisAccess
from fs_notebook.online.scripts import Script

Command = tuple[Any, ...]
Call = tuple[Sequence[Any], Sequence[Any]]
"""The keys and the arguments of a script."""

_PASSING = (
    "LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS",
)  # fmt: skip
_PASSING_KINDS = (
    "BusyLoadingError", "ReadOnlyError", "ClusterDownError", "MasterDownError", "TryAgainError",
)  # fmt: skip
_FORBIDDEN = ("NOAUTH", "NOPERM", "can't run this command", "can't access at least one of the keys")


class UnknownScript(FeatureStoreError):
    """A script that is to be sent as text, since Redis does not know it by its digest."""


class Talk(Protocol):
    """How a store talks to its Redis, be it one server or a cluster of them."""

    url: str
    shown: str

    def ask(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """Send `commands` together and return their replies; see `Wire.ask`.

        Of a cluster each goes to the node of its key; one that has none to the node of `near`.
        """
        ...

    def read_again(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """`ask` for what only reads: repeated once if the connection broke meanwhile."""
        ...

    def run(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script once for each (keys, arguments) and return its replies."""
        ...

    def ping(self) -> None:
        """Raise `UnreachableError` unless every server answers that keys may lie on."""
        ...

    def close(self) -> None: ...


def hide_password(url: str) -> str:
    """Return `url` fit to be shown: without its password."""
    shown = re.sub(r"^([\w+]+://[^:/@]*:).*@", r"\1***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", shown)


class Explained:
    """A pool of connections, and what goes wrong with them told in this package's errors.

    Parameters
    ----------
    make
        Makes redis-py's pool of an address.
    url
        ``redis://``, ``rediss://`` or ``unix://``, with user, password and database as
        redis-py reads them.
    access
        User, password and TLS files that the address does not hold; default: the environment's.
    retry
        Never tries again: what is repeated is decided here.
    """

    def __init__(
        self, make: Callable[..., Any], url: str, access: RedisAccess | None, retry: object,
        **options: Any,
    ) -> None:  # fmt: skip
        self.url = url
        self.shown = hide_password(url)
        access = RedisAccess.from_environment() if access is None else access
        try:
            self._pool = make(
                url, **access.options(url), health_check_interval=30, protocol=2, **options
            )
        except (ValueError, RedisError) as error:
            raise UsageError(
                f"{self.shown!r} is no address of a Redis.",
                found=str(error),
                remedy="write redis://host:6379/0, rediss://…, or unix:///path/to.sock",
            ) from None
        self._password: str | None = self._pool.connection_kwargs.get("password")
        # The URL may set options of its own; these are what the rest relies on.
        self._pool.connection_kwargs |= {
            "decode_responses": False, "protocol": 2, "retry": retry,
        }  # fmt: skip

    def checked(self, replies: list[Any]) -> list[Any]:
        """Return `replies`; raise what the first refusal among them means."""
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self._refused(reply)
        return replies

    def unreachable(self, error: Exception) -> UnreachableError:
        """Say why a connection could not be made, or broke."""
        text = str(error)
        if isinstance(error, AuthenticationError):
            return UnreachableError(
                f"The Redis at {self.shown} does not let us in.",
                found=self._clean(text),
                remedy="check the user and the password in the address, or in "
                "FS_NOTEBOOK_REDIS_USERNAME and FS_NOTEBOOK_REDIS_PASSWORD",
            )
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return UnreachableError(
                f"The certificate of the Redis at {self.shown} is not trusted.",
                found=self._clean(text),
                remedy="set FS_NOTEBOOK_REDIS_TLS_CA to the file of the authority that signed it",
            )
        if "SSL" in text or "TLS" in text.upper():
            remedy = "use redis:// for a port without TLS; a server that asks for certificates "
            remedy += "wants FS_NOTEBOOK_REDIS_TLS_CERT and FS_NOTEBOOK_REDIS_TLS_KEY"
        elif isinstance(error, TimeoutError):
            remedy = "check that the machine is up and that nothing slow blocks its Redis"
            if self.url.startswith("rediss"):
                remedy += "; a port without TLS never answers: it wants redis://"
        else:
            remedy = "check that Redis runs there and that the address is right"
            if self.url.startswith("redis://"):
                remedy += "; a port with TLS wants rediss://"
        return UnreachableError(
            f"The Redis at {self.shown} does not answer.",
            found=self._clean(str(error)),
            remedy=remedy,
        )

    def _refused(self, error: ResponseError) -> FeatureStoreError:
        text = self._clean(str(error))
        kind = type(error).__name__
        if isinstance(error, NoScriptError):
            return UnknownScript(f"The Redis at {self.shown} does not know a script.", found=text)
        if "OOM command" in text or kind == "OutOfMemoryError":
            return UnreachableError(
                f"The Redis at {self.shown} is out of memory; nothing was written.",
                found=text,
                remedy="raise its maxmemory, or drop features that nobody serves",
            )
        forbidden = isinstance(error, NoPermissionError) or any(w in text for w in _FORBIDDEN)
        if forbidden or kind.startswith("Auth"):
            return UnreachableError(
                f"The Redis at {self.shown} does not allow this.",
                found=text,
                remedy="give a user in the address that may read and write fs:* and run scripts: "
                "ACL SETUSER name on >password ~fs:* +@all -@admin -@dangerous +info +keys",
            )
        if isinstance(error, AskError):
            return UsageError(
                f"The Redis at {self.shown} is a node of a cluster.",
                found=text,
                remedy="write redis+cluster://host:port, with more nodes behind commas",
            )
        if "WRONGTYPE" in text or "wrong kind of value" in text:
            return IntegrityError(
                f"A key of another type is in the way in the Redis at {self.shown}.",
                found=text,
                remedy="find out who writes keys that begin with 'fs:', or use another database",
            )
        if kind in _PASSING_KINDS or any(w in text for w in _PASSING):
            return UnreachableError(
                f"The Redis at {self.shown} refuses for now.",
                found=text,
                remedy="wait until it has loaded, or connect to the primary",
            )
        return FeatureStoreError(f"The Redis at {self.shown} refused a command.", found=text)

    def _clean(self, text: str) -> str:
        return text.replace(self._password, "***") if self._password else text


class Wire(Explained):
    """A pool of connections to one Redis.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://``, with user, password and database as
        redis-py reads them.
    timeout_seconds
        How long a reply may take, the script's own run included.
    connect_timeout_seconds
        How long connecting may take.
    connections_max
        How many threads may be talking to Redis at once.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 20.0,
        connect_timeout_seconds: float = 3.0,
        connections_max: int = 256,
        access: RedisAccess | None = None,
    ) -> None:
        super().__init__(
            redis.ConnectionPool.from_url, url, access, Retry(NoBackoff(), 0),
            socket_timeout=timeout_seconds, socket_connect_timeout=connect_timeout_seconds,
            max_connections=connections_max,
        )  # fmt: skip
        # Connections are taken from the pool once and kept here: its own taking and returning
        # costs a read of one entity a fifth of its time.
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def ask(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """Send `commands` together and return their replies.

        Raises
        ------
        UnreachableError
            If the connection fails or times out (what was sent may have run or not), or
            Redis refuses for a reason that may pass: memory, loading, a replica.
        FeatureStoreError
            If Redis refuses for any other reason.
        """
        return self.checked(self.exchange(commands))

    def read_again(self, commands: Sequence[Command], *, near: bytes = b"") -> list[Any]:
        """`ask` for what only reads: repeated once if the connection broke meanwhile."""
        try:
            return self.checked(self.begin(commands, look=False).replies())
        except UnreachableError as error:
            if not broke(error):
                raise
        return self.ask(commands)

    def run(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script once for each (keys, arguments) and return its replies.

        The script is loaded where Redis does not know it; the calls that were refused for
        that reason, and only those, are sent again: they did not run.
        """
        commands = commands_of(script, calls)
        replies = self.exchange(commands)
        unknown = unknown_among(replies)
        if unknown:
            again = [commands[i] for i in unknown]
            _, *second = self.exchange([("SCRIPT", "LOAD", script.text), *again])
            for i, reply in zip(unknown, second, strict=True):
                replies[i] = reply
        return self.checked(replies)

    def ping(self) -> None:
        """Raise `UnreachableError`, naming where, if Redis does not answer."""
        self.read_again([("PING",)])

    def close(self) -> None:
        while self._idle:
            self._pool.release(self._idle.pop())
        self._pool.disconnect()

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` together; return the replies, refusals among them as errors."""
        return self.begin(commands).replies()

    def begin(self, commands: Sequence[Command], *, look: bool = True) -> Exchange:
        """Send `commands`; their replies are still to be read.

        `look` first looks whether the connection broke while it was idle, so that what must not be
        repeated does not fail of that.
        """
        try:
            connection = self._taken(look)
        except (RedisError, OSError) as error:
            raise self.unreachable(error) from error
        begun = Exchange(self, connection, len(commands))
        try:
            connection.send_packed_command([packed(commands)])
        except BaseException as error:
            begun.failed(error)
            raise
        return begun

    def _taken(self, look: bool) -> Any:
        if self._pid != os.getpid():
            # Connections are the parent's; the pool looks after its own.
            self._pid, self._idle = os.getpid(), []
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        if look:
            try:
                is_clean = not connection.can_read()
            except (RedisError, OSError):
                is_clean = False
            if not is_clean:
                connection.disconnect()
        return connection

    def done(self, connection: Any) -> None:
        """Take a connection back."""
        self._idle.append(connection)


def packed(commands: Sequence[Command]) -> bytes:
    """Return commands as they go out; their first words are one word each."""
    return b"".join([pack_command(c) for c in commands])


def broke(error: UnreachableError) -> bool:
    """Tell whether a connection broke, so that what only reads may be asked again."""
    return isinstance(error.__cause__, ConnectionError)


class Exchange:
    """Commands that were sent over a connection, and whose replies are to be read."""

    def __init__(self, wire: Wire, connection: Any, count: int) -> None:
        self._wire = wire
        self._connection = connection
        self._count = count
        self._open = True

    def replies(self) -> list[Any]:
        """Read the replies, refusals among them as errors, and give the connection back."""
        found: list[Any] = []
        read = self._connection.read_response
        try:
            for _ in range(self._count):
                try:
                    found.append(read())
                except ResponseError as error:
                    found.append(error)
        except BaseException as error:
            self.failed(error)
            raise
        self._end()
        return found

    def abandon(self) -> None:
        """Give the replies up: they may still be under way, so the connection is closed."""
        if self._open:
            self._connection.disconnect()
            self._end()

    def failed(self, error: BaseException) -> None:
        """Give the replies up; raise what a connection's own error means."""
        self.abandon()
        if isinstance(error, (RedisError, OSError)):
            raise self._wire.unreachable(error) from error

    def _end(self) -> None:
        self._open = False
        self._wire.done(self._connection)


def commands_of(script: Script, calls: Sequence[Call]) -> list[Command]:
    """Return the commands that run a script that is loaded already."""
    return [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]


def unknown_among(replies: Sequence[Any]) -> list[int]:
    """Return the places of calls that were refused since their script is not loaded."""
    return [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]


def url_of(client: redis.Redis) -> str:
    """Return the address that a redis-py client talks to, password included."""
    options = client.connection_pool.connection_kwargs
    user, password = options.get("username") or "", options.get("password") or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    database = options.get("db") or 0
    if "path" in options:
        return f"unix://{login}{quote(options['path'])}?db={database}"
    secure = issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    if secure:
        raise UsageError(
            "A client with TLS cannot be turned into an address.",
            remedy="pass the rediss:// address itself",
        )
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    host = f"[{host}]" if ":" in host else host
    return f"redis://{login}{host}:{port}/{database}"
