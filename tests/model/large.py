"""A training set whose events take several times what its process may grow by; prints JSON.

Run as a process of its own, so that its memory is its own. The events are made while they are
read: no ledger holds them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fs_notebook.clock import SYSTEM
from fs_notebook.log.protocol import PUBLISHED, Batch, Stream
from fs_notebook.model.sharded import How
from fs_notebook.model.written import write_training_set
from fs_notebook.position import Cut, Position
from fs_notebook.shards.dealing import Limits
from fs_notebook.types import TIME, Type
from tests.benchmarks.harness import forget_peak, memory_mb
from tests.model.definitions import define

ENTITIES = 20_000
ROWS = 100_000
WIDTH = 12
LABELS = 100_000
STREAM = Stream(
    "wide",
    (("user", Type.BIGINT), *((f"c{i}", Type.BIGINT) for i in range(WIDTH)),
     ("ts", Type.TIMESTAMP)),
    "ts",
)  # fmt: skip


class Made:
    """A ledger of `count` events: the n-th is of the entity n modulo `ENTITIES`, n µs after 1970.

    Column i of it holds n + i.
    """

    url = "made"

    def __init__(self, count: int) -> None:
        self.count = count

    def end(self, name: str) -> Cut:
        return Cut((Position(0, 0, self.count - 1, 0),))

    def read(self, stream: Stream, *, columns: Any, **options: Any) -> Iterator[Batch]:
        for first in range(0, self.count, ROWS):
            number = pl.int_range(first, first + ROWS, dtype=pl.Int64, eager=True).alias("n")
            rows = pl.DataFrame({"n": number}).select(
                (pl.col("n") % ENTITIES).alias("user"),
                *((pl.col("n") + i).alias(f"c{i}") for i in range(WIDTH)),
                pl.col("n").cast(pl.Datetime("us", "UTC")).alias(TIME),
                # A millisecond late: all of it is seen live, so that is measured as well.
                (pl.col("n") + 1_000).cast(pl.Datetime("us", "UTC")).alias(PUBLISHED),
            )
            yield Batch(0, rows.select(TIME, *columns), Position(0, 0, first + ROWS - 1, 0))


def run(count: int, folder: Path) -> dict[str, Any]:
    sums = ", ".join(f"SUM(c{i}) AS s{i}" for i in range(WIDTH))
    definition = define(STREAM, f"SELECT user, {sums} FROM STREAM GROUP BY user")
    random = np.random.default_rng(5)
    labels = pl.DataFrame(
        {"user": random.integers(0, ENTITIES, LABELS), "at": random.integers(0, count, LABELS)}
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    labels.write_parquet(folder / "labels.parquet", row_group_size=10_000)
    del labels
    log: Any = Made(count)
    limits = Limits(buffer_bytes=8 * 2**20, slice_rows=25_000, task_bytes=16 * 2**20)
    made = write_training_set(
        folder / "labels.parquet", [(definition, definition.plan.features)], log,
        folder / "train.parquet", how=How(limits=limits), clock=SYSTEM,
    )  # fmt: skip
    # Of an entity's events before the label's time each is `ENTITIES` after the one before.
    t, user = pl.col("at").to_physical(), pl.col("user")
    seen = ((t - user + ENTITIES - 1) // ENTITIES).clip(0)
    total = user * seen + ENTITIES * (seen * (seen - 1) // 2)
    wrong = [
        (pl.col(f"s{i}").fill_null(-1) != pl.when(seen > 0).then(total + i * seen).otherwise(-1))
        .sum()
        .alias(f"s{i}")
        for i in range(WIDTH)
    ]
    found = made.scan().select(wrong).collect(engine="streaming").row(0)
    return {"wrong": sum(found), "rows": made.rows, "labels": LABELS}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(ROWS, Path(folder))
        forget_peak()
        held_mb = memory_mb("VmRSS")
        count = 40 * ROWS
        found = run(count, Path(folder))
        grown_mb = memory_mb("VmHWM") - held_mb
    # Keys, times and arguments, 64 bits each, as they would be held at once.
    events_mb = count * (2 + WIDTH) * 8 / 1e6
    print(json.dumps(found | {"grown_mb": grown_mb, "events_mb": events_mb}))


if __name__ == "__main__":
    main()
