"""What there is to see of a feature's values: now, against training, over time; and its health."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import polars as pl

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.catalog.model import Definition, Group, Version, definition_of
from fs_notebook.catalog.recipes import SavedTrainingSet
from fs_notebook.clock import Clock, from_us
from fs_notebook.comparison.reading import Online, least
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import OnProgress, Preview, Slice, preview, silent
from fs_notebook.errors import plain
from fs_notebook.log.protocol import EventLog
from fs_notebook.model.card import card, count, percent
from fs_notebook.model.spread import Spread, spread_of
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.views import status_of
from fs_notebook.worker.metrics import lag_seconds
from fs_notebook.worker.shared import joined_health, joined_info, stored_shards

ENTITIES = 1_000
"""Of so many entities at most the values are looked at."""
PAST_ENTITIES = 40
PAST_MOMENTS = 24
PAST_EVENTS_MAX = 500_000
"""Of longer histories how a feature moved in time is drawn when it is asked for."""


@dataclass(frozen=True)
class Health:
    """How one version that is kept current is doing.

    Attributes
    ----------
    state, serving, lag, rate, events, progress, position, error
        As a `Status` tells them.
    lag_s
        How old the newest folded event is where others wait behind it, in seconds; 0 where none
        does, None where it is not known.
    folded_at
        When the newest event of the last commit was published, UTC.
    reported_at
        When its worker spoke last, UTC.
    """

    version: int
    serving: bool
    state: str
    lag: int | None
    lag_s: float | None
    rate: float | None
    events: int
    progress: float | None
    position: str | None
    error: str | None
    folded_at: datetime | None
    reported_at: datetime | None
    verified: str | None = None
    tries: str | None = None

    def __repr__(self) -> str:
        serves = " (serving)" if self.serving else ""
        late = "" if self.lag_s is None else f", {self.lag_s:.1f} s"
        error = f", error: {self.error}" if self.error else ""
        return (
            f"v{self.version} {self.state}{serves}, lag {self.lag}{late}, {self.events:,} events, "
            f"at {self.position}{error}"
        )


@dataclass(frozen=True)
class Likeness:
    """One feature's values now, beside those that a model learnt of.

    Attributes
    ----------
    values
        The values now, one an entity.
    now, then
        Their spread, and that of the training set over the same bins; None where it is not known.
    psi
        How far apart they are, in nats; above 0.25 a distribution is said to have shifted.
    training
        The training set's name.
    beyond
        The share of values now that lie beyond what was seen in training, but for its outliers.
    ks, js
        The Kolmogorov-Smirnov statistic, and the Jensen-Shannon divergence in bits, both from 0 to
        1 and over the same bins: see `model.spread.Spread`.
    """

    feature: str
    type: str
    values: pl.Series
    now: Spread | None
    then: Spread | None
    psi: float | None
    training: str | None
    beyond: float = 0.0
    ks: float | None = None
    js: float | None = None

    @property
    def median(self) -> float | None:
        """The median of the values now, of what are finite numbers."""
        return _median(self.values)

    @property
    def drift(self) -> tuple[str, ...]:
        """The three measures of how far apart they are, as text; empty where nothing is known."""
        measures = (self.psi, self.ks, self.js)
        return tuple("" if m is None else f"{m:.3f}" for m in measures)

    def drawn(self) -> tuple[Spread | None, Spread | None]:
        """Return the spread now and in training over bins that hold most of both."""
        if self.then is None:
            return self.now, None
        then = self.then.wider(self.values)
        return then.again(self.values), then

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`: spreads instead of values; edges of times in µs."""
        now, then = self.drawn()
        return {
            "feature": self.feature, "type": self.type, "values": self.values.len(),
            "nulls": self.values.null_count(), "median": self.median,
            "now": None if now is None else now.to_dict(),
            "then": None if then is None else then.to_dict(),
            "psi": self.psi, "ks": self.ks, "js": self.js, "training": self.training,
            "beyond": self.beyond,
        }  # fmt: skip


