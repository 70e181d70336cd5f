"""The journey on the real thing: run a cell, click Promote, see it live, see Redis hold it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import polars as pl
import pytest
from harness import Lab
from playwright.sync_api import expect

from fs_notebook.errors import FeatureStoreError
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection

UPLOAD = """
from datetime import UTC, datetime, timedelta
begin = datetime(2024, 1, 1, tzinfo=UTC)
reads = [
    {"user": f"u{n % 5}", "readtime": n, "ts": begin + timedelta(minutes=n)} for n in range(1000)
]
"""
FEATURE = """%%feature reading_time --entity user --tags reading --description "Time spent reading"
SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user;"""
CELLS = [
    "%load_ext fs_notebook",
    UPLOAD.strip(),
    "%feature upload reads --stream read_events",
    FEATURE,
    'fs.serve(["total_readtime"], user=["u1"])',
    "%%feature broken --entity user\nSELECT user, SUM(redtime) AS x FROM read_events GROUP BY user",
]

KILLED = (
    "%%feature clicked --entity user\n"
    "SELECT user, COUNT(*) AS clicks FROM click_events GROUP BY user"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bundle):
    folder = tmp_path_factory.mktemp("journey")
    settings = {"confirmPromote": "always"}
    books = {"journey.ipynb": CELLS, "killed.ipynb": [KILLED]}
    with Lab(folder, notebooks=books, settings=settings) as lab:
        yield lab


def served(home: Path, feature: str = "total_readtime") -> int | None:
    """Return what the store serves for u1, read by a process of ours, not the notebook's."""
    session = Session(Connection.remembered(home))
    try:
        return session.serve(feature, user="u1")[feature][0]
    except FeatureStoreError:
        return None
    finally:
        session.close()


@pytest.mark.timeout(240)
def test_from_a_cell_to_production_with_one_click(chromium, lab):
    page = chromium.open(lab, "journey.ipynb", width=1280, height=1000)
    page.open_sidebar()
    for index in range(4):
        page.run_cell(index)
    output = page.output(3)
    expect(output).to_contain_text("5")
    expect(output).to_contain_text("events folded1,000")
    # The chart is drawn in the page itself: nothing is fetched for it.
    chart = output.locator("svg").first
    expect(chart).to_be_visible()
    assert chart.bounding_box()["height"] > 40
    expect(page.row("reading_time")).to_contain_text("draft", timeout=30_000)
    page.select_cell(3)
    page.screenshot("journey-preview")

    promote = page.bar("reading_time").get_by_role("button", name="Promote")
    promote.click()
    dialog = page.page.get_by_role("dialog")
    for told in ("Promote reading_time?", "v1", "1,000 events of read_events", "a few seconds"):
        expect(dialog).to_contain_text(told)
    expect(dialog).to_contain_text("nobody so far")
    page.screenshot("journey-question")
    # The button that goes on has the focus: two keys promote.
    page.page.keyboard.press("Enter")
    expect(page.bar_state("reading_time")).to_contain_text("live v1", timeout=30_000)
    expect(page.row("reading_time")).to_contain_text(re.compile("live.*v1|v1.*live"))
    page.screenshot("journey-live")
    expected = sum(n for n in range(1000) if n % 5 == 1)
    assert served(lab.home) == expected
    page.run_cell(4)
    expect(page.output(4)).to_contain_text(f"{expected:,}")

    # An event that arrives is served, though nobody touches the notebook.
    session = Session(Connection.remembered(lab.home))
    session.append({"user": "u1", "readtime": 7, "ts": "2024-06-01T00:00:00Z"}, "read_events")
    session.close()
    until = time.monotonic() + 10
    while served(lab.home) != expected + 7:
        assert time.monotonic() < until, "the worker does not follow"

    # A changed cell is another version; Promote takes the cell's text, Roll back returns.
    page.write_cell(3, FEATURE.replace("SUM(readtime)", "SUM(readtime * 2)"))
    expect(page.bar_state("reading_time")).to_contain_text("edited since last run")
    promote.click()
    expect(dialog).to_contain_text("edited and not run since: its text as it stands now")
    expect(dialog).to_contain_text("v2; v1 serves until it is live")
    expect(dialog).to_contain_text("total_readtime is computed otherwise")
    page.screenshot("journey-question-edited")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.bar_state("reading_time")).to_contain_text("live v1")
    promote.click()
    dialog.get_by_role("button", name="Promote").click()
    expect(page.bar_state("reading_time")).to_contain_text("live v2", timeout=30_000)
    assert served(lab.home) == 2 * (expected + 7)
    page.bar("reading_time").get_by_role("button", name=re.compile("Roll back")).click()
    expect(page.row("reading_time")).to_contain_text("v1", timeout=10_000)
    until = time.monotonic() + 10
    while served(lab.home) != expected + 7:
        assert time.monotonic() < until, "the roll-back is not served"
    page.screenshot("journey-rolled-back")

    # The notebook is closed: the catalog knows where the feature came from.
    with page.page.expect_response("**/api/contents/journey.ipynb*"):
        page.command("docmanager:save")
    page.page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
    page.command("application:close")
    expect(page.page.locator(".jp-NotebookPanel")).to_have_count(0)
    page.row("reading_time").click()
    page.card("reading_time").get_by_role("button", name="Open the notebook").click()
    expect(page.bar("reading_time")).to_be_in_viewport()
    page.assert_clean()


