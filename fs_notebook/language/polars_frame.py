"""A stream as a Polars user expects a frame: filter, group_by, agg. It only records them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from fs_notebook.errors import DefinitionError

Named = tuple[tuple[str | None, pl.Expr], ...]


@dataclass(frozen=True)
class Aggregates:
    """A stream's features by its keys: what a Polars cell's last expression may be."""

    stream: str
    where: tuple[pl.Expr, ...]
    keys: Named
    features: Named


@dataclass(frozen=True)
class Grouped:
    """A stream, grouped by its keys."""

    frame: StreamFrame
    keys: Named

    def agg(self, *features: pl.Expr | list[pl.Expr], **named: pl.Expr) -> Aggregates:
        """Say the features: expressions, or name=expression."""
        frame = self.frame
        return Aggregates(frame.stream, frame.where, self.keys, _named(features, named))


@dataclass(frozen=True)
class StreamFrame:
    """A stream, and the rows of it that count.

    Examples
    --------
    >>> reads = StreamFrame("read_events").filter(pl.col("ok"))
    >>> reads.group_by("user").agg(total=pl.col("readtime").sum()).stream
    'read_events'
    """

    stream: str
    where: tuple[pl.Expr, ...] = ()

    def filter(self, *conditions: pl.Expr) -> StreamFrame:
        """Leave out the rows for which a condition is not true."""
        return replace(self, where=(*self.where, *(e for _, e in _named(conditions, {}))))

    def group_by(self, *keys: str | pl.Expr, **named: str | pl.Expr) -> Grouped:
        """Say whose features follow: columns, or expressions with an alias."""
        found = _named(
            tuple(pl.col(k) if isinstance(k, str) else k for k in keys),
            {n: pl.col(k) if isinstance(k, str) else k for n, k in named.items()},
        )
        return Grouped(self, found)


def stream(name: str) -> StreamFrame:
    """Return a stream to filter, group and aggregate: the other way to write a Polars feature."""
    return StreamFrame(name)


def _named(values: tuple[object, ...], named: dict[str, pl.Expr]) -> Named:
    flat: list[object] = []
    for value in values:
        flat += value if isinstance(value, (list, tuple)) else [value]
    for value in (*flat, *named.values()):
        if not isinstance(value, pl.Expr):
            raise DefinitionError(
                "This is no Polars expression.", found=f"a {type(value).__name__}",
                remedy='pl.col("readtime").sum()',
            )  # fmt: skip
    unnamed = [(None, v) for v in flat if isinstance(v, pl.Expr)]
    return (*unnamed, *named.items())
