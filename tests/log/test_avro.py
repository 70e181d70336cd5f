"""Avro in bulk is Avro read one by one, by another library; what is malformed is told apart."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.errors import DefinitionError
from fs_notebook.log import avro_check
from fs_notebook.log.avro import AvroPayloads
from fs_notebook.log.avro_schema import parse
from fs_notebook.log.payloads import columns_of

Schema = Any
Typed = tuple[Schema, st.SearchStrategy[Any]]

texts = st.text(st.characters(codec="utf-8"), max_size=8)
moments = st.integers(-(2**51), 2**52).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
_names = iter(f"n{i}" for i in range(10**9))


def _ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _scalars() -> list[Typed]:
    days = st.dates(date(1900, 1, 1), date(2200, 1, 1))
    symbols = ["RED", "GREEN", "BLUE"]
    return [
        ("int", st.integers(-(2**31), 2**31 - 1)),
        ("long", st.integers(-(2**63), 2**63 - 1)),
        ("double", st.floats(allow_nan=False)),
        ("float", st.floats(width=32, allow_nan=False)),
        ("boolean", st.booleans()),
        ("string", texts),
        ({"type": "enum", "name": next(_names), "symbols": symbols}, st.sampled_from(symbols)),
        ({"type": "long", "logicalType": "timestamp-micros"}, moments),
        ({"type": "long", "logicalType": "timestamp-millis"}, moments.map(_ms)),
        ({"type": "int", "logicalType": "date"}, days),
        ({"type": "long", "logicalType": "time-micros"}, st.times()),
    ]


def _grown(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def array(typed: Typed) -> Typed:
        return {"type": "array", "items": typed[0]}, st.lists(typed[1], max_size=4)

    def record(parts: list[Typed]) -> Typed:
        fields = [{"name": f"f{i}", "type": s} for i, (s, _) in enumerate(parts)]
        values = st.fixed_dictionaries({f"f{i}": v for i, (_, v) in enumerate(parts)})
        return {"type": "record", "name": next(_names), "fields": fields}, values

    def optional(typed: Typed) -> Typed:
        if isinstance(typed[0], list):
            return typed
        return ["null", typed[0]], st.none() | typed[1]

    many = st.lists(inner, min_size=1, max_size=3)
    return inner.map(array) | many.map(record) | inner.map(optional)


schemas = st.recursive(st.deferred(lambda: st.sampled_from(_scalars())), _grown, max_leaves=6)


@st.composite
def events(draw: st.DrawFn) -> tuple[Schema, list[dict[str, Any]]]:
    parts = draw(st.lists(schemas, min_size=1, max_size=4))
    # Names are made anew here: an enum may have been drawn twice.
    fields = [{"name": f"c{i}", "type": _renamed(s)} for i, (s, _) in enumerate(parts)]
    schema = {"type": "record", "name": "Event", "namespace": "a.b", "fields": fields}
    row = st.fixed_dictionaries({f"c{i}": v for i, (_, v) in enumerate(parts)})
    return schema, draw(st.lists(row, min_size=1, max_size=12))


def _renamed(schema: Schema) -> Schema:
    if isinstance(schema, list):
        return [_renamed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    if "name" in made:
        made["name"] = next(_names)
    if "fields" in made:
        made["fields"] = [{**f, "type": _renamed(f["type"])} for f in made["fields"]]
    if "items" in made:
        made["items"] = _renamed(made["items"])
    return made


def encoded(schema: Schema, rows: list[dict[str, Any]]) -> list[bytes]:
    parsed = fastavro.parse_schema(schema)
    payloads = []
    for row in rows:
        sink = io.BytesIO()
        fastavro.schemaless_writer(sink, parsed, row)
        payloads.append(sink.getvalue())
    return payloads


def shown(value: Any) -> Any:
    """Return a value as a frame gives it."""
    if isinstance(value, time):
        return timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second,
            microseconds=value.microsecond,
        )  # fmt: skip
    if isinstance(value, list):
        return [shown(v) for v in value]
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items()}
    return value


@settings(max_examples=150, deadline=None)
@given(events())
def test_bulk_gives_what_was_written(drawn: tuple[Schema, list[dict[str, Any]]]) -> None:
    schema, rows = drawn
    payloads = encoded(schema, rows)
    reader = AvroPayloads(json.dumps(schema))
    assert reader._bulk(payloads) is not None
    frame, bad = reader.frame(payloads)
    assert not bad
    assert frame.to_dicts() == [shown(r) for r in rows]
    assert frame.schema == reader.empty.schema
    slow, bad = reader._one_by_one(payloads)
    assert not bad
    assert slow.equals(frame)


@settings(max_examples=150, deadline=None)
@given(events(), st.data())
def test_fault_27_malformed_ones_are_told_apart_and_the_rest_goes_on(
    drawn: tuple[Schema, list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = drawn
    payloads = encoded(schema, rows)
    index = data.draw(st.integers(0, len(payloads) - 1))
    good = payloads[index]
    broken = data.draw(
        st.one_of(
            st.just(good + b"\x00"),
            st.just(good[:-1]),
            st.binary(max_size=12),
            st.binary(min_size=1, max_size=4).map(lambda junk: junk + good),
            st.just(b"\xff" * 11 + good),
        )
    )
    payloads[index] = broken
    reader = AvroPayloads(json.dumps(schema))
    frame, bad = reader.frame(payloads)
    alone, why = reader._datum(broken)
    assert set(bad) <= {index}
    assert frame.height == len(rows) - len(bad)
    others = [shown(r) for i, r in enumerate(rows) if i != index]
    if bad:
        assert why is None or bad[index] == why
    else:
        # What is whole by chance is an event like any other.
        assert why is None
        assert alone is not None
        frame = frame.filter(pl.int_range(pl.len()) != index)
    assert frame.to_dicts() == others


@settings(max_examples=80, deadline=None)
@given(events(), st.lists(st.binary(max_size=20), max_size=5))
def test_the_walk_and_the_other_library_agree_on_what_is_whole(
    drawn: tuple[Schema, list[dict[str, Any]]], junk: list[bytes]
) -> None:
    schema, rows = drawn
    payloads = [*encoded(schema, rows), *junk]
    reader = AvroPayloads(json.dumps(schema))
    misread = avro_check.misread(parse(json.dumps(schema)), payloads)
    for payload, wrong in zip(payloads, misread.tolist(), strict=True):
        if not wrong:
            why = reader._datum(payload)[1]
            # Only text that is not UTF-8, and times that no calendar has, are left to be told.
            assert why is None or "left over" not in why
    assert not misread[: len(rows)].any()


def schema_of(**fields: Schema) -> str:
    given_ = [{"name": n, "type": t} for n, t in fields.items()]
    return json.dumps({"type": "record", "name": "E", "fields": given_})


def test_types_are_those_of_streams_and_bytes_are_left_out() -> None:
    text = schema_of(
        n="int", x="float", raw="bytes", hash={"type": "fixed", "name": "H", "size": 4},
        at={"type": "long", "logicalType": "local-timestamp-millis"},
        price={"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        place={"type": "record", "name": "P", "fields": [
            {"name": "lat", "type": "double"}, {"name": "blob", "type": "bytes"},
        ]},
        attributes={"type": "map", "values": "long"},
        either=["string", "long"],
        nothing="null",
    )  # fmt: skip
    found = {n: t.value for n, t in columns_of("avro", text)}
    price = found.pop("price")
    assert price in ("DOUBLE", "DECIMAL(9,2)")
    assert found == {
        "n": "BIGINT", "x": "DOUBLE", "at": "TIMESTAMP", "place": 'STRUCT("lat" DOUBLE)',
        "attributes": "VARCHAR", "either": "VARCHAR", "nothing": "VARCHAR",
    }  # fmt: skip


def test_maps_are_their_json_text_in_bulk_and_one_by_one() -> None:
    schema = json.loads(schema_of(tags=["null", {"type": "map", "values": ["null", "string"]}]))
    rows = [{"tags": {'a"b': "é\n", "none": None}}, {"tags": {}}, {"tags": None}]
    reader = AvroPayloads(json.dumps(schema))
    frame, bad = reader.frame(encoded(schema, rows))
    assert not bad
    held = [None if t is None else json.loads(t) for t in frame["tags"]]
    assert held == [r["tags"] for r in rows]
    assert reader._bulk(encoded(schema, rows)) is not None
    assert reader._one_by_one(encoded(schema, rows))[0].equals(frame)


def test_unions_of_several_types_are_their_json_text() -> None:
    schema = json.loads(schema_of(n="long", either=["string", "long", "null"]))
    rows = [{"n": 1, "either": "a"}, {"n": 2, "either": 7}, {"n": 3, "either": None}]
    frame, bad = AvroPayloads(json.dumps(schema)).frame(encoded(schema, rows))
    assert not bad
    assert frame.to_dict(as_series=False) == {"n": [1, 2, 3], "either": ['"a"', "7", None]}


def test_decimals_are_exact() -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4}
    schema = json.loads(schema_of(price=kind))
    rows = [{"price": Decimal("1234567890123456.7891")}, {"price": Decimal("-0.0001")}]
    frame, bad = AvroPayloads(json.dumps(schema)).frame(encoded(schema, rows))
    assert not bad
    assert frame["price"].to_list() == [r["price"] for r in rows]


def test_nothing_is_said_on_the_screen_of_malformed_payloads(
    capfd: pytest.CaptureFixture[str],
) -> None:
    schema = json.loads(schema_of(name="string", n={"type": "array", "items": "long"}))
    good = encoded(schema, [{"name": "a", "n": [1, 2]}])
    bad = [b"", b"\x7f", b"\xff" * 12, b"\x02\xff\x00", b"\x02a\xff\xff\xff\xff\x0f", b"junk" * 9]
    frame, found = AvroPayloads(json.dumps(schema)).frame([*bad, *good])
    assert frame.to_dicts() == [{"name": "a", "n": [1, 2]}]
    assert sorted(found) == list(range(len(bad)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[]", "{}", '"string"', '{"type": "record"}', '["null", "string"]',
        '{"type": "record", "name": "E", "fields": [{"name": "a", "type": "Missing"}]}',
        '{"type": "record", "name": "E", "fields": [{"name": "a", "type": ["null", "E"]}]}',
        "[" * 3_000 + "]" * 3_000,
    ],
)  # fmt: skip
def test_what_is_no_schema_of_events_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="no Avro schema of events"):
        AvroPayloads(text)


def test_named_schemas_are_followed() -> None:
    point = {"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]}
    schema = json.loads(schema_of(a=point, b="Point", c=["null", "Point"]))
    rows = [
        {"a": {"x": 1}, "b": {"x": 2}, "c": None},
        {"a": {"x": 3}, "b": {"x": 4}, "c": {"x": 5}},
    ]
    frame, bad = AvroPayloads(json.dumps(schema)).frame(encoded(schema, rows))
    assert not bad
    assert frame.to_dicts() == rows
    assert frame.schema["c"] == pl.Struct({"x": pl.Int32})
