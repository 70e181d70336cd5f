"""What is asked of a Pulsar cluster's admin REST interface."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.log.knock import TOKEN_REMEDY, of_tls, only_tls

TIMEOUT_S = 5
CHANGE_S_MAX = 30
"""A change is not given up as soon as a question: it may have been made, though nobody was told."""
SILENT_S = 10


class Refused(FeatureStoreError):
    """The admin interface answered, but not with success."""

    def __init__(
        self, message: str, *, status: int, found: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, found=found, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class Topic:
    """A persistent topic by its three names."""

    tenant: str
    namespace: str
    name: str

    @classmethod
    def of(cls, stream: str, tenant: str, namespace: str) -> Topic:
        """Return the topic of a stream: of that full name, or of that name in the namespace."""
        if "://" in stream:
            tenant, namespace, name = stream.split("://", 1)[1].split("/")
            return cls(tenant, namespace, name)
        return cls(tenant, namespace, stream)

    @property
    def full(self) -> str:
        return f"persistent://{self.tenant}/{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        return "persistent/" + "/".join(
            quote(part, safe="") for part in (self.tenant, self.namespace, self.name)
        )


class Admin:
    """The admin REST interface at `url`, with a token and TLS where they are given."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._context = context
        self._clock = clock
        # Where nobody listens, every call would cost the whole timeout; one in a while does.
        self._silent_until_s = float("-inf")
        self._silence: UnreachableError | None = None

    def call(self, method: str, path: str, body: object = None, *, kind: str = "json") -> Any:
        """Return the decoded answer, or None where there is none.

        Raises
        ------
        Refused
            If it answers with an error; `status` has the HTTP status.
        UnreachableError
            If it does not answer.
        """
        if self._silence is not None and self._clock.monotonic_s() < self._silent_until_s:
            raise self._silence.with_traceback(None)
        headers = {"Content-Type": f"application/{kind}", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(
            f"{self.url}/admin/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        timeout_s = TIMEOUT_S if method == "GET" else CHANGE_S_MAX
        try:
            with urllib.request.urlopen(
                request, timeout=timeout_s, context=self._context
            ) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refused(error, f"{method} {path}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._silent_until_s = self._clock.monotonic_s() + SILENT_S
            self._silence = self._unreachable(error)
            raise self._silence from None
        return json.loads(text) if text else None

    def _refused(self, error: urllib.error.HTTPError, what: str) -> Refused:
        text = error.read(2_000).decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            told = json.loads(text)
            text = str(told.get("reason") or told.get("message") or text)
        who = f"Pulsar's admin interface at {self.url}"
        message, remedy = f"{who} refused {what}.", None
        if error.code == 401:
            says = "refused the token" if self._token else "wants a token, and was given none"
            message, remedy = f"{who} {says}.", TOKEN_REMEDY
        elif error.code == 403:
            message = f"{who} does not let this client {what}."
            remedy = f"{TOKEN_REMEDY} and may do this, or have its rights extended"
        found = f"HTTP {error.code} {text[:500]}"
        return Refused(message, status=error.code, found=found, remedy=remedy)

    def _unreachable(self, error: Exception) -> UnreachableError:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLError):
            return of_tls(self.url, reason)
        if isinstance(reason, http.client.BadStatusLine) and str(reason).startswith("\x15\x03"):
            return only_tls(self.url)
        return UnreachableError(
            f"Pulsar's admin interface at {self.url} does not answer.",
            found=str(reason),
            remedy="name it with admin_url=... (it listens on port 8080 by default)",
        )

    def create(self, topic: Topic, *, partitions: int, identity: str) -> bool:
        """Make the topic; return False where it was there already."""
        properties = {"fs-identity": identity}
        try:
            if partitions > 1:
                self.call(
                    "PUT",
                    f"{topic.path}/partitions",
                    {"partitions": partitions, "properties": properties},
                    kind="vnd.partitioned-topic-metadata+json",
                )
            else:
                self.call("PUT", topic.path, properties)
        except Refused as error:
            if error.status == 409:
                return False
            raise
        return True

    def keep_for_ever(self, topic: Topic) -> None:
        """Set the topic's retention to no limit of time or size."""
        body = {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
        self.call("POST", f"{topic.path}/retention", body)

    def is_kept_for_ever(self, topic: Topic) -> bool:
        """Tell whether the retention that applies to the topic has no limit."""
        found = self.call("GET", f"{topic.path}/retention?applied=true")
        return (
            bool(found)
            and found.get("retentionTimeInMinutes") == -1
            and (found.get("retentionSizeInMB") == -1)
        )

    def properties(self, topic: Topic) -> dict[str, str]:
        """Return the properties that the topic was made with."""
        return dict(self.call("GET", f"{topic.path}/properties") or {})

    def partitions(self, topic: Topic) -> int | None:
        """Return how many partitions the topic has: 0 for a plain one, None if it is missing."""
        try:
            found = self.call("GET", f"{topic.path}/partitions?checkAllowAutoCreation=false")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return int((found or {}).get("partitions", 0))

    def schema(self, topic: Topic, version: int | None) -> tuple[str, str] | None:
        """Return (type, text) of a version of the topic's schema, or None if there is none.

        Without a version it is the newest one.
        """
        path = f"schemas/{topic.tenant}/{topic.namespace}/{quote(topic.name, safe='')}/schema"
        try:
            found = self.call("GET", path if version is None else f"{path}/{version}")
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return str(found["type"]), str(found["data"])

    def schemas(self, topic: Topic) -> list[tuple[str, str]]:
        """Return (type, text) of all versions of the topic's schema, oldest first."""
        path = f"schemas/{topic.tenant}/{topic.namespace}/{quote(topic.name, safe='')}/schemas"
        try:
            found = self.call("GET", path)
        except Refused as error:
            if error.status == 404:
                return []
            raise
        answers = sorted(found["getSchemaResponses"], key=lambda a: int(a["version"]))
        return [(str(a["type"]), str(a["data"])) for a in answers]

    def last(self, topic: Topic) -> tuple[int, int, int] | None:
        """Return (ledger, entry, batch index or -1) of the newest message, if any."""
        found = self.call("GET", f"{topic.path}/lastMessageId")
        if not found or found["entryId"] < 0:
            return None
        return int(found["ledgerId"]), int(found["entryId"]), int(found.get("batchIndex", -1))

    def topics(self, tenant: str, namespace: str) -> list[str]:
        """Return the names of the namespace's topics, partitioned ones once."""
        base = f"persistent/{tenant}/{namespace}"
        plain = self.call("GET", base) or []
        parted = self.call("GET", f"{base}/partitioned") or []
        names = {full.rpartition("/")[2] for full in parted}
        for full in plain:
            name = full.rpartition("/")[2]
            whole, mark, index = name.rpartition("-partition-")
            names.add(whole if mark and index.isdigit() else name)
        return sorted(names)

    def delete(self, topic: Topic, *, partitions: int) -> None:
        """Remove the topic and all it holds."""
        path = f"{topic.path}/partitions" if partitions else topic.path
        self.call("DELETE", f"{path}?force=true")

    def internal_stats(self, topic: Topic) -> dict[str, Any]:
        """Return what is stored of a topic that is no partitioned one: ledgers, entries, bytes."""
        return dict(self.call("GET", f"{topic.path}/internalStats") or {})

    def retention(self, topic: Topic) -> dict[str, int] | None:
        """Return the retention that applies to the topic, in minutes and MB; -1 is no limit."""
        found = self.call("GET", f"{topic.path}/retention?applied=true")
        return None if found is None else dict(found)
