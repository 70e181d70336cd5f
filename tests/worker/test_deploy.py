"""The unit and the manifest in `deploy/`: what they name exists, what they run ends as told."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
import yaml
from click.testing import CliRunner

from fs_notebook.cli import main
from fs_notebook.log.access import Access
from fs_notebook.online.access import RedisAccess
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid
from tests.support.sessions import SUM_SQL, read_events, until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "fs-notebook-runner.service"
MANIFEST = ROOT / "deploy" / "fs-notebook-runner.yaml"
PROGRAM = "import sys; from fs_notebook.cli import main; main(sys.argv[1:])"


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str  # type: ignore[assignment]
    parsed.read_string(UNIT.read_text())
    return parsed


def container() -> dict[str, Any]:
    (found,) = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["containers"]
    return dict(found)


def unit_command() -> list[str]:
    return shlex.split(unit()["Service"]["ExecStart"])


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the options with which click itself would run a command line."""
    assert words[0].rpartition("/")[2] == "fs-notebook"
    command = main.commands[words[1]]
    with click.Context(command) as context:
        command.parse_args(context, list(words[2:]))
        return dict(context.params)


@pytest.mark.parametrize(
    "words", [unit_command(), container()["command"]], ids=["unit", "manifest"]
)
def test_the_command_line_is_one(words: list[str]) -> None:
    options = options_of(words)
    assert words[1] == "runner"
    assert options["verify_every"] == "1h"
    shown = CliRunner().invoke(main, ["runner", "--help"]).output
    named = [w for w in words if w.startswith("--")]
    assert named
    assert all(f"{name} " in shown for name in named)


@pytest.mark.parametrize("path", [UNIT, MANIFEST], ids=["unit", "manifest"])
def test_the_environment_is_read_by_somebody(path: Path) -> None:
    named = set(re.findall(r"\bFS_NOTEBOOK_[A-Z_]+\b", path.read_text()))
    assert {"FS_NOTEBOOK_HOME", "FS_NOTEBOOK_LOG", "FS_NOTEBOOK_REDIS"} <= named
    code = "\n".join(p.read_text() for p in (ROOT / "fs_notebook").rglob("*.py"))
    known = set(re.findall(r"\"(FS_NOTEBOOK_[A-Z_]+)\"", code))
    known |= {f"FS_NOTEBOOK_PULSAR_{f.name.upper()}" for f in fields(Access)}
    known |= {f"FS_NOTEBOOK_REDIS_{f.name.upper()}" for f in fields(RedisAccess)}
    assert named <= known


def test_the_unit_stops_as_the_runner_does() -> None:
    service = unit()["Service"]
    assert (service["KillSignal"], service["KillMode"]) == ("SIGTERM", "mixed")
    assert float(service["TimeoutStopSec"]) > 20
    home = service["Environment"].partition("=")[2]
    assert home == f"/var/lib/{service['StateDirectory']}"
    assert not re.search(r"(?i)(token|password)=(?!…)", UNIT.read_text())


def test_the_manifest_fits_together() -> None:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    pod, runner = spec["template"], container()
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["terminationGracePeriodSeconds"] > 20
    (port,) = runner["ports"]
    address = options_of(runner["command"])["metrics"]
    assert address == f"0.0.0.0:{port['containerPort']}"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert runner[probe]["httpGet"] == {"path": "/metrics", "port": port["name"]}
    mounts = {m["name"]: m["mountPath"] for m in runner["volumeMounts"]}
    assert {v["name"] for v in pod["spec"]["volumes"]} == set(mounts)
    given = {e["name"]: e["value"] for e in runner["env"]}
    assert given["FS_NOTEBOOK_HOME"] == mounts["home"]
    assert not [name for name in given if re.search("TOKEN|PASSWORD|KEY", name)]
    assert runner["envFrom"] == [{"secretRef": {"name": "fs-notebook"}}]


def test_a_runner_that_is_told_to_end_commits_and_ends(
    embedded_session: Session, tmp_path: Path
) -> None:
    """As systemd does it: the unit's own command and addresses from the environment; SIGTERM."""
    session = embedded_session
    session.upload(read_events(0, 100), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    home = session.connection.home
    env = {
        **os.environ, "FS_NOTEBOOK_HOME": str(home), "FS_NOTEBOOK_LOG": "embedded:",
        "FS_NOTEBOOK_REDIS": "embedded:",
    }  # fmt: skip
    options = [w.replace(":9109", ":0") for w in unit_command()[1:]]
    with (tmp_path / "runner.log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *options], stdout=sink, stderr=sink, env=env
        )
    try:
        until(lambda: runner_pid(session.connection) == process.pid, what="the runner")
        status = session.promote("reading_time")
        session.append(read_events(100, 500), "read_events")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert status.pid is not None
    assert not psutil.pid_exists(status.pid)
    assert runner_pid(session.connection) is None
    # Whatever it had folded by then is there, whole, with its position, and what comes after the
    # worker's own position is not its fault.
    (stopped,) = session.status("reading_time")
    session.append(read_events(600, 50), "read_events")
    outcome = session.verify("reading_time")
    assert (outcome.ok, outcome.events) == (True, stopped.events)
    assert 100 <= outcome.events <= 600
    shown = CliRunner().invoke(main, ["--home", str(home), "logs", "reading_time"], env=env).output
    assert "worker of reading_time version 1 starts" in shown


def test_addresses_come_from_the_environment(tmp_path: Path) -> None:
    seen: list[Connection] = []

    @main.command("look-at-the-connection")
    @click.pass_context
    def look(ctx: click.Context) -> None:
        seen.append(ctx.obj)

    env = {
        "FS_NOTEBOOK_HOME": str(tmp_path), "FS_NOTEBOOK_LOG": "pulsar://broker:6650",
        "FS_NOTEBOOK_REDIS": "redis://redis:6379/0", "FS_NOTEBOOK_ADMIN": "",
    }  # fmt: skip
    try:
        done = CliRunner().invoke(main, ["look-at-the-connection"], env=env)
    finally:
        del main.commands["look-at-the-connection"]
    assert done.exit_code == 0, done.output
    assert seen == [Connection(tmp_path, "pulsar://broker:6650", "redis://redis:6379/0", None)]


def test_logs_of_a_derived_feature_are_those_of_its_inputs(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(read_events(0, 10), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.define("twice", "SELECT user, total_readtime * 2 AS doubled FROM reading_time")
    session.promote("twice", with_inputs=True)
    home = ["--home", str(session.connection.home)]
    shown = CliRunner().invoke(main, [*home, "logs", "twice"]).output
    assert "v1 reads reading_time" in shown
    assert "worker of reading_time version 1 starts" in shown
