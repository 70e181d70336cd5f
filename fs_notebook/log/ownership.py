"""Who owns which partition: told by a Failover subscription on the stream's topic.

A member is a consumer on each partition's topic. It receives nothing; the broker chooses one of
the consumers as the active one, spreads partitions over them, and chooses anew when one is gone.
Which one it is, the admin interface tells. It says who is to work, not who may write: of that the
store's epochs have the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.log.admin import Admin, Refused, Topic
from fs_notebook.position import Position

if TYPE_CHECKING:
    from fs_notebook.log.client import Client

TOPICS_EVERY_S = 5.0


class Ownership:
    """A member's consumers, and which of them are active.

    Parameters
    ----------
    topics
        Gives the topics of the stream's partitions, in order; asked again every 5 s.
    subscription
        What all members name alike.
    member
        What no other names.
    """

    def __init__(
        self,
        client: Client,
        admin: Admin,
        topics: Callable[[], list[str]],
        subscription: str,
        member: str,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self._client = client
        self._admin = admin
        self._topics = topics
        self._subscription = subscription
        self._member = member
        self._clock = clock
        self._consumers: list[tuple[str, Any]] = []
        self._looked_s = float("-inf")

    def owned(self) -> frozenset[int]:
        """Return the numbers of the partitions for which this member is the active one.

        Raises
        ------
        UnreachableError
            If the broker or its admin interface does not answer.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= TOPICS_EVERY_S:
            for topic in self._topics()[len(self._consumers) :]:
                consumer = self._client.member(topic, self._subscription, self._member)
                self._consumers.append((topic, consumer))
            self._looked_s = now_s
        return frozenset(
            n for n, (topic, _) in enumerate(self._consumers) if self._active(topic) == self._member
        )

    def committed(self, position: Position) -> None:
        """Acknowledge the entries before a position, so that the backlog is what is left.

        Of the position's own entry more may follow. Acknowledging is a courtesy to those who look
        at the topic, and keeps it from holding what retention would remove: it may fail.
        """
        if position.entry > 0 and position.partition < len(self._consumers):
            with suppress(FeatureStoreError):
                _, consumer = self._consumers[position.partition]
                self._client.acknowledge(consumer, position._replace(entry=position.entry - 1))

    def close(self) -> None:
        """Close the consumers."""
        consumers, self._consumers = self._consumers, []
        for _, consumer in consumers:
            with suppress(Exception):
                consumer.close()

    def _active(self, topic: str) -> str | None:
        place = Topic.of(topic, "", "").path
        try:
            found = self._admin.call("GET", f"{place}/stats?getPreciseBacklog=false") or {}
        except Refused as error:
            raise UnreachableError(
                f"Which worker owns {topic} cannot be told.",
                found=str(error),
                remedy="sharing needs Pulsar's admin interface: name it with admin_url=...",
            ) from None
        subscription = found.get("subscriptions", {}).get(self._subscription, {})
        active: str | None = subscription.get("activeConsumerName")
        return active


def forget(admin: Admin, topics: list[str], subscription: str) -> None:
    """Remove a subscription from all partitions."""
    for topic in topics:
        place = Topic.of(topic, "", "").path
        with suppress(Refused):
            admin.call("DELETE", f"{place}/subscription/{quote(subscription, safe='')}?force=true")
