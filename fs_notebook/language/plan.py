"""The canonical plan: what every path folds, and what a version's fingerprint is taken of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fs_notebook.errors import DefinitionError
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language import expr as ex
from fs_notebook.types import Type

PLAN_FORMAT = 1

Scalar = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class Window:
    """Which events count at time t.

    Attributes
    ----------
    length_us
        Microseconds; None means a lifetime.
    closed
        ``"left"`` is [t - length, t); ``"right"`` is (t - length, t].
    slide_us
        The window ends at the newest multiple of this (since the epoch, UTC) that t has
        reached, instead of at t itself: the last of the windows that HOP and TUMBLE make.
    gap_us
        The window begins where the entity's last run of events began in which no two
        neighbours are further apart than this; nothing counts once t is further from the
        newest of them.
    resolution_us
        The window's tail is floored to a multiple of this: [floor(t - length), t).
    """

    length_us: int | None = None
    closed: str = "left"
    slide_us: int | None = None
    gap_us: int | None = None
    resolution_us: int | None = None

    @property
    def is_lifetime(self) -> bool:
        """Whether all events before t count, for ever."""
        return self.length_us is None and self.gap_us is None

    def __str__(self) -> str:
        if self.gap_us is not None:
            return f"session {span_text(self.gap_us)}"
        if self.length_us is None:
            return "lifetime"
        text = span_text(self.length_us)
        if self.slide_us == self.length_us:
            return f"tumbling {text}"
        if self.slide_us is not None:
            return f"hopping {text} every {span_text(self.slide_us)}"
        if self.resolution_us is not None:
            return f"{text} by {span_text(self.resolution_us)}"
        return text

    def to_list(self) -> list[Scalar]:
        """Return the canonical form, fit for `json.dumps`."""
        return [self.length_us, self.closed, self.slide_us, self.gap_us, self.resolution_us]


def span_text(us: int) -> str:
    """Return a length of time as ``7d``, ``12h``, ``15m`` or ``90s``."""
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000)):
        if us % size == 0:
            return f"{us // size}{unit}"
    return f"{us / 1e6:g}s"


@dataclass(frozen=True, slots=True)
class Key:
    """One part of the entity's key: what it is called and the expression that gives it."""

    name: str
    expr: ex.Expr


def check_key_order(names: Sequence[str], own: Sequence[str]) -> None:
    """Raise if `names` would swap the key's parts among each other, which nobody means."""
    if list(names) != list(own) and sorted(names) == sorted(own):
        raise DefinitionError(
            "--entity has the key's parts in another order than the definition.",
            found=f"--entity {','.join(names)}, where the key is {', '.join(own)}",
            remedy=f"--entity {','.join(own)}",
        )


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate over the rows of a window. `args` is empty for COUNT(*).

    `params` are the constants that it takes beside its arguments, in the order in which
    `fs_notebook.kernel` declares them.
    """

    function: str
    args: tuple[ex.Expr, ...]
    window: Window
    type: Type
    params: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Join:
    """Columns of another stream, put beside each row before anything else looks at it.

    Attributes
    ----------
    source
        The other stream.
    keys
        What is equal: an expression over the row, and a column of the other stream.
    columns
        Name in the joined row, column of the other stream, type.
    outer
        Whether a row without a match stays, with nulls; else it is dropped.
    cut
        None for a temporal join: of the rows with event time ≤ the row's and published no
        later than it the newest one. Else the position, as text, up to which the other stream
        is read as a table: the newest row of each key.
    within
        Of an interval join the least and the greatest time from the row's event to the other
        stream's, in microseconds: a row becomes one for each of the other stream's that is in
        it. None for the other joins.
    """

    source: str
    keys: tuple[tuple[ex.Expr, str], ...]
    columns: tuple[tuple[str, str, Type], ...]
    outer: bool
    cut: str | None = None
    within: tuple[int, int] | None = None

    def to_list(self) -> list[Any]:
        """Return the canonical form, fit for `json.dumps`."""
        keys = [[ex.to_json(e), c] for e, c in self.keys]
        columns = [[n, c, t.value] for n, c, t in self.columns]
        # Only where there is one, so that the identity of all other joins stays as it was.
        more = [] if self.within is None else [list(self.within)]
        return [self.source, keys, columns, self.outer, self.cut, *more]

    @classmethod
    def from_list(cls, data: list[Any]) -> Join:
        """Return the join that `to_list` wrote."""
        source, keys, columns, outer, cut, *more = data
        return cls(
            source,
            tuple((ex.from_json(e), c) for e, c in keys),
            tuple((n, c, Type(t)) for n, c, t in columns),
            outer,
            cut,
            (more[0][0], more[0][1]) if more else None,
        )


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the streams that a union folds together.

    Attributes
    ----------
    source, time
        The stream and its time column.
    where
        Which of its rows there are; None for all.
    columns
        What each row has: a name that all branches share, and this stream's expression for it.
    """

    source: str
    time: str | None
    where: ex.Expr | None
    columns: tuple[tuple[str, ex.Expr], ...]

    def to_list(self) -> list[Any]:
        """Return the canonical form, fit for `json.dumps`."""
        where = None if self.where is None else ex.to_json(self.where)
        return [self.source, self.time, where, [[n, ex.to_json(e)] for n, e in self.columns]]

    @classmethod
    def from_list(cls, data: list[Any]) -> Branch:
        """Return the branch that `to_list` wrote."""
        source, time, where, columns = data
        return cls(
            source,
            time,
            None if where is None else ex.from_json(where),
            tuple((n, ex.from_json(e)) for n, e in columns),
        )


