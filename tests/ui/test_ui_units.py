"""The front end's own unit tests, which need Node, and those of what looks at the front end."""

from __future__ import annotations

import runpy

import harness
import pytest
from harness import ROOT


def test_the_units_of_the_front_end():
    runpy.run_path(str(ROOT / "labextension" / "build.py"))["test"]()


def test_a_screenshot_that_shows_nothing_fails(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ARTIFACTS", tmp_path / "kept")
    page = chromium.blank()
    for colour in ("white", "#1b6f9e", "rgb(3 250 90)"):
        page.page.set_content(f"<body style='background: {colour}'></body>")
        with pytest.raises(AssertionError, match="shows nothing"):
            page.screenshot("blank")
    page.page.set_content("<p>some words</p>")
    assert page.screenshot("words").parent == tmp_path / "kept"
    page.keep("figures", {"frames": 3})
    assert (tmp_path / "kept" / "figures.json").read_text() == '{"frames": 3}'
