"""Protobuf payloads in bulk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.errors import DefinitionError
from fs_notebook.log.payloads import columns_of
from fs_notebook.log.protobuf import ProtobufPayloads
from tests.support import protos

Order = protos.order_class()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

orders = st.fixed_dictionaries(
    {
        "user": st.text(st.characters(codec="utf-8"), max_size=6),
        "n": st.integers(-(2**63), 2**63 - 1),
        "at": st.none() | st.integers(-(2**50), 2**52),
        "kind": st.sampled_from(["NEW", "USED"]),
        "tags": st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=3),
        "raw": st.binary(max_size=4),
        "big": st.integers(0, 2**64 - 1),
        "price": st.none() | st.floats(allow_nan=False),
        "attributes": st.dictionaries(st.text(max_size=3), st.integers(-9, 9), max_size=3),
    }
)


def encoded(row: dict[str, Any]) -> bytes:
    rest = {n: v for n, v in row.items() if n not in ("at", "price")}
    order = Order(**rest)
    if row["at"] is not None:
        order.at.FromMicroseconds(row["at"])
    if row["price"] is not None:
        order.price = row["price"]
    return bytes(order.SerializeToString())


def shown(row: dict[str, Any]) -> dict[str, Any]:
    at = None if row["at"] is None else EPOCH + timedelta(microseconds=row["at"])
    return {n: v for n, v in row.items() if n != "raw"} | {"at": at}


def read(frame: Any) -> list[dict[str, Any]]:
    return [r | {"attributes": json.loads(r["attributes"])} for r in frame.to_dicts()]


@settings(max_examples=100, deadline=None)
@given(st.lists(orders, min_size=1, max_size=12), st.sets(st.integers(0, 11), max_size=4))
def test_good_messages_are_what_was_written_and_others_are_told_apart(
    rows: list[dict[str, Any]], broken: set[int]
) -> None:
    payloads = [encoded(r) for r in rows]
    broken = {i for i in broken if i < len(rows)}
    for index in broken:
        # A length that goes beyond the end.
        payloads[index] += b"\x0a\x7f"
    frame, bad = ProtobufPayloads(protos.order_schema()).frame(payloads)
    assert set(bad) == broken
    assert all("no Protobuf message" in why for why in bad.values())
    assert read(frame) == [shown(r) for i, r in enumerate(rows) if i not in broken]


def test_types_are_those_of_streams_and_bytes_are_left_out() -> None:
    found = {n: t.value for n, t in columns_of("protobuf", protos.order_schema())}
    assert found == {
        "user": "VARCHAR", "n": "BIGINT", "at": "TIMESTAMP", "kind": "VARCHAR", "tags": "VARCHAR[]",
        "big": "BIGINT", "price": "DOUBLE", "attributes": "VARCHAR",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "{}", '{"fileDescriptorSet": "?", "rootMessageTypeName": ""}']
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="no Protobuf schema of events"):
        ProtobufPayloads(text)


def test_a_message_that_is_not_in_the_schema_is_refused() -> None:
    schema = json.loads(protos.order_schema()) | {"rootMessageTypeName": "shop.Missing"}
    with pytest.raises(DefinitionError, match=r"shop\.Missing|no Protobuf schema"):
        ProtobufPayloads(json.dumps(schema))


def test_a_message_that_holds_itself_is_refused() -> None:
    with pytest.raises(DefinitionError, match="holds itself"):
        ProtobufPayloads(protos.order_schema(recursive=True))
