"""Other people's topics: declared by a look or by hand, features over them, what cannot be read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pulsar
import pytest
from _pulsar import SchemaType
from pulsar.schema import AvroSchema, Schema

from fs_notebook.catalog.model import Definition
from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.jupyter.streams import DeadLetterCard, columns_of, pairs_of
from fs_notebook.letters import shown
from fs_notebook.log.retention import RetentionWarning
from fs_notebook.session import Session
from fs_notebook.types import Type
from fs_notebook.worker.connection import Connection
from tests.support import protos
from tests.support.broker import Broker
from tests.support.redis import RedisServer
from tests.support.sessions import stop_all

AT = {"type": "long", "logicalType": "timestamp-millis"}
START_MS = 1_700_000_000_000


def schema(**fields: Any) -> dict[str, Any]:
    return {
        "type": "record", "name": "Read",
        "fields": [{"name": n, "type": t} for n, t in fields.items()],
    }  # fmt: skip


@pytest.fixture
def on_pulsar(
    broker: Broker, own_redis: RedisServer, tmp_path: Path
) -> Iterator[tuple[Session, str]]:
    """A session on a real pair, in a namespace of its own where schemas may change."""
    namespace = broker.namespace()
    path = f"namespaces/{namespace}/schemaCompatibilityStrategy"
    broker.admin("PUT", path, "ALWAYS_COMPATIBLE")
    for_ever = {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
    broker.admin("POST", f"namespaces/{namespace}/retention", for_ever)
    place = Connection(
        tmp_path / "home", f"{broker.url}/{namespace}", own_redis.url, admin=broker.admin_url
    )
    session = Session(place, actor="tester")
    yield session, f"persistent://{namespace}"
    session.close()
    stop_all(place)


def send(url: str, topic: str, form: Any, events: list[Any]) -> None:
    quiet = pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
    client = pulsar.Client(url.partition("/public")[0], logger=quiet)
    if isinstance(form, dict):
        form = AvroSchema(None, schema_definition=form)
    options = {} if form is None else {"schema": form}
    producer = client.create_producer(topic, **options)
    for event in events:
        producer.send(event)
    client.close()


@pytest.mark.pulsar
@pytest.mark.timeout(300)
def test_a_feature_over_an_avro_topic_whose_schema_evolves(
    on_pulsar: tuple[Session, str],
) -> None:
    session, namespace = on_pulsar
    topic = f"{namespace}/reads"
    first = schema(user="string", seconds="int", at=AT)
    second = schema(user="string", seconds="long", at=AT, genre=["null", "string"])
    url = session.connection.log
    events = [{"user": f"u{n % 3}", "seconds": n, "at": START_MS + n} for n in range(30)]
    send(url, topic, first, events)
    session.define(
        "reading", "SELECT user, SUM(seconds) AS total, COUNT(*) AS n FROM reads GROUP BY user"
    )
    more = [{**e, "seconds": 2**40, "genre": "news"} for e in events[:6]]
    send(url, topic, second, more)
    send(url, topic, None, [b"junk"])
    preview = session.preview("reading")
    assert preview.dead == 1
    want = {
        f"u{k}": sum(e["seconds"] for e in [*events, *more] if e["user"] == f"u{k}")
        for k in range(3)
    }
    shown_ = dict(preview.frame.select("user", "total").iter_rows())
    assert shown_ == want
    labels = pl.DataFrame({"user": list(want), "at": [datetime(2030, 1, 1, tzinfo=UTC)] * 3})
    training = session.training_set(labels, ["total"]).to_polars()
    assert dict(training.select("user", "total").iter_rows()) == want
    status = session.promote("reading")
    assert status.state == "live"
    assert status.dead == 1
    served = session.serve(["total", "n"], user=list(want)).to_polars()
    assert dict(served.select("user", "total").iter_rows()) == want
    assert session.verify("reading").ok
    # Declared anew it has the new column, which features may read from now on.
    assert session.source("reads").names == ("user", "seconds", "at")
    session.declare("reads")
    assert session.source("reads").names == ("user", "seconds", "at", "genre")
    count = "COUNT(*) FILTER (WHERE genre = 'news')"
    session.define("news", f"SELECT user, {count} AS news FROM reads GROUP BY user")
    news = session.preview("news").frame.select("user", "news")
    assert dict(news.iter_rows()) == {"u0": 2, "u1": 2, "u2": 2}
    letters = session.dead_letters("reads")
    assert (letters.total, letters.events) == (1, 36)
    assert letters.letters[0].payload == b"junk"


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_raw_bytes_are_read_by_a_schema_file(
    on_pulsar: tuple[Session, str], tmp_path: Path
) -> None:
    import io

    import fastavro

    session, namespace = on_pulsar
    form = schema(user="string", seconds="int", at=AT)
    payloads = []
    for n in range(4):
        sink = io.BytesIO()
        event = {"user": "a", "seconds": n, "at": START_MS + n}
        fastavro.schemaless_writer(sink, fastavro.parse_schema(form), event)
        payloads.append(sink.getvalue())
    send(session.connection.log, f"{namespace}/raw", None, payloads)
    file = tmp_path / "read.avsc"
    file.write_text(json.dumps(form))
    with pytest.raises(UsageError, match="of no known form"):
        session.source("raw")
    stream = session.declare(
        "raw", format="avro", schema=file, time="at", meta={"sent": "publish time"}
    )
    assert [n for n, _ in stream.columns] == ["user", "seconds", "at", "sent"]
    session.define("raw_total", "SELECT user, SUM(seconds) AS raw_total FROM raw GROUP BY user")
    assert session.preview("raw_total").frame["raw_total"].to_list() == [6]
    # The version keeps the declaration that it was defined with; what is promised is of now.
    session.declare("raw", ahead="1h")
    definition = session.catalog.refresh().group("raw_total").latest
    assert isinstance(definition, Definition)
    assert definition.source.ahead_us is None
    log: Any = session.log
    assert log._log._log.promised(definition.source) == 3_600_000_000
    sliced = session.preview("raw_total", from_=datetime.now(UTC) + timedelta(days=1))
    assert sliced.frame.height == 0


class NativeProtobuf(Schema):  # type: ignore[misc]
    """A schema whose version each message names, as others' producers send them."""

    def __init__(self, text: str) -> None:
        super().__init__(bytes, SchemaType.PROTOBUF_NATIVE, json.loads(text), "Order")

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, data: bytes) -> bytes:
        return data


