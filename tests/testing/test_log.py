"""The simulated ledger beyond what every ledger promises: what a broker does, and what goes wrong.

Numbers are those of the list of faults. A failing seed is in the assertion's message.
"""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from fs_notebook.errors import HistoryLost, UnreachableError, UsageError
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START, Cut, Position
from fs_notebook.testing import Fault, Faults, SimulatedClock, SimulatedLog
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all

STREAM = Stream("reads", COLUMNS, time="ts", key=("user",), partitions=3)
LEDGER_FAULTS = {
    Fault.LEDGER_SILENT: 0.03,
    Fault.BATCH_CUT: 0.1,
    Fault.REDELIVERY: 0.05,
    Fault.DELAY: 0.05,
}


def made(seed: int = 0, *, faults: Faults | None = None, stream: Stream = STREAM) -> SimulatedLog:
    log = SimulatedLog(seed=seed, faults=faults)
    with log.faults.calm():
        log.create(stream)
    return log


def as_json(first: int, count: int) -> list[bytes]:
    return [json.dumps({"n": n, "user": f"u{n}"}).encode() for n in range(first, first + count)]


def test_positions_are_laid_out_as_on_pulsar() -> None:
    """Several ledgers, several entries of a ledger, several messages of an entry; large: rows."""
    log = made(stream=Stream("one", COLUMNS, time="ts"))
    stream = Stream("one", COLUMNS, time="ts")
    log.append(stream, events(0, 60))
    log.append(stream, events(60, 1_500))
    places = positions_of(read_all(log, stream))
    small, large = places[:60], places[60:]
    assert len({p[1] for p in small}) > 1
    assert max(p[2] for p in small) > 0
    assert max(p[3] for p in small) > 0
    assert [p[3] for p in large] == list(range(1_500))
    assert len({p[1:3] for p in large}) == 1
    before = log.end("one")
    log.unload("one")
    assert log.end("one") == before
    after = log.append(stream, events(2_000, 1)).get(0)
    assert after is not None
    assert after.ledger > large[-1][1]


def test_one_seed_gives_one_ledger() -> None:
    def laid(seed: int) -> list[tuple[int, ...]]:
        log = made(seed)
        log.append(STREAM, events(0, 200))
        return positions_of(read_all(log, STREAM))

    assert laid(3) == laid(3)
    assert laid(3) != laid(4)


@pytest.mark.parametrize("seed", range(40))
def test_fault_13_14_19_a_reader_that_goes_on_from_its_end_misses_and_repeats_nothing(
    seed: int,
) -> None:
    """Broken connections, redelivery, batches cut anywhere, in bounded reads and in the tail."""
    faults = Faults(seed, rates=LEDGER_FAULTS, most=60)
    log = made(seed, faults=faults)
    with faults.calm():
        for first, count in ((0, 40), (40, 1_200), (1_240, 90)):
            log.append(STREAM, events(first, count))
        log.send("reads", [b"{", *as_json(9_000, 5)], partition=1, batch=4)
        end = log.end("reads")
        expected = sorted(positions_of(read_all(log, STREAM)))
    got: list[tuple[int, ...]] = []
    dead = 0
    cut = START
    while cut != end:
        tailing = len(faults.struck) % 2
        try:
            found = log.tail(STREAM, start=cut) if tailing else log.read(STREAM, start=cut, end=end)
            with closing(found) as batches:
                for batch in batches:
                    if batch is None:
                        break
                    got += batch.positions().rows()
                    dead += len(batch.dead)
                    cut = cut.advanced([batch.end])
        except UnreachableError:
            continue
    assert sorted(got) == expected, faults
    assert dead == 1, faults
    assert faults.struck, faults


def test_fault_13_delays_take_simulated_time_only() -> None:
    clock = SimulatedClock()
    faults = Faults(1, at={Fault.DELAY: range(0, 600, 2)})
    log = SimulatedLog(clock=clock, faults=faults)
    log.create(STREAM)
    log.append(STREAM, events(0, 300))
    assert sorted(numbers(read_all(log, STREAM))) == list(range(300))
    assert clock.monotonic_s() > 5


def test_fault_15_a_position_that_was_trimmed_is_an_error() -> None:
    stream = Stream("one", COLUMNS, time="ts")
    log = made(stream=stream)
    first = log.append(stream, events(0, 3))
    log.unload("one")
    log.append(stream, events(3, 30))
    log.unload("one")
    last = log.append(stream, events(33, 3)).get(0)
    assert last is not None
    log.trim("one", last._replace(entry=0, batch=0))
    for read in (
        lambda: list(log.read(stream, start=first, end=Cut((last,)))),
        lambda: next(iter(log.tail(stream, start=first))),
    ):
        with pytest.raises(HistoryLost, match="gone"):
            read()
    assert numbers(read_all(log, stream)) == [33, 34, 35]


