from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export import onnx_file
from export.verify import open_session

LARGE = np.arange(333, dtype=np.float32)  # 1332 bytes, not a multiple of a cache line
LARGER = LARGE[np.newaxis] * np.array([[1], [2]], np.float32)
SMALL = np.array([3, 111], np.int64)


def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["x", "large"], ["sum"]),
        helper.make_node("Add", ["sum", "larger"], ["sums"]),
        helper.make_node("Reshape", ["x", "small"], ["shaped"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [333])],
        [
            helper.make_tensor_value_info("sums", TensorProto.FLOAT, [2, 333]),
            helper.make_tensor_value_info("shaped", TensorProto.FLOAT, [3, 111]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights().items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def weights() -> dict[str, NDArray[np.generic]]:
    return {"large": LARGE, "larger": LARGER, "small": SMALL}


def test_large_weights_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    onnx_file.write(model(), tmp_path, "fp32")
    graph, data = onnx_file.paths(tmp_path, "fp32")
    assert sorted(tmp_path.iterdir()) == [graph, data]
    written = onnx.load(graph, load_external_data=False).graph.initializer
    where = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in written}
    assert where == {
        "large": {"location": "fp32.onnx.data", "offset": "0", "length": "1332"},
        "larger": {"location": "fp32.onnx.data", "offset": "1344", "length": "2664"},
        "small": {},
    }
    assert data.stat().st_size == 1344 + 2664


def test_they_are_what_they_were(tmp_path: Path) -> None:
    onnx_file.write(model(), tmp_path, "fp32")
    graph = onnx_file.paths(tmp_path, "fp32").graph
    onnx.checker.check_model(graph, full_check=True)
    read = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}
    for name, array in weights().items():
        np.testing.assert_array_equal(read[name], array)
    sums, shaped = open_session(graph).run(None, {"x": np.ones(333, np.float32)})
    np.testing.assert_array_equal(sums, 1 + LARGE + LARGER)
    assert shaped.shape == (3, 111)


def test_whoever_may_read_the_graph_may_read_the_weights(tmp_path: Path) -> None:
    """The server in a container runs as another user than the export."""
    onnx_file.write(model(), tmp_path, "fp32")
    graph, data = onnx_file.paths(tmp_path, "fp32")
    assert data.stat().st_mode == graph.stat().st_mode


def test_both_are_removed(tmp_path: Path) -> None:
    onnx_file.write(model(), tmp_path, "fp32")
    onnx_file.remove(tmp_path, "fp32")
    assert not list(tmp_path.iterdir())
