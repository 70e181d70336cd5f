"""From what people have (frames, files, dicts) to rows that a stream carries."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from fs_notebook.decimals import exact, type_of_decimal
from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.log.protocol import Stream
from fs_notebook.types import PRECISION_MAX, Type, conform, type_of

_EARLIEST_US, _LATEST_US = -62_135_596_800_000_000, 253_402_300_800_000_000
_ISO_DATE = r"^\d{4}-\d{2}-\d{2}$"
_ISO_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_READERS: dict[str, Callable[..., pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".pq": pl.read_parquet,
    ".csv": pl.read_csv,
    ".ndjson": pl.read_ndjson,
    ".jsonl": pl.read_ndjson,
    ".arrow": pl.read_ipc,
    ".feather": pl.read_ipc,
}


def to_frame(data: Any) -> pl.DataFrame:
    """Return a Polars frame of a frame (Polars, pandas, Arrow), a file's path, dicts or one dict.

    Raises
    ------
    UsageError
        If it is none of those, or the file cannot be read.
    """
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, (str, Path)):
        return _read_file(Path(data))
    if isinstance(data, Mapping):
        scalar = not any(isinstance(v, (list, tuple)) for v in data.values())
        if scalar:
            return _from_rows([data])
        _check_decimals((n, list(v)) for n, v in data.items() if isinstance(v, (list, tuple)))
        return pl.DataFrame(data)
    if type(data).__module__.partition(".")[0] in ("pandas", "pyarrow"):
        return _from_table(data)
    if isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data):
        return _from_rows(data)
    raise UsageError(
        "This is nothing that can be uploaded.",
        found=type(data).__name__,
        remedy="a polars, pandas or Arrow table, a list of dicts, or the path of a file",
    )


def _from_table(data: Any) -> pl.DataFrame:
    try:
        is_pandas = type(data).__module__.startswith("pandas")
        frame = pl.from_pandas(data) if is_pandas else pl.from_arrow(data)
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise UsageError(
            "This table cannot be carried over.",
            found=str(error).splitlines()[0],
            remedy="columns of one type each, with different names",
        ) from None
    except pl.exceptions.PanicException:
        raise UsageError(
            "This table cannot be carried over.",
            found="a column of a type that Polars has not",
            remedy="decimals have at most 38 digits; cast wider ones first",
        ) from None
    if is_pandas and isinstance(frame, pl.DataFrame):
        # Of objects pandas says no type: how many digits these have says nothing of the next.
        frame = frame.with_columns(
            pl.col(n).cast(pl.Decimal(PRECISION_MAX, t.scale))
            for n, t in frame.schema.items()
            if isinstance(t, pl.Decimal) and data[n].dtype == object
        )
    if isinstance(frame, pl.Series):
        raise UsageError("This is one column, not a table.", remedy="a table with named columns")
    return frame


def _check_decimals(columns: Iterable[tuple[str, Sequence[Any]]]) -> None:
    """Refuse Python's decimals that no decimal type holds together: Polars would make null of some.

    Raises
    ------
    UsageError
        If one is NaN or infinite, or a column needs more than 38 digits.
    """
    for name, values in columns:
        before = behind = 0
        for value in values:
            if not isinstance(value, Decimal):
                continue
            kind = type_of_decimal(value)
            if kind is not None:
                before = max(before, kind.precision - kind.scale)
                behind = max(behind, kind.scale)
            if kind is None or before + behind > PRECISION_MAX:
                raise UsageError(
                    f"The decimals in column {name!r} do not fit one type.",
                    found=str(value)[:60],
                    remedy="finite numbers, with 38 digits at most before and behind the point",
                )


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Sequence[Any]]]:
    for name in dict.fromkeys(n for r in rows for n in r):
        yield str(name), [r.get(name) for r in rows]


def _from_rows(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    if any(isinstance(v, Decimal) for r in rows for v in r.values()):
        _check_decimals(_columns_of(rows))
    try:
        return pl.DataFrame([dict(r) for r in rows], infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise UsageError(
            "These rows do not make a table.",
            found=str(error).splitlines()[0],
            remedy="the same columns with the same types in every row",
        ) from None


def _read_file(path: Path) -> pl.DataFrame:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            "This kind of file cannot be uploaded.",
            found=path.name,
            remedy=", ".join(sorted(_READERS)),
        )
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in _READERS)[:5]
        raise UsageError(
            f"There is no file {path.name!r}.",
            found=f"in its folder: {', '.join(near) or 'no data files'}",
            remedy="check the path",
        )
    options = {"try_parse_dates": True} if reader is pl.read_csv else {}
    try:
        frame = reader(path, **options)
        return _with_times_parsed(frame) if reader is pl.read_ndjson else frame
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(
            f"{path.name!r} cannot be read.",
            found=str(error).splitlines()[0],
            remedy=f"is it really {path.suffix}?",
        ) from None


def _with_times_parsed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a JSON file's rows, texts that are all dates or times in ISO 8601 as those.

    JSON has no times: what a CSV file's reader takes for one is one here too.
    """
    parsed = []
    for name, dtype in frame.schema.items():
        text = frame[name].drop_nulls() if dtype == pl.String else pl.Series([], dtype=pl.String)
        if not text.len() or not text.str.contains(_ISO_TIME).all():
            continue
        try:
            if text.str.contains(_ISO_DATE).all():
                parsed.append(frame[name].str.to_date())
            else:
                parsed.append(frame[name].str.to_datetime(time_unit="us"))
        except pl.exceptions.PolarsError:
            # With a zone and without, or no day of the calendar: it stays text.
            continue
    return frame.with_columns(parsed)


