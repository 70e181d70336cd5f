"""Lists and structs: through JSON and Arrow messages, the embedded ledger, and uploads."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.errors import UsageError
from fs_notebook.ingest import fit, to_frame
from fs_notebook.log.decode import decode_arrow, decode_json
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.frames import check_stream
from fs_notebook.log.framing import is_json, messages
from fs_notebook.log.infer import infer_columns
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START
from fs_notebook.types import Type, conform, list_of, struct_of
from tests.support.logs import Ledger, read_all, rows_of

LEAVES = struct_of([
    ("n", Type.BIGINT), ("f", Type.DOUBLE), ("s", Type.VARCHAR), ("b", Type.BOOLEAN),
    ("t", Type.TIMESTAMP), ("d", Type.DATE), ("i", Type.INTERVAL),
])  # fmt: skip
STREAM = Stream(
    "x",
    (
        ("ts", Type.TIMESTAMP),
        ("xs", list_of(Type.BIGINT)),
        ("times", list_of(Type.TIMESTAMP)),
        ("deep", list_of(list_of(Type.DATE))),
        ("one", LEAVES),
        ("many", list_of(struct_of([("a", Type.BIGINT), ("when", list_of(Type.TIMESTAMP))]))),
    ),
    time="ts",
)
SCHEMA = {n: t.polars for n, t in STREAM.columns}


def values(kind: Type, *, special: bool) -> st.SearchStrategy[Any]:
    """Return values of a type, nulls among them, at every depth."""
    if kind.element is not None:
        some: st.SearchStrategy[Any] = st.lists(values(kind.element, special=special), max_size=3)
    elif kind.fields:
        some = st.fixed_dictionaries({n: values(t, special=special) for n, t in kind.fields})
    else:
        some = {
            Type.BIGINT: st.integers(-(2**63), 2**63 - 1),
            Type.DOUBLE: st.floats(allow_nan=special, allow_infinity=special),
            Type.VARCHAR: st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
            Type.BOOLEAN: st.booleans(),
            Type.TIMESTAMP: st.datetimes(
                datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001
            ),
            Type.DATE: st.dates(date(1900, 1, 1), date(2200, 1, 1)),
            Type.INTERVAL: st.timedeltas(timedelta(-9999), timedelta(9999)),
        }[kind]  # fmt: skip
    return st.none() | some


def rows(*, special: bool = False) -> st.SearchStrategy[list[dict[str, Any]]]:
    event = st.fixed_dictionaries({n: values(t, special=special) for n, t in STREAM.columns})
    moment = st.just(datetime(2024, 1, 1, tzinfo=UTC))
    return st.lists(st.tuples(event, moment).map(lambda p: {**p[0], "ts": p[1]}), max_size=5)


def frame_of(events: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(events, schema=SCHEMA, orient="row")


@given(rows())
def test_what_is_written_as_json_is_read_again(events: list[dict[str, Any]]) -> None:
    frame = frame_of(events)
    assert is_json(STREAM, frame)
    payloads = [m.payload for m in messages(STREAM, frame)]
    again, bad = decode_json(payloads, STREAM)
    assert not bad
    assert again.schema == frame.schema
    assert again.to_dicts() == frame.to_dicts()


@given(rows(special=True))
def test_what_json_cannot_carry_goes_as_arrow(events: list[dict[str, Any]]) -> None:
    frame = frame_of(events)
    special = any(
        e["one"] is not None and e["one"]["f"] is not None and e["one"]["f"] - e["one"]["f"] != 0
        for e in events
    )
    sent = list(messages(STREAM, frame))
    assert any(m.arrow for m in sent) == special
    if special:
        (message,) = sent
        again, why = decode_arrow(message.payload, STREAM)
        assert why == ""
        assert again is not None
        assert again.equals(frame)


GOOD = {
    "ts": "2024-01-01T00:00:00Z", "xs": [1, None], "times": ["2024-01-02", 5, None],
    "one": {"n": 1, "more": [1]}, "many": [{"a": 1, "when": ["2024-01-01T01:00:00+01:00"]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("xs", 1), ("xs", "[1]"), ("xs", [1.5]), ("xs", ["1"]), ("xs", [True]), ("xs", [[1]]),
        ("xs", {"a": 1}), ("xs", [2**63]), ("times", ["soon"]), ("times", [True]),
        ("deep", [["2024-13-01"]]), ("deep", ["2024-01-01"]), ("one", [1]), ("one", "x"),
        ("one", {"n": "1"}), ("one", {"t": "never"}), ("one", {"d": 3}), ("one", {"b": 0}),
        ("many", [{"a": 1.5}]), ("many", [{"when": ["x"]}]), ("many", {"a": 1}), ("many", [3]),
    ],
)  # fmt: skip
def test_fault_27_one_wrong_value_inside_makes_one_event_malformed(
    column: str, value: object
) -> None:
    good = json.dumps(GOOD).encode()
    payload = json.dumps(GOOD | {column: value}).encode()
    frame, bad = decode_json([good, payload, good], STREAM)
    assert list(bad) == [1]
    assert column in bad[1]
    assert frame.equals(decode_json([good, good], STREAM)[0])


def test_times_inside_are_times() -> None:
    frame, bad = decode_json([json.dumps(GOOD).encode(), b'{"many": [{}], "one": {}}'], STREAM)
    assert not bad
    day = datetime(2024, 1, 2, tzinfo=UTC)
    assert frame["times"].to_list() == [[day, datetime(1970, 1, 1, 0, 0, 0, 5, UTC), None], None]
    assert frame["many"][0].to_list() == [{"a": 1, "when": [datetime(2024, 1, 1, tzinfo=UTC)]}]
    assert frame["many"][1].to_list() == [{"a": None, "when": None}]
    assert frame["one"][1] == dict.fromkeys(n for n, _ in LEAVES.fields)


def test_lists_and_structs_are_inferred() -> None:
    events: list[dict[str, Any]] = [
        {"ts": "2024-01-01T00:00:00Z", "a": [1], "b": [], "c": {"x": 1}, "d": ["2024-01-01T10:00"],
         "e": [{"k": None}], "f": {}, "g": [1, "x"], "h": 1, "i": [[1]], "j": [1]},
        {"ts": "2024-01-01T00:00:00Z", "a": [2.5, None], "b": [None], "c": {"y": "q", "x": None},
         "d": [], "e": [{"k": True}], "h": [1], "i": [[], [2.5]], "j": {"a": 1},
         "many": {f"key {n}": n for n in range(101)}},
    ]  # fmt: skip
    columns, time = infer_columns("x", [json.dumps(e).encode() for e in events])
    assert time == "ts"
    assert {n: t.value for n, t in columns} == {
        "ts": "TIMESTAMP", "a": "DOUBLE[]", "b": "VARCHAR[]",
        "c": 'STRUCT("x" BIGINT, "y" VARCHAR)', "d": "TIMESTAMP[]", "e": 'STRUCT("k" BOOLEAN)[]',
        "f": "VARCHAR", "g": "VARCHAR[]", "h": "VARCHAR", "i": "DOUBLE[][]", "j": "VARCHAR",
        "many": "VARCHAR",
    }  # fmt: skip
    stream = Stream("x", columns, time)
    frame, bad = decode_json([json.dumps(e).encode() for e in events], stream)
    assert not bad
    assert frame["g"].to_list() == [["1", "x"], None]


def test_a_list_is_no_key() -> None:
    stream = Stream("x", (("xs", list_of(Type.BIGINT)),), None, ("xs",))
    with pytest.raises(UsageError, match="no single value"):
        check_stream(stream)


@settings(max_examples=10)
@given(rows())
def test_the_embedded_ledger_keeps_them(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    path: Path = tmp_path_factory.mktemp("nested")
    with closing(EmbeddedLog(path / "ledger.db")) as log:
        log.create(STREAM)
        frame = frame_of(events)
        if frame.height:
            log.append(STREAM, frame)
        read = [b.rows for b in log.read(STREAM, start=START, end=log.end("x"))]
        again = (pl.concat(read) if read else frame.clear()).select(STREAM.names)
        assert again.to_dicts() == frame.to_dicts()


def test_frames_of_every_kind_are_taken() -> None:
    table = {
        "ts": [datetime(2024, 1, 1), datetime(2024, 1, 2)],  # noqa: DTZ001
        "xs": [[1, 2], None],
        "times": [[datetime(2024, 1, 1)], []],  # noqa: DTZ001
        "many": [[{"a": 1, "when": [datetime(2024, 1, 1)]}], None],  # noqa: DTZ001
    }
    frame = pl.DataFrame(table)
    for data in (frame, frame.to_pandas(), frame.to_arrow(), frame.to_dicts()):
        fitted = fit(conform(to_frame(data)), STREAM)
        assert fitted.schema == SCHEMA
        assert fitted["xs"].to_list() == [[1, 2], None]
        assert fitted["times"].to_list() == [[datetime(2024, 1, 1, tzinfo=UTC)], []]
        first = fitted["many"][0].to_list()
        assert first == [{"a": 1, "when": [datetime(2024, 1, 1, tzinfo=UTC)]}]
    assert isinstance(frame.to_pandas(), pd.DataFrame)


def test_lists_widen_as_numbers_do_and_no_further() -> None:
    stream = Stream("x", (("ts", Type.TIMESTAMP), ("fs", list_of(Type.DOUBLE))), "ts")
    moment = [datetime(2024, 1, 1, tzinfo=UTC)]
    assert fit(pl.DataFrame({"ts": moment, "fs": [[1, 2]]}), stream)["fs"].to_list() == [[1.0, 2.0]]
    assert fit(pl.DataFrame({"ts": moment, "fs": [[]]}), stream)["fs"].to_list() == [[]]
    with pytest.raises(UsageError, match=r"DOUBLE\[\]"):
        fit(pl.DataFrame({"ts": moment, "fs": [["1"]]}), stream)
    with pytest.raises(UsageError, match="fs"):
        fit(pl.DataFrame({"ts": moment, "fs": [1.0]}), stream)


@pytest.mark.parametrize("count", [3, 2_000])
def test_every_ledger_keeps_them(ledger: Ledger, count: int) -> None:
    """A few events go as JSON, many as Arrow, where there are messages at all."""
    stream = ledger.stream(columns=STREAM.columns)
    day = datetime(2024, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {
            "ts": day + timedelta(seconds=n), "xs": [n, None] if n % 3 else [],
            "times": [day] if n % 2 else None, "deep": [[day.date()], []],
            "one": {name: None for name, _ in LEAVES.fields} | {"s": "ü\n", "i": timedelta(n)},
            "many": [{"a": n, "when": [day]}, None],
        }
        for n in range(count)
    ]  # fmt: skip
    frame = frame_of(rows)
    ledger.log.append(stream, frame)
    read = rows_of(read_all(ledger.log, stream)).sort("ts")
    assert read.to_dicts() == frame.to_dicts()
    some = rows_of(read_all(ledger.log, stream, columns=["one", "ts"])).sort("ts")
    assert some.to_dicts() == frame.select("one", "ts").to_dicts()


@pytest.mark.pulsar
def test_a_topic_of_nested_json_is_adopted(pulsar_log: Any, broker: Any) -> None:
    import pulsar

    name = f"nested-{uuid.uuid4().hex[:8]}"
    client = pulsar.Client(broker.url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
    producer = client.create_producer(name)
    event = {"ts": "2024-01-01T00:00:00Z", "cart": [{"sku": "a", "n": 2}], "at": {"lat": 1.5}}
    for payload in (event, event | {"cart": [{"n": "2"}]}, event | {"at": None}):
        producer.send(json.dumps(payload).encode())
    producer.close()
    client.close()
    stream = pulsar_log.infer_stream(name)
    kinds = {n: t.value for n, t in stream.columns}
    # One event in three has text where the others have a number: text takes all of them.
    assert kinds["cart"] == 'STRUCT("sku" VARCHAR, "n" VARCHAR)[]'
    assert kinds["at"] == 'STRUCT("lat" DOUBLE)'
    strict = replace(stream, columns=tuple(
        (n, list_of(struct_of([("sku", Type.VARCHAR), ("n", Type.BIGINT)]))
         if n == "cart" else t) for n, t in stream.columns
    ))  # fmt: skip
    batches = read_all(pulsar_log, strict)
    assert [e["at"] for b in batches for e in b.rows.to_dicts()] == [{"lat": 1.5}, None]
    (letter,) = [d for b in batches for d in b.dead]
    assert "'cart'" in letter.reason
