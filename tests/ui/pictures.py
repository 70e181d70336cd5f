"""Whether a screenshot shows anything, told from the file alone: no picture library is needed."""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A picture of one colour is, by any of PNG's filters, rows of fewer different bytes than that:
# five kinds of filters, nothing, and a few of each channel. Letters alone make hundreds.
BYTES_MIN = 32


def is_blank(png: bytes) -> bool:
    """Tell whether a PNG is of one colour, or no PNG at all."""
    if not png.startswith(SIGNATURE):
        return True
    at, packed = len(SIGNATURE), b""
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + size]
        at += size + 12
    return len(set(zlib.decompress(packed))) < BYTES_MIN
