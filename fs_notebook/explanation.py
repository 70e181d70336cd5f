"""`explain`: the events behind one entity's value, replayed from the ledger.

The value is that of the one fold, over the entity's events alone; which events a window holds is
told by the windows' own rule. Nothing here has semantics of its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.model import Definition, DerivedDefinition
from fs_notebook.clock import Clock, from_us
from fs_notebook.compute.asof import values_at
from fs_notebook.compute.fold import NEWEST, Fold
from fs_notebook.compute.joins import joined_log
from fs_notebook.compute.preview import OnProgress, Progress, parse_moment, silent
from fs_notebook.compute.requests import parse_request
from fs_notebook.errors import UsageError
from fs_notebook.inspection import plain_table
from fs_notebook.language.derived import AnyPlan
from fs_notebook.language.expr import Column
from fs_notebook.language.pinning import shown
from fs_notebook.log.protocol import POSITION_COLUMNS, PUBLISHED, EventLog
from fs_notebook.online.codec import pack_key
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.online.serve import coerced
from fs_notebook.online.states import StateCodec
from fs_notebook.position import START, Cut, Way
from fs_notebook.types import ORDER, TIME, Type
from fs_notebook.worker.verify import merged_of, same

EVENTS_SHOWN_MAX = 10_000


@dataclass(frozen=True, repr=False)
class Explanation:
    """What one entity's value is made of.

    Attributes
    ----------
    name, version, entity
        Of which group, which version (None: its draft), and of whom, ``"user=u7"``.
    at
        The t at which windows end, UTC.
    position
        How far the ledger was read: the worker's own position where there is one.
    events
        The newest events: ``position``, ``published``, ``time``, the arguments of the aggregates
        and, for each window, whether it holds the event.
    total
        How many events the entity has up to `position`, those that are not shown among them.
    held
        Window → how many of them it holds at `at`.
    values
        Feature → the value that follows from the events.
    online
        Feature → the value that is stored online, finished at the same t; None where it cannot
        be compared: another time was asked for, or nothing is online.
    inputs
        Of a derived group, which has no events of its own: what it is derived from.
    """

    name: str
    version: int | None
    entity: str
    at: datetime
    position: str
    events: pl.DataFrame
    total: int
    held: Mapping[str, int]
    values: Mapping[str, Any]
    online: Mapping[str, Any] | None = None
    inputs: tuple[Explanation, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no value differs from the online one."""
        mine = self.online is None or all(same(v, self.online[n]) for n, v in self.values.items())
        return mine and all(part.ok for part in self.inputs)

    @property
    def extent(self) -> str:
        """How many of the events are shown, in words."""
        if self.events.height == self.total:
            return f"all {self.total:,}"
        return f"the newest {self.events.height:,} of {self.total:,}"

    def figures(self) -> list[tuple[str, str]]:
        """Return what there is to say beside values and events, by name."""
        version = "draft" if self.version is None else f"v{self.version}"
        at = ("at, UTC", f"{self.at:%Y-%m-%d %H:%M:%S.%f}")
        if self.inputs:
            names = ", ".join(part.name for part in self.inputs)
            return [("version", version), at, ("computed when read from", names)]
        held = [
            (window, f"{count:,} of {self.total:,} events") for window, count in self.held.items()
        ]
        return [("version", version), at, ("ledger read to", self.position), *held]

    def compared(self) -> list[tuple[str, Any, Any]]:
        """Return each feature with its value and what is online of it."""
        online = self.online
        return [
            (name, value, "not compared" if online is None else
             "equal" if same(value, online[name]) else online[name])
            for name, value in self.values.items()
        ]  # fmt: skip

    def __repr__(self) -> str:
        head = ", ".join(f"{name} {text}" for name, text in self.figures())
        lines = [f"{self.name} of {self.entity}: {head}"]
        if self.inputs:
            return "\n\n".join([*lines, *map(repr, self.inputs)])
        lines += [plain_table(["feature", "value", "online"], self.compared())]
        if self.total:
            table = plain_table(self.events.columns, self.events.rows())
            lines += [f"events, {self.extent}:", table]
        else:
            lines += ["no events: the values are those of an entity that was never seen"]
        return "\n".join(lines)


