"""Views: named row transforms in the catalog, and a look at their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from fs_notebook.catalog import Catalog, CatalogState, View
from fs_notebook.catalog.about import VIEW, Words
from fs_notebook.catalog.model import VIEWED
from fs_notebook.compute.composed import composed
from fs_notebook.compute.joins import frozen_log, joined_log, lonely_rows, temporal_joins
from fs_notebook.compute.rows import compile_expr, overflow_named
from fs_notebook.errors import NameTaken, UsageError, plain_lines
from fs_notebook.language.cell import check_name
from fs_notebook.language.plan import Plan
from fs_notebook.language.polars_frame import StreamFrame
from fs_notebook.language.relation import Relation, Resolver, SourceColumns, view_relation
from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut
from fs_notebook.sources import Sources
from fs_notebook.types import Type

T = TypeVar("T")

SCAN_ROWS_MAX = 2_000_000
"""Events that a look at a view reads at most, where its WHERE lets few through."""


@dataclass(frozen=True)
class ViewRows:
    """A view and the first of its rows.

    Attributes
    ----------
    view
        The view as the catalog has it.
    types
        Its columns and their types, in order.
    time
        What the event time is called in it, None where it leaves it out.
    frame
        The first rows, in the order of the ledger.
    read
        How many events of the stream were read for them.
    notes
        Why there are none, where a join left them out.
    """

    view: View
    types: tuple[tuple[str, Type], ...]
    time: str | None
    frame: pl.DataFrame
    read: int
    notes: tuple[str, ...] = ()

    def to_polars(self) -> pl.DataFrame:
        """Return the rows."""
        return self.frame

    def __repr__(self) -> str:
        columns = ", ".join(f"{n} {t}" for n, t in self.types)
        head = f"view {self.view.name} v{self.view.version} of {self.view.source}: {columns}"
        notes = "".join(f"\nnote: {n}" for n in self.notes)
        return plain_lines(f"{head}{notes}\n{self.frame}")


class Transforms:
    """What defines views and looks at them. `Session` documents each call."""

    def __init__(self, catalog: Catalog, log: EventLog, sources: Sources) -> None:
        self.catalog = catalog
        self.log = log
        self.sources = sources

    def find(self, name: str) -> str | PolarsRows | None:
        """Return a view's SQL or its Polars, None where there is none of this name."""
        view = self.catalog.refresh().views.get(name)
        return None if view is None else view.rows

    def resolver(self) -> Resolver:
        """Return what finds streams and views by name."""
        return Resolver(self._columns, self.find)

    def _columns(self, name: str) -> SourceColumns:
        return self.columns_of(self.sources.find(name))

    def columns_of(self, stream: Stream) -> SourceColumns:
        """Return what the compiler must know of a stream; of a table also where it ends now."""
        cut = None
        if stream.time is None:
            end = self.log.end(stream.name)
            cut = end.to_json() if end.positions else None
        return SourceColumns(stream.name, stream.columns, stream.time, cut)

    @staticmethod
    def _noting(find: Callable[[str], T], found: dict[str, None]) -> Callable[[str], T]:
        """Return `find`, which notes the names that it found."""

        def noted(name: str) -> T:
            value = find(name)
            if value is not None:
                found[name] = None
            return value

        return noted

    def finding_views(self, found: dict[str, None]) -> Callable[[str], str | PolarsRows | None]:
        """Return what finds views by name, and notes those that it found."""
        return self._noting(self.find, found)

    def create(
        self, name: str, given: object, *, description: str | None, written: str | None = None
    ) -> View:
        """Record a view, or a new version of it, if its text is a row transform."""
        check_name(name, what="A view's name")
        if isinstance(given, StreamFrame):
            given = given.rows
        if not isinstance(given, (str, PolarsRows)):
            raise UsageError(
                "A view is a SELECT, or a stream and what is done to its rows.",
                found="nothing" if given is None else f"a {type(given).__name__}",
                remedy="'SELECT …', or fs.stream(\"read_events\").filter(…).select(…)",
            )
        if self.log.exists(name):
            raise self._taken(name)
        # Its own former text must not stand for a name that the new one uses.
        views: dict[str, None] = {}
        streams: dict[str, None] = {}
        find = Resolver(
            self._noting(self._columns, streams),
            self._noting(lambda n: None if n == name else self.find(n), views),
        )
        relation = view_relation(given, find)
        text = given if isinstance(given, str) else written or str(given)
        body: dict[str, Any] = {
            "text": text,
            "source": relation.source.name,
            "description": description,
            "views": list(views),
            "streams": list(streams),
        }
        if isinstance(given, PolarsRows):
            body["polars"] = given.to_json()

        def check(state: CatalogState) -> bool:
            if name in state.sources:
                raise self._taken(name)
            known = state.views.get(name)
            notes = state.notes.get((VIEW, name))
            if known is None or notes is None or not notes.repeats(Words(description=description)):
                return True
            return (known.rows, known.text) != (given, text)

        return self.catalog.record(VIEWED, name, body, check=check).views[name]

    @staticmethod
    def _taken(name: str) -> NameTaken:
        return NameTaken(f"{name!r} is a stream already.", remedy="another name for the view")

    def views(self) -> list[View]:
        """Return the views, by name."""
        return [v for _, v in sorted(self.catalog.refresh().views.items())]

    def rows(self, name: str, *, limit: int) -> ViewRows:
        """Return a view and the first of its rows."""
        view = self.catalog.refresh().view(name)
        relation, stream, log = self._opened(view.rows)
        frame, read = first_rows(relation, stream, log, limit=limit)
        notes = () if frame.height else lonely_rows(log)
        return ViewRows(view, relation.types, relation.time, frame, read, notes)

    def select(
        self, text: str, ends: Mapping[str, Cut] | None = None
    ) -> tuple[pl.DataFrame, dict[str, Cut]]:
        """Return all rows that a SELECT of row expressions gives, partition after partition.

        Parameters
        ----------
        ends
            Stream → the cut to read up to, to read the same again; default: as far as it goes.

        Returns
        -------
        frame
            Its columns, in the order of the ledger.
        ends
            Each stream that was read, and the cut.
        """
        relation, stream, _ = self._opened(text)
        names = [stream.name, *(j.source for j in temporal_joins(relation.joins))]
        frozen = {n: ends[n] if ends and n in ends else self.log.end(n) for n in names}
        _, _, log = self._opened(text, frozen_log(self.log, frozen))
        cut, parts = frozen[stream.name], dict[int, list[pl.DataFrame]]()
        for batch in log.read(stream, start=START, end=cut):
            parts.setdefault(batch.partition, []).append(_selected(relation, batch.rows))
        found = [frame for partition in sorted(parts) for frame in parts[partition]]
        return pl.concat(found) if found else _nothing(relation), frozen

    def _opened(
        self, rows: str | PolarsRows, log: EventLog | None = None
    ) -> tuple[Relation, Stream, EventLog]:
        """Return what rows mean, the stream they are of, and the log that reads them."""
        relation = view_relation(rows, self.resolver())
        stream = composed(
            relation.source.name, relation.source.branches, relation.joins, self.sources.find
        )
        joined = [self.sources.find(j.source) for j in relation.joins]
        plan = Plan(stream.name, stream.time, (), None, (), (), relation.joins)
        return relation, stream, joined_log(plan, joined, self.log if log is None else log)


def _selected(relation: Relation, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what a relation makes of rows of its stream."""
    exprs = [compile_expr(e).alias(n) for n, e in relation.columns.items()]
    with overflow_named("a SELECT"):
        kept = rows if relation.where is None else rows.filter(compile_expr(relation.where))
        # Beside a column, so that a literal gets as many rows as there are.
        return kept.with_columns(exprs).select(list(relation.columns))


def _nothing(relation: Relation) -> pl.DataFrame:
    return pl.DataFrame(schema={n: e.type.polars for n, e in relation.columns.items()})


def first_rows(
    relation: Relation, stream: Stream, log: EventLog, *, limit: int
) -> tuple[pl.DataFrame, int]:
    """Return the first `limit` rows of a relation, and how many events were read for them."""
    found: list[pl.DataFrame] = []
    rows = read = 0
    for batch in log.read(stream, start=START, end=log.end(stream.name), rows_max=20_000):
        part = _selected(relation, batch.rows).head(limit - rows)
        found.append(part)
        rows, read = rows + part.height, read + batch.rows.height
        if rows >= limit or read >= SCAN_ROWS_MAX:
            break
    return pl.concat(found) if found else _nothing(relation), read
