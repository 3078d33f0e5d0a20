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
from service.inference.devices import cpu, openvino
from service.inference.manifest import Manifest, Variant, read_manifest
from service.inference.placement import candidates, place
from service.inference.session import OnnxSession
from service.sessions import Session
from service.settings import Settings
from tests.service.inference.fake_session import FakeSession, on_the_cpu, without_a_gpu, without_openvino


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


def manifest(folder: Path, *precisions: str) -> Manifest:
    """The exported manifest, changed to have these variants."""
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
def test_candidates(folder: Path, exported: list[str], asked: str, device: str, expected: list[str]) -> None:
    found = candidates(manifest(folder, *exported), asked, device)
    assert [candidate.precision for candidate in found] == expected
    files = [candidate.variant.precision for candidate in found]
    assert files == ["fp32" if name == "bf16" else name for name in expected]


@pytest.mark.parametrize("fastest", ["fp32", "int8"])
def test_auto_takes_the_fastest_that_it_measured(
    folder: Path, fastest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[str]] = []

    def seconds(sessions: Mapping[str, Session], image: NDArray[np.uint8], run: placement.Alone) -> dict[str, float]:
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
    assert len(measured) == 2  # another number of threads may lead to another choice


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
    assert placement._seconds(ways, np.zeros((1, 1, 1, 3), np.uint8), placement.at_once) == {"a": 4, "b": 2}
    assert order == ["a", "b"] * 3


def test_a_precision_that_was_not_exported_is_an_error(folder: Path) -> None:
    with pytest.raises(StartupError, match="has only fp32: export it with --precision fp16"):
        place(folder, manifest(folder, "fp32"), Settings(precision="fp16"))


@pytest.mark.parametrize("installed", [True, False])
def test_auto_says_what_it_took_and_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    monkeypatch.setattr(openvino, "supported_cpu", unavailable)
    monkeypatch.setattr(openvino.OpenVino, "check", (lambda *_: "1") if installed else unavailable)
    made = list[OnnxSession]()

    def session(*given: Any) -> OnnxSession:
        made.append(OnnxSession(*given))
        return made[-1]

    monkeypatch.setattr(cpu, "OnnxSession", session)
    placed = place(folder, read_manifest(folder), Settings(device="auto", cache=tmp_path))
    assert len(made) == 3  # fp32 and int8 for the measurement, then the chosen one
    assert (placed.device, placed.provider) == ("cpu", "CPUExecutionProvider")
    assert placed.reason.startswith("auto: no CUDA (")
    assert "no OpenVINO (none in this test); " in placed.reason


def unavailable(*_: object) -> None:
    raise DeviceUnavailable("none in this test")


def test_auto_goes_on_without_an_openvino_that_loads_the_model_and_fails_to_run_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FakeSession):
        def run(self, _: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("illegal instruction")

    without_openvino(monkeypatch, Failing)
    placed = place(folder, read_manifest(folder), Settings(device="auto", cache=tmp_path))
    assert placed.device == "cpu"
    assert f"no OpenVINO ({openvino.PROVIDER} loads the model, but can't run it: illegal instruction)" in placed.reason


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_asked_for_and_missing_is_an_error(folder: Path, device: str) -> None:
    with pytest.raises(DeviceUnavailable):
        place(folder, read_manifest(folder), Settings.model_validate({"device": device}))


def test_auto_takes_the_cpu_when_the_gpu_loads_the_model_but_fails_to_run_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FakeSession):
        def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("no kernel image is available")

    without_a_gpu(monkeypatch, Failing)
    on_the_cpu(monkeypatch)
    monkeypatch.setattr(openvino.OpenVino, "check", unavailable)
    placed = place(folder, read_manifest(folder), Settings(device="auto"))
    assert (placed.device, placed.provider) == ("cpu", "CPUExecutionProvider")
    assert "can't run it: no kernel image is available" in placed.reason
    with pytest.raises(DeviceUnavailable, match="no kernel image"):
        place(folder, read_manifest(folder), Settings(device="cuda"))


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


def test_data_that_the_manifest_does_not_name_is_not_loaded(folder: Path) -> None:
    described = read_manifest(folder)
    fp32 = described.variants[0].model_copy(update={"external_data": None})
    settings = Settings(device="cpu", precision="fp32", threads=1)
    with pytest.raises(InvalidManifest, match=r"has data in .*/fp32\.onnx\.data, which its manifest does not name"):
        place(folder, described.model_copy(update={"variants": (fp32,)}), settings)


def test_a_graph_of_another_shape_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "classes", 7)
    on_the_cpu(monkeypatch)
    with pytest.raises(InvalidManifest, match=r"classes are \(299, 299, 7\), the manifest's \(299, 299, 6"):
        place(folder, read_manifest(folder), Settings(device="cpu", precision="fp32"))
