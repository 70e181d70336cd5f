"""The sidebar and the bar in a real browser, on a service that is held in memory."""

from __future__ import annotations

import json
import re

import pytest
from harness import Lab, measured
from playwright.sync_api import expect

LONG = "%%feature wide --entity user --description " + "x" * 160
SQL = "\nSELECT user, COUNT(*) AS n FROM clicks -- all of them\nGROUP BY user"
CELLS = [
    "1 + 1",
    f"%%feature fresh --entity user{SQL}",
    f"%%feature reading_time --entity user --tags reading{SQL}",
    LONG + SQL,
    "print('last')",
]
VIEW = "%%view long_reads --description 'a minute and more'\nSELECT user FROM reads -- all"
POLARS = 'fs.stream("reads").with_columns(minutes=pl.col("readtime") / 60)  # FROM WHERE'
COLOURED = [VIEW, f"%%view in_polars -l polars\n{POLARS}", CELLS[1], "select = 1 or None"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bundle):
    names = [
        "list",
        "promote",
        "other",
        "narrow",
        "keys",
        "edit",
        "state",
        "look",
        "reload",
        "tool",
    ]
    books = {f"{name}.ipynb": CELLS for name in names}
    with Lab(
        tmp_path_factory.mktemp("lab"),
        notebooks={**books, "colours.ipynb": COLOURED},
        service="fake_catalog_service:open_service",
    ) as lab:
        yield lab


def test_the_sidebar_lists_searches_and_opens_a_card(chromium, lab):
    page = chromium.open(lab, "list.ipynb")
    sidebar = page.open_sidebar()
    expect(sidebar.get_by_role("listitem")).to_have_count(5)
    expect(sidebar.get_by_role("heading", level=3)).to_have_text(
        ["article", "user", "user, article"]
    )
    expect(page.row("article_ctr")).to_contain_text("failing")
    expect(page.row("last_articles")).to_contain_text("lag 1.2K")

    search = sidebar.get_by_role("searchbox", name="Search features")
    search.fill("reading user")
    expect(sidebar.get_by_role("status")).to_have_text("3 of 5 features")
    search.fill("ctr")
    expect(sidebar.get_by_role("listitem")).to_have_count(1)
    search.press("Escape")
    expect(sidebar.get_by_role("listitem")).to_have_count(5)

    page.row("article_ctr").click()
    card = page.card("article_ctr")
    expect(card.get_by_role("alert")).to_contain_text("column 'clicked' is not in stream")
    expect(card).to_contain_text("GROUP BY user")
    expect(card.get_by_role("button", name=re.compile("Roll back"))).to_have_count(0)
    page.row("pair_affinity").click()
    expect(page.card("pair_affinity")).to_contain_text("<img src=x")
    assert page.page.title() != "hacked"
    page.screenshot("sidebar-card")
    page.assert_clean()


def test_a_click_promotes_the_whole_cell_and_the_sidebar_goes_live(chromium, lab):
    page = chromium.open(lab, "promote.ipynb")
    page.open_sidebar()
    expect(page.bar_state("fresh")).to_have_text("draft")
    with page.page.expect_request("**/fs-notebook/promote*") as sent, measured() as took:
        page.bar("fresh").get_by_role("button", name="Promote fresh").click()
        expect(page.row("fresh")).to_be_visible()
    assert json.loads(sent.value.post_data) == {"source": CELLS[1]}
    expect(page.row("fresh")).to_contain_text("live v1")
    expect(page.bar_state("fresh")).to_have_text("live v1")
    print(f"click to sidebar: {took[0] * 1000:.0f} ms")

    # What the other tab did is seen here by the event alone, with no click of its own.
    other = chromium.open(lab, "other.ipynb")
    expect(other.bar_state("fresh")).to_have_text("live v1")
    other.bar("fresh").get_by_role("button", name="Promote fresh").click()
    expect(page.bar_state("fresh")).to_have_text("live v2")
    page.bar("fresh").get_by_role("button", name="Roll back fresh to v1").click()
    expect(other.bar_state("fresh")).to_have_text("live v1")
    page.screenshot("promoted")
    page.assert_clean()
    other.assert_clean()


def test_views_in_sql_have_its_colours_and_no_bar(chromium, lab):
    page = chromium.open(lab, "colours.ipynb")
    view = page.cell(0)
    expect(view.locator(".fs-cm-keyword")).to_have_text(["SELECT", "FROM"])
    expect(view.locator(".fs-cm-magic")).to_have_text("%%view")
    expect(view.locator(".fs-cm-option")).to_have_text("--description")
    expect(view.locator(".fs-cm-comment").first).to_have_text(re.compile("^--"))
    expect(page.cell(2).locator(".fs-cm-magic")).to_have_text("%%feature")
    expect(page.cell(2).locator(".fs-Bar")).to_have_count(1)
    # What is Python, in a view or not, has no colour of SQL.
    for index in (1, 3):
        expect(page.cell(index).locator("[class*='fs-cm-']")).to_have_count(0)
    for index in (0, 1, 3):
        expect(page.cell(index).locator(".fs-Bar")).to_have_count(0)
    keyword, plain = (
        view.locator(selector).first.evaluate("one => getComputedStyle(one).color")
        for selector in (".fs-cm-keyword", ".cm-line")
    )
    assert keyword != plain
    page.screenshot("view-colours")
    # The cell's first line says what it is, while it is written.
    page.write_cell(0, VIEW.replace("%%view", "%%view -l polars"))
    expect(view.locator("[class*='fs-cm-']")).to_have_count(0)
    page.write_cell(3, VIEW)
    expect(page.cell(3).locator(".fs-cm-keyword")).to_have_count(2)
    page.assert_clean()


