"""OpenVINO's real plugin. Most tests need an Intel CPU; the others test its refusal on any machine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from service.errors import DeviceUnavailable
from service.inference.devices import cpu, openvino
from service.inference.image import decode
from service.inference.manifest import read_manifest
from service.inference.placement import Placement, place
from service.settings import Settings
from tests.over_http.exchange import classify, label_of
from tests.server import serving


def _refusal() -> str | None:
    try:
        openvino.supported_cpu()
    except DeviceUnavailable as error:
        return str(error)
    return None


with_openvino = pytest.mark.skipif(_refusal() is not None, reason=f"no OpenVINO: {_refusal()}")


@pytest.fixture(scope="module")
def folder(model_repository: Path) -> Path:
    return model_repository / "xception" / "1"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def photos(folder: Path) -> NDArray[np.uint8]:
    manifest = read_manifest(folder)
    pixels = np.empty((len(manifest.golden), 299, 299, 3), np.uint8)
    for sample, out in zip(manifest.golden, pixels, strict=True):
        decode((folder / sample.file).read_bytes(), out, manifest.preprocessing, 50_000_000)
    return pixels


def placed(folder: Path, cache: Path, **settings: Any) -> Placement:
    return place(folder, read_manifest(folder), Settings(cache=cache, **settings))


@with_openvino
@pytest.mark.parametrize(("precision", "least", "most"), [("fp32", 0, 1e-4), ("bf16", 1e-6, 0.1), ("int8", 0, 0.1)])
def test_answers_are_the_cpus(
    folder: Path, cache: Path, photos: NDArray[np.uint8], precision: str, least: float, most: float
) -> None:
    ours = placed(folder, cache, device="openvino", precision=precision)
    (session,) = ours.sessions
    assert (ours.precision, ours.provider) == (precision, openvino.PROVIDER)
    assert set(ours.nodes) == {openvino.PROVIDER}
    file = "fp32" if precision == "bf16" else precision
    expected = cpu.session(folder / f"{file}.onnx", threads=2).run(photos)
    for size in (3, 1, 2):
        found = session.run(photos[:size])
        assert np.array_equal(found.argmax(1), expected[:size].argmax(1))
        assert least <= np.abs(found - expected[:size]).max() <= most


@with_openvino
def test_what_is_compiled_is_kept_for_each_set_of_weights(
    folder: Path, tmp_path: Path, photos: NDArray[np.uint8]
) -> None:
    """Otherwise a model that is exported again would answer with the old weights."""
    changed = Path(shutil.copy(folder / "fp32.onnx", tmp_path))  # the same graph, with other weights
    data = Path(shutil.copy(folder / "fp32.onnx.data", tmp_path))
    graph = onnx.load(changed, load_external_data=False).graph
    (weights,) = [tensor for tensor in graph.initializer if list(tensor.dims) == [6, 100]]
    offset = {entry.key: int(entry.value) for entry in weights.external_data if entry.key == "offset"}["offset"]
    mapped = np.memmap(data, np.float32, "r+", offset, (6, 100))
    mapped[:] = mapped[::-1].copy()
    mapped.flush()
    told = openvino.provider_options(2, "fp32", tmp_path / "cache")
    for file, blobs in ((folder / "fp32.onnx", 1), (changed, 2), (folder / "fp32.onnx", 2)):
        found = openvino.session(file, 2, told).run(photos)
        assert np.abs(found - cpu.session(file, threads=2).run(photos)).max() < 1e-4
        assert len(list((tmp_path / "cache").glob("*.blob"))) == blobs


@with_openvino
def test_auto_weighs_it(folder: Path, cache: Path) -> None:
    ours = placed(folder, cache)
    assert ours.device in ("cpu", "openvino")
    for way in ("fp32 on cpu", "int8 on cpu", "fp32 on openvino", "int8 on openvino"):
        assert f"{way} " in ours.reason


@with_openvino
def test_a_server_says_that_it_computes_in_bf16(
    model_repository: Path, cache: Path, tmp_path: Path, kitchenware_photos: list[tuple[Path, str | None]]
) -> None:
    (tmp_path / "xception").symlink_to((model_repository / "xception").resolve())
    with (
        serving(tmp_path, device="openvino", precision="bf16", cache=cache) as server,
        server.client() as client,
    ):
        model = client.get("/models/xception").json()
        assert (model["provider"], model["precision"]) == (openvino.PROVIDER, "bf16")
        assert model["reason"] == "device=openvino"
        for photo, label in kitchenware_photos:
            if label is not None:
                answer = classify(client, photo.read_bytes())
                assert (label_of(answer), answer.json()["precision"]) == (label, "bf16")


def test_what_it_is_told(tmp_path: Path) -> None:
    assert openvino.provider_options(3, "int8", tmp_path) == {
        "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "3", "NUM_STREAMS": "1", '
        f'"ENABLE_CPU_PINNING": "NO", "CACHE_DIR": "{tmp_path}"}}}}'
    }
    told = openvino.provider_options(1, "bf16", None)["load_config"]
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in told
    assert "CACHE_DIR" not in told


@pytest.fixture
def _loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the state, as if the plugin had not been loaded yet."""
    monkeypatch.setattr(openvino, "_devices", openvino._devices.__wrapped__)


@pytest.mark.usefixtures("_loaded_anew")
def test_a_machine_without_the_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    monkeypatch.setattr(openvino, "_PACKAGE", "no-such-package")
    with pytest.raises(DeviceUnavailable, match=r"no onnxruntime-ep-openvino: install requirements/service\.txt"):
        placed(folder, tmp_path, device="openvino", precision="fp32")
    assert "; no OpenVINO (no onnxruntime-ep-openvino: install" in placed(folder, tmp_path).reason


@pytest.mark.usefixtures("_loaded_anew")
def test_a_plugin_that_can_not_be_loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime_ep_openvino")
    (tmp_path / "plugin.so").write_text("no library")
    monkeypatch.setattr("onnxruntime_ep_openvino.get_library_path", lambda: str(tmp_path / "plugin.so"))
    with pytest.raises(DeviceUnavailable, match=r"OpenVINO's plugin can't be loaded: .*plugin\.so"):
        placed(folder, tmp_path, device="openvino", precision="fp32")


def test_a_cpu_that_it_does_not_know(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [device for device in ort.get_ep_devices() if device.ep_name == "CPUExecutionProvider"]
    monkeypatch.setattr(openvino, "_devices", lambda: others)
    with pytest.raises(DeviceUnavailable, match="OpenVINO does not support this CPU: it takes Intel's"):
        placed(folder, tmp_path, device="openvino", precision="fp32")
    assert "no OpenVINO (OpenVINO does not support this CPU" in placed(folder, tmp_path).reason
