"""Run a notebook as `make demo` and the tests do: fresh home, real kernel, executed copy kept.

Usage: python notebooks/run.py NOTEBOOK [--home FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from fs_notebook.cli import main as fs_notebook
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid

# The kernel warns that its ports on this machine are not encrypted; that is no news here.
QUIET = ["--IPKernelApp.log_level=ERROR"]

# A page that asks nobody: these two scripts come from the net, and nothing here needs them.
OFFLINE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js_requirejs %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
"""


def stop(home: Path) -> None:
    """Stop what a former run left running in `home`."""
    if home.exists():
        fs_notebook(["--home", str(home), "stop"], standalone_mode=False)


def heading(cells: list[nbformat.NotebookNode], index: int) -> str:
    """Return the first line of a code cell, for the list of what runs."""
    return str(cells[index].source.splitlines()[0])[:90]


def execute(path: Path, home: Path) -> tuple[nbformat.NotebookNode, bool]:
    """Execute all cells with real magics; return the notebook and whether all went well."""
    os.environ["FS_NOTEBOOK_HOME"] = str(home)
    notebook = nbformat.read(path, as_version=4)
    # A widget's text is what a page shows that fetches no scripts for it: its state is not kept.
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", extra_arguments=QUIET,
        store_widget_state=False, resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip

    def started(cell: nbformat.NotebookNode, cell_index: int) -> None:
        if cell.cell_type == "code":
            print(f"  {heading(notebook.cells, cell_index)}", flush=True)

    client.on_cell_start = started
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return notebook, False
    return notebook, True


def page_of(notebook: nbformat.NotebookNode) -> str:
    """Return an executed notebook as a page of HTML that needs nothing else."""
    page, _ = HTMLExporter(embed_images=True, raw_template=OFFLINE).from_notebook_node(notebook)
    return str(page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--home", type=Path, default=Path(".demo"))
    parser.add_argument("--out", type=Path, default=Path("notebooks/executed"))
    options = parser.parse_args()
    home, out = options.home.absolute(), options.out.absolute()
    stop(home)
    shutil.rmtree(home, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    print(f"Running {options.notebook} with FS_NOTEBOOK_HOME={home}")
    begun = time.monotonic()
    notebook, well = execute(options.notebook.absolute(), home)
    copy = out / options.notebook.name
    nbformat.write(notebook, copy)
    copy.with_suffix(".html").write_text(page_of(notebook), encoding="utf-8")
    if not well:
        print(f"The notebook did not finish; as far as it came: {copy.with_suffix('.html')}")
        return 1
    print(f"""
Done in {time.monotonic() - begun:.0f} s. Where to look:
  previews, lift, served values   {copy.with_suffix(".html")}
  the same as a notebook          {copy}
  JupyterLab with the sidebar     make lab""")
    if runner_pid(Connection.remembered(home)) is None:
        print("\nThe notebook has stopped its workers.")
        return 0
    command = f".venv/bin/fs-notebook --home {options.home}"
    print(f"""  the workers, still running      {command} status
  every value checked again       {command} verify plane_delay
  stop workers and Redis          {command} stop
""")
    fs_notebook(["--home", str(home), "status"], standalone_mode=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
