from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from service.errors import DeviceUnavailable, InvalidManifest
from service.inference import session
from service.inference.devices import cpu, cuda
from service.inference.session import OnnxSession, session_options
from service.settings import Settings

CUDA = [cuda.provider(0, Settings())]


@pytest.fixture(scope="module")
def xception(model_repository: Path) -> Path:
    return model_repository / "xception" / "1" / "fp32.onnx"


def test_shapes_come_from_the_graph(xception: Path) -> None:
    loaded = cpu.session(xception, threads=2)
    assert (loaded.height, loaded.width, loaded.classes) == (299, 299, 6)
    for size in (3, 1, 2):
        probabilities = loaded.run(np.zeros((size, 299, 299, 3), np.uint8))
        assert probabilities.shape == (size, 6)
        assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_every_node_is_counted_where_onnxruntime_put_it(xception: Path) -> None:
    assert cpu.session(xception, threads=1).nodes == {"CPUExecutionProvider": 133}


@pytest.mark.skipif("AzureExecutionProvider" not in ort.get_available_providers(), reason="in the CPU build alone")
def test_a_provider_that_leaves_nodes_to_the_cpu_is_an_error(xception: Path) -> None:
    """onnxruntime's CPU build has one other provider, which runs none of these nodes."""
    with pytest.raises(DeviceUnavailable, match="nodes that are assigned to the default CPU EP"):
        OnnxSession(xception, [("AzureExecutionProvider", {})], session_options(1))


def test_so_is_one_that_onnxruntime_lets_pass(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu = session._create(xception, cpu.PROVIDERS, session_options(1))
    monkeypatch.setattr(session, "_create", lambda *_: on_the_cpu)
    with pytest.raises(DeviceUnavailable, match=r"CUDAExecutionProvider, but \{'CPUExecutionProvider': 133\}"):
        OnnxSession(xception, CUDA, session_options(1))


def test_a_provider_that_is_missing_is_an_error(xception: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="no CUDAExecutionProvider"):
        OnnxSession(xception, CUDA, session_options(1))


def test_a_provider_that_silently_becomes_the_cpu_is_an_error(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If CUDA's libraries are missing, onnxruntime logs this and makes a session on the CPU."""
    real = ort.InferenceSession

    def falls_back(model: str, options: ort.SessionOptions, **_: object) -> ort.InferenceSession:
        return real(model, ort.SessionOptions(), providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", falls_back)
    with pytest.raises(DeviceUnavailable, match="CPUExecutionProvider"):
        OnnxSession(xception, CUDA, session_options(1))


def test_a_damaged_file_is_an_error_not_a_crash(xception: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(xception.read_bytes()[: xception.stat().st_size // 2])
    with pytest.raises(InvalidManifest, match="can't load"):
        cpu.session(half, threads=1)


@pytest.mark.parametrize(
    ("takes", "gives"),
    [
        (["batch", "height", "width", 3], ["batch", 6]),
        (["batch", 3, 8, 8], ["batch", 6]),
        (["batch", 8, 8, 3], ["batch", "classes"]),
        (["batch", 8, 8, 3], []),
    ],
)
def test_a_graph_that_maps_something_else_is_an_error(
    tmp_path: Path, takes: list[str | int | None], gives: list[str | int | None]
) -> None:
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, takes)
    probabilities = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, gives)
    node = onnx.helper.make_node("Cast", ["images"], ["probabilities"], to=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph([node], "graph", [images], [probabilities])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(InvalidManifest):
        cpu.session(tmp_path / "other.onnx", threads=1)


def test_batches_run_at_a_time_in_one_session(xception: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 299, 299, 3), np.uint8)
    loaded = cpu.session(xception, threads=1)
    expected = [loaded.run(images[i : i + 1]) for i in range(4)]
    with ThreadPoolExecutor(2) as at_a_time:
        found = at_a_time.map(loaded.run, [images[i : i + 1] for i in range(4)])
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
