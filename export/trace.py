"""Translate a fused network into an ONNX graph that reveals nothing about the machine that wrote it."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import onnx
import onnxscript
import torch
from torch import Tensor, nn

from models.deform_conv import DeformConv2d

# Torch writes its translations in this operator set and reaches later sets through a version converter. Later sets
# change none of the operators used here, and fewer runtimes read them.
OPSET = 18
DEFORM_CONV_OPSET = 19  # the first one with DeformConv

_FOLDED_AWAY = {"BatchNormalization", "Sub", "Div"}
_ABSOLUTE_PATH = re.compile(r"(?<![\w./])(/[\w.-]+/|[A-Za-z]:\\)")


class _WithProbabilities(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images).float()  # softmax runs in float32 for any precision of the network
        return logits.softmax(1), logits


def _global_average_pool(x: onnxscript.FLOAT, output_size: Sequence[int]) -> onnxscript.FLOAT:
    """Translate AdaptiveAvgPool2d(1) to one operator. Torch's translation has ten, for any output size."""
    if tuple(output_size) != (1, 1):
        raise ValueError(f"adaptive pooling to {tuple(output_size)} has no translation, only to (1, 1)")
    return onnxscript.opset18.GlobalAveragePool(x)


def _deform_conv(
    x: onnxscript.FLOAT,
    offset: onnxscript.FLOAT,
    weight: onnxscript.FLOAT,
    bias: onnxscript.FLOAT | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> onnxscript.FLOAT:
    return onnxscript.opset19.DeformConv(
        x, weight, offset, bias, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups
    )


def trace(network: nn.Module, size: int) -> onnx.ModelProto:
    """Translate ``network`` to ONNX. The same package versions give the same bytes each time, in any folder.

    ``network`` maps uint8 ``[n, size, size, 3]`` to logits ``[n, classes]``, in float32 or float16. The graph maps
    ``images`` to ``probabilities`` and ``logits``, both float32, for any n.
    """
    deforms = any(isinstance(module, DeformConv2d) for module in network.modules())
    with _without_known_noise():
        program = torch.onnx.export(
            _WithProbabilities(network).eval(),
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),  # torch would make a batch of 1 a constant
            input_names=["images"],
            output_names=["probabilities", "logits"],
            dynamic_shapes=({0: "batch"},),
            opset_version=DEFORM_CONV_OPSET if deforms else OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={
                torch.ops.aten.adaptive_avg_pool2d.default: _global_average_pool,
                torch.ops.inferception.deform_conv2d.default: _deform_conv,
            },
        )
    model = cast("torch.onnx.ONNXProgram", program).model_proto
    _strip(model)
    return model


def check_contract(model: onnx.ModelProto, *, size: int, classes: int) -> None:
    """Raise ValueError, naming every breach, unless ``model`` keeps the contract that the service relies on.

    The contract: the graph maps ``images``, uint8 ``[batch, size, size, 3]``, to ``probabilities`` and ``logits``, both
    float32 ``[batch, classes]``. No value has another dynamic dimension. BatchNorm and normalisation are folded away,
    but for the subtraction of the mean before a convolution with padding. The file contains no absolute path.
    """
    graph = model.graph
    breaches = []
    signature = {value.name: _type(value) for value in (*graph.input, *graph.output)}
    expected = {
        "images": ("UINT8", ["batch", size, size, 3]),
        "probabilities": ("FLOAT", ["batch", classes]),
        "logits": ("FLOAT", ["batch", classes]),
    }
    if signature != expected:
        breaches.append(f"its inputs and outputs are {signature}, not {expected}")
    for value in graph.value_info:
        batch, *others = _type(value)[1] or [0]
        if batch != "batch" or not all(isinstance(side, int) and side > 0 for side in others):
            breaches.append(f"{value.name} has the shape {_type(value)[1]}: only the first dimension may be dynamic")
    mean_colour = [node for node in graph.node if node.op_type == "Sub" and _is_before_padding(graph, node)]
    if unfolded := {node.op_type for node in graph.node if node not in mean_colour} & _FOLDED_AWAY:
        breaches.append(f"it still computes {', '.join(sorted(unfolded))}")
    if path := _ABSOLUTE_PATH.search(str(_without_weights(model))):
        breaches.append(f"it holds an absolute path ({path.group()}...)")
    if breaches:
        raise ValueError(f"the exported graph breaks its contract: {'; '.join(breaches)}")


def _is_before_padding(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Tell whether the first convolution after ``node`` has padding. A graph's nodes are in the order of their work."""
    nodes = list(graph.node)
    convolutions = (later for later in nodes[nodes.index(node) :] if later.op_type == "Conv")
    attributes = next((convolution.attribute for convolution in convolutions), ())
    return any(attribute.name == "pads" and any(attribute.ints) for attribute in attributes)


def _type(value: onnx.ValueInfoProto) -> tuple[str, list[int | str]]:
    tensor = value.type.tensor_type
    sides = [side.dim_param or side.dim_value for side in tensor.shape.dim]
    return onnx.TensorProto.DataType.Name(tensor.elem_type), sides


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    return bare


def _strip(model: onnx.ModelProto) -> None:
    """Remove torch's metadata, which includes stack traces with this machine's paths, and repeated weight shapes."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    weights = {tensor.name for tensor in graph.initializer}
    activations = [value for value in graph.value_info if value.name not in weights]
    graph.ClearField("value_info")
    graph.value_info.extend(activations)


@contextmanager
def _without_known_noise() -> Iterator[None]:
    """Silence two messages of torch's exporter on every run: torchvision is absent, and a deprecation in torch."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
