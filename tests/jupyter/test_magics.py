"""The magics in a real IPython shell: what they do, what they show, how they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output

import fs_notebook
from fs_notebook import current
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid
from tests.support.sessions import read_events, stop_all

SQL = "SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user;"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(current, "_current", None)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "fs_notebook")
    shell.user_ns["reads"] = pl.DataFrame(read_events(0, 100))
    yield shell
    shell.run_line_magic("unload_ext", "fs_notebook")
    if current._current is not None:
        current._current.close()
    stop_all(Connection(tmp_path / "home"))
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, cell: str) -> tuple[Any, CapturedIO]:
    with capture_output() as shown:
        result = shell.run_cell(cell)
    return result, shown


def shows(shell: InteractiveShell, cell: str) -> str:
    """Run a cell that must work; return the plain text of what it shows."""
    result, shown = run(shell, cell)
    assert result.success, shown.stderr
    texts = [o.data["text/plain"] for o in shown.outputs if "text/plain" in o.data]
    return shown.stdout + "\n".join(texts)


def fails(shell: InteractiveShell, cell: str) -> str:
    """Run a cell that must fail with one message and no trace; return the message."""
    result, shown = run(shell, cell)
    assert not result.success
    text = shown.stdout + shown.stderr
    assert "Traceback" not in text
    assert text.startswith("UsageError: ")
    return text


def test_the_session_that_must_feel_effortless(shell: InteractiveShell) -> None:
    assert "embedded" in shows(shell, "%feature connect")
    assert "100 events to read_events (new stream)" in shows(
        shell, "%feature upload reads --stream read_events --time ts"
    )
    assert "read_events" in shows(shell, "%feature streams")
    card = shows(shell, f"%%feature reading_time --entity user --tags reading\n{SQL}")
    assert "7 entities, 100 events folded" in card
    assert "total_readtime BIGINT" in card
    assert "live v1" in shows(shell, "%feature promote reading_time")
    result, _ = run(shell, 'fs.serve(["total_readtime"], user=["u1"]).to_dict()')
    assert result.result == {"user": ["u1"], "total_readtime": [sum(range(1, 100, 7))]}
    assert "reading_time" in shows(shell, "%feature status")
    assert "0 mismatches in 7 values of 7 entities" in shows(shell, "%feature verify reading_time")
    sampled = shows(shell, "%feature verify reading_time --sample 3 --seed 1")
    assert "0 mismatches in 3 values of 3 of 7 entities (a sample, seed 1)" in sampled
    assert "reading_time" in shows(shell, "%feature catalog reading")
    assert "reading_time" not in shows(shell, "%feature catalog nothing-like-it")
    changed = SQL.replace("SUM(readtime)", "SUM(readtime + 1)")
    assert "promoting makes this v2" in shows(shell, f"%%feature reading_time\n{changed}")
    promoted = shows(shell, "%feature promote reading_time")
    assert "v2 differs from v1 in 7 of 7 entities, most 15 for total_readtime" in promoted
    assert "mean difference" in shows(shell, "%feature compare reading_time --versions 1,2")
    assert "v1" in shows(shell, "%feature rollback reading_time")


def test_an_upload_cell_may_be_run_again(shell: InteractiveShell) -> None:
    upload = "%feature upload reads --stream read_events"
    assert "100 events" in shows(shell, upload)
    assert "nothing appended" in shows(shell, upload)
    assert "100 events folded" in shows(shell, f"%%feature reading_time\n{SQL}")
    assert "now at 0:0:199:0" in shows(shell, upload + " --again")
    shell.user_ns["reads"] = shell.user_ns["reads"].head(99)
    assert "now at 0:0:298:0" in shows(shell, upload)


def test_preview_takes_a_slice(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    whole = shows(shell, f"%%feature reading_time --last 30m\n{SQL}")
    assert "30 events folded" in whole
    assert "10 events folded" in shows(
        shell, "%feature preview reading_time --from 2024-01-01T00:10 --to 2024-01-01T00:20"
    )
    assert "3 entities" in shows(shell, "%feature preview reading_time --sample 3")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%feature promot x", "did you mean 'promote'"),
        ("%feature upload nothing --stream s", "no variable 'nothing'"),
        ("%feature upload reads", "--stream"),
        ("%feature promote nothing", "no feature named 'nothing'"),
        ("%feature preview 'a", "close the quotes"),
        ("%feature connect mysql://x", "address of a ledger"),
        ("%feature connect embedded: --redis ftp://x", "address of an online store"),
        ("%feature connect embedded: --redis redis://127.0.0.1:1", "127.0.0.1:1"),
        (f"%%feature 1x\n{SQL}", "letters, digits"),
        ("%%feature x\nSELECT user, SUM(y) AS z FROM nowhere GROUP BY user", "no stream named"),
        (f"%%feature x --window soon\n{SQL}", "length of time"),
        (f"%%feature x --speed 3\n{SQL}", "unrecognized arguments: --speed"),
    ],
)
def test_mistakes_are_one_message(shell: InteractiveShell, cell: str, says: str) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    assert says in fails(shell, cell)


@pytest.mark.parametrize(
    "slice_",
    ["--last 0d", "--last 1d --from 2024-01-01", "--sample 0",
     "--from 2024-02-01 --to 2024-01-01", "--from soon"],
)  # fmt: skip
def test_slices_that_make_no_sense(shell: InteractiveShell, slice_: str) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    shows(shell, f"%%feature x\n{SQL}")
    assert "Try:" in fails(shell, f"%feature preview x {slice_}")


def test_an_interrupt_leaves_the_kernel_usable(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 35."""
    shows(shell, "%feature upload reads --stream read_events")
    read = current.get_session().log.read

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(current.get_session().log, "read", interrupted)
    assert "Interrupted" in fails(shell, f"%%feature x\n{SQL}")
    monkeypatch.setattr(current.get_session().log, "read", read)
    assert "7 entities" in shows(shell, f"%%feature x\n{SQL}")


