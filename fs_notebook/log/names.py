"""Which names a stream may have."""

from __future__ import annotations

import re

from fs_notebook.errors import UsageError

_SHORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")
_FULL = re.compile(r"persistent://[A-Za-z0-9_.\-]{1,100}/[A-Za-z0-9_.\-]{1,100}/([^/]*)")
_PARTITION = re.compile(r".*-partition-\d+")


def check_stream_name(name: str) -> str:
    """Return `name` if a stream may be called so.

    A name is letters, digits, ``_``, ``-`` and ``.``, or a full topic name
    ``persistent://tenant/namespace/name`` whose last part is such a name.

    Raises
    ------
    UsageError
        For every other name, whatever ledger it is for, so that nothing in a name can reach
        a query, a path or a page as more than a name.
    """
    full = _FULL.fullmatch(name) if isinstance(name, str) else None
    last = full.group(1) if full else name
    if not isinstance(last, str) or not _SHORT.fullmatch(last) or ".." in last:
        raise UsageError(
            f"{name!r} cannot be the name of a stream.",
            remedy="use up to 200 letters, digits, '_', '-' and '.', or a full topic name "
            "persistent://tenant/namespace/name",
        )
    if _PARTITION.fullmatch(last):
        raise UsageError(
            f"{name!r} names one partition of a topic, not a stream.",
            remedy="leave '-partition-N' away",
        )
    return name