class ExplainCalls:
    """The methods of a `Session` that explain values."""

    catalog: Catalog
    log: EventLog
    store: OnlineStore
    clock: Clock

    def explain(
        self,
        name: str,
        entity: Mapping[str, Any] | None = None,
        *,
        at: str | datetime | None = None,
        n: int = 20,
        on_progress: OnProgress = silent,
        **entities: Any,
    ) -> Explanation:
        """Return the events that make up one entity's value, and what follows from them.

        ``fs.explain("total_readtime", user="u7")``. The ledger is replayed up to the worker's own
        position, so that the value can be compared with what is online; all of the stream is
        read, the entity's events are held.

        Parameters
        ----------
        name
            A feature, or a group: the version that serves, else the newest definition.
        entity, **entities
            A value for each part of the key, by the entity's or the column's name.
        at
            The value as of this time, from the events before it; default: now, as it is served.
        n
            How many of the newest events to return, 0 to 10,000.

        Raises
        ------
        UsageError
            If the key is not whole, or a value is of another type.
        UnknownName
            If there is no such feature.
        """
        if not 0 <= n <= EVENTS_SHOWN_MAX:
            raise UsageError(
                f"explain shows 0 to {EVENTS_SHOWN_MAX:,} events.", found=str(n), remedy="n=20"
            )
        group = self.catalog.refresh().group(name)
        serving = group.serving
        definition = group.latest if serving is None else serving.definition
        version = None if serving is None else serving.number
        now_us = self.clock.now_us()
        moment_us = None if at is None else parse_moment(at, option="at")
        asked = _Asked(self, now_us, moment_us, n, on_progress)
        given = {**(entity or {}), **entities}
        if not isinstance(definition, DerivedDefinition):
            return asked.stored(definition, version, given)
        key = _key(definition.plan, {}, given)
        named = dict(zip(definition.plan.entity, key, strict=True))
        parts = []
        for wanted in definition.plan.inputs:
            pinned = definition.input(wanted.group, wanted.fingerprint)
            inner = dict(
                zip(pinned.plan.entity, (named[k] for k in wanted.keys), strict=True)
            )  # fmt: skip
            known = self.catalog.refresh().groups.get(pinned.name)
            found = None if known is None else known.by_fingerprint(pinned.fingerprint)
            number = None if found is None else found.number
            parts.append(asked.stored(pinned, number, inner))
        return Explanation(
            group.name, version, _told(named), from_us(now_us if moment_us is None else moment_us),
            "", pl.DataFrame(), 0, {}, {}, None, tuple(parts),
        )  # fmt: skip

    def explain_texts(
        self,
        name: str,
        entity: Sequence[str],
        *,
        at: str | None = None,
        n: int = 20,
        on_progress: OnProgress = silent,
    ) -> Explanation:
        """Return `explain` of an entity that is given as texts, ``["user=u7"]``."""
        group = self.catalog.refresh().group(name)
        plan = (group.latest if group.serving is None else group.serving.definition).plan
        given = key_of(plan, entity)
        return self.explain(name, given, at=at, n=n, on_progress=on_progress)


def key_of(plan: AnyPlan, texts: Sequence[str]) -> dict[str, Any]:
    """Return the values of an entity's key that is given as texts, ``["user=u7"]``, typed.

    Raises
    ------
    UsageError
        If a text is none of ``name=value``, or does not fit the key's type.
    """
    kinds = {k.name: k.expr.type for k in plan.keys}
    kinds |= {k.expr.name: k.expr.type for k in plan.keys if isinstance(k.expr, Column)}
    kinds |= {e: k.expr.type for e, k in zip(plan.entity, plan.keys, strict=True)}
    given: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in given:
            raise UsageError(
                "An entity has one value for each part of the key.", found=repr(text),
                remedy=" ".join(f"{e}=…" for e in plan.entity),
            )  # fmt: skip
        given[key] = _typed(value, kinds.get(key, Type.VARCHAR), key)
    return given


