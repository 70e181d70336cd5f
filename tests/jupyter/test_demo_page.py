"""The page that `make demo` leaves asks nobody for anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).parents[2]


def test_the_page_loads_no_script_from_elsewhere() -> None:
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "notebooks" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    page, _ = HTMLExporter(raw_template=run.OFFLINE).from_notebook_node(notebook)
    assert "jp-Notebook" in page
    assert 'src="http' not in page
    assert "MathJax" not in page
