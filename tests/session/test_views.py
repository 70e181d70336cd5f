"""Views: named in the catalog, seen in the notebook, inlined by features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fs_notebook.errors import DefinitionError, NameTaken, UnknownName
from fs_notebook.jupyter.display import ViewCard, ViewTable
from fs_notebook.session import Session
from tests.support.sessions import read_events, until

LONG = (
    "SELECT user AS reader, readtime / 2.0 AS half, ts AS at FROM read_events WHERE readtime >= 3"
)
SQL = "SELECT reader, SUM(half) AS total, COUNT(*) AS n FROM long_reads GROUP BY reader"


def expected(count: int) -> dict[str, tuple[float, int]]:
    found: dict[str, tuple[float, int]] = {}
    for event in read_events(0, count):
        if event["readtime"] >= 3:
            total, n = found.get(event["user"], (0.0, 0))
            found[event["user"]] = (total + event["readtime"] / 2, n + 1)
    return found


def test_a_feature_over_a_view_goes_all_the_way(session: Session) -> None:
    session.upload(read_events(0, 60), "read_events", time="ts", key="user")
    rows = session.create_view("long_reads", LONG, limit=4)
    assert rows.types == session.view_rows("long_reads").types
    assert [str(t) for _, t in rows.types] == ["VARCHAR", "DOUBLE", "TIMESTAMP"]
    assert (rows.time, rows.frame.height) == ("at", 4)
    assert sorted(rows.frame["half"]) == [1.5, 2.0, 2.5, 3.0]
    preview = session.feature("long_reading", SQL)
    shown = {r["reader"]: (r["total"], r["n"]) for r in preview.frame.rows(named=True)}
    assert shown == expected(60)
    session.promote("long_reading")
    session.append(read_events(60, 7), "read_events")
    wanted = expected(67)
    users = sorted(wanted)
    until(lambda: session.serve("n", reader=users)["n"] == [wanted[u][1] for u in users])
    assert session.verify("long_reading").ok


def test_a_feature_keeps_the_view_that_it_was_defined_with(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 10), "read_events", time="ts")
    session.create_view("long_reads", LONG)
    one = session.define("long_reading", SQL)
    again = session.create_view("long_reads", LONG)
    assert again.view.version == 1
    changed = session.create_view("long_reads", LONG.replace(">= 3", ">= 4"))
    assert changed.view.version == 2
    assert session.catalog.refresh().group("long_reading").latest.fingerprint == one.fingerprint
    # The same text over another view means something else.
    assert session.define("long_reading", SQL).fingerprint != one.fingerprint
    assert [v.name for v in session.row_views()] == ["long_reads"]


@pytest.mark.parametrize(
    ("name", "text", "error", "says"),
    [
        ("read_events", LONG, NameTaken, "is a stream"),
        ("v", "SELECT user, SUM(readtime) AS s FROM read_events GROUP BY user", DefinitionError,
         "no groups"),
        ("v", "SELECT usr FROM read_events", DefinitionError, "user"),
        ("v", "SELECT user FROM v", UnknownName, "stream"),
        ("v", "SELECT user FROM read_event", UnknownName, "read_events"),
        ("two words", LONG, Exception, "letters"),
    ],
)  # fmt: skip
def test_what_is_no_view_changes_nothing(
    embedded_session: Session, name: str, text: str, error: type[Exception], says: str
) -> None:
    embedded_session.upload(read_events(0, 3), "read_events", time="ts")
    with pytest.raises(error, match=says):
        embedded_session.create_view(name, text)
    assert embedded_session.row_views() == []


def test_names_of_views_are_not_free_for_streams(embedded_session: Session) -> None:
    embedded_session.upload(read_events(0, 3), "read_events", time="ts")
    embedded_session.create_view("long_reads", LONG)
    with pytest.raises(NameTaken, match="is a view"):
        embedded_session.upload(read_events(0, 3), "long_reads", time="ts")
    with pytest.raises(UnknownName, match="long_reads"):
        embedded_session.view_rows("long_read")


def test_views_have_a_rich_and_a_plain_form(embedded_session: Session, tmp_path: Path) -> None:
    embedded_session.upload(read_events(0, 5), "read_events", time="ts")
    rows: Any = embedded_session.create_view("long_reads", LONG, description="3 and <b>more</b>")
    card = ViewCard(rows)
    assert "event time" in card.html()
    assert "half" in repr(card)
    table = ViewTable(embedded_session.row_views())
    assert "&lt;b&gt;" in table.html()
    assert "long_reads" in repr(table)
    empty = embedded_session.create_view("none", "SELECT user FROM read_events WHERE readtime < 0")
    assert "5 events were read" in ViewCard(empty).html()
    assert repr(rows).startswith("view long_reads v1 of read_events")
