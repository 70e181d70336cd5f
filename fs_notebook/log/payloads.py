"""From the payloads of messages to rows, in whatever format a stream is written.

JSON needs nothing but the declaration. Avro and Protobuf are read by the very schema that each
event was written with: the one that the stream declares, or else the one that the topic's schema
registry has under the message's version. So events from before and after a change of schema lie in
one stream: a column that one of them was written without is null there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import polars as pl

from fs_notebook.decimals import exact, widens
from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.log.beside import payload_of
from fs_notebook.log.decode import Malformed, decode_json, times_of
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type, type_of

FORMATS = ("json", "avro", "protobuf")

Version = int | None
"""A schema's version in the topic's registry; None of a message that names none."""

_MS_MAX = 2**63 // 1000

SchemaOf = Callable[[Version], str | None]
"""Gives the text of a version's schema, or None if the registry has no such version."""


class _Payloads(Protocol):
    @property
    def empty(self) -> pl.DataFrame: ...

    def frame(self, payloads: Sequence[bytes]) -> tuple[pl.DataFrame, Malformed]: ...


class PayloadReader:
    """Reads the payloads of one stream.

    Parameters
    ----------
    stream
        Its declaration.
    schema_of
        Gives the schemas of versions; not asked where the stream declares its own.

    Raises
    ------
    UsageError
        If the declaration names a format that there is not.
    """

    def __init__(self, stream: Stream, schema_of: SchemaOf | None = None) -> None:
        if stream.format not in FORMATS:
            raise UsageError(
                f"Stream {stream.name!r} declares an unknown format.",
                found=stream.format,
                remedy=f"one of {', '.join(FORMATS)}",
            )
        self.stream = stream
        self._inside = payload_of(stream)
        self.versioned = stream.format != "json" and stream.schema is None
        self._schema_of = schema_of
        self._known: dict[Version, _Payloads | str] = {}

    @property
    def takes_arrow(self) -> bool:
        """Whether Arrow batches may lie among the messages, each row an event of its own."""
        return self.stream.format == "json"

    def rows(
        self, payloads: Sequence[bytes], versions: Callable[[], Sequence[tuple[int, Version]]]
    ) -> tuple[pl.DataFrame, Malformed]:
        """Return the events of `payloads`, one each.

        Parameters
        ----------
        payloads
            One event each.
        versions
            Gives runs of payloads that were written with one version of the schema: how many, and
            which. Asked only where it matters.

        Returns
        -------
        (pl.DataFrame, Malformed)
            The payload's columns in canonical types, a row for each good payload in order; and the
            malformed payloads.
        """
        if self.stream.format == "json":
            return decode_json(payloads, self._inside)
        runs = _joined(versions()) if self.versioned else [(len(payloads), None)]
        parts = [pl.DataFrame(schema={n: t.polars for n, t in self._inside.columns})]
        bad: Malformed = {}
        start = 0
        for count, version in runs:
            part, wrong = self._run(payloads[start : start + count], version)
            parts.append(part)
            bad |= {start + i: why for i, why in wrong.items()}
            start += count
        return pl.concat(parts), bad

    def _run(self, payloads: Sequence[bytes], version: Version) -> tuple[pl.DataFrame, Malformed]:
        decoder = self._decoder(version)
        if isinstance(decoder, str):
            nothing = pl.DataFrame(schema={n: t.polars for n, t in self._inside.columns})
            return nothing, dict.fromkeys(range(len(payloads)), decoder)
        raw, bad = decoder.frame(payloads)
        frame, unfit = declared(raw, self._inside)
        if unfit:
            kept = [i for i in range(len(payloads)) if i not in bad]
            bad = bad | {kept[row]: why for row, why in unfit.items()}
        return frame, bad

    def _decoder(self, version: Version) -> _Payloads | str:
        """Return what reads a version's payloads, or why nothing does."""
        if version not in self._known:
            self._known[version] = self._made(version)
        return self._known[version]

    def _made(self, version: Version) -> _Payloads | str:
        text = self.stream.schema
        if text is None:
            text = None if self._schema_of is None else self._schema_of(version)
        if text is None:
            return f"schema version {version} is not in the topic's registry"
        if self.versioned:
            try:
                return reader_of(self.stream.format, text)
            except DefinitionError as error:
                return f"schema version {version}: {error.message} {error.found or ''}".strip()
        return reader_of(self.stream.format, text)


def _joined(runs: Sequence[tuple[int, Version]]) -> list[tuple[int, Version]]:
    """Return runs with neighbours of one version taken together: they are decoded at once."""
    joined: list[tuple[int, Version]] = []
    for count, version in runs:
        if joined and joined[-1][1] == version:
            joined[-1] = (joined[-1][0] + count, version)
        else:
            joined.append((count, version))
    return joined


def reader_of(format_: str, text: str) -> _Payloads:
    """Return what reads payloads of one schema.

    Raises
    ------
    DefinitionError
        If `text` is no schema of that format.
    """
    if format_ == "avro":
        from fs_notebook.log.avro import AvroPayloads

        return AvroPayloads(text)
    from fs_notebook.log.protobuf import ProtobufPayloads

    return ProtobufPayloads(text)


