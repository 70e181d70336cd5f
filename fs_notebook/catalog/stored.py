"""Definitions as the catalog's events hold them: decoded when somebody asks. No I/O.

A catalog of ten thousand features is opened for a few of them. So a definition that comes from an
event knows at once what lists, searches and the fold of the catalog read of it; its plan and the
declarations of its streams stay text until they are asked for.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from fs_notebook._version import __version__
from fs_notebook.compute.composed import stream_from_dict
from fs_notebook.errors import FeatureStoreError, UnreadableEntry, plain
from fs_notebook.language.derived import DerivedPlan, is_derived
from fs_notebook.language.plan import Plan
from fs_notebook.language.sources import streams_of
from fs_notebook.log.protocol import Stream

# What decoding something else than what was expected can raise.
WRONG = (LookupError, TypeError, ValueError, AttributeError, FeatureStoreError)

T = TypeVar("T")


class Facts(NamedTuple):
    """What lists and searches read of a definition.

    Attributes
    ----------
    entity, features, types
        The parts of its key; its features, and the names of their types.
    streams, joined
        The streams that its values come from, directly or not, and those joined to them.
    """

    entity: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Facts:
        """Return those of a definition's `to_dict`; none, if it is written in another way."""
        try:
            plan = data["plan"]
            if is_derived(plan):
                found = {s for d in data["inputs"] for s in streams_of(d["source"]["name"])}
                streams = tuple(sorted(found))
            else:
                streams = tuple(dict.fromkeys(streams_of(data["source"]["name"])))
            return cls(
                tuple([key for key, _ in plan["keys"]]),
                tuple([name for name, _ in plan["outputs"]]),
                tuple([expression[-1] for _, expression in plan["outputs"]]),
                streams,
                tuple([stream["name"] for stream in data.get("joined", ())]),
            )
        except WRONG:
            return cls()


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a definition's plan and streams are to be decoded from.

    Attributes
    ----------
    name
        Whose they are.
    body
        The body of the catalog's event: its text, or what that text says.
    path
        The steps in it to what `to_dict` of the definition wrote.
    """

    name: str
    body: str | Mapping[str, Any]
    path: tuple[str | int, ...]
    facts: Facts

    def data(self) -> Mapping[str, Any]:
        """Return what `to_dict` of the definition wrote."""
        found: Any = json.loads(self.body) if isinstance(self.body, str) else self.body
        for step in self.path:
            found = found[step]
        return found  # type: ignore[no-any-return]

    def fingerprint(self) -> str:
        """Return the plan's fingerprint: what is stored is its canonical form."""
        return fingerprint_of(self.data()["plan"])

    def decoded(self) -> dict[str, Any]:
        """Return the plan, and the declarations of what it reads.

        Raises
        ------
        UnreadableEntry
            If they are written in a way that this version does not know, or do not say all that
            is stored: a plan that lacks half of what its author meant is another plan.
        """
        data = self.data()
        stored = data["plan"]
        try:
            if is_derived(stored):
                parts: dict[str, Any] = {"plan": DerivedPlan.from_dict(stored)}
            else:
                joined = tuple(Stream.from_dict(s) for s in data.get("joined", ()))
                source = stream_from_dict(data["source"])
                parts = {"plan": Plan.from_dict(stored), "source": source, "joined": joined}
        except WRONG as error:
            raise unreadable(self.name, told(error)) from error
        plan = parts["plan"]
        if plan.fingerprint != fingerprint_of(stored):
            more = sorted(set(stored) - set(plan.to_dict()))
            unknown = f"the unknown field {', '.join(map(repr, more))}"
            raise unreadable(self.name, unknown if more else "a plan that is not as it is written")
        return parts


def fingerprint_of(plan: Mapping[str, Any]) -> str:
    """Return the fingerprint of a plan, from what its `to_dict` wrote."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def told(error: Exception) -> str:
    """Return what was wrong with an entry, in a line."""
    text = error.message if isinstance(error, FeatureStoreError) else str(error)
    missing = f"no {text}" if isinstance(error, KeyError) else text
    return plain(missing)[:300] or type(error).__name__


def unreadable(name: str, found: str, *, kind: str = "entry") -> UnreadableEntry:
    """Build the error for an entry of the catalog that this version cannot read."""
    return UnreadableEntry(
        f"The catalog's {kind} {name!r} cannot be read by fs_notebook {__version__}.",
        found=found,
        remedy="the version of fs_notebook that it was written with, or define it anew",
    )


def changed(thing: T, **new: object) -> T:
    """Return a frozen dataclass with other fields, as `dataclasses.replace` does, but quicker.

    Events are folded by the ten thousand. Only for those without slots, derived fields and checks.
    """
    made = object.__new__(type(thing))
    vars(made).update(vars(thing))
    vars(made).update(new)
    return made


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Let the garbage collector rest while much is made that stays.

    It would look at all of that again and again, which takes longer than making it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Deferred:
    """A field that may still be `Stored`: it is decoded when it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        value = vars(instance)[self._name]
        if isinstance(value, Stored):
            vars(instance).update(value.decoded())
            value = vars(instance)[self._name]
        return value

    def __set__(self, instance: object, value: object) -> None:
        vars(instance)[self._name] = value


def deferred(*names: str) -> Callable[[type[T]], type[T]]:
    """Let fields of a frozen dataclass be given as `Stored`."""

    def made(kind: type[T]) -> type[T]:
        for name in names:
            setattr(kind, name, _Deferred(name))
        return kind

    return made
