"""Declaring streams by hand: where a look at the events cannot tell, or tells it otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.catalog import STREAM as CATALOG
from fs_notebook.catalog.model import DECLARED, Definition, DerivedDefinition
from fs_notebook.compute.preview import parse_span
from fs_notebook.errors import NameTaken, UsageError, unknown_name
from fs_notebook.language import expr as ex
from fs_notebook.log.beside import EVENT_TIME, PUBLISH_TIME
from fs_notebook.log.frames import check_stream
from fs_notebook.log.payloads import FORMATS, columns_of
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.types import Type

Columns = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Wish:
    """What is said of a stream; None leaves it to what is known.

    Attributes
    ----------
    columns
        Names and types, such as ``{"user": "VARCHAR"}``.
    time
        The column of event times; empty text for none.
    key
        The columns that route an event.
    partitions
        Of a stream that is made.
    format
        ``"json"``, ``"avro"`` or ``"protobuf"``.
    schema
        An Avro schema or a Protobuf descriptor set: a file, its bytes or its text.
    message
        The full name of the Protobuf message that an event is.
    meta
        Columns that lie beside the payload: column → ``"key"``, ``"property NAME"``,
        ``"event time"`` or ``"publish time"``.
    json_only
        Whether each event is written as a JSON message, however many are written at once.
    ahead
        How far at most event times lie after publishing, ``"5 minutes"``; empty text: not known.
    """

    columns: Columns | None = None
    time: str | None = None
    key: Sequence[str] | None = None
    partitions: int = 1
    format: str | None = None
    schema: str | bytes | Path | None = None
    message: str | None = None
    meta: Mapping[str, str] | None = None
    json_only: bool | None = None
    ahead: str | None = None


class Declarations:
    """Declares streams, and declares them anew. `Session.declare` documents it."""

    def __init__(
        self, catalog: Catalog, log: EventLog, *, mind_retention: Callable[[str], None]
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._mind_retention = mind_retention

    def declare(self, name: str, wish: Wish) -> Stream:
        """Record what a stream is; make it where it is not there."""
        if name == CATALOG.name:
            raise UsageError(f"{name!r} is the catalog's own stream.", remedy="another name")
        state = self._catalog.refresh()
        if name in state.views:
            raise NameTaken(f"{name!r} is a view.", remedy="another name for the stream")
        known = state.sources.get(name)
        there = self._log.exists(name)
        stream = self._wished(name, wish, None if known is None else known.stream, there)
        check_stream(stream)
        _check_needed(state, stream)
        if there:
            self._mind_retention(name)
        else:
            self._log.create(stream)
        if known is None or known.stream != stream:
            self._catalog.record(
                DECLARED, name, {"stream": stream.to_dict()},
                check=lambda now: now.sources.get(name) == known,
            )  # fmt: skip
        return stream

    def _wished(self, name: str, wish: Wish, known: Stream | None, there: bool) -> Stream:
        format_ = wish.format or (known.format if known is not None else None)
        schema = None if wish.schema is None else _schema_text(wish, format_)
        if known is None:
            known = self._found(name, wish, there, schema)
        format_ = format_ or known.format
        if format_ not in FORMATS:
            raise UsageError(
                f"Stream {name!r} would have an unknown format.",
                found=format_, remedy=f"one of {', '.join(FORMATS)}",
            )  # fmt: skip
        columns = known.columns
        if there and replace(wish, partitions=1) == Wish():
            columns = self._grown(known)
        elif wish.columns is not None:
            columns = _typed(name, wish.columns)
        elif schema is not None:
            columns = tuple(columns_of(format_, schema))
        meta = known.meta if wish.meta is None else tuple(wish.meta.items())
        columns = _with_meta(columns, meta)
        time = known.time if wish.time is None else wish.time or None
        if time is not None and time not in dict(columns):
            if wish.time is not None:
                raise unknown_name(f"column of {name!r}", time, [n for n, _ in columns])
            time = None
        return replace(
            known, columns=columns, time=time, format=format_, meta=meta,
            schema=known.schema if wish.schema is None else schema,
            key=known.key if wish.key is None else tuple(wish.key),
            json_only=known.json_only if wish.json_only is None else wish.json_only,
            ahead_us=known.ahead_us if wish.ahead is None else _ahead_us(wish.ahead),
        )  # fmt: skip

    def _grown(self, known: Stream) -> tuple[tuple[str, Type], ...]:
        """Return a stream's columns as another look at its events tells: it may have more now.

        Types change where a registry says so; a sample says less than what was declared.
        """
        infer: Callable[[str], Stream] | None = getattr(self._log, "infer_stream", None)
        if infer is None or known.schema is not None:
            return known.columns
        look = dict(infer(known.name).columns)
        types = dict(known.columns)
        told = look if known.format != "json" else {}
        return tuple((look | types | {n: told[n] for n in types if n in told}).items())

    def _found(self, name: str, wish: Wish, there: bool, schema: str | None) -> Stream:
        """Return what is known of a stream that was not declared yet."""
        infer: Callable[[str], Stream] | None = getattr(self._log, "infer_stream", None)
        told = wish.columns is not None or schema is not None
        if there and infer is not None:
            try:
                return infer(name)
            except UsageError:
                # What cannot be told from its events was just told.
                if not told:
                    raise
        if not told:
            raise UsageError(
                f"There is no stream {name!r} to look at.",
                remedy="say what its columns are: columns={'user': 'VARCHAR', …}",
            )
        partitions = wish.partitions
        if there:
            partitions = 1 + max((p.partition for p in self._log.end(name)), default=0)
        return Stream(name, (), partitions=partitions)


def _ahead_us(ahead: str) -> int | None:
    return parse_span(ahead, option="--ahead") if ahead else None


def _typed(name: str, columns: Columns) -> tuple[tuple[str, Type], ...]:
    pairs = list(columns.items()) if isinstance(columns, Mapping) else list(columns)
    typed = []
    for column, kind in pairs:
        try:
            typed.append((column, Type(str(kind).strip())))
        except ValueError:
            raise UsageError(
                f"Column {column!r} of {name!r} has a type that there is not.",
                found=str(kind),
                remedy="BIGINT, DOUBLE, DECIMAL(10,2), VARCHAR, BOOLEAN, TIMESTAMP, DATE, "
                'INTERVAL, a list of them (BIGINT[]), or STRUCT("a" BIGINT, …)',
            ) from None
    return tuple(typed)


def _with_meta(
    columns: tuple[tuple[str, Type], ...], meta: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, Type], ...]:
    """Return columns with those that lie beside the payload, where they are not among them."""
    there = dict(columns)
    more = [
        (c, Type.TIMESTAMP if source in (EVENT_TIME, PUBLISH_TIME) else Type.VARCHAR)
        for c, source in meta
        if c not in there
    ]
    return (*columns, *more)


def _schema_text(wish: Wish, format_: str | None) -> str:
    """Return the schema as declarations keep it."""
    if format_ not in FORMATS[1:]:
        raise UsageError(
            "A schema is given, and not whose.",
            found=f"format {format_ or 'unknown'}",
            remedy='format="avro" or format="protobuf"',
        )
    given = wish.schema
    if isinstance(given, Path) or (isinstance(given, str) and _is_path(given)):
        path = Path(given).expanduser()
        try:
            given = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"The schema file {path.name!r} cannot be read.",
                found=error.strerror,
                remedy="check the path",
            ) from None
    if format_ == "protobuf":
        if isinstance(given, str):
            return given
        assert isinstance(given, bytes)
        if wish.message is None:
            raise UsageError(
                "A descriptor set holds many messages.",
                remedy='say which an event is: message="shop.Order"',
            )
        from fs_notebook.log.protobuf import schema_text

        return schema_text(given, wish.message)
    try:
        text = given.decode() if isinstance(given, bytes) else str(given)
        return json.dumps(json.loads(text))
    except ValueError as error:
        raise UsageError("The Avro schema is no JSON.", found=str(error)[:200]) from None


def _is_path(text: str) -> bool:
    return not text.lstrip().startswith(("{", "[", '"'))


def needed_columns(state: CatalogState, name: str) -> dict[str, list[str]]:
    """Return the columns of a stream that definitions read: column → names of their groups."""
    needed: dict[str, list[str]] = {}
    for group in sorted(state.groups.values(), key=lambda g: g.name):
        read: set[str] = set()
        for definition in (group.latest, *(v.definition for v in group.running)):
            inputs = (
                definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)
            )
            for one in inputs:
                read |= _read_of(one, name)
        for column in read:
            needed.setdefault(column, []).append(group.name)
    return needed


def _read_of(definition: Definition, name: str) -> set[str]:
    if name not in (*definition.facts.streams, *definition.facts.joined):
        return set()
    plan = definition.plan
    read: set[str] = set()
    if definition.source.name == name:
        read |= {*plan.columns, *([plan.time] if plan.time else [])}
    for join in plan.joins:
        if join.source == name:
            read |= {c for _, c, _ in join.columns} | {c for _, c in join.keys}
    for branch in plan.branches:
        if branch.source == name:
            read |= {c for _, e in branch.columns for c in ex.columns_of(e)}
            read |= set() if branch.where is None else set(ex.columns_of(branch.where))
    return read


def _check_needed(state: CatalogState, stream: Stream) -> None:
    """Refuse a declaration without a column that features read."""
    needed = needed_columns(state, stream.name)
    gone = {c: groups for c, groups in needed.items() if c not in stream.names}
    # The columns of an interval join's rows have names of their own.
    known = state.sources.get(stream.name)
    if known is not None:
        gone = {c: g for c, g in gone.items() if c in known.stream.names}
    if gone:
        raise UsageError(
            f"Features read columns of {stream.name!r} that it would no longer have.",
            found="; ".join(f"{c} is read by {', '.join(g)}" for c, g in sorted(gone.items())),
            remedy="keep these columns, or retire or change those features first",
        )
