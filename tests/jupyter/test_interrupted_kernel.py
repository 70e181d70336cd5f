"""A kernel that is interrupted in long work ends it, has written no half of it, and goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.support.sessions import stop_all

pytestmark = pytest.mark.timeout(150)

WITHIN_S = 1.0
SLACK = 20
"""How many times longer a machine that does much else at once may take."""

SETUP = '''
%load_ext fs_notebook
import fs_notebook as fs
import numpy as np, polars as pl
from datetime import datetime, timezone, timedelta
rng = np.random.default_rng(1)
begin = datetime(2024, 1, 1, tzinfo=timezone.utc)
def rows(count):
    seconds = np.sort(rng.integers(0, 10**7, count))
    frame = pl.DataFrame({"user": rng.integers(0, 500, count), "x": rng.normal(size=count)})
    return frame.with_columns(ts=begin + pl.Series(seconds * 1_000_000).cast(pl.Duration("us")))
fs.upload(rows(100_000), "reads", time="ts")
fs.define("recent", """SELECT user, AVG(x) OVER w AS mean, QUANTILE_CONT(x, 0.5) OVER w AS middle,
    QUANTILE_CONT(x, 0.9) OVER w AS most, STDDEV(x) OVER w AS deviation FROM reads
    WINDOW w AS (PARTITION BY user ORDER BY ts
                 RANGE BETWEEN INTERVAL 20 DAY PRECEDING AND CURRENT ROW)""")
labels = rows(20_000).with_columns(clicked=pl.col("x") > 0, base=pl.col("x") ** 2)
labels = labels.rename({"x": "known"})
def tell(progress):
    print("<" + progress.what + ">", flush=True)
'''


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(tmp_path / "home"))
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        said = client.execute_interactive(SETUP, timeout=90, output_hook=lambda _: None)
        assert said["content"]["status"] == "ok", said["content"]
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        stop_all(Connection(tmp_path / "home"))


def interrupted(kernel: tuple[Any, Any], cell: str, at: str) -> dict[str, Any]:
    """Run a cell, interrupt the kernel when it tells `at`, and return its reply."""
    manager, client = kernel
    asked = client.execute(cell)
    told = ""
    while f"<{at}" not in told:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == asked:
            told += message["content"].get("text", "")
            assert message["content"].get("execution_state") != "idle", told
    manager.interrupt_kernel()
    until = time.monotonic() + WITHIN_S * SLACK
    try:
        while True:
            reply = client.get_shell_msg(timeout=max(until - time.monotonic(), 0))
            if reply["parent_header"].get("msg_id") == asked:
                found: dict[str, Any] = reply["content"]
                return found
    except Empty:
        pytest.fail(f"the cell goes on {WITHIN_S * SLACK:.0f} s after the interrupt")


def result(kernel: tuple[Any, Any], expression: str) -> str:
    """Return what the kernel prints for an expression, in a cell of its own."""
    found: list[str] = []
    reply = kernel[1].execute_interactive(
        f"print({expression})", timeout=60,
        output_hook=lambda m: found.append(m["content"].get("text", "")),
    )  # fmt: skip
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(found).strip()


def test_fault_35_an_interrupt_ends_a_lift_and_a_training_set_and_the_kernel_goes_on(
    kernel: tuple[Any, Any], tmp_path: Path
) -> None:
    # In the middle of a fit of a default lift, and among draws enough to last.
    for at, options in (("fitting with (", ""), ("bootstrapping", "folds=1, bootstraps=100_000, ")):
        lift = f'fs.lift("recent", labels, "clicked", {options}on_progress=tell)'
        reply = interrupted(kernel, lift, at)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert result(kernel, "6 * 7") == "42"
    with closing(Session(Connection(tmp_path / "home"))) as here:
        assert here.catalog.refresh().groups["recent"].lifts == ()
    out = tmp_path / "train.parquet"
    for options in ("", f"out={str(out)!r}, shards=400, "):
        made = f'fs.training_set(labels, "recent", name="kept", {options}on_progress=tell)'
        reply = interrupted(kernel, made, "joining")
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        assert result(kernel, "fs.training_sets()") == "[]"
    assert not [p for p in tmp_path.iterdir() if "train" in p.name]
    # The same again, uninterrupted, is whole.
    whole = 'fs.training_set(labels, "recent", name="kept").rows'
    assert result(kernel, whole) == "20000"