@dataclass(frozen=True, slots=True)
class Output:
    """One feature: its name and the expression over finished aggregates that gives it."""

    name: str
    expr: ex.Expr

    @property
    def type(self) -> Type:
        return self.expr.type


def _params(function: str, texts: list[Any]) -> tuple[Scalar, ...]:
    """Return parameters as they were: floats are kept as text, so that every bit comes back."""
    declared = AGGREGATES[function].parameters
    return tuple(
        float(v) if p.type is Type.DOUBLE else v for p, v in zip(declared, texts, strict=True)
    )


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
    joins: tuple[Join, ...] = ()
    branches: tuple[Branch, ...] = ()
    """The streams of a union: then `source` is a name for all of them, and expressions are over
    the columns of the branches."""
    ttl_us: int | None = None
    """The time to live: an entity whose newest event is older than that at t has expired, and all
    of its features are null. At that age exactly it has not. None: for ever."""

    @property
    def pairs(self) -> Join | None:
        """The interval join that its rows come from, if they are pairs: it is the first one."""
        first = self.joins[0] if self.joins else None
        return first if first is not None and first.within is not None else None

    @property
    def entity(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.keys)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.outputs)

    @property
    def closed(self) -> str:
        """``"right"`` if an event at t itself counts in some window at t, else ``"left"``."""
        is_right = any(a.window.closed == "right" for a in self.aggregations)
        return "right" if is_right else "left"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The source's columns that the fold reads, sorted."""
        read = [k.expr for k in self.keys]
        read += [a for agg in self.aggregations for a in agg.args]
        read += [self.where] if self.where is not None else []
        read += [e for join in self.joins for e, _ in join.keys]
        joined = {name for join in self.joins for name, _, _ in join.columns}
        return tuple(sorted(set().union(*(ex.columns_of(e) for e in read)) - joined))

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The different windows that are no lifetimes, in the order of the aggregations."""
        return tuple(dict.fromkeys(a.window for a in self.aggregations if not a.window.is_lifetime))

    def to_dict(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        data = {
            "format": PLAN_FORMAT,
            "source": self.source,
            "time": self.time,
            "keys": [[k.name, ex.to_json(k.expr)] for k in self.keys],
            "where": None if self.where is None else ex.to_json(self.where),
            "aggregations": [
                [
                    a.function,
                    [ex.to_json(e) for e in a.args],
                    a.window.to_list(),
                    a.type.value,
                    [repr(p) if isinstance(p, float) else p for p in a.params],
                ]
                for a in self.aggregations
            ],
            "outputs": [[o.name, ex.to_json(o.expr)] for o in self.outputs],
        }
        # Only where there are any, so that the identity of all other plans stays as it was.
        if self.joins:
            data["joins"] = [j.to_list() for j in self.joins]
        if self.branches:
            data["branches"] = [b.to_list() for b in self.branches]
        if self.ttl_us is not None:
            data["ttl"] = self.ttl_us
        return data

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
                Aggregation(
                    f, tuple(ex.from_json(e) for e in args), Window(*w), Type(t), _params(f, p)
                )
                for f, args, w, t, p in data["aggregations"]
            ),
            outputs=tuple(Output(n, ex.from_json(e)) for n, e in data["outputs"]),
            joins=tuple(Join.from_list(j) for j in data.get("joins", ())),
            branches=tuple(Branch.from_list(b) for b in data.get("branches", ())),
            ttl_us=data.get("ttl"),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits: the version's identity."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
