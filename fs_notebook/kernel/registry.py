"""Every aggregate of the language, by name: whatever class of this room says how it is called."""

from __future__ import annotations

from collections.abc import Iterator

from fs_notebook.kernel import basic, counted, decayed, moments, ordered, sketches
from fs_notebook.kernel.algebra import Aggregate

# An aggregate counts once its module is imported here.
_MODULES = (basic, moments, counted, ordered, decayed, sketches)


def _all(base: type[Aggregate]) -> Iterator[type[Aggregate]]:
    for kind in base.__subclasses__():
        if "name" in vars(kind):
            yield kind
        yield from _all(kind)


AGGREGATES: dict[str, type[Aggregate]] = {k.name: k for k in _all(Aggregate)}
assert all(k.__module__ in {m.__name__ for m in _MODULES} for k in AGGREGATES.values())
