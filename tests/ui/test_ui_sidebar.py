"""The sidebar on a real session: find, read, compare, insert, drag, describe, deprecate, retire."""

from __future__ import annotations

import re

import pytest
import seeded
from harness import Lab
from playwright.sync_api import expect

from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection

CELLS = ["1 + 1", "2 + 2"]
WIDGET = ["import fs_notebook as fs\nfs.connect()\nfs.browse()"]
# In each frame: how long since the former one, where the list is, and how many pixels of what is
# seen of it no row or heading covers.
WATCH_FRAMES = """() => {
  window.fsFrames = [];
  let before = performance.now();
  const look = now => {
    const list = document.querySelector('.fs-List');
    const seen = list.getBoundingClientRect();
    const places = [...list.querySelectorAll('.fs-Row, .fs-Entity')]
      .map(one => one.getBoundingClientRect())
      .sort((a, b) => a.top - b.top);
    let covered = seen.top;
    let bare = 0;
    for (const { top, bottom } of places) {
      bare += Math.max(Math.min(top, seen.bottom) - Math.max(covered, seen.top) - 1, 0);
      covered = Math.max(covered, bottom);
    }
    bare += Math.max(seen.bottom - Math.max(covered, seen.top) - 1, 0);
    window.fsFrames.push({ gap: now - before, top: list.scrollTop, bare });
    before = now;
    window.requestAnimationFrame(look);
  };
  window.requestAnimationFrame(look);
}"""
# Another frame was looked at since the list got there.
IS_SCROLLED = """top => document.querySelector('.fs-List').scrollTop >= top
  && window.fsFrames.at(-1).top >= top"""
LIFT = "helps for bought: ROC AUC +0.0512, 95% interval +0.031 to +0.0702 (v2)"
# The front end's own search and the session's must mean the same by these.
QUERIES = [
    "reading", "tag:reading", "owner:ann", "-tag:reading", "type:double", "type:int",
    "source:read_events entity:article", "status:deprecated", "feature:total", "name:time -old",
]  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bundle):
    names = ["find", "card", "drag", "change"]
    books = {f"{name}.ipynb": CELLS for name in names}
    lab = Lab(tmp_path_factory.mktemp("lab"), notebooks={**books, "widget.ipynb": WIDGET})
    with lab:
        seeded.fill(lab.home)
        yield lab


def rows(page) -> list[str]:
    found = page.sidebar.locator(".fs-Row-button")
    return found.evaluate_all("all => all.map(one => one.dataset.name)")


@pytest.mark.timeout(240)
def test_filters_and_search_find_what_the_session_finds(chromium, lab):
    page = chromium.open(lab, "find.ipynb")
    sidebar = page.open_sidebar()
    expect(sidebar.get_by_role("listitem")).to_have_count(5)
    search = sidebar.get_by_role("searchbox")
    session = Session(Connection(lab.home))
    try:
        for query in QUERIES:
            search.fill(query)
            wanted = session.search(query, kinds=["group"]).names()
            assert 0 < len(wanted) < 5, query
            expect(sidebar.locator(".fs-Row-button")).to_have_count(len(wanted))
            assert sorted(rows(page)) == sorted(wanted), query
    finally:
        session.close()

    search.fill("time")
    sidebar.get_by_label("Filter by tag").select_option("reading")
    expect(search).to_have_value("time tag:reading")
    expect(sidebar.get_by_role("status")).to_have_text("2 of 5 features")
    page.screenshot("sidebar-filters")
    sidebar.get_by_role("button", name="Remove the filter tag: reading").click()
    expect(search).to_have_value("time")
    search.fill("tag:raeding")
    expect(sidebar.get_by_text("read as tag:reading")).to_be_visible()
    assert sorted(rows(page)) == ["long_time", "reading_time"]
    search.fill("colour:red")
    expect(sidebar.get_by_text("There is no filter colour:")).to_be_visible()
    page.assert_clean()


def _portrait(page, card) -> None:
    """Open the values of the card: now against training, and over time; both themes can be read."""
    asked = []
    page.page.on("request", lambda request: asked.append(request.url))
    values = card.get_by_text("Values", exact=True)
    with page.page.expect_response("**/fs-notebook/portrait*"):
        values.click()
    expect(card).to_contain_text("online values of all 20 entities")
    figure = card.get_by_role("figure", name="total_readtime", exact=True)
    expect(figure).to_contain_text(re.compile(r"20 values · median .*PSI \d+\.\d+: .*\(spring\)"))
    now = figure.get_by_role(
        "img", name=re.compile("^Values of total_readtime now: 20 values.*PSI")
    )
    over_time = figure.get_by_role("img", name=re.compile("^total_readtime over time: median"))
    for drawing, lines in ((now, [".fs-Chart-now", ".fs-Chart-then"]),
                           (over_time, [".fs-Chart-band", ".fs-Chart-line"])):  # fmt: skip
        for line in lines:
            box = drawing.locator(line).bounding_box()
            assert box is not None
            assert box["width"] > 100
            assert box["height"] > 10
    expect(card).to_contain_text("'spring' learnt of v1 of total_readtime")
    figure.scroll_into_view_if_needed()
    page.screenshot("sidebar-values")
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.theme(theme)
        assert page.accessibility(".fs-Sidebar") == []
        page.screenshot(f"sidebar-values-{theme.split()[1].lower()}")
    # What nobody looks at any more is not read again.
    values.click()
    expect(figure).not_to_be_visible()
    assert sum("/portrait" in url for url in asked) == 1


