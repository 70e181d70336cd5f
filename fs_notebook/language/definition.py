"""A definition as it is given, SQL text or Polars expressions, compiled by what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.errors import UsageError
from fs_notebook.language.plan import Plan
from fs_notebook.language.polars_plan import compile_polars, read_polars, sole_stream
from fs_notebook.language.relation import Resolver, RowTransform, SourceColumns
from fs_notebook.language.sql import compile_sql


@dataclass(frozen=True)
class Compiled:
    """What a definition means, and what the catalog keeps of how it was written."""

    plan: Plan
    text: str
    language: str = "sql"
    options: Mapping[str, Any] = field(default_factory=dict)


def compile_definition(
    given: object,
    *,
    name: str,
    find_source: Callable[[str], SourceColumns],
    columns_of_streams: Callable[[], Mapping[str, Sequence[str]]],
    stream: str | None = None,
    written: str | None = None,
    entity: Sequence[str] = (),
    window_us: int | None = None,
    closed: str = "left",
    resolution_us: int | None = None,
    find_view: Callable[[str], str | RowTransform | None] = lambda name: None,
) -> Compiled:
    """Compile what a user gave: SQL, a Polars expression, or a list or dict of some.

    Parameters
    ----------
    given
        The definition.
    columns_of_streams
        Gives the declared streams' names and columns, where nothing says which one is meant.
    stream
        What Polars expressions read; SQL says it in FROM.
    written
        How the user wrote the Polars expressions; default: Python that says the same.
    name, find_source, entity, window_us, closed, resolution_us, find_view
        As for `compile_sql`.

    Raises
    ------
    DefinitionError
        If it cannot be folded; says why, and what can.
    UsageError
        If the stream is said twice, or not at all.
    """
    spans: dict[str, Any] = {
        "window_us": window_us, "closed": closed, "resolution_us": resolution_us,
    }  # fmt: skip
    if isinstance(given, str):
        if stream is not None:
            raise UsageError(
                "SQL names its stream in FROM.", found=f"--stream {stream}",
                remedy="leave --stream out",
            )  # fmt: skip
        plan = compile_sql(
            given, name=name, find_source=find_source, entity=entity, find_view=find_view, **spans
        )
        return Compiled(plan, given)
    polars = read_polars(given)
    resolver = Resolver(find_source, find_view)
    if polars.rows is not None:
        relation = polars.rows.relation(resolver, written or "")
    else:
        read = stream or polars.stream or sole_stream(polars, columns_of_streams())
        relation = resolver.named(read)
    plan = compile_polars(
        polars, name=name, relation=relation, stream=stream, entity=entity, text=written or "",
        **spans,
    )  # fmt: skip
    options = {"stream": stream, "polars": polars.to_json()}
    return Compiled(plan, written or str(polars), "polars", options)
