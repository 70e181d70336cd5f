"""Displays say what there is, escape what users wrote, and draw without a network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import WHOLE, Preview, Slice, preview
from fs_notebook.errors import UsageError
from fs_notebook.jupyter import values
from fs_notebook.jupyter.chart import BINS_MAX, TOP, distribution
from fs_notebook.jupyter.display import (
    CatalogTable,
    PreviewCard,
    StatusTable,
    StreamTable,
    catalog_html,
    preview_html,
    state_text,
    status_html,
)
from fs_notebook.jupyter.table import Table, tag
from fs_notebook.jupyter.verified import VerificationCard, verification_html
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type
from fs_notebook.worker.verify import Mismatch, Verification

pytestmark = pytest.mark.timeout(60)

EVIL = "<script>alert('\"x\"')</script><img src=x onerror=alert(1)>"
STREAM = Stream(
    "reads",
    (("user", Type.VARCHAR), ("x", Type.DOUBLE), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)),
    time="ts",
)
Previewer = Callable[..., Preview]


class Page(HTMLParser):
    """What a browser would make of a fragment: its elements, and its text without style."""

    VOID = frozenset({"img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for n, attributes in self.elements if n == name]


@pytest.fixture
def previewer(tmp_path: Path) -> Iterator[Previewer]:
    log = EmbeddedLog(tmp_path)
    log.create(STREAM)

    def run(
        sql: str, rows: list[dict[str, Any]], *, name: str = "reading", where: Slice = WHOLE,
        entity: tuple[str, ...] = (), notes: tuple[str, ...] = (),
    ) -> Preview:  # fmt: skip
        if rows:
            log.append(STREAM, pl.DataFrame(rows, schema={n: t.polars for n, t in STREAM.columns}))
        source = SourceColumns(STREAM.name, STREAM.columns, STREAM.time)
        plan = compile_sql(sql, name=name, find_source=lambda _: source, entity=entity)
        return preview(name, plan, STREAM, log, clock=SYSTEM, where=where, notes=notes)

    yield run
    log.close()


def events(count: int, users: int = 20) -> list[dict[str, Any]]:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return [
        {"user": f"u{n % users:02}", "x": n / 7, "n": n, "ts": start + timedelta(minutes=n)}
        for n in range(count)
    ]


SQL = "SELECT user, SUM(x) AS total, COUNT(*) AS n, MAX(ts) AS last FROM reads GROUP BY user"


def test_a_card_shows_figures_rows_and_one_chart_a_feature(previewer: Previewer) -> None:
    shown = previewer(SQL, events(205))
    page = Page(PreviewCard(shown, {"state": "live", "version": 3}).html())
    for fact in ("reading", "by user", "live v3", "entities 20", "events folded 205",
                 "2024-01-01 00:00 – 2024-01-01 03:24", "just after 2024-01-01 03:24:00",
                 "cut 0:0:204:0", "first 10 of 20 entities", "total DOUBLE", "n BIGINT",
                 "last TIMESTAMP", shown.plan.fingerprint[:12]):  # fmt: skip
        assert fact in page.text
    assert "null keys" not in page.text
    assert "dead letters" not in page.text
    assert len(page.named("svg")) == len(page.named("figure")) == 3
    assert len(page.named("tr")) == 11


def test_a_card_is_accessible(previewer: Previewer) -> None:
    page = Page(preview_html(previewer(SQL, events(200))))
    assert {h["scope"] for h in page.named("th")} == {"col", "row"}
    assert all(figure["aria-label"] for figure in page.named("figure"))
    for svg in page.named("svg"):
        assert svg["role"] == "img"
        assert (svg["aria-label"] or "").startswith("Distribution of ")
    # Parts of a drawing that have a role would each need a name.
    assert not [a for _, a in page.elements if a.get("role") == "graphics-symbol"]
    assert page.elements[0][1]["aria-label"] == "Preview of reading"
    assert page.named("caption")


def test_the_bundle_has_html_and_the_plain_preview(previewer: Previewer) -> None:
    shown = previewer(SQL, events(5))
    bundle = PreviewCard(shown)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert bundle["text/plain"] == repr(shown) == repr(PreviewCard(shown))


def test_a_card_needs_no_script_and_no_network(previewer: Previewer) -> None:
    text = preview_html(previewer(SQL, events(200)))
    page = Page(text)
    assert not page.named("script")
    assert not [a for _, a in page.elements if {"src", "href"} & set(a)]
    assert "url(" not in text
    assert "@import" not in text


def test_charts_leave_the_background_to_the_theme(previewer: Previewer) -> None:
    text = preview_html(previewer(SQL, events(200)))
    assert 'fill="white"' not in text
    assert 'fill="#fff' not in text


def test_text_of_users_is_never_markup(previewer: Previewer) -> None:
    rows = [{**e, "user": EVIL} for e in events(3)] + [{**e, "user": "x"} for e in events(40)]
    sql = f'SELECT n, MAX(user) AS "{EVIL.replace(chr(34), chr(34) * 2)}" FROM reads GROUP BY n'
    shown = previewer(sql, rows, entity=("<i>key",), notes=(EVIL,))
    shown = replace(shown, name=EVIL)
    for status in (None, {"state": EVIL, "version": EVIL}):
        page = Page(preview_html(shown, status))
        assert not page.named("script")
        assert not page.named("img")
        assert not page.named("i")
        assert "alert(" in page.text


def test_text_of_users_is_never_markup_in_tables() -> None:
    row = {"name": EVIL, "state": EVIL, "version": 1, "error": EVIL, "position": EVIL,
           "entity": [EVIL], "features": [{"name": EVIL, "type": EVIL}], "tags": [EVIL],
           "latest": 1, "description": EVIL, "owner": EVIL, "updated_at": EVIL}  # fmt: skip
    examples = (Mismatch(EVIL, EVIL, EVIL, EVIL),)
    outcome = Verification(EVIL, 1, EVIL, 1, 1, 1, 1, examples)
    for text in (status_html([row]), catalog_html([row]), verification_html(outcome),
                 Table([{EVIL: EVIL}], title=EVIL).html(), Table([], title=EVIL).html(),
                 StreamTable([Stream(EVIL, ((EVIL, Type.BIGINT),))]).html()):  # fmt: skip
        page = Page(text)
        assert not page.named("script")
        assert not page.named("img")


def test_an_attribute_cannot_be_left() -> None:
    page = Page(tag("p", "x", title='"><script>'))
    assert page.elements == [("p", {"title": '"><script>'})]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "The stream has no events in this slice."),
        (events(4), "None of the 4 events passed WHERE with a key that is not null."),
    ],
)
def test_no_entities_is_a_sentence(
    previewer: Previewer, rows: list[dict[str, Any]], sentence: str
) -> None:
    sql = "SELECT user, SUM(x) AS total FROM reads WHERE n < 0 GROUP BY user"
    page = Page(preview_html(previewer(sql, rows)))
    assert sentence in page.text
    assert "entities 0" in page.text
    assert not page.named("figure")
    assert not page.named("table")


def test_a_slice_a_sample_dropped_keys_and_notes_are_said(previewer: Previewer) -> None:
    rows = [*events(30), {"user": None, "x": 1.0, "n": 1, "ts": datetime(2024, 1, 2, tzinfo=UTC)}]
    where = Slice(last_us=2 * 86_400_000_000, sample=3)
    page = Page(preview_html(previewer(SQL, rows, where=where, notes=("look here",))))
    assert "only the newest 2d of the stream" in page.text
    assert "at most 3 entities" in page.text
    assert "null keys 1 dropped" in page.text
    assert "look here" in page.text


def test_dead_letters_are_said_only_if_there_are_some(previewer: Previewer) -> None:
    shown = previewer(SQL, events(30))
    assert "2 dead letters" in Page(preview_html(replace(shown, dead=2))).text


def test_a_group_of_many_features_draws_the_first_six(previewer: Previewer) -> None:
    many = ", ".join(f"SUM(x + {n}) AS f{n}" for n in range(9))
    card = PreviewCard(previewer(f"SELECT user, {many} FROM reads GROUP BY user", events(50)))
    page = Page(card.html())
    assert len(page.named("svg")) == 6
    assert "3 more features are not drawn" in page.text


def test_a_chart_is_an_altair_chart_for_any_feature(previewer: Previewer) -> None:
    altair = pytest.importorskip("altair")
    many = ", ".join(f"SUM(x + {n}) AS f{n}" for n in range(9))
    card = PreviewCard(previewer(f"SELECT user, {many} FROM reads GROUP BY user", events(50)))
    assert isinstance(card.chart("f0"), altair.Chart)
    assert isinstance(card.chart("f8"), altair.Chart)


def drawn(values: list[Any], dtype: Any = None) -> tuple[list[dict[str, Any]], str]:
    found = distribution(pl.Series("f", values, dtype=dtype))
    assert found.spec is not None
    svg = found.svg()
    assert svg is not None
    ElementTree.fromstring(svg)
    return found.spec["data"]["values"], found.caption


def test_a_histogram_counts_every_finite_value() -> None:
    bins, caption = drawn([n / 3 for n in range(1000)] + [math.nan, math.inf, None])
    assert sum(b["n"] for b in bins) == 1000
    assert len(bins) <= BINS_MAX
    assert "2 NaN or infinite, not drawn" in caption
    assert "less than 0.1% null" in caption


def test_few_integers_have_a_bar_each() -> None:
    bins, caption = drawn([1] * 5 + [2] * 3 + [7])
    assert [(b["a"] + 0.5, b["n"]) for b in bins] == [(1, 5), (2, 3), (7, 1)]
    assert "1 to 7, median 1" in caption
    assert "no nulls" in caption


def test_few_integers_have_ticks_at_whole_numbers_only() -> None:
    svg = distribution(pl.Series("f", [0] * 30 + [1] * 2)).svg()
    assert svg is not None
    texts = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")]
    # The axis below comes first; the counts are 0 to 30.
    assert texts[:2] == ["0", "1"]
    assert not {"-1", "\u22121", "2"} & set(texts)


def test_names_of_categories_have_room_in_any_font() -> None:
    svg = distribution(pl.Series("f", ["technology", "technology", "travel"])).svg()
    assert svg is not None
    (left,) = re.findall(r'^<svg.*?transform="translate\((\d+),', svg)
    # Ten letters of 6 pixels: a browser's font may be wider than the one it was laid out with.
    assert int(left) >= 60


def test_a_tail_that_would_squeeze_the_rest_is_cut_and_counted() -> None:
    bins, caption = drawn([float(n) for n in range(1000)] + [1e6, 2e6])
    outside = 1002 - sum(b["n"] for b in bins)
    assert outside >= 2
    assert f"{outside} above" in caption
    assert "0 to 2,000,000" in caption


def test_an_even_spread_is_not_cut() -> None:
    bins, caption = drawn([float(n) for n in range(1000)])
    assert sum(b["n"] for b in bins) == 1000
    assert "above" not in caption


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([], "no values"),
        ([None, None], "every value is null"),
        ([3, 3, 3], "every value is 3"),
        ([math.nan, math.inf], "no finite value"),
        (["a", "b", "c"], "3 different values, each once"),
        (["a", "a", None], "every value is a"),
        ([-1.7e308, 1.7e308], "too wide or too narrow"),
        ([0.0, 5e-324], "too wide or too narrow"),
    ],
)
def test_where_a_chart_says_nothing_a_sentence_does(given_: list[Any], said: str) -> None:
    found = distribution(pl.Series("f", given_))
    assert found.spec is None
    assert found.svg() is None
    assert said in found.caption
    with pytest.raises(UsageError, match="no chart of 'f'"):
        found.chart()


def test_categories_are_the_most_frequent_ties_by_value() -> None:
    texts = [f"c{n:02}" for n in range(14) for _ in range(2)] + ["top"] * 3
    bars, caption = drawn(texts)
    assert [b["value"] for b in bars] == ["top", *(f"c{n:02}" for n in range(TOP - 1))]
    assert f"15 different values, the {TOP} most frequent drawn" in caption


def test_long_texts_that_look_alike_keep_bars_of_their_own() -> None:
    bars, _ = drawn(["x" * 50 + "a", "x" * 50 + "b"] * 2 + ["", "", "\n", "\n"])
    assert len({b["value"] for b in bars}) == 4


def test_markup_in_a_category_stays_text() -> None:
    svg = distribution(pl.Series("f", [EVIL, EVIL, "<b>", "<b>"])).svg()
    assert svg is not None
    names = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert names <= {"svg", "g", "path", "rect", "line", "text", "title"}


def test_booleans_times_dates_and_lengths_are_drawn() -> None:
    bars, _ = drawn([True, False, True])
    assert bars == [{"value": "true", "n": 2}, {"value": "false", "n": 1}]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(100)]
    bins, caption = drawn(hours, pl.Datetime("us", "UTC"))
    assert sum(b["n"] for b in bins) == 100
    assert caption.startswith("2024-01-01 00:00:00 to 2024-01-05 03:00:00 UTC")
    bins, caption = drawn([date(2024, 1, 1), date(2024, 1, 3)])
    assert [b["b"] - b["a"] for b in bins] == [86_400_000] * 2
    bins, caption = drawn([timedelta(hours=n) for n in range(10)])
    assert caption.startswith("in hours: 0 to 9")


@settings(max_examples=60)
@given(
    st.one_of(
        st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30),
        st.lists(st.one_of(st.none(), st.floats()), max_size=30),
        st.lists(st.one_of(st.none(), st.datetimes(timezones=st.just(UTC))), max_size=30),
        st.lists(st.one_of(st.none(), st.booleans()), max_size=30),
    )
)
@example([1.597693134862316e308, -1.0])
def test_any_column_can_be_described(column: list[Any]) -> None:
    found = distribution(pl.Series("f", column))
    assert found.facts
    if found.spec is not None:
        assert len(found.spec["data"]["values"]) <= BINS_MAX + 1
        assert all(math.isfinite(b.get("a", 0)) for b in found.spec["data"]["values"])


@settings(max_examples=60)
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=30))
@example(["a" * 20 + "\U0001f600" * 15])  # Cut between its halves, it ended the process.
def test_any_texts_can_be_drawn(column: list[Any]) -> None:
    svg = distribution(pl.Series("f", column, dtype=pl.String)).svg()
    if svg is not None:
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "draft"),
        ({"state": "live", "version": 3}, "live v3"),
        ({"state": "bootstrapping", "version": 4, "progress": 0.62}, "bootstrapping v4 62%"),
        ({"state": "starting", "version": 2, "progress": None}, "starting v2"),
        ({"state": "live", "version": 3, "latest": 3, "progress": 1.0}, "live v3"),
        ({"state": "draft", "version": None, "latest": 0}, "draft"),
        (
            {"state": "bootstrapping", "version": 1, "latest": 2, "progress": 0.5},
            "bootstrapping 50%, v1 serves",
        ),
    ],
)
def test_a_state_in_words(status: dict[str, Any] | None, text: str) -> None:
    assert state_text(status) == text


STATUS = [
    {"name": "reading", "version": 3, "state": "live", "serving": True, "position": "0:0:9:0",
     "lag": 0, "rate": 51234.4, "events": 336776, "error": None, "progress": 1.0, "late": 0},
    {"name": "größe", "version": 1, "state": "failing", "serving": False, "position": None,
     "lag": None, "rate": 0.44, "events": 0, "error": "Redis is away", "progress": None, "late": 0},
]  # fmt: skip


def test_the_status_table_in_plain_text_is_aligned() -> None:
    lines = repr(StatusTable(STATUS)).splitlines()
    assert lines[0] == "Workers"
    row = " ".join(lines[3].split())
    assert row == "reading live v3 yes · 0 51,234 336,776 0:0:9:0"
    cells = ("events folded", "336,776", " 0 ")
    ends = [
        line.index(cell) + len(cell)
        for line, cell in zip([lines[1], *lines[3:]], cells, strict=True)
    ]
    assert ends[0] == ends[1] == ends[2] - 1


def test_columns_that_say_nothing_are_left_out() -> None:
    page = Page(status_html(STATUS))
    assert "late" not in page.text
    assert "last error" in page.text
    assert "Redis is away" in page.text
    error = "Redis at a far address does not answer. " * 6 + "the end"
    assert "the end" in Page(status_html([{"name": "a", "error": error}])).text
    assert Page(status_html([{"name": "a", "late": 7}])).text.endswith("state late a draft 7")


def test_the_catalog_lists_features_and_stays_short() -> None:
    features = [{"name": f"feature_{n}", "type": "BIGINT"} for n in range(40)]
    group = {"name": "g", "entity": ["user", "item"], "features": features, "state": "live",
             "version": 2, "latest": 2, "tags": ["a", "b"], "updated_at": "2026-01-05T10:11:12Z",
             "progress": None, "owner": None, "description": None}  # fmt: skip
    page = Page(CatalogTable([group]).html())
    for fact in ("user, item", "feature_0 BIGINT", "more", "live v2", "a, b", "2026-01-05 10:11"):
        assert fact in page.text
    assert "feature_39" not in page.text
    assert "owner" not in page.text


def test_empty_tables_say_so() -> None:
    assert "No feature group has a worker yet." in Page(status_html([])).text
    assert repr(CatalogTable([])) == "Catalog: No feature group matches."
    assert "upload makes one" in repr(StreamTable([]))


def test_a_verification_says_equal_or_shows_the_differences() -> None:
    equal = Verification("reading", 3, "0:0:9:0", 20, 60, 200, 0, ())
    page = Page(VerificationCard(equal).html())
    assert "equal to the ledger" in page.text
    assert not page.named("table")
    examples = tuple(Mismatch(f"u{n}", "total", 1.5, None) for n in range(2))
    broken = replace(equal, mismatches=30, examples=examples)
    page = Page(verification_html(broken))
    assert "30 mismatches" in page.text
    assert "first 2 of 30" in page.text
    assert "u1 total 1.5 ·" in page.text
    assert VerificationCard(broken)._repr_mimebundle_()["text/plain"] == repr(broken)
    some = replace(equal, sampled_from=9_000, seed=7)
    assert "20 of 9,000, a sample (seed 7)" in Page(verification_html(some)).text
    assert "20 of 9,000 entities (a sample, seed 7)" in repr(some)


def test_a_table_takes_rows_as_they_are_and_aligns_wide_characters() -> None:
    table = Table([{"who": "日本", "n": 1_000}, {"who": "abcdef", "extra": None}])
    lines = repr(table).splitlines()
    assert lines[0].split() == ["who", "n", "extra"]
    assert {values.width(line[: line.index("1,000")]) for line in lines if "1,000" in line} == {8}
    assert set(table._repr_mimebundle_()) == {"text/html", "text/plain"}
    with pytest.raises(TypeError, match="a row is a mapping"):
        Table([3])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "·"), (True, "true"), (1234567, "1,234,567"), (1234.56789, "1,234.57"),
        (0.000012345678, "1.23457e-05"), (2.0, "2"), (-0.0, "0"), (math.nan, "NaN"),
        (-math.inf, "-∞"), (1e300, "1e+300"), (999999.96, "1,000,000"),
        (datetime(2024, 1, 2, 3, 4, 5, 60, UTC), "2024-01-02 03:04:05.00006"),
        (date(2024, 1, 2), "2024-01-02"), (timedelta(days=3, hours=4, seconds=1), "3d 4h"),
        (timedelta(milliseconds=-250), "-0.25s"), ("a\nb\x1b[31m\u202e", "a␊b␛[31m\ufffd"),
        ("x" * 500, "x" * 79 + "…"), ([1, None], "[1, ·]"),
    ],
)  # fmt: skip
def test_values_are_shown_on_one_line(value: Any, text: str) -> None:
    assert values.show(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_six_digits_are_right(value: float) -> None:
    shown = float(values.number(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=5.1e-6, abs_tol=0)
