"""Convert a float32 graph to int8, in which a CPU computes several times as fast.

The quantization is post-training and static (Jacob et al. 2018, arXiv:1712.05877). Each activation gets one scale and
one zero point from the values that it takes on real photos. Each convolution's weights get one scale for each output
channel. ONNX Runtime's quantizer writes Q and DQ nodes around the float operators, and each execution provider turns
these nodes into its own int8 kernels. Pooled features, the classifier and the softmax stay in float32: they take
hardly any time, and 256 levels of probability would be too few.
"""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

# ONNX Runtime's int8 convolution kernels work on blocks of this many channels, and run other counts in slow code.
CHANNELS = 16

_QUANTIZED = ["Conv", "Relu", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"]
_BATCH = 2  # images; each further image takes 0.5 GB more memory during calibration


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._left = iter([{"images": pixels[i : i + _BATCH]} for i in range(0, len(pixels), _BATCH)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._left, None)


def quantize(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    """Return ``model`` in int8, calibrated on ``pixels``, uint8 ``[n, size, size, 3]``, the model's usual input.

    An activation's range is the mean of the batches' extremes. The extremes of all images would let one outlier widen
    the range and make all other values coarser.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)  # the quantizer would remove the weights from a model in memory
        quantize_static(
            given,
            path,
            _Batches(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        quantized = onnx.load(path)
    graph = quantized.graph
    read_bytes(graph)
    clip_sums(graph)
    _drop_unused(graph)
    quantized.ClearField("metadata_props")
    return quantized


def read_bytes(graph: onnx.GraphProto) -> None:
    """Let the first convolution read the image's bytes directly, without a cast to float and a quantization to bytes.

    This rewrite is exact. The calibrated scale is not: it follows the brightest pixel among the calibration photos.
    """
    # A uint8 pixel is its own quantized value, with scale 1 and zero point 0.
    (cast,) = [node for node in graph.node if node.op_type == "Cast"]
    (quantize_node,) = _readers(graph)[cast.output[0]]
    if quantize_node.op_type != "QuantizeLinear":  # the mean colour is subtracted first
        return
    scale, zero = f"{cast.name}_scale", f"{cast.name}_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), zero))
    for dequantize in _readers(graph)[quantize_node.output[0]]:
        dequantize.input[:] = [cast.input[0], scale, zero]
    graph.node.remove(cast)
    graph.node.remove(quantize_node)


def clip_sums(graph: onnx.GraphProto) -> None:
    """Where a sum is read both with and without a ReLU, replace the ReLU by a clip of the sum's bytes.

    ONNX Runtime merges a ReLU into the convolution before it, but not into a sum: there it would convert the bytes to
    float and back. The clip keeps the sum's scale, which costs at most one bit of the ReLU's output.
    """
    # With q = x / scale + zero, max(x, 0) is max(q, zero).
    made_by = {output: node for node in graph.node for output in node.output}
    readers = _readers(graph)
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        dequantize = made_by[relu.input[0]]
        if dequantize.op_type != "DequantizeLinear":
            continue
        levels, scale, zero = dequantize.input
        if made_by[made_by[levels].input[0]].op_type != "Add":
            continue
        clip = helper.make_node("Clip", [levels, zero], [f"{relu.output[0]}_levels"], name=f"{relu.name}_levels")
        graph.node.insert(list(graph.node).index(relu), clip)
        for requantize in readers[relu.output[0]]:
            for reader in readers[requantize.output[0]]:
                reader.input[:] = [clip.output[0], scale, zero]
            graph.node.remove(requantize)
        graph.node.remove(relu)


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes, weights and declared shapes that nothing uses after the rewrites."""
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if not read & set(node.output)]:
        graph.node.remove(node)
    _keep(graph.initializer, {name for node in graph.node for name in node.input})
    _keep(graph.value_info, {name for node in graph.node for name in node.output})


def _keep(named: Any, names: set[str]) -> None:
    for entry in [entry for entry in named if entry.name not in names]:
        named.remove(entry)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantizer's advice to preprocess the graph: torch's exporter has done so already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
