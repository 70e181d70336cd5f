"""The session's part that computes all entities' values of a feature group at a cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.drift import check_columns
from fs_notebook.catalog.model import Definition
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, parse_moment, silent
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import EventLog

if TYPE_CHECKING:
    from fs_notebook.shards.history import Backfill


class BackfillCalls:
    """The method of a `Session` that folds long histories."""

    catalog: Catalog
    log: EventLog
    clock: Clock

    def backfill(
        self,
        name: str,
        *,
        to: str | datetime | None = None,
        shards: int | None = None,
        engine: str = "local",
        out: str | Path | None = None,
        on_progress: OnProgress = silent,
    ) -> Backfill:
        """Return the values of all of a group's entities, of histories larger than memory.

        What `preview` shows of the whole history: events are dealt out by their entity to parts on
        disk while they are read once, and each part is folded by itself.

        Parameters
        ----------
        name
            A feature or group.
        to
            Only events before this time, and the values at it; default: just after the newest.
        shards
            How many parts; default: as many as fit memory.
        engine
            ``"ray"`` folds the parts in Ray's workers; ``"local"`` here.
        out
            Write them to this Parquet file, part by part, in no order.

        Raises
        ------
        UsageError
            If the group is derived, and has no history of its own.
        """
        from fs_notebook.model.written import check_out, parquet_writer
        from fs_notebook.shards.history import Backfill, backfill_of

        group = self.catalog.refresh().group(name)
        definition = group.latest
        if not isinstance(definition, Definition):
            inputs = ", ".join(d.name for d in definition.inputs)
            raise UsageError(
                f"{group.name!r} is derived: no history is folded for it.",
                found=f"it reads {inputs}",
                remedy=f"fs.backfill({definition.inputs[0].name!r}), or fs.preview({name!r})",
            )
        check_columns(definition, self.log)
        path = None if out is None else check_out(out)
        plan = definition.plan
        parts, facts = backfill_of(
            definition, self.log, clock=self.clock, shards=shards, engine=engine,
            at_us=None if to is None else parse_moment(to, option="to"), on_progress=on_progress,
        )  # fmt: skip
        keys = tuple(plan.entity)
        empty = pl.DataFrame(schema=_schema(definition))

        def named() -> Iterator[pl.DataFrame]:
            for part in parts:
                yield part.rename(dict(zip(part.columns, empty.columns, strict=True)))

        frame: pl.DataFrame | None = None
        if path is None:
            frame = pl.concat([empty, *named()]).sort(keys)
        else:
            with parquet_writer(path, empty) as write:
                for part in named():
                    write(part)
        return Backfill(
            name=group.name, keys=keys, features=plan.features, frame=frame, path=path,
            entities=facts.entities, cut=facts.cut, at=facts.at, events=facts.events,
            null_keys=facts.null_keys, seconds=facts.seconds,
        )  # fmt: skip


def _schema(definition: Definition) -> dict[str, Any]:
    plan = definition.plan
    keys = {k.name: k.expr.type.polars for k in plan.keys}
    return keys | {o.name: o.type.polars for o in plan.outputs}