@pytest.mark.timeout(240)
def test_a_card_has_definition_versions_lineage_and_readers(chromium, lab):
    page = chromium.open(lab, "card.ipynb", width=1400, height=1100)
    page.open_sidebar()
    page.row("reading_time").click()
    card = page.card("reading_time")
    definition = card.get_by_role("group", name="Definition")
    expect(definition).to_have_text(seeded.SUM.replace("SUM(readtime)", "SUM(readtime * 2)"))
    expect(definition.locator(".fs-cm-keyword").first).to_have_text("SELECT")
    expect(card).to_contain_text("total_readtime BIGINT")
    expect(card).to_contain_text("v2 of 2")
    expect(card).to_contain_text(re.compile(r"Created.* by ann"))

    card.get_by_role("button", name="What draft changed since v2").click()
    diff = card.get_by_role("group", name="From v2 to draft")
    expect(diff).to_contain_text("-SELECT user, SUM(readtime * 2)")
    expect(diff).to_contain_text("+SELECT user, MAX(readtime)")
    expect(card).to_contain_text("total_readtime is computed otherwise")
    expect(card).to_contain_text("serving by ann")
    expect(card).to_contain_text(f"Lift{LIFT}")
    _portrait(page, card)
    page.screenshot("sidebar-versions")
    assert page.accessibility(".fs-Sidebar") == []
    page.theme("JupyterLab Dark")
    assert page.accessibility(".fs-Sidebar") == []
    page.screenshot("sidebar-versions-dark")
    page.theme("JupyterLab Light")

    card.get_by_role("button", name="reading_ratio", exact=True).click()
    expect(page.card("reading_ratio")).to_contain_text(re.compile("read_events.*reading_time"))
    page.row("long_time").click()
    lineage = page.card("long_time").locator(".fs-Lineage")
    expect(lineage.get_by_role("listitem")).to_have_text(
        ["read_events stream", "long_reads view", "long_time draft"]
    )
    expect(lineage.locator("svg path")).to_have_count(2)
    page.screenshot("sidebar-lineage")

    # What people write stays text, wherever it is shown.
    page.row("article_views").click()
    expect(page.card("article_views")).to_contain_text(seeded.HOSTILE)
    assert page.page.title() != "hacked"
    assert page.sidebar.locator("img, b").count() == 0

    page.row("old_time").click()
    expect(page.card("old_time").get_by_role("note")).to_contain_text("counts twice")
    page.card("old_time").get_by_role("button", name="Use reading_time instead").click()
    expect(page.card("reading_time")).to_be_visible()
    page.assert_clean()


@pytest.mark.timeout(240)
def test_the_widgets_card_tells_what_a_feature_brings(chromium, lab):
    page = chromium.open(lab, "widget.ipynb", width=1400, height=1600)
    page.run_cell(0)
    widget = page.output(0).get_by_role("group", name="Feature catalog")
    widget.get_by_role("option", name=re.compile("^reading_time")).click()
    card = widget.get_by_role("region", name="reading_time")
    expect(card).to_contain_text(f"Lift{LIFT}")
    card.get_by_text("helps", exact=True).scroll_into_view_if_needed()
    page.screenshot("widgets-lift")
    widget.get_by_role("option", name=re.compile("^long_time")).click()
    expect(widget.get_by_role("region", name="long_time")).to_contain_text("Read by")
    expect(widget.get_by_text("Lift", exact=True)).to_have_count(0)
    page.assert_clean()


@pytest.mark.timeout(240)
def test_a_feature_goes_into_the_notebook_by_drag_by_button_and_by_copy(chromium, lab):
    page = chromium.open(lab, "drag.ipynb", width=1400, height=900)
    page.open_sidebar()
    page.drag("reading_time", 1)
    page.screenshot("sidebar-drag")
    page.page.mouse.up()
    expect(page.cell(2)).to_be_visible()
    assert page.cell_text(1).endswith('fs.serve(["total_readtime"], user=["…"])')
    expect(page.card("reading_time")).to_have_count(0)

    # A draft serves nobody: its cell is what can be used of it.
    page.row("long_time").click()
    page.select_cell(2)
    page.card("long_time").get_by_role("button", name="Insert a cell").click()
    expect(page.bar("long_time")).to_be_visible()
    assert page.cell_text(3).startswith("%%feature long_time --entity user --tags reading\nSELECT")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.card("long_time").get_by_role("button", name="Copy the call").click()
    expect(page.page.get_by_text("Copied: fs.serve")).to_be_visible()
    copied = page.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == 'fs.serve(["long_minutes", "long_reads"], user=["…"])'
    page.screenshot("sidebar-dropped")
    page.assert_clean()


