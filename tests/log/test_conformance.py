"""What every ledger promises, asked of each of them."""

from __future__ import annotations

import itertools
import math
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.errors import (
    ConflictError,
    HistoryLost,
    UnknownName,
    UnknownPosition,
    UsageError,
)
from fs_notebook.log.parted import PartLog
from fs_notebook.log.protocol import POSITION_COLUMNS, PUBLISHED, EventLog, Stream
from fs_notebook.position import START, Cut, Position
from fs_notebook.types import TIME, Type
from tests.support.logs import (
    Ledger,
    events,
    numbers,
    positions_of,
    read_all,
    rows_of,
    upto,
)


def test_a_stream_is_made_once_and_found(ledger: Ledger) -> None:
    stream = ledger.stream()
    before = ledger.log.identity(stream.name)
    ledger.log.create(stream)
    assert ledger.log.exists(stream.name)
    assert stream.name in ledger.log.names()
    assert ledger.log.identity(stream.name) == before
    assert ledger.log.end(stream.name) == START
    assert not ledger.log.exists(stream.name + "x")


def test_fault_17_a_stream_made_again_is_another(ledger: Ledger) -> None:
    stream = ledger.stream()
    ledger.log.append(stream, events(0, 3))
    before = ledger.log.identity(stream.name)
    read_all(ledger.log, stream)
    ledger.log.delete(stream.name)
    ledger.log.create(stream)
    assert ledger.log.identity(stream.name) != before
    ledger.log.append(stream, events(10, 2))
    assert numbers(read_all(ledger.log, stream)) == [10, 11]


def test_what_is_appended_is_read(ledger: Ledger) -> None:
    stream = ledger.stream()
    parts = [events(0, 10), events(10, 2_500), events(2_510, 1), events(2_511, 900)]
    cuts = [ledger.log.append(stream, part) for part in parts]
    assert ledger.log.end(stream.name) == cuts[-1]
    batches = read_all(ledger.log, stream)
    assert rows_of(batches).equals(pl.concat(parts))
    assert batches[-1].end == cuts[-1].get(0)
    for cut, upto_n in zip(cuts, (10, 2_510, 2_511, 3_411), strict=True):
        assert numbers(read_all(ledger.log, stream, end=cut)) == list(range(upto_n))
        after = read_all(ledger.log, stream, start=cut)
        assert numbers(after) == list(range(upto_n, 3_411))


def test_nothing_appended_moves_nothing(ledger: Ledger) -> None:
    stream = ledger.stream()
    assert ledger.log.append(stream, events(0, 0)) == START
    assert read_all(ledger.log, stream) == []
    cut = ledger.log.append(stream, events(0, 4))
    assert ledger.log.append(stream, events(0, 0)) == cut
    assert read_all(ledger.log, stream, start=cut) == []


def test_positions_are_dense_enough_to_resume_after_each_event(ledger: Ledger) -> None:
    """Faults 14 and 21: the very next event, whatever kind of message or batch holds it."""
    stream = ledger.stream()
    for part in (events(0, 6), events(6, 1_005), events(1_011, 5)):
        ledger.log.append(stream, part)
    batches = read_all(ledger.log, stream)
    places = positions_of(batches)
    assert len(set(places)) == 1_016
    assert places == sorted(places)
    assert batches[0].positions().columns == list(POSITION_COLUMNS)
    chosen = [*range(10), 500, *range(1_005, 1_016)]
    for k in chosen:
        cut = upto([places[k]])
        before = read_all(ledger.log, stream, end=cut)
        assert numbers(before) == list(range(k + 1))
        assert before[-1].end == cut.get(0)
        after = read_all(ledger.log, stream, start=cut)
        assert numbers(after) == list(range(k + 1, 1_016))
        assert positions_of(after) == places[k + 1 :]


@settings(max_examples=12)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 3, 7, 60, 999, 1_000, 1_001, 2_200]), max_size=6),
    rows_max=st.sampled_from([1, 5, 64, 700, 200_000]),
    data=st.data(),
)
def test_any_cut_and_batch_size_gives_the_same_whole(
    ledger: Ledger, sizes: list[int], rows_max: int, data: st.DataObject
) -> None:
    stream = ledger.stream()
    total = 0
    for size in sizes:
        ledger.log.append(stream, events(total, size))
        total += size
    whole = read_all(ledger.log, stream)
    places = positions_of(whole)
    assert numbers(whole) == list(range(total))
    points = data.draw(st.lists(st.integers(0, max(total - 1, 0)), max_size=3)) if total else []
    cuts = [START, *(upto([places[k]]) for k in sorted(points)), ledger.log.end(stream.name)]
    got: list[int] = []
    for start, end in itertools.pairwise(cuts):
        for batch in read_all(ledger.log, stream, start=start, end=end, rows_max=rows_max):
            assert batch.rows.height <= rows_max
            assert end.covers(batch.end)
            got += batch.rows.get_column("n").to_list()
    assert got == list(range(total))


