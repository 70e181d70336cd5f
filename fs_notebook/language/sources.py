"""The name of what a plan reads: a stream, or several in one."""

from __future__ import annotations

BETWEEN = " + "
"""Stands between the names of streams in the name of a union, or of pairs; no stream's holds it."""


def streams_of(source: str) -> tuple[str, ...]:
    """Return the streams that a plan's source is made of, in order: of a stream itself alone."""
    return tuple(source.split(BETWEEN))
