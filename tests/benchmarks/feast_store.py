"""Feast beside ours: installed in an environment of its own, in the user's cache folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

REQUIREMENT = "feast[redis]>=0.60,<1"
INSTALL_S_MAX = 900
RUN_S_MAX = 900
SIDE = Path(__file__).with_name("feast_side.py")


def interpreter(say: Callable[[str], None]) -> Path:
    """Return the Python that has Feast; install it the first time."""
    folder = Path(platformdirs.user_cache_dir("fs-notebook-tests")) / "feast"
    python, mark = folder / "bin" / "python", folder / "installed"
    if not mark.exists():
        say("installing Feast")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", REQUIREMENT],
            check=True, timeout=INSTALL_S_MAX,
        )  # fmt: skip
        mark.touch()
    return python


def measured(config: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Return what the side script measured: see there."""
    python = interpreter(say)
    say("Feast")
    there = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    there |= {"FEAST_USAGE": "False", "IS_TEST": "True"}
    done = subprocess.run(
        [python, SIDE, json.dumps(config)], env=there, cwd=config["folder"], capture_output=True,
        text=True, timeout=RUN_S_MAX, check=False,
    )  # fmt: skip
    if done.returncode:
        print(done.stderr[-3_000:], file=sys.stderr)
        raise RuntimeError("Feast failed: see above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