def test_a_time_range_is_a_filter(ledger: Ledger) -> None:
    stream = ledger.stream()
    shuffled = events(0, 3_000).sample(fraction=1, shuffle=True, seed=3)
    ledger.log.append(stream, shuffled[:2_000])
    end = ledger.log.append(stream, shuffled[2_000:])
    low, high = 1_700_000_500_000_000, 1_700_001_500_000_000
    everything = read_all(ledger.log, stream)
    times = pl.concat([b.rows for b in everything]).get_column(TIME).to_physical()
    inside = [low <= t < high for t in times]
    batches = read_all(ledger.log, stream, time_from_us=low, time_to_us=high, rows_max=300)
    expected = [n for n, i in zip(numbers(everything), inside, strict=True) if i]
    assert numbers(batches) == expected
    assert positions_of(batches) == [
        p for p, i in zip(positions_of(everything), inside, strict=True) if i
    ]
    assert batches[-1].end == end.get(0)
    nothing = read_all(ledger.log, stream, time_to_us=0)
    assert numbers(nothing) == []
    assert nothing[-1].end == end.get(0)


def test_columns_are_those_asked_for(ledger: Ledger) -> None:
    stream = ledger.stream()
    ledger.log.append(stream, events(0, 20))
    assert read_all(ledger.log, stream, columns=["n", "user"])[0].rows.columns == [
        "n",
        "user",
        TIME,
    ]
    assert read_all(ledger.log, stream, columns=[])[0].rows.columns == [TIME]
    assert read_all(ledger.log, stream, columns=[])[0].rows.height == 20
    with pytest.raises(UnknownName, match="amount"):
        read_all(ledger.log, stream, columns=["ammount"])


def test_an_unknown_stream_suggests_near_ones(ledger: Ledger) -> None:
    stream = ledger.stream()
    wrong = Stream(stream.name[:-1] + "zz", stream.columns, time="ts")
    for call in (
        lambda: ledger.log.end(wrong.name),
        lambda: ledger.log.identity(wrong.name),
        lambda: ledger.log.append(wrong, events(0, 1)),
        lambda: read_all(ledger.log, wrong, end=START),
    ):
        with pytest.raises(UnknownName, match=stream.name):
            call()


@pytest.mark.parametrize("which", ["start", "end"])
def test_fault_16_future_and_foreign_positions_are_refused(ledger: Ledger, which: str) -> None:
    earlier, stream, later = (ledger.stream() for _ in range(3))
    elsewhere = ledger.log.append(earlier, events(0, 900))
    end = ledger.log.append(stream, events(0, 5))
    beyond = ledger.log.append(later, events(0, 900))
    last = end.get(0)
    assert last is not None
    for wrong in (
        Cut((last._replace(entry=last.entry + 1),)),
        Cut((last._replace(ledger=last.ledger + 7),)),
        Cut((last._replace(partition=3),)),
        Cut((last._replace(batch=last.batch + 1),)),
        beyond,
        elsewhere,
    ):
        cuts = {"start": START, "end": end} | {which: wrong}
        with pytest.raises((UnknownPosition, HistoryLost)) as refused:
            read_all(ledger.log, stream, **cuts)
        # A position before all that is left of a topic may have been one of its own.
        if refused.type is HistoryLost:
            assert (which, wrong) == ("start", elsewhere)
            assert elsewhere.positions[0] < min(positions_of(read_all(ledger.log, stream)))
        else:
            assert "has no position" in str(refused.value)
    if which == "start":
        with pytest.raises(UnknownPosition):
            ledger.log.tail(stream, start=Cut((last._replace(entry=last.entry + 9),)))


def test_fault_32_of_two_writers_with_one_expectation_one_wins(ledger: Ledger) -> None:
    stream = ledger.stream()
    first = ledger.log.append(stream, events(0, 2), expected=START)
    with pytest.raises(ConflictError, match="moved on"):
        ledger.log.append(stream, events(9, 1), expected=START)
    assert ledger.log.append(stream, events(2, 1), expected=first) == ledger.log.end(stream.name)
    assert numbers(read_all(ledger.log, stream)) == [0, 1, 2]


