"""From a column of text to one of a stream's type, or the value that is none."""

from __future__ import annotations

import polars as pl

from fs_notebook.decimals import exact_texts
from fs_notebook.errors import UsageError
from fs_notebook.log.decode import dates_of, times_of
from fs_notebook.types import Type

_BOOLEANS = {"true": True, "false": False}


def text_to(texts: pl.Series, kind: Type) -> pl.Series:
    """Return `texts` as values of type `kind`; null stays null.

    Raises
    ------
    UsageError
        If one of them is no such value; the message names it and its column.
    """
    if kind is Type.VARCHAR or texts.dtype != pl.String:
        return texts
    if not kind.is_scalar:
        raise UsageError(
            f"The column {texts.name!r} is {kind}, which no text of a CSV file can be.",
            remedy="NDJSON, Parquet or Arrow",
        )
    stripped = texts.str.strip_chars()
    if kind is Type.BOOLEAN:
        lower = stripped.str.to_lowercase()
        values = lower.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    elif kind is Type.TIMESTAMP:
        _refuse(texts, stripped.cast(pl.Int64, strict=False).is_not_null(), kind)
        values = _times(stripped)
    elif kind is Type.DATE:
        values = dates_of(stripped)
    elif kind.is_decimal:
        values = exact_texts(stripped, kind)
    elif kind is Type.INTERVAL:
        values = stripped.cast(pl.Int64, strict=False).cast(kind.polars)
    else:
        values = stripped.cast(kind.polars, strict=False)
    _refuse(texts, values.is_null() & texts.is_not_null(), kind)
    return values.alias(texts.name)


def _times(texts: pl.Series) -> pl.Series:
    # Polars takes all for what the first one is, several times faster than one form after another;
    # it knows some that are not ISO 8601, too: 31/01/2013 12:00, 2013/01/31.
    try:
        others = texts.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError:
        return times_of(texts)
    if others.null_count() == texts.null_count():
        return others
    values = times_of(texts)
    return pl.DataFrame([values.alias("iso"), others.alias("other")]).select(
        pl.coalesce("iso", "other")
    )["iso"]


def _refuse(texts: pl.Series, bad: pl.Series, kind: Type) -> None:
    row = bad.arg_max()
    if row is None or not bad[row]:
        return
    remedy = f"correct it, or upload to a new stream whose {texts.name!r} is text"
    if kind is Type.TIMESTAMP:
        remedy = "ISO 8601, e.g. 2013-01-31T12:00:00Z"
    raise UsageError(
        f"The column {texts.name!r} holds a value that is no {kind}.",
        found=repr(texts[row][:60]),
        remedy=remedy,
    )
