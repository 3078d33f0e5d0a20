from __future__ import annotations

import collections
from pathlib import Path
from typing import cast

import onnx
import pytest
import torch
from onnx import helper, numpy_helper, parser
from onnxscript import FLOAT

from export import trace
from export.trace import OPSET, check_contract


def sound() -> onnx.ModelProto:
    """The smallest graph that keeps the contract for images of 4x4 pixels and two classes."""
    return parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        sound (uint8[batch, 4, 4, 3] images) => (float[batch, 2] probabilities, float[batch, 2] logits)
        <float[48, 2] weight, float[batch, 48] flat>
        {
            pixels = Cast<to: int = 1>(images)
            shape = Constant<value = int64[2] {-1, 48}>()
            flat = Reshape(pixels, shape)
            zero = Constant<value = float[1] {0.0}>()
            filled = Constant<value = int64[2] {48, 2}>()
            weight = Expand(zero, filled)
            logits = MatMul(flat, weight)
            probabilities = Softmax(logits)
        }
    """)


def check(model: onnx.ModelProto) -> None:
    # parse_model declares weights and activations together, but weights are not activations.
    activations = [value for value in model.graph.value_info if value.name != "weight"]
    del model.graph.value_info[:]
    model.graph.value_info.extend(activations)
    onnx.checker.check_model(model)
    check_contract(model, size=4, classes=2)


def test_a_sound_graph_passes() -> None:
    check(sound())


@pytest.mark.parametrize("operator", ["Sub", "Div"])
def test_normalisation_left_in_the_graph(operator: str) -> None:
    model = sound()
    model.graph.node.insert(2, helper.make_node(operator, ["pixels", "pixels"], ["normalised"]))
    with pytest.raises(ValueError, match=f"still computes {operator}"):
        check(model)


def test_batch_normalization_left_in_the_graph() -> None:
    model = sound()
    scale = [numpy_helper.from_array(torch.ones(4).numpy(), name) for name in ("scale", "bias", "mean", "var")]
    model.graph.initializer.extend(scale)
    inputs = ["pixels", "scale", "bias", "mean", "var"]
    model.graph.node.insert(2, helper.make_node("BatchNormalization", inputs, ["normed"]))
    with pytest.raises(ValueError, match="still computes BatchNormalization"):
        check(model)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("images", ("uint8", [2, 4, 4, 3])),
        ("images", ("uint8", ["batch", "height", 4, 3])),
        ("images", ("float", ["batch", 4, 4, 3])),
        ("logits", ("float", ["batch", 3])),
        ("logits", ("float", ["n", 2])),
        ("probabilities", ("double", ["batch", 2])),
    ],
)
def test_another_signature(was: str, becomes: tuple[str, list[int | str]]) -> None:
    model = sound()
    kind, shape = becomes
    (value,) = [value for value in (*model.graph.input, *model.graph.output) if value.name == was]
    element = onnx.TensorProto.DataType.Value(kind.upper())
    value.CopyFrom(helper.make_tensor_value_info(was, element, shape))
    with pytest.raises(ValueError, match="its inputs and outputs are"):
        check_contract(model, size=4, classes=2)


@pytest.mark.parametrize("shape", [[2, 48], ["batch", None], ["n", 48]])
def test_an_activation_of_another_shape(shape: list[int | str | None]) -> None:
    model = sound()
    (flat,) = [value for value in model.graph.value_info if value.name == "flat"]
    flat.CopyFrom(helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, shape))
    with pytest.raises(ValueError, match="flat has the shape"):
        check(model)


@pytest.mark.parametrize("path", ["/home/someone/model.py", "C:\\models\\model.py", 'File "/srv/x/y.py", line 3'])
def test_an_absolute_path(path: str) -> None:
    model = sound()
    model.graph.node[0].metadata_props.add(key="stack_trace", value=path)
    with pytest.raises(ValueError, match="absolute path"):
        check(model)


def test_a_relative_path_is_no_breach() -> None:
    model = sound()
    model.graph.node[0].name = "network/block1/conv"
    check(model)


def test_every_breach_is_named() -> None:
    model = sound()
    model.doc_string = "from /tmp/x/model.py"
    model.graph.node.insert(2, helper.make_node("Sub", ["pixels", "pixels"], ["normalised"]))
    with pytest.raises(ValueError, match=r"Sub.*absolute path"):
        check(model)


@pytest.fixture(scope="module")
def exported_model(xception: Path) -> onnx.ModelProto:
    return onnx.load(xception / "fp32.onnx")


def test_an_export_is_valid(exported_model: onnx.ModelProto) -> None:
    onnx.checker.check_model(exported_model, full_check=True)
    assert [(opset.domain, opset.version) for opset in exported_model.opset_import] == [("", OPSET)]
    assert not exported_model.functions


def test_an_export_holds_only_what_computes(exported_model: onnx.ModelProto) -> None:
    nodes = collections.Counter(node.op_type for node in exported_model.graph.node)
    once = ("Transpose", "Cast", "GlobalAveragePool", "Reshape", "Softmax")
    assert nodes == {"Conv": 74, "Relu": 36, "Add": 12, "MaxPool": 4, "Gemm": 2} | dict.fromkeys(once, 1)


def test_an_export_says_nothing_about_its_maker(exported_model: onnx.ModelProto, xception: Path) -> None:
    graph = exported_model.graph
    parts = (exported_model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in parts:
        assert not part.doc_string
        assert not part.metadata_props
    data = b"".join(path.read_bytes() for path in xception.glob("fp32*"))
    for word in ("site-packages", "stack_trace", f"{Path(__file__).parents[2]}/", f"{Path.home()}/"):
        assert word.encode() not in data


def test_only_global_pools_are_translated_to_one() -> None:
    with pytest.raises(ValueError, match=r"only to \(1, 1\)"):
        trace._global_average_pool(cast("FLOAT", None), (2, 2))


def test_in_half_precision_all_but_the_softmax_is_half(xception: Path) -> None:
    """The graph converts the pixels to float16 and the logits to float32, and nothing else."""
    graph = onnx.load(xception / "fp16.onnx").graph
    assert [node.output[0] for node in graph.node if node.op_type == "Cast"] == ["type_as", "logits"]
    (softmax,) = [node for node in graph.node if node.op_type == "Softmax"]
    assert (softmax.input[0], softmax.output[0]) == ("logits", "probabilities")
    assert {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1} == {onnx.TensorProto.FLOAT16}
