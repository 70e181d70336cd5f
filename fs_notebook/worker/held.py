"""States that a worker holds between commits, so that history reads and writes each one seldom.

They are what the store would have at the position up to which they are folded. Nothing of them
is ever relied on after an error: whoever meets one drops them, and reads back what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from fs_notebook.compute.fold import Fold, Folded, State
from fs_notebook.online.protocol import Lease
from fs_notebook.online.states import StateCodec, is_bucket
from fs_notebook.position import START

ROWS_MAX = 300_000
"""Of entities and of their recent events; with a batch's, what one commit takes (`PUTS_MAX`)."""
BYTES_MAX = 256 * 2**20

Load = Callable[[Sequence[bytes]], list[bytes | None]]


class Held:
    """The states of some entities, as folded so far, and the position of that.

    Parameters
    ----------
    fold, codec
        What is folded, and how its states are stored.
    lease
        Where the store is.
    is_all
        Whether nothing is stored: then an entity that is not here has no state.

    Attributes
    ----------
    cut
        The position up to which is folded.
    info
        The counters as of there, to be committed with it.
    """

    def __init__(self, fold: Fold, codec: StateCodec, lease: Lease, *, is_all: bool) -> None:
        self.fold = fold
        self.codec = codec
        self.is_all = is_all
        self.cut = lease.cut or START
        self.info: dict[str, Any] = dict(lease.info)
        self._forget()

    def _forget(self) -> None:
        self._state = self._before = self.fold.empty
        self._touched: list[pl.DataFrame] = []
        self._frame = pl.DataFrame()

    @property
    def is_full(self) -> bool:
        """Whether this is to be committed and forgotten before more is folded in.

        A bucket's events are written by the commit of the very rows that touch it.
        """
        state = self._state
        parts = (state.lifetime, state.recent)
        return (
            state.buckets is not None
            or sum(part.height for part in parts) > ROWS_MAX
            or sum(part.estimated_size() for part in parts) > BYTES_MAX
        )

    def add(self, frame: pl.DataFrame, load: Load) -> tuple[Folded, int]:
        """Fold projected rows in, and return what that did, and how many entities are new.

        `load` gives the stored values of entities that are not here, and of their buckets.
        """
        partial = self.fold.partial(frame)
        touched = partial.select(self.fold.keys)
        keys: list[bytes] = []
        loaded = self.fold.empty
        if not self.is_all:
            lacking = touched
            if self._state.lifetime.height:
                lacking = touched.join(self._state.lifetime, on=self.fold.keys, how="anti")
            keys = self.codec.keys_of(lacking)
            stored = load(keys)
            loaded = self.codec.decode(keys, stored)
            if needed := self.codec.needed(loaded, frame):
                loaded = self.codec.with_buckets(loaded, needed, load(needed))
        self._before = self._with(loaded)
        folded = self.fold.add_projected(self._before, frame, partial)
        fresh = folded.state.lifetime.height - self._before.lifetime.height
        self._state = folded.state
        self._touched.append(touched)
        if sum(some.height for some in self._touched) > 2 * self._state.lifetime.height:
            # Batches touch much the same entities, and there may be many before a commit.
            self._touched = [pl.concat(self._touched).unique()]
        self._frame = frame
        return folded, fresh

    def _with(self, loaded: State) -> State:
        held = self._state
        if not held.lifetime.height:
            return loaded
        return State(
            pl.concat([held.lifetime, loaded.lifetime]),
            pl.concat([held.recent, loaded.recent]),
            loaded.buckets,
        )

    def changes(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return what to put and what to delete, so that the store has what is held."""
        keys, after = self.fold.keys, self._state
        touched = pl.concat(self._touched)
        if len(self._touched) > 1:
            touched = touched.unique()
        if touched.height < after.lifetime.height:
            after = State(
                after.lifetime.join(touched, on=keys, how="semi", maintain_order="left"),
                after.recent.join(touched, on=keys, how="semi", maintain_order="left"),
                after.buckets,
            )
        puts, deletes = self.codec.changes(self._before, after, self._frame)
        assert len(puts) >= touched.height
        return puts, deletes

    def settle(self, puts: Iterable[bytes]) -> None:
        """Take note that the changes were committed, and forget all if it has become too much."""
        self._touched = []
        if self.is_full or any(map(is_bucket, puts)):
            self.is_all = False
            self._forget()
