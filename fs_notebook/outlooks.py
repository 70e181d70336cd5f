"""What a promotion would do, told before it is done: history to fold, time, who is touched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.about import GROUP
from fs_notebook.catalog.differences import difference
from fs_notebook.catalog.graph import Node, lineage_of
from fs_notebook.catalog.lineage import check_inputs, inputs_of, streams_of
from fs_notebook.catalog.model import AnyDefinition, Definition, Group
from fs_notebook.clock import Clock
from fs_notebook.compute.fold import Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.running import Running
from fs_notebook.definitions import Definitions
from fs_notebook.language.cell import Cell
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.usage import Use, uses_of
from fs_notebook.position import START

# As much history is folded for a try as tells how fast the rest will go.
TRY_S = 0.25
TRY_ROWS = 50_000
# A worker's start, its commits and its hand-over, whatever there is to fold.
BEGIN_S = 3.0

FOLD, WARM, DERIVED, SERVES = "fold", "warm", "derived", "serves"


@dataclass(frozen=True)
class Outlook:
    """What promoting a definition would do.

    Attributes
    ----------
    version, serving
        The version's number that it gets, or has already, and the one that serves now.
    work
        ``"fold"``: a worker folds history; ``"warm"``: the version's state is kept up to date, so
        it serves at once; ``"derived"``: it is computed when it is read; ``"serves"``: it serves
        already.
    streams, depends_on
        What is folded; the versions that it is derived from.
    events
        How many events history has; None where the ledger does not know.
    seconds
        About how long folding them takes here, from a try on some of them; None if unknown.
    changes
        What it changes of the version that serves, in words.
    used_by, readers
        What is made of the group in the catalog; who serves and trains with it.
    notes
        What else should be known first.
    """

    name: str
    version: int
    serving: int | None
    work: str
    streams: tuple[str, ...]
    depends_on: tuple[str, ...]
    events: int | None
    seconds: float | None
    changes: tuple[str, ...]
    used_by: tuple[Node, ...]
    readers: tuple[Use, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "name": self.name, "version": self.version, "serving": self.serving,
            "work": self.work, "streams": list(self.streams), "depends_on": list(self.depends_on),
            "events": self.events, "seconds": self.seconds, "changes": list(self.changes),
            "used_by": [n._asdict() for n in self.used_by],
            "readers": [u.to_dict() for u in self.readers], "notes": list(self.notes),
        }  # fmt: skip

    def __repr__(self) -> str:
        meanwhile = "" if self.serving is None else f"; v{self.serving} serves until it is live"
        if self.work == SERVES:
            return f"{self.name}: v{self.version} serves already"
        how = {
            WARM: "at once: its state was kept up to date",
            DERIVED: f"at once: it is computed from {', '.join(self.depends_on)}",
        }.get(self.work)
        if how is None:
            count = "all events" if self.events is None else f"{self.events:,} events"
            time = "" if self.seconds is None else f", about {self.seconds:,.0f} s"
            how = f"folds {count} of {', '.join(self.streams)}{time}"
        lines = [f"{self.name}: promoting makes v{self.version} serve{meanwhile}", f"  {how}"]
        lines += [f"  changes: {change}" for change in self.changes]
        lines += [f"  used by: {node}" for node in self.used_by]
        lines += [f"  read: {use!r}" for use in self.readers]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


class OutlookCalls:
    """The method of a `Session` that tells what a promotion would do."""

    catalog: Catalog
    clock: Clock
    log: EventLog
    store: OnlineStore
    _definitions: Definitions

    def outlook(self, what: str | Cell) -> Outlook:
        """Return what promoting a group's latest definition, or a cell, would do.

        Nothing is recorded. Some of the history is folded for a try, for a quarter of a second.

        Raises
        ------
        FeatureStoreError
            If the promotion would be refused; for the same reason.
        """
        state = self.catalog.refresh()
        if isinstance(what, Cell):
            definition = self._compiled(state, what)
            state.check_names(definition, actor=self.catalog.actor)
        else:
            definition = state.group(what).latest
        check_inputs(state, definition)
        group = state.groups.get(definition.name, Group(definition.name))
        known = group.by_fingerprint(definition.fingerprint)
        serving = group.serving
        work = self._work(group, definition)
        events = self._events(definition) if work == FOLD else None
        seconds = self._seconds(definition, events) if work == FOLD else None
        changes: tuple[str, ...] = ()
        if serving is not None and serving.fingerprint != definition.fingerprint:
            changes = difference(serving.definition, definition).words
        is_known = definition.name in state.groups
        used_by = lineage_of(state, definition.name, kind=GROUP).downstream() if is_known else ()
        return Outlook(
            name=definition.name,
            version=len(group.versions) + 1 if known is None else known.number,
            serving=None if serving is None else serving.number, work=work,
            streams=streams_of(definition),
            depends_on=tuple(str(p) for p in inputs_of(state, definition)),
            events=events, seconds=seconds, changes=changes, used_by=used_by,
            readers=tuple(uses_of(self.store, definition.name)) if is_known else (),
            notes=() if group.deprecated is None else (group.deprecated.told(group.name),),
        )  # fmt: skip

    def _compiled(self, state: CatalogState, cell: Cell) -> AnyDefinition:
        if cell.language == "polars":
            return state.defined_by(cell.name, cell.source)
        return self._definitions.compile(
            cell.name, cell.text, entity=cell.entity, stream=cell.stream, window=cell.window,
            closed=cell.closed, resolution=cell.resolution, ttl=cell.ttl, request=cell.request,
            tags=cell.tags, written=None, refresh_statistics=False,
            description=cell.description, owner=cell.owner, cell=cell.source,
        )  # fmt: skip

    @staticmethod
    def _work(group: Group, definition: AnyDefinition) -> str:
        serving = group.serving
        if serving is not None and serving.fingerprint == definition.fingerprint:
            return SERVES
        if not isinstance(definition, Definition):
            return DERIVED
        # A version that runs beside the one that serves is as current as that one.
        kept = {v.fingerprint for v in group.running if v.number in group.served}
        return WARM if definition.fingerprint in kept else FOLD

    def _events(self, definition: AnyDefinition) -> int | None:
        facts = getattr(self.log, "facts", None)
        if facts is None:
            return None
        counts = [facts(name).events for name in streams_of(definition)]
        return None if None in counts else sum(cast(Sequence[int], counts))

    def _seconds(self, definition: AnyDefinition, events: int | None) -> float | None:
        """Return about how long a worker takes for so many events."""
        if events is None or not isinstance(definition, Definition):
            return None
        plan, source = definition.plan, definition.source
        log = joined_log(plan, definition.joined, self.log, filtered=True)
        running, rows, begun_s = Running(Fold(plan)), 0, self.clock.monotonic_s()
        end = log.end(source.name)
        batches = log.read(source, start=START, end=end, columns=plan.columns, rows_max=TRY_ROWS)
        with closing(cast(Any, batches)):
            for batch in batches:
                running.add(batch.rows, batch.positions)
                rows += batch.rows.height
                if self.clock.monotonic_s() - begun_s > TRY_S:
                    break
        assert running.state is not None
        took_s = self.clock.monotonic_s() - begun_s
        return round(BEGIN_S + (took_s * events / rows if rows else 0.0), 1)
