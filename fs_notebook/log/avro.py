"""Avro payloads to frames, in bulk: the datums of many messages are read as one container file.

A message carries a bare datum, without its schema. Strung together behind a header, many of them
are what Avro calls a container, which Polars reads at millions of rows a second. Behind each datum
goes a mark with its number, so that a datum which was read otherwise than it was written is
noticed.

What events become: integers BIGINT, floats DOUBLE, enums and UUIDs text, timestamps TIMESTAMP
(local ones are taken as UTC), times of day INTERVAL since midnight, arrays lists, records structs.
Maps, unions of several types and nulls by themselves become their JSON text. Bytes have no type and
are left out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cached_property
from itertools import chain
from typing import Any

import fastavro
import polars as pl

from fs_notebook.log import avro_check
from fs_notebook.log.avro_schema import Node, parse
from fs_notebook.log.decode import Malformed
from fs_notebook.log.nested import json_map

_MARK = "__mark"
_MARK_BASE = 2**40
_SYNC = b"fs-notebook-sync"

_marks: list[bytes] = []


class AvroPayloads:
    """Reads the datums of one schema.

    Parameters
    ----------
    text
        The schema as JSON, a record at its top.

    Raises
    ------
    DefinitionError
        If it is no schema of events.
    """

    def __init__(self, text: str) -> None:
        self._node = parse(text)
        self._schema: Any = fastavro.parse_schema(_physical(json.loads(text)))
        fields = zip(self._node.names, self._node.inner, strict=True)
        self._fields = [(n, f) for n, f in fields if _carried(f)]
        self._bulky = all(f.is_plain for f in self._node.inner)

    @cached_property
    def empty(self) -> pl.DataFrame:
        """The columns of no events."""
        return self._finished(pl.DataFrame(schema={n: _raw(f) for n, f in self._fields}))

    def frame(self, payloads: Sequence[bytes]) -> tuple[pl.DataFrame, Malformed]:
        """Return a row for each good payload, in order, and why the others are not good."""
        if not payloads:
            return self.empty, {}
        if not self._bulky:
            return self._one_by_one(payloads)
        misread = avro_check.misread(self._node, payloads)
        bad = {i: self._fault(payloads[i]) for i in misread.nonzero()[0].tolist()}
        good = payloads if not bad else [p for i, p in enumerate(payloads) if i not in bad]
        frame = self._bulk(good)
        return self._one_by_one(payloads) if frame is None else (frame, bad)

    def _bulk(self, payloads: Sequence[bytes]) -> pl.DataFrame | None:
        """Return what Polars reads, or None where it reads something else than was written."""
        if not payloads:
            return self.empty
        while len(_marks) < len(payloads):
            _marks.append(_long(_MARK_BASE + len(_marks)))
        body = b"".join(chain.from_iterable(zip(payloads, _marks, strict=False)))
        block = [_long(len(payloads)), _long(len(body)), body, _SYNC]
        try:
            found = pl.read_avro(io.BytesIO(b"".join([self._header, *block])))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError):
            return None
        base = pl.int_range(_MARK_BASE, _MARK_BASE + len(payloads), dtype=pl.Int64, eager=True)
        if found.height != len(payloads) or not (found.get_column(_MARK) == base).all():
            return None
        return self._finished(found)

    @cached_property
    def _header(self) -> bytes:
        written = _Written()
        fields = zip(self._node.names, self._node.inner, strict=True)
        record = {
            "type": "record",
            "name": "event",
            "fields": [
                *({"name": n, "type": written.schema(f)} for n, f in fields),
                {"name": _MARK, "type": "long"},
            ],
        }
        meta = {b"avro.schema": json.dumps(record).encode(), b"avro.codec": b"null"}
        parts = [b"Obj\x01", _long(len(meta))]
        for key, value in meta.items():
            parts += [_long(len(key)), key, _long(len(value)), value]
        return b"".join([*parts, _long(0), _SYNC])

    def _finished(self, found: pl.DataFrame) -> pl.DataFrame:
        columns = [_shown(pl.col(name), node).alias(name) for name, node in self._fields]
        return found.select(columns)

    def _fault(self, payload: bytes) -> str:
        return self._datum(payload)[1] or "no Avro datum of its schema"

    def _datum(self, payload: bytes) -> tuple[Any, str | None]:
        """Return one datum, or None and why it is malformed."""
        source = io.BytesIO(payload)
        try:
            value = fastavro.schemaless_reader(source, self._schema, None)
        except EOFError:
            return None, "no Avro datum of its schema: it ends too early"
        except Exception as error:  # noqa: BLE001 - whatever a decoder says of any bytes.
            return None, f"no Avro datum of its schema: {str(error)[:100]}"
        if left := len(payload) - source.tell():
            return None, f"no Avro datum of its schema: {left} bytes are left over"
        return value, None

    def _one_by_one(self, payloads: Sequence[bytes]) -> tuple[pl.DataFrame, Malformed]:
        """Read each datum for itself: slow, for rare schemas and what is not UTF-8."""
        misread = avro_check.misread(self._node, payloads)
        bad: Malformed = {}
        rows: list[list[Any]] = []
        for index, payload in enumerate(payloads):
            value, why = self._datum(payload)
            if why is None and misread[index]:
                why = "no Avro datum of its schema"
            if why is not None:
                bad[index] = why
                continue
            rows.append([_python(value[name], node) for name, node in self._fields])
        stored = {n: _stored(_raw(f)) for n, f in self._fields}
        frame = pl.DataFrame(rows, schema=stored, orient="row")
        return self._finished(frame.cast({n: _raw(f) for n, f in self._fields})), bad


class _Written:
    """The schema under which Polars reads: as the datums were written, in the forms it knows."""

    def __init__(self) -> None:
        self._count = 0

    def schema(self, node: Node) -> Any:
        match node.form:
            case "union":
                return [self.schema(n) for n in node.inner]
            case "array":
                return {"type": "array", "items": self.schema(node.inner[0])}
            case "map":
                entry = Node("record", None, (Node("string"), *node.inner), ("key", "value"))
                return {"type": "array", "items": self.schema(entry)}
            case "record":
                fields = zip(node.names, node.inner, strict=True)
                made = [{"name": n, "type": self.schema(f)} for n, f in fields]
                return {"type": "record", "name": self._name(), "fields": made}
            case "enum":
                # Written as the number of the symbol; Polars fails on enums inside arrays.
                return "int"
        made_: dict[str, Any] = {"type": node.form}
        if node.form == "fixed":
            made_ |= {"name": self._name(), "size": node.size}
        if node.logical == "decimal":
            made_ |= {"logicalType": "decimal", "precision": _DIGITS_MAX, "scale": node.digits[1]}
        elif node.logical in _POLARS_READS:
            made_["logicalType"] = node.logical
        return made_

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"


_DIGITS_MAX = 38
_OTHERWISE = ("timestamp-nanos", "time-millis", "time-micros", "decimal")
_POLARS_READS = (
    "date", "timestamp-millis", "timestamp-micros", "local-timestamp-millis",
    "local-timestamp-micros",
)  # fmt: skip

_SCALARS: dict[str, pl.DataType] = {
    "boolean": pl.Boolean(), "int": pl.Int32(), "long": pl.Int64(), "float": pl.Float32(),
    "double": pl.Float64(), "string": pl.String(), "enum": pl.Int32(), "bytes": pl.Binary(),
    "fixed": pl.Binary(),
}  # fmt: skip

_MOMENTS: dict[str, pl.DataType] = {
    "date": pl.Date(),
    "timestamp-millis": pl.Datetime("ms", "UTC"),
    "timestamp-micros": pl.Datetime("us", "UTC"),
    "local-timestamp-millis": pl.Datetime("ms"),
    "local-timestamp-micros": pl.Datetime("us"),
}


def _carried(node: Node) -> bool:
    """Tell whether there is a type for it: not for bytes, and not for what holds nothing else."""
    if node.form in ("bytes", "fixed"):
        return node.logical == "decimal"
    if not node.is_plain or node.form == "map":
        return True
    if node.form == "record":
        return any(_carried(n) for n in node.inner)
    return all(_carried(n) for n in node.inner if n.form != "null")


def _raw(node: Node) -> pl.DataType:
    """Return the type in which Polars reads a place, or in which it is given one by one."""
    if not node.is_plain:
        return pl.String()
    match node.form:
        case "union":
            assert node.optional is not None
            return _raw(node.optional)
        case "array":
            return pl.List(_raw(node.inner[0]))
        case "map":
            entry = [pl.Field("key", pl.String()), pl.Field("value", _raw(node.inner[0]))]
            return pl.List(pl.Struct(entry))
        case "record":
            fields = zip(node.names, node.inner, strict=True)
            return pl.Struct([pl.Field(n, _raw(f)) for n, f in fields])
    if node.logical == "decimal":
        return pl.Decimal(_DIGITS_MAX, node.digits[1])
    return _MOMENTS.get(node.logical or "", _SCALARS[node.form])


def _stored(dtype: pl.DataType) -> pl.DataType:
    """Return the type of the numbers that times are stored as."""
    if isinstance(dtype, pl.List):
        assert isinstance(dtype.inner, pl.DataType)
        return pl.List(_stored(dtype.inner))
    if isinstance(dtype, pl.Struct):
        inside = [(f.name, f.dtype) for f in dtype.fields]
        return pl.Struct([pl.Field(n, _stored(t)) for n, t in inside if isinstance(t, pl.DataType)])
    if dtype == pl.Date:
        return pl.Int32()
    return pl.Int64() if isinstance(dtype, pl.Datetime) else dtype


def _shown(value: pl.Expr, node: Node) -> pl.Expr:
    """Return a place as events carry it."""
    if not node.is_plain or not _changes(node):
        return value
    match node.form:
        case "union":
            assert node.optional is not None
            return _shown(value, node.optional)
        case "enum":
            numbers = list(range(len(node.names)))
            return value.replace_strict(numbers, list(node.names), return_dtype=pl.String)
        case "array":
            return value.list.eval(_shown(pl.element(), node.inner[0]))
        case "map":
            inner = node.inner[0]
            return json_map(value, (lambda v: _shown(v, inner)) if _carried(inner) else None)
        case "record":
            fields = zip(node.names, node.inner, strict=True)
            parts = [_shown(value.struct.field(n), f).alias(n) for n, f in fields if _carried(f)]
            return pl.when(value.is_not_null()).then(pl.struct(parts))
    match node.logical:
        case "timestamp-nanos":
            return (value // 1_000).cast(pl.Datetime("us", "UTC"))
        case "time-millis":
            return (value.cast(pl.Int64) * 1_000).cast(pl.Duration("us"))
        case "time-micros":
            return value.cast(pl.Duration("us"))
        case "decimal":
            return value.cast(pl.Decimal(*node.digits), strict=False)
    return value


def _changes(node: Node) -> bool:
    """Tell whether events carry a place otherwise than Polars reads it."""
    if node.form in ("enum", "map") or node.logical in _OTHERWISE or not _carried(node):
        return True
    return any(_changes(n) for n in node.inner if n.form != "null")


def _python(value: Any, node: Node) -> Any:
    """Return a datum's value for the type that `_raw` says, of what fastavro gave."""
    if value is None:
        return None
    if not node.is_plain:
        return json.dumps(value, default=bytes.hex, ensure_ascii=False)
    match node.form:
        case "union":
            assert node.optional is not None
            return _python(value, node.optional)
        case "array":
            return [_python(v, node.inner[0]) for v in value]
        case "map":
            return [{"key": k, "value": _python(v, node.inner[0])} for k, v in value.items()]
        case "record":
            return {n: _python(value[n], f) for n, f in zip(node.names, node.inner, strict=True)}
    if node.form == "enum":
        return node.names.index(value)
    if node.logical == "decimal":
        return Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-node.digits[1], _EXACT)
    return value


_EXACT = Context(prec=60)


def _physical(schema: Any) -> Any:
    """Return a schema without logical types: values as they are stored, whatever they stand for."""
    if isinstance(schema, list):
        return [_physical(s) for s in schema]
    if isinstance(schema, dict):
        return {
            k: _physical(v) if k in ("type", "items", "values", "fields") else v
            for k, v in schema.items()
            if k != "logicalType"
        }
    return schema


def _long(value: int) -> bytes:
    """Return an integer as Avro writes it."""
    left, parts = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        parts.append(left & 0x7F | 0x80)
        left >>= 7
    parts.append(left)
    return bytes(parts)
