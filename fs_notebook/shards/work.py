"""What is done with one shard, wherever: from bytes to bytes, so that any process can do it.

What goes between processes is JSON and Arrow IPC: no object of this package is ever pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.running import Running
from fs_notebook.language.plan import Plan
from fs_notebook.shards.spill import from_blocks, to_block

ROW, COVERED, LOG_PARTITION = "__row", "__covered", "__log_partition"
FOLD_ROWS = 1_000_000
"""Rows of a shard that are folded at once."""


@dataclass(frozen=True)
class Task:
    """One shard's work.

    Attributes
    ----------
    number
        Which of the tasks it is.
    what
        JSON: the plan; for point-in-time values ``known``, whether only events that were
        published before a label's time count; else ``at_us``, the moment of all entities' values.
    events
        Blocks of projected events, with the log's partition of each.
    labels
        Blocks of keys, times and row numbers; None asks for the values of all entities.
    """

    number: int
    what: str
    events: tuple[bytes, ...]
    labels: tuple[bytes, ...] | None = None


def asked_text(plan: Plan, **options: object) -> str:
    """Return a task's JSON."""
    return json.dumps({"plan": plan.to_dict(), **options})


def done(what: str, split: int | None, *blocks: bytes) -> bytes:
    """Do a task whose first `split` blocks are events, the others labels; return a block.

    It takes plain arguments, so that an engine ships bytes as they are.
    """
    asked = json.loads(what)
    fold = Fold(Plan.from_dict(asked["plan"]))
    if split is None:
        return to_block(entity_values(fold, blocks, asked["at_us"]))
    events, labels = from_blocks(blocks[:split]), from_blocks(blocks[split:])
    return to_block(shard_values(fold, events, labels, known=asked["known"]))


def shard_values(
    fold: Fold, events: pl.DataFrame | None, labels: pl.DataFrame | None, *, known: bool
) -> pl.DataFrame:
    """Return `ROW`, each feature and `COVERED` for the labels of a shard."""
    assert labels is not None
    found = values_at(fold, in_log_order(events), labels.drop(ROW), known=known, covered=COVERED)
    return found.with_columns(labels.get_column(ROW))


def entity_values(fold: Fold, blocks: Sequence[bytes], at_us: int | None) -> pl.DataFrame:
    """Return the values of all entities of a shard, folded a few blocks at a time."""
    running = Running(fold, held_rows=FOLD_ROWS)
    for block in blocks:
        running.add_projected(in_log_order(from_blocks([block])))
    return fold.values(running.state, now_us=at_us).select(*fold.keys, *fold.plan.features)


def in_log_order(events: pl.DataFrame | None) -> pl.DataFrame:
    """Return events by partition: position decides between equal times, and reads interleave."""
    assert events is not None
    column = events.get_column(LOG_PARTITION)
    if column.n_unique() > 1:
        events = events.sort(LOG_PARTITION, maintain_order=True)
    return events.drop(LOG_PARTITION)
