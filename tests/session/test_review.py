"""The catalog as files: readable, the same bytes again, a diff first, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from fs_notebook.cli import main
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.sessions import SUM_SQL, read_events, stop_all

HOSTILE = '<script>alert(1)</script> "quoted" \\ # -- ---\n*bold* \x7f 🦜'


@pytest.fixture
def known(embedded_session: Session) -> Session:
    """A session with features in SQL and Polars on a view, a derived one, words everywhere."""
    s = embedded_session
    s.upload(pl.DataFrame(read_events(0, 50)), "read_events", time="ts")
    s.create_view("long_reads", "SELECT user, readtime, ts FROM read_events WHERE readtime > 4")
    s.define("reading_time", f"-- ---\n{SUM_SQL}", tags=["reading", "a b"], owner="ann",
             description=HOSTILE, entity="user", ttl="30d")  # fmt: skip
    s.define("long_time", {"long_sum": pl.col("readtime").sum()}, entity="user",
             stream="long_reads", window="7d")  # fmt: skip
    s.define("share", "SELECT user, :x * long_sum / total_readtime AS long_share FROM reading_time "
             "JOIN long_time USING (user)", entity="user", request="x BIGINT")  # fmt: skip
    s.edit("read_events", description="What is read")
    s.deprecate("share", reason=HOSTILE.split("\n")[0], instead="long_time")
    return s


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Session]:
    """A session of another home, with nothing in its catalog."""
    place = Connection(tmp_path / "other")
    session = Session(place, actor="importer")
    yield session
    session.close()
    stop_all(place)


def test_a_file_is_readable_and_the_same_again(known: Session, tmp_path: Path) -> None:
    first = known.export_catalog(tmp_path / "catalog")
    assert sorted(first.written) == [
        "features/long_time.polars.json", "features/long_time.py", "features/reading_time.sql",
        "features/share.sql", "streams/read_events.toml", "views/long_reads.sql",
    ]  # fmt: skip
    text = (tmp_path / "catalog/features/share.sql").read_text()
    assert text.startswith('-- fs-notebook feature\n-- name = "share"\n-- entity = ["user"]\n')
    assert '\n-- request = "x BIGINT"\n' in text
    assert text.endswith("JOIN long_time USING (user)\n")
    again = known.export_catalog(tmp_path / "catalog")
    assert (again.written, again.same, again.removed) == ((), 6, ())
    known.retire("share")
    (tmp_path / "catalog/features/README.sql").write_text("-- not ours\n")
    assert known.export_catalog(tmp_path / "catalog").removed == ("features/share.sql",)
    assert (tmp_path / "catalog/features/README.sql").exists()


def test_an_import_of_what_was_exported_changes_nothing(known: Session, tmp_path: Path) -> None:
    known.export_catalog(tmp_path / "catalog")
    events = known.catalog.refresh().events
    for apply in (False, True):
        found = known.import_catalog(tmp_path / "catalog", apply=apply)
        assert [s.action for s in found.steps] == ["same"] * 5
    assert known.catalog.refresh().events == events


def test_what_it_reads_may_have_changed_since(known: Session, tmp_path: Path) -> None:
    """A derived feature pins what it was defined with; an import takes nothing else up."""
    known.define("reading_time", SUM_SQL.replace("SUM", "MAX"), entity="user")
    known.export_catalog(tmp_path)
    before = known.catalog.refresh().groups["share"].latest.fingerprint
    done = known.import_catalog(tmp_path, apply=True)
    assert {s.action for s in done.steps} == {"same"}
    assert known.catalog.refresh().groups["share"].latest.fingerprint == before


def test_another_catalog_becomes_the_same(known: Session, empty: Session, tmp_path: Path) -> None:
    known.export_catalog(tmp_path / "catalog")
    planned = empty.import_catalog(tmp_path / "catalog")
    assert not empty.catalog.refresh().groups
    assert [s.action for s in planned.steps] == ["new"] * 5
    assert "checked when that is there" in repr(planned)
    done = empty.import_catalog(tmp_path / "catalog", apply=True)
    assert not done.refused, done
    theirs, mine = known.catalog.refresh(), empty.catalog.refresh()
    for name, group in theirs.groups.items():
        assert mine.groups[name].latest.fingerprint == group.latest.fingerprint
        assert mine.groups[name].versions == ()
    empty.export_catalog(tmp_path / "again")
    for path in (tmp_path / "catalog").rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(tmp_path / "catalog")).read_bytes() == (
            path.read_bytes()
        )
    assert empty.import_catalog(tmp_path / "catalog", apply=True).changes == ()


def test_a_changed_file_is_shown_then_applied(known: Session, tmp_path: Path) -> None:
    known.export_catalog(tmp_path)
    path = tmp_path / "features/reading_time.sql"
    path.write_text(path.read_text().replace("SUM(readtime)", "MAX(readtime)")
                    .replace('owner = "ann"', 'owner = "bob"'))  # fmt: skip
    path = tmp_path / "features/share.sql"
    path.write_text("\n".join(line for line in path.read_text().splitlines()
                              if not line.startswith(("-- deprecated", "-- instead"))))  # fmt: skip
    events = known.catalog.refresh().events
    planned = known.import_catalog(tmp_path)
    assert known.catalog.refresh().events == events
    changed = {s.name: s for s in planned.changes}
    assert changed["reading_time"].words == (
        "total_readtime is computed otherwise", "owner: ann → bob",
    )  # fmt: skip
    assert any(line.startswith("+") and "MAX(readtime)" in line
               for line in changed["reading_time"].lines)  # fmt: skip
    assert changed["share"].words == ("no longer deprecated",)
    known.import_catalog(tmp_path, apply=True)
    state = known.catalog.refresh()
    assert "MAX" in state.groups["reading_time"].latest.text
    assert state.groups["reading_time"].latest.owner == "bob"
    assert state.groups["share"].deprecated is None


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("features/x.sql", "SELECT 1", "no file of a catalog's export"),
        ("features/x.sql", "-- fs-notebook feature\n-- name = 'x'\nSELECT 1", "has no end"),
        ("features/x.sql", "-- fs-notebook feature\n-- name = x\n-- ---\nS", "no TOML"),
        ("features/x.sql", "-- fs-notebook feature\n-- name = 3\n-- ---\nS", "no name"),
        ("features/x.sql", "-- fs-notebook feature\n-- name = '../x'\n-- ---\nSELECT 1", "letters"),
        ("features/x.sql", "-- fs-notebook model\n-- name = 'x'\n-- ---\nS", "no known kind"),
        ("features/x.sql", "-- fs-notebook feature\n-- name = 'x'\n-- tags = 'y'\n-- ---\nS",
         "list of texts"),
        ("features/x.py", "# fs-notebook feature\n# name = 'x'\n# ---\nimport os", "is missing"),
        ("streams/x.toml", "# fs-notebook stream\nname = 'x'\n", "cannot be read"),
        ("streams/x.toml", "# fs-notebook stream\nname = 'x'\ncolumns = [['a', 'NONE']]",
         "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_and_told(
    embedded_session: Session, tmp_path: Path, name: str, text: str, says: str
) -> None:
    path = tmp_path / "files" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    done = embedded_session.import_catalog(tmp_path / "files", apply=True)
    assert says in repr(done.refused[0])
    assert not embedded_session.catalog.refresh().groups


def test_python_in_a_file_is_never_run(known: Session, tmp_path: Path) -> None:
    known.export_catalog(tmp_path)
    path, flag = tmp_path / "features/long_time.py", tmp_path / "ran"
    path.write_text(path.read_text() + f"\nopen({str(flag)!r}, 'w')\n")
    done = known.import_catalog(tmp_path, apply=True)
    assert not flag.exists()
    assert "was edited: it is there to be read, and is never run" in repr(done.refused[0])


def test_the_command_line_shows_then_asks(known: Session, empty: Session, tmp_path: Path) -> None:
    def run(session: Session, *words: str, says: str | None = None) -> tuple[int, str]:
        home = ["--home", str(session.connection.home)]
        done = CliRunner().invoke(main, [*home, "catalog", *words], input=says)
        return done.exit_code, done.output

    folder = str(tmp_path / "files")
    assert run(known, "export", folder)[0] == 0
    assert run(known, "import", folder, "--check")[0] == 0
    code, text = run(empty, "import", folder, "--check")
    assert (code, "new stream read_events" in text) == (1, True)
    run(empty, "import", folder, says="n\n")
    assert not empty.catalog.refresh().sources
    code, text = run(empty, "import", folder, says="y\n")
    assert code == 0, text
    assert set(empty.catalog.refresh().groups) == {"reading_time", "long_time", "share"}
    assert "reading_time (user): draft" in run(known, "reading")[1]
    assert "share (user): draft, deprecated" in run(known, "status:deprecated", "-tag:reading")[1]
    assert "read_events (stream)" in run(known)[1]
    assert "tags +new" in run(known, "edit", "share", "--tag", "new")[1]
    assert "#" not in run(known, "diff", "share")[1]
    assert "made of:" in run(known, "show", "share")[1]
    assert "took the deprecation back" in run(known, "deprecate", "share", "--undo")[1]
