"""Fault 33 on a real broker: a topic's schema goes on, and what was declared does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_notebook.errors import DefinitionError
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.loop import Worker
from tests.log.test_formats import AT, avro, send_avro
from tests.support.broker import Broker
from tests.support.redis import RedisServer
from tests.support.sessions import BEGIN, stop_all

pytestmark = [pytest.mark.pulsar, pytest.mark.redis]

FIRST = avro(user="string", n="int", amount="double", at=AT)
SECOND = avro(user="string", n="int", at=AT, coupon=["null", "string"])
REST = "COUNT(*) AS c FROM reads GROUP BY user"
ROWS = [{"user": f"u{i % 2}", "n": i, "amount": i / 2, "at": i} for i in range(6)]


@pytest.fixture
def session(broker: Broker, own_redis: RedisServer, tmp_path: Path) -> Iterator[Session]:
    namespace = broker.namespace()
    broker.admin("PUT", f"namespaces/{namespace}/schemaCompatibilityStrategy", "ALWAYS_COMPATIBLE")
    for_ever = {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
    broker.admin("POST", f"namespaces/{namespace}/retention", for_ever)
    place = f"{broker.url}/{namespace}"
    connection = Connection(tmp_path / "home", place, own_redis.url, broker.admin_url)
    session = Session(connection, actor="tester")
    yield session
    session.close()
    stop_all(connection)


def test_fault_33_a_column_that_is_removed_is_an_error_where_it_is_read(
    session: Session, client: Any
) -> None:
    topic = "persistent://" + session.connection.log.split("//")[1].partition("/")[2] + "/reads"
    send_avro(client, topic, FIRST, ROWS)
    session.declare("reads")
    session.define(
        "spent", "SELECT user, SUM(amount) AS total, COUNT(*) AS c FROM reads GROUP BY user"
    )
    session.define("counted", "SELECT user, SUM(n) AS n FROM reads GROUP BY user")
    definition = session.catalog.refresh().group("spent").latest
    worker = Worker(definition, session.log, session.store)
    beat, told = worker._beat, False

    def evolving(state: str, *args: Any, **options: Any) -> None:
        nonlocal told
        # Once it is live, the schema changes under it.
        if state == "live" and not told:
            told = True
            send_avro(client, topic, SECOND, [{"user": "u0", "n": 1, "at": 9, "coupon": "x"}])
        beat(state, *args, **options)

    worker._beat = evolving  # type: ignore[method-assign]
    assert session.preview("spent").events == 6
    with pytest.raises(DefinitionError) as caught:
        worker.run()
    assert "has no 'amount' any more: spent.total cannot be told" in caught.value.message
    held = session.store.state(definition.shard)
    assert held is not None
    assert held.info["events"] == 6
    with pytest.raises(DefinitionError, match=r"spent\.total cannot be told"):
        Worker(definition, session.log, session.store).run()
    with pytest.raises(DefinitionError, match=r"spent\.total cannot be told"):
        session.preview("spent")
    with pytest.raises(DefinitionError, match=r"spent\.total cannot be told"):
        session.training_set([{"user": "u0", "at": BEGIN}], ["total"])
    assert session.preview("counted").events == 7
    shown = dict(session.describe("reads").figures())["newest schema differs"]
    assert shown == "coupon VARCHAR added; amount removed, which spent.total reads"
    # Written again, it is there for all that read it.
    third = avro(user="string", n="int", at=AT, amount="double")
    send_avro(client, topic, third, [{"user": "u0", "n": 1, "amount": 4.0, "at": 10}])
    assert session.preview("spent").events == 8
    # What no longer fits the declared type is a dead letter, and why is shown.
    wider = avro(user="string", n="double", at=AT, amount="double")
    send_avro(client, topic, wider, [{"user": "u1", "n": 2.5, "amount": 4.0, "at": 11}])
    assert session.preview("counted").events == 8
    shown = dict(session.describe("reads").figures())
    assert shown["newest schema differs"] == "n BIGINT is DOUBLE"
    assert "column 'n' holds '2.5', declared BIGINT" in shown["dead letters"]


def test_fault_33_a_column_that_is_added_is_null_before(session: Session, client: Any) -> None:
    """In the worker's values as in a preview, whichever of the schemas wrote an event."""
    topic = "persistent://" + session.connection.log.split("//")[1].partition("/")[2] + "/reads"
    send_avro(client, topic, FIRST, ROWS)
    session.declare("reads")
    session.define("before", f"SELECT user, {REST}")
    second = [{"user": f"u{i % 2}", "n": i, "at": i, "coupon": f"c{i}"} for i in range(6, 9)]
    send_avro(client, topic, SECOND, second)
    # What was defined before goes on as it was; the column is there once a look has found it.
    assert session.preview("before").events == 9
    assert (
        "coupon VARCHAR added" in dict(session.describe("reads").figures())["newest schema differs"]
    )
    columns = {
        "user": "VARCHAR", "n": "BIGINT", "amount": "DOUBLE", "at": "TIMESTAMP",
        "coupon": "VARCHAR",
    }  # fmt: skip
    session.declare("reads", columns)
    session.define(
        "coupons",
        "SELECT user, COUNT(*) AS events, COUNT(coupon) AS coupons, FIRST(coupon) AS first_coupon "
        "FROM reads GROUP BY user",
    )
    wanted = {"u0": (5, 2, "c6"), "u1": (4, 1, "c7")}
    found = session.preview("coupons").frame.rows_by_key("user", unique=True)
    assert found == wanted
    session.promote("coupons")
    names = ("events", "coupons", "first_coupon")
    served = session.serve(list(names), user=["u0", "u1"])
    assert {row["user"]: tuple(row[n] for n in names) for row in served.rows} == wanted
    assert session.verify("coupons").ok
