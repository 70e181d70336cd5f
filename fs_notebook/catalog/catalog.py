"""The catalog's stream: read forward, appended to under optimistic concurrency."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import polars as pl

from fs_notebook.catalog.model import CatalogState, Folding
from fs_notebook.clock import SYSTEM, Clock, from_us
from fs_notebook.errors import ConflictError
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut
from fs_notebook.types import Type

STREAM = Stream(
    name="fs_catalog",
    columns=(
        ("kind", Type.VARCHAR),
        ("name", Type.VARCHAR),
        ("body", Type.VARCHAR),
        ("actor", Type.VARCHAR),
        ("at", Type.TIMESTAMP),
    ),
    time="at",
)
_ATTEMPTS_MAX = 20


class Catalog:
    """The shared catalog in a ledger.

    Parameters
    ----------
    log
        The ledger that holds it.
    actor
        Who changes are recorded as.
    clock
        What time changes are recorded at.
    """

    def __init__(self, log: EventLog, *, actor: str, clock: Clock = SYSTEM) -> None:
        self.log = log
        self.actor = actor
        self._clock = clock
        self._lock = threading.RLock()
        self._cut: Cut = START
        self._state = CatalogState()
        log.create(STREAM)

    @property
    def known(self) -> CatalogState:
        """The state as it was when it was looked at last; asks nobody."""
        return self._state

    def refresh(self) -> CatalogState:
        """Fold what was appended since the last call; return the state now."""
        with self._lock:
            end = self.log.end(STREAM.name)
            if end != self._cut:
                folding, cut = Folding(self._state), self._cut
                for batch in self.log.read(STREAM, start=cut, end=end):
                    folding.take(_events(batch.rows))
                    cut = cut.advanced([batch.end])
                self._state, self._cut = folding.state(), cut
            return self._state

    def record(
        self,
        kind: str,
        name: str,
        body: Mapping[str, Any],
        *,
        check: Callable[[CatalogState], bool | None] | None = None,
        actor: str | None = None,
    ) -> CatalogState:
        """Append one event, if `check` has nothing against it in the very state it lands on.

        Parameters
        ----------
        check
            Called with the state the event would follow; raises to refuse, returns False to
            leave it (somebody did the same already). Called again after each lost race.

        Raises
        ------
        ConflictError
            If the race was lost too often.
        """
        with self._lock:
            for _ in range(_ATTEMPTS_MAX):
                state = self.refresh()
                if check is not None and check(state) is False:
                    return state
                row = {
                    "kind": kind,
                    "name": name,
                    "body": json.dumps(body, sort_keys=True),
                    "actor": actor or self.actor,
                    "at": from_us(self._clock.now_us()),
                }
                schema = {n: t.polars for n, t in STREAM.columns}
                try:
                    self.log.append(STREAM, pl.DataFrame([row], schema=schema), expected=self._cut)
                except ConflictError:
                    continue
                return self.refresh()
        raise ConflictError(
            "The catalog changed too fast to be changed.",
            found=f"{_ATTEMPTS_MAX} lost races",
            remedy="try again",
        )


def _events(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    for row in rows.select("kind", "name", "body", "actor", "at").iter_rows(named=True):
        at, text = row["at"], row["body"]
        assert isinstance(at, datetime)
        try:
            body = json.loads(text)
        except (ValueError, TypeError):
            body = None
        # Something else wrote to the catalog's stream? That must not close it to everybody.
        if isinstance(body, dict):
            yield {**row, "body": body, "text": text}