@dataclass(frozen=True)
class Past:
    """One feature over time: quartiles of some entities' values at equally distant moments."""

    feature: str
    at: tuple[datetime, ...]
    low: tuple[float | None, ...]
    median: tuple[float | None, ...]
    high: tuple[float | None, ...]
    entities: int

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`: times as ISO texts."""
        return {
            "feature": self.feature, "at": [t.isoformat() for t in self.at],
            "low": list(self.low), "median": list(self.median), "high": list(self.high),
            "entities": self.entities,
        }  # fmt: skip

    def __repr__(self) -> str:
        known = [(t, m) for t, m in zip(self.at, self.median, strict=True) if m is not None]
        if not known:
            return f"{self.feature}: no numbers"
        (first, low), (last, high) = known[0], known[-1]
        return (
            f"{self.feature}: median {low:g} at {first:%Y-%m-%d %H:%M}, {high:g} at "
            f"{last:%Y-%m-%d %H:%M} UTC, of {self.entities:,} entities"
        )


@dataclass(frozen=True)
class Portrait:
    """A group's values now, each feature beside the newest training set that has it.

    `what` says which values these are; `notes` what is not known, and what to do about it.
    """

    name: str
    what: str
    likenesses: tuple[Likeness, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "name": self.name, "what": self.what, "notes": list(self.notes),
            "features": [one.to_dict() for one in self.likenesses],
        }  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"{self.name}: {self.what}"]
        for one in self.likenesses:
            measures = zip(("PSI", "KS", "JS"), one.drift, strict=True)
            told = ", ".join(f"{name} {m}" for name, m in measures if m)
            against = f", {told} against {one.training}" if told else ""
            middle = "" if one.median is None else f", median {one.median:g}"
            lines.append(
                f"  {one.feature} {one.type}: {one.values.len():,} values{middle}{against}"
            )
        return "\n".join(map(plain, [*lines, *(f"note: {n}" for n in self.notes)]))

    def _repr_html_(self) -> str:
        headings = ("feature", "type", "values", "median", "against", "PSI", "KS", "JS", "beyond")
        rows = [
            (
                one.feature, one.type, count(one.values.len()),
                "" if one.median is None else f"{one.median:g}", one.training or "", *one.drift,
                "" if one.then is None else percent(one.beyond),
            )
            for one in self.likenesses
        ]  # fmt: skip
        return card(
            f"Values of {self.name}", [], subtitle=self.what, notes=self.notes,
            tables=[(headings, rows)],
        )  # fmt: skip


def _median(values: pl.Series) -> float | None:
    """Return the median of what are finite numbers; None where there is none."""
    if not values.dtype.is_numeric():
        return None
    numbers = values.cast(pl.Float64, strict=False)
    found = numbers.filter(numbers.is_finite()).median()
    return found if isinstance(found, float) else None


def history_events(log: EventLog, group: Group) -> int | None:
    """Return how many events a group's history has, where the ledger counts them."""
    facts = getattr(log, "facts", None)
    counts: list[Any] = [
        None if facts is None else facts(s).events for s in streams_of(group.latest)
    ]
    return None if None in counts else sum(counts)


class PortraitCalls:
    """The methods of a `Session` that tell how a feature's values and its worker are."""

    catalog: Catalog
    clock: Clock
    log: EventLog
    store: OnlineStore

    def health(self, name: str) -> list[Health]:
        """Return how each version of a group that is kept current is doing, the newest last."""
        group = self.catalog.refresh().group(name)
        return [self._health(group, version) for version in group.running]

    def _health(self, group: Group, version: Version) -> Health:
        status = status_of(group, version, self.store)
        folded_us = at_us = None
        if isinstance(version.definition, Definition):
            parts = stored_shards(self.store, version.definition.shard)
            folded_us = joined_info(self.store, parts).get("published")
            at_us = joined_health(self.store, parts).get("at_us")
        return Health(
            version=version.number, serving=status.serving, state=status.state, lag=status.lag,
            lag_s=lag_seconds(status.lag, folded_us, self.clock.now_us()), rate=status.rate,
            events=status.events, progress=status.progress, position=status.position,
            error=status.error, folded_at=None if folded_us is None else from_us(folded_us),
            reported_at=None if at_us is None else from_us(at_us),
            verified=status.verified, tries=status.tries,
        )  # fmt: skip

    def portrait(self, name: str, *, on_progress: OnProgress = silent) -> Portrait:
        """Return a group's values now, each feature beside the newest training set that has it.

        Of a version that serves these are the online values of a thousand entities at most, with
        no replay; of any other group those of a preview's sample.
        """
        state = self.catalog.refresh()
        group = state.group(name)
        serving = group.serving
        definition = group.latest
        if serving is not None and isinstance(serving.definition, Definition):
            frame, what = self._online(serving, serving.definition)
            definition = serving.definition
        else:
            shown = self._sampled(group.name, on_progress)
            frame = shown.frame
            what = f"previewed values of {shown.entities:,} entities"
        kinds = {o.name: o.type.value for o in definition.plan.outputs}
        found, notes = [], list[str]()
        for feature in definition.plan.features:
            saved = _newest_with(state, feature, definition.fingerprint)
            kept = None if saved is None else saved.recipe.spreads.get(feature)
            then = None if kept is None else Spread.from_dict(kept)
            found.append(_likeness(feature, kinds[feature], frame[feature], saved, then))
            if saved is not None:
                notes += _training_notes(saved, feature, then, group, definition.fingerprint)
        if all(one.training is None for one in found):
            notes.append(
                "No training set in the catalog has it: fs.training_set(labels, "
                f"[{group.name!r}], name=…) keeps one."
            )
        return Portrait(group.name, what, tuple(found), tuple(notes))

    def _sampled(self, name: str, on_progress: OnProgress) -> Preview:
        # A part of the session: what it previews is the whole's to say.
        shown: Preview = cast(Any, self).preview(name, sample=ENTITIES, on_progress=on_progress)
        return shown

    def _online(self, version: Version, definition: Definition) -> tuple[pl.DataFrame, str]:
        """Return some entities' online values, and what they are."""
        side = Online(self.store, version, definition, self.clock.now_us())
        keys, known = least(side.keys(), ENTITIES)
        _, _, values = side.values(keys)
        frame = pl.DataFrame(
            list(values.values()),
            schema={o.name: o.type.polars for o in definition.plan.outputs}, orient="row",
        )  # fmt: skip
        of = "all" if known <= ENTITIES else f"{frame.height:,} of"
        return frame, f"online values of {of} {known:,} entities"

    def past(self, name: str, *, on_progress: OnProgress = silent) -> tuple[Past, ...]:
        """Return how a group's numbers moved over the stream's history.

        Forty entities' values at 24 moments, each as a training row would have it: one replay.
        Features that are no numbers are left out.
        """
        from fs_notebook.model.asked import Chosen
        from fs_notebook.model.derived import training_set_of

        group = self.catalog.refresh().group(name)
        definition = group.latest if group.serving is None else group.serving.definition
        kinds = {o.name: o.type for o in definition.plan.outputs}
        wanted = tuple(f for f in definition.plan.features if kinds[f].polars.is_numeric())
        if not wanted or not isinstance(definition, Definition):
            return ()
        shown = preview(
            group.name, definition.plan, definition.source,
            joined_log(definition.plan, definition.joined, self.log, filtered=True),
            clock=self.clock, where=Slice(sample=PAST_ENTITIES), on_progress=on_progress,
        )  # fmt: skip
        if shown.first is None or shown.last is None:
            return ()
        keys = shown.frame.select(shown.frame.columns[: len(definition.plan.entity)])
        moments = _moments(shown.first, shown.last)
        labels = keys.join(pl.DataFrame({"__at": moments}), how="cross")
        made = training_set_of(
            labels, [Chosen(definition, wanted)], self.log, time="__at", clock=self.clock,
            on_progress=on_progress,
        )  # fmt: skip
        return tuple(_past(made.frame, feature, moments, keys.height) for feature in wanted)


def _newest_with(state: CatalogState, feature: str, fingerprint: str) -> SavedTrainingSet | None:
    """Return the newest training set with a feature, of this very definition if there is one."""
    having = [s for s in state.training_sets.values() if feature in s.recipe.columns]
    return max(having, key=lambda s: (_made_of(s, feature) == fingerprint, s.at), default=None)


def _made_of(saved: SavedTrainingSet, feature: str) -> str | None:
    """Return the fingerprint of the definition that a column of a training set is of."""
    wanted = (w["definition"] for w in saved.recipe.wanted if feature in w["features"])
    return next((definition_of(d).fingerprint for d in wanted), None)


def _training_notes(
    saved: SavedTrainingSet, feature: str, then: Spread | None, group: Group, fingerprint: str
) -> Iterator[str]:
    """Yield what a reader must know of the training set that values are compared with."""
    if then is None:
        yield (
            f"How {feature} was spread in {saved.name!r} is not known: it is a list, or the set is "
            f"of before spreads were kept; fs.training_set_again({saved.name!r}) has its values."
        )
    made_of = _made_of(saved, feature)
    if made_of is not None and made_of != fingerprint:
        version = group.by_fingerprint(made_of)
        what = "another definition" if version is None else f"v{version.number}"
        yield f"{saved.name!r} learnt of {what} of {feature}, not of what is shown."


def _likeness(
    feature: str, kind: str, values: pl.Series, saved: SavedTrainingSet | None,
    then: Spread | None,
) -> Likeness:  # fmt: skip
    now = spread_of(values) if then is None else then.again(values)
    name = None if saved is None else saved.name
    if then is None or now is None:
        return Likeness(feature, kind, values, now, then, None, name)
    return Likeness(
        feature, kind, values, now, then, then.psi(now), name, then.beyond(values), then.ks(now),
        then.js(now),
    )  # fmt: skip


def _moments(first: datetime, last: datetime) -> list[datetime]:
    """Return equally distant moments, the last one just after the last event."""
    step = (last - first) / PAST_MOMENTS
    if step < timedelta(microseconds=1):
        return [last + timedelta(microseconds=1)]
    return [first + n * step for n in range(1, PAST_MOMENTS)] + [last + timedelta(microseconds=1)]


def _past(
    frame: pl.DataFrame, feature: str, moments: Sequence[datetime], entities: int
) -> Past:  # fmt: skip
    value = pl.col(feature).cast(pl.Float64)
    by_time = (
        frame.filter(value.is_finite())
        .group_by("__at")
        .agg(
            low=value.quantile(0.25, "linear"),
            median=value.median(),
            high=value.quantile(0.75, "linear"),
        )
    )
    known = {row[0]: row[1:] for row in by_time.iter_rows()}
    rows = [known.get(at, (None, None, None)) for at in moments]
    low, median, high = zip(*rows, strict=True)
    return Past(feature, tuple(moments), low, median, high, entities)
