"""The highest rate of a model that a card allows, from its multiply-adds and from the bytes that it moves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import onnx


class Costs(NamedTuple):
    """The cost of one image: multiply-adds, and bytes that its activations move through the device's memory.

    ``separate`` are the bytes if each node runs in a kernel of its own. ``biases`` are the further bytes if biases are
    added in separate kernels. ``fused`` are the bytes if Relu and Add run in the kernel that makes their input.
    Weights are left out: they are read once a batch. Caches, which save traffic, are ignored.
    """

    macs: float
    biases: float
    separate: float
    fused: float


def bounds(graph: Path, precision: str, tflops: float, tb_per_s: float) -> dict[str, float]:
    """Return the images a second that arithmetic and bandwidth allow for an ONNX file in large batches."""
    cost = costs(onnx.load(graph, load_external_data=False).graph, 2 if precision == "fp16" else 4)
    return {
        "gmacs": cost.macs / 1e9,
        "mb_as_onnxruntime": (cost.separate + cost.biases) / 1e6,
        "by_arithmetic": tflops * 1e12 / (2 * cost.macs),
        "as_onnxruntime": tb_per_s * 1e12 / (cost.separate + cost.biases),
        "with_bias_fused": tb_per_s * 1e12 / cost.separate,
        "with_all_fused": tb_per_s * 1e12 / cost.fused,
    }


def costs(graph: onnx.GraphProto, width: int) -> Costs:
    """Return the costs of one image in a graph whose values take ``width`` bytes each."""
    values = (*graph.value_info, *graph.input, *graph.output)
    elements = {v.name: math.prod(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in values}
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    macs = biases = separate = fused = 0.0
    for node in graph.node:
        read = [elements[name] for name in node.input if name in elements]
        written = _sum(elements, node.output)
        if node.op_type == "Conv":
            macs += written * math.prod(weights[node.input[1]][1:])
            biases += 2 * written * width * (len(node.input) > 2)
        elif node.op_type == "Gemm":
            macs += math.prod(weights[node.input[1]])
        moved = (sum(read) + written) * width
        separate += moved
        if node.op_type == "Add":
            fused += read[-1] * width  # the shortcut alone: the other operand stays in the multiprocessor
        elif node.op_type not in ("Relu", "Cast", "Transpose", "Reshape"):
            fused += moved
    return Costs(macs, biases, separate, fused)


def _sum(elements: dict[str, int], names: Iterable[str]) -> int:
    return sum(elements[name] for name in names if name in elements)