def order(user: str, n: int, **more: Any) -> bytes:
    made = protos.order_class(with_coupon=True)(user=user, n=n, **more)
    made.at.FromMilliseconds(START_MS + n)
    return bytes(made.SerializeToString())


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_a_feature_over_a_protobuf_topic_whose_schema_evolves(
    on_pulsar: tuple[Session, str],
) -> None:
    """Each event is read by the version that it was written with: what that lacks is null."""
    session, namespace = on_pulsar
    topic = f"{namespace}/orders"
    first = NativeProtobuf(protos.order_schema())
    second = NativeProtobuf(protos.order_schema(with_coupon=True))
    send(session.connection.log, topic, first, [order(f"u{n % 2}", n) for n in range(10)])
    sql = "SELECT user, SUM(n) AS total, COUNT(*) AS c FROM orders GROUP BY user"
    assert dict(session.feature("spent", sql).frame.select("user", "total").iter_rows()) == {
        "u0": 20, "u1": 25,
    }  # fmt: skip
    more = [
        order("u0", 100),
        order("u0", 200, coupon="x"),
        order("u1", 300, coupon="y"),
        b"\x0a\x7f",
    ]
    send(session.connection.log, topic, second, more)
    send(session.connection.log, topic, first, [order("u1", 400)])
    preview = session.preview("spent")
    assert (preview.dead, preview.events) == (1, 14)
    shown_ = {u: (t, c) for u, t, c in preview.frame.select("user", "total", "c").iter_rows()}
    assert shown_ == {"u0": (320, 7), "u1": (725, 7)}
    session.declare("orders")
    sql = "SELECT user, COUNT(coupon) AS known, LAST(coupon) AS last FROM orders GROUP BY user"
    coupons = session.feature("coupons", sql).frame.select("user", "known", "last")
    assert {u: (k, c) for u, k, c in coupons.iter_rows()} == {"u0": (2, "x"), "u1": (1, "y")}


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_raw_protobuf_is_read_by_a_declared_descriptor(
    on_pulsar: tuple[Session, str], tmp_path: Path
) -> None:
    session, namespace = on_pulsar
    payloads = [order(f"u{n % 2}", n, coupon="x") for n in range(6)]
    send(session.connection.log, f"{namespace}/raw_orders", None, [*payloads, b"\x0a\x7f"])
    file = tmp_path / "orders.desc"
    text = json.loads(protos.order_schema(with_coupon=True))
    file.write_bytes(base64.b64decode(text["fileDescriptorSet"]))
    with pytest.raises(UsageError, match="of no known form"):
        session.source("raw_orders")
    with pytest.raises(UsageError, match=r'message="shop\.Order"'):
        session.declare("raw_orders", format="protobuf", schema=file)
    session.declare("raw_orders", format="protobuf", schema=file, message="shop.Order", time="at")
    sql = "SELECT user, SUM(n) AS total, LAST(coupon) AS coupon FROM raw_orders GROUP BY user"
    preview = session.feature("raw_spent", sql)
    assert (preview.dead, preview.events) == (1, 6)
    found = preview.frame.select("user", "total", "coupon")
    assert {u: (t, c) for u, t, c in found.iter_rows()} == {"u0": (6, "x"), "u1": (9, "x")}


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_who_takes_up_a_topic_of_limited_retention_is_told_the_command(
    on_pulsar: tuple[Session, str], broker: Broker, recwarn: pytest.WarningsRecorder
) -> None:
    """Once for each session and stream, at the line of whoever asked."""
    session, namespace = on_pulsar
    limits = {"retentionTimeInMinutes": 60, "retentionSizeInMB": -1}
    place = namespace.partition("://")[2]
    broker.admin("POST", f"namespaces/{place}/retention", limits)
    event = b'{"user": "a", "n": 1}'
    for name in ("looked_at", "declared", "appended_to"):
        send(session.connection.log, f"{namespace}/{name}", None, [event])
    session.source("looked_at")
    session.declare("declared", {"user": "VARCHAR", "n": "BIGINT"})
    session.upload([{"user": "b", "n": 2}], "appended_to")
    told = [w for w in recwarn if w.category is RetentionWarning]
    assert len(told) == 3
    for warning, name in zip(told, ("looked_at", "declared", "appended_to"), strict=True):
        assert f"{name!r} is kept up to 60 minutes" in str(warning.message)
        command = f"pulsar-admin topics set-retention --time -1 --size -1 {namespace}/{name}"
        assert str(warning.message).endswith(command)
        assert warning.filename == __file__
        assert dict(session.describe(name).figures())["to keep it for ever, run"] == command
    session.upload([{"user": "b", "n": 3}], "appended_to")
    session.upload([{"user": "b", "n": 3}], "declared")
    session.source("looked_at")
    assert len([w for w in recwarn if w.category is RetentionWarning]) == 3
    with closing(Session(session.connection, actor="another")) as other:
        other.define("total", "SELECT user, SUM(n) AS total FROM appended_to GROUP BY user")
        (note,) = other.preview("total").notes
        assert f"--time -1 --size -1 {namespace}/appended_to" in note
        with pytest.warns(RetentionWarning, match="set-retention"):
            other.upload([{"user": "c", "n": 4}], "appended_to")


