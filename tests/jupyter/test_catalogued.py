"""The catalog's verbs and displays in a real shell; hostile texts stay texts in all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from fs_notebook import current
from fs_notebook.errors import DefinitionError
from fs_notebook.jupyter.pointing import ErrorCard, place_in
from fs_notebook.worker.connection import Connection
from tests.support.sessions import SUM_SQL, read_events, stop_all

HOSTILE = "<script>alert(1)</script> **b** [x](javascript:alert(1)) <img src=x onerror=alert(2)>"
STEERING = "\x1b[31mred\x1b[0m \u202eturned\nnew line"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(current, "_current", None)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "fs_notebook")
    shell.user_ns["reads"] = pl.DataFrame(read_events(0, 50))
    session = current.connect()
    session.upload(shell.user_ns["reads"], "read_events", time="ts")
    session.create_view("long_reads", "SELECT user, readtime, ts FROM read_events")
    session.define("reading_time", SUM_SQL, tags=["reading"], description="Time spent")
    session.define("long_count", "SELECT user, COUNT(*) AS long_n FROM long_reads GROUP BY user")
    yield shell
    shell.run_line_magic("unload_ext", "fs_notebook")
    session.close()
    stop_all(Connection(tmp_path / "home"))
    InteractiveShell.clear_instance()


def shows(shell: InteractiveShell, cell: str) -> tuple[str, str]:
    """Run a cell that must work; return what it shows as text, and as HTML."""
    with capture_output() as shown:
        result = shell.run_cell(cell)
    assert result.success, shown.stderr + shown.stdout
    bundles = [o.data for o in shown.outputs]
    assert not any("markdown" in kind or "latex" in kind for b in bundles for kind in b)
    text = shown.stdout + "\n".join(b.get("text/plain", "") for b in bundles)
    return text, "\n".join(b.get("text/html", "") for b in bundles)


def fails(shell: InteractiveShell, cell: str) -> str:
    with capture_output() as shown:
        result = shell.run_cell(cell)
    assert not result.success
    return shown.stdout + shown.stderr


def test_the_verbs_of_the_catalog(shell: InteractiveShell, tmp_path: Path) -> None:
    text, html = shows(shell, "%feature catalog raeding entity:user")
    assert "nothing has 'raeding': read as reading" in text
    assert "reading_time" in html
    assert "long_count" not in html
    text, _ = shows(shell, "%feature catalog")
    assert all(n in text for n in ("reading_time", "long_reads", "read_events", "view", "stream"))
    assert (
        "nothing matches"
        in shows(shell, "%feature catalog reading -tag:reading kind:group")[0].casefold()
    )
    assert "tags +core -reading" in shows(shell, "%feature tag reading_time +core -reading")[0]
    assert "owner: ann" in shows(shell, "%feature owner total_readtime ann")[0]
    assert "description: All of it" in shows(shell, "%feature describe reading_time 'All of it'")[0]
    text, html = shows(shell, "%feature about reading_time")
    assert "All of it" in text
    assert "tags: core" in text
    assert "<svg" in html
    assert "All of it" in shows(shell, "%feature describe reading_time")[0]
    assert "50" in shows(shell, "%feature describe read_events")[0]
    text, html = shows(shell, "%feature lineage long_count")
    assert "└─ long_reads (view)" in text
    assert html.count("<rect") == 3
    text, _ = shows(shell, "%feature deprecate reading_time --reason 'counts bots'")
    assert "nothing depends on it" in text
    assert "draft, deprecated" in shows(shell, "%feature catalog reading_time")[0]
    assert "is deprecated: counts bots" in shows(shell, "%feature preview reading_time")[0]
    assert "took the deprecation back" in shows(shell, "%feature deprecate reading_time --undo")[0]
    assert "4 files written" in shows(shell, f"%feature export {tmp_path}/files")[0]
    assert "nothing to change" in shows(shell, f"%feature import {tmp_path}/files")[0]
    assert "a tag comes with +" in fails(shell, "%feature tag reading_time core").casefold()


def test_a_difference_is_told_and_drawn(shell: InteractiveShell) -> None:
    shows(shell, "%feature promote reading_time")
    changed = SUM_SQL.replace("SUM", "MAX")
    shows(shell, f"%%feature reading_time --entity user\n{changed}")
    text, html = shows(shell, "%feature diff reading_time")
    assert "v1 → draft, another meaning" in text
    assert "  total_readtime is computed otherwise" in text
    assert "+SELECT user, MAX(readtime)" in text
    assert "MAX(readtime)" in html


def test_help_has_options_and_examples(shell: InteractiveShell) -> None:
    for cell in ("%feature help promote", "%feature promote --help", "%feature help train"):
        text, html = shows(shell, cell)
        assert "%feature promote reading_time --workers 4" in text or "training_set" in text
        assert "Options" in html
    assert "did you mean 'promote'" in fails(shell, "%feature help promot")


def test_a_question_mark_shows_examples(shell: InteractiveShell) -> None:
    for asked in ("%feature?", "%%feature?"):
        page = shows(shell, asked)[0]
        assert "%%feature reading_time --entity user --tags reading" in page
        assert "SELECT user, SUM(readtime) AS total_readtime FROM read_events" in page
        assert "%feature promote reading_time" in page
    page = shows(shell, "%%view?")[0]
    assert "%%view long_reads --description" in page
    assert "FROM read_events WHERE readtime >= 60" in page


def test_every_verb_has_an_example() -> None:
    from fs_notebook.jupyter.guide import EXAMPLES
    from fs_notebook.jupyter.options import VERBS, parse_line

    assert set(EXAMPLES) == set(VERBS)
    for verb, lines in EXAMPLES.items():
        for line in lines:
            assert parse_line(line.removeprefix("%feature "))[0] == verb


ERRORS = [
    (
        "%%feature a\nSELECT user,\n  SUM(readtme) AS x\nFROM read_events GROUP BY user",
        3,
        "readtme",
    ),
    ("%%feature a\n\n\nSELECT user, SUMM(readtime) AS x FROM read_events GROUP BY user", 4, "SUMM"),
    (
        "%%feature a\n-- read_event\nSELECT user, SUM(readtime) AS x\nFROM read_event",
        4,
        "read_event",
    ),
    ("%%feature a --speed 3\nSELECT 1", 1, "--speed"),
    ("%%feature a --closed up\nSELECT 1", 1, "up"),
    (f"%%feature a --window soon\n{SUM_SQL}", 1, "soon"),
    (f"%%feature long_count\n{SUM_SQL}", 2, "total_readtime"),
    ("%%feature a -e user -l polars -s read_events\npl.col('readtme').sum()", 2, "readtme"),
    ("%%view v\nSELECT user,\n\treadtme FROM read_events", 3, "readtme"),
    ("%feature promote nothing", 1, "nothing"),
    ("%feature promot x", 1, "promot"),
]


def test_errors_point_into_the_cell(shell: InteractiveShell) -> None:
    for cell, line, word in ERRORS:
        shown = cell.splitlines()[line - 1]
        told = fails(shell, cell).splitlines()
        assert f"  line {line}: {shown}" in told, told
        caret = told[told.index(f"  line {line}: {shown}") + 1]
        prefix = len(f"  line {line}: ")
        assert caret.strip() == "^" * len(word), told
        assert shown[len(caret) - len(word) - prefix :].startswith(word), told


def test_an_error_in_a_views_text_does_not_point_into_the_cell() -> None:
    error = DefinitionError("It is odd.", line=1, column=8, text="SELECT x FROM s")
    assert place_in("%%feature a\nSELECT y FROM v", error) is None


def test_an_error_card_escapes_what_it_shows() -> None:
    cell = f"%%feature a\nSELECT {HOSTILE} FROM s"
    error = DefinitionError(f"There is no {HOSTILE!r}.", found=HOSTILE, remedy=HOSTILE,
                            line=1, column=8, text=f"SELECT {HOSTILE} FROM s")  # fmt: skip
    place = place_in(cell, error)
    assert place is not None
    _harmless(ErrorCard(error, place).html())


def _harmless(html: str) -> None:
    """Fail if a text became an element, an attribute or a link."""
    assert "<script" not in html
    assert "<img" not in html
    assert not re.search(r"<[^>]*\son\w+=", html)
    assert 'href="javascript' not in html
    assert "<b>" not in re.sub(r"<figcaption>.*?</figcaption>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("said", [HOSTILE, STEERING])
def test_hostile_texts_stay_texts_in_every_display(shell: InteractiveShell, said: str) -> None:
    session: Any = current.get_session()
    session.catalog.actor = said
    tag = said.replace("\n", " ") if said.isprintable() else "plain"
    shown = SUM_SQL.replace("SELECT", f"/* {said} */ SELECT")
    session.define("hostile", shown.replace("total_readtime", "hostile_sum"), entity="user",
                   tags=[tag], owner=said, description=said)  # fmt: skip
    session.promote("hostile")
    session.edit("read_events", description=said, owner=said)
    session.edit("long_reads", description=said)
    session.deprecate("hostile", reason=said)
    shell.user_ns["labels"] = shell.user_ns["reads"].select("user", "ts")
    cells = [
        "%feature catalog", "%feature about hostile", "%feature about read_events",
        "%feature about long_reads", "%feature lineage hostile", "%feature status",
        "%feature preview hostile", "%feature streams", "%feature views",
        "%feature verify hostile", "fs.serve(['hostile_sum'], user=['u1'])",
        "fs.search('hostile')", "fs.edit('hostile', description='x')", "fs.about('hostile')",
        "fs.deprecate('hostile', reason=fs.about('hostile').entry.owner + '!')",
        "%feature training_set hostile --labels labels", "fs.uses('hostile')",
    ]  # fmt: skip
    other = shown.replace("SUM(readtime) AS total_readtime", "MAX(readtime) AS hostile_sum")
    session.define("hostile", other, tags=[tag], owner=said, description=said)
    cells += ["%feature diff hostile", "fs.diff('hostile')"]
    for cell in cells:
        text, html = shows(shell, cell)
        _harmless(html)
        assert "\x1b" not in text + html, cell
        assert "\u202e" not in text + html, cell