def test_sets_and_models_by_magic(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events --time ts --key user")
    shows(shell, f"%%feature reading_time --entity user\n{SQL}")
    assert "No feature set yet" in shows(shell, "%feature sets")
    assert "No model is registered" in shows(shell, "%feature models")
    assert "never promoted" in fails(shell, "%feature set ranker reading_time")
    shows(shell, "%feature promote reading_time")
    made = shows(shell, "%feature set ranker reading_time -d 'Who reads' --owner ann")
    assert made.startswith("feature set ranker v1 by user: Who reads\nowned by ann")
    assert "v2" in shows(shell, "%feature set ranker --owner bob")
    assert "total_readtime@1" in shows(shell, "%feature set ranker@1")
    shell.user_ns["labels"] = shell.user_ns["reads"].select("user", "ts")
    rows = shows(shell, "%feature training_set set:ranker --labels labels --name one --into train")
    assert "total_readtime@1" in rows
    assert shell.user_ns["train"].set == "set:ranker@2"
    assert "set:ranker@2" in shows(shell, "%feature model net-1 --training-set one")
    assert "└─ one (training set)" in shows(shell, "%feature lineage model:net-1")
    assert "is a model's" in fails(shell, "%feature set ranker --retire")
    assert "model:net-1" in fails(shell, "%feature training_sets --delete one")
    assert "net-1" in shows(shell, "%feature models")
    assert "two" in shows(shell, "%feature training_sets --rename one=two")
    assert "says both names" in fails(shell, "%feature training_sets --rename one")
    assert "training set: two" in shows(shell, "%feature model net-1")
    assert "No model is registered" in shows(shell, "%feature model net-1 --remove")
    assert "No training set is kept" in shows(shell, "%feature training_sets --delete two")
    assert "v1" in shows(shell, "%feature set ranker@2 --retire")
    assert fs_notebook.serve("set:ranker", user=["u1"]).features == ("total_readtime@1",)


def test_training_sets_are_made_kept_and_made_again(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    shows(shell, f"%%feature reading_time\n{SQL}")
    shell.user_ns["clicks"] = pl.DataFrame(read_events(50, 20)).rename({"user": "who"})
    line = "%feature training_set reading_time --labels clicks --entity user=who"
    told = shows(shell, f"{line} --lag 5m --name first --into made")
    assert "20 labels × 1 features" in told
    assert "as of just before each label's time less 5m" in told
    made = shell.user_ns["made"]
    assert made.to_dict()["total_readtime"][0] == sum(n for n in range(45) if n % 7 == 50 % 7)
    again = "%feature training_set --again first --labels clicks --into again"
    shows(shell, "%feature upload reads --stream read_events --again")
    shows(shell, again)
    assert shell.user_ns["again"].frame.equals(made.frame)
    assert "first" in shows(shell, "%feature training_sets")
    sql = "SELECT user, ts FROM read_events WHERE readtime < 9"
    assert "18 labels" in shows(shell, f"%feature train total_readtime --labels '{sql}'")
    assert "no labels" in fails(shell, "%feature train total_readtime")
    assert "no features" in fails(shell, "%feature train --labels clicks")
    out = tmp_path / "first.parquet"
    assert "first.parquet" in shows(shell, f"{again} --out {out}")
    assert pl.read_parquet(out).equals(made.frame)
    assert "made as it was" in fails(shell, f"{again} --lag 5m")
    assert "made as it was" in fails(shell, f"{again} --shards 3")
    shows(shell, f"{line} --lag 5m --shards 3 --into parted")
    assert shell.user_ns["parted"].frame.height == 20
    out = tmp_path / "train.parquet"
    assert "20 labels × 1 features" in shows(shell, f"{line} --out {out} --into written")
    assert shell.user_ns["written"].to_polars().equals(pl.read_parquet(out))
    assert "names a variable" in fails(shell, f"{line} --into 2x")
    assert "maps an entity" in fails(shell, f"{line} --entity user")


def test_stop_ends_what_runs_in_the_background(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events --time ts")
    shows(shell, f"%%feature reading_time --entity user\n{SQL}")
    shows(shell, "%feature promote reading_time")
    connection = current.get_session().connection
    said = shows(shell, "%feature stop --keep-redis")
    assert said.startswith("runner stopped. ")
    assert runner_pid(connection) is None
    assert "no runner was running; embedded Redis stopped" in shows(shell, "%feature stop")
    # Nothing is lost: the same values are there again, and the worker goes on.
    shows(shell, "%feature connect")
    assert runner_pid(connection) is not None
    _, shown = run(shell, "print(fs.serve('total_readtime', user='u1').to_dict())")
    assert shown.stdout.strip() == "{'user': ['u1'], 'total_readtime': [750]}"


def test_help_lists_every_verb_and_unload_puts_things_back(shell: InteractiveShell) -> None:
    from fs_notebook.jupyter.options import VERBS

    text = shows(shell, "%feature help")
    assert all(verb in text for verb in VERBS)
    assert shell.user_ns["fs"] is fs_notebook
    shell.run_line_magic("unload_ext", "fs_notebook")
    assert "fs" not in shell.user_ns
    assert "feature" not in shell.magics_manager.magics["line"]
    shell.run_line_magic("load_ext", "fs_notebook")


def test_a_variable_of_ones_own_is_not_overwritten(shell: InteractiveShell) -> None:
    shell.run_line_magic("unload_ext", "fs_notebook")
    shell.user_ns["fs"] = "mine"
    shell.run_line_magic("load_ext", "fs_notebook")
    assert shell.user_ns["fs"] == "mine"
    del shell.user_ns["fs"]


def test_results_of_the_python_api_are_rich_too(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    for call, says in [
        (f'fs.feature("reading_time", "{SQL}")', "7 entities"),
        ('fs.promote("reading_time")', "live v1"),
        ('fs.verify("reading_time")', "equal to the ledger"),
    ]:
        result, _ = run(shell, call)
        assert result.success
        data, _ = shell.display_formatter.format(result.result)
        assert says in data["text/html"]
        assert data["text/plain"] == repr(result.result)


def test_errors_of_the_python_api_show_the_users_lines_only(shell: InteractiveShell) -> None:
    _, shown = run(shell, "def ask():\n    return fs.serve(['nothing'], user=['u1'])\n\nask()")
    text = shown.stdout + shown.stderr
    assert "UnknownName: There is no served feature named 'nothing'." in text
    assert "return fs.serve(['nothing'], user=['u1'])" in text
    assert "Traceback" not in text
    assert "serve.py" not in text


def test_a_discarded_draft_is_gone(shell: InteractiveShell) -> None:
    shows(shell, "%feature upload reads --stream read_events")
    shows(shell, f"%%feature reading_time\n{SQL}")
    assert shows(shell, "%feature retire reading_time") == ""
    assert "Nothing matches" in shows(shell, "%feature catalog kind:group")


def test_an_interrupt_says_what_goes_on(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fs_notebook.jupyter.progress import ProgressBar

    shows(shell, "%feature upload reads --stream read_events")
    shows(shell, f"%%feature reading_time\n{SQL}")

    def interrupt(bar: ProgressBar, progress: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "__call__", interrupt)
        assert "the worker of 'reading_time' v1 goes on" in fails(
            shell, "%feature promote reading_time"
        )
    assert "live v1" in shows(shell, "%feature promote reading_time")


def test_a_view_cell_shows_its_rows(shell: Any) -> None:
    shows(shell, "%feature upload reads --stream read_events --time ts")
    rows = "SELECT user, readtime AS r FROM read_events WHERE readtime > 1"
    text = shows(shell, f"%%view long_reads --description 'long ones'\n{rows}")
    assert "long_reads v1" in text
    assert "long ones" in shows(shell, "%feature views")
    assert "u2" in shows(shell, "%feature views long_reads")
    assert "did you mean 'long_reads'" in fails(shell, "%feature views long_read")
    assert "no groups" in fails(shell, "%%view v\nSELECT user FROM read_events GROUP BY user")
    assert "the following arguments are required: name" in fails(shell, "%%view\nSELECT 1")
