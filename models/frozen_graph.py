"""Read the constants of a frozen TensorFlow graph, without TensorFlow.

The file is a GraphDef, a protocol buffer. The numbers of its fields are in TensorFlow's graph.proto, node_def.proto,
attr_value.proto, tensor.proto and tensor_shape.proto, under tensorflow/core/framework.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any

import torch
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from torch import Tensor

_FLOAT32 = 1


def read_constants(path: Path) -> dict[str, Tensor]:
    """Return the float32 constants of the graph by the names of their nodes, in the order of the file."""
    constants = {}
    for node in map(_fields, _fields(path.read_bytes())[1]):
        (name,), (operator,) = node[1], node[2]
        if operator == b"Const":
            attributes = {entry[1][0]: entry[2][0] for entry in map(_fields, node[5])}
            tensor = _fields(_fields(attributes[b"value"])[8][0])
            if tensor[1] == [_FLOAT32]:
                constants[name.decode()] = _tensor(tensor)
    return constants


def _tensor(fields: dict[int, list[Any]]) -> Tensor:
    (sizes,) = fields[2]
    shape = [size for dimension in _fields(sizes)[2] for size in _fields(dimension)[1]]
    (content,) = fields[4] or fields[5]  # raw bytes, or packed floats, of which one may stand for all
    return torch.frombuffer(bytearray(content), dtype=torch.float32).expand(prod(shape)).reshape(shape).contiguous()


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Return the values of a message's fields by the fields' numbers. To a message without fields, all are unknown."""
    fields = defaultdict(list)
    for field in UnknownFieldSet(Empty.FromString(message)):
        fields[field.field_number].append(field.data)
    return fields
