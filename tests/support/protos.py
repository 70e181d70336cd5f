"""A Protobuf schema for tests, made without a compiler."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from fs_notebook.log.protobuf import schema_text

_Field = descriptor_pb2.FieldDescriptorProto


def order_file(*, with_coupon: bool = False, recursive: bool = False) -> Any:
    """Return the file ``shop.proto`` with a message ``shop.Order``."""
    file = descriptor_pb2.FileDescriptorProto(
        name="shop.proto", package="shop", syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )  # fmt: skip
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="NEW", number=0)
    kind.value.add(name="USED", number=1)
    order = file.message_type.add(name="Order")
    one, many = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
    stamp = ".google.protobuf.Timestamp"
    order.field.add(name="user", number=1, type=_Field.TYPE_STRING, label=one)
    order.field.add(name="n", number=2, type=_Field.TYPE_INT64, label=one)
    order.field.add(name="at", number=3, type=_Field.TYPE_MESSAGE, type_name=stamp, label=one)
    order.field.add(name="kind", number=4, type=_Field.TYPE_ENUM, type_name=".shop.Kind", label=one)
    order.field.add(name="tags", number=5, type=_Field.TYPE_STRING, label=many)
    order.field.add(name="raw", number=6, type=_Field.TYPE_BYTES, label=one)
    order.field.add(name="big", number=7, type=_Field.TYPE_UINT64, label=one)
    price = order.field.add(name="price", number=8, type=_Field.TYPE_DOUBLE, label=one)
    price.proto3_optional, price.oneof_index = True, 0
    order.oneof_decl.add(name="_price")
    entry = order.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=_Field.TYPE_INT32, label=one)
    order.field.add(
        name="attributes", number=9, type=_Field.TYPE_MESSAGE,
        type_name=".shop.Order.AttributesEntry", label=many,
    )  # fmt: skip
    if with_coupon:
        order.field.add(name="coupon", number=10, type=_Field.TYPE_STRING, label=one)
    if recursive:
        order.field.add(
            name="parent", number=11, type=_Field.TYPE_MESSAGE, type_name=".shop.Order", label=one
        )
    return file


def order_schema(**options: bool) -> str:
    """Return the schema's text, as the registry has it."""
    files = descriptor_pb2.FileDescriptorSet()
    files.file.append(order_file(**options))
    timestamp_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    text = schema_text(files.SerializeToString(), "shop.Order")
    # The broker wants it, to check the schema; reading does without.
    return json.dumps(json.loads(text) | {"rootFileDescriptorName": "shop.proto"})


def order_class(**options: bool) -> Any:
    """Return the class of messages."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(order_file(**options).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))
