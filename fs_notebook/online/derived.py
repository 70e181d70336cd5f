"""Derived features online: their serving records, and their values from what one read brought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from fs_notebook.compute.derived import Derived
from fs_notebook.compute.requests import request_value
from fs_notebook.errors import UsageError, near_names
from fs_notebook.language.derived import (
    DerivedPlan,
    entity_column,
    feature_column,
    request_column,
)
from fs_notebook.types import Type


@dataclass(frozen=True)
class ServedDerived:
    """The serving record of a derived group: its plan, and the records of what it pins."""

    group: str
    version: int
    fingerprint: str
    plan: DerivedPlan
    inputs: tuple[Mapping[str, Any], ...]
    """For each of the plan's inputs the serving record of the pinned version."""
    notice: str | None = None
    """As for `Served`."""

    @classmethod
    def from_record(cls, group: str, record: Mapping[str, Any]) -> ServedDerived:
        return cls(
            group=group,
            version=int(record["version"]),
            fingerprint=record["fingerprint"],
            plan=DerivedPlan.from_dict(record["plan"]),
            inputs=tuple(record["inputs"]),
            notice=record.get("notice"),
        )

    def to_record(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "version": self.version,
            "fingerprint": self.fingerprint,
            "plan": self.plan.to_dict(),
            "inputs": [dict(i) for i in self.inputs],
        }
        return record if self.notice is None else record | {"notice": self.notice}


@dataclass(frozen=True, eq=False)
class ReadyDerived:
    """A served derived group, compiled. Hashed by identity."""

    served: ServedDerived

    @cached_property
    def derived(self) -> Derived:
        return Derived(self.served.plan)

    @cached_property
    def types(self) -> Mapping[str, Type]:
        return {o.name: o.type for o in self.served.plan.outputs}

    def values(
        self,
        features: Sequence[str],
        *,
        entities: Mapping[str, Sequence[Any]],
        requests: Mapping[str, Sequence[Any]],
        inputs: Sequence[Mapping[str, Sequence[Any]]],
        count: int,
    ) -> dict[str, list[Any]]:
        """Return feature → values, one an entity.

        Parameters
        ----------
        entities, requests
            Name → values, one an entity.
        inputs
            For each of the plan's inputs feature → values.
        """
        plan = self.served.plan
        columns: dict[str, Sequence[Any]] = {entity_column(n): v for n, v in entities.items()}
        columns |= {request_column(n): v for n, v in requests.items()}
        for index, given in enumerate(plan.inputs):
            for feature, _ in given.features:
                column = feature_column(index, feature)
                columns[column] = inputs[index][feature]
        read = self.derived.reads(features)
        frame = pl.DataFrame(
            [pl.Series(n, columns[n], dtype=plan.schema[n].polars) for n in sorted(read)]
        )
        if not read:
            frame = pl.DataFrame({"": range(count)})
        return self.derived.values(frame, features).to_dict(as_series=False)

    def requested(
        self, features: Sequence[str], given: Mapping[str, Any], count: int
    ) -> dict[str, list[Any]]:
        """Return the typed request values that some features read, one an entity.

        Parameters
        ----------
        given
            Name → a list with one value an entity, or a single value for all of them.

        Raises
        ------
        UsageError
            If one is of another type, or too long or short.
        """
        values: dict[str, list[Any]] = {}
        for name, kind in self.served.plan.requests_of(tuple(features)):
            value = given[name]
            if not isinstance(value, list):
                values[name] = [request_value(value, kind, name)] * count
                continue
            if len(value) != count:
                raise UsageError(
                    "The lists of entities and request values differ in length.",
                    found=f"{name}: {len(value)}, entities: {count}",
                    remedy="one value of each for every row, or a single one for all",
                )
            values[name] = [request_value(v, kind, name) for v in value]
        return values

    def check_requested(
        self, features: Sequence[str], given: Iterable[str], others: Sequence[str]
    ) -> None:
        """Raise `UsageError` if a request value is missing; `others` may be it, misspelt."""
        for name, kind in self.served.plan.requests_of(tuple(features)):
            if name in given:
                continue
            near = near_names(name, others, count=1)
            raise UsageError(
                f"{' and '.join(features)} need{'s' * (len(features) == 1)} the request value "
                f"{name!r}, a {kind}.",
                found=", ".join([*given, *others]) or "no request values",
                remedy=f"{name} instead of {near[0]}" if near else f"serve([…], {name}=[…])",
            )
