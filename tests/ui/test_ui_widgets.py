"""The widgets in a real browser: by keyboard, in both themes, beside a busy kernel, and alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
import seeded
from harness import Lab
from playwright.sync_api import expect

from fs_notebook.jupyter.widgets import browse
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid

BUSY = (
    "import time\n"
    "fs.upload([{'user': 'u1', 'article': 'a1', 'readtime': 1000, 'ts': '2024-01-02T00:00:00Z'}],"
    " 'read_events')\n"
    "while not done.exists():\n"
    "    time.sleep(0.05)"
)
CELLS = [
    "from pathlib import Path\nimport fs_notebook as fs\nfs.connect()\ndone = Path('done')",
    "fs.browse()",
    "picker = fs.slice_picker('read_events', 'reading_time')\npicker",
    "fs.preview('reading_time', **picker.value).events",
    "fs.promote_panel('reading_time')",
    "fs.side_by_side('reading_time@1', 'reading_time@2')",
    "fs.live_value('total_readtime', user='u1')",
    BUSY,
    "print(*(end.isoformat() for end in picker.value.values()))",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, bundle):
    lab = Lab(tmp_path_factory.mktemp("lab"), notebooks={"widgets.ipynb": CELLS})
    with lab:
        _fill(lab)
        yield lab


def _fill(lab: Lab) -> None:
    """Fill the home: a group that serves and has a newer draft, a training set, a hostile group."""
    session = Session(Connection(lab.home), actor="ann")
    events = seeded.events(5_000)
    session.upload(events, "read_events", time="ts")
    session.define("reading_time", seeded.SUM, tags=["reading"], owner="ann",
                   description="Time spent reading")  # fmt: skip
    session.promote("reading_time")
    session.training_set(events.select("user", "ts").tail(3_000), ["reading_time"], name="spring")
    session.define(
        "reading_minutes", "SELECT total_readtime / 60.0 AS reading_minutes FROM total_readtime"
    )
    _double(session)
    session.define(
        "article_views",
        "SELECT article, COUNT(*) AS views FROM read_events GROUP BY article",
        tags=["popularity"], owner=seeded.HOSTILE, description=seeded.HOSTILE,
    )  # fmt: skip
    session.close()


def _double(session: Session) -> None:
    """Define what is v2 once it is promoted."""
    session.define("reading_time", seeded.SUM.replace("SUM(readtime)", "SUM(readtime * 2)"),
                   tags=["reading"], owner="ann", description="Time spent reading")  # fmt: skip


def _browse(page) -> None:
    """Find, open and leave a card, without a mouse."""
    widget, keys = page.output(1).get_by_role("group", name="Feature catalog"), page.page.keyboard
    rows = widget.get_by_role("listbox", name="Features").get_by_role("option")
    widget.get_by_role("searchbox", name="Search features").focus()
    keys.type("tiem")
    expect(widget).to_contain_text("nothing has 'tiem'")
    keys.press("Escape")
    keys.type("popularity")
    expect(rows).to_have_text([re.compile("^article_views")])
    keys.press("ArrowDown")
    keys.press("Enter")
    card = widget.get_by_role("region", name="article_views")
    expect(card).to_contain_text("<img src=x onerror=")
    assert page.page.title() != "hacked"
    keys.press("Escape")
    expect(card).to_be_hidden()
    keys.press("Shift+Tab")
    widget.get_by_role("searchbox").fill("")
    expect(rows).to_have_count(3)
    widget.get_by_role("searchbox").press("ArrowDown")
    for key in ("End", "ArrowUp", "ArrowDown", "Enter"):
        keys.press(key)
    card = widget.get_by_role("region", name="reading_time")
    expect(card.get_by_role("heading", name="reading_time")).to_be_focused()
    expect(card.get_by_role("figure", name="total_readtime", exact=True)).to_contain_text(
        re.compile("in spring.*PSI", re.DOTALL)
    )
    expect(card.get_by_role("figure", name="total_readtime over time")).to_be_visible()
    expect(card).to_contain_text("live")
    page.screenshot("widgets-browser")
    _card(page, widget, card)


def _tab_to(wanted) -> None:
    """Press Tab until something has the focus, as who has no mouse must, unless it has it."""
    expect(wanted).to_be_visible()
    for _ in range(60):
        if wanted.evaluate("one => one === document.activeElement"):
            return
        wanted.page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {wanted}")


def _card(page, widget, card) -> None:
    """Copy, ask, compare and follow the lineage from an open card, by Tab, arrows and Enter."""
    keys = page.page.keyboard
    ask = card.get_by_role("button", name="Promote reading_time…")
    _tab_to(ask)
    keys.press("Enter")
    question = card.get_by_label("What promoting will do")
    expect(question).to_contain_text("v2; v1 serves until it is live")
    copy = card.get_by_role("button", name="Copy the serving call")
    _tab_to(copy)
    keys.press("Enter")
    expect(card.get_by_text(re.compile(r"^(Copied|Selected: copy it)"))).to_be_visible()
    expect(card.get_by_role("button", name="Promote v2")).to_be_visible()
    _tab_to(card.get_by_role("button", name="Close", exact=True))
    keys.press("Enter")
    expect(question).to_have_count(0)
    _tab_to(card.get_by_label("with version"))
    keys.press("ArrowDown")
    expect(card.get_by_label("with version")).to_have_value("v1")
    keys.press("ArrowUp")
    _tab_to(card.get_by_role("button", name="Show the difference"))
    keys.press("Enter")
    expect(card.get_by_role("group", name="Difference", exact=True)).to_contain_text("* 2")
    _tab_to(card.get_by_role("link", name="Open reading_minutes"))
    keys.press("Enter")
    other = widget.get_by_role("region", name="reading_minutes")
    expect(other.get_by_role("heading", name="reading_minutes")).to_be_focused()
    _tab_to(other.get_by_role("link", name="Open reading_time"))
    keys.press("Enter")
    expect(card.get_by_role("heading", name="reading_time")).to_be_focused()


def _brush(page) -> None:
    """Choose a slice by arrow keys, preview it, and use it in a cell."""
    widget, keys = page.output(2).get_by_role("group", name="Slice of"), page.page.keyboard
    start = widget.get_by_role("slider", name="Start of the slice")
    start.focus()
    keys.press("Shift+ArrowRight")
    keys.press("Shift+ArrowRight")
    keys.press("ArrowRight")
    keys.press("ArrowLeft")
    expect(start).to_have_attribute("aria-valuetext", "2024-01-01 20:00 UTC")
    widget.get_by_role("slider", name="End of the slice").focus()
    keys.press("Shift+ArrowLeft")
    expect(widget).to_contain_text("--from 2024-01-01T20:00:00 --to 2024-01-04T02:00:00")
    expect(widget).to_contain_text("about 3,240 events")
    widget.get_by_role("button", name="Preview this slice").focus()
    keys.press("Enter")
    expect(widget.get_by_role("region", name="Preview")).to_contain_text("total_readtime")
    page.screenshot("widgets-slice")
    page.run_cell(3)
    expect(page.output(3)).to_contain_text("3240")


def _drag(page) -> None:
    """Draw a slice with the mouse, move it, widen it, and take the kernel's word for it."""
    widget, mouse = page.output(2).get_by_role("group", name="Slice of"), page.page.mouse
    chart = widget.locator(".fsw-brush svg")

    def drag(begin: float, end: float) -> None:
        """Drag from one share of the drawing's width to another."""
        page.select_cell(2)
        chart.scroll_into_view_if_needed()
        place = chart.bounding_box()
        assert place is not None
        middle = place["y"] + place["height"] / 2
        mouse.move(place["x"] + begin * place["width"], middle)
        mouse.down()
        mouse.move(place["x"] + (begin + end) / 2 * place["width"], middle + 3, steps=4)
        mouse.move(place["x"] + end * place["width"], middle, steps=4)
        mouse.up()

    def chosen() -> tuple[datetime, datetime]:
        """Return the slice once the kernel has what the page shows."""
        ends = [
            widget.get_by_role("slider", name=f"{which} of the slice").get_attribute(
                "aria-valuetext"
            )
            for which in ("Start", "End")
        ]
        shown = [datetime.strptime(f"{end}+0000", "%Y-%m-%d %H:%M UTC%z") for end in ends]
        told = " --to ".join(f"{one:%Y-%m-%dT%H:%M:%S}" for one in shown)
        expect(widget).to_contain_text(f"--from {told}")
        page.run_cell(8)
        expect(page.output(8)).to_have_text(" ".join(one.isoformat() for one in shown))
        return shown[0], shown[1]

    widget.get_by_role("button", name="All of it").click()
    expect(widget).to_contain_text("All of it: 5,000 events")
    drag(0.3, 0.6)
    first, last = chosen()
    assert timedelta(hours=20) < last - first < timedelta(hours=32)
    drag(0.45, 0.55)
    page.screenshot("widgets-slice-mouse")
    later, end = chosen()
    assert end - later == last - first
    assert later > first
    # Dragged backwards the ends change places: a slice is never turned around.
    widget.get_by_role("button", name="All of it").click()
    drag(0.6, 0.3)
    assert chosen() == (first, last)


