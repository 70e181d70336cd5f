"""The ledger on Apache Pulsar."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from operator import attrgetter
from typing import Any, cast
from urllib.parse import urlsplit

import polars as pl

from fs_notebook.clock import SYSTEM, Clock, new_id
from fs_notebook.errors import (
    ConflictError,
    FeatureStoreError,
    UnknownPosition,
    UnreachableError,
    UsageError,
    unknown_name,
)
from fs_notebook.log import frames, registry
from fs_notebook.log.access import Access
from fs_notebook.log.admin import Admin, Refused, Topic
from fs_notebook.log.apart import ReaderProcesses
from fs_notebook.log.client import Client
from fs_notebook.log.cursors import Part, end_of, first_of, rows_at
from fs_notebook.log.facts import Drift, Facts
from fs_notebook.log.follow import follow
from fs_notebook.log.framing import route
from fs_notebook.log.infer import infer_columns
from fs_notebook.log.lanes import Stopped, in_lanes
from fs_notebook.log.ledgers import entry_before, facts_of, queue_of
from fs_notebook.log.messages import Chunk, Decoded, asks_each, decode, regrouped
from fs_notebook.log.names import check_stream_name
from fs_notebook.log.ownership import Ownership, forget
from fs_notebook.log.partitions import side_by_side
from fs_notebook.log.payloads import PayloadReader, Version
from fs_notebook.log.protocol import EARLIEST, Batch, Stream
from fs_notebook.log.reader import PartReader, chunks_until, sampled
from fs_notebook.log.retention import keeping, warn_retention
from fs_notebook.log.seeking import Promised, begin_at, nothing
from fs_notebook.log.sending import Sent, open_producer, send
from fs_notebook.position import Cut, Position

_NAMESPACE = re.compile(r"/?|/([A-Za-z0-9_.\-]{1,100})/([A-Za-z0-9_.\-]{1,100})/?")
ENDS_AT_ONCE_MAX = 8
CHUNK_MESSAGES = 20_000
CHUNKS_AHEAD_MAX = 2
TAIL_QUEUE_MAX = 1_000


class PulsarLog:
    """A ledger on a Pulsar cluster.

    Parameters
    ----------
    url
        ``pulsar://host:6650`` or ``pulsar+ssl://host:6651``; several hosts with commas. A path
        names the namespace where streams lie: ``pulsar://host:6650/tenant/namespace``; without
        one it is ``public/default``.
    admin_url
        The admin REST interface; by default port 8080 (8443 with TLS) of the first host. Making
        streams, listing them and telling one from another of the same name need it.
    access
        Token and TLS files; by default from the environment.
    """

    def __init__(
        self,
        url: str,
        *,
        admin_url: str | None = None,
        access: Access | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        split = urlsplit(url)
        host = split.netloc.split(",")[0].rpartition("@")[2]
        place = _NAMESPACE.fullmatch(split.path)
        if split.scheme not in ("pulsar", "pulsar+ssl") or not host or place is None:
            raise UsageError(
                f"{url!r} is not the address of a Pulsar broker.",
                remedy="use pulsar://host:6650, pulsar+ssl://host:6651, or one of them with "
                "/tenant/namespace behind it",
            )
        self._namespace = (place[1] or "public", place[2] or "default")
        tls = split.scheme == "pulsar+ssl"
        # Other processes find access in the environment as well, and have no clock of ours.
        alike = access is None and clock is SYSTEM
        access = access or Access.from_environment()
        name = urlsplit(f"//{host}").hostname or host
        name = f"[{name}]" if ":" in name else name
        default = f"https://{name}:8443" if tls else f"http://{name}:8080"
        self.url = url
        self._clock = clock
        self._admin_given = admin_url is not None
        context = access.context() if (admin_url or default).startswith("https") else None
        self._admin = Admin(admin_url or default, token=access.token, context=context, clock=clock)
        self._client = Client(f"{split.scheme}://{split.netloc}", access)
        self.readers = ReaderProcesses(url, admin_url, usable=alike)
        self.schemas_met = 0
        """How many versions of schemas its readings have met: one more may have other columns."""
        self.promised: Promised = attrgetter("ahead_us")
        """How far ahead of publishing a stream's times are, us: what is declared by now."""
        self._turn = 0
        self._last_rows: dict[str, tuple[int, int, int]] = {}

    def create(self, stream: Stream) -> None:
        """Make the topic and keep it for ever; one that is there already is left as it is.

        Warns
        -----
        RetentionWarning
            If its events may be removed: the admin interface could not be asked, or the topic
            was there before with a limit.
        """
        check_stream_name(stream.name)
        frames.check_stream(stream)
        topic = self._topic(stream.name)
        command = keeping(topic.full)
        try:
            made = self._admin.create(topic, partitions=stream.partitions, identity=new_id())
            if made:
                self._admin.keep_for_ever(topic)
            elif not self._admin.is_kept_for_ever(topic):
                warn_retention(f"{topic.full} was there before, with limited retention", command)
        except (UnreachableError, Refused) as error:
            if stream.partitions > 1:
                raise UnreachableError(
                    f"The partitioned topic {topic.full} could not be made.",
                    found=str(error),
                    remedy="name the admin interface with admin_url=..., or run: pulsar-admin "
                    f"topics create-partitioned-topic -p {stream.partitions} {topic.full}",
                ) from None
            # Opening a producer makes the topic, where clients may.
            self._client.producer(topic.full, batching=False, exclusive=False).close()
            warn_retention(str(error), command)

    def delete(self, name: str) -> None:
        """Remove the topic and all its events, for good."""
        topics = self._topics(name)
        partitions = len(topics) if topics[0] != self._topic(name).full else 0
        self._admin.delete(self._topic(name), partitions=partitions)

    def exists(self, name: str) -> bool:
        """Tell whether there is a topic of this name."""
        topic = self._topic(check_stream_name(name))
        return self._admin.partitions(topic) is not None

    def names(self) -> list[str]:
        """Return the names of the topics in the address's namespace, sorted."""
        return [n for n in self._admin.topics(*self._namespace) if not _is_system(n)]

    def _topic(self, name: str) -> Topic:
        return Topic.of(name, *self._namespace)

    def identity(self, name: str) -> str:
        """Return the identifier that the topic got when it was made.

        A topic that something else made has none; its earliest entry stands in for it, which
        stays the same as long as nothing is trimmed.
        """
        topic = self._topic(check_stream_name(name))
        try:
            known = self._admin.properties(topic).get("fs-identity")
            if known:
                return known
        except Refused as error:
            if error.status == 404:
                raise self._missing(name) from None
        except UnreachableError:
            if self._admin_given:
                raise
        return self._earliest(name)

    def earliest(self, part: Part) -> Position | None:
        """Return the position of the earliest event that is left in a partition, if any is."""
        return None if self._end_of(part) is None else first_of(self._client, part)

    def beginning(self, name: str, only: int | None = None) -> Cut:
        """Return where the first events that are left lie; see `EventLog.beginning`."""
        parts = [p for p in self._parts(name) if only in (None, p.partition)]
        return Cut(tuple(at for part in parts if (at := self.earliest(part)) is not None))

    def infer_stream(self, name: str, *, sample: int = 200) -> Stream:
        """Return a declaration that fits the topic: by its schema registry, or its first events.

        The registry tells of Avro and Protobuf; of other events the first `sample` are looked at.

        Raises
        ------
        UsageError
            If they are no JSON objects and no Arrow batches, or there are none; or the registry
            has a schema of another kind.
        """
        parts = self._parts(name)
        told = registry.declared(self._admin, self._topic(name), needed=self._admin_given)
        if told is not None:
            format_, columns, time = told
            return Stream(name, columns, time=time, partitions=len(parts), format=format_)
        ends = [(part, self._end_of(part)) for part in parts]
        payloads = sampled(self._client, ends, sample)
        columns, time = infer_columns(name, payloads[:sample])
        return Stream(name, columns, time=time, partitions=len(parts))

    def append(self, stream: Stream, rows: pl.DataFrame, *, expected: Cut | None = None) -> Cut:
        """Append events; return the cut just after them, once the broker has stored them.

        Rows of one partition become durable in order. If it fails midway, the error says how
        many rows were stored.
        """
        frame = frames.outgoing(stream, rows)
        parts = self._parts(stream.name)
        self._turn += 1
        routed = route(stream, frame, len(parts), self._turn)
        if expected is None:
            sent = Sent(frame.height)
            for index, part_rows in routed.items():
                send(self._client, stream, parts[index], part_rows, sent, clock=self._clock)
            return self._cut_after(parts, sent)
        held: list[Any] = []
        try:
            for part in parts:
                producer = open_producer(
                    self._client, part.topic, batching=False, exclusive=True, clock=self._clock
                )
                held.append(producer)
            end = self._end(parts)
            if end != expected:
                raise ConflictError(
                    f"Stream {stream.name!r} has moved on since it was read.",
                    found=f"its end is {end}, expected was {expected}",
                    remedy="read what was added, then decide again",
                )
            sent = Sent(frame.height)
            for index, part_rows in routed.items():
                send(
                    self._client, stream, parts[index], part_rows, sent, clock=self._clock,
                    exclusive=held[index],
                )  # fmt: skip
            return self._cut_after(parts, sent, base=expected)
        finally:
            for producer in held:
                with suppress(Exception):
                    producer.close()

    def end(self, name: str) -> Cut:
        """Return the cut behind the newest event of each partition, frozen now."""
        return self._end(self._parts(name))

    def read(
        self,
        stream: Stream,
        *,
        start: Cut,
        end: Cut,
        columns: Sequence[str] | None = None,
        time_from_us: int | None = None,
        time_to_us: int | None = None,
        rows_max: int = 200_000,
    ) -> Iterator[Batch]:
        """Yield the events in (start, end]; see `EventLog.read`.

        Up to four partitions are read side by side. The broker knows when a message was published,
        by its producer's clock; an event may be older, or have a time of its own. So by time only
        what comes before can be passed over, if the stream promises how far `ahead` times are.
        """
        if rows_max < 1:
            raise UsageError(f"A batch cannot hold {rows_max} rows.", remedy="use 1 or more")
        asked = frames.asked_columns(stream, columns)
        parts = self.check_cuts(stream.name, start, end)
        times = (time_from_us, time_to_us)
        return self._read(stream, parts, start, end, asked, times, rows_max)

    def tail(
        self,
        stream: Stream,
        *,
        start: Cut,
        columns: Sequence[str] | None = None,
        rows_max: int = 10_000,
        idle_seconds: float = 0.2,
        only: int | None = None,
    ) -> Iterator[Batch | None]:
        """Yield the events after `start` for ever; see `EventLog.tail`.

        Partitions that are added later are taken up from their first event, within 5 s.
        """
        asked = frames.asked_columns(stream, columns)
        parts = self.check_cuts(stream.name, start, start)
        share = len(parts) if only is None else 1

        def ahead(part: Part, after: Position | None) -> int:
            told = queue_of(self._admin, part.topic, after, None, share=share)
            # What is yet to come may be larger.
            return min(told, TAIL_QUEUE_MAX)

        return follow(
            self._payloads(stream),
            start,
            asked,
            cursors=self._client,
            parts=lambda: [p for p in self._parts(stream.name) if only in (None, p.partition)],
            ahead=ahead,
            rows_max=rows_max,
            idle_seconds=idle_seconds,
            clock=self._clock,
        )

    def partitions(self, name: str) -> int:
        """Return how many partitions the stream has now."""
        return len(self._topics(name))

    def facts(self, name: str) -> Facts:
        """Return what the admin interface tells of the stream."""
        return facts_of(self._admin, self._topics(name))

    def before(self, name: str, position: Position, events: int) -> Position | None:
        """Return a position with `events` events or more in (it, position]; None: all there are."""
        topic = self._topics(name)[position.partition]
        return entry_before(self._admin, topic, position, events)

    def share(self, name: str, among: str, member: str) -> Ownership:
        """Take part in sharing the stream's partitions, through a Failover subscription."""
        topics = partial(self._topics, name)
        return Ownership(self._client, self._admin, topics, among, member, clock=self._clock)

    def unshare(self, name: str, among: str) -> None:
        """Remove the subscription through which the stream was shared."""
        forget(self._admin, self._topics(name), among)

    def close(self) -> None:
        """Close all connections; calls after it raise."""
        self.readers.close()
        self._client.close()

    def check_cuts(self, name: str, start: Cut, end: Cut) -> list[Part]:
        """Return the stream's partitions, once `start` and `end` are known to lie before its end.

        Pulsar itself would accept any position and go on at some other one.
        """
        parts = self._parts(name)
        there = self._end(parts)
        for position in (*start, *end):
            last = there.get(position.partition)
            if last is None or position > last or min(position) < 0:
                raise UnknownPosition(
                    f"Stream {name!r} has no position {position}.",
                    found=f"its end is {there}",
                    remedy="positions of one stream mean nothing on another, or on another ledger",
                )
        return parts

    def decoded(
        self,
        stream: Stream,
        part: Part,
        start: Position | None,
        end: Position,
        *,
        rows_max: int,
        stopped: Stopped | None = None,
        apart: bool = False,
    ) -> Generator[Decoded, None, None]:
        """Yield the events of one partition in (start, end], all columns, as they come.

        The client hands over messages in a thread of its own while Polars decodes those before;
        with `stopped`, it is all done where this is called, which is such a thread already, or,
        if it is to be `apart`, in a process of its own.
        """
        if start is not None and start >= end:
            return
        if apart and stopped is not None:
            yield from self.readers.decoded(
                stream, part, start, end, rows_max=rows_max, stopped=stopped
            )
            return

        def chunks(stopped: Stopped) -> Iterator[Chunk]:
            queue = queue_of(self._admin, part.topic, start, end)
            each = asks_each(stream)
            reader = PartReader(self._client, part, start, queue=queue, each=each)
            try:
                yield from chunks_until(
                    reader,
                    end,
                    rows_max=min(rows_max, CHUNK_MESSAGES),
                    clock=self._clock,
                    stopped=stopped,
                    ask=partial(self._client.partitions, part.topic),
                )
            finally:
                reader.close()

        if stopped is not None:
            made = cast(Generator[Chunk, None, None], chunks(stopped))
        else:
            made = in_lanes([chunks], at_once_max=1, ahead_max=CHUNKS_AHEAD_MAX)
        payloads = self._payloads(stream)
        with closing(made):
            for chunk in made:
                yield from decode(chunk, payloads)

    def begin(
        self, stream: Stream, part: Part, start: Position | None, end: Position, time_us: int | None
    ) -> Position | None:
        """Return where to begin in (start, end] for events from a time on; see `seeking`."""
        ahead_us = self.promised(stream)
        if time_us is None or ahead_us is None or (start is not None and start >= end):
            return start
        return begin_at(self._client, part, start, end, time_us - ahead_us)

    def drift(self, stream: Stream) -> Drift | None:
        """Return how the topic's newest schema differs from the declaration, if that is known."""
        return registry.drift(self._admin, self._topic(stream.name), stream)

    def _payloads(self, stream: Stream) -> PayloadReader:
        find = registry.schema_of(self._admin, self._topic(stream.name), stream.format)

        def met(version: Version) -> str | None:
            self.schemas_met += 1
            return find(version)

        return PayloadReader(stream, met)

    def _read(
        self,
        stream: Stream,
        parts: list[Part],
        start: Cut,
        end: Cut,
        asked: tuple[str, ...],
        times: tuple[int | None, int | None],
        rows_max: int,
    ) -> Iterator[Batch]:
        def batches(
            until: Position, rows_max: int, stopped: Stopped | None = None
        ) -> Iterator[Batch]:
            part, after = parts[until.partition], start.get(until.partition)
            begin = self.begin(stream, part, after, until, times[0])
            if begin == until != after:
                yield nothing(stream, asked, until)
            of = partial(self.decoded, stream, part, begin, until, rows_max=rows_max)
            with closing(of(stopped=stopped, apart=True)) as found:
                yield from regrouped(found, stream, asked, times, rows_max)

        return side_by_side(batches, end, rows_max, self.readers)

    def _parts(self, name: str) -> list[Part]:
        return [Part(name, topic, i) for i, topic in enumerate(self._topics(name))]

    def _topics(self, name: str) -> list[str]:
        """Return the topics of the stream's partitions, in order."""
        topic = self._topic(check_stream_name(name))
        try:
            count = self._admin.partitions(topic)
        except (UnreachableError, Refused):
            return self._client.partitions(topic.full)
        if count is None:
            raise self._missing(name)
        return [f"{topic.full}-partition-{i}" for i in range(count)] if count else [topic.full]

    def _missing(self, name: str) -> FeatureStoreError:
        known: list[str] = []
        with suppress(FeatureStoreError):
            known = self.names()
        return unknown_name("stream", name, known, remedy="upload events to make a stream")

    def _earliest(self, name: str) -> str:
        first = [f"{at}" for part in self._parts(name) if (at := self.earliest(part))]
        return EARLIEST + (", ".join(first) or "none")

    def _end(self, parts: Sequence[Part]) -> Cut:
        if len(parts) > 1:
            with ThreadPoolExecutor(min(len(parts), ENDS_AT_ONCE_MAX)) as pool:
                ends = list(pool.map(self._end_of, parts))
        else:
            ends = [self._end_of(part) for part in parts]
        return Cut(tuple(end for end in ends if end is not None))

    def _end_of(self, part: Part) -> Position | None:
        """Return the position of the partition's newest event, or None if it has none.

        The admin interface answers ten times sooner than a reader, which must seek; either gives
        the same answer. A message that was sent alone is looked at, as it may be an Arrow batch.
        """
        try:
            found = self._admin.last(self._topic(part.topic))
        except (UnreachableError, Refused):
            return end_of(self._client, part)
        if found is None:
            return None
        ledger, entry, batch = found
        if batch >= 0:
            return Position(part.partition, ledger, entry, batch)
        if self._last_rows.get(part.topic, (0, 0, 0))[:2] != (ledger, entry):
            at = Position(part.partition, ledger, entry, 0)
            rows = rows_at(self._client, part, at)
            self._last_rows[part.topic] = (ledger, entry, rows)
        rows = self._last_rows[part.topic][2]
        return Position(part.partition, ledger, entry, rows - 1)

    def _cut_after(self, parts: list[Part], sent: Sent, *, base: Cut | None = None) -> Cut:
        """Return the cut with what was sent; other partitions are as in `base`, or as they are."""
        if base is None:
            base = self._end([p for p in parts if p.partition not in sent.ends])
        return base.advanced(sent.ends.values())


def _is_system(name: str) -> bool:
    return name.startswith(("__change_events", "__transaction", "__compaction"))
