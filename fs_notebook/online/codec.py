"""How entity keys and values become bytes, and how bytes are sealed against corruption.

A value is laid out as ``version, head length, head, state``. The head holds what a reader
needs; the state is the worker's own and lies behind it, so that reading never decodes it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

from fs_notebook.clock import from_us, to_us
from fs_notebook.errors import IntegrityError, OverflowInFold, UsageError

PUTS_MAX = 500_000
"""Values in one commit: with their keys just under the 2^20 arguments that Redis takes."""

PUT_BYTES_MAX = 512 * 1024 * 1024
"""Bytes of values in one commit: half of what Redis buffers of one client's query."""

SNAPSHOT_KEYS_MAX = 1_000

_VERSION = 1
_FRONT = struct.Struct("<BI")
_SEAL = struct.Struct("<I")
_INT64 = struct.Struct(">q")
_DATETIME_TAG = 1
_DATE_TAG = 2
_UNIX_DAY_ZERO = date(1970, 1, 1)
_PLAIN = frozenset((str, int, bool))

# Packing holds the interpreter lock throughout, since no Python hook runs inside it; so one
# packer serves all threads, and its buffer is not made anew for each value.
_pack = msgpack.Packer(use_bin_type=True).pack
_pack_short = msgpack.Packer(use_bin_type=True, use_single_float=True).pack


class Packed(NamedTuple):
    """One entity's stored value.

    Attributes
    ----------
    newest_us
        The event time of the newest event folded, microseconds since the epoch.
    valid_until_us
        The first instant at which `values` no longer hold although no event arrived;
        None when only an event can change them.
    values
        The finalised features: int, float, str, bool, None, or lists of those; timestamps
        are microseconds since the epoch, dates are days since it, decimals are text.
    state
        The worker's own bytes.
    """

    newest_us: int
    valid_until_us: int | None
    values: tuple[Any, ...]
    state: bytes


def pack_key(values: Sequence[Any]) -> bytes:
    """Return the bytes of an entity's key: each part tagged with its type, of any length.

    Equal keys give equal bytes and others never do: ``1``, ``"1"``, ``True`` and ``1.0`` are
    four keys. A naive datetime is taken as UTC; -0.0 is 0.0, and all NaNs are one.

    >>> unpack_key(pack_key(("u7", 3)))
    ('u7', 3)

    Raises
    ------
    UsageError
        If there is no part, or a part is null or of another type.
    """
    if not values:
        raise UsageError("An entity key has at least one part.", found="no parts")
    parts = [v if type(v) in _PLAIN else _key_part(v) for v in values]
    try:
        return bytes(_pack(parts))
    except (OverflowError, UnicodeEncodeError) as error:
        raise UsageError(
            "An entity key cannot be stored.",
            found=str(error),
            remedy="integers have 64 bits, text must be valid Unicode",
        ) from None


def _key_part(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if value != value:
            return float("nan")
        return float(value) + 0.0
    if isinstance(value, datetime):
        return msgpack.ExtType(_DATETIME_TAG, _INT64.pack(to_us(value)))
    if isinstance(value, date):
        return msgpack.ExtType(_DATE_TAG, _INT64.pack((value - _UNIX_DAY_ZERO).days))
    raise UsageError(
        "A part of an entity key has a type that keys do not carry.",
        found=f"{value!r} of type {type(value).__name__}",
        remedy="use text, integers, floats, booleans, dates or times; leave out null keys",
    )


def unpack_key(blob: bytes) -> tuple[Any, ...]:
    """Return the parts that `pack_key` packed; times come back as UTC datetimes.

    Raises
    ------
    IntegrityError
        If `blob` is no packed key.
    """
    try:
        parts = msgpack.unpackb(blob, use_list=False, ext_hook=_key_ext)
    except (ValueError, struct.error, msgpack.UnpackException) as error:
        raise IntegrityError(
            "An entity key cannot be read.", found=f"{blob[:80]!r}: {error}"
        ) from None
    if not isinstance(parts, tuple):
        raise IntegrityError("An entity key cannot be read.", found=repr(blob[:80]))
    return parts


def _key_ext(tag: int, data: bytes) -> Any:
    (number,) = _INT64.unpack(data)
    if tag == _DATETIME_TAG:
        return from_us(number)
    if tag == _DATE_TAG:
        return _UNIX_DAY_ZERO + timedelta(days=number)
    raise ValueError(f"unknown tag {tag}")


def show_key(blob: bytes) -> str:
    """Return text that names an entity in an error, whatever its bytes are."""
    try:
        text = ", ".join(map(repr, unpack_key(blob))) or repr(blob)
    except IntegrityError:
        text = repr(blob)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(blob)} bytes)"


def pack_value(
    newest_us: int,
    valid_until_us: int | None,
    values: Sequence[Any],
    state: bytes,
    *,
    short: bool = False,
) -> bytes:
    """Return the bytes of one entity's value; see `Packed` for the parts.

    `short` packs floats in 32 bits, for values that those hold exactly; a reader sees no other.

    Raises
    ------
    OverflowInFold
        If an integer does not fit 64 bits.
    """
    try:
        head = (_pack_short if short else _pack)((newest_us, valid_until_us, *values))
    except OverflowError:
        raise OverflowInFold(
            "An integer does not fit 64 bits.", remedy="cast it to DOUBLE in the definition"
        ) from None
    return bytes(_FRONT.pack(_VERSION, len(head)) + head + state)


def unpack_head(blob: bytes) -> list[Any]:
    """Return what a reader needs of a value: newest, valid until, and the features, in a list.

    Raises
    ------
    IntegrityError
        If `blob` is of another format.
    """
    try:
        version, length = _FRONT.unpack_from(blob)
        if version != _VERSION:
            raise ValueError(f"format version {version}")
        head: list[Any] = msgpack.unpackb(blob[_FRONT.size : _FRONT.size + length])
        if len(head) < 2:
            raise ValueError(f"{len(head)} parts")
        return head
    except (ValueError, TypeError, struct.error, msgpack.UnpackException) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> IntegrityError:
    return IntegrityError(
        "A stored value has a format that this version does not read.",
        found=str(error),
        remedy="promote the feature again with this version to rebuild it",
    )


def unpack_value(blob: bytes) -> Packed:
    """Return the parts that `pack_value` packed; the state is not looked into.

    Raises
    ------
    IntegrityError
        If `blob` is of another format.
    """
    head = unpack_head(blob)
    _, length = _FRONT.unpack_from(blob)
    return Packed(head[0], head[1], tuple(head[2:]), blob[_FRONT.size + length :])


def seal(key: bytes, blob: bytes) -> bytes:
    """Return `blob` with four bytes of checksum behind it.

    The checksum covers the key too, so that a value under another key is noticed.
    """
    return blob + _SEAL.pack(crc32(blob, crc32(key)))


def unseal(key: bytes, sealed: bytes, *, shard: str) -> bytes:
    """Return the blob that `seal` sealed under this key.

    Raises
    ------
    IntegrityError
        If the checksum does not match; names the shard and the key.
    """
    blob = sealed[:-4]
    if sealed[-4:] != _SEAL.pack(crc32(blob, crc32(key))):
        raise corrupt(shard, key, found="a checksum that does not match")
    return blob


def corrupt(shard: str, key: bytes, *, found: str) -> IntegrityError:
    """Build the error for an entity's value that is not what was committed."""
    return IntegrityError(
        f"The stored value of {show_key(key)} in {shard!r} is damaged.",
        found=found,
        remedy="rebuild the feature from the ledger: promote it again",
    )
