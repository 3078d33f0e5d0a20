from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from export.fuse import fuse
from export.photos import normalise
from export.quantize import clip_sums, quantize, read_bytes
from export.trace import check_contract, trace
from export.verify import VerificationError, check_answers, open_session
from models.spec import Preprocessing


def kinds(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.node)


def run(graph: onnx.GraphProto, images: NDArray[Any]) -> NDArray[Any]:
    """Run the graph without ONNX Runtime's own rewrites."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {graph.input[0].name: images})[0]
    return found


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], image_type: int) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", image_type, ["n", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )


def test_the_exported_graph_computes_in_int8(xception: Path) -> None:
    model = onnx.load(xception / "int8.onnx")
    check_contract(model, size=299, classes=6)
    found = kinds(model.graph)
    assert found["Conv"] == 74
    assert found["Clip"] == 11
    assert "Cast" not in found
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    for conv in (node for node in model.graph.node if node.op_type == "Conv"):
        levels, scale, _ = made_by[conv.input[1]].input
        assert weights[levels].data_type == TensorProto.INT8
        assert list(weights[scale].dims) == [weights[levels].dims[0]]  # one scale for each channel
        assert weights[levels].dims[0] % 16 == 0
    for node in model.graph.node:
        if node.op_type in ("Gemm", "Softmax"):
            assert made_by[node.input[0]].op_type != "DequantizeLinear"
    assert set(weights) == {name for node in model.graph.node for name in node.input} & set(weights)


def test_onnxruntime_leaves_next_to_nothing_in_float(xception: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # silences a warning that the file suits this machine only
    onnxruntime.InferenceSession(xception / "int8.onnx", options, providers=["CPUExecutionProvider"])
    found = kinds(onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph)
    assert found["QLinearConv"] == 74
    assert found["QuantizeLinear"] == 0
    assert found["DequantizeLinear"] == 1  # before the classifier


def test_answers_of_int8(xception: Path, squashed: NDArray[np.uint8]) -> None:
    agreement = check_answers(open_session(xception / "int8.onnx"), open_session(xception / "fp32.onnx"), squashed)
    assert (agreement.reference, agreement.images, agreement.top1) == ("fp32.onnx", 9, 1.0)
    assert 0 < agreement.mean_abs_probability < 0.02


class Disturbed:
    """The float32 session with changed logits."""

    def __init__(self, session: onnxruntime.InferenceSession, change: Any) -> None:
        self.session, self.change = session, change

    def run(self, names: list[str], feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        _, logits = self.session.run(names, feeds)
        changed = self.change(logits)
        return [np.exp(changed) / np.exp(changed).sum(1, keepdims=True), changed]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda logits: np.roll(logits, 1, axis=1), "0.0% have the same most probable class"),
        (lambda logits: logits / 3, "100.0% have the same .* differs by 0.[1-9]"),
        (lambda logits: logits * np.nan, "probability differs by nan"),
    ],
    ids=["other classes", "other probabilities", "nan"],
)
def test_answers_that_differ_are_refused(xception: Path, squashed: NDArray[np.uint8], change: Any, told: str) -> None:
    session = open_session(xception / "fp32.onnx")
    with pytest.raises(VerificationError, match=told):
        check_answers(Disturbed(session, change), session, squashed)


def test_bytes_are_read_as_they_are() -> None:
    """The quantizer's scale of 0.5 would clip bytes above 127."""
    graph = graph_of(
        [
            helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("QuantizeLinear", ["floats", "half", "none"], ["levels"]),
            helper.make_node("DequantizeLinear", ["levels", "half", "none"], ["pixels"]),
            helper.make_node("Relu", ["pixels"], ["out"]),
        ],
        {"half": np.array(0.5, np.float32), "none": np.array(0, np.uint8)},
        TensorProto.UINT8,
    )
    read_bytes(graph)
    assert kinds(graph) == {"DequantizeLinear": 1, "Relu": 1}
    images = np.array([[0, 1, 127, 255]], np.uint8)
    assert np.array_equal(run(graph, images), images.astype(np.float32))


def test_a_sums_relu_is_taken_of_its_bytes() -> None:
    graph = graph_of(
        [
            helper.make_node("Add", ["images", "images"], ["sum"]),
            helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["levels"]),
            helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["floats"]),
            helper.make_node("Relu", ["floats"], ["positive"], name="relu"),
            helper.make_node("QuantizeLinear", ["positive", "other", "none"], ["again"]),
            helper.make_node("DequantizeLinear", ["again", "other", "none"], ["out"]),
        ],
        {
            "scale": np.array(0.25, np.float32),
            "zero": np.array(100, np.uint8),
            "other": np.array(0.125, np.float32),
            "none": np.array(0, np.uint8),
        },
        TensorProto.FLOAT,
    )
    images = np.array([[-3.0, -0.125, 0.125, 3.0]], np.float32)
    expected = run(graph, images)
    clip_sums(graph)
    assert kinds(graph) == {"Add": 1, "QuantizeLinear": 1, "Clip": 1, "DequantizeLinear": 2}
    assert np.array_equal(run(graph, images), expected)
    assert np.array_equal(expected, [[0.0, 0.0, 0.25, 6.0]])


def test_quantizing_twice_gives_the_same_bytes(xception: Path, squashed: NDArray[np.uint8]) -> None:
    model = onnx.load(xception / "fp32.onnx")
    first, second = (quantize(model, squashed[:2]).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.fixture(scope="module")
def padded() -> tuple[fx.GraphModule, NDArray[np.uint8], Tensor]:
    """A small network that starts with padding and reads BGR, fused; noise, and the unfused network's logits for it."""
    preprocessing = Preprocessing(crop_pct=1.0, mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1), channel_order="bgr")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=2, padding=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    ).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    with torch.inference_mode():
        return fuse(network, preprocessing), pixels, network(normalise(pixels, preprocessing))


@pytest.mark.parametrize(("precision", "allowed", "casts"), [("fp32", 1e-5, 1), ("fp16", 5e-3, 2), ("int8", 1e-1, 1)])
def test_the_mean_before_a_padded_convolution(
    padded: tuple[fx.GraphModule, NDArray[np.uint8], Tensor],
    precision: str,
    allowed: float,
    casts: int,
    tmp_path: Path,
) -> None:
    """The graphs cast the pixels to float, and the one in half precision casts the logits back."""
    network, pixels, expected = padded
    model = trace(copy.deepcopy(network).half() if precision == "fp16" else network, 16)
    model = quantize(model, pixels) if precision == "int8" else model
    check_contract(model, size=16, classes=5)
    assert kinds(model.graph)["Cast"] == casts
    onnx.save(model, tmp_path / "model.onnx")
    (logits,) = open_session(tmp_path / "model.onnx").run(["logits"], {"images": pixels})
    assert np.abs(logits - expected.numpy()).max() < allowed * float(expected.std())
