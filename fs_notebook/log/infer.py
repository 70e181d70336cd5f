"""Guessing the declaration of a topic that something else writes to."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from fs_notebook.errors import UsageError
from fs_notebook.log.decode import ARROW_MAGIC, decode_json
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type, list_of, struct_of, type_of

FIELDS_MAX = 100

_TIME_NAMES = ("event_time", "timestamp", "ts", "time", "datetime", "created_at", "at")


@dataclass(frozen=True)
class _List:
    element: _Guess


@dataclass(frozen=True)
class _Struct:
    fields: dict[str, _Guess]


_Guess = Type | _List | _Struct | None
"""What a column seems to hold so far; None where nothing but nulls was seen."""


def infer_columns(
    name: str, payloads: Sequence[bytes]
) -> tuple[tuple[tuple[str, Type], ...], str | None]:
    """Return columns that fit `payloads`, and the likely time column.

    Text is a TIMESTAMP where every value is one. Arrays are lists; objects are structs of all the
    fields that were seen, or text where those are none or more than `FIELDS_MAX`: such objects are
    maps. The time column is the only TIMESTAMP, or the first one with a usual name for a time.

    Raises
    ------
    UsageError
        If no payload is a JSON object or an Arrow batch.
    """
    for payload in payloads:
        if payload[:4] == ARROW_MAGIC:
            columns = _arrow_columns(payload)
            if columns:
                return columns, time_of(columns)
    kinds: dict[str, _Guess] = {}
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
    columns = tuple((c, _settled(g, [e.get(c) for e in events])) for c, g in kinds.items())
    return columns, time_of(columns)


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


def _kind(value: object) -> _Guess:
    if value is None:
        return None
    if isinstance(value, bool):
        return Type.BOOLEAN
    if isinstance(value, int):
        return Type.BIGINT
    if isinstance(value, list):
        guess: _Guess = None
        for element in value:
            guess = _wider(guess, _kind(element))
        return _List(guess)
    if isinstance(value, dict):
        return _Struct({str(n): _kind(v) for n, v in value.items()})
    return Type.DOUBLE if isinstance(value, float) else Type.VARCHAR


def _wider(known: _Guess, seen: _Guess) -> _Guess:
    if known is None or seen is None or known == seen:
        return known or seen
    if isinstance(known, _List) and isinstance(seen, _List):
        return _List(_wider(known.element, seen.element))
    if isinstance(known, _Struct) and isinstance(seen, _Struct):
        names = dict.fromkeys([*known.fields, *seen.fields])
        return _Struct({n: _wider(known.fields.get(n), seen.fields.get(n)) for n in names})
    numbers = (Type.BIGINT, Type.DOUBLE)
    return Type.DOUBLE if known in numbers and seen in numbers else Type.VARCHAR


def _settled(guess: _Guess, values: Sequence[object]) -> Type:
    """Return the type of a guess, of which `values` were seen; what is not known is text."""
    if isinstance(guess, _List):
        lists = [v for v in values if isinstance(v, list)]
        return list_of(_settled(guess.element, [e for v in lists for e in v]))
    if isinstance(guess, _Struct):
        if not 0 < len(guess.fields) <= FIELDS_MAX:
            return Type.VARCHAR
        dicts = [v for v in values if isinstance(v, dict)]
        return struct_of([
            (n, _settled(g, [d.get(n) for d in dicts])) for n, g in guess.fields.items()
        ])  # fmt: skip
    if guess is None or guess is Type.VARCHAR:
        return Type.TIMESTAMP if _are_times(values) else Type.VARCHAR
    return guess


def _are_times(values: Sequence[object]) -> bool:
    texts = [v for v in values if v is not None]
    if not texts or not all(isinstance(t, str) and len(t) >= 10 and t[:1].isdigit() for t in texts):
        return False
    probe = Stream("probe", (("at", Type.TIMESTAMP),))
    _, bad = decode_json([json.dumps({"at": t}).encode() for t in texts], probe)
    return not bad


def time_of(columns: Sequence[tuple[str, Type]]) -> str | None:
    """Return the likely time column: the only one of times, or one with a usual name."""
    times = [name for name, kind in columns if kind is Type.TIMESTAMP]
    if len(times) == 1:
        return times[0]
    usual = [name for name in times if name.lower() in _TIME_NAMES]
    return usual[0] if usual else None
