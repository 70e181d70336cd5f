"""Guessing the declaration of a topic that something else writes to."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log.decode import ARROW_MAGIC, decode_json
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type, type_of

_TIME_NAMES = ("event_time", "timestamp", "ts", "time", "datetime", "created_at", "at")


def infer_columns(
    name: str, payloads: Sequence[bytes]
) -> tuple[tuple[tuple[str, Type], ...], str | None]:
    """Return columns that fit `payloads`, and the likely time column.

    Text is a TIMESTAMP where every value is one; objects and lists are text. The time column
    is the only TIMESTAMP, or the first one with a usual name for a time.

    Raises
    ------
    UsageError
        If no payload is a JSON object or an Arrow batch.
    """
    for payload in payloads:
        if payload[:4] == ARROW_MAGIC:
            columns = _arrow_columns(payload)
            if columns:
                return columns, _time_of(columns)
    kinds: dict[str, Type | None] = {}
    events = [event for p in payloads if isinstance(event := _loaded(p), dict)]
    for event in events:
        for column, value in event.items():
            kinds[column] = _wider(kinds.get(column), _kind(value))
    if not kinds:
        raise UsageError(
            f"The events of {name!r} are of no known form.",
            found=f"{len(payloads)} events, none of them a JSON object or an Arrow batch",
            remedy="declare the stream's columns",
        )
    columns = tuple(
        (column, _timed(column, kind or Type.VARCHAR, events)) for column, kind in kinds.items()
    )
    return columns, _time_of(columns)


def _arrow_columns(payload: bytes) -> tuple[tuple[str, Type], ...]:
    try:
        frame = pl.read_ipc_stream(io.BytesIO(payload), n_rows=1)
    except (pl.exceptions.PolarsError, OSError):
        return ()
    return tuple((n, type_of(t, column=n)) for n, t in frame.schema.items())


def _loaded(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _kind(value: object) -> Type | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return Type.BOOLEAN
    if isinstance(value, int):
        return Type.BIGINT
    return Type.DOUBLE if isinstance(value, float) else Type.VARCHAR


def _wider(known: Type | None, seen: Type | None) -> Type | None:
    if known is None or seen is None or known is seen:
        return known or seen
    return Type.DOUBLE if known.is_number and seen.is_number else Type.VARCHAR


def _timed(column: str, kind: Type, events: Sequence[dict[str, object]]) -> Type:
    if kind is not Type.VARCHAR:
        return kind
    texts = [e[column] for e in events if e.get(column) is not None]
    if not texts or not all(isinstance(t, str) and len(t) >= 10 and t[:1].isdigit() for t in texts):
        return kind
    probe = Stream("probe", (("at", Type.TIMESTAMP),))
    _, bad = decode_json([json.dumps({"at": t}).encode() for t in texts], probe)
    return kind if bad else Type.TIMESTAMP


def _time_of(columns: Sequence[tuple[str, Type]]) -> str | None:
    times = [name for name, kind in columns if kind is Type.TIMESTAMP]
    if len(times) == 1:
        return times[0]
    usual = [name for name in times if name.lower() in _TIME_NAMES]
    return usual[0] if usual else None
