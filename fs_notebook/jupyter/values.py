"""One value as a reader sees it, in tables, captions and plain text alike."""

from __future__ import annotations

import math
import unicodedata
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

NULL = "·"
TEXT_MAX = 80
_MARKS = {chr(code): chr(0x2400 + code) for code in range(0x20)}
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str, *, length_max: int = TEXT_MAX) -> str:
    """Return `text` on one line and of bounded length, with nothing in it that steers a display.

    Control characters show as their pictures (a newline as ␊); marks that turn the direction of
    what follows, and other invisible ones, as U+FFFD.
    """
    cut = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return "".join(_visible(c) for c in cut)


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    if char in _TURNING or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
        return "\ufffd"
    return char


def count(number: float) -> str:
    """Return a count with thousands separated: ``336,776``."""
    return f"{number:,.0f}"


def short(amount: float) -> str:
    """Return a rate or amount in about three digits: ``950``, ``51.2k``, ``5.7M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # What rounds up to a whole unit is shown in it: 1M and not 1e+06.
        if abs(amount) >= 0.9995 * size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount:.3g}"


def number(value: float) -> str:
    """Return a float to 6 significant digits, as short as they allow."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e15:
        digits = max(5 - math.floor(math.log10(abs(value))), 0)
        shown = f"{value:,.{digits}f}"
        return shown.rstrip("0").rstrip(".") if "." in shown else shown
    return f"{value:.6g}"


def moment(value: datetime, *, seconds: bool = True) -> str:
    """Return a time as ``2013-01-31 12:00:00``; fractions of a second only where there are some."""
    if not seconds:
        return f"{value:%Y-%m-%d %H:%M}"
    shown = f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{shown}.{value.microsecond:06d}".rstrip("0") if value.microsecond else shown


def span(value: timedelta) -> str:
    """Return a length of time in its two largest units: ``3d 4h``, ``2m 5s``, ``0.25s``."""
    seconds = value.total_seconds()
    sign, rest = ("-" if seconds < 0 else ""), abs(seconds)
    if rest < 60:
        return f"{sign}{number(rest)}s"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        whole, rest = divmod(rest, length)
        if whole:
            parts.append(f"{int(whole)}{unit}")
        elif parts:
            break
    return sign + " ".join(parts[:2])


def show(value: Any, *, grouped: bool = True, length_max: int = TEXT_MAX) -> str:
    """Return any value as text on one line; a null is ``·``.

    Parameters
    ----------
    grouped
        Separate the thousands of integers: right for amounts, wrong for keys.
    length_max
        Text longer than so many characters is cut, and ends in ``…`` then.
    """
    match value:
        case None:
            return NULL
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:,}" if grouped else str(value)
        case float():
            return number(value)
        case Decimal():
            return f"{value:,}" if grouped else str(value)
        case datetime():
            return moment(value)
        case date():
            return value.isoformat()
        case timedelta():
            return span(value)
        case list() | tuple():
            return clean("[" + ", ".join(show(v, grouped=grouped) for v in value[:20]) + "]")
        case dict():
            parts = (f"{k}: {show(v, grouped=grouped)}" for k, v in list(value.items())[:20])
            return clean("{" + ", ".join(parts) + "}", length_max=length_max)
        case _:
            return clean(str(value), length_max=length_max)


def is_number(value: Any) -> bool:
    """Tell whether a value is shown at the right of its column."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def width(text: str) -> int:
    """Return how many columns of a terminal `text` takes: wide characters count for two."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