def test_writers_that_retry_lose_and_double_nothing(ledger: Ledger) -> None:
    stream = ledger.stream(columns=(("n", Type.BIGINT),), time=None)
    failures: list[BaseException] = []

    def write(base: int) -> None:
        try:
            for k in range(4):
                while True:
                    end = ledger.log.end(stream.name)
                    row = pl.DataFrame({"n": [base + k]})
                    try:
                        ledger.log.append(stream, row, expected=end)
                    except ConflictError:
                        continue
                    break
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again.
            failures.append(error)

    threads = [threading.Thread(target=write, args=(base,)) for base in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    assert not failures
    got = numbers(read_all(ledger.log, stream))
    assert sorted(got) == [0, 1, 2, 3, 100, 101, 102, 103]
    assert [n for n in got if n < 100] == [0, 1, 2, 3]


def test_tail_gives_what_arrives_and_says_when_nothing_does(ledger: Ledger) -> None:
    stream = ledger.stream()
    start = ledger.log.append(stream, events(0, 5))
    with closing(ledger.log.tail(stream, start=start, idle_seconds=0.05)) as tail:
        assert next(tail) is None
        got: list[int] = []
        for base, count in ((5, 3), (8, 1_200), (1_208, 2)):
            ledger.log.append(stream, events(base, count))
            while len(got) < base + count - 5:
                batch = next(tail)
                got += batch.rows.get_column("n").to_list() if batch is not None else []
        assert got == list(range(5, 1_210))
        assert next(tail) is None
    with closing(ledger.log.tail(stream, start=START, rows_max=100)) as tail:
        got = []
        while len(got) < 1_210:
            batch = next(tail)
            assert batch is not None
            assert batch.rows.height <= 100
            got += batch.rows.get_column("n").to_list()
        assert got == list(range(1_210))


def test_one_partition_is_read_and_followed_alone(ledger: Ledger) -> None:
    stream = ledger.stream(key=("user",), partitions=ledger.partitions_max)
    assert ledger.log.partitions(stream.name) == ledger.partitions_max
    ledger.log.append(stream, events(0, 40))
    whole: list[int] = []
    for number in range(ledger.partitions_max):
        part = PartLog(cast(EventLog, ledger.log), number)
        end = part.end(stream.name)
        assert {p.partition for p in end} <= {number}
        mine = [
            n for batch in part.read(stream, start=START, end=end)
            for n in batch.rows.get_column("n").to_list()
        ]  # fmt: skip
        with closing(cast(Any, part.tail(stream, start=START, idle_seconds=0.05))) as tail:
            followed: list[int] = []
            while len(followed) < len(mine):
                batch = next(tail)
                assert batch is None or batch.partition == number
                followed += [] if batch is None else batch.rows.get_column("n").to_list()
            assert next(tail) is None
        assert followed == mine
        whole += mine
    assert sorted(whole) == list(range(40))


def test_an_event_without_time_has_its_publish_time(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    stream = ledger.stream()
    rows = events(0, 4).with_columns(pl.when(pl.col("n") % 2 == 0).then(pl.col("ts")).alias("ts"))
    ledger.log.append(stream, rows)
    got = read_all(ledger.log, stream, columns=["n", "ts", PUBLISHED])[0].rows
    assert got.columns == ["n", "ts", PUBLISHED, TIME]
    for row in got.iter_rows(named=True):
        assert row[TIME] == (row["ts"] or row[PUBLISHED])
        # The broker counts milliseconds.
        assert row[PUBLISHED].timestamp() >= math.floor(before.timestamp() * 1000) / 1000
    untimed = ledger.stream(columns=(("n", Type.BIGINT),), time=None)
    ledger.log.append(untimed, pl.DataFrame({"n": [1, 2]}))
    got = read_all(ledger.log, untimed, columns=["n", PUBLISHED])[0].rows
    assert got.get_column(TIME).to_list() == got.get_column(PUBLISHED).to_list()


def test_fault_26_28_values_survive_as_they_are(ledger: Ledger) -> None:
    stream = ledger.stream(
        columns=(
            ("text", Type.VARCHAR),
            ("n", Type.BIGINT),
            ("x", Type.DOUBLE),
            ("ts", Type.TIMESTAMP),
            ("wait", Type.INTERVAL),
        ),
        key=("text",),
    )
    texts = ["", " ", "é\u2028\n\t\"'\\", "\x00", "<script>", "'; DROP TABLE x; --", "a" * 9_000]
    count = len(texts)
    rows = pl.DataFrame(
        {
            "text": [*texts, None],
            "n": [2**63 - 1, -(2**63), 0, 2**53 + 1, None, 1, 2, 3],
            "x": [0.1 + 0.2, -0.0, 1e308, 5e-324, None, 1 / 3, 2.0**70, 0.0],
            "ts": pl.Series([-1, 0, 1, 4_102_444_800_000_001, None, 999_999, 1_000_000, 7]).cast(
                pl.Datetime("us", "UTC")
            ),
            "wait": pl.Series([0, -5, None, 10**15, 1, 2, 3, 4]).cast(pl.Duration("us")),
        }
    )
    assert rows.height == count + 1
    special = rows.with_columns(
        pl.Series("x", [math.nan, math.inf, -math.inf, 0.5, None, 1.0, 2.0, 3.0])
    )
    ledger.log.append(stream, rows)
    ledger.log.append(stream, special)
    got = rows_of(read_all(ledger.log, stream))
    assert got.equals(pl.concat([rows, special]), null_equal=True)
    assert got.schema == rows.schema


def test_fault_33_a_column_added_later_is_null_before(ledger: Ledger) -> None:
    stream = ledger.stream(columns=(("n", Type.BIGINT), ("ts", Type.TIMESTAMP)))
    ledger.log.append(stream, events(0, 3).select("n", "ts"))
    ledger.log.append(stream, events(3, 1_500).select("n", "ts"))
    grown = Stream(stream.name, (*stream.columns, ("user", Type.VARCHAR)), time="ts")
    ledger.log.append(grown, events(1_503, 2).select("n", "ts", "user"))
    got = rows_of(read_all(ledger.log, grown))
    assert got.get_column("user").null_count() == 1_503
    assert got.get_column("user")[-1] == "u6"
    assert numbers(read_all(ledger.log, stream)) == list(range(1_505))


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a/b", "../x", "x'--", "<b>", "a" * 300, "x-partition-1", "é", "http://a/b/c"],
)
def test_fault_36_names_are_checked(ledger: Ledger, name: str) -> None:
    for call in (
        lambda: ledger.log.create(Stream(name, (("n", Type.BIGINT),))),
        lambda: ledger.log.exists(name),
        lambda: ledger.log.end(name),
    ):
        with pytest.raises(UsageError, match="name"):
            call()


def test_rows_that_are_not_the_streams_are_refused(ledger: Ledger) -> None:
    stream = ledger.stream()
    with pytest.raises(UsageError, match="missing: amount"):
        ledger.log.append(stream, events(0, 2).drop("amount"))
    with pytest.raises(UsageError, match="not declared: more"):
        ledger.log.append(stream, events(0, 2).with_columns(more=1))
    with pytest.raises(UsageError, match="another type"):
        ledger.log.append(stream, events(0, 2).with_columns(n=pl.lit("x")))
    assert ledger.log.end(stream.name) == START


def test_threads_read_side_by_side(ledger: Ledger) -> None:
    stream = ledger.stream()
    ledger.log.append(stream, events(0, 4_000))
    seen: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: seen.append(numbers(read_all(ledger.log, stream))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert seen == [list(range(4_000))] * 4


def test_fault_35_a_read_that_is_given_up_leaves_nothing_open(ledger: Ledger) -> None:
    """The generator is closed half way, and reading works as before."""
    stream = ledger.stream()
    ledger.log.append(stream, events(0, 5_000))
    end = ledger.log.end(stream.name)
    with closing(ledger.log.read(stream, start=START, end=end, rows_max=100)) as batches:
        assert next(batches).rows.height == 100
    assert not [t for t in threading.enumerate() if t.name == "fs-notebook-read"]
    assert numbers(read_all(ledger.log, stream)) == list(range(5_000))


def test_partitions_keep_an_entity_together(ledger: Ledger) -> None:
    partitions = ledger.partitions_max
    stream = ledger.stream(key=("user",), partitions=partitions)
    for first, count in ((0, 50), (50, 3_000), (3_050, 70)):
        ledger.log.append(stream, events(first, count))
    batches = read_all(ledger.log, stream)
    home: dict[str, set[int]] = {}
    for batch in batches:
        for user in batch.rows.get_column("user").unique():
            home.setdefault(user, set()).add(batch.partition)
        got = batch.rows.get_column("n").to_list()
        assert got == sorted(got)
    assert all(len(h) == 1 for h in home.values())
    assert sorted(numbers(batches)) == list(range(3_120))
    assert len({p for h in home.values() for p in h}) == min(partitions, 4)
    ends = {b.partition: b.end for b in batches}
    assert Cut(tuple(ends.values())) == ledger.log.end(stream.name)
    assert all(isinstance(p, Position) for p in ledger.log.end(stream.name))
