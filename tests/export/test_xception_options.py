"""Xception's variants in ONNX, in a small network of the same blocks: every trace of a whole Xception takes seconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export import quantize, verify
from export.fuse import fuse, pad_channels, subsample_before_projection
from export.photos import Photo, normalise, preprocess_all
from export.trace import DEFORM_CONV_OPSET, OPSET, check_contract, trace
from models.spec import Preprocessing
from models.xception import Block

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 40
SQUASHED = Preprocessing(crop_pct=1.0, crop_mode="squash", input_size=SIZE)
OPTIONS: list[dict[str, Any]] = [
    {"activation": "elu", "multiplier": 2},
    {"activation": "relu", "residual": False, "stride": 1, "dilation": 2},
    {"deformable": True, "multiplier": 2, "stride": 1, "dilation": 2},
]


class Small(nn.Module):
    """A convolution, a block of Xception, dropout and a classifier."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        defaults: dict[str, Any] = {"stride": 2, "residual": True, "padding": "tf_same", "bn_eps": 1e-3}
        self.block = Block(8, 20, 2, **defaults | options)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.dropout(self.pool(self.block(self.conv(x))).flatten(1)))
        return out


@pytest.fixture(scope="module")
def pixels(photos: list[Photo]) -> NDArray[np.uint8]:
    return preprocess_all([photo.data for photo in photos], SQUASHED)


@pytest.fixture(scope="module", params=OPTIONS, ids=str)
def small(request: pytest.FixtureRequest, pixels: NDArray[np.uint8]) -> nn.Module:
    """A network with random weights, live BatchNorms, and offsets of several pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small(request.param)
        for name, parameter in model.named_parameters():
            if "offset" in name:
                nn.init.normal_(parameter, std=0.5)
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = None  # the statistics of the one batch
        with torch.no_grad():
            model(normalise(pixels, SQUASHED))
    return model.eval()


def logits(model: nn.Module, images: Tensor) -> NDArray[Any]:
    with torch.inference_mode():
        out: NDArray[Any] = model(images).numpy()
    return out


def test_rewrites_are_exact(small: nn.Module, pixels: NDArray[np.uint8]) -> None:
    expected = logits(copy.deepcopy(small).double(), normalise(pixels, SQUASHED).double())
    graph = fuse(small, SQUASHED)
    pad_channels(graph, quantize.CHANNELS)
    subsample_before_projection(graph)
    found = logits(graph.double(), torch.from_numpy(pixels))
    assert np.abs(found - expected).max() <= 1e-5 * verify.spread(expected)  # fuse rounds the new weights to float32
    assert verify.spread(expected) >= 1e-2


@pytest.mark.parametrize(
    ("small", "precision", "tolerance"),
    [*((options, "fp32", 1e-4) for options in OPTIONS), (OPTIONS[2], "fp16", 0.1)],
    indirect=["small"],
)
def test_onnx_runtime_answers_as_torch_does(
    small: nn.Module, pixels: NDArray[np.uint8], precision: str, tolerance: float, tmp_path: Path
) -> None:
    network = fuse(small, SQUASHED)
    model = trace(network.half() if precision == "fp16" else network, SIZE)
    check_contract(model, size=SIZE, classes=5)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    deformable = "offset" in "".join(small.state_dict())
    assert operators.count("DeformConv") == (2 if deformable else 0)
    assert [entry.version for entry in model.opset_import] == [DEFORM_CONV_OPSET if deformable else OPSET]
    onnx.save(model, tmp_path / "model.onnx")
    session = verify.open_session(tmp_path / "model.onnx")
    expected = logits(small, normalise(pixels, SQUASHED))
    for batch in (slice(0, 1), slice(1, 9)):
        (found,) = session.run(["logits"], {"images": pixels[batch]})
        assert np.abs(found - expected[batch]).max() <= tolerance * verify.spread(expected)


@pytest.mark.parametrize("small", [OPTIONS[2]], indirect=True)
def test_int8_leaves_deformable_convolutions_in_float(
    small: nn.Module, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = quantize.quantize(trace(fuse(small, SQUASHED), SIZE), pixels)
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    nodes = [node for node in model.graph.node if node.op_type == "DeformConv"]
    assert len(nodes) == 2
    for node in nodes:
        x, weight, offset = node.input[:3]
        assert weight in weights
        assert (made_by[x], made_by[offset]) == ("DequantizeLinear", "DequantizeLinear")
    onnx.save(model, tmp_path / "int8.onnx")
    (found,) = verify.open_session(tmp_path / "int8.onnx").run(["logits"], {"images": pixels})
    expected = logits(small, normalise(pixels, SQUASHED))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] >= 0.9
