"""Polars cells in a real IPython shell: run in the user's namespace, shown as any feature."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from fs_notebook.errors import DefinitionError
from fs_notebook.jupyter.polars_cell import value_of
from tests.jupyter.test_magics import fails, run, shell, shows

__all__ = ["shell"]

HEAD = "%%feature long_reads --entity user -l polars --stream read_events"
BODY = "limit = base * 2\npl.col('readtime').filter(pl.col('readtime') > limit).sum()"


def test_a_polars_cell(shell: InteractiveShell) -> None:
    shows(shell, "%feature connect")
    shows(shell, "%feature upload reads --stream read_events --time ts")
    shows(shell, "base = 5")
    card = shows(shell, f"{HEAD}\n{BODY}")
    assert "100 events folded" in card
    assert "long_reads BIGINT" in card
    # The cell is the user's own code: its variables stay, and pl was only lent.
    assert shell.user_ns["limit"] == 10
    assert "pl" not in shell.user_ns
    assert "v1" in shows(shell, "%feature promote long_reads")
    result, _ = run(shell, 'fs.serve("long_reads", user="u1").to_dict()')
    assert result.result["long_reads"] == [sum(n for n in range(1, 100, 7) if n > 10)]
    assert "long_reads" in shows(shell, "%feature catalog long")
    twin = "fs.feature('counted', {'n': fs.stream}, entity='user')"
    assert not run(shell, twin)[0].success
    frame = "fs.stream('read_events').group_by('user').agg(n=pl.len())"
    assert "n BIGINT" in shows(shell, f"%%feature counted -l polars\n{frame}")
    assert "--language {sql,polars}" in shows(shell, "%feature help")


def test_errors_in_a_polars_cell(shell: InteractiveShell) -> None:
    shows(shell, "%feature connect")
    shows(shell, "%feature upload reads --stream read_events --time ts")
    text = fails(shell, f"{HEAD}\npl.col('raedtime').sum()")
    assert "did you mean 'readtime'" in text
    assert "line 2: pl.col('raedtime').sum()" in text
    assert "last line is no expression" in fails(shell, f"{HEAD}\nx = pl.len()")
    assert "This is not Python" in fails(shell, f"{HEAD}\npl.col('readtime'")
    assert "nothing" in fails(shell, f"{HEAD}\nNone")
    assert "Python function" in fails(shell, f"{HEAD}\npl.col('ts').map_batches(repr).max()")
    # What the user's own code raises is shown as in any cell.
    result, shown = run(shell, f"{HEAD}\nx = 1 / 0\npl.len()")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert "x = 1 / 0" in shown.stdout + shown.stderr


def test_pl_is_not_taken_from_who_has_it(shell: InteractiveShell) -> None:
    shell.user_ns["pl"] = mine = object()
    assert value_of("pl", shell) is mine
    assert shell.user_ns["pl"] is mine
    with pytest.raises(DefinitionError, match="nothing"):
        value_of("# only a comment", shell)


def test_a_polars_view_cell(shell: InteractiveShell) -> None:
    shows(shell, "%feature connect")
    shows(shell, "%feature upload reads --stream read_events --time ts")
    body = 'long = fs.stream("read_events").filter(pl.col("readtime") >= 50)\n'
    card = shows(shell, f'%%view long_reads -l polars\n{body}long.select("user", "ts")')
    assert "long_reads" in card
    assert "50" in shows(shell, "%%feature kept --entity user -l polars --stream long_reads\n"
                                "pl.len().alias('kept')")  # fmt: skip
    assert "did you mean 'readtime'" in fails(
        shell, '%%view v -l polars\nfs.stream("read_events").select("raedtime")'
    )
    assert "a SELECT, or a stream" in fails(shell, "%%view v -l polars\npl.col('readtime')")
