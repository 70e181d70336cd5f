"""Notebook 7, which loads the same extension: from a cell to production, and a widget."""

from __future__ import annotations

import re

import pytest
from harness import NOTEBOOK, Lab
from playwright.sync_api import expect
from test_ui_journey import FEATURE, UPLOAD, served

CELLS = [
    "%load_ext fs_notebook",
    UPLOAD.strip(),
    "%feature upload reads --stream read_events",
    FEATURE,
    "%feature browse",
    "%feature prom",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bundle):
    folder = tmp_path_factory.mktemp("notebook7")
    notebooks = {"reads.ipynb": CELLS, "other.ipynb": ["1 + 1"]}
    with Lab(folder, notebooks=notebooks, front=NOTEBOOK) as lab:
        yield lab


def _open_catalog_by_menu(page) -> None:
    """Open the sidebar as a person does who knows no command."""
    page.page.locator(".lm-MenuBar-item", has_text="View").click()
    page.page.locator(".lm-Menu-item", has_text="Show Feature Catalog").click()
    page.sidebar.wait_for()


@pytest.mark.timeout(240)
def test_notebook_7_goes_from_a_cell_to_production(chromium, lab):
    page = chromium.open(lab, "reads.ipynb", height=1000)
    for index in range(4):
        page.run_cell(index)
    cell, output = page.cell(3), page.output(3)
    expect(cell.locator(".fs-cm-keyword")).to_have_text(["SELECT", "AS", "FROM", "GROUP", "BY"])
    expect(output).to_contain_text("events folded1,000")
    chart = output.locator("svg").first
    expect(chart).to_be_visible()
    assert chart.bounding_box()["height"] > 40
    page.screenshot("notebook7-preview")

    expect(page.bar_state("reading_time")).to_have_text("previewed")
    page.bar("reading_time").get_by_role("button", name="Promote").click()
    expect(page.bar_state("reading_time")).to_contain_text("live v1", timeout=60_000)
    assert served(lab.home) == sum(range(1, 1000, 5))

    page.run_cell(4)
    widget = page.output(4).get_by_role("group", name="Feature catalog")
    found = widget.get_by_role("listbox", name="Features").get_by_role("option")
    expect(found).to_have_count(1)
    found.click()
    expect(widget.get_by_role("region", name="reading_time")).to_contain_text("live")

    page.cell(5).locator(".cm-content").click()
    page.page.keyboard.press("End")
    page.page.keyboard.press("Tab")
    expect(page.page.locator(".jp-Completer")).to_contain_text("promote")
    page.page.keyboard.press("Enter")
    page.page.wait_for_function(
        """() => jupyterapp.shell.currentWidget.content.widgets[5].model.sharedModel.getSource()
          === '%feature promote'"""
    )

    _open_catalog_by_menu(page)
    expect(page.row("reading_time")).to_contain_text(re.compile("live.*v1|v1.*live"))
    page.row("reading_time").click()
    expect(page.card("reading_time")).to_contain_text("total_readtime BIGINT")
    for theme in ("Light", "Dark"):
        page.theme(f"JupyterLab {theme}")
        for index, what in ((3, "cell"), (4, "widget")):
            page.select_cell(index)
            page.screenshot(f"notebook7-{theme.lower()}-{what}")
        assert page.accessibility(".fs-Sidebar") == []
        assert page.accessibility(".fs-Bar") == []
        assert page.accessibility(".fsw") == []
    page.theme("JupyterLab Light")
    page.assert_clean()


def test_the_card_opens_the_notebook_it_came_from_in_a_tab_of_its_own(chromium, lab):
    page = chromium.open(lab, "other.ipynb")
    page.open_sidebar()
    page.row("reading_time").click()
    with page.page.context.expect_page() as opened:
        page.card("reading_time").get_by_role("button", name="Open the notebook").click()
    expect(opened.value.get_by_role("group", name="Feature reading_time")).to_be_visible()
    page.assert_clean()
