"""What the admin interface tells of a topic: where a look begins, what is offloaded and kept."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fs_notebook.errors import UnreachableError
from fs_notebook.log.facts import Facts
from fs_notebook.log.ledgers import entry_before, facts_of
from fs_notebook.position import Position

LEDGERS = [
    {"ledgerId": 7, "entries": 50, "size": 3000, "offloaded": True},
    {"ledgerId": 9, "entries": 20, "size": 1000, "offloaded": False},
    {"ledgerId": 12, "entries": 0, "size": 0, "offloaded": False},
]
TOPIC = "persistent://public/default/reads"


class FakeAdmin:
    def __init__(self, retention: dict[str, int] | None = None, *, silent: bool = False) -> None:
        self.kept = retention
        self.silent = silent

    def internal_stats(self, topic: Any) -> dict[str, Any]:
        if self.silent:
            raise UnreachableError("no answer")
        assert topic.full.startswith(TOPIC)
        return {"ledgers": LEDGERS, "totalSize": 4000, "numberOfEntries": 75}

    def retention(self, topic: Any) -> dict[str, int] | None:
        assert topic.full == TOPIC
        return self.kept


@pytest.mark.parametrize(
    ("entry", "events", "begin"),
    [
        (4, 3, (12, 1)),
        (4, 4, (12, 0)),
        (4, 5, (9, 19)),
        (4, 24, (9, 0)),
        (4, 25, (7, 49)),
        (4, 74, (7, 0)),
        (4, 75, None),
        (4, 1000, None),
    ],
)
def test_a_look_at_the_newest_begins_as_many_entries_before(
    entry: int, events: int, begin: tuple[int, int] | None
) -> None:
    admin = cast(Any, FakeAdmin())
    found = entry_before(admin, TOPIC, Position(0, 12, entry, 3), events)
    assert found == (None if begin is None else Position(0, *begin, 0))


def test_where_nobody_tells_all_is_read() -> None:
    admin = cast(Any, FakeAdmin(silent=True))
    assert entry_before(admin, TOPIC, Position(0, 12, 4, 0), 30) is None
    assert facts_of(admin, [TOPIC]) == Facts(partitions=1)


@pytest.mark.parametrize(
    ("minutes", "size", "says"),
    [
        (-1, -1, "for ever"),
        (0, 0, "until every subscription has read them"),
        (60, 0, "until every subscription has read them"),
        (4320, 512, "up to 4,320 minutes and 512 MB"),
        (4320, -1, "up to 4,320 minutes"),
    ],
)
def test_what_is_kept_and_offloaded_is_told(minutes: int, size: int, says: str) -> None:
    admin = cast(Any, FakeAdmin({"retentionTimeInMinutes": minutes, "retentionSizeInMB": size}))
    facts = facts_of(admin, [f"{TOPIC}-partition-0", f"{TOPIC}-partition-1"])
    assert (facts.kept, facts.entries, facts.stored_bytes) == (says, 150, 8000)
    assert facts.offloaded_share == 0.75
