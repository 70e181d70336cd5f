"""A broker behind TLS and tokens, whose old ledgers lie in an S3 store."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.errors import FeatureStoreError, UnreachableError
from fs_notebook.log.access import Access
from fs_notebook.log.admin import Topic
from fs_notebook.log.knock import knock
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from tests.support.broker import Broker
from tests.support.certificates import certify
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


@contextlib.contextmanager
def listening(files: dict[str, Path]) -> Iterator[int]:
    """Give a port that shakes hands in TLS, once, by the broker's files of `certify`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["broker"], files["broker-key"])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                at, _ = server.accept()
                with at, context.wrap_socket(at, server_side=True):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=10)


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


def gone_from_bookkeeper(broker: Broker, path: str) -> set[int]:
    """Return the offloaded ledgers that BookKeeper knows no more.

    The broker asks BookKeeper for each ledger's metadata, and leaves out what is not there.
    """
    ledgers = broker.admin("GET", f"{path}/internalStats?metadata=true")["ledgers"]
    assert any(one.get("metadata") for one in ledgers), "BookKeeper was not asked"
    return {o["ledgerId"] for o in ledgers if o["offloaded"] and not o.get("metadata")}


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
    offloaded = {one["ledgerId"] for one in ledgers if one["offloaded"]}
    assert len(offloaded) >= 3
    until(lambda: gone_from_bookkeeper(broker, path) == offloaded, what="BookKeeper's deletion")
    broker.admin("PUT", f"{path}/unload")
    recorder(secured.store_url, "reset-recording")
    recorder(secured.store_url, "start-recording")
    try:
        again = read_all(log, stream)
    finally:
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


NO_AUTHORITY = "signed by an unknown authority"
OTHER_HOST = "certificate is for another host name"
REASONS = {
    "stranger": ("refused the token", "FS_NOTEBOOK_PULSAR_TOKEN"),
    "visitor": ("does not let this client", "FS_NOTEBOOK_PULSAR_TOKEN"),
    "nobody": ("wants a token, and was given none", "FS_NOTEBOOK_PULSAR_TOKEN"),
    "no authority": (NO_AUTHORITY, "FS_NOTEBOOK_PULSAR_TLS_CA"),
    "other authority": (NO_AUTHORITY, "FS_NOTEBOOK_PULSAR_TLS_CA"),
    "other host": (OTHER_HOST, "the host name that the certificate names"),
    "no TLS": ("nothing but TLS", "pulsar+ssl://localhost"),
}


@pytest.mark.parametrize("who", REASONS)
def test_who_may_not_is_told_why_and_no_secret_is_shown(
    secured: Secured, stream: Stream, who: str, tmp_path: Path
) -> None:
    ca, url, admin = secured.access.tls_ca, secured.broker.url, secured.broker.admin_url
    access = {
        "stranger": Access(token=secured.stranger, tls_ca=ca),
        "visitor": Access(token=secured.visitor, tls_ca=ca),
        "nobody": Access(tls_ca=ca),
        "no authority": Access(token=secured.access.token),
        "other authority": Access(
            token=secured.access.token, tls_ca=str(certify(tmp_path, "localhost")["ca"])
        ),
    }.get(who, secured.access)
    if who == "other host":
        url, admin = (u.replace("localhost", "127.0.0.1") for u in (url, admin))
    if who == "no TLS":
        url, admin = url.replace("pulsar+ssl", "pulsar"), admin.replace("https", "http")
    why, remedy = REASONS[who]
    log = PulsarLog(url, admin_url=admin, access=access)
    try:
        asked = {
            "the client": lambda: log._client.last(f"persistent://public/default/{stream.name}"),
            "the admin interface": log.names,
            "whichever knows": lambda: read_all(log, stream),
        }
        for whom, ask in asked.items():
            # A second time as well: what was told once is not shortened to "it does not answer".
            for _ in range(2):
                with pytest.raises(FeatureStoreError) as caught:
                    ask()
                assert why in caught.value.message, whom
                assert remedy.split("://")[-1] in str(caught.value.remedy), whom
                for token in (secured.stranger, secured.visitor, secured.access.token):
                    assert token not in str(caught.value)
    finally:
        log.close()


def test_a_certificate_that_has_expired_is_told(tmp_path: Path) -> None:
    files = certify(tmp_path, "localhost", days=-1)
    with listening(files) as port, pytest.raises(UnreachableError, match="has expired"):
        knock(f"pulsar+ssl://localhost:{port}", Access(tls_ca=str(files["ca"])), timeout_s=5)


def test_tls_at_a_port_without_it_is_told(secured: Secured) -> None:
    plain = secured.store_url.rpartition(":")[2]
    for url, why in (
        (f"pulsar+ssl://localhost:{plain}", "There is no TLS at"),
        (f"pulsar://localhost:{plain}", "is no Pulsar broker"),
        (f"pulsar+ssl://localhost:{plain},localhost:1", "There is no TLS at"),
    ):
        with pytest.raises(UnreachableError, match=why):
            knock(url, secured.access, timeout_s=5)
    log = PulsarLog(secured.broker.url, admin_url=f"https://localhost:{plain}")
    with pytest.raises(UnreachableError, match="There is no TLS at https"):
        log.names()
    log.close()
