"""The embedded ledger: several processes, sudden death, a full disk, merging."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import (
    IntegrityError,
    StreamChanged,
    UnreachableError,
    UsageError,
)
from fs_notebook.log import stored
from fs_notebook.log.connect import open_log
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import PUBLISHED, Stream
from fs_notebook.position import START, Cut
from fs_notebook.types import TIME, Type
from tests.support.logs import COLUMNS, events, numbers, positions_of, read_all, upto

STREAM = Stream("events", COLUMNS, time="ts")
ROOT = Path(__file__).parents[2]

WRITER = """
import sys
import polars as pl
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

stream = Stream("numbers", (("who", Type.BIGINT), ("n", Type.BIGINT)))
log = EmbeddedLog(sys.argv[1])
who, most = int(sys.argv[2]), int(sys.argv[3])
n = 0
while n < most:
    log.append(stream, pl.DataFrame({"who": [who, who], "n": [n, n + 1]}))
    n += 2
    print(n, flush=True)
"""
NUMBERS = Stream("numbers", (("who", Type.BIGINT), ("n", Type.BIGINT)))


def writer(folder: Path, who: int, most: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(who), str(most)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def stop(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    process.wait(timeout=10)
    if process.stdout is not None:
        process.stdout.close()


def test_two_processes_append_and_one_is_killed(tmp_path: Path) -> None:
    """What was acknowledged is there, what is there is whole, and order is kept."""
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(NUMBERS)
        first, second = writer(tmp_path, 1, 10**9), writer(tmp_path, 2, 120)
        try:
            assert first.stdout is not None
            acknowledged = 0
            while acknowledged < 100:
                acknowledged = int(first.stdout.readline())
            first.send_signal(signal.SIGKILL)
            left, _ = first.communicate(timeout=10)
            acknowledged = max([acknowledged, *(int(n) for n in left.split("\n")[:-1] if n)])
            second.communicate(timeout=60)
        finally:
            stop(first)
            stop(second)
        rows = pl.concat([b.rows for b in read_all(log, NUMBERS)])
        of_first = rows.filter(pl.col("who") == 1).get_column("n").to_list()
        of_second = rows.filter(pl.col("who") == 2).get_column("n").to_list()
        assert len(of_first) >= acknowledged
        assert len(of_first) % 2 == 0
        assert of_first == list(range(len(of_first)))
        assert of_second == list(range(120))


def test_another_process_is_followed(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(NUMBERS)
        process = writer(tmp_path, 1, 300)
        got: list[int] = []
        try:
            with closing(log.tail(NUMBERS, start=START)) as tail:
                while len(got) < 300:
                    batch = next(tail)
                    got += batch.rows.get_column("n").to_list() if batch is not None else []
        finally:
            stop(process)
        assert got == list(range(300))


def test_merging_moves_no_position(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(STREAM)
        cuts = []
        for n in range(300):
            cuts.append(log.append(STREAM, events(n, 1)))
            if n == 100:
                middle = log.read(STREAM, start=cuts[50], end=cuts[-1], rows_max=3)
                begun = next(middle).rows.get_column("n").to_list()
        # This reader began before most of the merging.
        for batch in middle:
            begun += batch.rows.get_column("n").to_list()
        assert begun == list(range(51, 101))
        batches = read_all(log, STREAM)
        assert numbers(batches) == list(range(300))
        assert [upto([p]) for p in positions_of(batches)] == cuts
        published = pl.concat(
            [b.rows for b in read_all(log, STREAM, columns=[PUBLISHED])]
        ).get_column(PUBLISHED)
        assert published.is_sorted()
        with sqlite3.connect(tmp_path / "ledger.db") as db:
            stored = db.execute("SELECT count(*) FROM batches").fetchone()[0]
        db.close()
        assert stored < 100


def test_another_time_column_is_not_skipped_by_the_old_ones_bounds(tmp_path: Path) -> None:
    columns = (("a", Type.TIMESTAMP), ("b", Type.TIMESTAMP))
    by_a, by_b = Stream("s", columns, time="a"), Stream("s", columns, time="b")
    rows = pl.DataFrame({"a": [10, 20], "b": [1_000, 2_000]}).cast(pl.Datetime("us", "UTC"))
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(by_a)
        log.append(by_a, rows)
        got = read_all(log, by_b, time_from_us=1_500, time_to_us=3_000)
        assert pl.concat([b.rows for b in got]).get_column(TIME).to_physical().to_list() == [2_000]


def test_what_lies_outside_a_slice_of_time_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before it nor behind it, but for late events, wherever they are."""
    decoded: list[int] = []
    decode = stored.decode

    def counted(*args: Any, **options: Any) -> Any:
        frame = decode(*args, **options)
        decoded.append(frame.height)
        return frame

    monkeypatch.setattr(stored, "decode", counted)
    lot = 30_000
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(STREAM)
        for k in range(6):
            log.append(STREAM, events(k * lot, lot))
        base, second = 1_700_000_000_000_000, 1_000_001

        def sliced(first: int, last: int | None, **options: Any) -> list[int]:
            decoded.clear()
            span = {
                "time_from_us": base + first * second,
                "time_to_us": None if last is None else base + last * second,
            }
            return numbers(read_all(log, STREAM, **span, **options))

        assert sliced(5 * lot, None) == list(range(5 * lot, 6 * lot))
        assert decoded == [lot]
        assert sliced(2 * lot + 5, 3 * lot + 5) == list(range(2 * lot + 5, 3 * lot + 5))
        assert decoded == [lot, lot]
        assert sliced(7 * lot, None) == []
        assert decoded == []
        assert len(read_all(log, STREAM)) > 0
        assert sum(decoded) == 6 * lot
        late = log.append(STREAM, events(0, lot))
        assert sliced(0, 10) == [*range(10), *range(10)]
        assert decoded == [lot, lot]
        assert sliced(0, 10, start=Cut((late.positions[0]._replace(entry=lot),))) == [*range(10)]
        assert decoded == [lot]


