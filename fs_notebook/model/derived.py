"""Training rows of derived features: their inputs as of each label's time, then the expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from fs_notebook.catalog.model import AnyDefinition, Definition, DerivedDefinition
from fs_notebook.clock import Clock
from fs_notebook.compute.derived import Derived
from fs_notebook.compute.preview import OnProgress, silent
from fs_notebook.compute.requests import request_column as typed_column
from fs_notebook.errors import UsageError, near_names
from fs_notebook.language.derived import entity_column, feature_column, request_column
from fs_notebook.language.plan import Key, Output
from fs_notebook.log.protocol import EventLog
from fs_notebook.model.asked import PLAIN, AsOf, Chosen
from fs_notebook.model.labels import check_entity, key_column, key_values, labels_frame
from fs_notebook.model.leaks import leaks_of
from fs_notebook.model.training import TrainingSet, build_training_set, check_names, shares
from fs_notebook.position import Cut

AnyWanted = Sequence[Chosen | tuple[AnyDefinition, tuple[str, ...]]]


def training_set_of(
    labels: Any,
    wanted: AnyWanted,
    log: EventLog,
    *,
    time: str | None = None,
    entity: Mapping[str, str] | None = None,
    clock: Clock,
    cuts: Mapping[str, Cut] | None = None,
    as_of: AsOf = PLAIN,
    on_progress: OnProgress = silent,
    build: Callable[..., TrainingSet] = build_training_set,
) -> TrainingSet:
    """Return the labels with each wanted feature, stored or derived, as of each label's time.

    Inputs of derived features are point-in-time joined like any feature; request values are the
    labels' columns of that name.

    Parameters
    ----------
    labels, log, time, entity, clock, cuts, as_of, on_progress
        As for `build_training_set`.
    wanted
        Definitions, each with those of its features that are wanted; one of a version that was
        named by its number gives columns that say so (``total@2``).
    build
        Joins the stored definitions: `build_training_set`, or what does the same otherwise.

    Raises
    ------
    UsageError
        If the labels lack a column of a request value, or its type is another.
    """
    chosen = [w if isinstance(w, Chosen) else Chosen(*w) for w in wanted]
    plain = [(c.definition, c.features) for c in chosen if isinstance(c.definition, Definition)]
    if len(plain) == len(chosen) and all(c.version is None for c in chosen):
        return noted(build(
            labels, plain, log, time=time, entity=entity, clock=clock, cuts=cuts, as_of=as_of,
            on_progress=on_progress,
        ))  # fmt: skip
    begun_s = clock.monotonic_s()
    frame = labels_frame(labels)
    features = check_names(frame, chosen)
    mapping = dict(entity or {})
    check_entity(mapping, [c.definition.plan for c in chosen])
    needs = _Needs(frame, mapping)
    for definition, names in plain:
        needs.add(definition, definition.plan.entity, names)
    parts = {
        c.name: _Part(c.definition, c.features, frame, mapping, needs)
        for c in chosen
        if isinstance(c.definition, DerivedDefinition)
    }
    base = build(
        labels, needs.wanted, log, time=time, entity=needs.entity, clock=clock, cuts=cuts,
        as_of=as_of, on_progress=on_progress,
    )  # fmt: skip
    columns: dict[str, pl.Series] = {}
    covered: dict[str, pl.Series] = {}
    read: dict[str, set[str]] = {}
    for one in chosen:
        if isinstance(one.definition, DerivedDefinition):
            part = parts[one.name]
            read |= dict.fromkeys(one.columns, part.joined)
            values, some = part.values(base.frame), part.covered(base)
            columns |= {c: values[f].alias(c) for f, c in one.named}
            covered |= dict.fromkeys(one.columns, some)
            continue
        for feature, column in one.named:
            name = needs.column(one.definition, one.definition.plan.entity, feature)
            columns[column] = base.frame.get_column(name).alias(column)
            read[column] = {name}
            covered[column] = base.covered[name]
    derived_keys = (c for p in parts.values() for c in p.key_columns)
    made = replace(
        base,
        frame=frame.hstack([columns[f] for f in features]),
        features=features,
        keys=tuple(dict.fromkeys((*base.keys, *derived_keys))),
        versions={c.name: c.definition.fingerprint for c in chosen},
        seconds=clock.monotonic_s() - begun_s,
        coverage=shares(covered),
        late=tuple(
            replace(
                late, features=tuple(c for c, r in read.items() if not r.isdisjoint(late.features))
            )
            for late in base.late
        ),
        same_time={needs.group_of(name): share for name, share in base.same_time.items()},
        covered=covered,
        chosen=tuple(chosen),
        entity=mapping,
    )
    return noted(made)


def noted(made: TrainingSet) -> TrainingSet:
    """Return the training set with what looks like a leak."""
    others = [c for c in made.label_columns if c != made.time and c not in made.keys]
    leaks = leaks_of(
        made.frame, others, [(c.definition, c.columns) for c in made.chosen],
        same_time=made.same_time, late=made.late,
    )  # fmt: skip
    return replace(made, leaks=leaks, notes=tuple(leak.text for leak in leaks))


class _Needs:
    """The stored definitions to join, each with all that anybody needs of it, under safe names.

    A version may be needed twice, for two entities, or beside another version of its group: so
    each is joined under a name of its own, and each of its features too.
    """

    def __init__(self, labels: pl.DataFrame, entity: Mapping[str, str]) -> None:
        self._labels = labels
        self._mapping = entity
        self._features: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
        self._definitions: dict[tuple[str, str, tuple[str, ...]], Definition] = {}
        self.entity: dict[str, str] = {}

    def add(self, definition: Definition, keys: Sequence[str], features: Sequence[str]) -> None:
        """Ask for features of a definition whose key's parts are called `keys` here."""
        need = (definition.name, definition.fingerprint, tuple(keys))
        self._definitions[need] = definition
        held = self._features.setdefault(need, [])
        held += [f for f in features if f not in held]
        for key, name in zip(definition.plan.keys, keys, strict=True):
            # A key that is called otherwise here is not looked for by its own name.
            looked_for = key if key.name == name else Key(name, key.expr)
            by_name = name in self._mapping or name in self._labels.columns
            if not by_name and key.name != name:
                raise UsageError(
                    f"The labels have no column for the entity {name!r}.",
                    found=", ".join(self._labels.columns) or "no columns",
                    remedy=f"rename one, or say which it is: entity={{{name!r}: 'column'}}",
                )
            self.entity[name] = key_column(self._labels, looked_for, self._mapping)

    @property
    def wanted(self) -> list[tuple[Definition, tuple[str, ...]]]:
        found = []
        for need, features in self._features.items():
            definition, keys = self._definitions[need], need[2]
            plan = replace(
                definition.plan,
                keys=tuple(Key(n, k.expr) for n, k in zip(keys, definition.plan.keys, strict=True)),
                outputs=tuple(
                    Output(self.column(definition, keys, o.name), o.expr)
                    for o in definition.plan.outputs
                    if o.name in features
                ),
            )
            name = self.column(definition, keys, "")
            found.append((replace(definition, name=name, plan=plan), plan.features))
        return found

    def group_of(self, joined: str) -> str:
        """Return the group that is joined under that name."""
        return list(self._features)[int(joined.split(":")[1])][0]

    def column(self, definition: Definition, keys: Sequence[str], feature: str) -> str:
        """Return the column that a needed feature is joined as."""
        need = (definition.name, definition.fingerprint, tuple(keys))
        place = list(self._features).index(need)
        return f"joined:{place}:{feature}"


