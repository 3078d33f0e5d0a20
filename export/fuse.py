"""Exact rewrites of a network: fewer and cheaper operators that compute the same function.

Each rewrite changes a ``torch.fx`` graph of layers in place. The graph is in evaluation mode, and the rewrite is exact
for any weights. ``fuse`` computes new weights in float64, which rounds far less than float32, and casts the result to
float32.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.deform_conv import DeformConv2d
from models.layers import SameMaxPool2d
from models.spec import Preprocessing


class _LayerTracer(fx.Tracer):
    """Traces a network down to its layers. SameMaxPool2d, which reads sizes, and DeformConv2d stay whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, SameMaxPool2d | DeformConv2d) or super().is_leaf_module(m, module_qualified_name)


def trace_layers(model: nn.Module) -> fx.GraphModule:
    """Return a float64 copy of ``model`` in evaluation mode, as a graph of layers."""
    model = copy.deepcopy(model).double().eval()
    return fx.GraphModule(model, _LayerTracer().trace(model))


def fuse(model: nn.Module, preprocessing: Preprocessing) -> fx.GraphModule:
    """Return a copy of ``model`` with every rewrite applied.

    The copy takes RGB pixels, uint8 ``[n, height, width, 3]``, and returns float32 logits ``[n, num_classes]``.
    ``model`` returns the same logits for the pixels normalised with the mean and std of ``preprocessing``.
    """
    graph = trace_layers(model)
    fold_batch_norm(graph)
    fold_normalisation(graph, preprocessing)
    move_pool_after_projection(graph)
    graph.float()
    return graph


