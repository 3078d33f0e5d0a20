from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from service.errors import DeviceUnavailable, InvalidManifest, StartupError
from service.inference import placement
from service.inference.devices import cuda, openvino
from service.inference.devices.providers import Device, execution_providers
from service.inference.manifest import Manifest, Variant, read_manifest
from service.inference.placement import candidates, place
from service.inference.session import Session
from service.settings import Settings


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


def manifest(folder: Path, *precisions: str) -> Manifest:
    """The exported manifest, as if it had these variants."""
    found = read_manifest(folder)
    variants = [Variant.model_validate(found.variants[0].model_dump() | {"precision": p}) for p in precisions]
    return found.model_copy(update={"variants": tuple(variants)})


@pytest.mark.parametrize(
    ("exported", "asked", "device", "expected"),
    [
        (["fp32", "int8", "fp16"], "auto", "cuda", ["fp16"]),
        (["fp32", "int8", "fp16"], "auto", "tensorrt", ["fp16"]),
        (["fp32", "int8", "fp16"], "auto", "cpu", ["fp32", "int8"]),
        (["fp32", "int8"], "auto", "cuda", ["fp32"]),
        (["fp32"], "auto", "cpu", ["fp32"]),
        (["fp32", "int8", "fp16"], "fp32", "cuda", ["fp32"]),
        (["fp32", "int8", "fp16"], "fp16", "cpu", ["fp16"]),
        (["fp32", "int8", "fp16"], "auto", "openvino", ["fp32", "int8"]),
        (["fp32", "int8"], "bf16", "openvino", ["bf16"]),
    ],
)
def test_candidates(folder: Path, exported: list[str], asked: str, device: Device, expected: list[str]) -> None:
    found = candidates(manifest(folder, *exported), asked, device)
    assert [candidate.precision for candidate in found] == expected
    files = [candidate.variant.precision for candidate in found]
    assert files == ["fp32" if name == "bf16" else name for name in expected]


@pytest.mark.parametrize("fastest", ["fp32", "int8"])
def test_auto_takes_the_fastest_that_it_measured(
    folder: Path, fastest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[str]] = []

    def seconds(sessions: Mapping[str, Session], image: NDArray[np.uint8]) -> dict[str, float]:
        measured.append(list(sessions))
        return {name: 0.02 if name == f"{fastest} on cpu" else 0.09 for name in sessions}

    monkeypatch.setattr(placement, "_seconds", seconds)
    settings = Settings(device="cpu", cache=tmp_path)
    placed = place(folder, read_manifest(folder), settings)
    assert (placed.precision, placed.variant.precision) == (fastest, fastest)
    assert f"{fastest} on cpu 20 ms" in placed.reason
    assert "90 ms" in placed.reason
    again = place(folder, read_manifest(folder), settings)
    assert (again.precision, again.reason) == (fastest, placed.reason)
    assert measured == [["fp32 on cpu", "int8 on cpu"]]
    place(folder, read_manifest(folder), Settings(device="cpu", cache=tmp_path, threads=1))
    assert len(measured) == 2  # other threads may make another choice


def test_ways_are_measured_in_turn_and_the_first_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], list[str]()

    class Taking:
        def __init__(self, name: str, *seconds: float) -> None:
            self.name, self.seconds = name, iter(seconds)

        def run(self, images: NDArray[np.uint8]) -> None:
            order.append(self.name)
            clock[0] += next(self.seconds)

    monkeypatch.setattr(placement, "_TRIES", 2)
    monkeypatch.setattr("service.inference.placement.time.perf_counter", lambda: clock[0])
    ways: Any = {"a": Taking("a", 1, 5, 4), "b": Taking("b", 9, 2, 3)}
    assert placement._seconds(ways, np.zeros((1, 1, 1, 3), np.uint8)) == {"a": 4, "b": 2}
    assert order == ["a", "b"] * 3


def test_a_precision_that_was_not_exported_is_an_error(folder: Path) -> None:
    with pytest.raises(StartupError, match="has only fp32: export it with --precision fp16"):
        place(folder, manifest(folder, "fp32"), Settings(precision="fp16"))


