"""What only a real broker can show: partitions, kinds of messages, trimming, other writers."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pulsar
import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.errors import (
    ConflictError,
    HistoryLost,
    UnknownPosition,
    UnreachableError,
    UsageError,
)
from fs_notebook.log import partitions
from fs_notebook.log.framing import route
from fs_notebook.log.protocol import PUBLISHED, Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.retention import RetentionWarning
from fs_notebook.position import START, Cut
from fs_notebook.types import TIME, Type
from tests.support.broker import Broker, free_ports
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all, upto

pytestmark = pytest.mark.pulsar
ROOT = Path(__file__).parents[2]


@pytest.fixture
def stream(broker: Broker, pulsar_log: PulsarLog) -> Stream:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", key=("user",))
    pulsar_log.create(stream)
    return stream


def send(client: Any, topic: str, payloads: list[bytes], *, batch: int = 0, **options: Any) -> None:
    """Send as a foreign producer does; `batch` messages to an entry."""
    producer = client.create_producer(
        topic,
        batching_enabled=batch > 0,
        batching_max_messages=max(batch, 2),
        batching_max_publish_delay_ms=1_000,
        block_if_queue_full=True,
    )
    for payload in payloads:
        producer.send_async(payload, lambda *_: None, **options)
    producer.flush()
    producer.close()


def as_json(first: int, count: int) -> list[bytes]:
    return [json.dumps({"n": n, "user": f"u{n % 7}"}).encode() for n in range(first, first + count)]


def test_resume_at_the_very_next_event_in_every_partition_and_kind(
    broker: Broker, pulsar_log: PulsarLog, client: Any
) -> None:
    """JSON alone, JSON in batches, Arrow: each position of a log of four partitions."""
    stream = Stream(broker.fresh(), COLUMNS, time="ts", key=("user",), partitions=4)
    pulsar_log.create(stream)
    pulsar_log.append(stream, events(0, 20))
    topic = f"persistent://public/default/{stream.name}"
    send(client, f"{topic}-partition-1", as_json(1_000, 11), batch=4)
    send(client, f"{topic}-partition-1", as_json(2_000, 3))
    pulsar_log.append(stream, events(20, 1_010))
    pulsar_log.append(stream, events(1_030, 9))
    end = pulsar_log.end(stream.name)
    whole: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for batch in read_all(pulsar_log, stream):
        pairs = zip(batch.rows.get_column("n"), batch.positions().rows(), strict=True)
        whole.setdefault(batch.partition, []).extend(pairs)
    assert sum(map(len, whole.values())) == 20 + 11 + 3 + 1_010 + 9
    for partition, pairs in whole.items():
        last = end.get(partition)
        assert last is not None
        only = Cut((last,))
        chosen = [*range(22), len(pairs) // 2, *range(len(pairs) - 6, len(pairs))]
        for k in chosen:
            cut = upto([pairs[k][1]])
            after = read_all(pulsar_log, stream, start=cut, end=only)
            assert numbers(after) == [n for n, _ in pairs[k + 1 :]]
            before = read_all(pulsar_log, stream, end=cut)
            assert numbers(before) == [n for n, _ in pairs[: k + 1]]


def six_partitions(broker: Broker, log: PulsarLog, client: Any) -> Stream:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", partitions=6)
    log.create(stream)
    for index in range(6):
        topic = f"persistent://public/default/{stream.name}-partition-{index}"
        payloads = as_json(index * 100_000, 10_000)
        payloads[77] = b"junk"
        send(client, topic, payloads, batch=1_000, event_timestamp=1_000 + index)
    return stream


def children() -> list[psutil.Process]:
    """Return the reading processes that live."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "reader_process" in " ".join(child.cmdline()):
                found.append(child)
    return found


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fs-notebook-read"]


@pytest.fixture
def own_log(broker: Broker) -> Iterator[PulsarLog]:
    """A ledger that a test may close."""
    log = PulsarLog(broker.url, admin_url=broker.admin_url)
    yield log
    log.close()


