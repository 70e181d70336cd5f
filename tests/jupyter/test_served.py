"""What a read of features returns, as a card: values, statuses, freshness, and nothing else."""

from __future__ import annotations

from dataclasses import replace

from IPython.core.interactiveshell import InteractiveShell

from fs_notebook.jupyter import load_ipython_extension, unload_ipython_extension
from fs_notebook.jupyter.served import ROWS_SHOWN, vector_html
from fs_notebook.online.memory import MemoryStore
from fs_notebook.online.serve import FeatureReader
from tests.jupyter.test_display import EVIL, Page
from tests.support.served import Fixed, commit, event, plan_of, publish

SECOND = 1_000_000
SQL = (
    "SELECT user, SUM(readtime) FILTER (WHERE article = 2) AS two, COUNT(*) AS n "
    "FROM read_events GROUP BY user"
)
ARTICLES = "SELECT article, COUNT(*) AS readers FROM read_events GROUP BY article"
EVENTS = [
    event("a", 1, 30, 1 * SECOND),
    event("a", 2, 1_200, 4 * SECOND),
    event("b", 1, 5, 2 * SECOND),
    event(EVIL, 1, 5, 5 * SECOND),
    event("ahead", 1, 7, 9 * SECOND),
]


def reader(seconds: float) -> FeatureReader:
    store = MemoryStore()
    publish(store, commit(store, "reading", plan_of(SQL, "reading", ttl_us=4 * SECOND), EVENTS))
    publish(store, commit(store, "articles", plan_of(ARTICLES, "articles"), EVENTS))
    return FeatureReader(store, clock=Fixed(round(seconds * SECOND)))


class Cells(Page):
    """A page, and the text of its tables' cells, row by row."""

    def __init__(self, text: str) -> None:
        self.rows: list[list[str]] = []
        super().__init__(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(name, attributes)
        if name == "tr":
            self.rows.append([])
        elif name in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data


def test_each_row_says_its_status_and_how_fresh_it_is() -> None:
    served = reader(6.5).read("reading", user=["a", "b", "nobody", EVIL, "ahead"])
    html = vector_html(served)
    assert "<script" not in html
    assert "<img" not in html
    page = Cells(html)
    assert [row[1:] for row in page.rows] == [
        ["two", "n", "status", "newest event"],
        ["1,200", "2", "present", "2.5s ago"],
        ["·", "·", "expired", "4.5s ago"],
        ["·", "0", "not found", "·"],
        ["·", "1", "null: two", "1.5s ago"],
        ["·", "1", "null: two", "in 2.5s"],
    ]
    assert "found 4" in page.text
    assert "expired 1" in page.text


def test_several_groups_have_a_column_of_ages_each_and_rows_are_bounded() -> None:
    count = ROWS_SHOWN + 5
    served = reader(5).read(["n", "readers"], user=["a"] * count, article=[2] * count)
    page = Cells(vector_html(replace(served, notices=(f"old {EVIL}",))))
    rows = page.rows
    assert len(rows) == 1 + ROWS_SHOWN
    assert rows[1] == ["a", "2", "2", "1", "present", "1s ago", "1s ago"]
    assert f"first {ROWS_SHOWN} of {count} entities" in page.text
    assert "reading v1" in page.text
    assert "articles v1" in page.text
    assert f"old {EVIL}" in page.text
    assert not page.named("img")


def test_a_notebook_shows_it_so() -> None:
    shell = InteractiveShell.instance()
    load_ipython_extension(shell)
    try:
        assert shell.display_formatter is not None
        made, _ = shell.display_formatter.format(reader(5).read("n", user="a"))
        assert "Served features" in made["text/html"]
        assert "1 served" in made["text/plain"]
    finally:
        unload_ipython_extension(shell)
        InteractiveShell.clear_instance()