@pytest.mark.parametrize("installed", [True, False])
def test_auto_says_what_it_took_and_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    monkeypatch.setattr(openvino, "cpu", unavailable)
    monkeypatch.setattr(openvino, "installed_version", (lambda: "1") if installed else unavailable)
    made = list[Session]()

    def session(*given: Any) -> Session:
        made.append(Session(*given))
        return made[-1]

    monkeypatch.setattr(placement, "Session", session)
    placed = place(folder, read_manifest(folder), Settings(device="auto", cache=tmp_path, streams=1))
    assert len(made) == 3  # fp32 and int8 to be measured, and what was chosen
    assert (placed.device, placed.provider) == ("cpu", "CPUExecutionProvider")
    assert placed.reason.startswith("auto: no CUDA (")
    assert "no OpenVINO (none in this test); " in placed.reason


def unavailable() -> None:
    raise DeviceUnavailable("none in this test")


def test_auto_goes_on_without_an_openvino_that_loads_the_model_and_fails_to_run_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        provider = openvino.PROVIDER

        def run(self, _: NDArray[np.uint8]) -> None:
            raise RuntimeError("illegal instruction")

    def session(model: Path, providers: Any, threads: int) -> Session | Failing:
        return Failing() if providers[0][0] == openvino.PROVIDER else Session(model, providers, threads)

    monkeypatch.setattr(openvino, "cpu", lambda: None)
    monkeypatch.setattr(openvino, "installed_version", lambda: "1")
    monkeypatch.setattr(placement, "Session", session)
    placed = place(folder, read_manifest(folder), Settings(device="auto", cache=tmp_path, streams=1))
    assert placed.device == "cpu"
    assert f"no OpenVINO ({openvino.PROVIDER} loads the model, but can't run it: illegal instruction)" in placed.reason


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_asked_for_and_missing_is_an_error(folder: Path, device: Device) -> None:
    with pytest.raises(DeviceUnavailable):
        place(folder, read_manifest(folder), Settings(device=device))


def test_each_gpu_gets_a_session_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(cuda, "check", lambda gpus, tensorrt: told.append((gpus, tensorrt)))
    monkeypatch.setattr(cuda, "pin", lambda memory: None)

    class Recorded:
        def __init__(self, model: Path, providers: Any, threads: int) -> None:
            told.append(providers[0][1])

        def run(self, images: NDArray[np.uint8]) -> None:
            assert images.shape == (1, 299, 299, 3)

    monkeypatch.setattr(placement, "Session", Recorded)
    placed = place(folder, read_manifest(folder), Settings(device="cuda", device_ids="0,2"))
    checked, *options = told
    assert checked == ([0, 2], False)
    assert [option["device_id"] for option in options] == ["0", "2"]
    assert len(placed.sessions) == 2


def test_cuda_graphs_are_recorded_for_the_fixed_batch_sizes_on_each_gpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(cuda, "check", lambda gpus, tensorrt: None)
    monkeypatch.setattr(placement, "_try_out", lambda session, manifest, pinned: None)
    monkeypatch.setattr(placement, "CudaGraphs", lambda *arguments: told.append(arguments[3:]))
    place(folder, read_manifest(folder), Settings(device="cuda", device_ids="0,2", cuda_graphs=True, max_batch_size=6))
    assert told == [([6, 3, 1], "cuda", 0), ([6, 3, 1], "cuda", 2)]


def test_auto_takes_the_cpu_when_the_gpu_loads_the_model_but_fails_to_run_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        provider = "CUDAExecutionProvider"

        def __init__(self, model: Path, providers: list[tuple[str, Any]], threads: int) -> None:
            if providers[0][0] == "CPUExecutionProvider":
                self.provider = "CPUExecutionProvider"

        def run(self, images: NDArray[np.uint8]) -> None:
            if self.provider == "CUDAExecutionProvider":
                raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(cuda, "check", lambda gpus, tensorrt: None)
    monkeypatch.setattr(cuda, "pin", lambda memory: None)
    monkeypatch.setattr(placement, "Session", Failing)
    placed = place(folder, read_manifest(folder), Settings(device="auto"))
    assert (placed.device, placed.provider) == ("cpu", "CPUExecutionProvider")
    assert "can't run it: no kernel image is available" in placed.reason
    with pytest.raises(DeviceUnavailable, match="no kernel image"):
        place(folder, read_manifest(folder), Settings(device="cuda"))


