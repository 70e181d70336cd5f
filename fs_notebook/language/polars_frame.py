"""A stream as a Polars user expects a frame: it only records what is done to its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from fs_notebook.errors import DefinitionError
from fs_notebook.language.polars_tree import Node, tree_of
from fs_notebook.language.row_steps import PolarsRows, RowStep

Named = tuple[tuple[str | None, pl.Expr], ...]
Columns = str | pl.Expr | Sequence[str | pl.Expr]


@dataclass(frozen=True)
class Aggregates:
    """A stream's features by its keys: what a Polars cell's last expression may be."""

    rows: PolarsRows
    keys: Named
    features: Named


@dataclass(frozen=True)
class Grouped:
    """A stream, grouped by its keys."""

    frame: StreamFrame
    keys: Named

    def agg(self, *features: pl.Expr | list[pl.Expr], **named: pl.Expr) -> Aggregates:
        """Say the features: expressions, or name=expression."""
        return Aggregates(self.frame.rows, self.keys, _named(features, named))


@dataclass(frozen=True)
class StreamFrame:
    """A stream, and what is done to its rows: a view, or what features are made of.

    Examples
    --------
    >>> reads = StreamFrame(PolarsRows("read_events")).filter(pl.col("ok"))
    >>> reads.group_by("user").agg(total=pl.col("readtime").sum()).rows.stream
    'read_events'
    """

    rows: PolarsRows

    def _and(self, step: RowStep) -> StreamFrame:
        return StreamFrame(replace(self.rows, steps=(*self.rows.steps, step)))

    def filter(self, *conditions: pl.Expr | Sequence[pl.Expr]) -> StreamFrame:
        """Leave out the rows for which a condition is not true."""
        return self._and(RowStep("filter", _trees(_named(conditions, {}))))

    def select(self, *columns: Columns, **named: str | pl.Expr) -> StreamFrame:
        """Make rows of these columns: names, expressions, or name=expression."""
        return self._and(RowStep("select", _trees(_columns(columns, named))))

    def with_columns(self, *columns: Columns, **named: str | pl.Expr) -> StreamFrame:
        """Put columns beside those that are there, or in the place of those of their name."""
        return self._and(RowStep("with_columns", _trees(_columns(columns, named))))

    def drop(self, *names: str) -> StreamFrame:
        """Leave out columns."""
        return self._and(RowStep("drop", names=_texts(names, 'drop("genre")')))

    def rename(self, names: Mapping[str, str]) -> StreamFrame:
        """Call columns otherwise: ``{"old": "new"}``."""
        if not isinstance(names, Mapping):
            raise _no_names(names, 'rename({"old": "new"})')
        old, new = _texts(tuple(names), "a name"), _texts(tuple(names.values()), "a name")
        return self._and(RowStep("rename", names=old, others=new))

    def join(
        self,
        other: StreamFrame | str,
        on: str | Sequence[str] | None = None,
        how: str = "inner",
        *,
        left_on: Columns | None = None,
        right_on: str | Sequence[str] | None = None,
    ) -> StreamFrame:
        """Put the columns of a table, or of a keyed stream as of the row's time, beside each row.

        Parameters
        ----------
        other
            A stream, or its name.
        on
            Columns that both have; or `left_on`, columns or expressions over the rows, and
            `right_on`, the other stream's columns.
        how
            ``"inner"``, or ``"left"``: rows without a match stay, with nulls.

        Notes
        -----
        As in Polars, a column that both have is called ``name_right`` beside the row's own, and
        the other stream's key is left out.
        """
        if isinstance(other, StreamFrame):
            if other.rows.steps:
                raise DefinitionError(
                    "A join is with a stream as it is.", found=str(other.rows)[:120],
                    remedy=f"fs.stream({other.rows.stream!r}); filter and select after the join",
                )  # fmt: skip
            other = other.rows.stream
        if on is not None:
            left_on = right_on = on
        if left_on is None or right_on is None or how not in ("inner", "left"):
            raise DefinitionError(
                "This join cannot be folded.",
                found=f"how={how!r}" if how not in ("inner", "left") else "no columns to join on",
                remedy='join(fs.stream("articles"), on="article", how="left")',
            )
        keys = _trees(_columns((left_on,), {}))
        columns = (right_on,) if isinstance(right_on, str) else tuple(right_on)
        columns = _texts(columns, 'right_on="article"')
        if len(keys) != len(columns):
            raise DefinitionError(
                "left_on and right_on have different lengths.",
                found=f"{len(keys)} and {len(columns)}", remedy="one for each other",
            )  # fmt: skip
        return self._and(RowStep("join", keys, columns, (other, how)))

    def group_by(self, *keys: str | pl.Expr, **named: str | pl.Expr) -> Grouped:
        """Say whose features follow: columns, or expressions with an alias."""
        return Grouped(self, _columns(keys, named))

    def __repr__(self) -> str:
        return str(self.rows)


def stream(name: str) -> StreamFrame:
    """Return a stream or a view, to transform, group and aggregate: as in a view or a feature."""
    return StreamFrame(PolarsRows(name))


def _trees(values: Named) -> tuple[tuple[str | None, Node], ...]:
    return tuple((name, tree_of(value)) for name, value in values)


def _columns(values: Sequence[object], named: Mapping[str, object]) -> Named:
    flat: list[object] = []
    for value in values:
        flat += value if isinstance(value, (list, tuple)) else [value]
    return _named(
        tuple(pl.col(v) if isinstance(v, str) else v for v in flat),
        {n: pl.col(v) if isinstance(v, str) else v for n, v in named.items()},
    )


def _texts(values: Sequence[object], example: str) -> tuple[str, ...]:
    if not all(isinstance(v, str) for v in values):
        raise _no_names(values, example)
    return tuple(str(v) for v in values)


def _no_names(found: object, example: str) -> DefinitionError:
    return DefinitionError("These are no names.", found=repr(found)[:80], remedy=example)


def _named(values: Sequence[object], named: Mapping[str, object]) -> Named:
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
    return (*unnamed, *((n, v) for n, v in named.items() if isinstance(v, pl.Expr)))
