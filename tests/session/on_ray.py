"""What a local Ray of two workers computes, beside this process; prints JSON.

Run as a process of its own: Ray has signal handlers, threads and warnings of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fs_notebook.errors import OverflowInFold
from fs_notebook.online.embedded import stop_embedded
from fs_notebook.session import Session
from fs_notebook.shards import engines, work
from fs_notebook.worker.connection import Connection
from tests.session.test_sharded import FEATURES, defined, labels

WORKERS = 2


def here(*_: Any, **__: Any) -> Any:
    raise AssertionError("the work was done in this process")


def meeting(folder: Path, count: int) -> Callable[..., bytes]:
    """Return what does a task once so many processes have one at the same time, and notes which.

    One worker that did all of the work alone would wait for the others, and fail.
    """
    do = work.done

    def done(what: str, split: int | None, *blocks: bytes) -> bytes:
        (folder / str(os.getpid())).touch()
        until = time.monotonic() + 90
        while len(list(folder.iterdir())) < count:
            assert time.monotonic() < until, "no other worker took a task"
            time.sleep(0.01)
        return do(what, split, *blocks)

    return done


def compare(session: Session, folder: Path) -> dict[str, Any]:
    given: dict[str, Any] = {"entity": {"n": "number"}}
    whole = session.training_set(labels(), FEATURES, **given)
    local = session.training_set(labels(), FEATURES, shards=5, **given)
    filled = {n: session.backfill(n, shards=5).to_polars() for n in ("reading", "recent")}
    file = session.training_set(labels(), FEATURES, shards=5, out=folder / "here.parquet", **given)
    pids = folder / "pids"
    pids.mkdir()
    engines.done = meeting(pids, WORKERS)
    # From here on whoever works in this process is found out.
    work.shard_values = work.entity_values = here  # type: ignore[assignment]
    remote = session.training_set(labels(), FEATURES, shards=5, engine="ray", **given)
    labels().write_parquet(folder / "labels.parquet")
    written = session.training_set(
        folder / "labels.parquet", FEATURES, shards=5, engine="ray", out=folder / "ray.parquet",
        **given,
    )  # fmt: skip
    backfills = [
        session.backfill(name, shards=5, engine="ray").to_polars().equals(frame)
        for name, frame in filled.items()
    ]
    session.define(
        "huge", "SELECT user, SUM(n + 9000000000000000000) AS huge FROM reads GROUP BY user"
    )
    try:
        session.training_set(labels(), "huge", engine="ray")
        error = None
    except OverflowInFold as overflow:
        error = str(overflow)
    return {
        "workers": sorted(int(p.name) for p in pids.iterdir()),
        "here": os.getpid(),
        "same": remote.frame.equals(local.frame),
        "labels_in_order": remote.frame.select(labels().columns).equals(labels()),
        "fingerprint": remote.fingerprint == whole.fingerprint,
        "coverage": remote.coverage == whole.coverage,
        "written": written.to_polars().equals(file.to_polars()),
        "in_the_file": file.to_polars().equals(local.frame),
        "backfills": backfills,
        "engine": written.engine,
        "error": error,
    }


def main() -> None:
    import ray

    folder = Path(sys.argv[1])
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    place = Connection(folder / "home")
    session = Session(place, actor="tester")
    try:
        print(json.dumps(compare(defined(session), folder)))
    finally:
        session.close()
        stop_embedded(place.home)
        ray.shutdown()


if __name__ == "__main__":
    main()
