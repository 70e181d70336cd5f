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
RUN_S_MAX = 400
SIDE = Path(__file__).with_name("feast_side.py")


def install(say: Callable[[str], None]) -> None:
    """Make an environment that has Feast, the first time."""
    mark = _folder() / "installed"
    if mark.exists():
        return
    say("installing Feast")
    venv.create(_folder(), with_pip=True, clear=True)
    subprocess.run(
        [_python(), "-m", "pip", "install", "--quiet", REQUIREMENT],
        check=True, timeout=INSTALL_S_MAX,
    )  # fmt: skip
    mark.touch()


def asked(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the side script found (see there), or None if it took too long or broke.

    Each question has a process of its own: one that takes all memory ends with it alone.
    """
    there = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    there |= {"FEAST_USAGE": "False", "IS_TEST": "True"}
    command = [str(_python()), str(SIDE), json.dumps(config)]
    try:
        done = subprocess.run(
            command, env=there, cwd=config["folder"], capture_output=True, text=True,
            timeout=RUN_S_MAX, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"Feast took more than {RUN_S_MAX} s.", file=sys.stderr)
        return None
    except subprocess.CalledProcessError as error:
        print(f"Feast failed:\n{error.stderr[-3_000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("fs-notebook-tests")) / "feast"


def _python() -> Path:
    return _folder() / "bin" / "python"
