"""Training sets that are made again: what of one is kept, and how it becomes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.catalog.model import definition_of
from fs_notebook.catalog.recipes import TrainingRecipe
from fs_notebook.errors import HistoryLost, StreamChanged, UsageError
from fs_notebook.log.protocol import EARLIEST, EventLog
from fs_notebook.model.asked import AsOf, Chosen
from fs_notebook.model.derived import training_set_of
from fs_notebook.model.digest import frame_digest, lazy_digest
from fs_notebook.model.encoding import Encoding
from fs_notebook.model.labels import labels_frame
from fs_notebook.model.sharded import How, sharded_training_set
from fs_notebook.model.slices import is_scanned
from fs_notebook.model.written import write_training_set
from fs_notebook.position import Cut

if TYPE_CHECKING:
    from fs_notebook.model.training import TrainingSet
    from fs_notebook.model.written import WrittenTrainingSet


def recipe_of(
    training: TrainingSet | WrittenTrainingSet, name: str, log: EventLog
) -> TrainingRecipe:
    """Return all that a training set was made of, and digests of what came of it.

    Raises
    ------
    UsageError
        If it does not say what it was made of.
    """
    if not training.chosen:
        raise UsageError(
            "This training set does not say what it was made of.",
            remedy="fs.training_set(…, name=…)",
        )
    return TrainingRecipe(
        name=name,
        wanted=tuple(
            {"definition": c.definition.to_dict(), "features": list(c.features),
             "version": c.version}
            for c in training.chosen
        ),
        columns=training.features,
        time=training.time,
        entity=dict(training.entity),
        lag_us=training.as_of.lag_us,
        known=training.as_of.known,
        cuts={s: cut.to_json() for s, cut in training.cuts.items()},
        streams={s: (log.identity(s), log.beginning(s).to_json()) for s in training.cuts},
        labels=dict(training.origin),
        label_columns=tuple((c, str(training.schema[c])) for c in training.label_columns),
        labels_fingerprint=training.labels_fingerprint,
        fingerprint=training.fingerprint,
        values={c: training.digest_of(c) for c in training.features},
        rows=training.rows,
        first=None if training.first is None else training.first.isoformat(),
        last=None if training.last is None else training.last.isoformat(),
        coverage=dict(training.coverage),
        nulls=dict(training.nulls),
        notes=training.notes,
        set=training.set,
        encoding=None if training.encoding is None else training.encoding.to_dict(),
        spreads=training.spreads,
        tasks=training.tasks,
    )  # fmt: skip


def check_streams(recipe: TrainingRecipe, log: EventLog) -> None:
    """Raise unless the streams are those that a set was made of, with all of their events.

    Raises
    ------
    StreamChanged, HistoryLost
        If one was made again since, or lost events.
    """
    for stream, (identity, begun) in recipe.streams.items():
        now = log.identity(stream)
        if identity != now and EARLIEST not in identity and EARLIEST not in now:
            raise StreamChanged(
                f"The stream {stream!r} is not the one that {recipe.name!r} was made of.",
                found="it was deleted and made again",
                remedy="make a training set of the new one",
            )
        # Of a partition that was empty then nothing before the cut can be gone.
        there = log.beginning(stream)
        gone = [p for p in Cut.from_json(begun) if there.get(p.partition) != p]
        if gone:
            raise HistoryLost(
                f"Events that {recipe.name!r} was made of are no longer in {stream!r}.",
                found=f"it began at {Cut(tuple(gone))}, and begins at {there} now",
                remedy="make a training set of what is left",
            )


def check_labels(recipe: TrainingRecipe, labels: Any) -> None:
    """Raise unless these are the labels that a set was made of; a file's are not held whole.

    Raises
    ------
    UsageError
        If they are others.
    """
    if isinstance(labels, pl.LazyFrame) or is_scanned(labels):
        lazy = labels if isinstance(labels, pl.LazyFrame) else pl.scan_parquet(labels)
        found = lazy_digest(lazy)
    else:
        frame = labels_frame(labels)
        found, lazy = frame_digest(frame), frame.lazy()
    if found == recipe.labels_fingerprint:
        return
    height = int(lazy.select(pl.len()).collect().item())
    columns = ", ".join(f"{n} {t}" for n, t in lazy.collect_schema().items())
    asked = ", ".join(f"{n} {t}" for n, t in recipe.label_columns)
    raise UsageError(
        f"These are not the labels of the training set {recipe.name!r}.",
        found=f"{height:,} rows of {columns}",
        remedy=f"the very table it was made of: {recipe.rows:,} rows of {asked}, "
        f"fingerprint {recipe.labels_fingerprint[:12]}",
    )


def made_again(
    recipe: TrainingRecipe, labels: Any, log: EventLog, out: str | Path | None, **options: Any
) -> TrainingSet | WrittenTrainingSet:
    """Return a saved set, computed by the very parts it was computed by: floats are rounded alike.

    Parameters
    ----------
    recipe
        How it was made.
    labels
        Its labels, once they are checked.
    out
        The Parquet file to write it to; None: it is held.
    options
        ``clock`` and ``on_progress``, as for `training_set_of`.
    """
    chosen = [
        Chosen(definition_of(w["definition"]), tuple(w["features"]), w["version"])
        for w in recipe.wanted
    ]
    options |= {
        "time": recipe.time, "entity": recipe.entity, "cuts": recipe.ends,
        "as_of": AsOf(recipe.lag_us, recipe.known),
    }  # fmt: skip
    # What was in one piece is one shard, and one task.
    how = How(tasks=recipe.tasks) if recipe.tasks else How(shards=1)
    made: TrainingSet | WrittenTrainingSet
    if out is not None:
        made = write_training_set(
            labels, chosen, log, out, how=how, order=lambda _: recipe.columns, **options
        )
    elif recipe.tasks:
        made = sharded_training_set(labels, chosen, log, how=how, **options)
        made = made.ordered(recipe.columns)
    else:
        made = training_set_of(labels, chosen, log, **options).ordered(recipe.columns)
    odd = [c for c in made.features if made.digest_of(c) != recipe.values[c]]
    notes = made.notes
    if odd:
        told = ", ".join(odd)
        notes = (f"not the same as when it was saved, maybe rounded otherwise: {told}", *notes)
    kept = None if recipe.encoding is None else Encoding.from_dict(recipe.encoding)
    said: dict[str, Any] = {
        "name": recipe.name, "origin": recipe.labels, "notes": notes, "set": recipe.set,
        "encoding": kept,
    }  # fmt: skip
    return replace(made, **said)
