"""What is asked of a training set beside its labels: as of when, and which versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs_notebook.catalog.model import AnyDefinition, CatalogState
from fs_notebook.catalog.usage import set_of
from fs_notebook.compute.preview import parse_span
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.online.board import SET

EVENT, KNOWN = "event", "known"


@dataclass(frozen=True)
class AsOf:
    """Which events count for a label at time t.

    Attributes
    ----------
    lag_us
        How much earlier than the label's time t is, in microseconds: how long it takes until an
        event is in a feature.
    known
        Whether only events count that were published before t, besides what their event time
        says.
    """

    lag_us: int = 0
    known: bool = False

    @classmethod
    def of(cls, lag: str | None, as_of: str) -> AsOf:
        """Return what the options say: ``lag="5m"``, ``as_of="event"`` or ``"known"``."""
        if as_of not in (EVENT, KNOWN):
            raise UsageError(
                "as_of says what counts besides a window.", found=repr(as_of),
                remedy='"event": what happened before t; "known": what was published then as well',
            )  # fmt: skip
        return cls(0 if lag is None else parse_span(lag, option="lag"), as_of == KNOWN)

    def __str__(self) -> str:
        told = "as known before" if self.known else "as of just before"
        return f"{told} each label's time" + (f" less {_span(self.lag_us)}" if self.lag_us else "")


PLAIN = AsOf()


def _span(us: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if us % (size * 1_000_000) == 0:
            return f"{us // (size * 1_000_000)}{unit}"
    return f"{us / 1e6:g}s"


@dataclass(frozen=True)
class Chosen:
    """A definition, and those of its features that are wanted.

    Attributes
    ----------
    version
        The version's number, where one was named: its features' columns end in ``@2`` then.
    """

    definition: AnyDefinition
    features: tuple[str, ...]
    version: int | None = None

    @property
    def name(self) -> str:
        """The group, as it was asked for."""
        return self.definition.name + self._suffix

    @property
    def columns(self) -> tuple[str, ...]:
        """What the features are called in the training set."""
        return tuple(f + self._suffix for f in self.features)

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """Each feature and what it is called in the training set."""
        return tuple(zip(self.features, self.columns, strict=True))

    @property
    def _suffix(self) -> str:
        return "" if self.version is None else f"@{self.version}"


def chosen_of(state: CatalogState, names: Sequence[str]) -> list[Chosen]:
    """Return what names of features, groups, versions or sets mean (``reading@2``, ``set:ranker``).

    They come in their order, by groups. A group stands for all of its features; what is named twice
    is there once.

    Raises
    ------
    UnknownName
        If there is no such feature, version or set.
    """
    found: dict[tuple[str, int | None], tuple[AnyDefinition, list[str]]] = {}
    for asked in names:
        if asked.startswith(SET):
            for member in set_of(state, asked)[1].members:
                definition = state.groups[member.group].version(member.version).definition
                place = (member.group, member.version)
                _, features = found.setdefault(place, (definition, []))
                features += [f for f in [member.feature] if f not in features]
            continue
        name, _, number = asked.partition("@")
        if "@" in asked and not (number.isascii() and number.isdecimal()):
            raise UsageError("A version is a number.", found=asked, remedy=f"{name}@1")
        version = int(number) if number else None
        group = state.group(name)
        definition = group.latest if version is None else group.version(version).definition
        known = definition.plan.features
        if name not in known and name != group.name:
            raise unknown_name(f"feature of {group.name}@{number}", name, known)
        mine = [name] if name in known else list(known)
        _, features = found.setdefault((group.name, version), (definition, []))
        features += [f for f in mine if f not in features]
    return [Chosen(d, tuple(f), v) for (_, v), (d, f) in found.items()]


def order_of(state: CatalogState, names: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return columns in the order in which they are served where sets are among the names.

    What is named by itself, or in a set, comes in that order; what groups bring comes after it.
    """
    if not any(name.startswith(SET) for name in names):
        return tuple(columns)
    ranked: dict[str, None] = {}
    for name in names:
        said = set_of(state, name)[1].columns if name.startswith(SET) else (name,)
        ranked |= dict.fromkeys(c for c in said if c in columns)
    return (*ranked, *(c for c in columns if c not in ranked))


def sole_set(state: CatalogState, names: Sequence[str]) -> str | None:
    """Return the one feature set, with its version, that is among the names; None if none is."""
    sets = [set_of(state, name) for name in names if name.startswith(SET)]
    return f"{SET}{sets[0][0].name}@{sets[0][1].number}" if len(sets) == 1 else None


def spelt(state: CatalogState, names: Sequence[str]) -> list[str]:
    """Return names with each feature set's features in its place."""
    parts = [set_of(state, n)[1].columns if n.startswith(SET) else (n,) for n in names]
    return [name for part in parts for name in part]
