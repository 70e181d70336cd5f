"""Files, folders and globs, read in slices: what they become, how they fail, how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook import sources
from fs_notebook.errors import Interrupted, UnreachableError, UsageError
from fs_notebook.files import readers
from fs_notebook.session import Session
from fs_notebook.types import Type
from tests.support.logs import read_all
from tests.support.sessions import read_events

KINDS = ["csv", "parquet", "ndjson", "arrow"]


def rows(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame(read_events(first, count))


def write(path: Path, frame: pl.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".").replace("arrow", "ipc")
    if kind == "ndjson":
        frame = frame.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    getattr(frame, f"write_{kind}")(path)
    return path


def stored(session: Session, name: str = "reads") -> pl.DataFrame:
    stream = session.source(name)
    batches = read_all(session.log, stream)
    empty = pl.DataFrame(schema={n: t.polars for n, t in stream.columns})
    return pl.concat([empty, *(b.rows.select(stream.names) for b in batches)])


def numbers(session: Session, name: str = "reads") -> list[int]:
    return stored(session, name)["readtime"].to_list()


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UPLOAD_ROWS_MAX", 100)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_in_slices(embedded_session: Session, tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}", rows(0, 350))
    seen = []
    done = embedded_session.upload(path, "reads", on_progress=seen.append)
    assert (done.rows, done.created) == (350, True)
    assert stored(embedded_session).equals(rows(0, 350))
    stream = embedded_session.source("reads")
    assert stream.time == "ts"
    kinds = (("user", Type.VARCHAR), ("readtime", Type.BIGINT), ("ts", Type.TIMESTAMP))
    assert stream.columns == kinds
    assert [p.events for p in seen] == [100, 200, 300, 350]
    assert seen[-1].share == 1.0
    assert seen[-1].what == f"a.{kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_goes_in_the_order_of_names(
    embedded_session: Session, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "data"
    for number in (2, 0, 1):
        write(folder / f"part-{number}.{kind}", rows(100 * number, 100))
    (folder / "_SUCCESS").touch()
    done = embedded_session.upload(f"{folder}/", "reads", once=True)
    assert (done.rows, done.files) == (300, 3)
    assert "300 events of 3 files to reads (new stream)" in repr(done)
    assert numbers(embedded_session) == list(range(300))
    again = embedded_session.upload(folder, "reads", once=True)
    assert (again.rows, again.repeated, again.files_repeated) == (0, 300, 3)
    assert "nothing appended to reads: these 300 events" in repr(again)
    write(folder / f"part-3.{kind}", rows(300, 50))
    more = embedded_session.upload(folder, "reads", once=True)
    assert (more.rows, more.files_repeated) == (50, 3)
    assert "3 files of the same content, 300 events, were there already" in repr(more)
    assert numbers(embedded_session) == list(range(350))
    assert embedded_session.upload(folder, "reads").rows == 350


def test_a_glob_finds_files_of_several_kinds_and_folders(
    embedded_session: Session, tmp_path: Path
) -> None:
    for number, kind in enumerate(KINDS):
        write(tmp_path / f"{number}" / f"2024-0{number}.{kind}", rows(10 * number, 10))
    write(tmp_path / "1" / "2023-12.csv", rows(900, 10))
    seen: list[Any] = []
    done = embedded_session.upload(
        f"{tmp_path}/**/2024-*", "reads", on_progress=seen.append
    )  # fmt: skip
    assert (done.rows, done.files) == (40, 4)
    assert numbers(embedded_session) == list(range(40))
    assert [p.what for p in seen][1] == "1/2024-01.parquet (2 of 4)"
    shares = [p.share for p in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_files_that_differ_go_together_where_they_can(
    embedded_session: Session, tmp_path: Path
) -> None:
    write(tmp_path / "a.parquet", rows(0, 2).with_columns(x=pl.lit(1), only=pl.lit("a")))
    write(tmp_path / "b.parquet", rows(2, 2).with_columns(x=pl.lit(1.5)))
    write(tmp_path / "c.parquet", rows(4, 1).with_columns(x=pl.lit(None)))
    embedded_session.upload(tmp_path, "reads")
    frame = stored(embedded_session)
    assert embedded_session.source("reads").type_of("x") is Type.DOUBLE
    assert frame["x"].to_list() == [1.0, 1.0, 1.5, 1.5, None]
    assert frame["only"].to_list() == ["a", "a", None, None, None]


def test_text_is_what_its_files_say_together(embedded_session: Session, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ts,code,n,ok,day,empty\n2024-01-01T00:00:00Z,007,1,true,,\n")
    (tmp_path / "b.csv").write_text("n,ts,code,day\n2.5,2024-01-02 10:00,x7,2024-02-01\n")
    embedded_session.upload(tmp_path, "s", time="ts")
    kinds = dict(embedded_session.source("s").columns)
    wanted = {"code": "VARCHAR", "n": "DOUBLE", "ok": "BOOLEAN", "day": "DATE", "empty": "VARCHAR"}
    assert {n: kinds[n].value for n in wanted} == wanted
    frame = stored(embedded_session, "s")
    assert frame["code"].to_list() == ["007", "x7"]
    assert frame["n"].to_list() == [1.0, 2.5]
    assert frame["ok"].to_list() == [True, None]
    assert [str(d) for d in frame["ts"].dt.strftime("%d %H:%M")] == ["01 00:00", "02 10:00"]


def test_nested_json_keeps_its_shape(embedded_session: Session, tmp_path: Path) -> None:
    lines = [
        {"ts": "2024-01-01T00:00:00Z", "cart": ["a"], "at": {"x": 1}},
        {"ts": "2024-01-01T00:00:01Z", "cart": [], "at": {"x": 2.5}},
    ]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\r\n")
    embedded_session.upload(tmp_path / "a.jsonl", "s")
    frame = stored(embedded_session, "s")
    assert frame["cart"].to_list() == [["a"], []]
    assert frame["at"].to_list() == [{"x": 1.0}, {"x": 2.5}]


def nothing_there(session: Session, name: str = "s") -> bool:
    return not session.log.exists(name) and name not in session.catalog.refresh().sources


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "'a.csv' is empty"),
        ("a.csv", b"ts,x\n2024-01-01T00:00:00Z,1,9\n", "'a.csv' cannot be read"),
        ("a.csv", b"ts,x\n2024-01-01T00:00:00Z,\xff\n", "'a.csv' cannot be read"),
        ("a.parquet", b"PAR1", "'a.parquet' cannot be read"),
        ("a.feather", b"nothing", "'a.feather' cannot be read"),
        ("a.ndjson", b"nothing\n", "none of its first lines is a JSON object"),
        ("a.ndjson", b'{"ts": "2024-01-01T00:00:00Z"}\n{"ts"\n', "'a.ndjson', row 2:[^$]*no JSON"),
        ("a.csv", b"ts,x\n2024-01-01T00:00:00Z,1\n,2\n", "'a.csv', row 2: 1 events have no time"),
        ("a.txt", b"1", "includes files that cannot be uploaded[^$]*a.txt"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_stops_before_anything_is_appended(
    embedded_session: Session, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / "0.csv").write_text("ts,x\n2024-01-01T00:00:00Z,1\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says):
        embedded_session.upload(tmp_path, "s", time="ts")
    assert nothing_there(embedded_session)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("empty/", r"holds no files to upload\.\n  Found: nothing"),
        ("above", r"holds no files to upload\.\n  Found: below/"),
        ("none-*.csv", "No file matches[^$]*above, empty, home, reads.csv"),
        ("red.csv", "There is no file 'red.csv'[^$]*reads.csv"),
        ("reads.xlsx", "cannot be uploaded"),
        ("reads.csv", "Which column of 's' is the event's time"),
    ],
)
def test_what_is_not_there_is_told(
    embedded_session: Session, tmp_path: Path, given: str, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "above" / "below").mkdir(parents=True)
    (tmp_path / "reads.csv").write_text("x\n1\n")
    with pytest.raises(UsageError, match=says):
        embedded_session.upload(f"{tmp_path}/{given}", "s")
    assert nothing_there(embedded_session)


def test_files_that_cannot_go_together_are_both_named(
    embedded_session: Session, tmp_path: Path
) -> None:
    write(tmp_path / "a.parquet", rows(0, 2))
    write(tmp_path / "b.parquet", rows(2, 2).cast({"readtime": pl.String}))
    with pytest.raises(UsageError, match=r"BIGINT in a\.parquet, VARCHAR in b\.parquet"):
        embedded_session.upload(tmp_path, "s")
    assert nothing_there(embedded_session)
    embedded_session.upload(rows(0, 1).head(0), "reads")
    with pytest.raises(UsageError, match=r"'b\.parquet', row 1: The column 'readtime'"):
        embedded_session.upload(tmp_path, "reads")
    assert numbers(embedded_session) == []


def csv_with_a_bad_row(path: Path, bad: int, value: str = "x") -> None:
    lines = rows(0, 350).with_columns(pl.col("readtime").cast(pl.String)).write_csv()
    parts = lines.splitlines()
    parts[bad] = parts[bad].replace(f",{bad - 1},", f",{value},")
    path.write_text("\n".join(parts))


@pytest.mark.usefixtures("small_slices")
def test_a_later_value_that_does_not_fit_names_its_row_and_goes_on_once_corrected(
    embedded_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "SAMPLE_ROWS", 50)
    path = tmp_path / "reads.csv"
    csv_with_a_bad_row(path, 251)
    with pytest.raises(UsageError) as caught:
        embedded_session.upload(path, "reads", once=True)
    told = str(caught.value)
    assert "'reads.csv', row 251: The column 'readtime' holds a value that is no BIGINT." in told
    assert "'x'; 200 events before that were appended to 'reads'" in told
    assert "it goes on from row 201" in told
    csv_with_a_bad_row(path, 251, "250")
    assert embedded_session.upload(path, "reads", once=True).rows == 150
    assert numbers(embedded_session) == list(range(350))
    # A file of that name with another beginning is another one.
    write(path, rows(1000, 20))
    assert embedded_session.upload(path, "reads", once=True).rows == 20


@pytest.mark.usefixtures("small_slices")
def test_a_later_field_that_is_new_is_told(
    embedded_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "SAMPLE_ROWS", 50)
    events = [{"ts": "2024-01-01T00:00:00Z", "at": {"n": n}} for n in range(150)]
    events[120]["at"] = {"n": 1, "m": 2}
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, events)))
    with pytest.raises(UsageError, match=r"'a.ndjson', row 121: [^$]*no such column[^$]*at\.m"):
        embedded_session.upload(tmp_path / "a.ndjson", "s")
    assert stored(embedded_session, "s").height == 100


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_says_how_far_it_came_and_the_next_try_goes_on(
    embedded_session: Session, tmp_path: Path, kind: str
) -> None:
    """FAULTS 35."""
    for number in range(3):
        write(tmp_path / f"{number}.{kind}", rows(250 * number, 250))

    def interrupt(progress: Any) -> None:
        if progress.events == 350:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        embedded_session.upload(tmp_path, "reads", once=True, on_progress=interrupt)
    assert str(caught.value) == (
        f"Interrupted: 350 events were appended to 'reads': 1 of 3 files, and 1.{kind} up to its "
        "row 100.\n  Try: run it again: it goes on from there"
    )
    seen: list[Any] = []
    rest = embedded_session.upload(tmp_path, "reads", once=True, on_progress=seen.append)
    assert rest.rows == 400
    shares = [p.share for p in seen if p.share is not None]
    assert shares[0] < 0.3
    assert shares[-1] == 1.0
    assert numbers(embedded_session) == list(range(750))


KILLED = """
import os, signal, sys
from pathlib import Path
from fs_notebook import sources
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection

