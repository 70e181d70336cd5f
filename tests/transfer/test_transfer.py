"""A stream out of one ledger and into another: nothing lost, nothing added, in order, and told."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from polars.testing import assert_frame_equal

from fs_notebook.cli import main
from fs_notebook.errors import (
    ConflictError,
    FeatureStoreError,
    IntegrityError,
    Interrupted,
    NameTaken,
    UsageError,
)
from fs_notebook.log.protocol import PUBLISHED
from fs_notebook.session import Session
from fs_notebook.transfer import exporting
from fs_notebook.types import TIME
from fs_notebook.worker.connection import Connection
from tests.support.logs import events, positions_of, read_all
from tests.support.sessions import BEGIN, SUM_SQL, read_events, stop_all


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Session]:
    """A session on an embedded ledger of its own."""
    place = Connection(tmp_path / "source")
    session = Session(place, actor="tester")
    yield session
    session.close()
    stop_all(place)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PART_ROWS", 100)


def whole(session: Session, name: str) -> pl.DataFrame:
    """Return all events with their positions, in the order of the log."""
    stream = session.source(name)
    batches = read_all(session.log, stream, columns=[*stream.names, PUBLISHED])
    rows = pl.concat([b.rows for b in batches])
    return rows.with_columns(__at=pl.Series(positions_of(batches), dtype=pl.Object))


def nested() -> pl.DataFrame:
    """Return events of every shape, equal ones, and NaN among them."""
    frame = events(0, 250).with_columns(
        cart=pl.concat_list("n", "n"), place=pl.struct(x="amount", y="user")
    )
    odd = frame.head(3).with_columns(amount=pl.Series([float("nan"), float("inf"), None]))
    return pl.concat([frame, frame.head(5), odd])


def placed(mapped: pl.DataFrame, kind: str) -> list[tuple[int, ...]]:
    return mapped.select(f"{kind}{c}" for c in ("partition", "ledger", "entry", "batch")).rows()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("target", ["moved", "moved.tar"])
def test_a_stream_moves_to_another_ledger(
    source: Session, session: Session, tmp_path: Path, target: str
) -> None:
    """Embedded to embedded, and to Pulsar."""
    for part in (nested().head(1), nested()[1:]):
        source.upload(part, "acts", time="ts", key="user", id=None)
    out = source.export_stream("acts", tmp_path / target)
    assert (out.rows, out.dead) == (258, 0)
    done = session.import_stream(tmp_path / target)
    assert (done.rows, done.digest) == (258, out.digest)
    assert session.source("acts") == source.source("acts")
    old, new = whole(source, "acts"), whole(session, "acts")
    assert_frame_equal(old.drop(PUBLISHED, "__at"), new.drop(PUBLISHED, "__at"))
    assert done.positions is not None
    mapped = pl.read_parquet(done.positions)
    assert placed(mapped, "__") == old["__at"].to_list()
    assert placed(mapped, "__new_") == new["__at"].to_list()
    assert mapped[PUBLISHED].to_list() == old[PUBLISHED].to_list()
    assert mapped[TIME].to_list() == old[TIME].to_list()
    # Again, it is there already.
    assert session.import_stream(tmp_path / target).rows == 258
    assert whole(session, "acts").height == 258
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("moved"))
    assert left == [target, done.positions.name]


@pytest.mark.usefixtures("small_parts")
def test_partitions_come_home_and_features_say_the_same(
    source: Session, session: Session, tmp_path: Path
) -> None:
    """From many partitions, where a ledger has them, to one; each key's events in order."""
    session.upload(pl.DataFrame(read_events(0, 1200)), "read_events", time="ts", key="user",
                   partitions=3)  # fmt: skip
    sql = SUM_SQL.replace("SUM(readtime)", "LAST(readtime)")
    wanted = session.feature("reading_time", sql).frame
    session.export_stream("read_events", tmp_path / "out")
    source.import_stream(tmp_path / "out", "read_events")
    assert_frame_equal(source.feature("reading_time", sql).frame, wanted)
    assert whole(source, "read_events")["readtime"].sort().to_list() == list(range(1200))


