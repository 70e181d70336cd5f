"""Training sets as TensorFlow's own data sets. Importing this imports TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from fs_notebook.model.export import Numbers, float32


def tensor_rows(values: Numbers, target: Numbers | None) -> Any:
    """Return a `tf.data.Dataset` whose elements are rows."""
    given = float32(values)
    return tf.data.Dataset.from_tensor_slices(given if target is None else (given, target))


def tensor_batches(
    batches: Callable[[], Iterator[tuple[Numbers, Numbers | None]]],
    width: int,
    target: Any,
) -> Any:
    """Return a `tf.data.Dataset` whose elements are batches, read anew whenever it is iterated.

    `target` is the dtype of the target, None for none.
    """
    features = tf.TensorSpec((None, width), tf.float32)

    def pairs() -> Iterator[Any]:
        for values, truth in batches():
            given = float32(values)
            yield given if truth is None else (given, truth)

    signature = features if target is None else (features, tf.TensorSpec((None,), target))
    return tf.data.Dataset.from_generator(pairs, output_signature=signature)
