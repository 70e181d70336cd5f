"""Training sets as PyTorch's own data sets. Importing this imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

from fs_notebook.model.export import Numbers, float32

Pair = tuple[Numbers, Numbers | None]
Batches = Callable[[int, int], Iterator[Pair]]
"""The batches of every n-th piece from the k-th on, by k and n."""


class TrainingTensors(TensorDataset):  # type: ignore[misc]
    """A training set in memory as a PyTorch `Dataset`: an element a label.

    Attributes
    ----------
    tensors
        The features, float32 of shape (rows, columns); and the target of shape (rows,), if any.
    features
        What the columns are called.
    encoder
        What encoded them, for serving.
    classes
        The texts that a target's numbers stand for.
    """

    def __init__(
        self, values: Numbers, target: Numbers | None, encoder: Any, classes: Sequence[str]
    ) -> None:
        super().__init__(*_tensors(values, target))
        self.encoder = encoder
        self.features = tuple(encoder.get_feature_names_out())
        self.classes = tuple(classes)

    def loader(self, *, batch_size: int = 256, shuffle: bool = False, **options: Any) -> Any:
        """Return a `DataLoader` of it, with any of that one's options."""
        return DataLoader(self, batch_size=batch_size, shuffle=shuffle, **options)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
                           for t in self.tensors)  # fmt: skip
        return f"training tensors of {len(self):,} rows: {shapes}"


class TrainingStream(IterableDataset):  # type: ignore[misc]
    """A training set on disk as a PyTorch `IterableDataset`: an element a batch.

    Several workers of a loader share the pieces among them.
    """

    def __init__(self, batches: Batches, rows: int, encoder: Any, classes: Sequence[str]) -> None:
        super().__init__()
        self._batches = batches
        self._rows = rows
        self.encoder = encoder
        self.features = tuple(encoder.get_feature_names_out())
        self.classes = tuple(classes)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        worker = get_worker_info()
        place, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for values, target in self._batches(place, count):
            yield _tensors(values, target)

    def loader(self, **options: Any) -> Any:
        """Return a `DataLoader` of it: its batches are the ones that are read.

        Its workers are new processes, unless told otherwise: Polars has threads, and a fork of a
        process with threads may hang.
        """
        if options.get("num_workers"):
            options = {"multiprocessing_context": "spawn", **options}
        return DataLoader(self, batch_size=None, **options)

    def __repr__(self) -> str:
        return f"training stream of {self._rows:,} rows × {len(self.features)} columns"


def _tensors(values: Numbers, target: Numbers | None) -> tuple[Any, ...]:
    given = [float32(values), *([] if target is None else [target])]
    # What Polars hands out may be read-only, which PyTorch's tensors cannot be.
    return tuple(torch.from_numpy(np.require(g, requirements=["C", "W"])) for g in given)
