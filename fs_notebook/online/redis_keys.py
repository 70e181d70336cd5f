"""How the keys of a shard are called in Redis, and what lies under them. See `redis_store`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fs_notebook.errors import IntegrityError
from fs_notebook.online.codec import unseal

SERVING = b"fs:serving"
GENERATION = b"generation"
GROUP = b"g:"
_SHARDS_MAX = 4_096


def _tag(shard: str) -> bytes:
    # The first pair of braces in a key is its hash tag, so a name may not bring its own.
    escaped = shard.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return b"fs:{" + escaped.encode() + b"}:"


@lru_cache(maxsize=_SHARDS_MAX)
def value_prefix(shard: str) -> bytes:
    return _tag(shard) + b"e:"


def index_key(shard: str) -> bytes:
    return _tag(shard) + b"i:"


def meta_key(shard: str) -> bytes:
    return _tag(shard) + b"m"


def health_key(shard: str) -> bytes:
    return _tag(shard) + b"h"


def index_place(shard: str, key: bytes) -> tuple[bytes, int]:
    """Return the set, and the member of it, that say whether an entity was ever put.

    The same as `place` of the scripts.
    """
    digest = hashlib.sha1(value_prefix(shard) + key).hexdigest()
    return index_key(shard) + digest[:3].encode(), int(digest[3:15], 16)


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
