"""Avro and Protobuf through a real broker's schema registry; and what lies beside payloads."""

from __future__ import annotations

import io
import json
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest
from pulsar.schema import AvroSchema

from fs_notebook.errors import UsageError
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import SegmentCache
from fs_notebook.position import START
from fs_notebook.types import Type
from tests.support import protos
from tests.support.broker import Broker
from tests.support.logs import Ledger, read_all, upto

pytestmark = pytest.mark.pulsar
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def namespace(broker: Broker) -> str:
    """A namespace where schemas may change freely and events without one are taken."""
    name = broker.namespace()
    broker.admin("PUT", f"namespaces/{name}/schemaCompatibilityStrategy", "ALWAYS_COMPATIBLE")
    return name


@pytest.fixture
def log(broker: Broker, namespace: str) -> Iterator[PulsarLog]:
    log = PulsarLog(f"{broker.url}/{namespace}", admin_url=broker.admin_url)
    yield log
    log.close()


def avro(**fields: Any) -> dict[str, Any]:
    given = [{"name": n, "type": t} for n, t in fields.items()]
    return {"type": "record", "name": "Event", "fields": given}


AT = {"type": "long", "logicalType": "timestamp-millis"}
FIRST = avro(user="string", n="int", at=AT)
SECOND = avro(user="string", n="long", at=AT, coupon=["null", "string"])
THIRD = avro(user="string", at=AT, coupon=["null", "string"])