def test_what_cuda_is_told() -> None:
    ((name, options),) = execution_providers("cuda", 1, Settings(), precision="fp16", height=299, width=299)
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert (options["prefer_nhwc"], options["use_tf32"]) == ("1", "0")
    assert options["enable_cuda_graph"] == "0"
    assert "gpu_mem_limit" not in options
    settings = Settings(device="cuda", tf32=True, cuda_graphs=True, gpu_memory_limit_mb=2000)
    ((_, options),) = execution_providers("cuda", 0, settings, precision="fp32", height=299, width=299)
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("1", "1")
    assert options["gpu_mem_limit"] == "2000000000"


def test_what_tensorrt_is_told(tmp_path: Path) -> None:
    settings = Settings(max_batch_size=8, cache=tmp_path)
    (first, options), (second, _) = execution_providers(
        "tensorrt", 0, settings, precision="fp16", height=299, width=299
    )
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_profile_min_shapes"] == "images:1x299x299x3"
    assert options["trt_profile_max_shapes"] == "images:8x299x299x3"
    assert options["trt_fp16_enable"] == "True"
    assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_an_engine_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way of a folder")
    settings = Settings(cache=tmp_path / "cache")
    with pytest.raises(DeviceUnavailable, match=r"keeps its engines in .*/cache, which can't be written to"):
        execution_providers("tensorrt", 0, settings, precision="fp16", height=299, width=299)


@pytest.mark.parametrize(
    ("precision", "threads", "streams", "told"),
    [
        ("int8", 4, 1, [4]),
        ("int8", 2, 2, [1, 2]),  # a session of one thread runs several batches at a time
        ("int8", 5, 2, [2, 2, 5]),
        ("int8", 1, 2, [1]),
        ("fp32", 4, 2, [4]),  # its weights would be too much memory
    ],
)
def test_a_cpu_has_a_session_for_all_threads_and_some_for_parts_of_them(
    folder: Path, precision: str, threads: int, streams: int, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Recorded:
        def __init__(self, model: Path, providers: Any, threads: int) -> None:
            self.threads = threads
            made.append(threads)

    monkeypatch.setattr(placement, "Session", Recorded)
    settings = Settings.model_validate(
        {"device": "cpu", "precision": precision, "threads": threads, "streams": streams}
    )
    placed: Any = place(folder, read_manifest(folder), settings)
    assert made == told
    assert [session.threads for session in placed.sessions] == [threads]
    assert [session.threads for session in placed.streams] == ([threads // 2] * 2 if len(told) > 1 else [])


def test_a_variant_whose_weights_were_changed_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "xception" / "1"
    shutil.copytree(folder, copy)
    with (copy / "fp32.onnx.data").open("r+b") as weights:
        weights.write(b"damage")
    settings = Settings(device="cpu", precision="fp32")
    with pytest.raises(InvalidManifest, match=r"fp32\.onnx\.data has sha256"):
        place(copy, read_manifest(copy), settings)


def test_weights_may_be_in_the_graph_s_own_file(folder: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(folder / "fp32.onnx"), tmp_path / "fp32.onnx")
    whole = read_manifest(folder)
    sha256 = hashlib.sha256((tmp_path / "fp32.onnx").read_bytes()).hexdigest()
    variant = whole.variants[0].model_copy(update={"sha256": sha256, "external_data": None})
    settings = Settings(device="cpu", precision="fp32", threads=1)
    (found,) = place(tmp_path, whole.model_copy(update={"variants": (variant,)}), settings).sessions
    (expected,) = place(folder, whole, settings).sessions
    image = np.random.default_rng(0).integers(0, 256, (1, 299, 299, 3), np.uint8)
    np.testing.assert_array_equal(found.run(image), expected.run(image))
