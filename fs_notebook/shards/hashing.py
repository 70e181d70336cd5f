"""The shard of an entity: a stable hash of its key, the same on every machine, for ever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

Hashes = npt.NDArray[np.uint64]

_NULL = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
ASKED_BITS = 24


def key_hashes(frame: pl.DataFrame, keys: Sequence[str]) -> Hashes:
    """Return 64 bits for each row, decided by its key alone.

    Texts are hashed by xxHash64 of their UTF-8, each distinct one once; numbers, times and
    Booleans by the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    mixed = np.zeros(frame.height, np.uint64)
    for key in keys:
        mixed = _mix(mixed * _FIRST + _hashed(frame.get_column(key)))
    return mixed


def shards_of(hashes: Hashes, count: int) -> npt.NDArray[np.int64]:
    """Return the shard of each hash, from 0 to count - 1."""
    return ((hashes >> np.uint64(32)) % np.uint64(count)).astype(np.int64)


def _hashed(column: pl.Series) -> Hashes:
    if column.dtype == pl.String:
        distinct = column.unique().alias("key")
        codes = [
            int(_NULL) if text is None else xxhash.xxh64_intdigest(text.encode())
            for text in distinct
        ]
        table = pl.DataFrame([distinct, pl.Series("hash", codes, dtype=pl.UInt64)])
        found = column.alias("key").to_frame().join(
            table, on="key", how="left", maintain_order="left", nulls_equal=True
        )  # fmt: skip
        return found.get_column("hash").to_numpy()
    plain = column.to_physical().cast(pl.Int64)
    bits = _mix(plain.fill_null(0).to_numpy().astype(np.uint64))
    return np.where(plain.is_null().to_numpy(), _NULL, bits)


def _mix(bits: Hashes) -> Hashes:
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


class Asked:
    """Which entities are asked for, in bounded memory: none that is asked for is ever missed.

    One that is not may be taken for one that is; it is left out where its shard is computed.
    """

    def __init__(self) -> None:
        self._there = np.zeros(1 << ASKED_BITS, bool)

    def add(self, hashes: Hashes) -> None:
        self._there[self._places(hashes)] = True

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Tell which of the hashes may have been added."""
        return self._there[self._places(hashes)]

    def _places(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        return (hashes & np.uint64((1 << ASKED_BITS) - 1)).astype(np.int64)
