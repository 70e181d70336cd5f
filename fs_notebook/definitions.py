"""From what a user gives for a feature to its definition, against what the catalog knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fs_notebook.catalog import Catalog, Definition
from fs_notebook.compute.preview import parse_span
from fs_notebook.errors import UsageError
from fs_notebook.language.cell import check_name
from fs_notebook.language.definition import compile_definition
from fs_notebook.language.relation import SourceColumns
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.sources import Sources
from fs_notebook.transforms import Transforms


class Definitions:
    """Compiles feature groups against what the catalog knows. `Session` documents the options."""

    def __init__(
        self, catalog: Catalog, log: EventLog, sources: Sources, transforms: Transforms
    ) -> None:
        self.catalog = catalog
        self.log = log
        self.sources = sources
        self.transforms = transforms

    def compile(
        self,
        name: str,
        text: object,
        *,
        entity: str | Sequence[str],
        stream: str | None,
        window: str | None,
        closed: str,
        resolution: str | None,
        tags: str | Sequence[str],
        written: str | None,
        **said: str | None,
    ) -> Definition:
        """Return what a text or Polars expressions mean; nothing is recorded.

        `said` are the owner, the description and the cell, which change no meaning.
        """
        check_name(name)
        if closed not in ("left", "right"):
            raise UsageError("closed is 'left' or 'right'.", found=repr(closed), remedy="'left'")
        if isinstance(tags, str):
            tags = [t.strip() for t in tags.split(",") if t.strip()]
        entities = [entity] if isinstance(entity, str) else list(entity)
        windows = {"window": window, "closed": closed, "resolution": resolution}
        definition = self._folded(name, text, entities, windows, stream=stream, written=written)
        for feature in definition.plan.features:
            check_name(feature)
            if feature.startswith("__"):
                raise UsageError(
                    "Names that begin with two underscores are ours.", found=feature,
                    remedy=feature.strip("_"),
                )  # fmt: skip
        about: dict[str, Any] = {**said, "tags": tuple(tags)}
        return replace(definition, **about)

    def _folded(
        self,
        name: str,
        given: object,
        entities: list[str],
        windows: Mapping[str, str | None],
        *,
        stream: str | None,
        written: str | None,
    ) -> Definition:
        sources: dict[str, Stream] = {}

        def find(source: str) -> SourceColumns:
            stream = sources[source] = self.sources.find(source)
            return SourceColumns(stream.name, stream.columns, stream.time)

        def length_us(option: str) -> int | None:
            given = windows[option]
            return None if given is None else parse_span(given, option=f"--{option}")

        compiled = compile_definition(
            given, name=name, find_source=find, find_view=self.transforms.text_of,
            columns_of_streams=self._columns, stream=stream, written=written, entity=entities,
            window_us=length_us("window"), closed=windows["closed"] or "left",
            resolution_us=length_us("resolution"),
        )  # fmt: skip
        return Definition(
            name, compiled.text, compiled.plan, sources[compiled.plan.source], compiled.language,
            {**windows, "entity": entities, **compiled.options},
        )  # fmt: skip

    def _columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of each declared stream."""
        known = self.catalog.refresh().sources.items()
        return {name: tuple(s.stream.names) for name, s in known}
