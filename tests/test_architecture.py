"""ARCHITECTURE.md says which way imports run; this holds the code to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fs_notebook"
LINES_MAX = 520

# Each row imports only from rows above it and from its own room.
ROWS = [
    ["_version", "errors", "clock", "position", "processes"],
    ["environment"],
    ["origins"],
    ["types", "embedders"],
    ["decimals"],
    ["kernel"],
    ["language"],
    ["log"],
    ["compute"],
    ["online"],
    ["catalog"],
    ["worker"],
    ["shards"],
    ["model"],
    ["files", "keys"],
    ["glances"],
    ["ingest", "views", "datasets"],
    ["uploads"],
    ["promotion", "waiting", "sources", "declarations", "letters"],
    ["inspection", "timelines", "transfer"],
    ["transforms", "stream_calls", "explanation", "comparison", "curation"],
    ["definitions", "training_calls", "set_calls", "backfill_calls"],
    ["outlooks", "portraits"],
    ["testing", "review"],
    ["session"],
    ["current", "service", "http"],
    ["jupyter", "server"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the rooms that a file imports, wherever in it the import stands."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "fs_notebook":
                names = [f"fs_notebook.{alias.name}" for alias in node.names]
        rooms |= {n.split(".")[1] for n in names if n.startswith("fs_notebook.")}
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    mine = room_of(path)
    for other in imported(path) - {mine}:
        assert RANK[other] < RANK[mine], f"{mine} imports {other}"


def test_every_room_is_in_the_picture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = {room_of(p) for p in FILES}
    assert rooms <= set(RANK)
    missing = {r for r in rooms if r != "_version" and f"`{r}" not in text}
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_can_be_held(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize(
    ("driver", "allowed"),
    [("pulsar", {"log/client.py"}), ("sqlite3", {"log/sqlite.py", "log/stored.py"})],
)
def test_drivers_stay_in_their_files(driver: str, allowed: set[str]) -> None:
    pattern = re.compile(rf"^\s*(import {driver}\b|from {driver}\b)", re.MULTILINE)
    found = {str(p.relative_to(PACKAGE)) for p in FILES if pattern.search(p.read_text())}
    assert found <= allowed


def test_loading_the_extension_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as S; "
        "s = S.instance(); before = set(sys.modules); s.run_line_magic('load_ext', 'fs_notebook'); "
        "heavy = {'polars', 'pulsar', 'sklearn', 'altair', 'pyarrow', 'redis', 'sqlglot', "
        "'starlette', 'uvicorn'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
