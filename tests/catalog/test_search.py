"""Searches over a catalog that is folded from its events: what is found, in which order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fs_notebook.catalog.index import Index
from fs_notebook.catalog.model import CatalogState, fold
from fs_notebook.catalog.search import parse_query
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type
from tests.model.definitions import define

AT = datetime(2024, 1, 1, tzinfo=UTC)
READS = Stream("read_events", (("user", Type.VARCHAR), ("readtime", Type.BIGINT),
                               ("ts", Type.TIMESTAMP)), time="ts")  # fmt: skip
BUYS = Stream("buys", (("user", Type.VARCHAR), ("price", Type.DOUBLE),
                       ("ts", Type.TIMESTAMP)), time="ts")  # fmt: skip


def event(kind: str, name: str, body: dict[str, Any], actor: str = "ann") -> dict[str, Any]:
    return {"kind": kind, "name": name, "body": body, "actor": actor, "at": AT}


def drafted(name: str, sql: str, stream: Stream, **words: Any) -> dict[str, Any]:
    definition = define(stream, sql, name=name).to_dict() | words
    return event("drafted", name, {"definition": definition})


EVENTS = [
    event("declared", "read_events", {"stream": READS.to_dict()}),
    event("declared", "buys", {"stream": BUYS.to_dict()}, "bob"),
    drafted("reading_time", "SELECT user, SUM(readtime) AS total_readtime FROM read_events "
            "GROUP BY user", READS, tags=["reading", "core"], owner="ann",
            description="Total time spent reading"),
    drafted("spending", "SELECT user, SUM(price) AS spent, COUNT(*) AS bought FROM buys "
            "GROUP BY user", BUYS, tags=["money"], owner="bob", description="What a user pays"),
    drafted("reads", "SELECT user, COUNT(*) AS readings FROM read_events GROUP BY user", READS),
    event("deprecated", "reads", {"of": "group", "reason": "counts bots"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def index() -> Index:
    return Index().of(fold(CatalogState(), EVENTS))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("kind:group", ["reading_time", "spending", "reads"]),
        ("reading_time", ["reading_time"]),
        ("READING", ["reading_time", "reads"]),
        ("tag:reading", ["reading_time"]),
        ("tag:read", []),
        ("owner:bob", ["spending"]),
        ("kind:group source:read_events", ["reading_time", "reads"]),
        ("stream:read_events kind:group", ["reading_time", "reads"]),
        ("type:float", ["buys", "spending"]),
        ("type:double kind:group", ["spending"]),
        ("status:deprecated", ["reads"]),
        ("status:draft", ["reading_time", "spending"]),
        ("feature:total", ["reading_time"]),
        ("by:bob", ["buys"]),
        ("entity:user time", ["reading_time"]),
        ("kind:group -tag:money -status:deprecated", ["reading_time"]),
        ("kind:group -reading", ["spending"]),
        ("pays user", ["spending"]),
        ('"user pays"', ["spending"]),
        ("kind:stream", ["buys", "read_events"]),
        ("nothinglikethis", []),
        ("tag:", ["buys", "read_events", "reading_time", "spending", "reads"]),
        ('"open', []),
    ],
)
def test_what_a_query_finds(index: Index, query: str, names: list[str]) -> None:
    found = index.search(query)
    assert sorted(found.names()) == sorted(names)
    assert found.total == len(names)
    assert not found.notes


@pytest.mark.parametrize(
    ("query", "names", "read"),
    [
        ("raeding_time", ["reading_time"], "reading_time"),
        ("spneding", ["spending"], "spending"),
        ("tag:readng", ["reading_time"], "tag:reading"),
        ("owner:bobb", ["spending"], "owner:bob"),
        ("totl_readtime", ["reading_time"], "total_readtime"),
        ("source:read_event kind:group", ["reading_time", "reads"], "source:read_events"),
    ],
)
def test_a_typo_stands_for_what_it_looks_like(
    index: Index, query: str, names: list[str], read: str
) -> None:
    found = index.search(query)
    assert sorted(found.names()) == sorted(names)
    assert found.notes[0].endswith(f"read as {read}")


def test_a_word_that_is_somewhere_is_no_typo(index: Index) -> None:
    found = index.search("tag:money reading")
    assert (found.total, found.notes) == (0, ())


def test_names_come_before_descriptions_and_deprecated_ones_last(index: Index) -> None:
    assert index.search("reads").names()[0] == "reads"
    assert index.search("user kind:group").names()[-1] == "reads"
    assert index.search("spending").names()[0] == "spending"


def test_no_more_than_asked_for_and_the_total(index: Index) -> None:
    found = index.search("", limit=2)
    assert (len(found), found.total) == (2, 5)
    assert "and 3 more" in repr(found)


def test_an_unknown_filter_is_refused_with_a_near_one() -> None:
    with pytest.raises(UsageError, match="no filter 'onwer'") as refused:
        parse_query("onwer:ann")
    assert refused.value.remedy == "owner:ann"
    assert [str(t) for t in parse_query("10:30 a:")] == ["10:30", "a:"]


def test_a_newer_state_is_seen_and_unchanged_entries_are_kept() -> None:
    state = fold(CatalogState(), EVENTS)
    index = Index().of(state)
    index.search("raeding")
    kept = index.entry("group", "spending")
    words = {"of": "group", "tags": ["zebra"]}
    index.of(fold(state, [event("annotated", "reading_time", words, "eve")]))
    assert index.search("zebrra").names() == ["reading_time"]
    assert index.search("tag:core").total == 0
    assert index.search("by:eve").names() == ["reading_time"]
    assert index.entry("group", "spending") is kept


def test_odd_events_close_the_catalog_to_nobody() -> None:
    odd = [
        event("annotated", "nothing", {"of": "group", "tags": ["x"]}),
        event("deprecated", "nothing", {"of": "view"}),
        event("annotated", "nothing", {"of": "no such kind", "owner": "x"}),
        event("later", "nothing", {}),
    ]
    state = fold(CatalogState(), [*EVENTS, *odd])
    assert set(state.groups) == {"reading_time", "spending", "reads"}
    assert Index().of(state).search("").total == 5
