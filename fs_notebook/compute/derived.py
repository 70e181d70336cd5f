"""Derived features: the plan's expressions over finished features, the same on every path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from fs_notebook.clock import Clock
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import (
    WHOLE,
    OnProgress,
    Preview,
    Progress,
    Replayed,
    Slice,
    chosen_entities,
    moment_of,
    replay,
    silent,
)
from fs_notebook.compute.requests import chosen_values
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.language.derived import (
    DerivedPlan,
    Input,
    entity_column,
    feature_column,
    request_column,
)
from fs_notebook.language.expr import columns_of
from fs_notebook.language.plan import Plan
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut

PAIRS_MAX = 1_000
"""How many made-up combinations of entities a preview shows, where nothing says which go together.
"""

Versions = Mapping[tuple[str, str], tuple[Plan, Stream, Sequence[Stream]]]
"""Group and fingerprint → what is folded, of which stream."""


class Derived:
    """A derived plan, ready to evaluate.

    Examples
    --------
    >>> derived = Derived(plan)                                # doctest: +SKIP
    >>> derived.values(frame)                                  # doctest: +SKIP
    """

    def __init__(self, plan: DerivedPlan) -> None:
        self.plan = plan
        self._exprs = {
            o.name: compile_expr(o.expr).cast(o.type.polars).alias(o.name) for o in plan.outputs
        }
        self._read = {o.name: columns_of(o.expr) for o in plan.outputs}

    def reads(self, features: Sequence[str]) -> set[str]:
        """Return the columns that some of the features read."""
        return set().union(*(self._read[f] for f in features))

    def values(self, frame: pl.DataFrame, features: Sequence[str] | None = None) -> pl.DataFrame:
        """Return features, one row a row of `frame`.

        Parameters
        ----------
        frame
            Has the columns that the features read, as `DerivedPlan.schema` has them.
        features
            Which of the plan's features; default: all.

        Raises
        ------
        OverflowInFold
            If an integer does not fit 64 bits.
        """
        names = list(self.plan.features if features is None else features)
        with overflow_named(" and ".join(names)):
            # Not `select`: an expression without a column must still give every row its value.
            return frame.with_columns(self._exprs[n] for n in names).select(names)


def preview_derived(
    name: str,
    plan: DerivedPlan,
    versions: Versions,
    log: EventLog,
    *,
    clock: Clock,
    given: Mapping[str, object] | None = None,
    where: Slice = WHOLE,
    on_progress: OnProgress = silent,
    notes: tuple[str, ...] = (),
) -> Preview:
    """Fold a slice of history for each input, and evaluate the expressions at its end.

    All inputs are finished at one t, that of the newest event that any of them folded.

    Parameters
    ----------
    versions
        The inputs' plans, their streams, and the streams that they join.
    given
        Request values that hold for every entity; those that are left out are null.
    """
    begun_s = clock.monotonic_s()
    values = chosen_values(plan.requests, given or {})
    several = where.sample is not None and where.sample >= 1
    part = replace(where, sample=None) if several else where
    # One replay for a version, whatever number of entities of the plan read it.
    pinned = list(dict.fromkeys((i.group, i.fingerprint) for i in plan.inputs))
    done: dict[tuple[str, str], Replayed] = {}
    for turn, key in enumerate(pinned):
        folded, source, others = versions[key]
        seen = joined_log(folded, others, log, filtered=True)

        def tell(progress: Progress, turn: int = turn) -> None:
            share = None if progress.share is None else (turn + progress.share) / len(pinned)
            on_progress(replace(progress, share=share))

        done[key] = replay(folded, source, seen, clock=clock, where=part, on_progress=tell)
    replayed = list(done.values())
    newest = [r.last_us for r in replayed if r.last_us is not None]
    at_us = moment_of(max(newest, default=None), where, clock)
    frame, made_up = _joined(plan, done, at_us)
    sampled = where.sample is not None
    if several:
        frame = chosen_entities(
            frame, list(frame.columns[: len(plan.keys)]), int(where.sample or 0)
        )
    frame = frame.with_columns(
        pl.lit(values[n], dtype=t.polars).alias(request_column(n)) for n, t in plan.requests
    )
    shown = frame.select(pl.col(entity_column(e)).alias(e) for e in plan.entity)
    shown = shown.hstack(Derived(plan).values(frame)).sort(plan.entity)
    cuts = {versions[k][1].name: r.cut for k, r in done.items()}
    firsts = [r.first_us for r in replayed if r.first_us is not None]
    return Preview.of(
        name, plan, shown, at_us=at_us, first_us=min(firsts, default=None),
        last_us=max(newest, default=None),
        cut=next(iter(cuts.values())) if len(cuts) == 1 else START,
        events=sum(r.events for r in replayed), folded=sum(r.folded for r in replayed),
        null_keys=sum(r.null_keys for r in replayed), dead=sum(r.dead for r in replayed),
        seconds=clock.monotonic_s() - begun_s, slice=where, sampled=sampled,
        notes=(*notes, *_notes(plan, values, cuts, made_up)),
    )  # fmt: skip


def _notes(
    plan: DerivedPlan, values: Mapping[str, object], cuts: Mapping[str, Cut], made_up: bool
) -> list[str]:
    groups = dict.fromkeys(f"{i.group} {i.fingerprint[:12]}" for i in plan.inputs)
    notes = [f"derived from {', '.join(groups)}"]
    if plan.requests:
        shown = ", ".join(
            f"{n} {t} = {'null' if values[n] is None else values[n]}" for n, t in plan.requests
        )
        unset = any(v is None for v in values.values())
        notes.append(
            f"request values: {shown}" + (" (--with name=value sets one)" if unset else "")
        )
    if made_up:
        notes.append(
            f"no event says which {' and '.join(plan.entity)} go together: "
            f"at most {PAIRS_MAX:,} combinations are shown"
        )
    if len(cuts) > 1:
        notes.append("cuts: " + ", ".join(f"{name} {cut}" for name, cut in cuts.items()))
    return notes


def _joined(
    plan: DerivedPlan, done: Mapping[tuple[str, str], Replayed], at_us: int
) -> tuple[pl.DataFrame, bool]:
    """Return one row an entity with all inputs' features, and whether entities were combined."""
    frame: pl.DataFrame | None = None
    made_up = False
    for index, given in enumerate(plan.inputs):
        mine = _input_frame(index, given, done[given.group, given.fingerprint], at_us)
        if frame is None:
            frame = mine
            continue
        shared = [entity_column(k) for k in given.keys if entity_column(k) in frame.columns]
        if shared:
            frame = frame.join(mine, on=shared, how="full", coalesce=True, nulls_equal=False)
            continue
        made_up = True
        side = math.isqrt(PAIRS_MAX)
        frame = frame.head(side).join(mine.head(max(PAIRS_MAX // max(frame.height, 1), side)),
                                      how="cross").head(PAIRS_MAX)  # fmt: skip
    assert frame is not None
    keys = [entity_column(k) for k in plan.entity]
    # A key that no input brings (only some features of a derived input are read) is unknown here.
    missing = [k for k in keys if k not in frame.columns]
    frame = frame.with_columns(
        pl.lit(None, dtype=plan.schema[k].polars).alias(k) for k in missing
    ).drop_nulls([k for k in keys if k not in missing])
    for index, given in enumerate(plan.inputs):
        frame = _filled(frame, index, given, done[given.group, given.fingerprint].fold)
    here = [c for c in frame.columns if c not in keys]
    return frame.select(*keys, *here), made_up


def _input_frame(index: int, given: Input, replayed: Replayed, at_us: int) -> pl.DataFrame:
    fold = replayed.fold
    values = fold.values(replayed.state, now_us=at_us)
    keys = [pl.col(k).alias(entity_column(n)) for k, n in zip(fold.keys, given.keys, strict=True)]
    features = [pl.col(f).alias(feature_column(index, f)) for f, _ in given.features]
    frame = values.sort(fold.keys).select(*keys, *features)
    return frame.with_columns(pl.lit(True).alias(_there(index)))


def _there(index: int) -> str:
    return f"there:{index}"


def _filled(frame: pl.DataFrame, index: int, given: Input, fold: Fold) -> pl.DataFrame:
    """Give the entities that an input has never seen the values of the empty fold."""
    empty = fold.empty_values()
    seen = pl.col(_there(index)).fill_null(False)
    return frame.with_columns(
        pl.when(seen)
        .then(pl.col(feature_column(index, f)))
        .otherwise(pl.lit(empty[f], dtype=t.polars))
        .alias(feature_column(index, f))
        for f, t in given.features
    ).drop(_there(index))
