"""Protobuf payloads to frames, in bulk, through the library ptars.

What events become: integers BIGINT, floats DOUBLE, enums the names of their values, timestamps
TIMESTAMP, durations INTERVAL, repeated fields lists, messages structs, maps their JSON text. Bytes
have no type and are left out. A field of proto3 that was not sent is its default value, as the
format has it, unless it is declared ``optional`` or is a message: then it is null.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from fs_notebook.errors import DefinitionError, FeatureStoreError
from fs_notebook.log.decode import Malformed
from fs_notebook.log.nested import json_map

_DEEP_MAX = 32


class ProtobufPayloads:
    """Reads the messages of one schema.

    Parameters
    ----------
    text
        JSON as the schema registry has it for ``PROTOBUF_NATIVE``: ``fileDescriptorSet`` (base64
        of a serialised ``FileDescriptorSet``) and ``rootMessageTypeName``.

    Raises
    ------
    DefinitionError
        If it is no such schema, or its messages hold themselves.
    FeatureStoreError
        If the library ptars is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            import ptars
        except ImportError:
            raise FeatureStoreError(
                "Protobuf payloads are read with the library ptars, which is not installed.",
                remedy="pip install 'fs-notebook[protobuf]'",
            ) from None
        descriptor = _descriptor(text)
        _check_depth(descriptor, ())
        config = ptars.PtarsConfig(timestamp_unit="us", duration_unit="us", enum_repr="string")
        handlers = ptars.HandlerPool([descriptor.file], config)
        self._handler: Any = handlers.get_for_message(descriptor)

    @property
    def empty(self) -> pl.DataFrame:
        """The columns of no events."""
        return self._read([])

    def frame(self, payloads: Sequence[bytes]) -> tuple[pl.DataFrame, Malformed]:
        """Return a row for each good payload, in order, and why the others are not good."""
        bad: Malformed = {}
        parts = [self.empty]
        stack = [(0, len(payloads))] if payloads else []
        while stack:
            start, stop = stack.pop()
            try:
                parts.append(self._read(payloads[start:stop]))
            except (ValueError, pa.ArrowException) as error:
                if stop - start == 1:
                    bad[start] = f"no Protobuf message of its schema: {str(error)[:100]}"
                else:
                    middle = (start + stop) // 2
                    stack += [(middle, stop), (start, middle)]
        return pl.concat(parts), bad

    def _read(self, payloads: Sequence[bytes]) -> pl.DataFrame:
        batch = self._handler.array_to_record_batch(pa.array(payloads, pa.binary()))
        # A repeated field that holds text of other bytes than UTF-8 would be taken for text.
        batch.validate(full=True)
        frame = pl.DataFrame(pl.from_arrow(batch))
        fields = [f for f in batch.schema if _carried(f.type)]
        return frame.select(_shown(pl.col(f.name), f.type).alias(f.name) for f in fields)


def schema_text(descriptor_set: bytes, message: str) -> str:
    """Return the text that `ProtobufPayloads` takes, of a serialised ``FileDescriptorSet``.

    `message` is the full name of the message that an event is, such as ``shop.Order``.
    """
    encoded = base64.b64encode(descriptor_set).decode()
    return json.dumps({"fileDescriptorSet": encoded, "rootMessageTypeName": message})


def _descriptor(text: str) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.message import DecodeError

    try:
        given = json.loads(text)
        name = str(given["rootMessageTypeName"])
        files = descriptor_pb2.FileDescriptorSet()
        files.ParseFromString(base64.b64decode(given["fileDescriptorSet"]))
        pool = descriptor_pool.DescriptorPool()
        left = {f.name: f for f in files.file}

        def add(path: str) -> None:
            file = left.pop(path, None)
            if file is None:
                return
            for needed in file.dependency:
                if needed in left:
                    add(needed)
                elif not _has(pool, needed):
                    pool.AddSerializedFile(_well_known(needed))
            pool.AddSerializedFile(file.SerializeToString())

        for path in list(left):
            add(path)
        return pool.FindMessageTypeByName(name)
    except (ValueError, KeyError, TypeError, binascii.Error, DecodeError, RecursionError) as error:
        raise DefinitionError(
            "This is no Protobuf schema of events.",
            found=str(error)[:200],
            remedy="a descriptor set (protoc --include_imports --descriptor_set_out=FILE) and the "
            "full name of the message in it",
        ) from None


def _well_known(path: str) -> bytes:
    """Return one of the files that come with Protobuf itself, which sets may leave out."""
    name = path.removeprefix("google/protobuf/").removesuffix(".proto")
    try:
        module = importlib.import_module(f"google.protobuf.{name}_pb2")
    except ImportError:
        raise KeyError(f"{path} is not in the set") from None
    return bytes(module.DESCRIPTOR.serialized_pb)


def _has(pool: Any, path: str) -> bool:
    try:
        pool.FindFileByName(path)
    except KeyError:
        return False
    return True


def _check_depth(descriptor: Any, above: tuple[str, ...]) -> None:
    if descriptor.full_name in above or len(above) > _DEEP_MAX:
        raise DefinitionError(
            f"The Protobuf message {descriptor.full_name!r} holds itself.",
            found=" → ".join([*above, descriptor.full_name]),
            remedy="such events have no columns: publish a message without the recursive field",
        )
    for field in descriptor.fields:
        if field.message_type is not None:
            _check_depth(field.message_type, (*above, descriptor.full_name))


def _carried(kind: pa.DataType) -> bool:
    """Tell whether there is a type for it."""
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return False
    if pa.types.is_map(kind):
        return True
    if pa.types.is_list(kind):
        return _carried(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_carried(f.type) for f in kind)
    return True


def _shown(value: pl.Expr, kind: pa.DataType) -> pl.Expr:
    """Return a field as events carry it."""
    if pa.types.is_map(kind):
        item = kind.item_type
        shown = (lambda v: _shown(v, item)) if _carried(item) else None
        return json_map(value.map.entries(), shown)
    if pa.types.is_list(kind):
        return value.list.eval(_shown(pl.element(), kind.value_type))
    if pa.types.is_struct(kind):
        fields = [f for f in kind if _carried(f.type)]
        parts = [_shown(value.struct.field(f.name), f.type).alias(f.name) for f in fields]
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    return value.cast(pl.String) if pa.types.is_dictionary(kind) else value
