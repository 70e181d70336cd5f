"""Tab: in a real shell, and through a real kernel's complete request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import polars as pl
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from fs_notebook import current
from fs_notebook.worker.connection import Connection
from tests.support.sessions import SUM_SQL, read_events, stop_all


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("FS_NOTEBOOK_HOME", str(home))
    patch.setattr(current, "_current", None)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "fs_notebook")
    shell.user_ns["reads"] = pl.DataFrame(read_events(0, 30))
    session = current.connect()
    session.upload(shell.user_ns["reads"], "read_events", time="ts")
    session.create_view("long_reads", "SELECT user, readtime AS long, ts FROM read_events")
    session.define("reading_time", SUM_SQL, tags=["reading"], owner="ann")
    session.promote("reading_time")
    session.training_set(
        shell.user_ns["reads"].select("user", "ts"), ["total_readtime"], name="spring"
    )
    yield shell
    shell.run_line_magic("unload_ext", "fs_notebook")
    session.close()
    stop_all(Connection(home))
    InteractiveShell.clear_instance()
    patch.undo()


def completed(shell: InteractiveShell, marked: str) -> list[str]:
    """Return the cell's texts as they are after each completion at ``|``."""
    cursor = marked.index("|")
    text = marked.replace("|", "", 1)
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, cursor))
    return [text[: c.start] + c.text for c in found]


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("%feature prom|", "%feature promote"),
        ("%feature promote re|", "%feature promote reading_time"),
        ("%feature promote TOTAL|", "%feature promote total_readtime"),
        ("%feature promote x --with|", "%feature promote x --with-inputs"),
        ("%feature help prom|", "%feature help promote"),
        ("%feature peek re|", "%feature peek read_events"),
        ("%feature views lo|", "%feature views long_reads"),
        ("%feature lineage spr|", "%feature lineage spring"),
        ("%feature upload re|", "%feature upload reads"),
        ("%feature upload reads --stream re|", "%feature upload reads --stream read_events"),
        ("%feature upload reads -s read_events --time t|",
         "%feature upload reads -s read_events --time ts"),
        ("%feature retire reading_time |", "%feature retire reading_time 1"),
        ("%feature diff reading_time 1 dr|", "%feature diff reading_time 1 draft"),
        ("%feature training_set reading_time@|", "%feature training_set reading_time@1"),
        ("%feature training_set a,tot|", "%feature training_set a,total_readtime"),
        ("%feature training_set --again sp|", "%feature training_set --again spring"),
        ("%feature lift x --labels rea|", "%feature lift x --labels reads"),
        ("%feature compare reading_time --versions |",
         "%feature compare reading_time --versions 1"),
        ("%feature catalog ta|", "%feature catalog tag:"),
        ("%feature catalog tag:rea|", "%feature catalog tag:reading"),
        ("%feature catalog status:de|", "%feature catalog status:deprecated"),
        ("%feature tag reading_time -rea|", "%feature tag reading_time -reading"),
        ("%feature owner reading_time an|", "%feature owner reading_time ann"),
        ("%%feature x --clo|", "%%feature x --closed"),
        ("%%feature x --closed ri|", "%%feature x --closed right"),
        ("%%feature x --tags a,rea|", "%%feature x --tags a,reading"),
        ("%%feature x\nSELECT us|", "%%feature x\nSELECT user"),
        ("%%feature x\nSELECT user FROM rea|", "%%feature x\nSELECT user FROM read_events"),
        ("%%feature x\nSELECT SUM(read| FROM read_events",
         "%%feature x\nSELECT SUM(readtime"),
        ("%%feature x\nSELECT r.us| FROM read_events AS r", "%%feature x\nSELECT r.user"),
        ("%%feature x\nSELECT lo| FROM long_reads", "%%feature x\nSELECT long"),
        ("%%feature x\nSELECT APPROX_Q|", "%%feature x\nSELECT APPROX_QUANTILE"),
        ("%%feature x\nSELECT total| FROM reading_time", "%%feature x\nSELECT total_readtime"),
        ("%%view x\nSELECT user FROM rea|", "%%view x\nSELECT user FROM read_events"),
        ('%%feature x -l polars --stream read_events\npl.col("read|',
         '%%feature x -l polars --stream read_events\npl.col("readtime'),
        ('fs.serve(["tot|', 'fs.serve(["total_readtime'),
        ('fs.serve(["a", "reading_time@|', 'fs.serve(["a", "reading_time@1'),
        ("fs.peek('rea|", "fs.peek('read_events"),
    ],
)  # fmt: skip
def test_tab_completes(shell: InteractiveShell, cell: str, becomes: str) -> None:
    assert becomes in completed(shell, cell)


def test_python_is_completed_as_ever(shell: InteractiveShell) -> None:
    assert "fs.serve" in completed(shell, "fs.ser|")
    assert not any("reading_time" in c for c in completed(shell, "rea|"))


def test_without_a_session_nothing_is_connected(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "_current", None)
    assert completed(shell, "%feature prom|") == ["%feature promote"]
    assert "%feature promote reading_time" not in completed(shell, "%feature promote re|")
    assert current._current is None


def test_a_ledger_that_does_not_answer_does_not_hold_up_the_keyboard(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise OSError("no broker")

    assert current._current is not None
    monkeypatch.setattr(current._current.catalog, "refresh", down)
    assert "%feature promote reading_time" in completed(shell, "%feature promote re|")


def test_unloading_takes_the_completions_out(shell: InteractiveShell) -> None:
    shell.run_line_magic("unload_ext", "fs_notebook")
    try:
        assert "%feature promote reading_time" not in completed(shell, "%feature promote re|")
    finally:
        shell.run_line_magic("load_ext", "fs_notebook")


def replies(client: Any, code: str) -> list[dict[str, Any]]:
    """Run a cell in the kernel; return what it sent to whoever looks."""
    found: list[dict[str, Any]] = []
    reply = client.execute_interactive(code, timeout=60, output_hook=found.append)
    return [*found, reply]


def test_through_a_real_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JupyterLab, Notebook 7 and VS Code ask; and an error is a card that points."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(tmp_path / "home"))
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        replies(
            client,
            "%load_ext fs_notebook\nimport polars as pl\nfrom datetime import datetime as dt\n"
            "reads = pl.DataFrame({'user': ['a'], 'readtime': [1], 'ts': [dt(2024, 1, 1)]})\n"
            "fs.upload(reads, 'read_events')",
        )  # fmt: skip
        code = "%%feature reading_time --entity user\nSELECT user, SUM(readt"
        reply = client.complete(code, reply=True, timeout=30)["content"]
        assert reply["matches"] == ["readtime"]
        assert code[: reply["cursor_start"]].endswith("SUM(")
        cell = "%%feature x\nSELECT user,\n  SUM(readtme) AS x\nFROM read_events GROUP BY user"
        sent = replies(client, cell)
        card = next(m for m in sent if m["msg_type"] == "display_data")["content"]["data"]
        assert 'aria-label="line 3, column 7"' in card["text/html"]
        assert ">readtme</mark>" in card["text/html"]
        assert "      ^^^^^^^" in card["text/plain"]
        said = "".join(m["content"]["text"] for m in sent if m["msg_type"] == "stream")
        assert "(line 3, column 7)" in said
        assert sent[-1]["content"]["status"] == "error"
    except Empty:
        pytest.fail("the kernel did not answer")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        stop_all(Connection(tmp_path / "home"))