def test_the_cell_toolbar_promotes_the_active_feature_cell_and_no_other(chromium, lab):
    page = chromium.open(lab, "tool.ipynb", width=1400, height=1000)
    button = page.page.locator(".jp-cell-toolbar [data-command='fs-notebook:promote']")
    page.select_cell(1)
    expect(button).to_be_visible()
    for other in (0, 4):
        page.select_cell(other)
        # The toolbar moved to the cell: it is there, and the button is not in it.
        expect(page.cell(other).locator(".jp-cell-toolbar")).to_be_visible()
        expect(button).not_to_be_visible()
    page.select_cell(2)
    expect(page.cell(2).locator(".jp-cell-toolbar")).to_be_visible()
    expect(button).to_be_visible()
    page.screenshot("cell-toolbar")
    with page.page.expect_request("**/fs-notebook/promote*") as sent:
        button.click()
    assert json.loads(sent.value.post_data) == {"source": CELLS[2]}
    expect(page.bar_state("reading_time")).to_contain_text("live v3")
    page.assert_clean()


def test_a_refusal_is_explained_and_the_button_is_free_again(chromium, lab):
    page = chromium.open(lab, "edit.ipynb")
    page.write_cell(1, "%%feature empty --entity user")
    promote = page.bar("empty").get_by_role("button", name="Promote empty")
    promote.click()
    expect(page.page.get_by_text("begin it with %%feature and a name")).to_be_visible()
    expect(promote).to_be_enabled()
    page.screenshot("refusal")
    assert all("400" in error for error in page.errors), page.errors


def test_the_bar_says_what_the_person_did(chromium, lab):
    page = chromium.open(lab, "state.ipynb")
    page.write_cell(1, "%%feature other --entity user\nSELECT 1")
    expect(page.bar_state("other")).to_have_text("draft")
    page.run_cell(1)
    # It ran, but left nothing in the catalog: a run that failed is no preview.
    expect(page.bar_state("other")).to_have_text("draft")
    page.write_cell(1, "%%feature taste --entity user\nSELECT 1")
    state = page.bar_state("taste")
    page.run_cell(1)
    expect(state).to_have_text("previewed")
    page.write_cell(1, "%%feature taste --entity user\nSELECT 2")
    expect(state).to_have_text("edited since last run")
    page.write_cell(1, "no feature any more")
    expect(page.bar("taste")).to_have_count(0)
    page.write_cell(1, "%%feature ")
    expect(page.bar("")).to_contain_text("a feature without a name")
    page.assert_clean()


def test_promote_shows_at_700_px_and_under_a_long_first_line(chromium, lab):
    page = chromium.open(lab, "narrow.ipynb", width=700, height=800)
    for name in ("fresh", "wide"):
        button = page.bar(name).get_by_role("button", name=f"Promote {name}")
        button.scroll_into_view_if_needed()
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 700
    page.screenshot("narrow")
    page.open_sidebar()
    page.bar("wide").get_by_role("button", name="Promote wide").click()
    expect(page.bar_state("wide")).to_contain_text("live v1")
    page.screenshot("narrow-with-sidebar")
    page.assert_clean()


def test_a_row_leads_to_its_cell(chromium, lab):
    page = chromium.open(lab, "look.ipynb", height=420)
    page.open_sidebar()
    page.select_cell(4)
    page.row("reading_time").click()
    expect(page.bar("reading_time")).to_be_in_viewport()
    expect(page.cell(2)).to_have_class(re.compile("jp-mod-active"))
    expect(page.row("reading_time")).to_be_focused()
    page.card("reading_time").get_by_role("button", name="Go to the cell").click()
    expect(page.row("reading_time")).not_to_be_focused()
    page.assert_clean()


def test_the_flow_by_keyboard(chromium, lab):
    page = chromium.open(lab, "keys.ipynb")
    page.open_sidebar()
    expect(page.sidebar.get_by_role("searchbox")).to_be_focused()
    keys = page.page.keyboard
    keys.type("articles")
    keys.press("ArrowDown")
    expect(page.row("last_articles")).to_be_focused()
    keys.press("Enter")
    expect(page.card("last_articles")).to_be_visible()

    promote = page.bar("fresh").get_by_role("button", name="Promote fresh")
    page.cell(1).click()
    keys.press("Escape")
    with page.page.expect_request("**/fs-notebook/promote*"):
        keys.press("Control+Shift+U")
    expect(page.bar_state("fresh")).to_contain_text("live")
    promote.focus()
    expect(promote).to_be_focused()
    with page.page.expect_request("**/fs-notebook/promote*"):
        keys.press("Enter")
    expect(page.bar_state("fresh")).to_contain_text("live")
    page.assert_clean()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing(chromium, lab, theme):
    page = chromium.open(lab, "list.ipynb")
    page.open_sidebar()
    page.row("article_ctr").click()
    page.theme(theme)
    page.screenshot(f"theme-{theme.split()[1].lower()}")
    assert page.accessibility(".fs-Sidebar") == []
    assert page.accessibility(".fs-Bar") == []
    page.theme("JupyterLab Light")
    page.assert_clean()


def test_a_reload_keeps_search_card_and_panel(chromium, lab):
    page = chromium.open(lab, "reload.ipynb")
    page.open_sidebar()
    page.sidebar.get_by_role("searchbox").fill("article")
    with page.saving("last_articles"):
        page.row("last_articles").click()
    page.reload()
    expect(page.sidebar).to_be_visible()
    expect(page.sidebar.get_by_role("searchbox")).to_have_value("article")
    expect(page.card("last_articles")).to_be_visible()
    page.assert_clean()