sources.UPLOAD_ROWS_MAX = 100
session = Session(Connection(Path(sys.argv[1])), actor="tester")
append, record, left = session.log.append, session.catalog.record, [int(sys.argv[4])]

def kill_before_note(kind, name, body, **options):
    left[0] -= kind == "uploaded"
    if left[0] < 0 and sys.argv[3] == "note":
        os.kill(os.getpid(), signal.SIGKILL)
    return record(kind, name, body, **options)

def kill_before_append(stream, rows, **options):
    if left[0] <= 0 and stream.name == "reads" and sys.argv[3] == "append":
        os.kill(os.getpid(), signal.SIGKILL)
    return append(stream, rows, **options)

session.catalog.record, session.log.append = kill_before_note, kill_before_append
session.upload(sys.argv[2], "reads", once=True)
"""


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("moment", "notes"), [("note", 1), ("note", 2), ("append", 2)])
def test_a_killed_upload_goes_on_without_losing_or_doubling(
    embedded_session: Session, tmp_path: Path, kind: str, moment: str, notes: int
) -> None:
    """A slice that was stored and not noted is found in the ledger."""
    # Equal rows are as many as they were.
    frame = pl.concat([rows(0, 150), rows(149, 1), rows(150, 150)])
    path = write(tmp_path / f"reads.{kind}", frame)
    home = embedded_session.connection.home
    command = [sys.executable, "-c", KILLED, str(home), str(path), moment, str(notes)]
    done = subprocess.run(command, timeout=60, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    there = stored(embedded_session).height
    assert there == {("note", 1): 100, ("note", 2): 200, ("append", 2): 100}[moment, notes]
    # What others append meanwhile is not mistaken for it.
    embedded_session.upload(rows(5000, 3), "reads")
    rest = embedded_session.upload(path, "reads", once=True)
    assert rest.rows == 301 - there
    wanted = sorted([*frame["readtime"].to_list(), 5000, 5001, 5002])
    assert sorted(numbers(embedded_session)) == wanted
    assert embedded_session.upload(path, "reads", once=True).rows == 0


def test_files_of_the_same_content_are_one(embedded_session: Session, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows(0, 10))
    write(tmp_path / "b.csv", rows(0, 10))
    done = embedded_session.upload(tmp_path, "reads", once=True)
    assert (done.rows, done.repeated, done.files_repeated) == (10, 10, 1)
    assert "1 files of the same content" in repr(done)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_larger_than_a_slice_takes_bounded_memory(
    embedded_session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Wide rows make short slices."""
    monkeypatch.setattr("fs_notebook.uploads.pieces.SLICE_BYTES_MAX", 200_000)
    path = write(tmp_path / f"a.{kind}", rows(0, 600).with_columns(text=pl.lit("x" * 1000)))
    heights: list[int] = []
    append: Callable[..., Any] = embedded_session.log.append

    def counted(stream: Any, part: pl.DataFrame, **options: Any) -> Any:
        if stream.name == "reads":
            heights.append(part.height)
        return append(stream, part, **options)

    monkeypatch.setattr(embedded_session.log, "append", counted)
    embedded_session.upload(path, "reads")
    assert sum(heights) == 600
    assert max(heights) <= 200


