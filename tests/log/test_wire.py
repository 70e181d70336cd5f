"""What producers may do to messages on the wire: compress, cut into chunks, encrypt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulsar
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fs_notebook.errors import UsageError
from fs_notebook.log.access import Access
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.position import START
from fs_notebook.types import Type
from tests.support.broker import Broker
from tests.support.logs import positions_of, read_all, upto

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(120)]
COLUMNS = (("n", Type.BIGINT), ("text", Type.VARCHAR))


@pytest.fixture
def stream(broker: Broker, pulsar_log: PulsarLog) -> Stream:
    stream = Stream(broker.fresh(), COLUMNS)
    pulsar_log.create(stream)
    return stream


def send(client: Any, stream: Stream, sizes: list[int], first: int = 0, **options: Any) -> None:
    producer = client.create_producer(stream.name, block_if_queue_full=True, **options)
    for n, size in enumerate(sizes, first):
        producer.send_async(json.dumps({"n": n, "text": "x" * size}).encode(), lambda *_: None)
    producer.flush()
    producer.close()


def check(log: PulsarLog, stream: Stream, sizes: list[int]) -> None:
    """Check that all events are there, and that reading goes on after any of them."""
    batches = read_all(log, stream)
    rows = [row for b in batches for row in b.rows.select("n", "text").rows()]
    assert rows == [(n, "x" * size) for n, size in enumerate(sizes)]
    places = positions_of(batches)
    assert len(set(places)) == len(places)
    assert places == sorted(places)
    assert batches[-1].end == log.end(stream.name).get(0)
    for k, place in enumerate(places):
        after = read_all(log, stream, start=upto([place]))
        assert [n for b in after for n in b.rows["n"]] == list(range(k + 1, len(sizes)))
        before = read_all(log, stream, end=upto([place]))
        assert [n for b in before for n in b.rows["n"]] == list(range(k + 1))


@pytest.mark.parametrize("kind", ["LZ4", "ZLib", "ZSTD", "SNAPPY"])
@pytest.mark.parametrize("batch", [0, 4])
def test_compressed_messages(
    client: Any, pulsar_log: PulsarLog, stream: Stream, kind: str, batch: int
) -> None:
    sizes = [0, 10, 2_000, 5, 70_000, 1, 2, 3, 4]
    send(
        client, stream, sizes, compression_type=getattr(pulsar.CompressionType, kind),
        batching_enabled=batch > 0, batching_max_messages=max(batch, 2),
    )  # fmt: skip
    check(pulsar_log, stream, sizes)


def test_messages_cut_into_chunks(client: Any, pulsar_log: PulsarLog, stream: Stream) -> None:
    # A message takes 5 MB at most; these go as two and three chunks among whole ones.
    sizes = [10, 7_000_000, 20, 12_000_000, 30]
    send(client, stream, sizes, chunking_enabled=True, batching_enabled=False)
    send(client, stream, [40, 50], first=5, batching_enabled=True)
    check(pulsar_log, stream, [*sizes, 40, 50])


def test_a_stream_that_ends_with_chunks(client: Any, pulsar_log: PulsarLog, stream: Stream) -> None:
    send(client, stream, [10, 7_000_000], chunking_enabled=True, batching_enabled=False)
    check(pulsar_log, stream, [10, 7_000_000])
    tailed: list[int] = []
    for batch in pulsar_log.tail(stream, start=START, idle_seconds=10):
        assert batch is not None
        tailed += batch.rows["n"].to_list()
        if len(tailed) >= 2:
            break
    assert tailed == [0, 1]


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """A public and a private key's files."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return str(public), str(private)


@pytest.mark.parametrize("batch", [0, 3])
def test_encrypted_messages(
    client: Any,
    broker: Broker,
    pulsar_log: PulsarLog,
    stream: Stream,
    keys: tuple[str, str],
    batch: int,
) -> None:
    sizes = [1, 20, 300, 4_000, 5]
    send(
        client, stream, sizes, encryption_key="team",
        crypto_key_reader=pulsar.CryptoKeyReader(*keys),
        batching_enabled=batch > 0, batching_max_messages=max(batch, 2),
    )  # fmt: skip
    public, private = keys
    access = Access(private_key=private, public_key=public, key_name="team")
    own = PulsarLog(broker.url, admin_url=broker.admin_url, access=access)
    check(own, stream, sizes)
    with pytest.raises(UsageError, match="are encrypted") as caught:
        read_all(pulsar_log, stream)
    assert "FS_NOTEBOOK_PULSAR_PRIVATE_KEY" in str(caught.value)
    own.close()


def test_what_is_appended_with_a_key_is_encrypted(
    broker: Broker, pulsar_log: PulsarLog, stream: Stream, keys: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import polars as pl

    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_PUBLIC_KEY", keys[0])
    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_PRIVATE_KEY", keys[1])
    monkeypatch.setenv("FS_NOTEBOOK_PULSAR_KEY_NAME", "team")
    own = PulsarLog(broker.url, admin_url=broker.admin_url)
    for count in (5, 3_000):
        own.append(stream, pl.DataFrame({"n": range(count), "text": ["secret"] * count}))
    assert sum(b.rows.height for b in read_all(own, stream)) == 3_005
    with pytest.raises(UsageError, match="are encrypted"):
        read_all(pulsar_log, stream)
    own.close()
