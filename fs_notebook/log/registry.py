"""What a topic's schema registry says of its payloads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from fs_notebook.errors import DefinitionError, UnreachableError, UsageError
from fs_notebook.log.admin import Admin, Refused, Topic
from fs_notebook.log.beside import payload_of
from fs_notebook.log.facts import Drift
from fs_notebook.log.infer import time_of
from fs_notebook.log.payloads import SchemaOf, Version, columns_of
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

FORMATS = {"AVRO": "avro", "PROTOBUF_NATIVE": "protobuf"}
_BY_SAMPLE = frozenset({"JSON", "STRING", "BYTES", "NONE"})


def schema_of(admin: Admin, topic: Topic, format_: str) -> SchemaOf:
    """Return what asks the registry for the schemas of a stream's events.

    An event whose message names no version is read by the topic's first schema: unlike the newest,
    that one stays the same.
    """

    def find(version: Version) -> str | None:
        found = admin.schema(topic, 0 if version is None else version)
        if found is None or FORMATS.get(found[0]) != format_:
            return None
        return found[1]

    return find


def drift(admin: Admin, topic: Topic, stream: Stream) -> Drift | None:
    """Return how the topic's newest schema differs from a declaration that is read by it.

    None where no registry tells, or it does not answer.
    """
    if stream.format not in FORMATS.values() or stream.schema is not None:
        return None
    try:
        known = [text for kind, text in admin.schemas(topic) if FORMATS.get(kind) == stream.format]
    except (UnreachableError, Refused):
        return None
    former: set[str] = set()
    now: dict[str, Type] = {}
    for text in known:
        with suppress(DefinitionError):
            former |= now.keys()
            now = dict(columns_of(stream.format, text))
    inside = dict(payload_of(stream).columns)
    return Drift(
        tuple((n, t) for n, t in now.items() if n not in inside),
        tuple(n for n in inside if n not in now and n in former),
        tuple((n, t, now[n]) for n, t in inside.items() if n in now and now[n] != t),
    )


def declared(
    admin: Admin, topic: Topic, *, needed: bool
) -> tuple[str, tuple[tuple[str, Type], ...], str | None] | None:
    """Return format, columns and time column that the registry says; None if samples must tell.

    The columns are those of all versions, each with the type that the newest one gives it.

    Raises
    ------
    UsageError
        If the topic's events are of a kind that cannot be read.
    UnreachableError
        If the registry does not answer and is `needed`.
    """
    known: Sequence[tuple[str, str]] = ()
    try:
        known = admin.schemas(topic)
    except UnreachableError:
        if needed:
            raise
    if not known or known[-1][0] in _BY_SAMPLE:
        return None
    kind = known[-1][0]
    if kind not in FORMATS:
        raise UsageError(
            f"The events of {topic.name!r} are of a kind that cannot be read.",
            found=f"schema type {kind}",
            remedy="JSON, Avro and Protobuf (as Pulsar's PROTOBUF_NATIVE) can; or declare the "
            "stream with format= and schema=",
        )
    columns: dict[str, Type] = {}
    for one, text in known:
        if one == kind:
            # Of former versions, what cannot be read is left to their events.
            with suppress(*([] if text == known[-1][1] else [DefinitionError])):
                columns |= dict(columns_of(FORMATS[kind], text))
    found = tuple(columns.items())
    return FORMATS[kind], found, time_of(found)
