"""Pulsar's own client, on a short leash. This is the only module that imports it."""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from pathlib import Path
from typing import Any, cast

from fs_notebook.errors import ConflictError, FeatureStoreError, UnreachableError, UsageError
from fs_notebook.log.access import Access
from fs_notebook.log.cursors import PAUSE_MS, Cursor, Taken
from fs_notebook.log.framing import Lot
from fs_notebook.log.knock import TOKEN_REMEDY, knock, refused, silent
from fs_notebook.log.places import Message
from fs_notebook.log.sending import BATCH_MESSAGES, PENDING_MAX
from fs_notebook.position import Position

CONNECT_S_MAX = 8


class Client:
    """The broker's client: connects on first use, and its errors come out as this package's."""

    def __init__(self, url: str, access: Access) -> None:
        self.url = url
        self._access = access
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False

    def get(self) -> Any:
        """Return the client's own client."""
        import pulsar

        with self._lock:
            if self._closed:
                raise UsageError(f"The ledger at {self.url} was closed.", remedy="open it again")
            if self._client is None:
                knock(self.url, self._access, timeout_s=CONNECT_S_MAX)
                options: dict[str, Any] = {}
                if self._access.token:
                    options["authentication"] = pulsar.AuthenticationToken(self._access.token)
                elif self._access.tls_cert and self._access.tls_key:
                    options["authentication"] = pulsar.AuthenticationTLS(
                        self._access.tls_cert, self._access.tls_key
                    )
                # Without one the client would take a list that comes with it, not the machine's.
                authorities = self._access.tls_ca or ssl.get_default_verify_paths().cafile
                if authorities:
                    options["tls_trust_certs_file_path"] = authorities
                # The client writes to standard output unless it is given a file; a Python
                # logger can deadlock with it.
                log = Path(tempfile.gettempdir()) / f"fs-notebook-pulsar-{os.getuid()}.log"
                self._client = pulsar.Client(
                    self.url,
                    operation_timeout_seconds=CONNECT_S_MAX,
                    connection_timeout_ms=CONNECT_S_MAX * 1000,
                    tls_validate_hostname=True,
                    stats_interval_in_seconds=0,
                    logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, str(log)),
                    **options,
                )
            return self._client

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn the client's errors into this package's."""
        import pulsar

        try:
            yield
        except pulsar.Interrupted:
            # The client has eaten the user's interrupt; it goes on its way here.
            raise KeyboardInterrupt from None
        except pulsar.PulsarException as error:
            raise self._error(doing, error) from None
        except (ValueError, RuntimeError) as error:
            raise UsageError(
                f"Pulsar at {self.url} could not be asked to {doing}.", found=str(error)
            ) from None

    def _error(self, doing: str, error: Exception) -> FeatureStoreError:
        import pulsar

        kind = type(error).__name__
        found = f"{kind}: {error}"
        if isinstance(error, pulsar.AuthenticationError):
            return refused(self.url, found, has_token=bool(self._access.token))
        if isinstance(error, pulsar.AuthorizationError):
            return UnreachableError(
                f"Pulsar at {self.url} does not let this client {doing}.",
                found=found,
                remedy=f"{TOKEN_REMEDY} and may do this, or have its rights extended",
            )
        if isinstance(error, pulsar.InvalidTopicName | pulsar.InvalidUrl):
            return UsageError(f"Pulsar cannot {doing}.", found=found)
        if isinstance(error, pulsar.AlreadyClosed):
            return UsageError(f"The ledger at {self.url} was closed.", remedy="open it again")
        if isinstance(error, pulsar.Timeout | pulsar.ConnectError):
            # The client does not say why: a token or a certificate may be good no longer.
            try:
                knock(self.url, self._access, timeout_s=CONNECT_S_MAX)
            except FeatureStoreError as reason:
                return reason
            return silent(self.url, f"no answer within {CONNECT_S_MAX} s when asked to {doing}")
        return UnreachableError(
            f"Pulsar at {self.url} did not {doing}.",
            found=found,
            remedy="check the address and that the broker is up",
        )

    def cursor(self, topic: str, start: Position | None, *, queue: int) -> Cursor:
        """Open a reader at `start`'s entry (inclusive), or at the earliest message.

        It fetches up to `queue` messages before they are asked for.
        """
        import pulsar

        at = pulsar.MessageId.earliest
        if start is not None:
            at = pulsar.MessageId(-1, start.ledger, start.entry, -1)
        with self.explained(f"read {topic}"):
            reader = self.get().create_reader(
                topic,
                at,
                receiver_queue_size=queue,
                start_message_id_inclusive=True,
                **self._decrypting(),
            )
        return _Cursor(reader, self, topic)

    def since(self, topic: str, published_ms: int) -> Cursor:
        """Open a reader at about the first message that was published at a time or after it."""
        import pulsar

        with self.explained(f"read {topic}"):
            reader = self.get().create_reader(
                topic, pulsar.MessageId.latest, receiver_queue_size=1, **self._decrypting()
            )
            try:
                reader.seek(published_ms)
            except BaseException:
                reader.close()
                raise
        return _Cursor(reader, self, topic)

    def is_lost(self, cursor: Cursor) -> bool:
        """Tell whether a cursor has no connection though there is a broker that answers."""
        if not isinstance(cursor, _Cursor) or cursor.is_connected():
            return False
        try:
            knock(self.url, self._access, timeout_s=1.0)
        except FeatureStoreError:
            return False
        return True

    def last(self, topic: str) -> Message | None:
        """Return the topic's newest message, or None if it is empty."""
        import pulsar

        with self.explained(f"read {topic}"):
            reader = self.get().create_reader(
                topic,
                pulsar.MessageId.latest,
                start_message_id_inclusive=True,
                **self._decrypting(),
            )
            try:
                if not reader.has_message_available():
                    return None
                return cast(Message, reader.read_next(CONNECT_S_MAX * 1000))
            finally:
                reader.close()

    def _decrypting(self) -> dict[str, Any]:
        """Return a reader's options: encrypted messages come even if there is no key for them.

        Else the client would wait for one for ever; `messages.decode` tells of them.
        """
        import pulsar

        options: dict[str, Any] = {
            "crypto_failure_action": pulsar.ConsumerCryptoFailureAction.CONSUME
        }
        if self._access.private_key:
            options["crypto_key_reader"] = self._keys()
        return options

    def _keys(self) -> Any:
        import pulsar

        return pulsar.CryptoKeyReader(self._access.public_key or "", self._access.private_key or "")

    def member(self, topic: str, subscription: str, name: str) -> Any:
        """Open a consumer of a Failover subscription that is sent nothing: it is only there."""
        import pulsar

        with self.explained(f"share {topic}"):
            return self.get().subscribe(
                topic,
                subscription,
                consumer_type=pulsar.ConsumerType.Failover,
                consumer_name=name,
                receiver_queue_size=0,
                initial_position=pulsar.InitialPosition.Latest,
            )

    def acknowledge(self, consumer: Any, position: Position) -> None:
        """Acknowledge all entries up to that of a position."""
        import pulsar

        with self.explained("acknowledge what was folded"):
            consumer.acknowledge_cumulative(
                pulsar.MessageId(-1, position.ledger, position.entry, -1)
            )

    def partitions(self, topic: str) -> list[str]:
        """Return the names of the topic's partitions, or its own if it is a plain one."""
        with self.explained(f"look up {topic}"):
            return list(self.get().get_topic_partitions(topic))

    def producer(self, topic: str, *, batching: bool, exclusive: bool) -> Any:
        """Open a producer.

        Raises
        ------
        ConflictError
            If `exclusive` and there is another, or there is an exclusive one.
        """
        import pulsar

        mode = pulsar.ProducerAccessMode
        encrypting: dict[str, Any] = {}
        if self._access.public_key and self._access.key_name:
            encrypting = {
                "encryption_key": self._access.key_name, "crypto_key_reader": self._keys(),
            }  # fmt: skip
        with self.explained(f"write to {topic}"):
            try:
                made = self.get().create_producer(
                    topic,
                    batching_enabled=batching,
                    # `send` flushes a batch that it has filled: neither size nor time cuts one.
                    batching_max_messages=BATCH_MESSAGES,
                    batching_max_allowed_size_in_bytes=2**23,
                    batching_max_publish_delay_ms=60_000,
                    max_pending_messages=PENDING_MAX,
                    block_if_queue_full=True,
                    send_timeout_millis=30_000,
                    access_mode=mode.Exclusive if exclusive else mode.Shared,
                    **encrypting,
                )
                return _Producer(made)
            except (pulsar.ProducerFenced, pulsar.ProducerBusy) as error:
                found = f"{type(error).__name__}: {error}"
                raise ConflictError(
                    f"Somebody else is writing to {topic}.",
                    found=found,
                    remedy="read what was added, then try again",
                ) from None

    def close(self) -> None:
        """Close the client and all that it has open."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()


class _Producer:
    """A producer without the client's checks of each message, which cost a third of the time."""

    def __init__(self, producer: Any) -> None:
        import pulsar

        raw: Any = producer._producer
        self._builder = pulsar._pulsar.MessageBuilder
        self._send = raw.send_async
        self.flush = producer.flush
        self.close = producer.close

    def send_all(self, batch: Lot, answered: Callable[[Any, Any], None]) -> None:
        """Send messages one after the other; the answer to the last of them is taken.

        The loop has nothing in it but the client's calls: each costs as much as what it does.
        """
        make, send = self._builder, self._send
        nothing = repeat(None)
        answers = chain(repeat(None, len(batch.payloads) - 1), (answered,))
        columns = zip(
            batch.payloads, batch.event_ms or nothing, batch.keys or nothing,
            batch.properties or nothing, answers, strict=False,
        )  # fmt: skip
        for payload, ms, key, told, answer in columns:
            builder = make()
            builder.content(payload)
            if ms:
                builder.event_timestamp(ms)
            if key:
                builder.partition_key(key)
            if told:
                for name, value in told.items():
                    builder.property(name, value)
            send(builder.build(), answer)


