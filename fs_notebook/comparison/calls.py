"""The session's part that compares versions: which two, and whether both are current."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from fs_notebook.catalog import Catalog, CatalogState, Group, Version
from fs_notebook.catalog.lineage import running_of
from fs_notebook.catalog.model import DerivedDefinition
from fs_notebook.clock import Clock
from fs_notebook.comparison.outcome import Comparison
from fs_notebook.comparison.reading import Reading, Side, least, sample, side_of
from fs_notebook.compute.preview import OnProgress, Progress, silent
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.views import status_of
from fs_notebook.worker.shared import joined_info, stored_shards
from fs_notebook.worker.verify import CHUNK

ENTITIES_MAX = 100_000
GLANCE_ENTITIES = 1_000
"""How many entities are compared beside a promotion."""


class CompareCalls:
    """The methods of a `Session` that compare versions."""

    catalog: Catalog
    store: OnlineStore
    clock: Clock

    def compare(
        self,
        name: str,
        versions: Sequence[int] | None = None,
        *,
        entities_max: int = 10_000,
        on_progress: OnProgress = silent,
    ) -> Comparison:
        """Return two versions of a group side by side: how far do their values differ?

        ``fs.compare("reading_time")`` or ``fs.compare("reading_time", (1, 3))``. The values of
        both are what they have online, finished at one and the same moment.

        Parameters
        ----------
        versions
            Two numbers. By default what serves, and the newest other version that is kept
            current: one that was promoted and does not serve yet, else the former one.
        entities_max
            Compare no more entities than that: of more a sample, chosen by a hash of the key.

        Raises
        ------
        UsageError
            If there are no two versions whose values are current; says which are.
        UnknownName
            If there is no such feature, or no such version.
        """
        if not 1 <= entities_max <= ENTITIES_MAX:
            raise UsageError(
                f"compare takes 1 to {ENTITIES_MAX:,} entities.", found=str(entities_max),
                remedy="entities_max=10_000",
            )  # fmt: skip
        first, second = self._two(name, versions)
        keys, known, sampled = sample(first.keys(), second.keys(), entities_max)
        return self._compared(first, second, keys, known, sampled, on_progress)

    def glance(self, name: str, former: int, version: int) -> str | None:
        """Return in a line how far a version differs from the former one; None: no word on it.

        A thousand entities are compared, without a walk through all that there are: the first
        that the store names. Redis goes by a hash of its own.
        """
        group = self.catalog.refresh().group(name)
        if former == version:
            return None
        try:
            found = self._glanced(group.name, (former, version))
        except FeatureStoreError as error:
            # What was promoted serves, whatever comes of the comparison.
            return f"v{version} was not compared with v{former}: {error.message}"
        return f"{found.line}; %feature compare {group.name}"

    def _glanced(self, name: str, versions: Sequence[int]) -> Comparison:
        first, second = self._two(name, versions)
        mine = list(itertools.islice(first.keys(), GLANCE_ENTITIES))
        others = list(itertools.islice(second.keys(), GLANCE_ENTITIES))
        # What both versions have is drawn from the first one's entities alone, lest it count twice.
        _, _, shared = first.values(others)
        keys = {*mine, *(k for k in others if k not in shared)}
        chosen, _ = least(keys, GLANCE_ENTITIES)
        known = first.count, second.count
        sampled = max(known) > len(chosen)
        return self._compared(first, second, sorted(chosen), known, sampled, silent)

    def _two(self, name: str, versions: Sequence[int] | None) -> tuple[Side, Side]:
        """Return the two versions, as long as both are current."""
        state = self.catalog.refresh()
        group = state.group(name)
        chosen = _chosen(group) if versions is None else _named(group, versions)
        warm = _warm(state, group, self.store)
        if len(chosen) < 2 or any(v.number not in warm for v in chosen):
            raise _not_warm(state, group, chosen, self.store)
        now_us = self.clock.now_us()
        one, other = (side_of(self.store, v, now_us) for v in chosen)
        kinds = [list(side.key_types) for side in (one, other)]
        if kinds[0] != kinds[1]:
            raise UsageError(
                f"The keys of v{one.number} and v{other.number} of {group.name!r} are of different "
                "types.",
                found=" and ".join(", ".join(map(str, k)) for k in kinds),
                remedy="two versions of one key",
            )
        return one, other

    def _compared(
        self, first: Side, second: Side, keys: list[bytes], known: tuple[int, int],
        sampled: bool, on_progress: OnProgress,
    ) -> Comparison:  # fmt: skip
        begun_s = self.clock.monotonic_s()
        reading = Reading(first, second)
        for start in range(0, len(keys), CHUNK):
            reading.read(keys[start : start + CHUNK])
            share = min((start + CHUNK) / len(keys), 1.0)
            elapsed_s = self.clock.monotonic_s() - begun_s
            on_progress(Progress(share, 0, elapsed_s, "comparing"))
        group = self.catalog.refresh().groups[first.name]
        return reading.outcome(
            keys, known, sampled, None if group.serving is None else group.serving.number
        )


def _chosen(group: Group) -> list[Version]:
    """Return what serves and the newest other version that runs, by number."""
    serving = group.serving
    if serving is None:
        raise UsageError(
            f"{group.name!r} is not served yet.", remedy=f"%feature promote {group.name}"
        )
    others = [v for v in group.running if v.number != serving.number]
    wanted = [v for v in others if v.number == group.wanted]
    return sorted([serving, *(wanted or others)[-1:]], key=lambda v: v.number)


def _named(group: Group, versions: Sequence[int]) -> list[Version]:
    numbers = list(versions)
    if len(numbers) != 2 or numbers[0] == numbers[1]:
        raise UsageError(
            "compare takes two versions.", found=", ".join(map(str, numbers)) or "none",
            remedy="--versions 1,2",
        )  # fmt: skip
    return [group.version(n) for n in numbers]


def _warm(state: CatalogState, group: Group, store: OnlineStore) -> set[int]:
    """Return the versions whose values are there and kept current."""
    warm = set()
    for version in running_of(state, group):
        if isinstance(version.definition, DerivedDefinition):
            warm.add(version.number)
            continue
        parts = stored_shards(store, version.definition.shard)
        if joined_info(store, parts).get("built"):
            warm.add(version.number)
    return warm


def _not_warm(
    state: CatalogState, group: Group, chosen: Sequence[Version], store: OnlineStore
) -> UsageError:
    running = running_of(state, group)
    told = []
    for version in running:
        status = status_of(group, version, store)
        share = "" if status.progress is None else f" {status.progress:.0%}"
        told.append(f"v{version.number} {status.state}{share}")
    if len(chosen) < 2:
        return UsageError(
            f"Only one version of {group.name!r} is kept current.", found=", ".join(told),
            remedy=f"promote a changed definition of {group.name!r}, then compare",
        )  # fmt: skip
    warm = _warm(state, group, store)
    cold = next(v for v in chosen if v.number not in warm)
    if cold.number in {v.number for v in running}:
        why, remedy = "is not built yet.", f"%feature status {group.name}; compare once it is live"
    else:
        why, remedy = "is not kept current: no worker folds it.", "compare two of those that run"
    return UsageError(
        f"v{cold.number} of {group.name!r} {why}", found=", ".join(told) or "no version runs",
        remedy=remedy,
    )  # fmt: skip


def parse_versions(text: str | None) -> tuple[int, ...] | None:
    """Return the versions that ``1,2`` or ``v1,v2`` means; None for None.

    Raises
    ------
    UsageError
        If it is something else.
    """
    if text is None:
        return None
    numbers = [part.strip().removeprefix("v") for part in text.split(",")]
    if not all(n.isascii() and n.isdigit() for n in numbers):
        raise UsageError("--versions takes two numbers.", found=repr(text), remedy="--versions 1,2")
    return tuple(map(int, numbers))
