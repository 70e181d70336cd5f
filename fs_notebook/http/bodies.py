"""What requests and answers look like, in JSON and in Arrow.

JSON has few types, so one rule says how each of ours is carried, both ways:

=====================  ===================================================================
BIGINT                 a number, of all its digits (also beyond 2^53: read it as an integer)
DOUBLE                 a number; ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` where JSON has none
DECIMAL                text: ``"12.30"``
VARCHAR, BOOLEAN       text, true or false
TIMESTAMP, DATE        ISO 8601 text: ``"2024-01-31T12:00:00Z"`` (UTC), ``"2024-01-31"``
INTERVAL               whole microseconds
lists, structs         arrays, objects
=====================  ===================================================================
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from fs_notebook.clock import from_us
from fs_notebook.errors import UsageError
from fs_notebook.online.board import Wanted
from fs_notebook.online.vector import FeatureVector
from fs_notebook.types import Type

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
FEATURES_MAX = 1_000
_FIELDS = ("features", "entities", "request")
_MICROSECOND = timedelta(microseconds=1)
_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_EXAMPLE = '{"features": ["total_readtime"], "entities": {"user": ["u7"]}}'


@dataclass(frozen=True)
class Question:
    """What was asked for: features, a list of values for each entity, values of the request."""

    features: list[str]
    entities: dict[str, list[Any]]
    request: dict[str, Any] = field(default_factory=dict)


def parse(body: bytes, *, rows_max: int) -> Question:
    """Return the question that a JSON body asks.

    Raises
    ------
    UsageError
        If it is none; says which field.
    """
    try:
        data = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "The body is not JSON.", found=str(error)[:200], remedy=f"send {_EXAMPLE}"
        ) from None
    if not isinstance(data, dict) or not {"features", "entities"} <= data.keys() <= {*_FIELDS}:
        found = ", ".join(map(str, data))[:200] if isinstance(data, dict) else type(data).__name__
        raise UsageError(
            "The body is an object with 'features', 'entities', and perhaps 'request'.",
            found=found or "no field", remedy=f"send {_EXAMPLE}",
        )  # fmt: skip
    features, entities, request = (data.get(n) for n in _FIELDS)
    if isinstance(features, str):
        features = [features]
    if not isinstance(features, list) or not all(isinstance(f, str) for f in features):
        raise _not("features", "a list of names", features)
    if not 1 <= len(features) <= FEATURES_MAX:
        raise UsageError(
            f"A request is for 1 to {FEATURES_MAX:,} features.", found=f"{len(features):,}"
        )
    if not isinstance(entities, dict):
        raise _not("entities", "an object: a list of values for each entity", entities)
    if not (request is None or isinstance(request, dict)):
        raise _not("request", "an object: a value or a list of values for each name", request)
    given = {n: v if isinstance(v, list) else [v] for n, v in entities.items()}
    for name, values in given.items():
        if len(values) > rows_max:
            raise UsageError(
                f"A request is for at most {rows_max:,} rows.",
                found=f"{len(values):,} of {name!r}", remedy="ask in slices",
            )  # fmt: skip
    return Question(features, given, request or {})


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is not JSON: write it as text, "{name}"')


def _not(name: str, what: str, found: object) -> UsageError:
    return UsageError(
        f"The field {name!r} is {what}.", found=type(found).__name__, remedy=f"send {_EXAMPLE}"
    )


def typed(question: Question, wanted: Wanted) -> Question:
    """Return the question with its values in the types that entities and requests have.

    Names that nothing asked for knows are left as they are: reading says what is wrong.
    """
    keys: dict[str, Type] = {}
    requests: dict[str, Type] = {}
    for read in wanted.reads:
        served = read.ready.served
        for key, name, column in zip(
            served.plan.keys, read.entity or served.plan.entity, served.columns, strict=True
        ):
            keys[name] = key.expr.type
            if read.entity is None:
                keys.setdefault(column, key.expr.type)
    for ready in wanted.derived:
        keys |= {k.name: k.expr.type for k in ready.served.plan.keys}
        requests |= dict(ready.served.plan.requests)

    def known(name: str, value: Any, types: Mapping[str, Type]) -> Any:
        kind = types.get(name)
        if kind is None:
            return value
        many = isinstance(value, list)
        return [_in(v, kind, name) for v in value] if many else _in(value, kind, name)

    return Question(
        question.features,
        {n: known(n, v, keys) for n, v in question.entities.items()},
        {n: known(n, v, requests) for n, v in question.request.items()},
    )


def _in(value: Any, kind: Type, name: str) -> Any:
    """Return a value of JSON in a type that JSON has not; others stay what they are."""
    try:
        if kind is Type.TIMESTAMP and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        if kind is Type.DATE and isinstance(value, str):
            return date.fromisoformat(value)
        if kind is Type.INTERVAL and type(value) is int:
            return timedelta(microseconds=value)
        if kind is Type.DOUBLE and isinstance(value, str):
            return _ODD[value]
        if kind.is_decimal and isinstance(value, str):
            return Decimal(value)
    except (ValueError, OverflowError, InvalidOperation, KeyError):
        shown = {Type.TIMESTAMP: '"2024-01-31T12:00:00Z"', Type.DATE: '"2024-01-31"'}
        raise UsageError(
            f"{name!r} is a {kind}.", found=repr(value)[:200], remedy=shown.get(kind, "12.5")
        ) from None
    return value


def out(value: Any) -> Any:
    """Return a value as JSON carries it."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    if isinstance(value, Mapping):
        return {k: out(v) for k, v in value.items()}
    return [out(v) for v in value]


def json_answer(answer: FeatureVector) -> bytes:
    """Return an answer as JSON: a list a column, each value with its status and freshness."""
    times = {o: [None if t is None else out(from_us(t)) for t in us]
             for o, us in answer.newest_us.items()}  # fmt: skip
    features = {}
    for name in answer.features:
        owner = answer.owners[name]
        features[name] = {
            "group": owner.partition("@")[0],
            "version": answer.versions[owner],
            "values": [out(v) for v in answer[name]],
            "status": answer.status_of(name),
            "newest_event": times[owner],
        }
    body = {
        "entities": {n: [out(v) for v in answer[n]] for n in answer.entities},
        "features": features,
        "at": out(answer.at),
        "fetched_at": out(answer.fetched_at),
    }
    if answer.notices:
        body["notices"] = list(answer.notices)
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


def arrow_answer(answer: FeatureVector) -> bytes:
    """Return an answer as an Arrow stream of one table.

    It has the entities' columns, one column a feature, and for each feature `NAME.status` and
    `NAME.newest_event`. The schema's metadata has `at`, `fetched_at`, and `versions` as JSON.
    """
    import polars as pl
    import pyarrow as pa

    frame, status, fresh = answer.to_polars(), answer.status(), answer.freshness()
    more = []
    for name in answer.features:
        more.append(status.get_column(name).cast(pl.String).alias(f"{name}.status"))
        more.append(fresh.get_column(name).alias(f"{name}.newest_event"))
    # Readers in other languages know the older layout of texts.
    table = frame.hstack(more).to_arrow(compat_level=pl.CompatLevel.oldest())
    versions = {n: answer.versions[answer.owners[n]] for n in answer.features}
    about = {
        "at": out(answer.at), "fetched_at": out(answer.fetched_at), "versions": json.dumps(versions)
    }  # fmt: skip
    sink = io.BytesIO()
    table = table.replace_schema_metadata(about)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
