"""The front end's own unit tests, which need Node and no browser."""

from __future__ import annotations

import runpy

from harness import ROOT


def test_the_units_of_the_front_end():
    runpy.run_path(str(ROOT / "labextension" / "build.py"))["test"]()
