"""A model on disk: its graph in one file, its weights in another beside it.

ONNX Runtime maps weights that are a file of their own. Those in the graph's file it copies, more than once: loading
Inception-v4 takes twice the time then, and half as much memory again.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import onnx
from onnx.external_data_helper import set_external_data

_LEAST_BYTES = 1024  # smaller ones, shapes among them, stay in the graph
_ALIGNMENT = 64  # bytes of a cache line, and of the widest register


class Paths(NamedTuple):
    """Where a variant's files are."""

    graph: Path
    weights: Path


def paths(folder: Path, precision: str) -> Paths:
    """Return where the files of a variant are in ``folder``."""
    return Paths(folder / f"{precision}.onnx", folder / f"{precision}.onnx.data")


def write(model: onnx.ModelProto, folder: Path, precision: str) -> None:
    """Write both files, the same bytes each time; ``model`` loses its weights."""
    graph, weights = paths(folder, precision)
    with weights.open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _LEAST_BYTES:
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            set_external_data(tensor, weights.name, file.tell(), len(tensor.raw_data))
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    graph.write_bytes(model.SerializeToString(deterministic=True))


def remove(folder: Path, precision: str) -> None:
    """Remove both files."""
    for path in paths(folder, precision):
        path.unlink()