def test_a_stream_can_be_made_by_its_declaration(embedded_session: Session) -> None:
    session = embedded_session
    stream = session.declare(
        "clicks", {"user": "VARCHAR", "n": "BIGINT", "at": "TIMESTAMP"}, time="at",
        meta={"published": "publish time"},
    )  # fmt: skip
    assert stream.type_of("published") is Type.TIMESTAMP
    at = datetime(2024, 1, 1, tzinfo=UTC)
    session.upload([{"user": "a", "n": 1, "at": at}, {"user": "a", "n": 2, "at": at}], "clicks")
    session.define("delay", "SELECT user, MIN(published - at) AS delay FROM clicks GROUP BY user")
    (delay,) = session.preview("delay").frame["delay"]
    assert abs(datetime.now(UTC) - at - delay) < timedelta(minutes=10)


def test_a_promise_of_how_far_ahead_times_are_is_given_and_taken_back(
    embedded_session: Session,
) -> None:
    session = embedded_session
    first = session.declare("reads", {"user": "VARCHAR", "at": "TIMESTAMP"}, time="at")
    assert first.ahead_us is None
    promised = session.declare("reads", ahead="5 minutes")
    assert promised.ahead_us == 300_000_000
    assert ("promised: times ahead of publishing", "5m") in session.describe("reads").figures()
    assert session.declare("reads", key="user").ahead_us == 300_000_000
    assert session.source("reads") == session.declare("reads")
    assert session.declare("reads", ahead="").ahead_us is None
    with pytest.raises(UsageError, match="--ahead is not a length of time"):
        session.declare("reads", ahead="soon")


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"n": [1, 2], "user": ["a", "b"]}, "user"),
        ({"order_id": [1, 2, 3], "customer_id": [7, 7, 8]}, "customer_id"),
        ({"order_id": [1, 2, 3], "articleId": ["x", "x", "y"]}, "articleId"),
        ({"event_id": [1, 2, 3], "amount": [1, 1, 1]}, None),
        ({"user": ["a", None], "n": [1, 2]}, None),
        ({"user": [1.5, 2.5]}, None),
        ({"genre": list("ab") * 20, "who": list("abcdefgh") * 5, "text": list("ab" * 20)}, "who"),
        ({"genre": list("ab")}, None),
        ({"genre": ["a"] * 40, "note": [str(n) for n in range(40)]}, None),
        ({"user": []}, None),
    ],
)
def test_a_key_is_proposed_and_never_declared(
    embedded_session: Session, columns: dict[str, list[Any]], key: str | None
) -> None:
    session = embedded_session
    moments = [datetime(2024, 1, 1, tzinfo=UTC)] * len(next(iter(columns.values())))
    frame = pl.DataFrame(
        {**columns, "at": moments}, schema_overrides={"at": pl.Datetime("us", "UTC")}
    )
    done = session.upload(frame, "events")
    assert done.key == key
    assert session.source("events").key == ()
    assert (f"fs.declare('events', key={key!r})" in repr(done)) == (key is not None)
    assert session.upload(frame, "events").key is None
    if key is not None:
        assert session.declare("events", key=key).key == (key,)
        assert session.upload(frame, "keyed", key=key).key is None
        # Neither an event's id nor what is a table by its key.
        assert session.upload(frame, "identified", id=key).key != key


