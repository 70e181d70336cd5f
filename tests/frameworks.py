"""Installs PyTorch and TensorFlow for the tests, without gigabytes of what only a GPU needs.

The index's PyTorch for Linux is linked against CUDA's libraries, 2.5 GB that no machine without a
GPU ever calls, and it does not load where they are missing. So it is installed without them, and in
their places stand libraries whose functions all answer "no device". What runs on the CPU is
PyTorch's own. Run again, it leaves what is there as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What PyTorch imports, beside the libraries of the GPU and the compiler for it.
BESIDE_TORCH = ("filelock", "fsspec", "jinja2", "networkx", "sympy", "typing_extensions")
GPU_LIBRARY = re.compile(r"lib(?:cu|nv|nccl)")
GPU_NAME = re.compile(r"(?:cu|nv|nccl)")
NO_DEVICE = 100
"""CUDA's own number for it."""

Versions = dict[str, dict[str, set[str]]]


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def asked_of(folder: Path) -> tuple[set[str], Versions, set[str]]:
    """Return the GPU libraries that a folder's libraries need, and the names they take of them.

    Names that say which version of which library they are of come by library and version; those
    of libraries that have no versions come together, for any of them may have them.
    """
    needed: set[str] = set()
    versioned: Versions = {}
    plain: set[str] = set()
    defined: set[str] = set()
    for file in sorted(folder.glob("*.so*")):
        found = re.findall(r"\(NEEDED\).*\[([^\]]+)\]", output("readelf", "-dW", str(file)))
        needed |= {name for name in found if GPU_LIBRARY.match(name)}
        libraries, library = {}, ""
        for line in output("readelf", "-VW", str(file)).splitlines():
            if match := re.search(r"File: (\S+)", line):
                library = match[1]
            elif (match := re.search(r"Name: (\S+)", line)) and GPU_LIBRARY.match(library):
                libraries[match[1]] = library
        for line in output("readelf", "--dyn-syms", "-W", str(file)).splitlines():
            parts = line.split()
            if len(parts) < 8 or not parts[0].rstrip(":").isdecimal():
                continue
            name, _, version = parts[7].partition("@")
            version = version.lstrip("@")
            if parts[6] != "UND":
                defined.add(name)
            elif version in libraries:
                versioned.setdefault(libraries[version], {}).setdefault(version, set()).add(name)
            elif not version and GPU_NAME.match(name):
                plain.add(name)
    return needed, versioned, plain - defined


def stand_in(library: Path, versions: dict[str, set[str]], plain: set[str]) -> None:
    """Write a library whose functions answer "no device"."""
    names = sorted(plain.union(*versions.values()))
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "stand_in.c"), Path(folder, "stand_in.map")
        source.write_text(
            "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in names)
        )
        script.write_text("".join(
            f"{version} {{ global: {'; '.join(sorted(mine))}; }};\n"
            for version, mine in versions.items()
        ))  # fmt: skip
        flags = [f"-Wl,--version-script={script}"] if versions else []
        output(
            "gcc", "-shared", "-fPIC", "-w", "-fno-builtin", str(source), "-o", str(library),
            f"-Wl,-soname,{library.name}", *flags,
        )  # fmt: skip


def stand_ins(folder: Path) -> int:
    """Write what PyTorch's libraries in a folder need of a GPU's; return how many there are."""
    needed, versioned, plain = asked_of(folder)
    missing = sorted(name for name in needed if not (folder / name).exists())
    for place, name in enumerate(missing):
        stand_in(folder / name, versioned.get(name, {}), plain if place == 0 else set())
    return len(missing)


def pip(*arguments: str) -> None:
    """Install something into this environment; bytecode is made of what is imported, not of all."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *arguments]
    subprocess.run(command, check=True)


def is_there(module: str) -> bool:
    """Tell whether a module can be imported, by another process."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    return done.returncode == 0


def main() -> None:
    begun_s = time.monotonic()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    missing = [module for module in ("torch", "tensorflow") if not is_there(module)]
    if "torch" in missing:
        pip(*BESIDE_TORCH)
        pip("--no-deps", *extras["torch"])
        if sys.platform == "linux":
            count = stand_ins(Path(sysconfig.get_paths()["purelib"], "torch", "lib"))
            print(f"{count} libraries of a GPU are stood in for")
        if not is_there("torch"):
            # A release that asks for more of them: then all that it declares.
            print("PyTorch does not load with them: its GPU libraries are installed, gigabytes")
            pip("--force-reinstall", *extras["torch"])
    # The same as the `tensorflow` of the extra, without what only a GPU needs.
    if "tensorflow" in missing:
        pip(*(name.replace("tensorflow", "tensorflow-cpu") for name in extras["tensorflow"]))
    for module in missing:
        if not is_there(module):
            sys.exit(f"{module} does not load: {sys.executable} -c 'import {module}' says why")
    print(f"torch and tensorflow are there, after {time.monotonic() - begun_s:.0f} s")


if __name__ == "__main__":
    main()