def test_fault_34_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path, bytes_max=4_000_000)) as log:
        log.create(STREAM)
        log.append(STREAM, events(0, 1_000))
        with pytest.raises(UnreachableError, match="no space left"):
            log.append(STREAM, events(1_000, 900_000))
        assert numbers(read_all(log, STREAM)) == list(range(1_000))
        log.append(STREAM, events(1_000, 10))
        assert numbers(read_all(log, STREAM)) == list(range(1_010))


def test_what_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 1_000)
    with pytest.raises(IntegrityError, match="damaged or is no ledger"):
        EmbeddedLog(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnreachableError, match="cannot be made"):
        EmbeddedLog(tmp_path / "file" / "ledger")


def test_a_stream_deleted_under_a_follower(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(STREAM)
        log.append(STREAM, events(0, 2))
        with closing(log.tail(STREAM, start=START)) as tail:
            assert next(tail) is not None
            log.delete(STREAM.name)
            log.create(STREAM)
            with pytest.raises(StreamChanged):
                next(tail)


def test_closed_is_closed(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path)
    log.close()
    with pytest.raises(UsageError, match="closed"):
        log.names()


def test_the_declaration_is_kept(tmp_path: Path) -> None:
    stream = Stream("s", COLUMNS, time="ts", key=("user",))
    with closing(EmbeddedLog(tmp_path)) as log:
        log.create(stream)
    with closing(EmbeddedLog(tmp_path)) as log:
        assert log.infer_stream("s") == stream


def test_declarations_are_checked(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path)) as log:
        for wrong, told in (
            (Stream("s", (("a", Type.BIGINT), ("a", Type.BIGINT))), "twice"),
            (Stream("s", (("__time", Type.BIGINT),)), "taken"),
            (Stream("s", (("a", Type.BIGINT),), time="a"), "not a time"),
            (Stream("s", (("a", Type.BIGINT),), partitions=0), "partitions"),
        ):
            with pytest.raises(UsageError, match=told):
                log.create(wrong)


def test_urls(tmp_path: Path) -> None:
    for url in (None, "embedded:", f"embedded:{tmp_path / 'else'}"):
        with closing(open_log(url, home=tmp_path)) as log:
            assert log.url.startswith("embedded:")
    with pytest.raises(UsageError, match="address of a ledger"):
        open_log("kafka://x", home=tmp_path)