def test_a_file_proposes_a_key_as_well(embedded_session: Session, tmp_path: Path) -> None:
    file = tmp_path / "reads.csv"
    file.write_text("at,user_id\n2024-01-01T00:00:00Z,7\n2024-01-01T00:00:01Z,7\n")
    assert embedded_session.upload(file, "reads", time="at").key == "user_id"


def test_a_column_that_a_feature_reads_is_not_lost(embedded_session: Session) -> None:
    session = embedded_session
    columns = {"user": "VARCHAR", "n": "BIGINT", "x": "DOUBLE", "at": "TIMESTAMP"}
    session.declare("clicks", columns, time="at")
    session.define("total", "SELECT user, SUM(n) AS total FROM clicks GROUP BY user")
    rest = {c: t for c, t in columns.items() if c != "n"}
    with pytest.raises(UsageError, match="no longer have") as caught:
        session.declare("clicks", rest)
    assert "n is read by total" in str(caught.value)
    assert session.source("clicks").names == tuple(columns)
    without_x = {c: t for c, t in columns.items() if c != "x"}
    assert session.declare("clicks", without_x).names == ("user", "n", "at")
    assert session.source("clicks").time == "at"
    session.retire("total")
    assert session.declare("clicks", rest).names == ("user", "x", "at")


def test_what_is_declared_wrongly_is_refused(embedded_session: Session, tmp_path: Path) -> None:
    session = embedded_session
    with pytest.raises(UsageError, match="no stream 'missing' to look at"):
        session.declare("missing")
    with pytest.raises(UsageError, match="type that there is not") as caught:
        session.declare("clicks", {"n": "INTEGERS"})
    assert "INTEGERS" in str(caught.value)
    with pytest.raises(UnknownName, match="att"):
        session.declare("clicks", {"at": "TIMESTAMP"}, time="att")
    with pytest.raises(UsageError, match="unknown format"):
        session.declare("clicks", {"n": "BIGINT"}, format="xml")
    with pytest.raises(UsageError, match="not whose"):
        session.declare("other", schema="{}")
    with pytest.raises(UsageError, match=r"'none\.avsc' cannot be read"):
        session.declare("other", format="avro", schema=tmp_path / "none.avsc")
    with pytest.raises(UsageError, match="holds many messages"):
        session.declare("other", format="protobuf", schema=b"")
    assert [s.name for s in session.streams()] == []


def test_dead_letters_are_shown_safely() -> None:
    assert shown(b'{"a": "<b>"}\x00\xff\n') == '{"a": "<b>"}\\x00\\xff\\n'
    assert shown(b"x" * 200).endswith("… (200 bytes)")


def test_no_dead_letters(embedded_session: Session) -> None:
    embedded_session.upload([{"n": 1, "at": datetime(2024, 1, 1, tzinfo=UTC)}], "clicks")
    found = embedded_session.dead_letters("clicks")
    assert repr(found) == "no dead letters in clicks, 1 events"
    assert found.to_polars().height == 0
    assert "<dd>0</dd>" in DeadLetterCard(found).html()
    with pytest.raises(UsageError, match="Between 1 and"):
        embedded_session.dead_letters("clicks", limit=0)


def test_options_say_columns_and_places() -> None:
    assert columns_of('user VARCHAR, p STRUCT("a" BIGINT, "b" BIGINT)') == [
        ("user", "VARCHAR"), ("p", 'STRUCT("a" BIGINT, "b" BIGINT)'),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="names and types"):
        columns_of("user")
    assert pairs_of("d=key, t=property x", "--meta") == {"d": "key", "t": "property x"}
    with pytest.raises(UsageError, match="--meta"):
        pairs_of("d", "--meta")
