"""What a training set's displays say of it, whether its rows are held or written to a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from fs_notebook.errors import plain
from fs_notebook.model.card import Table, count, moment, percent
from fs_notebook.types import type_name

if TYPE_CHECKING:
    from fs_notebook.model.training import TrainingSet
    from fs_notebook.model.written import WrittenTrainingSet


def span_text(made: TrainingSet | WrittenTrainingSet) -> str:
    """Return from when to when its labels are."""
    if made.first is None or made.last is None:
        return "no labels"
    return f"{moment(made.first)} to {moment(made.last)} UTC"


def summary_text(made: TrainingSet | WrittenTrainingSet) -> str:
    """Return its size, options, nulls, coverage, notes, versions and cuts, in lines."""
    cuts = "; ".join(f"{name} {cut}" for name, cut in made.cuts.items())
    versions = ", ".join(f"{n} {f[:12]}" for n, f in made.versions.items())
    nulls = ", ".join(f"{n} {percent(share)}" for n, share in made.nulls.items())
    seen = ", ".join(f"{n} {percent(share)}" for n, share in made.coverage.items())
    lines = [
        (f"{count(made.rows)} labels × {len(made.features)} features, {span_text(made)}, "
        f"{count(made.events)} events read in {made.seconds:.2f} s"),
        str(made.as_of), f"nulls: {nulls}", f"coverage: {seen}",
        *(f"note: {note}" for note in made.notes), f"versions: {versions}", f"cuts: {cuts}",
    ]  # fmt: skip
    return "\n".join(map(plain, lines))


def summary_tables(
    made: TrainingSet | WrittenTrainingSet, schema: Mapping[str, pl.DataType]
) -> list[Table]:
    """Return its features with their coverage and nulls, its versions, and its cuts."""
    nulls, seen = made.nulls, made.coverage
    return [
        (("feature", "type", "coverage", "nulls"), [
            (f, type_name(schema[f]), percent(seen[f]) if f in seen else "", percent(nulls[f]))
            for f in made.features
        ]),
        (("group", "version"), [(n, f[:12]) for n, f in made.versions.items()]),
        (("stream", "cut"), [(name, str(cut)) for name, cut in made.cuts.items()]),
    ]  # fmt: skip
