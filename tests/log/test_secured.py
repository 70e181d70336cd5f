"""A broker behind TLS and tokens, whose old ledgers lie in an S3 store."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.log.access import Access
from fs_notebook.log.admin import Topic
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from tests.support.broker import Broker
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all
from tests.support.secured import BUCKET, Secured, secured

__all__ = ["secured"]
pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(400)]


@pytest.fixture
def log(secured: Secured) -> Iterator[PulsarLog]:
    log = PulsarLog(secured.broker.url, admin_url=secured.broker.admin_url, access=secured.access)
    yield log
    log.close()


@pytest.fixture
def stream(secured: Secured, log: PulsarLog) -> Stream:
    stream = Stream(secured.broker.fresh(), COLUMNS, time="ts")
    log.create(stream)
    return stream


def until(condition: Any, *, what: str, seconds_max: float = 60.0) -> Any:
    end_s = SYSTEM.monotonic_s() + seconds_max
    while True:
        found = condition()
        if found:
            return found
        assert SYSTEM.monotonic_s() < end_s, f"waited {seconds_max} s for {what}"
        SYSTEM.sleep_s(0.1)


def recorder(store_url: str, action: str) -> str:
    url = f"{store_url}/moto-api/recorder/{action}"
    method = "GET" if action == "download-recording" else "POST"
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        return str(answer.read().decode())


def offload(broker: Broker, stream: Stream, log: PulsarLog) -> None:
    """Move all closed ledgers to the store, and wait until that is done."""
    path = f"persistent/public/default/{stream.name}"
    last = log._admin.last(Topic.of(stream.name, "public", "default"))
    assert last is not None
    ledger, entry, _ = last
    broker.admin("PUT", f"{path}/offload", {"ledgerId": ledger, "entryId": entry})

    def done() -> bool:
        status = broker.admin("GET", f"{path}/offload")["status"]
        assert status != "ERROR", status
        return bool(status == "SUCCESS")

    until(done, what="the offload")


def test_history_in_tiered_storage_is_read_as_ever(
    secured: Secured,
    log: PulsarLog,
    stream: Stream,
) -> None:
    broker = secured.broker
    # An append is an entry or more, and ten entries make a ledger.
    for k in range(35):
        log.append(stream, events(k * 20, 20))
    whole = read_all(log, stream)
    assert numbers(whole) == list(range(700))
    offload(broker, stream, log)
    assert secured.stored()
    share = log.facts(stream.name).offloaded_share
    assert share is not None
    assert 0.5 < share <= 1.0
    # What is offloaded goes from BookKeeper at once, and an unloaded topic has no cache.
    path = f"persistent/public/default/{stream.name}"
    ledgers = broker.admin("GET", f"{path}/internalStats")["ledgers"]
    assert sum(one["offloaded"] for one in ledgers) >= 3
    broker.admin("PUT", f"{path}/unload")
    recorder(secured.store_url, "reset-recording")
    recorder(secured.store_url, "start-recording")
    again = read_all(log, stream)
    recorder(secured.store_url, "stop-recording")
    assert numbers(again) == list(range(700))
    assert positions_of(again) == positions_of(whole)
    assert [b.rows.rows() for b in again] == [b.rows.rows() for b in whole]
    asked = [json.loads(line) for line in recorder(
        secured.store_url, "download-recording").splitlines()]  # fmt: skip
    read = [a for a in asked if a["method"] == "GET" and BUCKET in a["url"]]
    assert read, "the replay asked the store for nothing"
    # A replay may begin anywhere in it.
    places = positions_of(whole)
    from tests.support.logs import upto

    for k in (0, 215, 430, 699):
        assert numbers(read_all(log, stream, start=upto([places[k]]))) == list(range(k + 1, 700))


def test_a_token_and_tls_are_all_it_takes(log: PulsarLog, stream: Stream) -> None:
    log.append(stream, events(0, 50))
    assert numbers(read_all(log, stream)) == list(range(50))
    assert stream.name in log.names()
    assert log.identity(stream.name)
    for batch in log.tail(stream, start=log.end(stream.name), idle_seconds=0.1):
        assert batch is None
        break


def test_the_environment_tells_token_and_authority(
    secured: Secured,
    stream: Stream,
    log: PulsarLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log.append(stream, events(0, 5))
    assert secured.access.token is not None
    assert secured.access.tls_ca is not None
    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_TOKEN", secured.access.token)
    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_TLS_CA", secured.access.tls_ca)
    other = PulsarLog(secured.broker.url, admin_url=secured.broker.admin_url)
    assert numbers(read_all(other, stream)) == list(range(5))
    other.close()


@pytest.mark.parametrize("who", ["stranger", "visitor", "nobody", "no authority", "other host"])
def test_who_may_not_is_told_why_and_no_secret_is_shown(
    secured: Secured,
    stream: Stream,
    who: str,
) -> None:
    ca, url, admin = secured.access.tls_ca, secured.broker.url, secured.broker.admin_url
    access = {
        "stranger": Access(token=secured.stranger, tls_ca=ca),
        "visitor": Access(token=secured.visitor, tls_ca=ca),
        "nobody": Access(tls_ca=ca),
        "no authority": Access(token=secured.access.token),
        "other host": secured.access,
    }[who]
    if who == "other host":
        url, admin = (u.replace("localhost", "127.0.0.1") for u in (url, admin))
    log = PulsarLog(url, admin_url=admin, access=access)
    try:
        with pytest.raises(FeatureStoreError) as caught:
            read_all(log, stream)
        told = str(caught.value)
        for token in (secured.stranger, secured.visitor, secured.access.token):
            assert token not in told
        with pytest.raises(UnreachableError):
            log._client.last(f"persistent://public/default/{stream.name}")
    finally:
        log.close()
