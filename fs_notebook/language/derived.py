"""The plan of a derived feature group: expressions over stored features and request values.

A derived group has no state and no worker. Its plan names stored features only, each of a version
that is pinned by fingerprint: what is derived from derived features was flattened when it was
compiled. The same expressions are evaluated in preview, training and serving.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fs_notebook.language import expr as ex
from fs_notebook.language.plan import Key, Output, Plan
from fs_notebook.types import Type

DERIVED_FORMAT = 1
KIND = "derived"


def entity_column(name: str) -> str:
    """Return what an expression calls a part of the entity's key."""
    return f"entity:{name}"


def request_column(name: str) -> str:
    """Return what an expression calls a value of the request."""
    return f"request:{name}"


def feature_column(index: int, feature: str) -> str:
    """Return what an expression calls a feature of input number `index`."""
    return f"input:{index}:{feature}"


@dataclass(frozen=True, slots=True)
class Input:
    """Stored features that a derived group reads: of one version, for one entity.

    Attributes
    ----------
    group, fingerprint
        Which version of which group.
    keys
        For each part of that group's key, the part of the derived group's entity that it is.
    features
        The features that are read, with their types, by name.
    """

    group: str
    fingerprint: str
    keys: tuple[str, ...]
    features: tuple[tuple[str, Type], ...]


@dataclass(frozen=True)
class DerivedPlan:
    """A derived feature group.

    Attributes
    ----------
    keys
        The parts of its entity: all that its inputs' keys need.
    inputs
        The stored features that it reads, in the order of group and fingerprint.
    requests
        The values that the request itself brings, with their types, by name.
    outputs
        Its features: expressions over `entity_column`, `request_column` and `feature_column`.
    """

    keys: tuple[Key, ...]
    inputs: tuple[Input, ...]
    requests: tuple[tuple[str, Type], ...]
    outputs: tuple[Output, ...]

    @property
    def entity(self) -> tuple[str, ...]:
        return tuple(k.name for k in self.keys)

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.outputs)

    @cached_property
    def schema(self) -> dict[str, Type]:
        """Every column that an expression may read, and its type."""
        columns = {entity_column(k.name): k.expr.type for k in self.keys}
        columns |= {request_column(n): t for n, t in self.requests}
        for index, given in enumerate(self.inputs):
            columns |= {feature_column(index, f): t for f, t in given.features}
        return columns

    def requests_of(self, features: tuple[str, ...]) -> tuple[tuple[str, Type], ...]:
        """Return the request values that some of its features read."""
        read = set().union(*(ex.columns_of(o.expr) for o in self.outputs if o.name in features))
        return tuple((n, t) for n, t in self.requests if request_column(n) in read)

    def to_dict(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        return {
            "kind": KIND,
            "format": DERIVED_FORMAT,
            "keys": [[k.name, ex.to_json(k.expr)] for k in self.keys],
            "inputs": [
                [i.group, i.fingerprint, list(i.keys), [[f, t.value] for f, t in i.features]]
                for i in self.inputs
            ],
            "requests": [[n, t.value] for n, t in self.requests],
            "outputs": [[o.name, ex.to_json(o.expr)] for o in self.outputs],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DerivedPlan:
        """Return the plan that `to_dict` wrote."""
        if data.get("format") != DERIVED_FORMAT:
            raise ValueError(f"derived plan format {data.get('format')!r} is not {DERIVED_FORMAT}")
        return cls(
            keys=tuple(Key(n, ex.from_json(e)) for n, e in data["keys"]),
            inputs=tuple(
                Input(g, f, tuple(keys), tuple((n, Type(t)) for n, t in features))
                for g, f, keys, features in data["inputs"]
            ),
            requests=tuple((n, Type(t)) for n, t in data["requests"]),
            outputs=tuple(Output(n, ex.from_json(e)) for n, e in data["outputs"]),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits: the version's identity."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


AnyPlan = Plan | DerivedPlan


def is_derived(data: dict[str, Any]) -> bool:
    """Tell whether `to_dict` of a derived plan wrote `data`."""
    return data.get("kind") == KIND


def replaced(expr: ex.Expr, column: Callable[[ex.Column], ex.Expr]) -> ex.Expr:
    """Return `expr` with each column replaced by what `column` gives for it."""
    match expr:
        case ex.Column():
            return column(expr)
        case ex.Call(function, args, kind):
            return ex.Call(function, tuple(replaced(a, column) for a in args), kind)
    return expr
