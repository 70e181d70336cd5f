"""Definitions in the catalog's events: decoded when read, and what happens if they cannot be."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fs_notebook.catalog import stored
from fs_notebook.catalog.definition import Definition, definition_of
from fs_notebook.catalog.index import Index
from fs_notebook.catalog.model import CatalogState, fold
from fs_notebook.errors import UnreadableEntry
from fs_notebook.language.plan import Plan
from tests.catalog.test_search import BUYS, EVENTS, READS, event
from tests.model.definitions import define

SUM = "SELECT user, SUM(readtime) AS total FROM read_events GROUP BY user"
SQL = [
    SUM,
    (
        "SELECT user, COUNT(*) AS n, AVG(readtime + 0.5) AS mean FROM read_events "
        "WHERE readtime > 2.5 AND user <> 'é' GROUP BY user"
    ),
    (
        "SELECT user, CAST(SUM(readtime) AS DECIMAL(20, 2)) AS exact, LAST_N(readtime, 3) AS last "
        "FROM read_events GROUP BY user"
    ),
    (
        "SELECT user, SUM(readtime) OVER (PARTITION BY user ORDER BY ts RANGE BETWEEN INTERVAL 7 "
        "DAY PRECEDING AND CURRENT ROW) AS week FROM read_events"
    ),
]


def as_events(data: dict[str, Any], kind: str = "drafted") -> list[dict[str, Any]]:
    """Return the event of a definition as the ledger gives it: with its text."""
    body = {"definition": data}
    return [event(kind, data["name"], body) | {"text": json.dumps(body)}]


@pytest.mark.parametrize("sql", SQL)
def test_a_stored_definition_is_the_one_that_was_written(sql: str) -> None:
    made = define(READS, sql, name="made")
    (read,) = fold(CatalogState(), as_events(made.to_dict())).groups.values()
    found = read.latest
    assert found.fingerprint == made.fingerprint
    assert found.facts == made.facts
    assert (found.facts.streams, found.facts.entity) == (("read_events",), ("user",))
    assert found.facts.types == tuple(str(o.type) for o in made.plan.outputs)
    assert found == made
    assert found.to_dict() == made.to_dict()


def test_no_plan_is_decoded_for_lists_and_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: object) -> None:
        raise AssertionError("a plan was decoded")

    monkeypatch.setattr(Plan, "from_dict", refuse)
    events = EVENTS + as_events(define(READS, SUM, name="reads_total").to_dict(), "promoted")
    events.append(event("live", "reads_total", {"version": 1}))
    events.append(event("annotated", "reads_total", {"of": "group", "owner": "eve"}))
    state = fold(CatalogState(), events)
    index = Index().of(state)
    assert index.search("owner:eve type:bigint source:read_events").names() == ["reads_total"]
    assert state.owners["total"] == "reads_total"
    assert state.users == {}
    assert index.ways is not None
    state.check_names(state.groups["reads_total"].latest)
    with pytest.raises(AssertionError, match="decoded"):
        _ = state.groups["reads_total"].latest.plan


def test_other_words_leave_a_definition_undecoded() -> None:
    (group,) = fold(CatalogState(), as_events(define(READS, SUM).to_dict())).groups.values()
    first = group.latest
    other = first.saying({"owner": "bob", "tags": ("core",)})
    assert isinstance(vars(other)["plan"], stored.Stored)
    assert (other.owner, other.tags, other.fingerprint) == ("bob", ("core",), first.fingerprint)
    assert other == replace(first, owner="bob", tags=("core",))
    with pytest.raises(AttributeError):
        other.plan = None  # type: ignore[misc, assignment]


def test_undecoded_definitions_are_sent_and_compared() -> None:
    data = define(BUYS, "SELECT user, SUM(price) AS spent FROM buys GROUP BY user").to_dict()
    read = definition_of(data)
    assert isinstance(read, Definition)
    assert pickle.loads(pickle.dumps(read)) == read
    assert read.source == BUYS


def _from_the_future(data: dict[str, Any]) -> None:
    data["plan"]["format"] = 99


def _with_a_new_field(data: dict[str, Any]) -> None:
    data["plan"]["sampling"] = 0.1


def _of_a_new_aggregate(data: dict[str, Any]) -> None:
    data["plan"]["aggregations"][0][0] = "median_of_medians"


def _of_a_new_type(data: dict[str, Any]) -> None:
    data["source"]["columns"][0][1] = "COLOUR"


DAMAGE: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_from_the_future, "plan format 99 is not 1"),
    (_with_a_new_field, "unknown field 'sampling'"),
    (_of_a_new_aggregate, "median_of_medians"),
    (_of_a_new_type, "COLOUR"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE)
def test_an_entry_of_another_version_hits_who_asks_for_it(
    damage: Callable[[dict[str, Any]], None], says: str
) -> None:
    data = define(READS, SUM, name="later").to_dict()
    damage(data)
    state = fold(CatalogState(), EVENTS + as_events(data, "promoted"))
    assert Index().of(state).search("later").names() == ["later"]
    assert state.group("reading_time").latest.plan.features == ("total_readtime",)
    with pytest.raises(UnreadableEntry, match=f"'later' cannot be read(.|\n)*{says}") as caught:
        _ = state.group("later").latest.plan
    assert "fs_notebook" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("kind", "name", "body", "ask"),
    [
        ("drafted", "later", {"definition": {"name": "later"}}, CatalogState.group),
        ("drafted", "later", {"definition": []}, CatalogState.group),
        ("drafted", "later", {}, CatalogState.group),
        ("declared", "later", {"stream": {"name": "later", "columns": [["a", "COLOUR"]],
                                          "time": None, "key": []}}, CatalogState.source),
        ("viewed", "later", {"words": "of the future"}, CatalogState.view),
    ],
)  # fmt: skip
def test_what_cannot_be_read_at_all_is_passed_over_and_named(
    kind: str, name: str, body: dict[str, Any], ask: Callable[[CatalogState, str], object]
) -> None:
    state = fold(CatalogState(), [*EVENTS, event(kind, name, body)])
    assert state.events == len(EVENTS) + 1
    assert Index().of(state).search("").total == Index().of(fold(CatalogState(), EVENTS)).search(
        "").total  # fmt: skip
    assert state.group("reading_time").latest.plan.features == ("total_readtime",)
    with pytest.raises(UnreadableEntry, match="'later' cannot be read"):
        ask(state, name)


def test_nobody_defines_over_what_he_cannot_read_and_who_can_mends_it() -> None:
    made = define(READS, SUM, name="later")
    state = fold(CatalogState(), [event("drafted", "later", {"definition": {}})])
    with pytest.raises(UnreadableEntry):
        state.check_names(made)
    mended = fold(state, as_events(made.to_dict()))
    assert mended.group("later").latest == made
    mended.check_names(made)


def test_the_former_version_goes_on_where_a_newer_one_cannot_be_read() -> None:
    made = define(READS, SUM, name="kept")
    later = made.to_dict()
    later["plan"]["format"] = 99
    events = [*as_events(made.to_dict(), "promoted"), event("live", "kept", {"version": 1})]
    group = fold(CatalogState(), events + as_events(later, "promoted")).group("kept")
    assert [v.number for v in group.versions] == [1, 2]
    assert group.serving is not None
    assert group.serving.definition == made
    with pytest.raises(UnreadableEntry, match="kept"):
        _ = group.version(2).definition.plan