def test_a_file_that_grows_while_it_is_read_is_told(
    embedded_session: Session, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.ndjson", rows(0, 10))

    def grow(progress: Any) -> None:
        with path.open("a") as file:
            file.write("\n")

    with pytest.raises(UsageError, match="was changed while it was uploaded"):
        embedded_session.upload(path, "reads", on_progress=grow)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("part", [0, 40, 100])
def test_a_slice_that_was_stored_in_part_is_completed(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """A broker may have stored some of a slice when the connection, or the process, was lost."""
    path = write(tmp_path / "reads.csv", rows(0, 350))
    append = session.log.append

    def dies(stream: Any, some: pl.DataFrame, **options: Any) -> Any:
        if stream.name == "reads" and some["readtime"][0] == 100:
            if part:
                append(stream, some.head(part), **options)
            raise UnreachableError("The connection was lost.")
        return append(stream, some, **options)

    with monkeypatch.context() as patch:
        patch.setattr(session.log, "append", dies, raising=False)
        with pytest.raises(UnreachableError):
            session.upload(path, "reads", key="user", partitions=2, once=True)
    done = session.upload(path, "reads", once=True)
    assert done.rows == 250 - part
    frame = stored(session)
    assert sorted(frame["readtime"]) == list(range(350))
    ordered = frame.select(pl.col("readtime").diff().over("user").fill_null(1) > 0)
    assert ordered.to_series().all()


def decimals(path: Path, dtype: pl.DataType, *texts: str) -> Path:
    frame = rows(0, len(texts)).with_columns(pl.Series("amount", texts).cast(dtype))
    return write(path, frame)


@pytest.mark.parametrize("nested", [False, True])
def test_decimals_of_several_files_become_one_type_with_room_for_all(
    embedded_session: Session, tmp_path: Path, nested: bool
) -> None:
    given = {
        "a": (pl.Decimal(10, 2), ["12345678.91", "0.10"]),
        "b": (pl.Decimal(12, 6), ["123456.654321", "-0.000001"]),
        "c": (pl.Int64(), ["9223372036854775807", "-7"]),
    }
    for name, (dtype, texts) in given.items():
        path = decimals(tmp_path / "d" / f"{name}.parquet", dtype, *texts)
        if nested:
            lists = pl.concat_list("amount").alias("amount")
            write(path, pl.read_parquet(path).with_columns(lists))
    embedded_session.upload(tmp_path / "d", "reads")
    kind = dict(embedded_session.source("reads").columns)["amount"]
    assert str(kind) == ("DECIMAL(25,6)[]" if nested else "DECIMAL(25,6)")
    found = stored(embedded_session)["amount"]
    found = found.explode() if nested else found
    assert found.to_list() == [Decimal(t) for _, texts in given.values() for t in texts]


@pytest.mark.parametrize(
    ("other", "text", "why"),
    [
        (pl.Decimal(38, 10), "1", "together 46 digits, and a decimal has 38 at most"),
        (pl.Float64(), "1.5", "what a double stands for is not known exactly"),
        (pl.Boolean(), "true", "DECIMAL(38,2) in a.parquet, BOOLEAN in b.parquet"),
    ],
)
def test_decimals_that_no_type_holds_exactly_are_refused_with_the_reason(
    embedded_session: Session, tmp_path: Path, other: pl.DataType, text: str, why: str
) -> None:
    decimals(tmp_path / "d" / "a.parquet", pl.Decimal(38, 2), "0.10")
    number = pl.Series([text]).cast(other) if other != pl.Boolean() else pl.Series([True])
    write(tmp_path / "d" / "b.parquet", rows(1, 1).with_columns(number.alias("amount")))
    with pytest.raises(UsageError, match="of different types") as caught:
        embedded_session.upload(tmp_path / "d", "reads")
    assert why in str(caught.value)
    assert not embedded_session.log.exists("reads")


def test_csv_files_of_several_types_are_text_and_beside_decimals_exact(
    embedded_session: Session, tmp_path: Path
) -> None:
    write(tmp_path / "t" / "a.csv", rows(0, 1).with_columns(pl.lit("1.10").alias("amount")))
    write(tmp_path / "t" / "b.csv", rows(1, 1).with_columns(pl.lit("many").alias("amount")))
    embedded_session.upload(tmp_path / "t", "reads")
    assert stored(embedded_session)["amount"].to_list() == ["1.10", "many"]
    # Whole numbers of a text are digits, which a decimal holds.
    decimals(tmp_path / "d" / "a.parquet", pl.Decimal(10, 2), "0.10")
    write(tmp_path / "d" / "b.csv", rows(1, 1).with_columns(pl.lit(7).alias("amount")))
    embedded_session.upload(tmp_path / "d", "mixed")
    assert stored(embedded_session, "mixed")["amount"].to_list() == [Decimal("0.10"), Decimal(7)]
