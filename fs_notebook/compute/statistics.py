"""Measuring what a plan leaves open: the mean and spread, the range or the quantiles of values.

A statistic over rows is a feature itself, of one entity that all rows belong to: it is folded by
the fold that folds everything else. One over entities looks at their values at the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import polars as pl

from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Preview, preview, silent
from fs_notebook.embedders import embedder
from fs_notebook.errors import DefinitionError
from fs_notebook.language.calls import result_of
from fs_notebook.language.expr import Aggregated, Call, Expr, Literal
from fs_notebook.language.pinning import ENTITIES, STATISTICS, WHERE, Pin, identity, pinned, shown
from fs_notebook.language.plan import Aggregation, Key, Output, Plan, Window
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import Cut
from fs_notebook.types import Type

_AGGREGATES = {"low": "min", "high": "max", "mean": "avg", "deviation": "stddev_pop"}


def pinned_plan(
    plan: Plan,
    source: Stream,
    log: EventLog,
    *,
    clock: Clock,
    former: Sequence[Pin] = (),
    on_progress: OnProgress = silent,
) -> tuple[Plan, tuple[Pin, ...]]:
    """Return the plan with its statistics and embedders' versions in it, and what they are.

    Parameters
    ----------
    former
        What a former version pinned: used again instead of measuring anew. An embedder's version
        is always the one that is here.

    Raises
    ------
    DefinitionError
        If there is no value to take statistics of.
    UnknownName
        If there is no embedder of a name.
    """

    history = _History(source, log, clock, on_progress)

    def measure(part: Plan, place: str, calls: list[Call]) -> dict[Call, Pin]:
        found = {c: _model(part, place, c) for c in calls if c.function == "embed"}
        if others := [c for c in calls if c not in found]:
            over = _over_entities if place == ENTITIES else _over_rows
            found |= over(part, place, others, history)
        return found

    usable = {pin.key: pin for pin in former if pin.function != "embed"}
    return pinned(plan, measure, usable)


@dataclass(frozen=True)
class _History:
    """What is measured: a stream up to a cut that stays the same for a whole plan."""

    source: Stream
    log: EventLog
    clock: Clock
    on_progress: OnProgress

    @cached_property
    def end(self) -> Cut:
        return self.log.end(self.source.name)

    def fold(self, plan: Plan) -> Preview:
        """Return the values of a plan at the cut."""
        return preview(
            "statistics", plan, self.source, self.log, clock=self.clock,
            on_progress=self.on_progress, end=self.end,
        )  # fmt: skip


def _model(plan: Plan, place: str, call: Call) -> Pin:
    name = call.args[1]
    assert isinstance(name, Literal)
    model = embedder(str(name.value))
    values = {"version": model.version, "dimensions": model.dimensions}
    text = f"{shown(plan, call.args[0])} by {name.value}"
    return Pin(identity(plan, place, call), "embed", text, "registry", values)


def _quantiles(call: Call) -> list[tuple[int, int]]:
    """Return which quantiles the edges of a call are, as fractions."""
    count = call.args[1]
    assert isinstance(count, Literal)
    assert isinstance(count.value, int)
    return [(i, count.value) for i in range(1, count.value)]


def _over_rows(plan: Plan, place: str, calls: list[Call], history: _History) -> dict[Call, Pin]:
    aggregations: list[Aggregation] = []
    outputs: list[Output] = []

    def asked(function: str, value: Expr, *params: float) -> None:
        kind = result_of(function, [value.type])
        aggregation = Aggregation(function, (value,), Window(), kind, params)
        if aggregation not in aggregations:
            aggregations.append(aggregation)
        place = Aggregated(aggregations.index(aggregation), kind)
        outputs.append(Output(f"x{len(outputs)}", place))

    for call in calls:
        value = _finite(call.args[0])
        asked("count", value)
        for name in STATISTICS.get(call.function, ()):
            asked(_AGGREGATES[name], value)
        for i, n in _quantiles(call) if call.function == "quantile_bin" else ():
            asked("quantile_disc", value, i / n)
    everything = replace(
        plan,
        where=None if place == WHERE else plan.where,
        keys=(Key("everything", Literal(0, Type.BIGINT)),),
        aggregations=tuple(aggregations),
        outputs=tuple(outputs),
    )
    folded = history.fold(everything)
    names = [o.name for o in outputs]
    empty = [None] * len(names)
    left = list(folded.frame.select(names).row(0)) if folded.frame.height else empty
    pins: dict[Call, Pin] = {}
    for call in calls:
        count, *rest = left[: 1 + _size(call)]
        left = left[1 + _size(call) :]
        pins[call] = _pin(plan, place, call, int(count or 0), rest, str(folded.cut))
    return pins


def _size(call: Call) -> int:
    return len(_quantiles(call)) if call.function == "quantile_bin" else 2


def _finite(value: Expr) -> Expr:
    """Return `value`, null where it is NaN or infinite: neither has a place in a statistic."""
    if value.type is not Type.DOUBLE:
        return value
    is_finite = Call("is_finite", (value,), Type.BOOLEAN)
    return Call("case", (is_finite, value, Literal(None, Type.DOUBLE)), Type.DOUBLE)


def _over_entities(plan: Plan, place: str, calls: list[Call], history: _History) -> dict[Call, Pin]:
    outputs = tuple(Output(f"statistic {i}", c.args[0]) for i, c in enumerate(calls))
    folded = history.fold(replace(plan, outputs=outputs))
    pins: dict[Call, Pin] = {}
    for output, call in zip(outputs, calls, strict=True):
        values = folded.frame.get_column(output.name).drop_nulls()
        if values.dtype == pl.Float64:
            values = values.filter(values.is_finite())
        rest: list[Any]
        if not values.len():
            rest = []
        elif call.function == "quantile_bin":
            ordered = values.sort()
            # The least value that so large a share of them does not exceed: as QUANTILE_DISC.
            rest = [ordered[-(-i * values.len() // n) - 1] for i, n in _quantiles(call)]
        elif call.function == "z_score":
            numbers = values.cast(pl.Float64)
            rest = [numbers.mean(), numbers.std(ddof=0)]
        else:
            rest = [values.min(), values.max()]
        pins[call] = _pin(plan, place, call, values.len(), rest, str(folded.cut))
    return pins


def _pin(plan: Plan, place: str, call: Call, count: int, found: list[Any], cut: str) -> Pin:
    text = shown(plan, call.args[0])
    if not count:
        raise DefinitionError(
            f"There is no value of {text} to take statistics of.",
            found=f"only nulls, NaN or infinite ones, or nothing, up to {cut}",
            remedy="upload events first, or write the statistics out: Z_SCORE(x, 10, 2.5)",
        )
    values: dict[str, Any]
    if call.function == "quantile_bin":
        edges = sorted(set(found))
        # The plan keeps decimals as text.
        values = {"edges": [f"{e:f}" if isinstance(e, Decimal) else e for e in edges]}
    else:
        values = dict(zip(STATISTICS[call.function], map(float, found), strict=True))
    return Pin(identity(plan, place, call), call.function, text, place, values, count, cut)