def time_column(frame: pl.DataFrame, name: str, time: str | None) -> str:
    """Return the column of event times: the one named, or else the only one that holds times."""
    if time is not None:
        if time not in frame.columns:
            error = unknown_name(f"column of {name!r}", time, frame.columns)
            raise UsageError(error.message, found=error.found, remedy=error.remedy)
        return time
    times = [n for n, t in frame.schema.items() if t == pl.Datetime or t == pl.Date]
    if len(times) != 1:
        raise UsageError(
            f"Which column of {name!r} is the event's time?",
            found=f"columns that hold times: {', '.join(times) or 'none'}",
            remedy="--time COLUMN",
        )
    return times[0]


def declare(
    frame: pl.DataFrame,
    name: str,
    *,
    time: str | None,
    key: Sequence[str],
    partitions: int,
    id: str | None = None,
) -> Stream:
    """Return the declaration of a new stream that `frame`, in canonical types, begins."""
    columns = tuple((n, type_of(t, column=n)) for n, t in frame.schema.items())
    if reserved := [n for n, _ in columns if n.startswith("__")]:
        raise UsageError(
            "A column's name begins with two underscores, which are ours.",
            found=", ".join(reserved),
            remedy="rename it",
        )
    for column in (*key, *([] if id is None else [id])):
        if column not in frame.columns:
            raise unknown_name(f"column of {name!r}", column, frame.columns)
    return Stream(name, columns, time, tuple(key), partitions, id=id)


def with_time(frame: pl.DataFrame, time: str | None) -> pl.DataFrame:
    """Return `frame` with the named time column as times: text is parsed, integers refused."""
    if time is None or time not in frame.columns:
        return frame
    dtype = frame.schema[time]
    if dtype == pl.String:
        try:
            parsed = pl.col(time).str.to_datetime(time_unit="us", time_zone="UTC")
            return frame.with_columns(parsed)
        except pl.exceptions.PolarsError as error:
            raise UsageError(
                f"The time column {time!r} is text that is no time.",
                found=str(error).splitlines()[0],
                remedy="ISO 8601, e.g. 2013-01-31T12:00:00Z, or convert it first",
            ) from None
    if dtype == pl.Date:
        return frame.with_columns(pl.col(time).cast(pl.Datetime("us")))
    if dtype != pl.Datetime:
        raise UsageError(
            f"The time column {time!r} holds no times.",
            found=str(dtype),
            remedy="convert it, e.g. pl.from_epoch(column, time_unit='s')",
        )
    return frame


