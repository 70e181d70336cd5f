"""What can be written is all there to be looked up."""

from __future__ import annotations

import pytest

import fs_notebook as fs
from fs_notebook.errors import UnknownName
from fs_notebook.jupyter.display import FunctionTable
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.functions import FUNCTIONS


def test_every_aggregate_says_what_it_promises() -> None:
    rows = {r["name"]: r for r in fs.functions("aggregate")}
    assert set(AGGREGATES) <= set(rows)
    for name, kind in AGGREGATES.items():
        row = rows[name]
        assert len(row["about"]) > 20, name
        assert row["about"].endswith("."), name
        assert (row["state"] == "bounded") is kind.bounded
        assert row["merges"] is True
        assert row["error"]
    assert rows["approx_n_unique"]["error"] == "1.6 % standard error"
    assert rows["sum"]["error"] == "exact"


def test_words_narrow_and_near_names_are_suggested() -> None:
    assert {r["name"] for r in fs.functions("quantile approx")} == {"approx_quantile"}
    assert len(fs.functions()) == len(AGGREGATES) + len(FUNCTIONS)
    with pytest.raises(UnknownName, match="entropy"):
        fs.functions("entropie")


def test_the_table_has_a_rich_and_a_plain_form() -> None:
    table = FunctionTable(fs.functions("decayed"))
    assert "DECAYED_SUM(a, half_life)" in table.html()
    assert "decayed_avg" in repr(table)