def test_an_error_is_one_message_in_the_cell(chromium, lab):
    page = chromium.open(lab, "journey.ipynb", width=1000, height=800)
    page.run_cell(0)
    page.run_cell(1)
    page.run_cell(2)
    page.run_cell(5)
    output = page.output(5)
    expect(output).to_contain_text("did you mean 'readtime'?")
    expect(output).to_contain_text("line 2, column 18")
    expect(output).not_to_contain_text("Traceback")
    expect(page.bar_state("broken")).to_have_text("draft")
    page.screenshot("journey-error")


def _clicks(home: Path, count: int) -> None:
    """Append clicks of u1, from a process of ours."""
    session = Session(Connection.remembered(home))
    clicks = [{"user": "u1", "ts": f"2024-01-01T00:{n:02d}:00Z"} for n in range(count)]
    session.upload(pl.DataFrame(clicks), "click_events", time="ts")
    session.close()


@pytest.mark.timeout(240)
def test_fault_31_the_server_killed_leaves_the_worker_and_what_it_serves(chromium, lab):
    """Fault 31: the promotion was the server's, the worker is nobody's child."""
    _clicks(lab.home, 20)
    page = chromium.open(lab, "killed.ipynb")
    page.bar("clicked").get_by_role("button", name="Promote").click()
    page.page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.bar_state("clicked")).to_contain_text("live v1", timeout=30_000)
    assert served(lab.home, "clicks") == 20

    lab.kill()
    assert lab.is_gone()
    _clicks(lab.home, 30)
    until = time.monotonic() + 20
    while served(lab.home, "clicks") != 50:
        assert time.monotonic() < until, "the worker went with the server"
    assert lab.is_gone()

    # Lab says by a dialog of its own that the server is gone; a person loads the page again.
    chromium.close_pages()
    lab.start()
    page = chromium.open(lab, "killed.ipynb")
    page.open_sidebar()
    expect(page.row("clicked")).to_contain_text("live v1")
    # The same version serves on: nobody promoted it anew, nothing was folded twice.
    page.row("clicked").click()
    card = page.card("clicked")
    expect(card).to_contain_text("v1 of 1")
    expect(card.get_by_role("button", name=re.compile("Roll back"))).to_have_count(0)
    page.screenshot("server-killed")
    assert served(lab.home, "clicks") == 50
    page.assert_clean()