@pytest.mark.timeout(120)
def test_fault_35_partitions_are_read_by_processes_side_by_side(
    broker: Broker, own_log: PulsarLog, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is given up half way leaves no thread and no process behind."""
    stream = six_partitions(broker, own_log, client)
    end = own_log.end(stream.name)
    columns = [*stream.names, PUBLISHED]
    monkeypatch.setenv("FS_NOTEBOOK_READERS", "0")
    alone = read_all(own_log, stream, columns=columns)
    assert not children()
    monkeypatch.setattr(partitions, "APART_AFTER_S", 0.0)
    monkeypatch.setenv("FS_NOTEBOOK_READERS", "2")
    for _ in range(2):
        # The first starts them, the second finds them there.
        found = read_all(own_log, stream, columns=columns, rows_max=4_000)
        assert 0 < len(children()) <= 3
        for position in end:
            mine, same = (
                [b for b in batches if b.partition == position.partition]
                for batches in (found, alone)
            )
            assert mine[-1].end == position
            assert positions_of(mine) == positions_of(same)
            assert [d for b in mine for d in b.dead] == [d for b in same for d in b.dead]
            assert len([d for b in mine for d in b.dead]) == 1
            rows = pl.concat([b.rows for b in mine])
            assert rows.equals(pl.concat([b.rows for b in same]))
    with closing(own_log.read(stream, start=START, end=end, rows_max=1_000)) as batches:
        for _ in range(5):
            next(batches)
        begun_s = SYSTEM.monotonic_s()
    assert SYSTEM.monotonic_s() - begun_s < 3
    assert not threads()
    gone = end.get(3)
    assert gone is not None
    rest = [p for p in end if p.partition != 3]
    wrong = START.advanced([*rest, gone._replace(ledger=gone.ledger - 1)])
    with pytest.raises(UnknownPosition, match="has no position"):
        read_all(own_log, stream, end=wrong)
    assert not threads()
    own_log.close()
    assert not children()


@pytest.mark.timeout(120)
def test_a_reading_process_that_is_killed_is_told_and_replaced(
    broker: Broker, own_log: PulsarLog, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = six_partitions(broker, own_log, client)
    monkeypatch.setattr(partitions, "APART_AFTER_S", 0.0)
    monkeypatch.setenv("FS_NOTEBOOK_READERS", "1")
    count = 6 * 9_999
    assert sum(b.rows.height for b in read_all(own_log, stream)) == count
    # Those that wait are replaced without a word.
    for child in children():
        child.kill()
        child.wait()
    assert sum(b.rows.height for b in read_all(own_log, stream)) == count

    def killing() -> None:
        end = own_log.end(stream.name)
        with closing(own_log.read(stream, start=START, end=end, rows_max=500)) as batches:
            for _ in batches:
                for child in children():
                    child.kill()

    with pytest.raises(UnreachableError, match="process that read a partition has ended"):
        killing()
    assert sum(b.rows.height for b in read_all(own_log, stream)) == count


def test_a_tail_resumes_inside_a_batch(pulsar_log: PulsarLog, stream: Stream, client: Any) -> None:
    send(client, stream.name, as_json(0, 12), batch=5)
    places = positions_of(read_all(pulsar_log, stream))
    for k in (0, 3, 4, 6, 10):
        got: list[int] = []
        with closing(pulsar_log.tail(stream, start=upto([places[k]]), rows_max=2)) as tail:
            while len(got) < 11 - k:
                batch = next(tail)
                got += batch.rows.get_column("n").to_list() if batch is not None else []
        assert got == list(range(k + 1, 12))


def test_fault_27_malformed_events_are_set_aside_with_their_positions(
    pulsar_log: PulsarLog, stream: Stream, client: Any
) -> None:
    payloads = as_json(0, 9)
    payloads[2], payloads[5] = b"{", b'{"n":"x"}'
    send(client, stream.name, payloads, batch=4)
    torn = io.BytesIO()
    events(50, 40).write_ipc_stream(torn)
    send(client, stream.name, [torn.getvalue()[:200]])
    send(client, stream.name, [*as_json(9, 2), b""], batch=3)
    end = pulsar_log.end(stream.name)
    batches = read_all(pulsar_log, stream)
    assert numbers(batches) == [0, 1, 3, 4, 6, 7, 8, 9, 10]
    dead = [letter for b in batches for letter in b.dead]
    assert [d.payload for d in dead] == [b"{", b'{"n":"x"}', torn.getvalue()[:200], b""]
    assert [d.position[2:] for d in dead] == [(0, 2), (1, 1), (3, 0), (4, 2)]
    assert all(d.reason for d in dead)
    assert batches[-1].end == end.get(0)
    for letter in dead:
        at = upto([tuple(letter.position)])
        before, after = read_all(pulsar_log, stream, end=at), read_all(pulsar_log, stream, start=at)
        assert numbers(before) + numbers(after) == numbers(batches)


def test_fault_15_a_position_that_was_trimmed_is_an_error(
    broker: Broker, pulsar_log: PulsarLog, stream: Stream
) -> None:
    path = f"persistent/public/default/{stream.name}"
    first = pulsar_log.append(stream, events(0, 3))
    broker.admin("PUT", f"{path}/unload")
    second = pulsar_log.append(stream, events(3, 3))
    broker.admin("PUT", f"{path}/unload")
    pulsar_log.append(stream, events(6, 3))
    body = {"retentionTimeInMinutes": 0, "retentionSizeInMB": 0}
    broker.admin("POST", f"{path}/retention", body)

    def ledgers() -> list[int]:
        broker.admin("POST", f"{path}/trim")
        return [x["ledgerId"] for x in broker.admin("GET", f"{path}/internalStats")["ledgers"]]

    last = second.get(0)
    assert last is not None
    wait_until(lambda: min(ledgers()) > last.ledger)
    for lost in (first, second):
        with pytest.raises(HistoryLost, match="are gone"):
            read_all(pulsar_log, stream, start=lost)
        with closing(pulsar_log.tail(stream, start=lost)) as tail:
            told = (batch for batch in tail if batch is not None)
            with pytest.raises(HistoryLost, match="are gone"):
                next(told)
    assert numbers(read_all(pulsar_log, stream)) == [6, 7, 8]


def wait_until(condition: Any) -> None:
    """Wait for a condition of the broker's, up to the test's own time limit."""
    while not condition():
        time.sleep(0.1)


def test_fault_14_a_topic_unloaded_amid_a_read_loses_and_doubles_nothing(
    broker: Broker, pulsar_log: PulsarLog, stream: Stream, client: Any
) -> None:
    send(client, stream.name, as_json(0, 60_000), batch=500)
    path = f"persistent/public/default/{stream.name}"
    end = pulsar_log.end(stream.name)
    got: list[int] = []
    with closing(pulsar_log.read(stream, start=START, end=end, rows_max=999)) as batches:
        for i, batch in enumerate(batches):
            got += batch.rows.get_column("n").to_list()
            if i in (2, 9):
                broker.admin("PUT", f"{path}/unload")
    assert got == list(range(60_000))
    with closing(pulsar_log.tail(stream, start=end, idle_seconds=0.1)) as tail:
        assert next(tail) is None
        broker.admin("PUT", f"{path}/unload")
        pulsar_log.append(stream, events(7, 2))
        while (batch := next(tail)) is None:
            pass
        assert batch.rows.get_column("n").to_list() == [7, 8]


def test_fault_18_partitions_that_are_added_are_taken_up(
    broker: Broker, pulsar_log: PulsarLog
) -> None:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", key=("user",), partitions=2)
    pulsar_log.create(stream)
    before = pulsar_log.append(stream, events(0, 30))
    with closing(pulsar_log.tail(stream, start=before, idle_seconds=0.1)) as tail:
        assert next(tail) is None
        path = f"persistent/public/default/{stream.name}/partitions"
        broker.admin("POST", path, 4)
        pulsar_log.append(stream, events(30, 30))
        got: list[int] = []
        while len(got) < 30:
            batch = next(tail)
            got += batch.rows.get_column("n").to_list() if batch is not None else []
    assert sorted(got) == list(range(30, 60))
    after = read_all(pulsar_log, stream, start=before)
    assert sorted(numbers(after)) == list(range(30, 60))


def test_another_exclusive_writer_is_a_conflict(
    pulsar_log: PulsarLog, stream: Stream, client: Any
) -> None:
    other = client.create_producer(stream.name, access_mode=pulsar.ProducerAccessMode.Exclusive)
    for expected in (START, None):
        with pytest.raises(ConflictError, match="Somebody else is writing"):
            pulsar_log.append(stream, events(0, 1), expected=expected)
    other.close()
    cut = pulsar_log.append(stream, events(0, 1), expected=START)
    assert cut == pulsar_log.end(stream.name)


def test_retention_is_for_ever(broker: Broker, pulsar_log: PulsarLog, client: Any) -> None:
    for count in (1, 3):
        name = broker.fresh()
        pulsar_log.create(Stream(name, COLUMNS, partitions=count))
        found = broker.admin("GET", f"persistent/public/default/{name}/retention")
        assert found == {"retentionTimeInMinutes": -1, "retentionSizeInMB": -1}
    foreign = broker.fresh()
    send(client, foreign, as_json(0, 1))
    with pytest.warns(RetentionWarning, match="pulsar-admin topics set-retention --time -1"):
        pulsar_log.create(Stream(foreign, COLUMNS))


def test_a_foreign_topic_is_understood(broker: Broker, pulsar_log: PulsarLog, client: Any) -> None:
    name = broker.fresh()
    payloads = [
        {"user": "a", "n": 1, "score": 1, "at": "2026-01-01T00:00:00Z", "tags": ["x"], "code": "7"},
        {"user": "b", "n": 2, "score": 1.5, "at": "2026-01-02", "ok": True, "none": None},
    ]
    send(client, name, [json.dumps(p).encode() for p in payloads], event_timestamp=5)
    stream = pulsar_log.infer_stream(name)
    assert stream.columns == (
        ("user", Type.VARCHAR),
        ("n", Type.BIGINT),
        ("score", Type.DOUBLE),
        ("at", Type.TIMESTAMP),
        ("tags", Type("VARCHAR[]")),
        ("code", Type.VARCHAR),
        ("ok", Type.BOOLEAN),
        ("none", Type.VARCHAR),
    )
    assert stream.time == "at"
    rows = read_all(pulsar_log, stream)[0].rows
    assert rows.get_column("score").to_list() == [1.0, 1.5]
    untimed = Stream(name, (("n", Type.BIGINT),))
    times = read_all(pulsar_log, untimed)[0].rows.get_column(TIME)
    assert times.to_physical().to_list() == [5_000, 5_000]
    assert pulsar_log.identity(name) == pulsar_log.identity(name) != "earliest: none"
    junk = broker.fresh()
    send(client, junk, [b"\x00\x01", b"text"])
    with pytest.raises(UsageError, match="no known form"):
        pulsar_log.infer_stream(junk)


def test_without_the_admin_interface(broker: Broker) -> None:
    log = PulsarLog(broker.url, admin_url=f"http://127.0.0.1:{free_ports(1)[0]}")
    with closing(log):
        stream = Stream(broker.fresh(), COLUMNS, time="ts")
        with pytest.warns(RetentionWarning, match="set-retention"):
            log.create(stream)
        cut = log.append(stream, events(0, 5))
        cut = log.append(stream, events(5, 1_200), expected=cut)
        assert log.end(stream.name) == cut
        assert numbers(read_all(log, stream)) == list(range(1_205))
        with pytest.raises(UnreachableError, match="create-partitioned-topic -p 3"):
            log.create(Stream(broker.fresh(), COLUMNS, partitions=3))


def test_a_broker_that_is_not_there_is_told_quietly_and_soon(capfd: Any) -> None:
    port, web = free_ports(2)
    url = f"pulsar://127.0.0.1:{port}"
    log = PulsarLog(url, admin_url=f"http://127.0.0.1:{web}")
    with closing(log), pytest.raises(UnreachableError, match=str(port)):
        log.append(Stream("x", COLUMNS), events(0, 1))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_addresses_are_checked() -> None:
    for url in ("http://x", "pulsar://", "pulsar"):
        with pytest.raises(UsageError, match="not the address"):
            PulsarLog(url)


def test_events_are_routed_by_key_whatever_the_frame() -> None:
    stream = Stream("x", COLUMNS, key=("user",))
    rows = events(0, 500)
    whole = route(stream, rows, 4, 0)
    for start in range(0, 500, 50):
        for partition, part in route(stream, rows.slice(start, 50), 4, 0).items():
            inside = whole[partition].get_column("n")
            assert part.get_column("n").is_in(inside.to_list()).all()
    keyless = route(Stream("x", COLUMNS), rows, 4, 2)
    assert sum(p.height for p in keyless.values()) == 500


SLOW = """
import sys
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type
from fs_notebook.position import START

log = PulsarLog(sys.argv[1], admin_url=sys.argv[2])
stream = Stream(sys.argv[3], (("n", Type.BIGINT),))
try:
    for batch in log.tail(stream, start=START):
        print("waiting", flush=True)
except KeyboardInterrupt:
    print("interrupted", len(list(log.read(stream, start=START, end=log.end(stream.name)))))
"""


def test_fault_35_an_interrupt_stops_a_wait_and_the_log_stays_usable(
    broker: Broker, pulsar_log: PulsarLog, stream: Stream
) -> None:
    pulsar_log.append(stream, events(0, 3))
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, broker.url, broker.admin_url, stream.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        started = SYSTEM.monotonic_s()
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=20)
        assert text.replace("waiting\n", "") == "interrupted 1\n"
        # A generous bound: it must not be one of the client's timeouts that ended it.
        assert SYSTEM.monotonic_s() - started < 5
    finally:
        process.kill()
        process.wait(timeout=10)


def test_read_rows_are_those_of_polars(pulsar_log: PulsarLog, stream: Stream) -> None:
    pulsar_log.append(stream, events(0, 2_000))
    got = pl.concat([b.rows for b in read_all(pulsar_log, stream)]).drop(TIME)
    assert got.equals(events(0, 2_000))


@pytest.mark.parametrize("key", [(), ("user",)])
def test_a_stream_of_json_only_is_json_however_much_is_appended(
    broker: Broker, pulsar_log: PulsarLog, client: Any, key: tuple[str, ...]
) -> None:
    stream = Stream(broker.fresh(), COLUMNS, time="ts", key=key, json_only=True)
    pulsar_log.create(stream)
    end = pulsar_log.append(stream, events(0, 3_500))
    assert end == pulsar_log.end(stream.name)
    batches = read_all(pulsar_log, stream)
    assert numbers(batches) == list(range(3_500))
    reader = client.create_reader(stream.name, pulsar.MessageId.earliest)
    found = [json.loads(reader.read_next(10_000).data())["n"] for _ in range(3_500)]
    assert found == list(range(3_500))
    # Batches are cut by number: their answers are those to all of their messages.
    positions = positions_of(batches)
    assert {p[3] for p in positions} == set(range(1_000))
    with pytest.raises(UsageError, match="JSON only"):
        pulsar_log.append(stream, events(0, 1).with_columns(amount=pl.lit(float("nan"))))


def test_events_that_fill_a_batch_by_their_size_are_all_stored(
    broker: Broker, pulsar_log: PulsarLog
) -> None:
    stream = Stream(broker.fresh(), (("user", Type.VARCHAR),), json_only=True)
    pulsar_log.create(stream)
    sizes = [10, 3_000_000, 10, 400_000, 400_000, 10, 4_000_000, 10]
    rows = pl.DataFrame({"user": [chr(97 + i) * n for i, n in enumerate(sizes)]})
    end = pulsar_log.append(stream, rows)
    found = pl.concat([b.rows for b in read_all(pulsar_log, stream)])
    assert found["user"].to_list() == rows["user"].to_list()
    assert end == pulsar_log.end(stream.name)
