"""What every store refuses, and the errors that every store raises in the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fs_notebook.errors import FencedError, IntegrityError, StalePosition, UsageError
from fs_notebook.online.codec import (
    PUT_BYTES_MAX,
    PUTS_MAX,
    SNAPSHOT_KEYS_MAX,
    corrupt,
    show_key,
)
from fs_notebook.online.protocol import Lease
from fs_notebook.position import Cut

_CLAIM_AGAIN = "claim the shard again and go on from the position that is stored"


def check_shard(shard: str) -> None:
    """Refuse a name that no key can be made of."""
    try:
        shard.encode()
    except UnicodeEncodeError:
        raise UsageError("A shard's name is not valid Unicode.", found=repr(shard)) from None
    if not shard:
        raise UsageError("A shard's name is empty.")


def check_commit(
    lease: Lease, cut: Cut, puts: Mapping[bytes, bytes], deletes: Sequence[bytes]
) -> None:
    """Refuse a commit that goes back, contradicts itself or is beyond the bounds."""
    if lease.cut is not None and not cut.contains(lease.cut):
        raise UsageError(
            f"A commit to {lease.shard!r} would move its position back.",
            found=f"from {lease.cut} to {cut}",
            remedy="drop the shard to fold it again from an earlier position",
        )
    count = len(puts) + len(deletes)
    if count > PUTS_MAX:
        raise UsageError(
            f"A commit to {lease.shard!r} touches too many entities.",
            found=f"{count:,}, at most {PUTS_MAX:,}",
            remedy="commit smaller batches",
        )
    size = sum(map(len, puts.values()))
    if size > PUT_BYTES_MAX:
        raise UsageError(
            f"A commit to {lease.shard!r} is too large.",
            found=f"{size:,} bytes of values, at most {PUT_BYTES_MAX:,}",
            remedy="commit smaller batches",
        )
    for key in deletes:
        if key in puts:
            raise UsageError(
                f"A commit to {lease.shard!r} both writes and deletes an entity.",
                found=show_key(key),
            )


def check_snapshot(keys: Sequence[bytes]) -> None:
    """Refuse more keys than one instant may block the store for."""
    if len(keys) > SNAPSHOT_KEYS_MAX:
        raise UsageError(
            "A snapshot of too many entities at once.",
            found=f"{len(keys):,}, at most {SNAPSHOT_KEYS_MAX:,}",
            remedy="ask in several calls",
        )


def to_json(fields: Mapping[str, Any]) -> str:
    """Return the text of a report or record; what JSON cannot carry is refused."""
    try:
        return json.dumps(dict(fields), separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise UsageError(
            "A report or record holds what JSON cannot carry.", found=str(error)
        ) from None


def lost(shard: str, key: bytes) -> IntegrityError:
    """Build the error for a value that was committed and is gone."""
    return corrupt(shard, key, found="nothing, though it was committed: evicted or deleted")


def unbuilt(shard: str) -> IntegrityError:
    """Build the error for a shard that is served and has no position."""
    return IntegrityError(
        f"The store has nothing of {shard!r}, which is served.",
        found="no position: the store was flushed, or the shard was dropped or evicted",
        remedy="wait until the runner has built it again: %feature status",
    )


def fenced(lease: Lease, current: object) -> FencedError:
    """Build the error for a lease that is not the newest."""
    return FencedError(
        f"Another worker has taken over {lease.shard!r}; nothing was written.",
        found=f"epoch {current}, this lease has {lease.epoch}",
        remedy="stop this worker",
    )


def stale(lease: Lease, current: str) -> StalePosition:
    """Build the error for a lease whose position is not the stored one."""
    return StalePosition(
        f"The stored position of {lease.shard!r} is not the expected one; nothing was written.",
        found=f"{current}, expected {lease.cut.to_json() if lease.cut is not None else 'none'}",
        remedy=_CLAIM_AGAIN,
    )


def missing(lease: Lease) -> StalePosition:
    """Build the error for a shard whose position is gone: flushed, dropped or evicted."""
    return StalePosition(
        f"The store has nothing of {lease.shard!r} any more; nothing was written.",
        found="no position: the store was flushed, or the shard was dropped",
        remedy="claim the shard again and fold it from the start",
    )


def orphaned(shard: str) -> IntegrityError:
    """Build the error for values without a position."""
    return IntegrityError(
        f"The store holds values of {shard!r} but no position.",
        found="a deletion that was cut short, or a position that was evicted",
        remedy="rebuild the feature from the ledger: promote it again",
    )


def other_fingerprint(shard: str, *, held: str, wanted: str) -> IntegrityError:
    """Build the error for a shard that another definition wrote."""
    return IntegrityError(
        f"{shard!r} was written by another definition.",
        found=f"fingerprint {held}, this worker has {wanted}",
        remedy="promote the changed definition as a version of its own",
    )
