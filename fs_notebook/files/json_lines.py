"""Lines of JSON to rows, and what of them no column takes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from fs_notebook.log.decode import Malformed, decode_json
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type


def json_rows(lines: Sequence[bytes], stream: Stream) -> tuple[pl.DataFrame, Malformed]:
    """Return the rows of `lines`, and which lines are none and why; see `log.decode`."""
    return decode_json(lines, stream)


def unknown_fields(lines: Sequence[bytes], stream: Stream) -> list[str]:
    """Return the fields in `lines`, good ones all, that the stream has no place for, dotted.

    A reader of events passes over such fields. Who uploads them would lose them unseen.
    """
    try:
        schema = pl.scan_ndjson(
            io.BytesIO(b"\n".join(lines)), infer_schema_length=None
        ).collect_schema()
    except pl.exceptions.PolarsError:
        # Values of one field in several shapes: text takes them all, and Polars names no type.
        fields = dict.fromkeys(name for line in lines for name in json.loads(line))
        return [name for name in fields if name not in stream.names]
    return list(_unknown(dict(schema), dict(stream.columns), ""))


def _unknown(
    found: Mapping[str, pl.DataType], known: Mapping[str, Type], above: str
) -> Iterator[str]:
    for name, dtype in found.items():
        kind = known.get(name)
        if kind is None:
            yield above + name
            continue
        while isinstance(dtype, pl.List) and kind.element is not None:
            dtype, kind = dtype.inner, kind.element  # type: ignore[assignment]
        if isinstance(dtype, pl.Struct) and kind.fields:
            inner = {f.name: f.dtype for f in dtype.fields}
            yield from _unknown(inner, dict(kind.fields), f"{above}{name}.")  # type: ignore[arg-type]