def columns_of(format_: str, text: str) -> list[tuple[str, Type]]:
    """Return the columns that payloads of a schema have; those without a type are left out."""
    empty = reader_of(format_, text).empty
    return [(n, type_of(t, column=n)) for n, t in empty.schema.items()]


def declared(raw: pl.DataFrame, stream: Stream) -> tuple[pl.DataFrame, Malformed]:
    """Return `raw` in the stream's columns and types, and the rows that do not fit, with a reason.

    What fits is as in JSON: an integer in a DOUBLE, any single value in a VARCHAR, text or integer
    microseconds in a TIMESTAMP; nothing is rounded or cut off.
    """
    columns: list[pl.Series] = []
    bad: Malformed = {}
    for name, kind in stream.columns:
        if name not in raw.columns:
            columns.append(pl.repeat(None, raw.height, dtype=kind.polars, eager=True).alias(name))
            continue
        values = raw.get_column(name)
        fitted = _fitted(values, kind)
        lost = fitted.is_null() & values.is_not_null()
        for row in lost.arg_true() if lost.any() else ():
            bad.setdefault(row, f"column {name!r} holds {str(values[row])[:60]!r}, declared {kind}")
        columns.append(fitted.alias(name))
    frame = pl.DataFrame(columns)
    if bad:
        keep = pl.Series([row not in bad for row in range(raw.height)], dtype=pl.Boolean)
        frame = frame.filter(keep)
    return frame, bad


def _fitted(values: pl.Series, kind: Type) -> pl.Series:
    """Return values in the type `kind`, null where they do not fit it."""
    have, want = values.dtype, kind.polars
    if have == want:
        return values
    if kind is Type.TIMESTAMP and have == pl.String:
        return times_of(values)
    if kind is Type.DATE and have == pl.String:
        return values.str.to_date("%Y-%m-%d", strict=False)
    if kind.is_decimal:
        return pl.select(exact(pl.lit(values), have, kind)).to_series()
    if not _may(have, kind):
        return pl.repeat(None, len(values), dtype=want, eager=True)
    if kind.is_scalar:
        return pl.select(_cast(pl.lit(values), have, kind, strict=False)).to_series()
    return _nested(values, kind)


def _nested(values: pl.Series, kind: Type) -> pl.Series:
    """Return lists or structs in another type; those with a value that does not fit are null."""
    parts = [pl.Series(values.name, [], dtype=kind.polars)]
    stack = [(0, len(values))]
    while stack:
        start, count = stack.pop()
        part = values.slice(start, count)
        try:
            parts.append(pl.select(_cast(pl.lit(part), part.dtype, kind, strict=True)).to_series())
        except pl.exceptions.PolarsError:
            if count == 1:
                parts.append(pl.Series(values.name, [None], dtype=kind.polars))
            else:
                half = count // 2
                stack += [(start + half, count - half), (start, half)]
    return pl.concat([p.alias(values.name) for p in parts])


def _cast(value: pl.Expr, have: pl.DataType, kind: Type, *, strict: bool) -> pl.Expr:
    if have == kind.polars:
        return value
    if kind.element is not None:
        assert isinstance(have, pl.List)
        assert isinstance(have.inner, pl.DataType)
        return value.list.eval(_cast(pl.element(), have.inner, kind.element, strict=strict))
    if kind.fields:
        assert isinstance(have, pl.Struct)
        inside = {f.name: f.dtype for f in have.fields if isinstance(f.dtype, pl.DataType)}
        parts = [
            _cast(value.struct.field(n), inside[n], k, strict=strict).alias(n)
            if n in inside
            else pl.lit(None, dtype=k.polars).alias(n)
            for n, k in kind.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    if isinstance(have, pl.Datetime) and kind is Type.TIMESTAMP:
        if have.time_unit == "ms":
            # What microseconds cannot count.
            value = pl.when(value.to_physical().abs() <= _MS_MAX).then(value)
        zone = value.dt.replace_time_zone("UTC") if have.time_zone is None else value
        return zone.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return value.cast(kind.polars, strict=strict)


def _may(have: pl.DataType, kind: Type) -> bool:
    """Tell whether values of a Polars type can be ones of `kind`."""
    if kind.element is not None:
        inner = have.inner if isinstance(have, pl.List) else None
        return isinstance(inner, pl.DataType) and _may(inner, kind.element)
    if kind.fields:
        if not isinstance(have, pl.Struct):
            return False
        inside = {f.name: f.dtype for f in have.fields}
        return all(
            _may(t, k) for n, k in kind.fields if isinstance(t := inside.get(n), pl.DataType)
        )
    if have == kind.polars:
        return True
    if kind.is_decimal:
        return widens(have, kind)
    match kind:
        case Type.BIGINT:
            return have.is_integer()
        case Type.DOUBLE:
            return have.is_numeric()
        case Type.VARCHAR:
            return not have.is_nested() and have != pl.Binary
        case Type.TIMESTAMP:
            return have.is_integer() or have in (pl.Datetime, pl.Date)
        case Type.INTERVAL:
            return have.is_integer() or have == pl.Duration
    return False