@contextmanager
def _standing(session: Session) -> Iterator[None]:
    """Let the runner stand still: nothing that is promoted meanwhile is bootstrapped."""
    runner = runner_pid(session.connection)
    assert runner is not None
    os.kill(runner, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(runner, signal.SIGCONT)


def _call_off(widget, keys, session: Session) -> None:
    """Follow a bootstrap that has come to some share of its history, and stop it."""
    shard = session.catalog.refresh().group("reading_time").latest.shard

    def reports(share: float, *, ttl_seconds: float = 60) -> None:
        """Say in the place of a worker how far it is."""
        told = {"state": "bootstrapping", "progress": share, "events": 5_000 * share, "rate": 700}
        session.store.heartbeat(shard, told, ttl_seconds=ttl_seconds)

    with _standing(session):
        reports(0.2)
        keys.press("Enter")
        expect(widget).to_contain_text("v2 is on its way; v1 serves until then")
        bar = widget.get_by_role("progressbar", name="Bootstrap of reading_time v2")
        expect(bar).to_have_js_property("value", 0.2)
        expect(widget).to_contain_text("v2 bootstrapping: 20%, 1,000 events, 700/s")
        expect(widget).not_to_contain_text("left")
        reports(0.6)
        expect(bar).to_have_js_property("value", 0.6)
        expect(widget).to_contain_text(re.compile(r"60%, 3,000 events, 700/s, about \d+ s left"))
        # It stands where Promote was, and has its focus.
        expect(widget.get_by_role("button", name="Stop promoting reading_time")).to_be_focused()
        keys.press("Enter")
        expect(widget).to_contain_text("v1 serves")
        expect(bar).to_have_count(0)
        expect(widget.get_by_role("button")).to_have_count(0)
        reports(0.6, ttl_seconds=0.001)


def _promote(page, lab: Lab) -> None:
    widget, keys = page.output(4).get_by_role("group", name="Promotion of"), page.page.keyboard
    promote = widget.get_by_role("button", name="Promote v2")
    asked = "v2; v1 serves until it is live, and can be returned to"
    expect(widget).to_contain_text(asked)
    promote.focus()
    session = Session(Connection(lab.home), actor="ann")
    _call_off(widget, keys, session)
    # What was called off is no draft any more; whoever wants it after all runs its cell again.
    _double(session)
    session.close()
    page.run_cell(4)
    expect(widget).to_contain_text(asked)
    promote.focus()
    keys.press("Enter")
    # A worker is started: on a busy machine that alone takes seconds.
    expect(widget).to_contain_text("v2 serves", timeout=60_000)
    expect(widget).to_contain_text("0 messages, 0.0 s")
    page.screenshot("widgets-promoted")
    for former in (1, 2):
        _tab_to(widget.get_by_role("button", name=f"Roll back to v{former}"))
        keys.press("Enter")
        expect(widget).to_contain_text(f"v{former} serves")


def _beside(page) -> None:
    """Turn two versions around, and compare them again."""
    beside, keys = page.output(5).get_by_role("group", name="side by side"), page.page.keyboard
    first, second = (beside.get_by_label(f"{which} version") for which in ("First", "Second"))
    expect(beside).to_contain_text("v2 differs from v1 in 20 of 20 entities")
    first.focus()
    keys.press("ArrowDown")
    expect(beside.get_by_role("heading", level=3)).to_have_text(["v2", "v2"])
    expect(first).to_be_focused()
    _tab_to(second)
    keys.press("ArrowUp")
    expect(beside).to_contain_text("v1 differs from v2 in 20 of 20 entities")
    _tab_to(beside.get_by_role("button", name="Compare again"))
    keys.press("Enter")
    expect(beside).to_contain_text("v1 differs from v2 in 20 of 20 entities")


def _look(page) -> None:
    """Look at another user and back, pause and go on."""
    live, keys = page.output(6).get_by_role("group", name="Live values"), page.page.keyboard
    row, user = live.get_by_role("group", name="total_readtime"), live.get_by_label("user")
    expect(row).to_contain_text("20,420")
    user.focus()
    keys.press("ControlOrMeta+a")
    keys.type("u2")
    _tab_to(live.get_by_role("button", name="Look"))
    keys.press("Enter")
    expect(row).to_contain_text(f"{2 * sum(n % 90 for n in range(2, 5_000, 20)):,}")
    _tab_to(live.get_by_role("button", name="Pause"))
    keys.press("Enter")
    expect(live).to_contain_text("UTC, paused")
    expect(live.get_by_role("button", name="Go on")).to_be_focused()
    keys.press("Enter")
    expect(live).to_contain_text("UTC, read every second")
    user.focus()
    keys.press("ControlOrMeta+a")
    keys.type("u1")
    expect(user).to_have_value("u1")
    keys.press("Enter")
    expect(row).to_contain_text("20,420")


def _live(page, lab: Lab) -> None:
    """A value changes while the kernel is busy with a cell."""
    row = page.output(6).get_by_role("group", name="total_readtime")
    expect(row).to_contain_text("20,420")
    page.select_cell(7)
    page.command("notebook:run-cell")
    expect(row).to_contain_text("22,420")
    assert page.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"
    ) == "busy"  # fmt: skip
    (lab.root / "done").touch()
    page.wait_idle()
    expect(
        row.get_by_role("img", name=re.compile("total_readtime: 20.4k to 22.4k"))
    ).to_be_visible()