def test_events_without_a_time_column_may_keep_their_times(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload([{"k": "a", "v": 1}, {"k": "b", "v": 2}], "t", key="k", table=True)
    source.export_stream("t", tmp_path / "t")
    embedded_session.import_stream(tmp_path / "t")
    assert embedded_session.source("t") == source.source("t")
    embedded_session.import_stream(tmp_path / "t", "timed", time_column="happened")
    frame = whole(embedded_session, "timed")
    assert embedded_session.source("timed").time == "happened"
    assert frame[TIME].to_list() == whole(source, "t")[TIME].to_list()


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_move_goes_on(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    """FAULTS 35."""
    source.upload(pl.DataFrame(read_events(0, 450)), "read_events", time="ts")

    def interrupt(progress: Any) -> None:
        if progress.events == 200:
            signal.raise_signal(signal.SIGINT)

    out, name = tmp_path / "out", "read_events"
    with pytest.raises(Interrupted, match="200 events of 'read_events' are exported"):
        source.export_stream(name, out, on_progress=interrupt)
    with pytest.raises(UsageError, match="is not whole"):
        embedded_session.import_stream(out)
    # The end was frozen when the export began.
    source.upload(read_events(450, 10), name)
    assert source.export_stream(name, out).rows == 450
    with pytest.raises(Interrupted, match="200 of 450 events are in 'read_events'"):
        embedded_session.import_stream(out, on_progress=interrupt)
    seen: list[Any] = []
    assert embedded_session.import_stream(out, on_progress=seen.append).rows == 450
    assert [p.events for p in seen] == [100, 200, 250]
    assert whole(embedded_session, name)["readtime"].to_list() == list(range(450))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("stored", [0, 40, 100])
def test_what_was_stored_and_not_noted_is_found(
    source: Session, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    """A part that was stored, in part or as a whole, before the import was killed."""
    source.upload(pl.DataFrame(read_events(0, 250)), "read_events", time="ts")
    source.export_stream("read_events", tmp_path / "out")
    append = session.log.append

    def dies(stream: Any, rows: pl.DataFrame, **options: Any) -> Any:
        if stream.name == "read_events" and rows["readtime"][0] == 100:
            if stored:
                append(stream, rows.head(stored), **options)
            raise FeatureStoreError("killed")
        return append(stream, rows, **options)

    with monkeypatch.context() as patch:
        patch.setattr(session.log, "append", dies, raising=False)
        with pytest.raises(FeatureStoreError, match="killed"):
            session.import_stream(tmp_path / "out")
    session.import_stream(tmp_path / "out")
    assert whole(session, "read_events")["readtime"].to_list() == list(range(250))


def test_what_is_in_the_way_is_told(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(read_events(0, 20), "read_events", time="ts")
    out = tmp_path / "out"
    source.export_stream("read_events", out)
    embedded_session.upload(read_events(0, 1), "read_events", time="ts")
    with pytest.raises(NameTaken, match="with events already"):
        embedded_session.import_stream(out)
    with pytest.raises(UsageError, match="holds another export"):
        embedded_session.export_stream("read_events", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for folder, says in (
        ("mine", r"not empty[^$]*notes\.txt"),
        ("out/part-000000.parquet", "be written to"),
    ):
        with pytest.raises(FeatureStoreError, match=says):
            source.export_stream("read_events", tmp_path / folder)
    with pytest.raises(UsageError, match="is no export of a stream"):
        embedded_session.import_stream(tmp_path / "mine")
    with pytest.raises(UsageError, match="is no export of a stream"):
        embedded_session.import_stream(tmp_path / "mine" / "notes.txt")
    with pytest.raises(UsageError, match="There is no export 'none'"):
        embedded_session.import_stream(tmp_path / "none")
    with pytest.raises(UsageError, match="for streams that have none"):
        embedded_session.import_stream(out, "b", time_column="x")
    with pytest.raises(UsageError, match="catalog's own"):
        source.export_stream("fs_catalog", tmp_path / "catalog")
    assert not embedded_session.log.exists("b")


def test_a_stream_that_was_removed_since_is_not_taken_for_imported(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(read_events(0, 20), "read_events", time="ts")
    source.export_stream("read_events", tmp_path / "out")
    log: Any = embedded_session.log
    notes = embedded_session.import_stream(tmp_path / "out").positions
    log.delete("read_events")
    with pytest.raises(UsageError, match="is not there, or was another export"):
        embedded_session.import_stream(tmp_path / "out")
    assert notes is not None
    notes.unlink()
    assert embedded_session.import_stream(tmp_path / "out").rows == 20
    assert whole(embedded_session, "read_events").height == 20


def test_a_part_that_was_changed_is_refused(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(read_events(0, 20), "read_events", time="ts")
    source.export_stream("read_events", tmp_path / "out")
    part = tmp_path / "out" / "part-000000.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(IntegrityError, match=r"'part-000000\.parquet' of the export is not what"):
        embedded_session.import_stream(tmp_path / "out")
    part.write_bytes(content)
    manifest = tmp_path / "out" / "stream.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(data | {"rows": 21}))
    with pytest.raises(IntegrityError, match="contradicts itself"):
        embedded_session.import_stream(tmp_path / "out")
    outside = [["../../x.parquet", *data["parts"][0][1:]]]
    manifest.write_text(json.dumps(data | {"parts": outside}))
    with pytest.raises(IntegrityError, match="contradicts itself"):
        embedded_session.import_stream(tmp_path / "out")
    manifest.write_text(json.dumps(data))
    assert embedded_session.import_stream(tmp_path / "out").rows == 20


@pytest.mark.usefixtures("small_parts")
def test_somebody_elses_events_among_them_are_told(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(pl.DataFrame(read_events(0, 250)), "read_events", time="ts")
    source.export_stream("read_events", tmp_path / "out")

    def meddle(progress: Any) -> None:
        embedded_session.upload(read_events(900, 1), "read_events")

    with pytest.raises(ConflictError, match="and nothing else"):
        embedded_session.import_stream(tmp_path / "out", on_progress=meddle)


def test_the_command_line_moves_a_stream(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(read_events(0, 20), "read_events", time="ts")

    def run(session: Session, *arguments: str) -> str:
        done = CliRunner().invoke(main, ["--home", str(session.connection.home), *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    out = str(tmp_path / "reads.tar")
    assert "20 events of read_events exported to" in run(
        source, "log", "export", "read_events", out
    )
    told = run(embedded_session, "log", "import", out, "--as", "reads")
    assert "20 events of reads imported from" in told
    assert "positions old and new:" in told
    frame = whole(embedded_session, "reads")
    assert frame[TIME].to_list() == [BEGIN + timedelta(minutes=n) for n in range(20)]


def test_an_empty_stream_moves_too(
    source: Session, embedded_session: Session, tmp_path: Path
) -> None:
    source.upload(pl.DataFrame(read_events(0, 1)).head(0), "empty", time="ts")
    source.export_stream("empty", tmp_path / "out")
    assert embedded_session.import_stream(tmp_path / "out").rows == 0
    assert embedded_session.source("empty") == source.source("empty")