def fold_batch_norm(graph: fx.GraphModule) -> None:
    """Fold each BatchNorm into the convolution or linear layer before it."""
    # In evaluation BatchNorm is s y + t for each channel, and s (W x + b) + t = (s W) x + (s b + t).
    for before, layer, node, norm in _chained_layers(graph):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            graph.set_submodule(str(before.target), fuse_conv_bn_eval(layer, norm))
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            graph.set_submodule(str(before.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    _tidy(graph)


def fold_normalisation(graph: fx.GraphModule, preprocessing: Preprocessing) -> None:
    """Fold ``(x / 255 - mean) / std`` into the first convolution, so that the input is uint8 ``[n, h, w, 3]`` in RGB.

    Before a convolution with padding, the subtraction of the mean stays. Raises ValueError unless the network starts
    with one convolution without groups.
    """
    # W ((x / 255 - m) / s) + b = (W / 255 s) x + (b - W (m / s)), with m and s the mean and std of each input channel.
    # Padding breaks the second form: padded zeros are added after normalisation, where a zero means the mean colour.
    # It leaves the first form, (W / 255 s) (x - 255 m) + b. Weights for BGR in reverse order are weights for RGB.
    (images,) = graph.graph.find_nodes(op="placeholder")
    first, *others = images.users
    conv = graph.get_submodule(first.target) if first.op == "call_module" else None
    if others or not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        raise ValueError("normalisation folds only into a first convolution without groups")
    mean = conv.weight.new_tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = conv.weight.new_tensor(preprocessing.std).view(1, 3, 1, 1)
    kernel = conv.weight if preprocessing.channel_order == "rgb" else conv.weight.flip(1)
    conv.weight = nn.Parameter(kernel / (255 * std))
    is_padded = conv.padding != (0, 0)
    if not is_padded:
        shift = (kernel * mean / std).sum((1, 2, 3))
        conv.bias = nn.Parameter(-shift if conv.bias is None else conv.bias - shift)
    with graph.graph.inserting_before(first):
        planes = graph.graph.call_method("permute", (images, 0, 3, 1, 2))  # moves bytes, a quarter of floats' traffic
        weight = graph.graph.get_attr(f"{first.target}.weight")
        pixels = graph.graph.call_method("type_as", (planes, weight))
        if is_padded and mean.any():
            graph.register_buffer("mean_colour", 255 * mean)
            pixels = graph.graph.call_function(operator.sub, (pixels, graph.graph.get_attr("mean_colour")))
    first.replace_input_with(images, pixels)
    _tidy(graph)


def move_pool_after_projection(graph: fx.GraphModule) -> None:
    """Exchange each stride-1 average pool with the 1x1 convolution after it, if that convolution reduces channels."""
    # The pool ignores padding, so a pooled pixel is a mean: sum_q a_q x_q with sum_q a_q = 1 and the same a_q in all
    # channels. The convolution treats all pixels alike, so W (sum_q a_q x_q) + b = sum_q a_q (W x_q + b).
    for before, pool, node, conv in _chained_layers(graph):
        if not (isinstance(pool, nn.AvgPool2d) and isinstance(conv, nn.Conv2d)):
            continue
        is_mean = not pool.count_include_pad and pool.divisor_override is None
        is_pixelwise = (conv.kernel_size, conv.stride, conv.padding) == ((1, 1), (1, 1), (0, 0))
        is_cheaper = pool.stride in (1, (1, 1)) and conv.out_channels < conv.in_channels
        if is_mean and is_pixelwise and is_cheaper:
            before.target, node.target = node.target, before.target
    _tidy(graph)


def fold_scale(graph: fx.GraphModule) -> None:
    """Fold each product of a convolution and a constant, as in a scaled residual, into the convolution.

    ONNX Runtime does so itself in float32, but in int8 would compute the product in float32.
    """
    # s (W x + b) = (s W) x + s b.
    for node in graph.graph.find_nodes(op="call_function", target=operator.mul):
        before, scale = node.args
        if not isinstance(scale, float) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv = graph.get_submodule(before.target)
        if isinstance(conv, nn.Conv2d):
            conv.weight = nn.Parameter(conv.weight * scale)
            conv.bias = None if conv.bias is None else nn.Parameter(conv.bias * scale)
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    _tidy(graph)


def pad_channels(graph: fx.GraphModule, multiple: int) -> None:
    """Round each convolution's channels up to a ``multiple``, for kernels that work on blocks of channels.

    The network stays as it is if padding would change the inputs of a concatenation or of the classifier, or if it has
    a grouped convolution that is not one filter for each channel, or a deformable convolution.
    """

    def padded(channels: int) -> int:
        return -(-channels // multiple) * multiple

    convs = [module for module in graph.modules() if isinstance(module, nn.Conv2d)]
    grown = [conv for conv in convs if padded(conv.out_channels) != conv.out_channels]
    others = [conv for conv in convs if isinstance(conv, DeformConv2d) or conv.groups not in (1, conv.out_channels)]
    if grown and (others or convs[-1] in grown or graph.graph.find_nodes(op="call_function", target=torch.cat)):
        return
    # An added channel has zero weights and a zero bias, so its values are zero. ReLU, ELU, pooling and sums keep them
    # zero, and the next convolution reads them with zero weights.
    for conv in convs:
        depthwise = conv.groups == conv.in_channels > 1
        inputs = conv.in_channels if conv is convs[0] else padded(conv.in_channels)
        added = padded(conv.out_channels) - conv.out_channels
        conv.weight = nn.Parameter(
            functional.pad(conv.weight, (0, 0, 0, 0, 0, 0 if depthwise else inputs - conv.in_channels, 0, added))
        )
        if conv.bias is not None:
            conv.bias = nn.Parameter(functional.pad(conv.bias, (0, added)))
        conv.in_channels, conv.out_channels = inputs, padded(conv.out_channels)
        conv.groups = inputs if depthwise else conv.groups


def subsample_before_projection(graph: fx.GraphModule) -> None:
    """Before each strided 1x1 convolution, pick the pixels that it reads with a 1x1 max pool of the same stride.

    OpenVINO in int8 would add such a pool itself, but would compute the pool and the convolution in float32.
    """
    # With stride s, the convolution computes W x + b at every s-th pixel. The maximum of one pixel is that pixel.
    for node in list(graph.graph.nodes):
        conv = graph.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or (conv.kernel_size, conv.padding) != ((1, 1), (0, 0)):
            continue
        if conv.stride != (1, 1):
            pool = f"{node.target}_subsample".replace(".", "_")
            graph.add_submodule(pool, nn.MaxPool2d(1, conv.stride))
            with graph.graph.inserting_before(node):
                node.replace_input_with(node.args[0], graph.graph.call_module(pool, (node.args[0],)))
            conv.stride = (1, 1)
    _tidy(graph)


def _chained_layers(graph: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Module, fx.Node, nn.Module]]:
    """Yield each layer and the next, both as node and module, if only the next layer reads the first one's output."""
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and len(node.users) == 1:
            (user,) = node.users
            if user.op == "call_module":
                yield node, graph.get_submodule(node.target), user, graph.get_submodule(user.target)


def _tidy(graph: fx.GraphModule) -> None:
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
