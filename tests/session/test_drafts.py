"""Drafts: whose they are, what they may become, and how they go."""

from __future__ import annotations

from contextlib import closing

import pytest

from fs_notebook.errors import NameTaken, UsageError
from fs_notebook.session import Session
from tests.support.sessions import SUM_SQL, read_events


@pytest.fixture
def ready(embedded_session: Session) -> Session:
    embedded_session.upload(read_events(0, 10), "read_events", time="ts")
    embedded_session.define("reading_time", SUM_SQL)
    return embedded_session


OTHER_ENTITY = "SELECT readtime, COUNT(*) AS n FROM read_events GROUP BY readtime"


def test_a_name_of_another_entity_is_refused(ready: Session) -> None:
    """What a colleague drafted, and what anybody promoted, is not for the taking."""
    with (
        closing(Session(ready.connection, actor="bob")) as bob,
        pytest.raises(NameTaken, match="another entity"),
    ):
        bob.define("reading_time", OTHER_ENTITY)
    ready.promote("reading_time", wait=False)
    with pytest.raises(NameTaken, match="another entity"):
        ready.define("reading_time", OTHER_ENTITY)


def test_ones_own_draft_may_still_become_anything(ready: Session) -> None:
    """A mistyped --entity would block its name for ever."""
    assert ready.define("reading_time", OTHER_ENTITY).plan.entity == ("readtime",)
    assert ready.view("reading_time")["entity"] == ["readtime"]


def test_a_discarded_draft_frees_its_names(ready: Session) -> None:
    with pytest.raises(NameTaken, match="%feature retire reading_time"):
        ready.define("time_read", SUM_SQL)
    ready.retire("reading_time")
    assert ready.features() == []
    ready.define("time_read", SUM_SQL)
    ready.promote("time_read", wait=False)
    with pytest.raises(UsageError, match="has no draft"):
        ready.retire("time_read")
    ready.define("time_read", SUM_SQL.replace("SUM(", "MAX("))
    ready.retire("time_read")
    assert "SUM(" in ready.catalog.refresh().group("time_read").latest.text


@pytest.mark.parametrize("wrong", [{"last": "soon"}, {"sample": "none"}, {"from_": "then"}])
def test_a_wrong_slice_leaves_no_draft(ready: Session, wrong: dict[str, str]) -> None:
    before = ready.catalog.refresh().events
    with pytest.raises(UsageError):
        ready.feature("other", OTHER_ENTITY, **wrong)
    assert ready.catalog.refresh().events == before


def test_a_preview_of_what_was_promoted_before_says_so(ready: Session) -> None:
    second = SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 1)")
    ready.promote("reading_time")
    assert "promoting makes this v2" in str(ready.feature("reading_time", second).notes)
    ready.promote("reading_time")
    ready.rollback("reading_time")
    notes = str(ready.feature("reading_time", second).notes)
    assert "this is v2 again: promoting serves it; v1 goes on serving until then" in notes
    assert ready.promote("reading_time").version == 2