@pytest.mark.timeout(240)
def test_retire_deprecate_and_describe_ask_first_and_say_who_depends(chromium, lab):
    page = chromium.open(lab, "change.ipynb", width=1400, height=1100)
    page.open_sidebar()
    page.row("reading_time").click()
    card = page.card("reading_time")
    dialog = page.page.get_by_role("dialog")
    retire = card.get_by_role("button", name="Retire v1 of reading_time")
    retire.click()
    expect(dialog).to_contain_text("Retire v1 of reading_time?")
    expect(dialog).to_contain_text("reading_ratio")
    expect(dialog).to_contain_text("ann on")
    assert page.accessibility(".jp-Dialog") == []
    page.screenshot("sidebar-retire")
    # Enter alone takes nothing away.
    page.page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(retire).to_be_enabled()
    retire.click()
    dialog.get_by_role("button", name="Retire", exact=True).click()
    expect(card.get_by_text("retired", exact=True)).to_be_visible(timeout=60_000)
    expect(card.get_by_role("button", name="Roll back")).to_have_count(0)

    card.get_by_role("button", name="Discard the draft of reading_time").click()
    dialog.get_by_role("button", name="Discard", exact=True).click()
    expect(card.get_by_role("button", name="Discard")).to_have_count(0)

    card.get_by_role("button", name="Describe reading_time").click()
    dialog.get_by_label("Description").fill("All time spent <b>reading</b>")
    dialog.get_by_label("Tags").fill("reading, core")
    page.screenshot("sidebar-describe")
    dialog.get_by_role("button", name="Save").click()
    expect(card).to_contain_text("All time spent <b>reading</b>")
    expect(page.row("reading_time")).to_contain_text("#core")

    card.get_by_role("button", name="Deprecate reading_time").click()
    expect(dialog).to_contain_text("reading_ratio")
    dialog.get_by_label("Why").fill("slow")
    dialog.get_by_label("What to use instead").fill("nothing_such")
    dialog.get_by_role("button", name="Deprecate").click()
    expect(page.page.get_by_text("nothing_such")).to_be_visible()
    card.get_by_role("button", name="Deprecate reading_time").click()
    dialog.get_by_label("Why").fill("slow")
    dialog.get_by_role("button", name="Deprecate").click()
    expect(card.get_by_role("note")).to_contain_text("slow")
    page.screenshot("sidebar-deprecated")
    assert all("404" in error for error in page.errors), page.errors


@pytest.mark.timeout(240)
def test_fault_38_ten_thousand_features_scroll_and_are_searched(chromium, tmp_path, bundle):
    lab = Lab(tmp_path / "lab", notebooks={"many.ipynb": CELLS})
    seeded.fill_many(lab.home, 10_000)
    with lab:
        page = chromium.open(lab, "many.ipynb", height=900)
        sidebar = page.open_sidebar()
        expect(sidebar.get_by_role("status")).to_have_text("10,000 features", timeout=60_000)
        shown = sidebar.locator(".fs-Row")
        assert shown.count() < 60
        expect(shown.first).to_have_attribute("aria-setsize", "1429")
        # A wheel, as a person turns it: in every frame the list is full of rows.
        page.page.evaluate(WATCH_FRAMES)
        sidebar.locator(".fs-List").hover()
        for turn in range(1, 21):
            page.page.mouse.wheel(0, 3_000)
            page.page.wait_for_function(IS_SCROLLED, arg=3_000 * turn)
            assert shown.count() < 60
        frames = page.page.evaluate("() => window.fsFrames")
        assert len({frame["top"] for frame in frames}) >= 20
        assert [frame for frame in frames if frame["bare"] > 0] == []
        gaps = sorted(frame["gap"] for frame in frames[1:])
        figures = {"frames": len(frames), "median_ms": gaps[len(gaps) // 2], "longest_ms": gaps[-1]}
        page.keep("sidebar-many-frames", figures)
        page.screenshot("sidebar-many")

        sidebar.get_by_role("searchbox").focus()
        page.page.keyboard.press("ArrowDown")
        page.page.keyboard.press("End")
        expect(page.row("group_09995")).to_be_focused()
        expect(page.row("group_09995")).to_be_in_viewport()
        assert shown.count() < 60
        page.page.keyboard.press("ArrowUp")
        expect(page.row("group_09988")).to_be_focused()
        page.page.keyboard.press("Enter")
        expect(page.card("group_09988")).to_contain_text("value_09988 BIGINT")

        sidebar.get_by_role("searchbox").fill("tag:tag3 owner:owner2 value_0901")
        expect(sidebar.get_by_role("status")).to_have_text("1 of 10,000 features")
        sidebar.get_by_role("searchbox").fill("vlaue_07777")
        expect(sidebar.get_by_text("read as value_07777")).to_be_visible()
        expect(page.row("group_07777")).to_be_visible()
        page.screenshot("sidebar-many-found")
        page.assert_clean()
