"""The widgets: their state, and what becomes of the messages that a page sends."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell

import fs_notebook
from fs_notebook import current
from fs_notebook.catalog.catalog import STREAM
from fs_notebook.catalog.model import DRAFTED
from fs_notebook.errors import DefinitionError, UnknownName, UsageError
from fs_notebook.jupyter.widgets import (
    browse,
    live_value,
    promote_panel,
    side_by_side,
    slice_picker,
)
from fs_notebook.jupyter.widgets.browser import facets_of, toggled
from fs_notebook.jupyter.widgets.figures import about_words, serving_snippet
from fs_notebook.jupyter.widgets.panel import Panel, action, script, style, synced, told
from fs_notebook.portraits import Health
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid
from tests.support.sessions import BEGIN, SUM_SQL, read_events, stop_all, until

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x07 & \"quotes\" 'too'"
COUNT_SQL = "SELECT user, COUNT(*) AS reads FROM read_events GROUP BY user"
DOUBLED = SUM_SQL.replace("SUM(readtime)", "SUM(readtime * 2)")


def ask(panel: Panel, do: str, **fields: Any) -> None:
    """Send a message as the page does, and wait until it is answered."""
    panel._handle_custom_msg({"do": do, **fields}, [])
    panel.settle()


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """Give widgets back as they are, and close them at the end."""
    all_of_them: list[Any] = []

    def keep(panel: Any) -> Any:
        all_of_them.append(panel)
        return panel

    yield keep
    for panel in all_of_them:
        panel.close()


@pytest.fixture
def known(embedded_session: Session) -> Session:
    """A session with a stream and three drafts."""
    s = embedded_session
    s.upload(pl.DataFrame(read_events(0, 700)), "read_events", time="ts")
    s.define("reading_time", SUM_SQL, tags=["reading", "core"], owner="ann")
    s.define("read_count", COUNT_SQL, tags=["reading"], owner="bob")
    s.define("odd", "SELECT user, MAX(readtime) AS most FROM read_events GROUP BY user",
             description=HOSTILE, owner=HOSTILE)  # fmt: skip
    return s


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session with two versions of one group, the second of which serves."""
    place = Connection(tmp_path_factory.mktemp("promoted") / "home")
    session = Session(place, actor="tester")
    session.upload(pl.DataFrame(read_events(0, 700)), "read_events", time="ts")
    session.define("read_count", COUNT_SQL)
    for text in (SUM_SQL, DOUBLED):
        session.define("reading_time", text, tags=["reading", "core"], owner="ann")
        session.promote("reading_time")
    yield session
    session.close()
    stop_all(place)


class Probe(Panel):
    """A widget that does as little as a widget can."""

    _esm = "export default {}"
    said = synced([])
    begun: threading.Event

    @action(text=str, number=float)
    def say(self, text: str, number: float) -> None:
        self.show(said=[*self.said, [text, number]])

    @action()
    def fail(self) -> None:
        raise ValueError("of no account")

    @action()
    def refuse(self) -> None:
        raise DefinitionError("It cannot be folded.", found="this", remedy="that")

    @action()
    def work(self) -> None:
        from fs_notebook.compute.preview import Progress

        def forever(report: Any) -> None:
            while True:
                self.begun.set()
                report(Progress(0.5, 10, 1.0))

        self.begun = threading.Event()
        self.begin("working", forever)


def test_messages_are_typed_and_nothing_else_is_called(opened: Any) -> None:
    probe = opened(Probe())
    ask(probe, "say", text="yes", number=2)
    assert probe.said == [["yes", 2]]
    for wrong in (
        {"do": "say", "text": "no"},
        {"do": "say", "text": "no", "number": "2"},
        {"do": "say", "text": "no", "number": float("nan")},
        {"do": "say", "text": "no", "number": True},
        {"do": "say", "text": "x" * 2_001, "number": 1},
        {"do": "say", "text": "no", "number": 1, "more": 1},
        {"do": "close"},
        {"do": "_end"},
        {"do": "begin"},
        {"do": 3},
        ["say"],
    ):
        probe.error = None
        probe._handle_custom_msg(wrong, [])
        probe.settle()
        assert probe.error["message"] == "The widget's page asked for what there is not."
    assert probe.said == [["yes", 2]]
    assert probe.comm is not None


