"""The labels as their owner has them: which column is the time, and which are the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from fs_notebook.errors import FeatureStoreError, UsageError, unknown_name
from fs_notebook.language.derived import AnyPlan
from fs_notebook.language.expr import Column
from fs_notebook.language.plan import Key
from fs_notebook.types import Type, type_name

_FLOAT_WHOLE_MAX = 2**53
_KINDS = "a polars, pandas or Arrow table, a dict of columns, or a list of dicts"


def is_pandas(data: Any) -> bool:
    """Tell whether `data` is a pandas frame, without importing pandas."""
    kind = type(data)
    return kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame"


def labels_frame(labels: Any, *, what: str = "labels") -> pl.DataFrame:
    """Return the labels, or other rows, as a Polars frame, each column in the type that it came in.

    Raises
    ------
    UsageError
        If they are no table.
    """
    frame = _as_frame(labels, what)
    odd = [name for name in frame.columns if "\0" in name]
    if odd:
        # Arrow's names end there: what is handed over to it would be a column of another name.
        raise UsageError(
            f"The {what} have columns with a NUL in their names.",
            found=", ".join(map(repr, odd[:5]))[:200],
            remedy="rename them",
        )
    return frame


def _as_frame(labels: Any, what: str) -> pl.DataFrame:
    if isinstance(labels, pl.DataFrame):
        return labels
    if isinstance(labels, pl.LazyFrame):
        collected: pl.DataFrame = labels.collect()
        return collected
    if is_pandas(labels):
        odd = [repr(c) for c in labels.columns if not isinstance(c, str)]
        if odd:
            raise UsageError(
                f"The {what} have columns whose names are not text.",
                found=", ".join(odd[:5]),
                remedy="labels.columns = [...], and labels.reset_index() for an index",
            )
    try:
        if is_pandas(labels):
            frame: pl.DataFrame = pl.from_pandas(labels)
            return frame
        if isinstance(labels, Mapping):
            return pl.DataFrame(labels)
        if isinstance(labels, Sequence) and not isinstance(labels, (str, bytes)):
            if not all(isinstance(row, Mapping) for row in labels):
                raise UsageError(
                    f"The {what} are a list, but not of dicts.",
                    found=type(next(r for r in labels if not isinstance(r, Mapping))).__name__,
                    remedy=_KINDS,
                )
            return pl.DataFrame([dict(row) for row in labels], infer_schema_length=None)
        if hasattr(labels, "__arrow_c_stream__"):
            return pl.DataFrame(labels)
    except FeatureStoreError:
        raise
    except Exception as error:  # noqa: BLE001 - pandas and Arrow raise errors of many kinds here
        raise UsageError(
            f"The {what} do not make a table.",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            remedy="one type in each column, columns of one length",
        ) from None
    raise UsageError(f"The {what} are no table.", found=type(labels).__name__, remedy=_KINDS)


def find_time(labels: pl.DataFrame, time: str | None) -> str:
    """Return the name of the labels' time column: the named one, else the only temporal one.

    Raises
    ------
    UsageError
        If there is none, or several, or the named one holds no times.
    """
    temporal = [n for n, t in labels.schema.items() if isinstance(t, (pl.Datetime, pl.Date))]
    listed = ", ".join(f"{n} {type_name(t)}" for n, t in labels.schema.items()) or "no columns"
    if time is not None:
        if time not in labels.columns:
            raise unknown_name("column of the labels", time, labels.columns)
        if time not in temporal:
            raise UsageError(
                f"The labels' column {time!r} does not hold times.",
                found=type_name(labels.schema[time]),
                remedy="parse it first: pl.col(...).str.to_datetime(), or pandas.to_datetime(...)",
            )
        return time
    if len(temporal) == 1:
        return temporal[0]
    if temporal:
        raise UsageError(
            "The labels have several columns that hold times.",
            found=", ".join(temporal),
            remedy=f"say which one the features are to be as of: time={temporal[0]!r}",
        )
    raise UsageError(
        "The labels have no column that holds times.",
        found=listed,
        remedy="features are as of each label's time: add it, as datetimes or dates",
    )


def times_us(labels: pl.DataFrame, time: str) -> pl.Series:
    """Return each label's time in microseconds since the epoch; naive times are UTC.

    Nanoseconds are cut off, since rounding them up could let an event in that came after the
    label. A date is its first moment.

    Raises
    ------
    UsageError
        If a time is null.
    """
    column = labels.get_column(time)
    if nulls := column.null_count():
        raise UsageError(
            f"{nulls:,} of {labels.height:,} labels have no time.",
            found=f"nulls in {time!r}",
            remedy=f"drop them: labels.drop_nulls({time!r}) in Polars, "
            f"labels.dropna(subset=[{time!r}]) in pandas",
        )
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).to_physical()
    # A zoned column is stored in UTC already: its zone only says how it is shown.
    physical = column.to_physical()
    unit = getattr(column.dtype, "time_unit", "us")
    if unit == "ns":
        return physical // 1_000
    return physical * 1_000 if unit == "ms" else physical


def check_entity(entity: Mapping[str, str], plans: Sequence[AnyPlan]) -> None:
    """Raise if `entity` maps a key that no plan has."""
    known = {k.name for plan in plans for k in plan.keys}
    for name in entity:
        if name not in known:
            raise unknown_name("entity", name, known)


def key_column(labels: pl.DataFrame, key: Key, entity: Mapping[str, str]) -> str:
    """Return the labels' column that holds `key`.

    Raises
    ------
    UsageError
        If there is none; says what is needed and what there is.
    """
    if key.name in entity:
        if entity[key.name] not in labels.columns:
            raise unknown_name("column of the labels", entity[key.name], labels.columns)
        return entity[key.name]
    if key.name in labels.columns:
        return key.name
    if isinstance(key.expr, Column) and key.expr.name in labels.columns:
        return key.expr.name
    raise UsageError(
        f"The labels have no column for the entity {key.name!r}.",
        found=", ".join(labels.columns) or "no columns",
        remedy=f"rename one, or say which it is: entity={{{key.name!r}: 'column'}}",
    )


def key_values(column: pl.Series, key: Key) -> pl.Series:
    """Return a label column in the type of `key`.

    Integers that pandas turned into floats, for a null among them, are integers again.

    Raises
    ------
    UsageError
        If the column's type, or one of its values, cannot be that key.
    """
    kind, dtype = key.expr.type, column.dtype
    if dtype == pl.Null:
        return column.cast(kind.polars)
    if dtype.is_float() and kind is Type.BIGINT:
        known = column.fill_nan(None)
        odd = (known != known.floor()) | (known.abs() >= _FLOAT_WHOLE_MAX)
        if not odd.any():
            return known.cast(pl.Int64)
    if not _fits(dtype, kind):
        raise UsageError(
            f"The labels' column {column.name!r} cannot be the entity {key.name!r}.",
            found=f"{dtype}, where {kind} is needed",
            remedy=f"cast {column.name!r} to {kind} in the labels first",
        )
    if isinstance(dtype, pl.Datetime):
        zoned = (
            column.dt.replace_time_zone("UTC")
            if dtype.time_zone is None
            else column.dt.convert_time_zone("UTC")
        )
        return zoned.dt.cast_time_unit("us")
    # An integer beyond 64 bits is the key of no event: as a null it gets the empty fold.
    return column.cast(kind.polars, strict=False)


def _fits(dtype: pl.DataType, kind: Type) -> bool:
    match kind:
        case Type.BIGINT:
            return dtype.is_integer()
        case Type.DOUBLE:
            return dtype.is_numeric()
        case Type.VARCHAR:
            return isinstance(dtype, (pl.String, pl.Categorical, pl.Enum))
        case Type.BOOLEAN:
            return dtype == pl.Boolean
        case Type.TIMESTAMP:
            return isinstance(dtype, pl.Datetime)
        case Type.DATE:
            return dtype == pl.Date
        case Type.INTERVAL:
            return isinstance(dtype, pl.Duration)
    return False