@dataclass(frozen=True)
class _Asked:
    """What is the same for all inputs of a derived group: one t, one bound."""

    session: ExplainCalls
    now_us: int
    moment_us: int | None
    n: int
    on_progress: OnProgress

    def stored(
        self, definition: Definition, version: int | None, given: Mapping[str, Any]
    ) -> Explanation:
        """Explain the value of a definition that folds a stream."""
        fold, plan = Fold(definition.plan), definition.plan
        key = _key(plan, {k.name: k.expr for k in plan.keys}, given)
        cut, online = self._online(definition, fold, key)
        rows, positions, published = self._replayed(definition, fold, key, cut)
        moment_us, values = self._values(fold, rows, key)
        held = {
            str(w): fold.counted(rows, w, moment_us)
            for w in dict.fromkeys(a.window for a in plan.aggregations)
        }
        order = rows.select(TIME).with_row_index("__row").sort(TIME, maintain_order=True)["__row"]
        newest = order.reverse().head(self.n)
        return Explanation(
            name=definition.name, version=version,
            entity=_told(dict(zip(plan.entity, key, strict=True))), at=from_us(moment_us),
            position=str(cut), total=rows.height, values=values, online=online,
            held={window: int(mask.sum()) for window, mask in held.items()},
            events=_events(fold, rows, positions, published, held)[newest],
        )  # fmt: skip

    def _online(
        self, definition: Definition, fold: Fold, key: tuple[Any, ...]
    ) -> tuple[Cut, Mapping[str, Any] | None]:
        """Return the position to read to, and what is stored there of the entity."""
        session, shard = self.session, definition.shard
        cut, found = merged_of(session.store, shard, [pack_key(key)], StateCodec(fold), self.now_us)
        if not cut.positions:
            return session.log.end(definition.source.name), None
        if self.moment_us is not None:
            return cut, None
        if not found.lifetime.height:
            return cut, fold.empty_values()
        frame = fold.values(found, now_us=self.now_us)
        return cut, frame.select(fold.plan.features).row(0, named=True)

    def _replayed(
        self, definition: Definition, fold: Fold, key: tuple[Any, ...], cut: Cut
    ) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
        """Return the entity's projected events in log order, with positions and publish times."""
        found = list(self._batches(definition, fold, key, cut))
        if not found:
            empty = pl.DataFrame(
                schema={TIME: pl.Int64, **fold.key_schema,
                        **{f"__x{i}": a.type.polars for i, a in enumerate(fold.args)},
                        **(dict.fromkeys(ORDER, pl.Int64) if fold.ordered else {})}
            )  # fmt: skip
            moments = pl.Series(PUBLISHED, [], dtype=pl.Datetime("us", "UTC"))
            return empty, pl.Series("position", [], dtype=pl.String), moments
        frames, positions, published = zip(*found, strict=True)
        return pl.concat(frames), pl.concat(positions), pl.concat(published)

    def _batches(
        self, definition: Definition, fold: Fold, key: tuple[Any, ...], cut: Cut
    ) -> Iterator[tuple[pl.DataFrame, pl.Series, pl.Series]]:
        session, way, read = self.session, Way(cut), 0
        log = joined_log(definition.plan, definition.joined, session.log, filtered=True)
        columns = [*dict.fromkeys([*definition.plan.columns, PUBLISHED])]
        begun_s, at = session.clock.monotonic_s(), START
        for batch in log.read(definition.source, start=START, end=cut, columns=columns):
            read, at = read + batch.rows.height, at.advanced([batch.end])
            mine = fold.rows_of(batch.rows, key)
            if mine.any():
                rows, places = batch.rows.filter(mine), batch.positions().filter(mine)
                frame, _ = fold.project(rows, lambda places=places: places)  # type: ignore[misc]
                assert frame.height == rows.height
                text = places.select(pl.concat_str(POSITION_COLUMNS, separator=":"))
                yield frame, text.to_series().alias("position"), rows[PUBLISHED]
            elapsed_s = session.clock.monotonic_s() - begun_s
            self.on_progress(Progress(way.share(at), read, elapsed_s, "replaying"))

    def _values(
        self, fold: Fold, rows: pl.DataFrame, key: tuple[Any, ...]
    ) -> tuple[int, Mapping[str, Any]]:
        """Return the t at which windows end, and the value of each feature there."""
        if self.moment_us is not None:
            schema = {**fold.key_schema, TIME: pl.Int64()}
            label = pl.DataFrame([[*key, self.moment_us]], schema=schema, orient="row")
            return self.moment_us, values_at(fold, rows, label).row(0, named=True)
        if rows.is_empty():
            return self.now_us, fold.empty_values()
        state = fold.add_projected(fold.empty, rows).state
        row = fold.values(state, now_us=self.now_us).row(0, named=True)
        moment_us = max(self.now_us, row[NEWEST] + 1)
        return moment_us, {name: row[name] for name in fold.plan.features}


def _events(
    fold: Fold,
    rows: pl.DataFrame,
    positions: pl.Series,
    published: pl.Series,
    held: Mapping[str, pl.Series],
) -> pl.DataFrame:
    times = rows[TIME].cast(pl.Datetime("us", "UTC")).alias("time")
    columns = [positions.alias("position"), published.alias("published"), times]
    columns += [rows[f"__x{i}"].alias(shown(fold.plan, a)) for i, a in enumerate(fold.args)]
    columns += [mask.alias(f"in {window}") for window, mask in held.items()]
    named: dict[str, pl.Series] = {}
    for column in columns:
        # An argument may be called as a column of ours.
        name = column.name
        while name in named:
            name += "'"
        named[name] = column.alias(name)
    return pl.DataFrame(list(named.values()))


def _key(plan: Any, exprs: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key's values, in its order and types."""
    left, key = dict(given), []
    for name, part in zip(plan.entity, plan.keys, strict=True):
        expr = exprs.get(part.name)
        others = (name, expr.name if isinstance(expr, Column) else part.name)
        found = next((o for o in others if o in left), None)
        value = None if found is None else left.pop(found)
        if value is None:
            raise UsageError(
                f"explain needs the whole key: {', '.join(plan.entity)}.",
                found=", ".join(given) or "nothing", remedy=f"explain(…, {name}=…)",
            )  # fmt: skip
        key.append(coerced(value, part.expr.type, name))
    if left:
        raise UsageError(
            f"The key has no part {', '.join(map(repr, left))}.",
            found=", ".join(given), remedy=" and ".join(f"{e}=…" for e in plan.entity),
        )  # fmt: skip
    return tuple(key)


def _told(key: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        shown = value.isoformat() if isinstance(value, date) else str(value)
        # Nothing that steers a terminal.
        return "".join("\ufffd" if unicodedata.category(c)[0] == "C" else c for c in shown)

    return ", ".join(f"{name}={text(value)}" for name, value in key.items())


def _typed(text: str, kind: Type, name: str) -> Any:
    if kind is Type.VARCHAR:
        return text
    try:
        return parse_request(text, kind, name)
    except UsageError:
        raise UsageError(f"{name!r} is a {kind}.", found=repr(text), remedy=f"{name}=…") from None
