"""How each device makes its sessions. The sessions are fakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import DeviceUnavailable
from service.inference.devices import cuda
from service.inference.devices.device import Graph
from service.inference.devices.tensorrt import TensorRt
from service.inference.manifest import read_manifest
from service.inference.placement import place
from service.settings import Settings
from tests.service.inference.fake_session import FakeSession, on_the_cpu, without_a_gpu, without_openvino

GRAPH = Graph(Path("fp16.onnx"), "fp16", height=299, width=299)


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


def test_each_gpu_gets_a_session_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_gpu(monkeypatch)
    checked: list[Any] = []
    monkeypatch.setattr(cuda.Cuda, "check", lambda self, settings: checked.append(settings.gpus))
    pinned: list[Any] = []
    monkeypatch.setattr(cuda.Cuda, "pin", lambda self, memory: pinned.append(memory.shape))
    placed = place(folder, read_manifest(folder), Settings(device="cuda", device_ids="0,2"))
    assert checked == [[0, 2]]
    sessions: Any = placed.sessions
    assert [session.told["device_id"] for session in sessions] == ["0", "2"]
    assert [session.ran for session in sessions] == [[1], [1]]
    assert pinned == [(1, 299, 299, 3)] * 2


def test_auto_runs_one_batch_at_a_time_on_one_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_gpu(monkeypatch)
    placed = place(folder, read_manifest(folder), Settings(device="auto", threads=4))
    assert (str(placed), placed.provider) == ("fp16 on cuda", "CUDAExecutionProvider")
    assert placed.reason == "auto: a CUDA device runs the model"
    assert len(placed.sessions) == 1


def test_tensorrt_runs_beside_cuda_on_each_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_gpu(monkeypatch)
    placed = place(folder, read_manifest(folder), Settings(device="tensorrt", device_ids="0,2"))
    assert placed.provider == "TensorrtExecutionProvider"
    assert len(placed.sessions) == 2


def test_cuda_graphs_are_recorded_for_the_fixed_batch_sizes_on_each_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Recording(FakeSession):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments[:3])
            told.append(arguments[3:])

    without_a_gpu(monkeypatch)
    monkeypatch.setattr(cuda, "CudaGraphs", Recording)
    place(folder, read_manifest(folder), Settings(device="cuda", device_ids="0,2", cuda_graphs=True, max_batch_size=6))
    assert told == [([6, 3, 1], "cuda", 0), ([6, 3, 1], "cuda", 2)]


def test_what_cuda_is_told() -> None:
    name, options = cuda.provider(1, Settings())
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert (options["prefer_nhwc"], options["use_tf32"]) == ("1", "0")
    assert options["enable_cuda_graph"] == "0"
    assert "gpu_mem_limit" not in options
    _, options = cuda.provider(0, Settings(device="cuda", tf32=True, cuda_graphs=True, gpu_memory_limit_mb=2000))
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("1", "1")
    assert options["gpu_mem_limit"] == "2000000000"


def test_what_tensorrt_is_told(tmp_path: Path) -> None:
    (first, options), (second, _) = TensorRt().providers(GRAPH, 0, Settings(max_batch_size=8, cache=tmp_path))
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_profile_min_shapes"] == "images:1x299x299x3"
    assert options["trt_profile_max_shapes"] == "images:8x299x299x3"
    assert options["trt_fp16_enable"] == "True"
    assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_an_engine_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way of a folder")
    with pytest.raises(DeviceUnavailable, match=r"keeps its engines in .*/cache, which can't be written to"):
        TensorRt().providers(GRAPH, 0, Settings(cache=tmp_path / "cache"))


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_cpu_has_one_session_with_all_threads(folder: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    without_openvino(monkeypatch)
    settings = Settings.model_validate({"device": device, "precision": "int8", "threads": 5})
    placed = place(folder, read_manifest(folder), settings)
    (session,) = placed.sessions
    assert session.threads == 5  # type: ignore[attr-defined] # an attribute of the fake
