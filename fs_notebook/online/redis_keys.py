"""How the keys of a shard are called in Redis, and what lies under them. See `redis_store`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fs_notebook.errors import IntegrityError
from fs_notebook.online.codec import unseal

SERVING = b"fs:serving"
GENERATION = b"generation"
GENERATION_ALONE = b"fs:generation{fs:serving}"
"""The generation once more, in a key of its own in the slot of `SERVING`: to be had with values."""
GROUP = b"g:"
_SHARDS_MAX = 4_096


@lru_cache(maxsize=_SHARDS_MAX)
def base_key(shard: str) -> bytes:
    # The first pair of braces in a key is its hash tag, so a name may not bring its own.
    escaped = shard.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return b"fs:{" + escaped.encode() + b"}:"


@lru_cache(maxsize=_SHARDS_MAX)
def value_prefix(shard: str) -> bytes:
    return base_key(shard) + b"e:"


def index_key(shard: str) -> bytes:
    return base_key(shard) + b"i:"


def meta_key(shard: str) -> bytes:
    return base_key(shard) + b"m"


def health_key(shard: str) -> bytes:
    return base_key(shard) + b"h"


def info_of(shard: str, text: bytes | None) -> dict[str, Any]:
    try:
        fields = json.loads(text or b"{}")
        if isinstance(fields, dict):
            return fields
    except ValueError:
        pass
    raise IntegrityError(f"What is stored beside {shard!r} cannot be read.", found=repr(text))


def opened(shard: str, keys: Sequence[bytes], sealed: Sequence[bytes | None]) -> list[bytes | None]:
    return [
        None if blob is None else unseal(key, blob, shard=shard)
        for key, blob in zip(keys, sealed, strict=True)
    ]