class _Part:
    """A derived definition beside the labels."""

    def __init__(
        self,
        definition: DerivedDefinition,
        features: tuple[str, ...],
        labels: pl.DataFrame,
        entity: Mapping[str, str],
        needs: _Needs,
    ) -> None:
        self.definition, self.features, self.needs = definition, features, needs
        plan = definition.plan
        self.derived = Derived(plan)
        self.read = self.derived.reads(features)
        any_read = any(n.startswith("input:") for n in self.read)
        for index, given in enumerate(plan.inputs):
            asked = [f for f, _ in given.features if feature_column(index, f) in self.read]
            if not any_read and index == 0:
                # These features are of request values alone; the labels are joined all the same.
                asked = [given.features[0][0]]
            if asked:
                needs.add(definition.input(given.group, given.fingerprint), given.keys, asked)
        self.key_columns = tuple(
            needs.entity.get(k.name) or key_column(labels, k, entity) for k in plan.keys
        )
        self.given = [
            key_values(labels.get_column(c), k).alias(entity_column(k.name))
            for k, c in zip(plan.keys, self.key_columns, strict=True)
        ]
        for name, kind in plan.requests_of(features):
            if name not in labels.columns:
                raise _no_request(features, name, kind.value, labels.columns)
            typed = typed_column(labels.get_column(name), kind, name)
            self.given.append(typed.alias(request_column(name)))

    def values(self, joined: pl.DataFrame) -> dict[str, pl.Series]:
        """Return its features, from the frame that has its inputs."""
        columns = [c for c in self.given if c.name in self.read]
        for index, given in enumerate(self.definition.plan.inputs):
            pinned = self.definition.input(given.group, given.fingerprint)
            columns += [
                joined.get_column(self.needs.column(pinned, given.keys, f)).alias(
                    feature_column(index, f)
                )
                for f, _ in given.features
                if feature_column(index, f) in self.read
            ]
        frame = pl.DataFrame(columns) if columns else pl.DataFrame({"": range(joined.height)})
        values = self.derived.values(frame, self.features)
        return {name: values.get_column(name) for name in self.features}

    @property
    def joined(self) -> set[str]:
        """The columns of the joined frame that it reads."""
        return {
            self.needs.column(self.definition.input(g.group, g.fingerprint), g.keys, f)
            for index, g in enumerate(self.definition.plan.inputs)
            for f, _ in g.features
            if feature_column(index, f) in self.read
        }

    def covered(self, base: TrainingSet) -> pl.Series:
        """Tell for which labels each of its inputs saw an event."""
        some = pl.repeat(True, base.rows, eager=True)
        for column in sorted(self.joined):
            some &= base.covered[column]
        return some


def _no_request(
    features: Sequence[str], name: str, kind: str, columns: Sequence[str]
) -> UsageError:
    near = near_names(name, columns, count=1)
    meant = f"rename {near[0]!r} to {name!r}" if near else f"add a column {name!r} to the labels"
    return UsageError(
        f"{' and '.join(features)} need{'s' * (len(features) == 1)} the request value {name!r}, "
        f"a {kind}: the labels have no such column.",
        found=", ".join(columns) or "no columns",
        remedy=meant,
    )