def test_errors_are_told_in_three_parts_and_never_as_a_traceback(opened: Any) -> None:
    probe = opened(Probe())
    ask(probe, "refuse")
    assert probe.error == {"message": "It cannot be folded.", "found": "this", "remedy": "that"}
    ask(probe, "fail")
    assert probe.error["found"] == "ValueError: of no account"
    assert "Traceback" not in json.dumps(probe.error)
    ask(probe, "say", text="it goes on", number=1)
    assert probe.error is None
    assert told(UsageError("a\x1b[31m"))["message"] == "a␛[31m"


def test_long_work_is_stopped_at_once_and_leaves_the_widget_free(opened: Any) -> None:
    probe = opened(Probe())
    probe._handle_custom_msg({"do": "work"}, [])
    until(lambda: hasattr(probe, "begun") and probe.begun.wait(10))
    assert probe.progress["what"] == "working"
    ask(probe, "stop")
    assert probe.progress is None
    assert probe.error is None


def test_a_closed_widget_ends_its_threads() -> None:
    probe = Probe()
    probe._handle_custom_msg({"do": "work"}, [])
    until(lambda: hasattr(probe, "begun") and probe.begun.wait(10))
    threads = [probe._thread, probe._job_thread]
    probe.close()
    until(lambda: not any(t.is_alive() for t in threads))


def test_the_front_end_is_whole_and_asks_nobody() -> None:
    parts = [
        ("sql", "promotion", "card", "browser"), ("slices",), ("promotion", "promote_panel"),
        ("sql", "beside"), ("live",),
    ]  # fmt: skip
    for names in parts:
        text = script(*names)
        assert text.count("export default") == 1
        # The names of SVG are no addresses; nothing else may look like one, nor make HTML of text.
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|import ", text
        )
    assert "url(" not in style()
    assert "@import" not in style()


def test_the_catalog_is_searched_and_filtered(known: Session, opened: Any) -> None:
    panel = opened(browse("reading", session=known))
    assert [row["name"] for row in panel.window["rows"]] == known.search("reading").names()[:2]
    assert panel.total == 2
    tags = panel.facets[0]
    assert tags == {"filter": "tag", "values": [["reading", 2, False], ["core", 1, False]]}
    ask(panel, "toggle", filter="tag", value="core")
    assert (panel.query, panel.total) == ("reading tag:core", 1)
    assert ["core", 1, True] in panel.facets[0]["values"]
    ask(panel, "toggle", filter="tag", value="core")
    assert (panel.query, panel.total) == ("reading", 2)
    ask(panel, "search", query="raeding_time")
    assert panel.window["rows"][0]["name"] == "reading_time"
    assert "nothing has" in panel.notes[0]
    ask(panel, "search", query="colour:red")
    assert panel.error["message"] == "A search has no filter 'colour'."
    assert "3 features" in repr(opened(browse(session=known)))
    with pytest.raises(UsageError, match="no filter"):
        browse("colour:red", session=known)


def test_filters_are_toggled_in_the_words_of_the_query() -> None:
    assert toggled("a tag:x,y -tag:x", "tag", "x") == "a tag:y -tag:x"
    assert toggled("tag:x", "tag", "X") == ""
    assert toggled("", "owner", "ann b") == "'owner:ann b'"
    assert toggled("'owner:ann b' c", "owner", "ann b") == "c"
    assert toggled('say "it', "tag", "x").endswith("tag:x")
    assert facets_of([], "tag:gone")[0]["values"] == [["gone", 0, True]]


def test_a_card_has_what_the_session_says(promoted: Session, opened: Any) -> None:
    panel = opened(browse(session=promoted))
    ask(panel, "open_card", name="total_readtime")
    card = panel.card
    assert card["name"] == "reading_time"
    assert card["view"]["definition"] == promoted.view("reading_time")["definition"]
    assert [v["label"] for v in card["versions"]] == ["v2", "v1"]
    assert {n["name"] for n in card["lineage"]["nodes"]} == {"read_events", "reading_time"}
    assert [(h["version"], h["serving"]) for h in card["health"]] == [(1, False), (2, True)]
    assert card["health"][1]["lag"] == 0
    assert card["snippet"] == 'fs.serve(["total_readtime"], user=["…"])'
    chart = panel.portrait["charts"][0]
    assert sum(chart["now"]["counts"]) == 7
    assert chart["then"] is None
    assert "No training set" in panel.portrait["notes"][0]
    assert panel.past["features"][0]["feature"] == "total_readtime"
    ask(panel, "compare", before="v1", after="v2")
    assert panel.diff["words"] == list(promoted.diff("reading_time", 1, 2).words)
    ask(panel, "open_card", name="raeding_time")
    assert "did you mean" in panel.error["remedy"]
    ask(panel, "shut_card")
    assert panel.card is None
    assert panel.portrait is None


