"""The canonical plan: what every path folds, and what a version's fingerprint is taken of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fs_notebook.language import expr as ex
from fs_notebook.language.types import Type

PLAN_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Window:
    """Which events count at time t: those in [t - length, t), or all before t.

    Attributes
    ----------
    length_us
        Microseconds; None means a lifetime.
    closed
        ``"left"`` is [t - length, t); ``"right"`` is (t - length, t].
    """

    length_us: int | None = None
    closed: str = "left"

    def __str__(self) -> str:
        if self.length_us is None:
            return "lifetime"
        for unit, us in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000)):
            if self.length_us % us == 0:
                return f"{self.length_us // us}{unit}"
        return f"{self.length_us / 1e6:g}s"


@dataclass(frozen=True, slots=True)
class Key:
    """One part of the entity's key: what it is called and the expression that gives it."""

    name: str
    expr: ex.Expr


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate over the rows of a window. `args` is empty for COUNT(*)."""

    function: str
    args: tuple[ex.Expr, ...]
    window: Window
    type: Type


@dataclass(frozen=True, slots=True)
class Output:
    """One feature: its name and the expression over finished aggregates that gives it."""

    name: str
    expr: ex.Expr

    @property
    def type(self) -> Type:
        return self.expr.type


@dataclass(frozen=True)
class Plan:
    """A feature group: one source, one entity, one or several features.

    Rows for which `where` is not true, and rows with a null in a key, are not folded.
    """

    source: str
    time: str | None
    keys: tuple[Key, ...]
    where: ex.Expr | None
    aggregations: tuple[Aggregation, ...]
    outputs: tuple[Output, ...]

    @property
    def entity(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.keys)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.outputs)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The source's columns that the fold reads, sorted."""
        read = [k.expr for k in self.keys]
        read += [a for agg in self.aggregations for a in agg.args]
        read += [self.where] if self.where is not None else []
        return tuple(sorted(set().union(*(ex.columns_of(e) for e in read))))

    @cached_property
    def window_max_us(self) -> int | None:
        """The longest finite window, None where every window is a lifetime."""
        lengths = [a.window.length_us for a in self.aggregations if a.window.length_us is not None]
        return max(lengths, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        return {
            "format": PLAN_FORMAT,
            "source": self.source,
            "time": self.time,
            "keys": [[k.name, ex.to_json(k.expr)] for k in self.keys],
            "where": None if self.where is None else ex.to_json(self.where),
            "aggregations": [
                [
                    a.function,
                    [ex.to_json(e) for e in a.args],
                    [a.window.length_us, a.window.closed],
                    a.type.value,
                ]
                for a in self.aggregations
            ],
            "outputs": [[o.name, ex.to_json(o.expr)] for o in self.outputs],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """Return the plan that `to_dict` wrote."""
        if data.get("format") != PLAN_FORMAT:
            raise ValueError(f"plan format {data.get('format')!r} is not {PLAN_FORMAT}")
        return cls(
            source=data["source"],
            time=data["time"],
            keys=tuple(Key(n, ex.from_json(e)) for n, e in data["keys"]),
            where=None if data["where"] is None else ex.from_json(data["where"]),
            aggregations=tuple(
                Aggregation(f, tuple(ex.from_json(e) for e in args), Window(*w), Type(t))
                for f, args, w, t in data["aggregations"]
            ),
            outputs=tuple(Output(n, ex.from_json(e)) for n, e in data["outputs"]),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits: the version's identity."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
