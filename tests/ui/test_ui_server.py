"""What a person sees when the server goes away, comes back, or never had the extension."""

from __future__ import annotations

import json

import pytest
from harness import Lab, measured
from playwright.sync_api import expect

CELLS = ["%%feature reading_time --entity user\nSELECT user, SUM(t) AS s FROM reads GROUP BY user"]
SERVICE = "fake_catalog_service:open_service"


@pytest.mark.timeout(180)
def test_the_server_gone_is_said_and_recovered_from(chromium, tmp_path):
    with Lab(tmp_path / "lab", notebooks={"book.ipynb": CELLS}, service=SERVICE) as lab:
        page = chromium.open(lab, "book.ipynb")
        page.open_sidebar()
        promote = page.bar("reading_time").get_by_role("button", name="Promote reading_time")
        expect(promote).to_be_enabled()
        notice = page.sidebar.get_by_text("The Jupyter server does not answer")
        with measured() as gone:
            lab.stop()
            expect(notice).to_be_visible(timeout=30_000)
        # What was known stays to be read; what could not be sent cannot be pressed.
        expect(page.row("reading_time")).to_be_visible()
        expect(promote).to_be_disabled()
        page.screenshot("server-gone")
        lab.start()
        with measured() as back:
            expect(notice).to_have_count(0, timeout=30_000)
        expect(promote).to_be_enabled()
        print(f"gone seen after {gone[0]:.1f} s, recovered {back[0]:.1f} s after the server")


def test_without_the_extension_a_sentence_says_so(chromium, tmp_path):
    with Lab(tmp_path / "lab", notebooks={"book.ipynb": CELLS}, extension=False) as lab:
        page = chromium.open(lab, "book.ipynb")
        page.open_sidebar()
        expect(page.sidebar.get_by_role("alert")).to_contain_text("%%feature and %feature promote")
        expect(page.bar_state("reading_time")).to_have_text("draft")
        expect(page.bar("reading_time").get_by_role("button")).to_have_count(0)
        page.screenshot("without-extension")
        assert all("404" in error for error in page.errors), page.errors


def test_promote_can_be_made_to_ask_first(chromium, tmp_path):
    settings = {"confirmPromote": "always"}
    with Lab(
        tmp_path / "lab", notebooks={"book.ipynb": CELLS}, service=SERVICE, settings=settings
    ) as lab:
        page = chromium.open(lab, "book.ipynb")
        button = page.bar("reading_time").get_by_role("button", name="Promote reading_time")
        button.click()
        dialog = page.page.get_by_role("dialog")
        expect(dialog).to_contain_text("Promote reading_time?")
        expect(dialog).to_contain_text("v3; v2 serves until it is live")
        expect(dialog).to_contain_text("1,204 events of read_events")
        expect(dialog).to_contain_text("a few seconds")
        assert page.accessibility(".jp-Dialog") == []
        dialog.get_by_role("button", name="Cancel").click()
        expect(page.bar_state("reading_time")).to_have_text("live v2")
        button.click()
        # Whoever does not want to be asked each time says so in the question itself.
        dialog.get_by_role("checkbox").check()
        dialog.get_by_role("button", name="Promote").click()
        expect(page.bar_state("reading_time")).to_contain_text("live v3")
        button.click()
        expect(page.bar_state("reading_time")).to_contain_text("live v4")
        page.assert_clean()


@pytest.fixture(scope="module")
def asking(tmp_path_factory, bundle):
    settings = {"confirmPromote": "always", "dragged": "definition"}
    folder = tmp_path_factory.mktemp("asking")
    books = {"card.ipynb": ["1 + 1"], "drag.ipynb": ["1 + 1", "2 + 2"]}
    with Lab(folder, notebooks=books, service=SERVICE, settings=settings) as lab:
        yield lab


def test_the_sidebars_card_asks_promotes_and_goes_back(chromium, asking):
    page = chromium.open(asking, "card.ipynb", width=1400, height=1000)
    page.open_sidebar()
    page.row("last_articles").click()
    card = page.card("last_articles")
    expect(card).to_contain_text("v1 of 2")
    back = card.get_by_role("button", name="Roll back last_articles to v1")
    expect(back).to_have_count(0)
    promote = card.get_by_role("button", name="Promote last_articles")
    promote.click()
    dialog = page.page.get_by_role("dialog")
    expect(dialog).to_contain_text("Promote last_articles?")
    expect(dialog).to_contain_text("v2; v1 serves until it is live")
    page.screenshot("card-question")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.row("last_articles")).to_contain_text("live v1")

    promote.click()
    with page.page.expect_request("**/fs-notebook/promote*") as sent:
        dialog.get_by_role("button", name="Promote").click()
    # From the card it is the catalog's own latest version, whatever any cell says.
    assert json.loads(sent.value.post_data) == {"name": "last_articles"}
    expect(page.row("last_articles")).to_contain_text("live v2")
    expect(card).to_contain_text("v2 of 2")
    page.screenshot("card-promoted")
    with page.page.expect_request("**/fs-notebook/rollback*") as sent:
        back.click()
    assert json.loads(sent.value.post_data) == {"name": "last_articles"}
    expect(page.row("last_articles")).to_contain_text("live v1")
    expect(card).to_contain_text("v1 of 2")
    expect(back).to_have_count(0)
    page.assert_clean()


def test_what_is_dragged_becomes_the_definition_where_the_setting_says_so(chromium, asking):
    page = chromium.open(asking, "drag.ipynb", width=1400, height=1000)
    page.open_sidebar()
    page.drag("reading_time", 1)
    page.page.mouse.up()
    expect(page.bar("reading_time")).to_be_visible()
    text = page.cell_text(1)
    assert text.startswith("%%feature reading_time --entity user --tags reading")
    assert text.endswith(
        "SELECT user, SUM(t) AS total_reading_time\nFROM read_events\nGROUP BY user"
    )
    assert "fs.serve" not in text
    page.assert_clean()


def test_a_bootstrap_shows_how_far_it_is(chromium, tmp_path):
    cell = "%%feature backfill --entity user\nSELECT user, SUM(t) AS s FROM reads GROUP BY user"
    service = "fake_catalog_service:open_slow_service"
    with Lab(tmp_path / "lab", notebooks={"book.ipynb": [cell]}, service=service) as lab:
        page = chromium.open(lab, "book.ipynb")
        page.open_sidebar()
        expect(page.bar_state("backfill")).to_have_text("bootstrapping 42 % · v1 serves meanwhile")
        expect(page.bar("backfill").get_by_role("progressbar")).to_be_visible()
        page.row("backfill").click()
        expect(page.card("backfill").get_by_role("progressbar")).to_be_visible()
        expect(page.card("backfill")).to_contain_text("81,000 events")
        assert page.accessibility(".fs-Sidebar") == []
        assert page.accessibility(".fs-Bar") == []
        page.screenshot("bootstrapping")
        page.assert_clean()