def test_values_now_are_shown_against_those_of_training(known: Session, opened: Any) -> None:
    labels = pl.DataFrame({
        "user": [f"u{n % 7}" for n in range(140)],
        "ts": [BEGIN + timedelta(minutes=200 + n) for n in range(140)],
    })  # fmt: skip
    made = known.training_set(labels, ["reading_time"], name="spring")
    panel = opened(browse(session=known))
    ask(panel, "open_card", name="reading_time")
    chart = panel.portrait["charts"][0]
    assert chart["labels"] == ["now", "in spring"]
    assert sum(chart["then"]["counts"]) + chart["then"]["nulls"] == made.rows
    assert chart["then"]["edges"] == chart["now"]["edges"]
    # The sums went on growing after the labels: all of them lie beyond.
    assert chart["psi"] > 0.25
    assert any("beyond training's range" in fact for fact in chart["facts"])
    assert known.portrait("reading_time").likenesses[0].psi == chart["psi"]


def test_what_others_change_is_there_in_a_moment(known: Session, opened: Any) -> None:
    panel = opened(browse("reading", session=known))
    ask(panel, "open_card", name="reading_time")
    other = Session(known.connection, actor="bob")
    try:
        other.define("reading_rate", SUM_SQL.replace("total_readtime", "rate"), tags=["reading"])
        other.edit("reading_time", description="by bob")
    finally:
        other.close()
    # No message is sent: the widget's own thread looks.
    until(lambda: panel.total == 3 and panel.card["view"]["description"] == "by bob")
    facts = panel.portrait["charts"][0]["facts"]
    known.define("reading_time", DOUBLED)
    until(lambda: panel.portrait["charts"][0]["facts"] != facts)
    assert "* 2" in panel.card["view"]["definition"]


def test_thousands_of_features_come_in_windows(known: Session, opened: Any) -> None:
    body = json.dumps(known.catalog.refresh().groups["read_count"].latest.to_dict())
    rows = []
    for n in range(3_000):
        text = body.replace("read_count", f"group_{n:05d}").replace('"reads"', f'"reads_{n:05d}"')
        rows.append((DRAFTED, f"group_{n:05d}", f'{{"definition": {text}}}', "ann", BEGIN))
    schema = {name: kind.polars for name, kind in STREAM.columns}
    known.log.append(STREAM, pl.DataFrame(rows, schema=schema, orient="row"))
    panel = opened(browse(session=known))
    assert panel.total == 3_003
    assert len(panel.window["rows"]) == 120
    assert len(json.dumps(panel.get_state())) < 250_000
    ask(panel, "rows", start=2_990, count=5_000)
    assert panel.window["start"] == 2_990
    assert len(panel.window["rows"]) == 13
    ask(panel, "toggle", filter="owner", value="ann")
    assert panel.total == known.search("owner:ann", kinds=["group"], limit=None).total
    assert panel.window["start"] == 0


def test_words_of_others_steer_no_display(known: Session, opened: Any) -> None:
    panel = opened(browse(session=known))
    ask(panel, "open_card", name="odd")
    shown = json.dumps(panel.get_state(), ensure_ascii=False)
    assert "<img src=x" in shown
    assert "\u202e" not in shown
    assert "\x07" not in shown
    assert "\\u0007" not in shown


def test_a_slice_is_brushed_and_previewed(known: Session, opened: Any) -> None:
    panel = opened(slice_picker("read_events", session=known))
    panel.settle()
    line = known.timeline("read_events")
    assert panel.timeline == line.to_dict()
    assert sum(line.counts) == 700
    assert panel.value == {}
    start = datetime(2024, 1, 1, 2, tzinfo=UTC)
    end = datetime(2024, 1, 1, 5, tzinfo=UTC)
    ask(panel, "brush", from_us=_us(start), to_us=_us(end))
    assert panel.value == {"from_": start, "to": end}
    assert panel.chosen["text"] == "--from 2024-01-01T02:00:00 --to 2024-01-01T05:00:00"
    assert panel.chosen["events"] == pytest.approx(180)
    ask(panel, "preview", name="reading_time")
    wanted = known.preview("reading_time", **panel.value)
    assert panel.result.frame.equals(wanted.frame)
    assert panel.shown["entities"] == 7
    assert panel.shown["charts"][0]["feature"] == "total_readtime"
    ask(panel, "brush", from_us=5, to_us=5)
    assert panel.error["message"] == "The slice is empty: it ends before it begins."
    ask(panel, "preview", name="raeding_time")
    assert "did you mean" in panel.error["remedy"]
    ask(panel, "whole")
    assert panel.value == {}
    panel.value = {"from_": start, "to": end}
    assert "about 180 events" in repr(panel)
    with pytest.raises(UnknownName):
        slice_picker("raed_events", session=known)


