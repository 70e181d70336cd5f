"""One round trip to Redis: commands out, replies in, and never a silent repetition.

redis-py's own clients repeat a command after a broken connection; for a commit that would
turn an unknown outcome into a wrong answer. Here its connections and pool are used directly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.exceptions import (
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
from fs_notebook.online.scripts import Script

Command = tuple[Any, ...]
Pool = TypeVar("Pool")

_PASSING = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS")


def hide_password(url: str) -> str:
    """Return `url` fit to be shown: without its password."""
    shown = re.sub(r"^(\w+://[^:/@]*:).*@", r"\1***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", shown)


class Explained:
    """What went wrong with a Redis, told in this package's errors.

    Parameters
    ----------
    url
        ``redis://``, ``rediss://`` or ``unix://``, with user, password and database as
        redis-py reads them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = hide_password(url)
        self._password: str | None = None

    def _pooled(self, make: Callable[..., Pool], **options: Any) -> Pool:
        """Return a pool of connections that say everything once, and never in text."""
        try:
            pool = make(self.url, health_check_interval=30, protocol=2, **options)
        except (ValueError, RedisError) as error:
            raise UsageError(
                f"{self.shown!r} is no address of a Redis.",
                found=str(error),
                remedy="write redis://host:6379/0, rediss://…, or unix:///path/to.sock",
            ) from None
        settings: dict[str, Any] = pool.connection_kwargs  # type: ignore[attr-defined]
        self._password = settings.get("password")
        # The URL may set options of its own; these are what the rest relies on.
        settings |= {"decode_responses": False, "protocol": 2}
        return pool

    def _checked(self, replies: list[Any]) -> list[Any]:
        """Return replies, none of which is an error."""
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self._refused(reply)
        return replies

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, AuthenticationError):
            remedy = "check the user and the password in the address"
        elif isinstance(error, TimeoutError):
            remedy = "check that the machine is up and that nothing slow blocks its Redis"
        else:
            remedy = "check that Redis runs there and that the address is right"
        return UnreachableError(
            f"The Redis at {self.shown} does not answer.",
            found=self._clean(str(error)),
            remedy=remedy,
        )

    def _refused(self, error: ResponseError) -> FeatureStoreError:
        text = self._clean(str(error))
        kind = type(error).__name__
        if "OOM command" in text or kind == "OutOfMemoryError":
            return UnreachableError(
                f"The Redis at {self.shown} is out of memory; nothing was written.",
                found=text,
                remedy="raise its maxmemory, or drop features that nobody serves",
            )
        if isinstance(error, NoPermissionError) or "NOAUTH" in text or kind.startswith("Auth"):
            return UnreachableError(
                f"The Redis at {self.shown} does not allow this.",
                found=text,
                remedy="give a user in the address that may read and write fs:* and run scripts",
            )
        if "WRONGTYPE" in text or "wrong kind of value" in text:
            return IntegrityError(
                f"A key of another type is in the way in the Redis at {self.shown}.",
                found=text,
                remedy="find out who writes keys that begin with 'fs:', or use another database",
            )
        if kind in ("BusyLoadingError", "ReadOnlyError") or any(w in text for w in _PASSING):
            return UnreachableError(
                f"The Redis at {self.shown} refuses for now.",
                found=text,
                remedy="wait until it has loaded, or connect to the primary",
            )
        return FeatureStoreError(f"The Redis at {self.shown} refused a command.", found=text)

    def _clean(self, text: str) -> str:
        return text.replace(self._password, "***") if self._password else text


def packed(commands: Sequence[Command]) -> bytes:
    """Return commands as they go out; their first words are one word each."""
    return b"".join([pack_command(c) for c in commands])


def broke(error: UnreachableError) -> bool:
    """Tell whether a connection broke, so that what only reads may be asked again."""
    return isinstance(error.__cause__, ConnectionError)


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
    ) -> None:
        super().__init__(url)
        self._pool = self._pooled(
            redis.ConnectionPool.from_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=connect_timeout_seconds,
            max_connections=connections_max,
        )
        self._pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
        # Connections are taken from the pool once and kept here: its own taking and returning
        # costs a read of one entity a fifth of its time.
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` together and return their replies.

        Raises
        ------
        UnreachableError
            If the connection fails or times out (what was sent may have run or not), or
            Redis refuses for a reason that may pass: memory, loading, a replica.
        FeatureStoreError
            If Redis refuses for any other reason.
        """
        return self._checked(self._exchange(commands))

    def read_again(self, commands: Sequence[Command]) -> list[Any]:
        """`ask` for what only reads: repeated once if the connection broke meanwhile."""
        try:
            return self._checked(self._exchange(commands, look=False))
        except UnreachableError as error:
            if not broke(error):
                raise
        return self.ask(commands)

    def run(
        self, script: Script, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script once for each (keys, arguments) and return its replies.

        The script is loaded where Redis does not know it; the calls that were refused for
        that reason, and only those, are sent again: they did not run.
        """
        commands = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        replies = self._exchange(commands)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [commands[i] for i in unknown]
            _, *second = self._exchange([("SCRIPT", "LOAD", script.text), *again])
            for i, reply in zip(unknown, second, strict=True):
                replies[i] = reply
        return self._checked(replies)

    def close(self) -> None:
        while self._idle:
            self._pool.release(self._idle.pop())
        self._pool.disconnect()

    def _exchange(self, commands: Sequence[Command], *, look: bool = True) -> list[Any]:
        """Send commands, and return replies and refusals.

        `look` first looks whether the connection broke while it was idle, so that what must not be
        repeated does not fail of that.
        """
        try:
            connection = self._taken(look)
        except (RedisError, OSError) as error:
            raise self._unreachable(error) from error
        try:
            connection.send_packed_command([packed(commands)])
            replies: list[Any] = []
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise self._unreachable(error) from error
        except BaseException:
            # Replies may still be under way: this connection must not serve anybody else.
            connection.disconnect()
            raise
        finally:
            self._idle.append(connection)

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
