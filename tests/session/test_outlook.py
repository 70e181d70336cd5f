"""What a promotion would do is told before, and is what it then does."""

from __future__ import annotations

import polars as pl
import pytest

from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.language.cell import parse_source
from tests.support.sessions import SUM_SQL, read_events

CELL = f"%%feature reading_time --entity user\n{SUM_SQL}"


@pytest.fixture
def filled(embedded_session):
    embedded_session.upload(pl.DataFrame(read_events(0, 400)), "read_events", time="ts")
    return embedded_session


def test_a_cell_that_nobody_ran_is_told_of_and_nothing_is_recorded(filled):
    before = filled.catalog.refresh().events
    outlook = filled.outlook(parse_source(CELL))
    assert (outlook.version, outlook.serving, outlook.work) == (1, None, "fold")
    assert (outlook.streams, outlook.events) == (("read_events",), 400)
    assert outlook.seconds is not None
    assert outlook.seconds >= 1
    assert outlook.used_by == outlook.readers == outlook.changes == ()
    assert "folds 400 events of read_events, about" in repr(outlook)
    assert filled.catalog.refresh().events == before


def test_what_is_told_of_is_what_happens(filled):
    filled.define_cell(parse_source(CELL))
    assert filled.promote("reading_time").version == filled.outlook("reading_time").version == 1
    assert filled.outlook(parse_source(CELL)).work == "serves"

    changed = parse_source(CELL.replace("SUM(", "MAX("))
    told = filled.outlook(changed)
    assert (told.version, told.serving, told.work) == (2, 1, "fold")
    assert told.changes == ("total_readtime is computed otherwise",)
    filled.define_cell(changed)
    assert filled.promote("reading_time").version == 2
    # The former version is kept up to date: going back to its text folds nothing.
    back = filled.outlook(parse_source(CELL))
    assert (back.version, back.serving, back.work, back.events) == (1, 2, "warm", None)


def test_it_says_who_is_touched(filled):
    filled.define_cell(parse_source(CELL))
    filled.promote("reading_time")
    filled.define("ratio", "SELECT total_readtime / 2 AS ratio FROM total_readtime")
    filled.serve("total_readtime", user=["u1"])
    filled.deprecate("reading_time", reason="slow")
    told = filled.outlook("reading_time")
    assert [str(node) for node in told.used_by] == ["ratio (group)"]
    assert [use.kind for use in told.readers] == ["serving"]
    assert "slow" in told.notes[0]
    derived = filled.outlook("ratio")
    assert (derived.work, derived.depends_on) == ("derived", ("reading_time v1",))
    assert "at once: it is computed from reading_time v1" in repr(derived)


def test_what_would_be_refused_is_refused_here(filled):
    with pytest.raises(DefinitionError, match="redtime"):
        filled.outlook(parse_source(CELL.replace("readtime)", "redtime)")))
    filled.define_cell(parse_source(CELL))
    filled.define("ratio", "SELECT total_readtime / 2 AS ratio FROM total_readtime")
    with pytest.raises(UsageError, match="not promoted"):
        filled.outlook("ratio")


def test_the_notebook_that_a_feature_came_from_is_kept(filled):
    filled.define_cell(parse_source(CELL), notebook="/books/reading.ipynb")
    # Somebody else, who promotes the same text from elsewhere, does not change where it came from.
    filled.define_cell(parse_source(CELL), actor="eve")
    origin = filled.about("reading_time").notebook
    assert origin is not None
    # Of a path of this machine only the name is anybody else's business.
    assert (origin.name, origin.path) == ("reading.ipynb", None)