def send_avro(client: Any, topic: str, schema: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    producer = client.create_producer(
        topic, schema=AvroSchema(None, schema_definition=schema),
        batching_enabled=True, batching_max_messages=3, batching_max_publish_delay_ms=200,
    )  # fmt: skip
    for row in rows:
        producer.send_async(row, lambda *_: None)
    producer.flush()
    producer.close()


def send_bytes(client: Any, topic: str, payloads: list[bytes], **options: Any) -> None:
    producer = client.create_producer(topic, batching_enabled=False)
    for payload in payloads:
        producer.send(payload, **options)
    producer.close()


def rows_of(log: Any, stream: Stream, **options: Any) -> list[dict[str, Any]]:
    batches = read_all(log, stream, **options)
    return [row for b in batches for row in b.rows.select(stream.names).to_dicts()]


def moment(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


def three_versions(client: Any, topic: str) -> list[dict[str, Any]]:
    """Send events of three versions of a schema; return what they are in one stream."""
    send_avro(client, topic, FIRST, [{"user": f"u{i}", "n": i, "at": i} for i in range(7)])
    second = [{"user": "v", "n": 2**40 + i, "at": i, "coupon": "c"} for i in range(4)]
    send_avro(client, topic, SECOND, second)
    send_avro(client, topic, THIRD, [{"user": "w", "at": i, "coupon": None} for i in range(2)])
    send_avro(client, topic, FIRST, [{"user": "x", "n": 9, "at": 9}])
    return [
        *({"user": f"u{i}", "n": i, "at": moment(i), "coupon": None} for i in range(7)),
        *({"user": "v", "n": 2**40 + i, "at": moment(i), "coupon": "c"} for i in range(4)),
        *({"user": "w", "n": None, "at": moment(i), "coupon": None} for i in range(2)),
        {"user": "x", "n": 9, "at": moment(9), "coupon": None},
    ]


def test_versions_of_an_avro_schema_evolve_inside_one_topic(
    broker: Broker, namespace: str, log: PulsarLog, client: Any, tmp_path: Path
) -> None:
    name = broker.fresh()
    expected = three_versions(client, f"persistent://{namespace}/{name}")
    stream = log.infer_stream(name)
    assert stream.format == "avro"
    assert stream.time == "at"
    assert dict(stream.columns) == {
        "user": Type.VARCHAR, "n": Type.BIGINT, "at": Type.TIMESTAMP, "coupon": Type.VARCHAR,
    }  # fmt: skip
    order = ["user", "n", "at", "coupon"]
    found = rows_of(log, stream)
    assert [{c: r[c] for c in order} for r in found] == expected
    assert rows_of(log, stream, rows_max=2) == found
    cached = CachedLog(log, SegmentCache(tmp_path, bytes_max=2**30))
    assert rows_of(cached, stream) == rows_of(cached, stream) == found
    # A cut inside a batch, and everything after it.
    positions = [p for b in read_all(log, stream) for p in b.positions().rows()]
    for k in (0, 3, 6, 8, 12):
        assert rows_of(log, stream, start=upto([positions[k]])) == found[k + 1 :]
    tailed: list[dict[str, Any]] = []
    for batch in log.tail(stream, start=START, idle_seconds=5.0):
        assert batch is not None
        tailed += batch.rows.select(stream.names).to_dicts()
        if len(tailed) >= len(found):
            break
    assert tailed == found


def test_partitions_have_one_registry(
    broker: Broker, namespace: str, log: PulsarLog, client: Any
) -> None:
    name = broker.fresh()
    path = f"persistent/{namespace}/{name}/partitions"
    broker.admin("PUT", path, 3)
    topic = f"persistent://{namespace}/{name}"
    send_avro(client, topic, FIRST, [{"user": "a", "n": i, "at": i} for i in range(9)])
    stream = log.infer_stream(name)
    assert (stream.format, stream.partitions) == ("avro", 3)
    assert sorted(r["n"] for r in rows_of(log, stream)) == list(range(9))


def test_fault_27_malformed_events_and_unknown_types_are_dead_letters(
    broker: Broker, namespace: str, log: PulsarLog, client: Any
) -> None:
    name = broker.fresh()
    topic = f"persistent://{namespace}/{name}"
    send_avro(client, topic, FIRST, [{"user": "a", "n": 1, "at": 1}])
    datum = io.BytesIO()
    fastavro.schemaless_writer(datum, fastavro.parse_schema(FIRST), {"user": "b", "n": 2, "at": 2})
    # Without a version of its own an event is read by the topic's first schema.
    send_bytes(client, topic, [b"\xff\xff\xff\xffjunk", datum.getvalue(), b'{"user": "c"}'])
    send_avro(client, topic, avro(user="string", n="string", at=AT), [
        {"user": "d", "n": "many", "at": 4},
    ])  # fmt: skip
    stream = Stream(
        name, (("user", Type.VARCHAR), ("n", Type.BIGINT), ("at", Type.TIMESTAMP)),
        time="at", format="avro",
    )  # fmt: skip
    batches = read_all(log, stream)
    assert [r["user"] for b in batches for r in b.rows.to_dicts()] == ["a", "b"]
    dead = [d for b in batches for d in b.dead]
    assert [d.reason.partition(":")[0] for d in dead] == [
        "no Avro datum of its schema", "no Avro datum of its schema",
        "column 'n' holds 'many', declared BIGINT",
    ]  # fmt: skip
    assert dead[0].payload == b"\xff\xff\xff\xffjunk"
    assert [d.position.batch for d in dead[:2]] == [0, 0]


def test_a_declared_schema_reads_raw_bytes(
    broker: Broker, namespace: str, log: PulsarLog, client: Any
) -> None:
    name = broker.fresh()
    payloads = []
    for n in range(5):
        datum = io.BytesIO()
        row = {"user": "a", "n": n, "at": n}
        fastavro.schemaless_writer(datum, fastavro.parse_schema(FIRST), row)
        payloads.append(datum.getvalue())
    send_bytes(client, f"persistent://{namespace}/{name}", payloads)
    stream = Stream(
        name, (("n", Type.BIGINT), ("at", Type.TIMESTAMP)), time="at", format="avro",
        schema=json.dumps(FIRST),
    )  # fmt: skip
    assert rows_of(log, stream) == [{"n": n, "at": moment(n)} for n in range(5)]


def test_protobuf_is_read_by_the_registry(
    broker: Broker, namespace: str, log: PulsarLog, client: Any
) -> None:
    name = broker.fresh()
    path = f"schemas/{namespace}/{name}/schema"

    def register(schema: str) -> None:
        body = {"type": "PROTOBUF_NATIVE", "schema": schema, "properties": {}}
        broker.admin("POST", path, body)

    register(protos.order_schema())
    made = protos.order_class()(user="a", n=1, kind="USED", tags=["x"])
    made.at.FromMicroseconds(1_000_001)
    send_bytes(client, f"persistent://{namespace}/{name}", [made.SerializeToString(), b"\x0a\x7f"])
    register(protos.order_schema(with_coupon=True))
    stream = log.infer_stream(name)
    assert stream.format == "protobuf"
    assert stream.time == "at"
    assert "coupon" in stream.names
    (batch,) = read_all(log, stream)
    (row,) = batch.rows.select("user", "n", "kind", "tags", "at", "coupon").to_dicts()
    assert row == {
        "user": "a", "n": 1, "kind": "USED", "tags": ["x"],
        "at": EPOCH + timedelta(microseconds=1_000_001), "coupon": None,
    }  # fmt: skip
    assert [d.position.entry for d in batch.dead] == [batch.end.entry]


def test_a_kind_of_schema_that_cannot_be_read_is_refused(
    broker: Broker, namespace: str, log: PulsarLog, client: Any
) -> None:
    name = broker.fresh()
    body = {"type": "INT64", "schema": "", "properties": {}}
    send_bytes(client, f"persistent://{namespace}/{name}", [b"12345678"])
    broker.admin("POST", f"schemas/{namespace}/{name}/schema", body)
    with pytest.raises(UsageError, match="kind that cannot be read") as caught:
        log.infer_stream(name)
    assert "INT64" in str(caught.value)


def test_others_streams_are_not_written_to(log: PulsarLog, broker: Broker) -> None:
    stream = Stream(broker.fresh(), (("n", Type.BIGINT),), format="avro")
    log.create(stream)
    with pytest.raises(UsageError, match="written in Avro, by others"):
        log.append(stream, pl.DataFrame({"n": [1]}))


BESIDE = Stream(
    "beside",
    (
        ("device", Type.VARCHAR), ("n", Type.BIGINT), ("trace", Type.VARCHAR),
        ("at", Type.TIMESTAMP), ("published", Type.TIMESTAMP),
    ),
    meta=(
        ("device", "key"), ("trace", "property trace-id"), ("at", "event time"),
        ("published", "publish time"),
    ),
)  # fmt: skip


def test_what_lies_beside_the_payload_becomes_columns(
    broker: Broker, namespace: str, log: PulsarLog, client: Any, tmp_path: Path
) -> None:
    name = broker.fresh()
    topic = f"persistent://{namespace}/{name}"
    begun = datetime.now(UTC) - timedelta(seconds=60)
    told = {"partition_key": "d1", "properties": {"trace-id": "t1"}, "event_timestamp": 1_000}
    send_bytes(client, topic, [b'{"n": 1, "trace": "not this"}'], **told)
    send_bytes(client, topic, [b'{"n": 2}', b"junk", b'{"n": 3}'])
    stream = Stream(name, BESIDE.columns, meta=BESIDE.meta)
    found = rows_of(log, stream)
    published = [r.pop("published") for r in found]
    nothing = {"device": None, "trace": None, "at": None}
    assert found == [
        {"device": "d1", "n": 1, "trace": "t1", "at": moment(1_000)},
        nothing | {"n": 2}, nothing | {"n": 3},
    ]  # fmt: skip
    assert all(begun < p <= datetime.now(UTC) + timedelta(seconds=60) for p in published)
    assert published == sorted(published)
    cached = CachedLog(log, SegmentCache(tmp_path, bytes_max=2**30))
    whole = rows_of(log, stream)
    assert rows_of(cached, stream) == rows_of(cached, stream) == whole


@pytest.mark.parametrize("count", [3, 2_000])
def test_what_is_appended_comes_back_beside_the_payload(ledger: Ledger, count: int) -> None:
    stream = ledger.stream(columns=BESIDE.columns, meta=BESIDE.meta, time="at")
    rows = pl.DataFrame({"n": pl.int_range(count, eager=True)}).select(
        ("d" + (pl.col("n") % 3).cast(pl.String)).alias("device"), "n",
        pl.when(pl.col("n") % 2 == 0).then(pl.lit("t")).alias("trace"),
        (pl.col("n") * 1_000 + 1_000_000).cast(pl.Datetime("us", "UTC")).alias("at"),
    )  # fmt: skip
    ledger.log.append(stream, rows.with_columns(pl.lit(None, dtype=pl.String).alias("published")))
    found = pl.concat([b.rows for b in read_all(ledger.log, stream)])
    assert found.select(rows.columns).equals(rows)
    assert found["published"].null_count() == 0
    assert (found["published"] > datetime(2020, 1, 1, tzinfo=UTC)).all()


@pytest.mark.parametrize(
    ("meta", "columns", "expected"),
    [
        ((("device", "header x"),), BESIDE.columns, "unknown place"),
        ((("n", "key"),), BESIDE.columns, "declare it as VARCHAR"),
        ((("missing", "key"),), BESIDE.columns, "missing"),
        ((("device", "key"), ("trace", "key")), BESIDE.columns, "twice"),
    ],
)
def test_what_cannot_lie_beside_the_payload_is_refused(
    pulsar_log: PulsarLog, meta: Any, columns: Any, expected: str
) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        pulsar_log.create(Stream("beside", columns, meta=meta))
    assert expected in str(caught.value)


def test_a_registry_that_was_asked_for_nothing_is_no_error(log: PulsarLog, broker: Broker) -> None:
    with pytest.raises(urllib.error.HTTPError):
        broker.admin("GET", "schemas/public/default/none/schema")
    assert log._admin.schemas(log._topic(broker.fresh())) == []
