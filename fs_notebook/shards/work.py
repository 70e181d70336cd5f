"""What is done with one shard, wherever: from bytes to bytes, so that any process can do it.

What goes between processes is JSON and Arrow IPC: no object of this package is ever pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

from fs_notebook.compute.asof import values_at
from fs_notebook.compute.delays import Glance, Question, counts_of
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
        published before a label's time count, and ``step``, by which some labels are marked; for
        what late events did to labels ``asked``, a `compute.delays.Question`; else ``at_us``, the
        moment of all entities' values.
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
    labels = from_blocks(blocks[split:])
    assert labels is not None
    events = _of_labels(fold, in_log_order(from_blocks(blocks[:split])), labels)
    if "asked" in asked:
        counts = counts_of(fold, events, labels.drop(ROW), Question.from_dict(asked["asked"]))
        return json.dumps({"labels": labels.height, "counts": asdict(counts)}).encode()
    return shard_values(fold, events, labels, known=asked["known"], step=asked["step"])


def shard_values(
    fold: Fold, events: pl.DataFrame, labels: pl.DataFrame, *, known: bool, step: int
) -> bytes:
    """Return `ROW`, each feature and `COVERED` for a shard's labels, and the glance at its events.

    What was published in time alone is not looked at.
    """
    moments = labels.drop(ROW)
    found = values_at(fold, events, moments, known=known, covered=COVERED)
    values = to_block(found.with_columns(labels.get_column(ROW)))
    if known:
        return packed({}, values)
    glance = Glance.of(fold, events, moments, step)
    told = {"level": glance.level, "own": glance.own, "marked": glance.marked}
    return packed(told, values, to_block(glance.seen))


def packed(told: dict[str, int], *blocks: bytes) -> bytes:
    """Return blocks, and numbers to tell of them, as one: `unpacked` takes them apart."""
    head = json.dumps([told, [len(b) for b in blocks]]).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(blocks)


def unpacked(block: bytes) -> tuple[pl.DataFrame, Glance | None]:
    """Return the values and the glance that `shard_values` gave."""
    start = 8 + int.from_bytes(block[:8], "little")
    told, lengths = json.loads(block[8:start])
    frames = []
    for length in lengths:
        frames.append(from_blocks([block[start : start + length]]))
        start += length
    values = frames[0]
    assert values is not None
    if len(frames) == 1:
        return values, None
    assert frames[1] is not None
    return values, Glance(frames[1], told["level"], told["own"], told["marked"])


def _of_labels(fold: Fold, events: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return the events of the labels' entities: a few of others were dealt out as well."""
    entities = labels.select(fold.keys).drop_nulls().unique()
    rows = events.select(fold.keys).with_row_index("__event")
    theirs = rows.join(entities, on=fold.keys, how="semi").get_column("__event")
    # Hardly ever are there others, and a shard is large.
    return events if theirs.len() == events.height else events[theirs.sort()]


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
