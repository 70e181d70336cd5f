"""An entity's online values as a widget, read again every second."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.explanation import key_of
from fs_notebook.jupyter.values import show
from fs_notebook.jupyter.widgets.figures import Json, number_of
from fs_notebook.jupyter.widgets.panel import TEXT_CHARS_MAX, Panel, action, script, synced
from fs_notebook.online.serve import FeatureReader
from fs_notebook.types import type_of

if TYPE_CHECKING:
    from fs_notebook.online.vector import FeatureVector
    from fs_notebook.session import Session

POLL_S = 1.0
HISTORY_MAX = 300
FEATURES_MAX = 50


def entity_of(session: Session, features: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Return the entity that is given as texts, ``["user=u7"]``, as the features' key has it."""
    name = features[0].partition("@")[0] if features else ""
    group = session.catalog.refresh().group(name)
    definition = group.latest if group.serving is None else group.serving.definition
    return key_of(definition.plan, [text[:TEXT_CHARS_MAX] for text in texts])


class LiveValue(Panel):
    """An entity's values now. See `fs.live_value`.

    Attributes
    ----------
    vector
        What was read last.
    """

    _esm = script("live")

    entity = synced([])
    """The key, and the request's values: [name, text]."""
    values = synced([])
    """A value each: `feature`, `type`, `version`, `status`, `text`, `newest_us`, `history`."""
    at_us = synced(0)
    """The time that the values are of, in microseconds since the epoch."""
    paused = synced(False)
    notices = synced([])

    def __init__(
        self, features: str | Sequence[str], entity: Mapping[str, Any], *,
        session: Session | None = None,
    ) -> None:  # fmt: skip
        self._features = [features] if isinstance(features, str) else list(features)
        self._entity = dict(entity)
        self._history: dict[str, deque[tuple[int, float]]] = {}
        self._reader: FeatureReader | None = None
        self.vector: FeatureVector | None = None
        super().__init__(session, every_s=POLL_S)
        try:
            self._read()
        except FeatureStoreError:
            self.close()
            raise

    def _read(self) -> None:
        store, clock = self.session.store, self.session.clock
        if self._reader is None or self._reader.store is not store:
            # A reader of its own, that notes no use: a display of values is nobody's model.
            self._reader = FeatureReader(store, clock=clock)
        lists = [n for n, v in self._entity.items() if isinstance(v, (list, tuple))]
        if lists:
            raise UsageError(
                "One entity is shown.", found=f"a list for {', '.join(lists)}",
                remedy=f"{lists[0]}=… with a single value",
            )  # fmt: skip
        found = self._reader.read(self._features, **self._entity)
        if len(found.features) > FEATURES_MAX:
            raise UsageError(
                f"At most {FEATURES_MAX} values are shown.", found=str(len(found.features)),
                remedy="fewer features",
            )  # fmt: skip
        self.vector = found
        self.show(
            entity=[[n, show(v, grouped=False)] for n, v in self._entity.items()],
            values=[self._value(found, f) for f in found.features], at_us=found.at_us,
            notices=list(found.notices),
        )  # fmt: skip

    def _value(self, found: FeatureVector, feature: str) -> Json:
        value = found.columns[feature][0]
        owner = found.owners[feature]
        past = self._history.setdefault(feature, deque(maxlen=HISTORY_MAX))
        number = number_of(value)
        if number is not None:
            if len(past) > 1 and past[-1][1] == past[-2][1] == number:
                # Of a value that stays, where it began and where it is now are all of the line.
                past.pop()
            past.append((found.at_us, number))
        return {
            "feature": feature, "group": owner,
            "type": type_of(found.schema[feature], column=feature).value,
            "version": found.versions[owner], "status": found.status_of(feature)[0],
            "text": show(value), "newest_us": found.newest_us[owner][0], "history": list(past),
        }  # fmt: skip

    def tick(self) -> None:
        if not self.paused:
            self._read()

    @action(on=bool)
    def pause(self, on: bool) -> None:
        """Stop reading, or go on."""
        self.show(paused=on)
        if not on:
            self._read()

    @action(texts=list)
    def look_at(self, texts: list[Any]) -> None:
        """Show another entity: its key as texts, ``["user=u7"]``."""
        if self.vector is None or not all(isinstance(t, str) for t in texts):
            return
        former, history = self._entity, self._history
        self._entity = {**former, **entity_of(self.session, list(self.vector.features), texts)}
        self._history = {}
        try:
            self._read()
        except FeatureStoreError:
            self._entity, self._history = former, history
            raise

    def __repr__(self) -> str:
        key = ", ".join(f"{n}={v}" for n, v in self.entity)
        lines = [f"{v['feature']} v{v['version']}: {v['text']} ({v['status']})"
                 for v in self.values]  # fmt: skip
        return "\n".join([key, *lines])
