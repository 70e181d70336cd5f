"""The wheel: whole where the extension was built, and built all the same where it cannot be."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = "share/jupyter/labextensions/fs-notebook/"
SWITCH = "etc/jupyter/jupyter_server_config.d/fs_notebook.json"


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of what the wheel is made of, without anything built."""
    unbuilt = shutil.ignore_patterns("node_modules", "lib", "__pycache__", "*.tsbuildinfo", ".yarn")
    top = tmp_path / "checkout"
    shutil.copytree(ROOT / "labextension", top / "labextension", ignore=unbuilt)
    shutil.copytree(
        ROOT / "fs_notebook",
        top / "fs_notebook",
        ignore=shutil.ignore_patterns("__pycache__", "labextension"),
    )
    for name in ("pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, top / name)
    (top / "README.md").write_text("# A readme\n")
    return top


def build(top: Path, **env: str) -> tuple[list[str], str]:
    """Build a wheel where there is no Node; return the names in it, and what was said."""
    empty = top.parent / "no-tools"
    empty.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=top,
        env={"PATH": str(empty), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode != 0:
        raise RuntimeError(said)
    (wheel,) = (top / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist(), said


def test_without_node_everything_but_the_extension_is_there(checkout):
    names, said = build(checkout)
    assert "fs_notebook/server/handlers.py" in names
    assert any(name.endswith(SWITCH) for name in names)
    assert not any(EXTENSION in name for name in names)
    assert "left out, everything else works" in said


def test_a_release_cannot_forget_the_extension(checkout):
    with pytest.raises(RuntimeError, match="left out"):
        build(checkout, FS_NOTEBOOK_LABEXTENSION="required")


def built(checkout: Path) -> dict:
    """Put a bundle in place as a build would; return the builder's functions."""
    builder = runpy.run_path(str(checkout / "labextension" / "build.py"))
    (builder["BUNDLE"] / "static").mkdir(parents=True)
    (builder["BUNDLE"] / "package.json").write_text("{}")
    (builder["BUNDLE"] / "static" / "style.js").write_text("")
    builder["STAMP"].write_text(builder["digest"]())
    return builder


def test_a_built_extension_ships_once_as_shared_data(checkout):
    built(checkout)
    names, said = build(checkout)
    shipped = [name for name in names if EXTENSION in name]
    assert {Path(name).name for name in shipped} >= {"package.json", "style.js", "install.json"}
    assert not any(name.startswith("fs_notebook/labextension/") for name in names)
    assert "up to date" in said


def test_a_stale_bundle_is_never_shipped(checkout):
    builder = built(checkout)
    assert builder["is_current"]()
    source = checkout / "labextension" / "src" / "index.ts"
    source.write_text(source.read_text() + "// changed\n")
    assert not builder["is_current"]()
    names, _ = build(checkout)
    assert not any(EXTENSION in name for name in names)
