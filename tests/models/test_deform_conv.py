"""Deformable convolution equals its definition and two implementations that nobody here wrote, in float64."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from models.deform_conv import DeformConv2d, deform_conv2d


class Case(NamedTuple):
    channels: int
    outputs: int
    sides: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


CASES = [
    Case(4, 6, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    Case(4, 6, (9, 7), (3, 3), (2, 1), (1, 0), (1, 1), 2, 1),
    Case(6, 6, (6, 5), (3, 3), (1, 1), (2, 2), (2, 2), 6, 1),  # depthwise, as in Xception
    Case(6, 12, (6, 5), (3, 2), (1, 2), (2, 1), (2, 1), 6, 3),
]


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random float64 input, offsets that reach far outside it, weight and bias."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    x = normal(2, case.channels, *case.sides)
    weight = normal(case.outputs, case.channels // case.groups, *case.kernel)
    size = F.conv2d(x, weight, None, case.stride, case.padding, case.dilation, case.groups).shape[2:]
    offset = normal(2, 2 * case.offset_groups * math.prod(case.kernel), *size) * 3
    return x, offset, weight, normal(case.outputs)


def ours(case: Case, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return deform_conv2d(x, offset, weight, bias, case.stride, case.padding, case.dilation, case.groups)


def pixel(plane: Tensor, row: int, column: int) -> float:
    height, width = plane.shape
    return float(plane[row, column]) if 0 <= row < height and 0 <= column < width else 0.0


def between_pixels(plane: Tensor, y: float, x: float) -> float:
    """The bilinear interpolation of the four pixels around (y, x)."""
    top, left = math.floor(y), math.floor(x)
    down, right = y - top, x - left
    return (
        (1 - down) * (1 - right) * pixel(plane, top, left)
        + (1 - down) * right * pixel(plane, top, left + 1)
        + down * (1 - right) * pixel(plane, top + 1, left)
        + down * right * pixel(plane, top + 1, left + 1)
    )


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_sum_of_interpolated_pixels(case: Case) -> None:
    x, offset, weight, bias = tensors(case)
    found = ours(case, x, offset, weight, bias)
    inputs, outputs = case.channels // case.groups, case.outputs // case.groups
    taps = case.kernel[0] * case.kernel[1]
    random = np.random.default_rng(0)
    for _ in range(40):
        n, out, row, column = (int(random.integers(size)) for size in found.shape)
        total = float(bias[out])
        for index in range(inputs):
            channel = out // outputs * inputs + index
            group = channel // (case.channels // case.offset_groups)
            for tap in range(taps):
                i, j = divmod(tap, case.kernel[1])
                down, right = offset[n, 2 * (group * taps + tap) :, row, column][:2].tolist()
                y = row * case.stride[0] - case.padding[0] + i * case.dilation[0] + down
                z = column * case.stride[1] - case.padding[1] + j * case.dilation[1] + right
                total += float(weight[out, index, i, j]) * between_pixels(x[n, channel], y, z)
        assert float(found[n, out, row, column]) == pytest.approx(total, rel=1e-10, abs=1e-10)


def onnx_model(case: Case) -> onnx.ModelProto:
    """ONNX's operator with the attributes of ``case``, in float64."""
    attributes: dict[str, Any] = {
        "kernel_shape": case.kernel,
        "strides": case.stride,
        "pads": [*case.padding, *case.padding],
        "dilations": case.dilation,
        "group": case.groups,
        "offset_group": case.offset_groups,
    }
    node = helper.make_node("DeformConv", ["x", "weight", "offset", "bias"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in (*node.input, *node.output)]
    graph = helper.make_graph([node], "deform_conv", values[:4], values[4:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def feeds(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> dict[str, NDArray[np.float64]]:
    return {"x": x.numpy(), "offset": offset.numpy(), "weight": weight.numpy(), "bias": bias.numpy()}


def assert_same(found: Tensor, expected: Any, relative: float) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= relative * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_it_equals_onnx_runtime_s_kernel(case: Case) -> None:
    given = tensors(case)
    session = onnxruntime.InferenceSession(onnx_model(case).SerializeToString(), providers=["CPUExecutionProvider"])
    assert_same(ours(case, *given), session.run(None, feeds(*given))[0], 1e-12)


def test_it_equals_onnx_s_reference() -> None:
    given = tensors(CASES[3])
    (expected,) = ReferenceEvaluator(onnx_model(CASES[3])).run(None, feeds(*given))
    assert_same(ours(CASES[3], *given), expected, 1e-6)  # the reference computes positions in float32


@pytest.mark.parametrize("case", CASES)
def test_without_offsets_it_is_a_convolution(case: Case) -> None:
    x, offset, weight, bias = tensors(case)
    found = ours(case, x, torch.zeros_like(offset), weight, bias)
    expected = F.conv2d(x, weight, bias, case.stride, case.padding, case.dilation, case.groups)
    assert_same(found, expected.numpy(), 1e-12)


def test_a_layer_starts_as_a_convolution_with_the_same_weights() -> None:
    geometry: dict[str, Any] = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
    layer, plain = DeformConv2d(4, 6, 3, **geometry), nn.Conv2d(4, 6, 3, **geometry)
    assert layer.offset.weight.shape == (2 * 3 * 3, 4, 3, 3)
    missing, unexpected = layer.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["offset.weight", "offset.bias"], [])
    x = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), plain(x))


def test_training_moves_the_offsets() -> None:
    x, offset, weight, bias = (tensor.requires_grad_() for tensor in tensors(CASES[2]))
    case = CASES[2]
    geometry = (list(case.stride), list(case.padding), list(case.dilation), case.groups)

    def operator(*given: Tensor) -> Tensor:
        out: Tensor = torch.ops.inferception.deform_conv2d(*given, *geometry)
        return out

    assert torch.autograd.gradcheck(operator, (x, offset, weight, bias), fast_mode=True)
