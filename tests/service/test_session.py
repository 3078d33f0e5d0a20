from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.errors import DeviceUnavailable, InvalidManifest
from service.session import Session


@pytest.fixture(scope="module")
def xception(model_repository: Path) -> Path:
    return model_repository / "xception" / "1" / "fp32.onnx"


def test_shapes_come_from_the_graph(xception: Path) -> None:
    session = Session(xception, "cpu", threads=2)
    assert (session.height, session.width, session.classes) == (299, 299, 6)
    probabilities = session.run(np.zeros((3, 299, 299, 3), np.uint8))
    assert probabilities.shape == (3, 6)
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_auto_says_what_it_took_and_why(xception: Path) -> None:
    session = Session(xception, "auto", threads=1)
    assert session.provider == "CPUExecutionProvider"
    assert "CUDAExecutionProvider" in session.reason


def test_an_explicit_device_that_is_missing_is_an_error(xception: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="install onnxruntime-gpu"):
        Session(xception, "cuda", threads=1)


def test_a_provider_that_silently_becomes_the_cpu_is_an_error(xception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What onnxruntime does when CUDA's libraries are missing: it logs, and makes a session on the CPU."""
    real = ort.InferenceSession

    def falls_back(model: str, options: ort.SessionOptions, **_: object) -> ort.InferenceSession:
        return real(model, ort.SessionOptions(), providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", falls_back)
    with pytest.raises(DeviceUnavailable, match="CPUExecutionProvider"):
        Session(xception, "cuda", threads=1)


def test_a_damaged_file_is_an_error_not_a_crash(xception: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(xception.read_bytes()[: xception.stat().st_size // 2])
    with pytest.raises(InvalidManifest, match="can't load"):
        Session(half, "cpu", threads=1)