class _Cursor(Cursor):
    """A reader without the client's wrapping of each message, which costs a fifth of the time."""

    def __init__(self, reader: Any, client: Client, topic: str) -> None:
        import pulsar

        self._reader = reader
        self._client = client
        self._topic = topic
        self._next: Callable[[int], Message] = getattr(reader, "_reader", reader).read_next
        self._timeout = pulsar.Timeout
        self._interrupted = pulsar.Interrupted
        self._failed = pulsar.PulsarException

    def next(self, timeout_ms: int) -> Message | None:
        messages, _, _ = self.take(1, 1, timeout_ms)
        return messages[0] if messages else None

    def take(self, count: int, bytes_max: int, wait_ms: int) -> Taken:
        messages: list[Message] = []
        payloads: list[bytes] = []
        size = 0
        # The loop has little in it but the client's calls.
        take, pause_ms = self._next, min(wait_ms, PAUSE_MS)
        try:
            for _ in range(count):
                message = take(wait_ms)
                wait_ms = pause_ms
                payload = message.data()
                messages.append(message)
                payloads.append(payload)
                size += len(payload)
                if size >= bytes_max:
                    break
        except self._timeout:
            pass
        except self._interrupted:
            raise KeyboardInterrupt from None
        except self._failed as error:
            raise self._client._error(f"read {self._topic}", error) from None
        return messages, payloads, size

    def is_connected(self) -> bool:
        return bool(self._reader.is_connected())

    def close(self) -> None:
        with suppress(self._failed, ValueError):
            self._reader.close()