def fit(frame: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """Return `frame` in the stream's columns and types; missing columns become null.

    Raises
    ------
    UsageError
        If it has columns that the stream has not, or values of another type; or no times.
    """
    frame = conform(with_time(frame, stream.time))
    if extra := [c for c in frame.columns if c not in stream.names]:
        error = unknown_name(f"column of stream {stream.name!r}", extra[0], stream.names)
        remedy = error.remedy or "leave it out, or upload to a new stream"
        raise UsageError(error.message, found=error.found, remedy=remedy)
    if stream.time is not None and stream.time not in frame.columns:
        raise UsageError(
            f"The events have no {stream.time!r}, the time column of {stream.name!r}.",
            found=", ".join(frame.columns),
            remedy=f"add {stream.time!r}",
        )
    columns = []
    for name, kind in stream.columns:
        if name not in frame.columns:
            columns.append(pl.lit(None, dtype=kind.polars).alias(name))
            continue
        have = frame.schema[name]
        null = frame[name].null_count() == frame.height
        widens = _widens(type_of(have, column=name), kind, frame[name])
        if have != kind.polars and not null and not widens:
            raise UsageError(
                f"The column {name!r} of {stream.name!r} is {kind}.",
                found=str(type_of(have, column=name)),
                remedy=f"cast it to {kind}",
            )
        if kind.is_decimal and have != kind.polars and not null:
            columns.append(exact(pl.col(name), have, kind).alias(name))
        else:
            columns.append(pl.col(name).cast(kind.polars, strict=not null))
    try:
        fitted = frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            f"A value does not fit its column of {stream.name!r}.",
            found=str(error).splitlines()[0],
            remedy="a stream whose columns have room for it",
        ) from None
    if stream.time is not None and (missing := fitted[stream.time].null_count()):
        raise UsageError(
            f"{missing:,} events have no time in {stream.time!r}.",
            remedy="fill or drop them first",
        )
    if stream.id is not None and (missing := fitted[stream.id].null_count()):
        raise UsageError(
            f"{missing:,} events have no id in {stream.id!r}.",
            remedy="fill or drop them first",
        )
    if stream.time is not None and fitted.height:
        bounds = fitted[stream.time].to_physical().cast(pl.Int64)
        if not (int(bounds.min()) >= _EARLIEST_US and int(bounds.max()) < _LATEST_US):  # type: ignore[arg-type]
            raise UsageError(
                f"Some times in {stream.time!r} are out of any calendar.",
                found="before the year 1, or after 9999",
                remedy="seconds, milliseconds and microseconds are easily mistaken: convert with "
                "pl.from_epoch(column, time_unit='s')",
            )
    return fitted


def _widens(have: Type, kind: Type, values: pl.Series) -> bool:
    """Tell whether `values`, of type `have`, are the same ones in `kind`."""
    if have is kind or (have is Type.BIGINT and kind is Type.DOUBLE):
        return True
    if values.null_count() == values.len():
        # Nothing but nulls has any type; so has what empty lists hold.
        return True
    if have.is_decimal and kind is Type.DOUBLE:
        return True
    if kind.is_decimal:
        found = values.to_frame("v").select(exact(pl.col("v"), values.dtype, kind)).to_series()
        return found.null_count() == values.null_count()
    if have.element is not None and kind.element is not None:
        return _widens(have.element, kind.element, values.explode().drop_nulls())
    if have.fields and kind.fields:
        known = dict(kind.fields)
        return all(n in known for n, _ in have.fields) and all(
            _widens(t, known[n], values.struct.field(n)) for n, t in have.fields
        )
    return False


def digest_of(rows: pl.DataFrame) -> str:
    """Return text that is the same for the same rows in the same order, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in rows.iter_slices(100_000):
        buffer = io.BytesIO()
        chunk.rechunk().write_ipc(buffer)
        digest.update(buffer.getbuffer())
    return digest.hexdigest()