@pytest.mark.timeout(240)
def test_widgets_are_worked_by_keyboard_in_both_themes(chromium, lab):
    page = chromium.open(lab, "widgets.ipynb", height=1000)
    for cell in (0, 1, 2, 4):
        page.run_cell(cell)
    page.select_cell(1)
    _browse(page)
    page.select_cell(2)
    _brush(page)
    _drag(page)
    page.select_cell(4)
    _promote(page, lab)
    page.run_cell(5)
    _beside(page)
    page.run_cell(6)
    _look(page)
    page.select_cell(5)
    page.screenshot("widgets-side-by-side")
    _live(page, lab)
    assert page.accessibility(".fsw") == []
    page.theme("JupyterLab Dark")
    for cell, name in ((1, "browser"), (2, "slice"), (6, "live")):
        page.select_cell(cell)
        page.output(cell).locator(".fsw").scroll_into_view_if_needed()
        page.screenshot(f"widgets-dark-{name}")
    assert page.accessibility(".fsw") == []
    page.assert_clean()
    _alone(page, lab)
    page.assert_clean()


def _alone(page, lab: Lab) -> None:
    """Where there is no JupyterLab the page's own colours do, dark or light."""
    session = Session(Connection(lab.home))
    browser = browse(session=session)
    try:
        browser._handle_custom_msg({"do": "open_card", "name": "reading_time"}, [])
        browser.settle()
        state = browser.get_state()
        state = {
            k: v for k, v in state.items() if isinstance(v, (str, int, list, dict, type(None)))
        }
    finally:
        browser.close()
        session.close()
    page.page.goto(lab.url("static/favicons/favicon.ico"))
    page.page.emulate_media(color_scheme="dark")
    page.page.evaluate(
        """async ([state, css]) => {
          document.documentElement.style.colorScheme = 'light dark';
          const style = document.createElement('style');
          style.textContent = css;
          document.head.append(style);
          document.body.replaceChildren();
          const source = new Blob([state._esm], { type: 'text/javascript' });
          const { default: widget } = await import(URL.createObjectURL(source));
          const model = { get: name => state[name], on() {}, off() {}, send() {} };
          widget.render({ model, el: document.body });
        }""",
        [state, browser._css],
    )
    expect(page.page.get_by_role("heading", name="reading_time")).to_be_visible()
    page.screenshot("widgets-alone-dark")
