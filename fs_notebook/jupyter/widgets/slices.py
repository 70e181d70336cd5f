"""A stream's history as a widget: its events over time, and a brush for the slice to preview."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from fs_notebook.catalog.lineage import streams_of
from fs_notebook.clock import from_us, to_us
from fs_notebook.compute.preview import OnProgress
from fs_notebook.errors import FeatureStoreError, UsageError, unknown_name
from fs_notebook.jupyter.values import count, moment
from fs_notebook.jupyter.widgets.figures import preview_json
from fs_notebook.jupyter.widgets.panel import Panel, action, script, synced

if TYPE_CHECKING:
    from fs_notebook.compute.preview import Preview
    from fs_notebook.session import Session
    from fs_notebook.timelines import Timeline


class SlicePicker(Panel):
    """A slice of a stream's history. See `fs.slice_picker`.

    Attributes
    ----------
    result
        The preview that the widget made last, None before.
    """

    _esm = script("slices")

    stream = synced("")
    timeline = synced(None)
    """The histogram: `start_us`, `step_us`, `counts`, `note`."""
    chosen = synced(None)
    """The slice: `from_us`, `to_us`, `events` about in it, `text` that says so; None: all of it."""
    features = synced([])
    feature = synced("")
    shown = synced(None)
    """The preview that was made last."""

    def __init__(
        self, stream: str, feature: str | None = None, *, session: Session | None = None
    ) -> None:
        self._timeline: Timeline | None = None
        self.result: Preview | None = None
        super().__init__(session, stream=stream)
        try:
            self._open(stream, feature)
        except FeatureStoreError:
            self.close()
            raise

    def _open(self, stream: str, feature: str | None) -> None:
        session = self.session
        session.source(stream)
        state = session.catalog.refresh()
        names = [n for n, g in sorted(state.groups.items()) if stream in streams_of(g.latest)]
        if feature is not None:
            name = state.group(feature).name
            if name not in names:
                raise UsageError(
                    f"{name!r} does not read {stream!r}.",
                    found=", ".join(streams_of(state.group(name).latest)),
                    remedy=f"one of {', '.join(names)}" if names else "the stream that it reads",
                )
        self.show(features=names, feature=name if feature is not None else (names or [""])[0])
        self.begin("looking at the stream", self._look)

    def _look(self, report: OnProgress) -> None:
        found = self.session.timeline(self.stream, on_progress=report)
        self._timeline = found
        self.show(timeline=found.to_dict())
        if self.chosen is not None:
            self._choose(self.chosen["from_us"], self.chosen["to_us"])

    @property
    def value(self) -> dict[str, datetime]:
        """The slice as a preview takes it, ``from_`` and ``to``, UTC; empty where it is all."""
        known = self.chosen
        if known is None:
            return {}
        return {"from_": from_us(known["from_us"]), "to": from_us(known["to_us"])}

    @value.setter
    def value(self, slice: dict[str, datetime]) -> None:
        if not slice:
            self.show(chosen=None)
        else:
            self._choose(to_us(slice["from_"]), to_us(slice["to"]))

    @action(from_us=int, to_us=int)
    def brush(self, from_us: int, to_us: int) -> None:
        """Choose the events with time in [from, to)."""
        self._choose(from_us, to_us)

    def _choose(self, from_: int, to: int) -> None:
        if from_ >= to:
            raise UsageError(
                "The slice is empty: it ends before it begins.",
                found=f"{from_us(from_)} to {from_us(to)}", remedy="a beginning before the end",
            )  # fmt: skip
        events = None if self._timeline is None else self._timeline.within(from_, to)
        begin, end = moment(from_us(from_)), moment(from_us(to))
        self.show(chosen={
            "from_us": from_, "to_us": to, "events": events,
            "text": f"--from {begin.replace(' ', 'T')} --to {end.replace(' ', 'T')}",
        })  # fmt: skip

    @action()
    def whole(self) -> None:
        """Choose all of the history."""
        self.show(chosen=None)

    @action()
    def again(self) -> None:
        """Look at the stream again: events may have arrived."""
        self.begin("looking at the stream", self._look)

    @action(name=str)
    def preview(self, name: str) -> None:
        """Preview a feature over the slice."""
        names = self.features
        if name not in names:
            raise unknown_name(f"feature over {self.stream!r}", name, names,
                               remedy="%%feature defines one")  # fmt: skip
        chosen = self.value
        self.show(feature=name, shown=None)
        self.begin("replaying", lambda report: self._preview(name, chosen, report))

    def _preview(self, name: str, chosen: dict[str, Any], report: OnProgress) -> None:
        self.result = self.session.preview(name, on_progress=report, **chosen)
        self.show(shown=preview_json(self.result))

    def __repr__(self) -> str:
        drawn = self.stream if self._timeline is None else repr(self._timeline)
        known = self.chosen
        if known is None:
            return f"{drawn}\nall of it"
        events = "" if known["events"] is None else f", about {count(known['events'])} events"
        return f"{drawn}\n{known['text']}{events}"
