"""`binder/` by repo2docker's rules, as far as they go without a container.

What repo2docker does: it reads one folder, `binder/` or `.binder/`; takes the Python of
`runtime.txt`; installs `requirements.txt` with pip from the repository's root; runs `postBuild`
there; and would run `start` before each session. Files that it does not know it passes over.
"""

from __future__ import annotations

import ast
import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What repo2docker's Python images are made of; `environment.yml` or a Dockerfile would take the
# place of all others.
KNOWN = {"runtime.txt", "requirements.txt", "apt.txt", "postBuild", "start"}
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
# In its images of 2026; Node there is 20.
IMAGE_NOTEBOOK, IMAGE_NODE = "7.4.7", 20

# Packages that are imported by another name than they are installed by.
OTHERWISE = {"sklearn": "scikit-learn", "IPython": "ipython"}


def lines_of(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (BINDER / name).read_text().splitlines())
    return [line for line in lines if line]


def installed_by_demo() -> dict[str, Requirement]:
    """Return what the project's requirements with the extra `demo` ask for, by name."""
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["demo"]]
    found = [Requirement(text) for text in asked]
    return {canonicalize_name(r.name): r for r in found if r.marker is None or r.marker.evaluate()}


def closure(names: set[str]) -> set[str]:
    """Return the distributions that installing some brings, by what is installed here."""
    found: set[str] = set()
    ahead = [(name, "") for name in names]
    while ahead:
        name, extra = ahead.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                ahead.append((canonicalize_name(one.name), next(iter(one.extras), "")))
    return found


def test_there_is_one_folder_with_nothing_that_would_be_passed_over() -> None:
    assert not (ROOT / ".binder").exists(), "repo2docker refuses two folders"
    there = {path.name for path in BINDER.iterdir()}
    assert there <= KNOWN, "repo2docker passes over what it does not know"
    assert {"runtime.txt", "requirements.txt"} <= there


def test_it_brings_a_python_that_the_package_takes() -> None:
    """Left to itself, repo2docker builds images with Python 3.10."""
    name, version = (BINDER / "runtime.txt").read_text().strip().split("-")
    assert (name, version) == ("python", re.sub(r"[^0-9.]", "", version))
    assert version in PYTHONS
    assert version in SpecifierSet(PROJECT["requires-python"])
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


def test_its_requirements_are_the_project_with_the_demo_extra() -> None:
    own, *others = lines_of("requirements.txt")
    # A path: pip reads it from the repository's root, which is copied before it is asked.
    assert own == ".[demo]"
    assert "demo" in PROJECT["optional-dependencies"]
    asked = {r.name: r for r in map(Requirement, others)}
    assert set(asked) == {"notebook"}
    lab = installed_by_demo()["jupyterlab"].specifier
    # Notebook 7.4 is made for JupyterLab 4.4 and no newer; the image starts it.
    assert IMAGE_NOTEBOOK not in asked["notebook"].specifier
    assert "4.4.9" not in lab
    assert "7.6.0" in asked["notebook"].specifier


def test_what_it_asks_for_fits_what_the_tests_run_with() -> None:
    for name, one in installed_by_demo().items():
        found = metadata.version(name)
        assert one.specifier.contains(found, prereleases=True), f"{name} {found}: {one}"


def test_the_notebooks_import_nothing_that_it_does_not_bring() -> None:
    brought = closure(set(installed_by_demo())) | {"fs-notebook"}
    books = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert books
    for book in books:
        cells = nbformat.read(book, as_version=4).cells
        texts = [c.source for c in cells if c.cell_type == "code"]
        plain = [re.sub(r"^[ \t]*[%!].*$", "pass", t, flags=re.M) for t in texts if t[:2] != "%%"]
        trees = [ast.parse(text) for text in plain]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
        for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
            assert OTHERWISE.get(top, canonicalize_name(top)) in brought, f"{book.name}: {top}"


def run_post_build(folder: Path, commands: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `postBuild` as the image's build does, with these commands in place of the real ones."""
    (folder / "bin").mkdir()
    for name, script in commands.items():
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder / "calls"}\n{script}\n')
        path.chmod(0o755)
    env = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["./binder/postBuild"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


LISTED = "echo 'fs-notebook v0.1.0 enabled OK' >&2"


def test_post_build_builds_the_sidebar_and_sees_that_it_is_there(tmp_path: Path) -> None:
    script = BINDER / "postBuild"
    assert script.read_text().startswith("#!")
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=30)
    done = run_post_build(tmp_path, {"python": "", "jupyter": LISTED})
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["python labextension/build.py --required", "jupyter labextension list"]
    builder = ROOT / "labextension" / "build.py"
    assert '"--required"' in builder.read_text()
    least = re.search(r"NODE_MAJOR_MIN = (\d+)", builder.read_text())
    assert least is not None
    assert int(least[1]) <= IMAGE_NODE


@pytest.mark.parametrize(
    "commands",
    [{"python": "exit 1", "jupyter": LISTED}, {"python": "", "jupyter": "echo nothing"}],
)
def test_an_image_without_the_sidebar_is_not_built(
    tmp_path: Path, commands: dict[str, str]
) -> None:
    assert run_post_build(tmp_path, commands).returncode != 0


def test_a_start_script_hands_over() -> None:
    start = BINDER / "start"
    if start.exists():
        assert start.read_text().splitlines()[-1] == 'exec "$@"'


def test_links_to_an_image_name_notebooks_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert "`binder/`" in text
    for link in re.findall(r"https://mybinder\.org/[^\s)\"]+", text):
        named = re.search(r"(?:urlpath|labpath|filepath)=([^&]+)", link)
        assert named is not None, link
        path = named[1].replace("%2F", "/").removeprefix("lab/tree/")
        assert (ROOT / path).is_file(), link