def _us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def test_a_promotion_is_asked_about_followed_and_taken_back(known: Session, opened: Any) -> None:
    panel = opened(promote_panel("reading_time", session=known))
    lines = dict(panel.promotion["lines"])
    assert lines["Version"] == "v1"
    assert lines["History to fold"] == "700 events of read_events"
    assert lines["Used by"] == "nobody so far"
    ask(panel, "promote", name="reading_time")
    until(lambda: panel.promotion["version"] == 1)
    until(lambda: panel.promotion["health"][0]["lag_s"] == 0.0)
    assert panel.promotion["health"][0]["position"] == "0:0:699:0"
    assert "v1 serves" in repr(panel)
    known.define("reading_time", DOUBLED)
    ask(panel, "look")
    lines = dict(panel.promotion["lines"])
    assert lines["Version"].startswith("v2; v1 serves until it is live")
    runner = runner_pid(known.connection)
    assert runner is not None
    # While the runner stands still nothing of v2 is bootstrapped, so that it can be called off.
    os.kill(runner, signal.SIGSTOP)
    try:
        ask(panel, "promote", name="reading_time")
        assert (panel.promotion["wanted"], panel.promotion["version"]) == (2, 1)
        ask(panel, "call_off", name="reading_time")
        assert panel.error is None
        assert (panel.promotion["wanted"], panel.promotion["version"]) == (1, 1)
        served = known.serve("total_readtime", user="u1")
        assert served["total_readtime"] == [sum(range(1, 700, 7))]
    finally:
        os.kill(runner, signal.SIGCONT)
    # What was called off is no draft any more: whoever wants it after all runs its cell again.
    known.define("reading_time", DOUBLED)
    ask(panel, "promote", name="reading_time")
    until(lambda: panel.promotion["version"] == 2)
    ask(panel, "call_off", name="reading_time")
    assert panel.error["message"] == "Nothing of 'reading_time' is being bootstrapped."
    ask(panel, "roll_back", name="reading_time")
    until(lambda: panel.promotion["version"] == 1)
    assert known.view("reading_time")["version"] == 1
    with pytest.raises(UnknownName):
        promote_panel("raeding_time", session=known)


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_us(self) -> int:
        return int(self.at_s * 1_000_000)

    def monotonic_s(self) -> float:
        return self.at_s

    def sleep_s(self, seconds: float) -> None:
        self.at_s += seconds