def test_fault_17_a_reader_of_a_stream_that_was_made_again_is_handed_the_new_one() -> None:
    """As by Pulsar's client, which reconnects: whoever reads must look at the identity."""
    log = made()
    log.append(STREAM, events(0, 3))
    before = log.identity("reads")
    with closing(log.tail(STREAM, start=log.end("reads"))) as tail:
        assert next(tail) is None
        log.delete("reads")
        with pytest.raises(UnreachableError, match="no topic"):
            next(tail)
    log.create(STREAM)
    log.append(STREAM, events(0, 3))
    with closing(log.tail(STREAM, start=log.end("reads"))) as tail:
        assert next(tail) is None
        log.delete("reads")
        log.create(STREAM)
        log.append(STREAM, events(50, 1))
        batch = next(tail)
        assert batch is not None
        assert batch.rows.get_column("n").to_list() == [50]
    assert log.identity("reads") != before


def test_fault_18_partitions_that_are_added_are_taken_up_from_their_first_event() -> None:
    log = made(stream=Stream("reads", COLUMNS, time="ts", key=("user",), partitions=2))
    start = log.append(STREAM, events(0, 20))
    with closing(log.tail(STREAM, start=start)) as tail:
        assert next(tail) is None
        log.add_partitions("reads", 4)
        log.append(STREAM, events(20, 40))
        got: list[int] = []
        partitions: set[int] = set()
        for batch in tail:
            if batch is not None:
                got += batch.rows.get_column("n").to_list()
                partitions.add(batch.partition)
            if len(got) == 40:
                break
    assert sorted(got) == list(range(20, 60))
    assert partitions & {2, 3}
    with pytest.raises(UsageError, match="more partitions"):
        log.add_partitions("reads", 4)


def test_fault_27_malformed_payloads_are_set_aside_with_their_positions() -> None:
    log = made()
    payloads = as_json(0, 7)
    payloads[2], payloads[5] = b"{", b'{"n":"x"}'
    log.send("reads", payloads, partition=2, batch=4)
    batches = read_all(log, STREAM)
    assert numbers(batches) == [0, 1, 3, 4, 6]
    dead = [letter for batch in batches for letter in batch.dead]
    assert [(d.payload, d.position[2:]) for d in dead] == [(b"{", (0, 2)), (b'{"n":"x"}', (1, 1))]


def test_an_event_without_time_of_its_own_has_the_messages() -> None:
    stream = Stream("untimed", COLUMNS[:2])
    log = made(stream=stream)
    log.send("untimed", as_json(0, 1), event_ms=1_500)
    log.send("untimed", as_json(1, 1))
    times = [t for b in read_all(log, stream) for t in b.rows.get_column("__time").to_physical()]
    assert times == [1_500_000, log.clock.now_us()]


@pytest.mark.parametrize("seed", range(20))
def test_an_append_that_is_not_answered_stored_what_came_first(seed: int) -> None:
    stream = Stream("one", COLUMNS, time="ts")
    log = made(seed, faults=Faults(seed, at={Fault.APPEND_UNKNOWN: [0]}), stream=stream)
    with pytest.raises(UnreachableError, match="did not say") as caught:
        log.append(stream, events(0, 30))
    stored = numbers(read_all(log, stream))
    assert stored == list(range(len(stored))), seed
    told = int(caught.value.message.split("more than ")[1].split()[0])
    assert told <= len(stored), seed
    log.append(stream, events(len(stored), 30 - len(stored)))
    assert numbers(read_all(log, stream)) == list(range(30)), seed


def test_what_cannot_be_is_refused() -> None:
    log = made()
    with pytest.raises(UsageError, match="no partition 7"):
        log.send("reads", [b"{}"], partition=7)
    with pytest.raises(UsageError, match="no partition 7"):
        log.trim("reads", Position(7, 0, 0, 0))
    with pytest.raises(UsageError, match="probability"):
        Faults(rates={Fault.DELAY: 2.0})
    for wrong in ({"entries_max": 0}, {"batch_max": 0}):
        with pytest.raises(UsageError, match="cannot hold 0"):
            SimulatedLog(**wrong)
    log.close()
    with pytest.raises(UsageError, match="closed"):
        log.names()
