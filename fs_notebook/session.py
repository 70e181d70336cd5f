"""The Python API: one object that wires ledger, store, catalog and workers together.

Every magic has its twin here, so scripts and tests need no IPython.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fs_notebook.backfill_calls import BackfillCalls
from fs_notebook.catalog import Catalog, CatalogState, View
from fs_notebook.catalog.about import GROUP, Words
from fs_notebook.catalog.drift import check_columns
from fs_notebook.catalog.graph import notices_of
from fs_notebook.catalog.index import Index
from fs_notebook.catalog.lineage import changed_since, running_of
from fs_notebook.catalog.model import DRAFTED, AnyDefinition, DerivedDefinition
from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.comparison import CompareCalls
from fs_notebook.compute.derived import preview_derived
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import (
    OnProgress,
    Preview,
    Progress,
    silent,
    slice_of,
)
from fs_notebook.compute.preview import preview as run_preview
from fs_notebook.curation import CurationCalls
from fs_notebook.definitions import Definitions
from fs_notebook.errors import UsageError
from fs_notebook.explanation import ExplainCalls
from fs_notebook.inspection import Inspection
from fs_notebook.language.cell import Cell
from fs_notebook.log.protocol import Stream
from fs_notebook.model.sets import PinnedSet, names_of
from fs_notebook.online.async_store import reads_of
from fs_notebook.online.connect import EMBEDDED
from fs_notebook.online.serve import AsyncFeatureReader, FeatureReader
from fs_notebook.online.usage import SERVING, UseNotes
from fs_notebook.online.vector import FeatureVector
from fs_notebook.origins import Origin
from fs_notebook.outlooks import OutlookCalls
from fs_notebook.portraits import PortraitCalls
from fs_notebook.promotion import Promotions
from fs_notebook.review import ReviewCalls
from fs_notebook.set_calls import SetCalls
from fs_notebook.sources import Sources
from fs_notebook.stream_calls import StreamCalls
from fs_notebook.training_calls import TrainingCalls
from fs_notebook.transforms import Transforms, ViewRows
from fs_notebook.views import Status, group_view, notes_of, status_of, views_of
from fs_notebook.waiting import WaitCalls
from fs_notebook.worker.connection import Connection, default_actor
from fs_notebook.worker.runner import stop_runner
from fs_notebook.worker.verify import Verification
from fs_notebook.worker.verify import verify as run_verify
from fs_notebook.worker.verify_derived import verify_derived


class Session(
    StreamCalls, TrainingCalls, SetCalls, BackfillCalls, ExplainCalls, CompareCalls, CurationCalls,
    OutlookCalls, PortraitCalls, ReviewCalls, WaitCalls,
):  # fmt: skip
    """A ledger, an online store, and the catalog in the ledger.

    Parameters
    ----------
    connection
        Where they are.
    actor
        Who changes are recorded as; default: the user's login.
    clock
        What time it is.
    """

    def __init__(
        self, connection: Connection, *, actor: str | None = None, clock: Clock = SYSTEM
    ) -> None:
        self.connection = connection
        self.clock = clock
        connection.home.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            self.log = connection.open_log()
            undo.callback(self.log.close)

            def catalog() -> Catalog:
                return Catalog(self.log, actor=actor or default_actor(), clock=clock)

            # The embedded Redis is started by who opens it, a stream by who opens the catalog:
            # a broker that does not answer leaves no Redis behind, a Redis that does not no topic.
            if connection.online == EMBEDDED:
                self.catalog = catalog()
            self.store = connection.open_store()
            undo.callback(self.store.close)
            if connection.online != EMBEDDED:
                self.catalog = catalog()
            undo.pop_all()
        promise = getattr(self.log, "promise", None)
        if promise is not None:
            promise(self._ahead_us)
        self._index = Index()
        self._index_lock = threading.Lock()
        self._reader = FeatureReader(self.store, clock=clock, uses=self._uses())
        self._sources = Sources(self.catalog, self.log, clock=clock)
        self._inspection = Inspection(self._sources, self.log)
        self._transforms = Transforms(self.catalog, self.log, self._sources)
        self._definitions = Definitions(
            self.catalog, self.log, self._sources, self._transforms, clock=clock
        )
        self._promotions = Promotions(connection, self.catalog, self.store, clock=clock)

    def __repr__(self) -> str:
        state = self.catalog.refresh()
        # The embedded Redis listens on a socket whose path tells nobody anything.
        online = self.connection.online
        online = "embedded Redis" if online == EMBEDDED else self.store.url
        return (
            f"fs_notebook session: ledger {self.log.url}, online {online}, "
            f"{len(state.sources)} streams, {len(state.groups)} feature groups"
        )

    def _ahead_us(self, stream: Stream) -> int | None:
        """Return what is promised of a stream by now, whatever declaration a version keeps."""
        known = self.catalog.known.sources.get(stream.name)
        return stream.ahead_us if known is None else known.stream.ahead_us

    def close(self) -> None:
        """Let go of connections. Runner and workers go on."""
        self.log.close()
        self.store.close()

    def create_view(
        self, name: str, text: object, *, description: str | None = None, limit: int = 20,
        written: str | None = None,
    ) -> ViewRows:  # fmt: skip
        """Name a row transform, so that features and other views can read from it.

        Parameters
        ----------
        text
            A SELECT of row expressions, or the like in Polars: `fs.stream(…).select(…)`.
        limit
            How many of its first rows to return.
        written
            How the user wrote the Polars.

        Raises
        ------
        DefinitionError, NameTaken
            If it is no row transform, or a stream has that name; nothing is recorded then.
        """
        self._transforms.create(name, text, description=description, written=written)
        return self._transforms.rows(name, limit=limit)

    def view_rows(self, name: str, *, limit: int = 20) -> ViewRows:
        """Return a view with the first of its rows."""
        return self._transforms.rows(name, limit=limit)

    def row_views(self) -> list[View]:
        """Return the views, by name."""
        return self._transforms.views()

    def define(
        self,
        name: str,
        text: Any,
        *,
        entity: str | Sequence[str] = (),
        stream: str | None = None,
        window: str | None = None,
        closed: str = "left",
        resolution: str | None = None,
        ttl: str | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        owner: str | None = None,
        cell: str | None = None,
        notebook: str | None = None,
        request: str | None = None,
        refresh_statistics: bool = False,
        written: str | None = None,
        actor: str | None = None,
    ) -> AnyDefinition:
        """Compile a feature group and record it as a draft in the catalog.

        Where FROM names features instead of a stream, it is derived from them: an expression
        over their values and the request's own, ``:name``, whose types `request` may declare
        (``"amount DOUBLE, country VARCHAR"``).

        Statistics that operations such as Z_SCORE(x) ask for are measured up to the ledger's
        end and pinned; those that the group's latest definition pinned are used again, unless
        `refresh_statistics`.

        Parameters
        ----------
        text
            SQL; or a Polars expression, a list or dict of some, or `fs.stream(…)…agg(…)`.
        stream
            What Polars expressions read; default: the only stream that there is.
        ttl
            All of an entity's features are null, in training and online, at times when its newest
            event is older than this, e.g. ``"30d"``.
        written
            How the user wrote the Polars expressions; default: Python that says the same.
        cell, notebook
            The text of the notebook cell that says so, and the path of the notebook. The catalog
            is told where that is in its repository or on its server, see `origins.Origin`.
        actor
            Who it is recorded as; default: the session's user.

        Raises
        ------
        DefinitionError
            If the definition cannot be folded; nothing is recorded then.
        NameTaken
            If one of its names means something else already.
        """
        definition = self._definitions.compile(
            name, text, entity=entity, stream=stream, window=window, closed=closed,
            resolution=resolution, ttl=ttl, request=request, written=written,
            description=description, tags=tags, owner=owner, cell=cell,
            refresh_statistics=refresh_statistics,
        )  # fmt: skip

        def check(state: CatalogState) -> bool:
            state.check_names(definition, actor=actor or self.catalog.actor)
            known, notes = state.groups.get(name), state.notes.get((GROUP, name))
            if known is None or notes is None or not notes.repeats(Words.of(definition)):
                return True
            return known.latest != replace(definition, **notes.words.to_dict())

        body: dict[str, Any] = {"definition": definition.to_dict()}
        body |= {} if notebook is None else {"notebook": Origin.of(notebook).to_dict()}
        state = self.catalog.record(DRAFTED, name, body, check=check, actor=actor)
        return state.groups[name].latest

    def define_cell(
        self, cell: Cell, *ran: Any, notebook: str | None = None, actor: str | None = None
    ) -> AnyDefinition:
        """Define what a `%%feature` cell says, if all of its header makes sense.

        `ran` is the value of a Polars cell's last line. Where nobody ran the cell the definition is
        what the catalog has of that very cell.
        """
        polars = cell.language == "polars"
        if polars and not ran:
            return self.catalog.refresh().defined_by(cell.name, cell.source)
        slice_of(cell.last, cell.from_, cell.to, cell.sample)
        return self.define(
            cell.name, ran[0] if polars else cell.text, entity=cell.entity, stream=cell.stream,
            window=cell.window, closed=cell.closed, resolution=cell.resolution, ttl=cell.ttl,
            written=cell.text if polars else None,
            description=cell.description, tags=cell.tags, owner=cell.owner, cell=cell.source,
            request=cell.request, refresh_statistics=cell.refresh_statistics,
            notebook=notebook, actor=actor,
        )  # fmt: skip

    def feature(
        self, name: str, text: Any, *, on_progress: OnProgress = silent, **options: Any
    ) -> Preview:
        """Define a feature group and preview it: the twin of a `%%feature` cell.

        Takes the options of `define` and of `preview`.
        """
        given = options.pop("with_", None)
        chosen = {k: options.pop(k) for k in ("last", "from_", "to", "sample") if k in options}
        # A slice that makes no sense is told before anything is recorded.
        slice_of(**chosen)
        self.define(name, text, **options)
        return self.preview(name, with_=given, on_progress=on_progress, **chosen)

    def preview(
        self,
        name: str,
        *,
        last: str | None = None,
        from_: str | datetime | None = None,
        to: str | datetime | None = None,
        sample: str | float | None = None,
        with_: Mapping[str, Any] | None = None,
        on_progress: OnProgress = silent,
    ) -> Preview:
        """Fold a slice of history and return the values at its end.

        Parameters
        ----------
        last
            Only the stream's newest stretch, e.g. ``"30d"``.
        from_, to
            Only events with time in [from, to).
        sample
            At most so many entities, or (below 1, or ``"5%"``) a share of them.
        with_
            Values of the request for derived features; those that are left out are null.
        """
        group = self.catalog.refresh().group(name)
        definition = group.latest
        check_columns(definition, self.log)
        where = slice_of(last, from_, to, sample)
        old = notices_of(self.catalog.refresh(), definition)
        if isinstance(definition, DerivedDefinition):
            return preview_derived(
                group.name, definition.plan,
                {(d.name, d.fingerprint): (d.plan, d.source, d.joined) for d in definition.inputs},
                self.log, clock=self.clock, given=with_, where=where, on_progress=on_progress,
                notes=(*notes_of(group), *old, *changed_since(self.catalog.refresh(), definition)),
            )  # fmt: skip
        if with_:
            raise UsageError(
                f"{group.name!r} reads no request values.", found=", ".join(with_),
                remedy="leave --with out",
            )  # fmt: skip
        return run_preview(
            group.name, definition.plan, definition.source,
            joined_log(definition.plan, definition.joined, self.log, filtered=True),
            clock=self.clock, where=where, on_progress=on_progress,
            notes=(*notes_of(group), *old, *self._inspection.limits(definition)),
        )  # fmt: skip

    def promote(
        self,
        name: str,
        *,
        wait: bool = True,
        with_inputs: bool = False,
        workers: int | None = None,
        actor: str | None = None,
        on_progress: OnProgress = silent,
    ) -> Status:
        """Send the newest definition to a background worker; return when it serves.

        The former version serves on until the new one is bootstrapped. An interrupt stops the
        waiting, not the worker. Where the worker of that very definition cannot go on, its
        state is built anew from the ledger.

        A derived group has no worker: it serves once all that it is derived from does.
        `with_inputs` promotes first what of that is not promoted.

        Where another version served before, the status says how far the values of a thousand
        entities differ; see `compare`.

        With `workers`, so many processes on each machine that has a runner share the stream's
        partitions, on Pulsar; by default one has them all.

        Raises
        ------
        UsageError
            If it is derived from what is not promoted; says what is to be promoted first.
        ConflictError
            If somebody else changed the group at the same time; says who and when.
        """
        status = self._promotions.promote(
            name, wait=wait, with_inputs=with_inputs, workers=workers, actor=actor,
            on_progress=on_progress,
        )  # fmt: skip
        if not wait:
            return status
        served = self.catalog.refresh().group(status.name).served
        if len(served) < 2:
            return status
        return replace(status, compared=self.glance(status.name, served[-2], status.version))

    def rollback(self, name: str, *, actor: str | None = None) -> Status:
        """Serve the former version again, at once: it was kept warm.

        While a new version is still bootstrapping this takes the promotion back.
        """
        return self._promotions.rollback(name, actor=actor)

    def retire(self, name: str, version: int | None = None, *, actor: str | None = None) -> None:
        """Stop a version that does not serve and free its state; without one, drop the draft."""
        if version is None:
            self._promotions.discard(name, actor=actor)
        else:
            self._promotions.retire(name, version, actor=actor)

    def status(self, name: str | None = None) -> list[Status]:
        """Return what each running version's worker last reported."""
        state = self.catalog.refresh()
        groups = [state.group(name)] if name else [g for _, g in sorted(state.groups.items())]
        return [status_of(g, v, self.store) for g in groups for v in running_of(state, g)]

    def serve(
        self,
        features: str | PinnedSet | Sequence[str | PinnedSet],
        *,
        request: Mapping[str, Any] | None = None,
        **entities: Any,
    ) -> FeatureVector:
        """Return features of entities from the online store, in one round trip.

        ``fs.serve(["total_readtime"], user=["u7", "u8"])``. What derived features read of the
        request stands beside the entities, ``amount=[12.5, 3.0]``, or in `request`. Of a feature
        set, ``"set:ranker"``, the columns are those of its training sets, in the same order.
        """
        return self._reader.read(names_of(features), request=request, **entities)

    def reader(self, *, cache_s: float = 0.0) -> FeatureReader:
        """Return a reader of the online store, with a local cache if told so."""
        return FeatureReader(self.store, clock=self.clock, cache_s=cache_s, uses=self._uses())

    def async_reader(self, *, cache_s: float = 0.0) -> AsyncFeatureReader:
        """Return a reader for asyncio, with connections of its own: ``await reader.read(…)``."""
        return AsyncFeatureReader(
            reads_of(self.store), clock=self.clock, cache_s=cache_s, uses=self._uses()
        )

    def _uses(self) -> UseNotes:
        return UseNotes(self.store, kind=SERVING, actor=self.catalog.actor, clock=self.clock)

    def verify(
        self,
        name: str,
        *,
        version: int | None = None,
        sample: int | None = None,
        seed: int | None = None,
        on_progress: OnProgress = silent,
    ) -> Verification:
        """Replay the ledger to the worker's own position and compare every online value.

        With `sample`, those of so many entities, drawn from all by their hashes; the same `seed`
        draws the same ones, by default it is another one each time. The ledger is read whole all
        the same, and entities that the store lacks are not told then.
        """
        group = self.catalog.refresh().group(name)
        chosen = group.serving if version is None else group.version(version)
        if chosen is None:
            raise UsageError(f"{group.name!r} is not served yet.",
                             remedy=f"%feature promote {group.name}")  # fmt: skip
        begun_s = self.clock.monotonic_s()

        def report(share: float) -> None:
            elapsed_s = self.clock.monotonic_s() - begun_s
            on_progress(Progress(share, 0, elapsed_s, "comparing"))

        if isinstance(chosen.definition, DerivedDefinition):
            return verify_derived(
                chosen.definition, chosen.number, self.log, self.store,
                now_us=self.clock.now_us(), entities_max=sample, seed=seed, progress=report,
            )  # fmt: skip
        return run_verify(
            chosen.definition, chosen.number, self.log, self.store,
            now_us=self.clock.now_us(), entities_max=sample, seed=seed, progress=report,
        )  # fmt: skip

    def features(self, words: str = "") -> list[dict[str, Any]]:
        """Return the catalog's groups that match all `words`, by name; see `search`."""
        found = self.search(words, kinds=["group"], limit=None)
        return views_of(self.catalog.refresh(), self.store, sorted(found.names()))

    def view(self, name: str) -> dict[str, Any]:
        """Return one group as the catalog and the sidebar show it."""
        state = self.catalog.refresh()
        return group_view(state.group(name), self.store, state)

    def stop(self) -> bool:
        """Stop the background runner and its workers; what they committed stays."""
        return stop_runner(self.connection)