def test_a_bootstrap_says_how_long_it_goes_on(
    known: Session, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fs_notebook.promotion.ensure_runner", lambda *_, **__: 0)
    known.promote("reading_time", wait=False)
    share: float | None = 0.2

    def health(name: str) -> list[Health]:
        return [Health(1, False, "bootstrapping", None, None, 1_000.0, 140, share, None, None,
                       None, None)]  # fmt: skip

    monkeypatch.setattr(known, "health", health)
    panel, clock = opened(promote_panel("reading_time", session=known)), Hands()
    # The panel's own thread stays out of it: it asks by the machine's clock.
    monkeypatch.setattr(panel, "tick", lambda: None)
    panel._clock, panel._pace = clock, None

    def left_s() -> float | None:
        ask(panel, "look")
        assert panel.promotion["health"][0]["progress"] == share
        left: float | None = panel.promotion["left_s"]
        return left

    assert left_s() is None
    clock.at_s, share = clock.at_s + 10, 0.6
    # Four tenths took ten seconds, and four are left; they are counted down where nothing is told.
    assert left_s() == pytest.approx(10)
    clock.at_s += 4
    assert left_s() == pytest.approx(6)
    clock.at_s += 60
    assert left_s() == 0
    share = 0.9
    assert left_s() == pytest.approx(74 / 7)
    share = None
    assert left_s() is None


def test_a_first_version_is_called_off(
    known: Session, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a runner a promotion stays on its way for as long as it is looked at.
    monkeypatch.setattr("fs_notebook.promotion.ensure_runner", lambda *_, **__: 0)
    panel = opened(promote_panel("read_count", session=known))
    ask(panel, "promote", name="read_count")
    assert (panel.promotion["wanted"], panel.promotion["version"]) == (1, None)
    ask(panel, "call_off", name="read_count")
    assert panel.error is None
    # It is no longer on its way, and can be promoted again.
    assert panel.promotion["wanted"] is None
    assert dict(panel.promotion["lines"])["Version"] == "v1"
    assert [v.state for v in known.about("read_count").versions] == ["retired"]
    ask(panel, "call_off", name="read_count")
    assert panel.error["found"] == "nothing promoted"


def test_versions_stand_side_by_side(promoted: Session, opened: Any) -> None:
    panel = opened(side_by_side("reading_time@1", "reading_time@2", session=promoted))
    panel.settle()
    assert panel.labels == ["v1", "v2"]
    assert [("* 2" in text) for text in panel.texts] == [False, True]
    wanted = promoted.compare("reading_time", (1, 2))
    assert panel.outcome["line"] == wanted.line
    chart = panel.outcome["charts"][0]
    assert sum(chart["now"]["counts"]) == sum(chart["then"]["counts"]) == 7
    assert chart["labels"] == ["v2", "v1"]
    promoted.define("reading_time", SUM_SQL.replace("SUM(", "MAX("), tags=["reading", "core"])
    ask(panel, "choose", before="v2", after="draft")
    assert panel.outcome is None
    assert panel.refusal["message"] == "A draft has no values online."
    assert "computed otherwise" in repr(panel)
    promoted.retire("reading_time")
    with pytest.raises(UsageError, match="one feature"):
        side_by_side("reading_time@1", "read_count", session=promoted)
    with pytest.raises(UnknownName):
        side_by_side("reading_time@1", 7, session=promoted)


def test_a_live_value_follows_the_stream(promoted: Session, opened: Any) -> None:
    panel = opened(live_value(["total_readtime"], user="u1", session=promoted))
    (value,) = panel.values
    served = promoted.serve(["total_readtime"], user=["u1"])
    assert value["text"] == f"{served['total_readtime'][0]:,}"
    assert (value["status"], value["version"], value["type"]) == ("present", 2, "BIGINT")
    promoted.upload([{"user": "u1", "readtime": 1_000, "ts": BEGIN}], "read_events")
    before = len(value["history"])
    until(lambda: panel.values[0]["text"] == f"{served['total_readtime'][0] + 2_000:,}")
    assert len(panel.values[0]["history"]) > before
    ask(panel, "pause", on=True)
    assert panel.paused
    ask(panel, "look_at", texts=["user=nobody"])
    assert panel.values[0]["status"] == "not found"
    assert panel.entity == [["user", "nobody"]]
    ask(panel, "look_at", texts=["user"])
    assert panel.error["message"] == "An entity has one value for each part of the key."
    assert panel.entity == [["user", "nobody"]]
    # Looking is no use of the feature.
    assert [use.kind for use in promoted.uses("reading_time")] == ["serving"]
    assert promoted.uses("reading_time")[0].reads == 1
    with pytest.raises(UsageError, match="One entity"):
        live_value("total_readtime", user=["u1", "u2"], session=promoted)


def test_a_serving_call_is_python_whatever_the_names() -> None:
    view = {"features": [{"name": "a"}, {"name": 'b"'}], "entity": ["user", "zip code"],
            "requests": [{"name": "amount"}]}  # fmt: skip
    assert serving_snippet(view) == (
        'fs.serve(["a", "b\\""], user=["…"], amount=["…"], **{"zip code": ["…"]})'
    )
    words = [about_words(s) for s in (1, 45.2, 600, 7_300)]
    assert words == ["a few seconds", "about 46 s", "about 10 min", "about 3 h"]


def test_the_magics_open_widgets_and_tell_a_terminal(
    promoted: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(current, "_current", promoted)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "fs_notebook")
    try:
        for line, said in (
            ("browse tag:core", "1 feature\n"),
            ("slice read_events --into picker", " events, 2024-01-01"),
            ("live total_readtime user=u1", "total_readtime v2"),
            ("promote reading_time --panel", "v2 serves"),
            ("compare reading_time --versions 1,2 --panel", "computed otherwise"),
        ):
            shell.run_line_magic("feature", line)
            assert said in capsys.readouterr().out, line
        picker = shell.user_ns["picker"]
        assert fs_notebook.preview("reading_time", **picker.value).entities == 7
        picker.close()
    finally:
        shell.run_line_magic("unload_ext", "fs_notebook")
